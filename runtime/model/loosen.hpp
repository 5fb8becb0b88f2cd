// Every way in which a job's network is less closed than "reaches nothing", as a type of its own. Only the step that read
// the operator's trust file can make one, and each that was used stands in the evidence: to find out who may open what,
// search for these names.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "model/host_name.hpp"
#include "model/ipv4.hpp"

namespace cellrund::admit {
class EgressGrants;
}

namespace cellrund::model {

// Trust file: "public". Rules may name addresses outside kNeverReached and kPrivateRanges.
class AllowPublic {
 private:
  friend class admit::EgressGrants;
  AllowPublic() = default;
};

// Trust file: "private:CIDR". Takes one range out of kPrivateRanges; kNeverReached, the router and the host stay.
class AllowPrivate {
 public:
  [[nodiscard]] const Ipv4Prefix& range() const noexcept { return range_; }

 private:
  friend class admit::EgressGrants;
  explicit AllowPrivate(const Ipv4Prefix& range) : range_(range) {}
  Ipv4Prefix range_;
};

// Trust file: "wildcard:*.NAME". Rules may name everything below a name; whoever serves that name can be sent anything in
// the labels that a job asks for, so the record calls such a job tunnel-capable.
class AllowWildcard {
 public:
  [[nodiscard]] const HostName& name() const noexcept { return name_; }

 private:
  friend class admit::EgressGrants;
  explicit AllowWildcard(HostName name) : name_(std::move(name)) {}
  HostName name_;
};

using Relaxation = std::variant<AllowPublic, AllowPrivate, AllowWildcard>;

// As the trust file writes it and the evidence repeats it.
[[nodiscard]] inline std::string text_of(const Relaxation& relaxation) {
  if (const auto* opened = std::get_if<AllowPrivate>(&relaxation); opened != nullptr) {
    return "private:" + opened->range().text();
  }
  const auto* below = std::get_if<AllowWildcard>(&relaxation);
  return below == nullptr ? "public" : "wildcard:" + below->name().text();
}

}  // namespace cellrund::model
