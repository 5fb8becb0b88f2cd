// What a signer's key may open (the `egress` list of its trust entry), and whether a policy stays inside it. The only
// maker of relaxations. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/egress.hpp"
#include "model/loosen.hpp"
#include "model/outcome.hpp"

namespace cellrund::admit {

class EgressGrants {
 public:
  // Entries as parse_trust_file() checked them.
  static EgressGrants from(std::span<const std::string> entries);

  // PolicyDenied naming the first rule that asks for more, or nothing.
  [[nodiscard]] std::optional<model::Refusal> check(const model::EgressPolicy& policy) const;
  // What a policy that passed check() needs of this grant, in a fixed order and each once. A private range is opened as
  // granted, as soon as any rule overlaps it or names a host; inside it the rules alone allow.
  [[nodiscard]] std::vector<model::Relaxation> relaxations_for(const model::EgressPolicy& policy) const;

 private:
  [[nodiscard]] std::optional<model::Refusal> check_prefix(std::size_t rule, const model::Ipv4Prefix& to) const;
  [[nodiscard]] std::optional<model::Refusal> check_name(std::size_t rule, const model::HostName& to) const;

  bool public_ = false;
  std::vector<model::Ipv4Prefix> private_;
  std::vector<model::HostName> wildcards_;
};

}  // namespace cellrund::admit
