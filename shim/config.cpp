#include "shim/config.hpp"

#include <cstdlib>
#include <limits>
#include <sstream>

#include <toml++/toml.h>

#include "base/file.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

Error bad(std::string_view source, std::string_view key, std::string_view why) {
  return Error(Errc::kInvalidArgument, std::string(source) + ": " + std::string(key) + ": " + std::string(why));
}

// The value when it is an integer within the bounds.
std::optional<std::int64_t> integer(const toml::node& node, std::int64_t low, std::int64_t high) {
  const auto value = node.value_exact<std::int64_t>();
  return value.has_value() && *value >= low && *value <= high ? value : std::nullopt;
}

Status read_key(Config& config, std::string_view key, const toml::node& node, std::string_view source) {
  std::string* path = key == "qemu"         ? &config.qemu
                      : key == "kernel"     ? &config.kernel
                      : key == "initrd"     ? &config.initrd
                      : key == "mkfs_erofs" ? &config.mkfs_erofs
                      : key == "state_dir"  ? &config.state_dir
                                            : nullptr;
  if (path != nullptr) {
    const auto text = node.value_exact<std::string>();
    if (!text.has_value() || text->empty() || text->front() != '/') {
      return bad(source, key, "not an absolute path");
    }
    *path = *text;
    return base::ok();
  }
  if (key == "accel") {
    const std::string text = node.value_exact<std::string>().value_or("");
    if (text != "auto" && text != "kvm" && text != "tcg") {
      return bad(source, key, "not auto, kvm or tcg");
    }
    config.accel = text == "auto" ? Accel::kAuto : text == "kvm" ? Accel::kKvm : Accel::kTcg;
    return base::ok();
  }
  if (key == "uid_range") {
    const toml::array* range = node.as_array();
    const auto base_uid = range != nullptr && range->size() == 2 ? integer((*range)[0], 1000, 4'000'000'000) : std::nullopt;
    const auto count = base_uid.has_value() ? integer((*range)[1], 1, 1'000'000) : std::nullopt;
    if (!count.has_value() || *base_uid + *count >= std::numeric_limits<std::uint32_t>::max()) {
      return bad(source, key, "not [base, count] with base from 1000 and count from 1");
    }
    config.uid_base = static_cast<std::uint32_t>(*base_uid);
    config.uid_count = static_cast<std::uint32_t>(*count);
    return base::ok();
  }
  std::chrono::seconds* seconds = key == "boot_timeout_seconds"    ? &config.boot_timeout
                                  : key == "probe_timeout_seconds" ? &config.probe_timeout
                                                                   : nullptr;
  if (seconds == nullptr) {
    return bad(source, key, "unknown key");
  }
  const auto value = integer(node, 1, 3600);
  if (!value.has_value()) {
    return bad(source, key, "not a number between 1 and 3600");
  }
  *seconds = std::chrono::seconds(*value);
  return base::ok();
}

}  // namespace

std::string_view to_string(Accel accel) noexcept {
  switch (accel) {
    case Accel::kAuto: return "auto";
    case Accel::kKvm: return "kvm";
    case Accel::kTcg: return "tcg";
  }
  return "auto";
}

Result<Config> parse_config(std::string_view toml, std::string_view source_name) {
  toml::table table;
  try {
    table = toml::parse(toml, source_name);
  } catch (const toml::parse_error& error) {
    std::ostringstream at;
    at << source_name << ": line " << error.source().begin.line << ": " << error.description();
    return Error(Errc::kInvalidArgument, at.str());
  }
  Config config;
  for (const auto& [key, node] : table) {
    CR_CHECK(read_key(config, key.str(), node, source_name));
  }
  return config;
}

Result<Config> load_config(const std::string& explicit_path) {
  const char* from_environment = ::secure_getenv("CELLRUN_SHIM_CONFIG");
  std::string path = explicit_path;
  if (path.empty() && from_environment != nullptr) {
    path = from_environment;
  }
  const bool optional = path.empty();
  if (optional) {
    path = kDefaultConfigPath;
  }
  Result<std::string> text = base::read_file(path, 65536);
  if (!text.ok()) {
    if (optional && text.error().code() == Errc::kNotFound) {
      return Config{};
    }
    return std::move(text).error();
  }
  return parse_config(*text, path);
}

}  // namespace cellrund::shim
