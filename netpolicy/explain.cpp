#include "netpolicy/explain.hpp"

#include <charconv>

namespace cellrund::netpolicy {

using base::Errc;
using base::Error;

std::string Target::text() const {
  return model::format_ipv4(address) + ":" + std::to_string(port) + "/" + std::string(model::to_string(protocol));
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
    return Error(Errc::kUnimplemented, "the target is no IPv4 address, and this version resolves no names");
  }
  target.address = *address;
  return target;
}

Explanation explain(const CompiledPolicy& policy, const Target& target, std::uint64_t now_ns) noexcept {
  Explanation out;
  const DenyEntry* denied = find_deny(policy, target.address);
  if (denied == nullptr) {
    out.reason = CR_NOT_ENFORCING;
    return out;
  }
  if (denied->reason != CR_REASONS) {
    out.reason = denied->reason;
    out.match = denied->prefix;
    return out;
  }
  const AllowEntry* rule = find_allow(policy, target.protocol, target.port, target.address);
  if (rule == nullptr) {
    return out;
  }
  out.rule = rule->rule;
  out.match = rule->prefix;
  out.allowed = now_ns < rule->expires_ns;
  if (!out.allowed) {
    out.reason = CR_EXPIRED;
  }
  return out;
}

}  // namespace cellrund::netpolicy
