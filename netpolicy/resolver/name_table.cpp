#include "netpolicy/resolver/name_table.hpp"

#include <algorithm>

#include "model/address_ranges.hpp"
#include "netpolicy/verdicts.hpp"

namespace cellrund::netpolicy::resolver {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

bool is_private(std::uint32_t address) noexcept {
  return std::any_of(model::kPrivateRanges.begin(), model::kPrivateRanges.end(),
                     [&](const model::AddressRange& range) { return range.prefix.contains(address); });
}

// What a rule opens at a name, without the address.
using Services = std::map<std::pair<model::Transport, std::uint16_t>, const NameRule*>;

// Where several rules name it, the one that holds longest.
Services services_of(const CompiledPolicy& policy, std::string_view name, std::uint64_t now_ns) {
  Services out;
  for (const NameRule& rule : policy.names) {
    if (now_ns >= rule.expires_ns || !rule.to.matches(name)) {
      continue;
    }
    for (const std::uint16_t port : rule.ports) {
      const NameRule*& best = out[{rule.protocol, port}];
      best = best == nullptr || best->expires_ns < rule.expires_ns ? &rule : best;
    }
  }
  return out;
}

}  // namespace

std::string_view denial_name(std::uint32_t reason) noexcept {
  return reason == CR_FLOW_TABLE ? "table-full" : reason_name(reason);
}

// The deny set as the filter has it; beyond it a name reaches what the signer's grant covers, as a rule with an address
// does. Whoever serves a name chooses its addresses: where a name may be public, only a rule that holds the address says
// that the job means a private one.
std::uint32_t NameTable::denial(std::uint32_t address, std::uint64_t now_ns) const noexcept {
  const DenyEntry* entry = find_deny(policy_, address);
  if (entry == nullptr) {
    return CR_NOT_ENFORCING;
  }
  if (entry->reason != CR_REASONS) {
    return denial_of(*entry, 0);  // the resolver's own port is no exception here
  }
  if (!is_private(address)) {
    return policy_.names_reach_public ? CR_REASONS : CR_DEFAULT_DENY;
  }
  const bool meant = std::any_of(policy_.allow.begin(), policy_.allow.end(), [&](const AllowEntry& rule) {
    return now_ns < rule.expires_ns && rule.prefix.contains(address);
  });
  return meant || !policy_.names_reach_public ? CR_REASONS : CR_PRIVATE;
}

Admitted NameTable::admit(std::string_view name, std::uint32_t ttl, std::span<const std::uint32_t> addresses,
                          std::uint64_t now_ns) {
  Admitted out;
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.expires_ns <= now_ns) {
      out.erase.push_back(it->first);
      it = entries_.erase(it);
    } else {
      ++it;
    }
  }
  const Services services = services_of(policy_, name, now_ns);
  const std::uint64_t seconds = std::clamp<std::uint64_t>(ttl, kShortestSeconds, kLongestSeconds) + kGraceSeconds;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    const bool closed = std::any_of(services.begin(), services.end(), [&](const auto& entry) {
      return blocked_.contains({entry.first.first, entry.first.second, addresses[i]});
    });
    std::uint32_t reason = services.empty() || closed ? std::uint32_t{CR_DEFAULT_DENY} : denial(addresses[i], now_ns);
    if (reason == CR_REASONS && entries_.size() + services.size() > CR_MAX_NAMED) {
      reason = CR_FLOW_TABLE;
    }
    if (reason != CR_REASONS) {
      out.denied.emplace_back(addresses[i], reason);
      continue;
    }
    out.accepted |= std::uint64_t{1} << i;
    for (const auto& [service, rule] : services) {
      NamedEntry& entry = entries_[{service.first, service.second, addresses[i]}];
      const std::uint64_t until = std::min(rule->expires_ns, now_ns + seconds * kSecond);
      if (until >= entry.expires_ns) {  // what another name or an earlier answer has given is not taken back
        entry = {until, rule->expires_ns, rule->rule};
      }
      out.put.emplace_back(NamedService{service.first, service.second, addresses[i]}, entry);
    }
  }
  return out;
}

void NameTable::write(Admitted& admitted, std::span<const std::uint32_t> addresses, const NamedMap& map) {
  for (const NamedService& service : admitted.erase) {
    map.erase(service);
  }
  for (const auto& [service, entry] : admitted.put) {
    if (map.put(service, entry)) {
      continue;
    }
    entries_.erase(service);
    map.erase(service);
    for (std::size_t i = 0; i < addresses.size(); ++i) {
      if (addresses[i] == service.address) {
        admitted.accepted &= ~(std::uint64_t{1} << i);
        admitted.denied.emplace_back(service.address, CR_FLOW_TABLE);
      }
    }
  }
}

}  // namespace cellrund::netpolicy::resolver
