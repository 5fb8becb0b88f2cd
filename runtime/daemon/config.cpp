#include "daemon/config.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <type_traits>

#include "base/file.hpp"
#include "crypto/digest.hpp"
#include "daemon/config_fields.hpp"
#include "model/ipv4.hpp"
#include "netpolicy/resolver/orders.hpp"

namespace cellrund::daemon {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kMaxConfigBytes = 256UL * 1024;
constexpr std::size_t kMaxConfigFiles = 64;
constexpr std::string_view kBuiltIn = "built in";

std::string quote(std::string_view text) {  // a TOML basic string; the rules admit no control characters
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + "\"";
}

std::string render(const std::string& value) { return quote(value); }
std::string render(std::int64_t value) { return std::to_string(value); }
std::string render(bool value) { return value ? "true" : "false"; }
std::string render(const std::vector<std::string>& value) {
  std::string out = "[";
  for (const std::string& entry : value) {
    out += (out.size() > 1 ? ", " : "") + quote(entry);
  }
  return out + "]";
}

std::string key_of(const Field& field) { return std::string(field.section) + "." + std::string(field.key); }

enum class Comments { kNone, kMeaning };

std::string render_all(const Config& config, Comments comments) {
  std::string out;
  std::string_view section;
  visit_fields(config, [&](const Field& field, const auto& value, const auto&... /*rule*/) {
    if (field.section != section) {
      out += (section.empty() ? "[" : "\n[") + std::string(field.section) + "]\n";
      section = field.section;
    }
    if (comments == Comments::kMeaning) {
      out += "# " + std::string(field.help) + "\n";
    }
    out += std::string(field.key) + " = " + render(value) + "\n";
  });
  return out;
}

// Only files that nobody but their owner can change decide what a node trusts.
base::Result<std::string> read_config_file(const std::string& path) {
  const base::UniqueFd fd = CR_TRY(base::open_file(path, O_RDONLY | O_NONBLOCK));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) {
    return Error::from_errno("stat " + path);
  }
  if (!S_ISREG(st.st_mode)) {
    return Error(Errc::kInvalidArgument, path + ": not a regular file");
  }
  if ((st.st_uid != 0 && st.st_uid != ::geteuid()) || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Error(Errc::kPermissionDenied, path + ": must be owned by root and writable by its owner alone");
  }
  return base::read_fd(fd.get(), kMaxConfigBytes).context("read " + path);
}

std::string folder_beside(const std::string& file) {
  const std::size_t slash = file.find_last_of('/');
  return (slash == std::string::npos ? std::string() : file.substr(0, slash + 1)) + "config.d";
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    parts.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

std::string take(std::string_view text, std::string& out, const TextRule& rule) {
  out = text;
  return check_text(out, rule);
}
std::string take(std::string_view text, std::vector<std::string>& out, const TextRule& rule) {
  out = split_list(text);
  for (const std::string& entry : out) {
    if (std::string problem = check_text(entry, rule); !problem.empty()) {
      return "each entry " + problem;
    }
  }
  return {};
}
std::string take(std::string_view text, std::int64_t& out, const NumberRule& rule) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) {
    return "must be an integer";
  }
  return check_number(out, rule);
}
std::string take(std::string_view text, bool& out) {
  out = text == "true";
  return text == "true" || text == "false" ? "" : "must be true or false";
}

std::string variable_of(const Field& field) {
  std::string name = "CELLRUN_" + std::string(field.section) + "_" + std::string(field.key);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return name;
}

base::Status read_environment(Config& config, Origins& origins, const std::vector<std::string>& environment) {
  for (const std::string& variable : environment) {
    const std::size_t equals = variable.find('=');
    if (!variable.starts_with("CELLRUN_") || equals == std::string::npos) {
      continue;
    }
    const std::string name = variable.substr(0, equals);
    const std::string_view text = std::string_view(variable).substr(equals + 1);
    std::string problem;
    visit_fields(config, [&](const Field& field, auto& value, const auto&... rule) {
      if (variable_of(field) == name) {
        problem = take(text, value, rule...);
        origins.set(field, "environment variable " + name);
      }
    });
    if (!problem.empty()) {
      return Error(Errc::kInvalidArgument, "environment variable " + name + ": " + problem);
    }
  }
  return base::ok();
}

