#include "admit/egress_grants.hpp"

#include <algorithm>

#include "model/address_ranges.hpp"

namespace cellrund::admit {
namespace {

using model::Ipv4Prefix;

template <std::size_t N>
const model::AddressRange* range_around(const std::array<model::AddressRange, N>& ranges, const Ipv4Prefix& prefix) {
  const model::AddressRange* found = nullptr;
  for (const model::AddressRange& range : ranges) {
    if (range.prefix.contains(prefix) && (found == nullptr || range.prefix.length > found->prefix.length)) {
      found = &range;
    }
  }
  return found;
}

template <typename Target>
model::Refusal denied(std::size_t rule, const char* member, const Target& to, const std::string& why, std::string hint) {
  std::string field = model::rule_field(rule) + ".to." + member;
  std::string message = field + " " + to.text() + " " + why;
  return {model::Reason::kPolicyDenied, std::move(message), std::move(hint), std::move(field)};
}

}  // namespace

EgressGrants EgressGrants::from(std::span<const std::string> entries) {
  constexpr std::string_view kPrivate = "private:";
  constexpr std::string_view kWildcard = "wildcard:";
  EgressGrants out;
  for (const std::string& entry : entries) {
    if (entry == "public") {
      out.public_ = true;
    } else if (entry.starts_with(kPrivate)) {
      if (const auto range = model::parse_ipv4_prefix(std::string_view(entry).substr(kPrivate.size())); range.ok()) {
        out.private_.push_back(*range);
      }
    } else if (entry.starts_with(kWildcard)) {
      out.wildcards_.push_back(model::host_name_of(std::string_view(entry).substr(kWildcard.size())));
    }
  }
  return out;
}

std::optional<model::Refusal> EgressGrants::check_prefix(std::size_t rule, const Ipv4Prefix& to) const {
  if (const auto* never = range_around(model::kNeverReached, to); never != nullptr) {
    return denied(rule, "cidr", to, "can never be reached: it is " + std::string(never->name), "remove the rule");
  }
  if (range_around(model::kPrivateRanges, to) != nullptr) {
    if (std::none_of(private_.begin(), private_.end(), [&](const Ipv4Prefix& range) { return range.contains(to); })) {
      return denied(rule, "cidr", to, "is private, and the signing key may not open it",
                    "have \"private:" + to.text() + "\" added to the key's egress list");
    }
  } else if (!public_) {
    return denied(rule, "cidr", to, "is public, and the signing key may not open it",
                  "have \"public\" added to the key's egress list");
  }
  return std::nullopt;
}

// Which addresses a name has is decided when it is asked for: by what of the grant the filter was given.
std::optional<model::Refusal> EgressGrants::check_name(std::size_t rule, const model::HostName& to) const {
  if (to.wildcard && std::none_of(wildcards_.begin(), wildcards_.end(), [&](const auto& below) { return below.covers(to); })) {
    return denied(rule, "fqdn", to, "stands for many names, and the signing key may not open it",
                  "name the hosts one by one, or have \"wildcard:" + to.text() + "\" added to the key's egress list");
  }
  if (!public_ && private_.empty()) {
    return denied(rule, "fqdn", to, "could have no address that the signing key may open",
                  "have \"public\", or \"private:\" and a range, added to the key's egress list");
  }
  return std::nullopt;
}

std::optional<model::Refusal> EgressGrants::check(const model::EgressPolicy& policy) const {
  for (std::size_t i = 0; i < policy.rules.size(); ++i) {
    const model::EgressRule& rule = policy.rules[i];
    auto refusal = rule.prefix() != nullptr ? check_prefix(i, *rule.prefix()) : check_name(i, *rule.name());
    if (refusal.has_value()) {
      return refusal;
    }
  }
  return std::nullopt;
}

std::vector<model::Relaxation> EgressGrants::relaxations_for(const model::EgressPolicy& policy) const {
  std::vector<model::Relaxation> out;
  const auto any_rule = [&](auto holds) { return std::any_of(policy.rules.begin(), policy.rules.end(), holds); };
  // A name alone opens private ranges only for a key that has nothing else: a public name could be bound to them.
  const bool by_name = policy.names_hosts() && !public_;
  if (public_ && any_rule([](const auto& rule) {
        return rule.prefix() == nullptr || range_around(model::kPrivateRanges, *rule.prefix()) == nullptr;
      })) {
    out.emplace_back(model::AllowPublic());
  }
  std::vector<Ipv4Prefix> opened;
  for (const Ipv4Prefix& range : private_) {
    for (const model::AddressRange& block : model::kPrivateRanges) {
      if (!block.prefix.overlaps(range)) {
        continue;
      }
      const Ipv4Prefix both = block.prefix.contains(range) ? range : block.prefix;
      const auto overlaps = [&](const auto& rule) { return rule.prefix() != nullptr && rule.prefix()->overlaps(both); };
      if (by_name || any_rule(overlaps)) {
        opened.push_back(both);
      }
    }
  }
  std::sort(opened.begin(), opened.end());
  opened.erase(std::unique(opened.begin(), opened.end()), opened.end());
  for (const Ipv4Prefix& range : opened) {
    out.emplace_back(model::AllowPrivate(range));
  }
  for (const model::HostName& below : wildcards_) {
    if (any_rule([&](const auto& rule) { return rule.name() != nullptr && rule.name()->wildcard && below.covers(*rule.name()); })) {
      out.emplace_back(model::AllowWildcard(below));
    }
  }
  return out;
}

}  // namespace cellrund::admit
