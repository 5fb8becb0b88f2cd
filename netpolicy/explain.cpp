#include "netpolicy/explain.hpp"

#include <algorithm>
#include <charconv>

namespace cellrund::netpolicy {

using base::Errc;
using base::Error;

namespace {

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Two labels at least, and the last one is no number: else it is an address that somebody mistyped.
bool is_host(std::string_view text) noexcept {
  constexpr std::string_view kMadeOf = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
  const std::size_t last = text.rfind('.');
  return text.size() <= model::HostName::kLongest && last != std::string_view::npos && last + 1 < text.size() &&
         text.front() != '.' &&
         text.find("..") == std::string_view::npos && text.find_first_not_of(kMadeOf) == std::string_view::npos &&
         text.substr(last + 1).find_first_not_of("0123456789") != std::string_view::npos;
}

// The rule that holds longest, as the resolver's side chooses it (netpolicy/resolver/name_table.cpp).
Explanation explain_name(const CompiledPolicy& policy, const Target& target, std::uint64_t now_ns) noexcept {
  Explanation out;
  const NameRule* best = nullptr;
  for (const NameRule& rule : policy.names) {
    const bool opens = rule.protocol == target.protocol &&
                       std::find(rule.ports.begin(), rule.ports.end(), target.port) != rule.ports.end();
    if (opens && rule.to.matches(target.name) && (best == nullptr || best->expires_ns < rule.expires_ns)) {
      best = &rule;
    }
  }
  if (best == nullptr) {
    return out;
  }
  out.rule = best->rule;
  out.allowed = now_ns < best->expires_ns;
  if (!out.allowed) {
    out.reason = CR_EXPIRED;
  }
  return out;
}

}  // namespace

std::string Target::text() const {
  return (name.empty() ? model::format_ipv4(address) : name) + ":" + std::to_string(port) + "/" +
         std::string(model::to_string(protocol));
}

base::Result<Target> parse_target(std::string_view text) {
  Target target;
  if (const std::size_t slash = text.find('/'); slash != std::string_view::npos) {
    const std::string_view protocol = text.substr(slash + 1);
    if (protocol != "tcp" && protocol != "udp") {
      return Error(Errc::kInvalidArgument, "the protocol is neither tcp nor udp");
    }
    target.protocol = protocol == "tcp" ? model::Transport::kTcp : model::Transport::kUdp;
    text = text.substr(0, slash);
  }
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return Error(Errc::kInvalidArgument, "the target has no port");
  }
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), target.port);
  if (error != std::errc() || end != digits.data() + digits.size() || target.port == 0) {
    return Error(Errc::kInvalidArgument, "the port is not between 1 and 65535");
  }
  const std::string_view host = text.substr(0, colon);
  auto address = model::parse_ipv4(host);
  if (!address.ok()) {
    if (host.find(':') != std::string_view::npos) {
      return Error(Errc::kInvalidArgument, "the target is an IPv6 address, and cells have IPv4 only");
    }
    if (!is_host(host)) {
      return Error(Errc::kInvalidArgument, "the target is neither an IPv4 address nor a host name in full");
    }
    target.name = host;
    std::transform(target.name.begin(), target.name.end(), target.name.begin(), lower);
    return target;
  }
  target.address = *address;
  return target;
}

Explanation explain(const CompiledPolicy& policy, const Target& target, std::uint64_t now_ns) noexcept {
  if (!target.name.empty()) {
    return explain_name(policy, target, now_ns);
  }
  Explanation out;
  const DenyEntry* denied = find_deny(policy, target.address);
  if (denied == nullptr) {
    out.reason = CR_NOT_ENFORCING;
    return out;
  }
  if (const std::uint32_t reason = denial_of(*denied, target.port); reason != CR_REASONS) {
    out.reason = reason;
    out.match = denied->prefix;
    return out;
  }
  const AllowEntry* rule = find_allow(policy, target.protocol, target.port, target.address);
  if (rule == nullptr) {
    return out;
  }
  out.resolver = rule->rule == CR_RULE_RESOLVER;
  out.rule = out.resolver ? std::nullopt : std::optional<std::size_t>(rule->rule);
  out.match = rule->prefix;
  out.allowed = now_ns < rule->expires_ns;
  if (!out.allowed) {
    out.reason = CR_EXPIRED;
  }
  return out;
}

}  // namespace cellrund::netpolicy