base::Status fill_derived(Config& c) {
  const auto derive = [](std::string& value, std::string fallback) {
    if (value.empty()) {
      value = std::move(fallback);
    }
  };
  if (c.node.id.empty()) {
    std::array<char, 65> name{};
    if (::gethostname(name.data(), name.size() - 1) != 0) {
      return Error::from_errno("gethostname");
    }
    c.node.id = name.data();
    if (!check_text(c.node.id, TextRule{TextKind::kName}).empty()) {
      return Error(Errc::kInvalidArgument, "node.id: the host name is no usable name: set it");
    }
  }
  const bool embedded = c.containerd.mode == "embedded";
  derive(c.paths.socket, c.paths.run + "/cellrund.sock");
  derive(c.paths.admin_socket, c.paths.run + "/admin.sock");
  derive(c.paths.shim, CELLRUN_LIBEXECDIR);
  derive(c.paths.guest, c.paths.state + "/guest");
  derive(c.containerd.socket, embedded ? c.paths.run + "/containerd/containerd.sock" : "/run/containerd/containerd.sock");
  derive(c.containerd.root, embedded ? c.paths.state + "/containerd" : "/var/lib/containerd");
  derive(c.containerd.state, embedded ? c.paths.run + "/containerd/state" : "/run/containerd");
  return base::ok();
}

// What no single key can say.
base::Status check_together(const Config& c) {
  const auto wrong = [](std::string message) { return base::Status(Error(Errc::kInvalidArgument, std::move(message))); };
  for (const auto& [key, path] : {std::pair<const char*, const std::string&>{"paths.state", c.paths.state},
                                  {"paths.run", c.paths.run},
                                  {"paths.trust", c.paths.trust},
                                  {"paths.node_key", c.paths.node_key},
                                  {"paths.node_pub", c.paths.node_pub},
                                  {"containerd.binary", c.containerd.binary},
                                  {"containerd.namespace", c.containerd.namespace_}}) {
    if (path.empty()) {
      return wrong(std::string(key) + ": must not be empty");
    }
  }
  for (const auto& [key, path] : {std::pair<const char*, const std::string&>{"paths.socket", c.paths.socket},
                                  {"paths.admin_socket", c.paths.admin_socket},
                                  {"containerd.socket", c.containerd.socket}}) {
    if (const std::string problem = check_text(path, TextRule{TextKind::kSocket}); !problem.empty()) {
      return wrong(std::string(key) + ": " + problem);
    }
  }
  if (c.paths.socket == c.paths.admin_socket) {
    return wrong("paths.admin_socket: must differ from paths.socket");
  }
  if (c.paths.node_key == c.paths.node_pub) {
    return wrong("paths.node_pub: must differ from paths.node_key");
  }
  if (c.network.dns_upstream.size() > netpolicy::resolver::kMaxUpstreams) {
    return wrong("network.dns_upstream: at most " + std::to_string(netpolicy::resolver::kMaxUpstreams) + " name servers");
  }
  if (c.lanes.uid_base + c.lanes.uid_count > std::int64_t{4294967294}) {  // (uid_t)-1 means "no uid"
    return wrong("lanes.uid_count: the range ends above the highest uid");
  }
  if (c.lanes.uid_base <= 65534 && 65534 < c.lanes.uid_base + c.lanes.uid_count) {
    return wrong("lanes.uid_base: the range contains 65534 (nobody)");
  }
  if (c.capacity.cells > c.lanes.uid_count) {
    return wrong("capacity.cells: more cells than lanes.uid_count has uids");
  }
  return base::ok();
}

}  // namespace

