#include "shim/annotations.hpp"

#include <charconv>
#include <limits>

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;

constexpr std::string_view kPrefix = "dev.cellrun.";
constexpr std::int64_t kMaxMilliseconds = std::int64_t{366} * 24 * 3600 * 1000;

Error bad(std::string_view key, std::string_view why) {
  return Error(Errc::kInvalidArgument, "annotation " + std::string(key) + ": " + std::string(why));
}

Result<std::int64_t> number(std::string_view key, std::string_view text, std::int64_t low, std::int64_t high) {
  std::int64_t value = 0;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (err != std::errc{} || end != text.data() + text.size() || value < low || value > high) {
    return bad(key, "not a number between " + std::to_string(low) + " and " + std::to_string(high));
  }
  return value;
}

Result<wire::NetworkConfig> network(std::string_view key, const std::string& text, std::string& nameserver) {
  const base::json::Value value = CR_TRY(base::json::parse(text, {.max_bytes = 4096, .max_depth = 2}).context(key));
  const base::json::Object* object = value.as_object();
  if (object == nullptr) {
    return bad(key, "not an object");
  }
  wire::NetworkConfig config;
  bool has_mac = false;
  bool has_address = false;
  for (const auto& [name, member] : object->members()) {
    const std::string* word = member.as_string();
    if (name == "mtu") {
      const std::int64_t* mtu = member.as_int();
      if (mtu == nullptr || *mtu < 576 || *mtu > 65535) {
        return bad(key, "mtu is not a number between 576 and 65535");
      }
      config.mtu = static_cast<std::uint32_t>(*mtu);
    } else if (word == nullptr) {
      return bad(key, "a member is not a string");
    } else if (name == "mac" || name == "gatewayMac") {
      const auto mac = wire::parse_mac(*word);
      if (!mac.has_value()) {
        return bad(key, name + " is not a MAC address");
      }
      (name == "mac" ? config.mac : config.gateway_mac) = *mac;
      has_mac = has_mac || name == "mac";
    } else if (name == "address") {
      const std::size_t slash = word->find('/');
      const auto address = wire::parse_ipv4(std::string_view(*word).substr(0, slash));
      if (slash == std::string::npos || !address.has_value()) {
        return bad(key, "address is not ADDRESS/PREFIX");
      }
      config.address = *address;
      config.prefix = static_cast<std::uint8_t>(CR_TRY(number(key, std::string_view(*word).substr(slash + 1), 1, 32)));
      has_address = true;
    } else if (name == "gateway") {
      const auto gateway = wire::parse_ipv4(*word);
      if (!gateway.has_value()) {
        return bad(key, "gateway is not an IPv4 address");
      }
      config.gateway = *gateway;
    } else if (name == "nameserver") {
      if (!wire::parse_ipv4(*word).has_value()) {
        return bad(key, "nameserver is not an IPv4 address");
      }
      nameserver = *word;
    } else {
      return bad(key, "unknown member");
    }
  }
  if (!has_mac || !has_address) {
    return bad(key, "mac and address are required");
  }
  return config;
}

Result<OutputsAnnotation> outputs(std::string_view key, const std::string& text) {
  const base::json::Value value = CR_TRY(base::json::parse(text, {.max_bytes = 4096, .max_depth = 2}).context(key));
  const base::json::Object* object = value.as_object();
  if (object == nullptr || object->size() != 3) {
    return bad(key, "not an object of socket, maxBytes and maxFiles");
  }
  OutputsAnnotation out;
  const auto count = [&](std::string_view name, std::uint64_t high) -> Result<std::uint64_t> {
    const base::json::Value* member = object->find(name);
    const std::int64_t* n = member == nullptr ? nullptr : member->as_int();
    if (n == nullptr || *n < 1 || static_cast<std::uint64_t>(*n) > high) {
      return bad(key, std::string(name) + " is not a number between 1 and " + std::to_string(high));
    }
    return static_cast<std::uint64_t>(*n);
  };
  out.plan.max_bytes = CR_TRY(count("maxBytes", wire::kMaxOutputBytes));
  out.plan.max_files = CR_TRY(count("maxFiles", wire::kMaxOutputFiles));
  const base::json::Value* socket = object->find("socket");
  const std::string* path = socket == nullptr ? nullptr : socket->as_string();
  if (path == nullptr || path->empty() || path->front() != '/') {
    return bad(key, "socket is no absolute path");
  }
  out.socket = *path;
  return out;
}

}  // namespace

Result<Annotations> parse_annotations(const base::json::Object* annotations) {
  Annotations out;
  if (annotations == nullptr) {
    return out;
  }
  for (const auto& [key, value] : annotations->members()) {
    if (!key.starts_with(kPrefix)) {
      continue;
    }
    const std::string* text = value.as_string();
    if (text == nullptr) {
      return bad(key, "not a string");
    }
    const std::string_view name = std::string_view(key).substr(kPrefix.size());
    if (name == "uid") {
      if (text->empty() || text->size() > 64) {
        return bad(key, "empty or too long");
      }
      out.job_uid = *text;
    } else if (name == "active-deadline-ms") {
      out.active_deadline = std::chrono::milliseconds(CR_TRY(number(key, *text, 1, kMaxMilliseconds)));
    } else if (name == "grace-ms") {
      out.grace = std::chrono::milliseconds(CR_TRY(number(key, *text, 0, kMaxMilliseconds)));
    } else if (name == "stop-signal") {
      out.stop_signal = static_cast<int>(CR_TRY(number(key, *text, 1, 64)));
    } else if (name == "vmm-uid") {
      // Root is no uid for a VMM, and (uid_t)-1 means "unchanged" to setresuid(2).
      constexpr std::int64_t kHighest = std::numeric_limits<std::uint32_t>::max() - std::int64_t{1};
      out.vmm_uid = static_cast<std::uint32_t>(CR_TRY(number(key, *text, 1, kHighest)));
    } else if (name == "secrets") {
      if (text->empty() || text->front() != '/' || text->size() > 107) {  // sun_path (unix(7))
        return bad(key, "not the absolute path of a socket");
      }
      out.secrets_socket = *text;
    } else if (name == "network") {
      out.network = CR_TRY(network(key, *text, out.nameserver));
    } else if (name == "outputs") {
      out.outputs = CR_TRY(outputs(key, *text));
    } else {
      return bad(key, "unknown");
    }
  }
  return out;
}

}  // namespace cellrund::shim
