#include "netpolicy/policy.hpp"

#include <algorithm>
#include <limits>
#include <map>

#include "crypto/digest.hpp"
#include "model/address_ranges.hpp"

namespace cellrund::netpolicy {
namespace {

using model::Ipv4Prefix;

constexpr std::uint8_t kHostLength = 32;

std::uint32_t reason_of(model::RangeKind kind) noexcept {
  switch (kind) {
    case model::RangeKind::kThisNetwork: return CR_THIS_NETWORK;
    case model::RangeKind::kLoopback: return CR_LOOPBACK;
    case model::RangeKind::kMetadata: return CR_METADATA;
    case model::RangeKind::kLinkLocal: return CR_LINK_LOCAL;
    case model::RangeKind::kCellNetwork: return CR_CELL_NETWORK;
    case model::RangeKind::kMulticast: return CR_MULTICAST;
    case model::RangeKind::kReserved: return CR_RESERVED;
    case model::RangeKind::kBroadcast: return CR_BROADCAST;
    case model::RangeKind::kPrivate: return CR_PRIVATE;
  }
  return CR_RESERVED;
}

bool never_reached(std::uint32_t address) noexcept {
  return std::any_of(model::kNeverReached.begin(), model::kNeverReached.end(),
                     [&](const model::AddressRange& range) { return range.prefix.contains(address); });
}

// Later entries win over earlier ones of the same prefix, so what no grant opens comes last.
std::vector<DenyEntry> deny_entries(std::span<const model::Relaxation> relaxations, const NodeFacts& facts, bool resolver) {
  std::map<Ipv4Prefix, std::uint32_t> reasons{{Ipv4Prefix{}, CR_REASONS}};
  for (const model::AddressRange& range : model::kPrivateRanges) {
    reasons[range.prefix] = reason_of(range.kind);
  }
  for (const model::Relaxation& relaxation : relaxations) {
    if (const auto* opened = std::get_if<model::AllowPrivate>(&relaxation); opened != nullptr) {
      reasons[opened->range()] = CR_REASONS;
    }
  }
  for (const std::uint32_t address : facts.host_addresses) {
    if (!never_reached(address)) {  // 127.0.0.1 is loopback, whoever has it
      reasons[{address, kHostLength}] = CR_HOST;
    }
  }
  for (const model::AddressRange& range : model::kNeverReached) {
    reasons[range.prefix] = reason_of(range.kind);
  }
  reasons[{facts.router, kHostLength}] = resolver ? CR_ROUTER_BUT_DNS : CR_ROUTER;
  std::vector<DenyEntry> out;
  for (const auto& [prefix, reason] : reasons) {
    out.push_back({prefix, reason});
  }
  return out;
}

// What has expired before the machine was started keeps an entry of the first nanosecond, and so its reason.
std::uint64_t boot_time_of(const std::optional<base::WallTime>& wall, const NodeFacts& facts) noexcept {
  constexpr std::int64_t kSecond = 1'000'000'000;
  if (!wall.has_value()) {
    return CR_NEVER;
  }
  if (wall->seconds > std::numeric_limits<std::int64_t>::max() / kSecond / 2) {
    return CR_NEVER - 1;
  }
  const std::int64_t boot = wall->seconds * kSecond + wall->nanos + facts.boot_offset_ns;
  return boot < 1 ? 1 : static_cast<std::uint64_t>(boot);
}

bool same_service(const AllowEntry& a, const AllowEntry& b) noexcept {
  return a.protocol == b.protocol && a.port == b.port;
}

// The kernel looks at the longest prefix alone, so each must hold as long as any that contains it.
std::vector<AllowEntry> allow_entries(const model::EgressPolicy& policy, const NodeFacts& facts) {
  std::vector<AllowEntry> all;
  if (policy.names_hosts()) {
    for (const model::Transport protocol : {model::Transport::kTcp, model::Transport::kUdp}) {
      all.push_back({protocol, CR_DNS_PORT, {facts.router, kHostLength}, CR_NEVER, CR_RULE_RESOLVER});
    }
  }
  for (std::size_t i = 0; i < policy.rules.size(); ++i) {
    const model::EgressRule& rule = policy.rules[i];
    if (rule.prefix() == nullptr) {
      continue;
    }
    const std::uint64_t expires = boot_time_of(rule.expires_at, facts);
    for (const std::uint16_t port : rule.ports) {
      all.push_back({rule.protocol, port, *rule.prefix(), expires, static_cast<std::uint32_t>(i)});
    }
  }
  // A prefix comes before all that it contains; of the same prefix the one that holds longest comes first.
  std::sort(all.begin(), all.end(), [](const AllowEntry& a, const AllowEntry& b) {
    const auto place = [](const AllowEntry& e) { return std::tuple(e.protocol, e.port, e.prefix, ~e.expires_ns, e.rule); };
    return place(a) < place(b);
  });
  std::vector<AllowEntry> out;
  std::vector<AllowEntry> around;  // kept entries that contain the one looked at, from the outermost in
  for (const AllowEntry& entry : all) {
    while (!around.empty() &&
           (!same_service(around.back(), entry) || !around.back().prefix.contains(entry.prefix))) {
      around.pop_back();
    }
    if (!around.empty() && around.back().expires_ns >= entry.expires_ns) {
      continue;
    }
    around.push_back(entry);
    out.push_back(entry);
  }
  return out;
}

std::vector<NameRule> name_rules(const model::EgressPolicy& policy, const NodeFacts& facts) {
  std::vector<NameRule> out;
  for (std::size_t i = 0; i < policy.rules.size(); ++i) {
    const model::EgressRule& rule = policy.rules[i];
    if (rule.name() != nullptr) {
      out.push_back({*rule.name(), rule.protocol, rule.ports, boot_time_of(rule.expires_at, facts), static_cast<std::uint32_t>(i)});
    }
  }
  return out;
}

std::string quota_text(const char* name, const std::optional<std::uint64_t>& value) {
  return value.has_value() ? std::string("quota ") + name + " " + std::to_string(*value) + "\n" : std::string();
}

// One line per rule in their order, in the words of the jobspec: the text does not depend on the node.
std::string canonical_text(const model::EgressPolicy& policy) {
  std::string out = "cellrun-egress-policy v1\ndefault deny\n";
  for (const model::EgressRule& rule : policy.rules) {
    out += "allow " + std::string(model::to_string(rule.protocol)) + " " +
           std::visit([](const auto& to) { return to.text(); }, rule.to);
    std::vector<std::uint16_t> ports = rule.ports;
    std::sort(ports.begin(), ports.end());
    for (const std::uint16_t port : ports) {
      out += " " + std::to_string(port);
    }
    out += rule.expires_at.has_value() ? " until " + base::format_rfc3339(*rule.expires_at, true) + "\n" : "\n";
  }
  const model::EgressQuota& quota = policy.quota;
  return out + quota_text("bytes", quota.bytes) + quota_text("packets", quota.packets) +
         quota_text("connections", quota.connections) + quota_text("dnsQueries", quota.dns_queries) +
         quota_text("bytesPerSecond", quota.bytes_per_second);
}

}  // namespace

CompiledPolicy compile(const model::EgressPolicy& policy, std::span<const model::Relaxation> relaxations,
                       const NodeFacts& facts) {
  CompiledPolicy out;
  out.deny = deny_entries(relaxations, facts, policy.names_hosts());
  out.allow = allow_entries(policy, facts);
  out.names = name_rules(policy, facts);
  out.quota = policy.quota;
  out.policy_digest = crypto::digest_text(base::as_bytes(canonical_text(policy)));
  for (const model::Relaxation& relaxation : relaxations) {
    out.relaxations.push_back(model::text_of(relaxation));
    out.names_reach_public = out.names_reach_public || std::holds_alternative<model::AllowPublic>(relaxation);
  }
  return out;
}

std::uint32_t denial_of(const DenyEntry& entry, std::uint16_t port) noexcept {
  if (entry.reason != CR_ROUTER_BUT_DNS) {
    return entry.reason;
  }
  return port == CR_DNS_PORT ? CR_REASONS : CR_ROUTER;
}

const DenyEntry* find_deny(const CompiledPolicy& policy, std::uint32_t address) noexcept {
  const DenyEntry* found = nullptr;
  for (const DenyEntry& entry : policy.deny) {
    if (entry.prefix.contains(address) && (found == nullptr || entry.prefix.length > found->prefix.length)) {
      found = &entry;
    }
  }
  return found;
}

const AllowEntry* find_allow(const CompiledPolicy& policy, model::Transport protocol, std::uint16_t port,
                             std::uint32_t address) noexcept {
  const AllowEntry* found = nullptr;
  for (const AllowEntry& entry : policy.allow) {
    if (entry.protocol == protocol && entry.port == port && entry.prefix.contains(address) &&
        (found == nullptr || entry.prefix.length > found->prefix.length)) {
      found = &entry;
    }
  }
  return found;
}

std::string map_digest(std::vector<DenyEntry> deny, std::vector<AllowEntry> allow) {
  std::sort(deny.begin(), deny.end());
  std::sort(allow.begin(), allow.end());
  std::string text = "cellrun-egress-maps v1\n";
  for (const DenyEntry& entry : deny) {
    text += "deny " + entry.prefix.text() + " " + std::to_string(entry.reason) + "\n";
  }
  for (const AllowEntry& entry : allow) {
    text += "allow " + std::string(model::to_string(entry.protocol)) + " " + std::to_string(entry.port) + " " +
            entry.prefix.text() + " " + std::to_string(entry.expires_ns) + " " + std::to_string(entry.rule) + "\n";
  }
  return crypto::digest_text(base::as_bytes(text));
}

}  // namespace cellrund::netpolicy