std::string check_text(const std::string& value, const TextRule& rule) {
  const auto printable = [](char c) { return c >= 0x20 && c < 0x7f; };
  if (!std::all_of(value.begin(), value.end(), printable)) {
    return "must be printable ASCII";
  }
  switch (rule.kind) {
    case TextKind::kName: {
      const auto allowed = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
      };
      return value.size() <= 128 && std::all_of(value.begin(), value.end(), allowed)
                 ? ""
                 : "must be at most 128 letters, digits, '.', '-' or '_'";
    }
    case TextKind::kSocket:
      if (value.size() >= sizeof(sockaddr_un::sun_path)) {
        return "is too long for a Unix socket (" + std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes)";
      }
      [[fallthrough]];
    case TextKind::kPath:
      if (value.empty()) {
        return "";
      }
      return value.size() <= 512 && value.front() == '/' && value.find("/../") == std::string::npos &&
                     !value.ends_with("/..") && (value.size() == 1 || value.back() != '/')
                 ? ""
                 : "must be an absolute path without \"..\" and without a slash at its end";
    case TextKind::kLink: {
      // IFNAMSIZ - 1. The names of net.ipv4.conf that are no interface's, and the one that leads nowhere.
      constexpr std::size_t kLongest = 15;
      constexpr std::array<std::string_view, 5> kNoLinks{"all", "default", "lo", ".", ".."};
      const bool fine = !value.empty() && value.size() <= kLongest && check_text(value, {TextKind::kName}).empty() &&
                        std::find(kNoLinks.begin(), kNoLinks.end(), value) == kNoLinks.end();
      return fine ? "" : "must be \"none\" or the name of a network interface";
    }
    case TextKind::kResolver: {
      constexpr model::Ipv4Prefix kLoopback{0x7f000000, 8};
      const auto address = model::parse_ipv4(value);
      if (!address.ok()) {
        return "must be an IPv4 address";
      }
      return kLoopback.contains(*address) ? "must not be a loopback address: resolvers ask from the router's namespace, not the host's" : "";
    }
    case TextKind::kChoice: break;
  }
  if (std::find(rule.choices.begin(), rule.choices.end(), value) != rule.choices.end()) {
    return "";
  }
  std::string problem = "must be one of";
  for (const std::string_view choice : rule.choices) {
    problem += (choice == rule.choices.front() ? " " : ", ") + std::string(choice);
  }
  return problem;
}

std::string check_number(std::int64_t value, const NumberRule& rule) {
  if (value >= rule.min && value <= rule.max) {
    return "";
  }
  return "must be from " + std::to_string(rule.min) + " to " + std::to_string(rule.max);
}

void Origins::set(const Field& field, std::string source) {
  const std::string key = key_of(field);
  for (auto& [known, origin] : of) {
    if (known == key) {
      origin = std::move(source);
      return;
    }
  }
  of.emplace_back(key, std::move(source));
}

std::string Origins::get(const Field& field) const {
  const std::string key = key_of(field);
  for (const auto& [known, origin] : of) {
    if (known == key) {
      return origin;
    }
  }
  return std::string(kBuiltIn);
}

base::Result<LoadedConfig> load_config(const ConfigInput& input) {
  LoadedConfig loaded;
  Origins origins;
  std::vector<std::string> files;
  if (input.file_must_exist || base::exists(input.file)) {
    files.push_back(input.file);
  }
  const std::string folder = folder_beside(input.file);
  if (base::exists(folder)) {
    std::vector<std::string> names = CR_TRY(base::list_dir(folder, kMaxConfigFiles).context("list " + folder));
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      if (name.ends_with(".toml")) {
        files.push_back(folder + "/" + name);
      }
    }
  }
  for (const std::string& file : files) {
    const std::string text = CR_TRY(read_config_file(file));
    CR_CHECK(read_toml(loaded.config, origins, file, text));
  }
  CR_CHECK(read_environment(loaded.config, origins, input.environment));
  CR_CHECK(fill_derived(loaded.config));
  CR_CHECK(check_together(loaded.config));
  visit_fields(std::as_const(loaded.config), [&](const Field& field, const auto& value, const auto&... /*rule*/) {
    loaded.sources.push_back({key_of(field), render(value), origins.get(field)});
  });
  return loaded;
}

std::string dump_config(const Config& config) { return render_all(config, Comments::kNone); }
std::string default_config_text() { return render_all(Config{}, Comments::kMeaning); }
std::string config_digest(const Config& config) {
  return crypto::digest_text(base::as_bytes(dump_config(config)));
}

}  // namespace cellrund::daemon
