// TOML of one trust file ↔ grants. The only file of this module that sees toml++.
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <utility>

#include "admit/trust.hpp"
#include "model/ipv4.hpp"
#include "model/quantity.hpp"

namespace cellrund::admit {

using base::Errc;
using base::Error;
using base::Result;

namespace {

constexpr std::size_t kMaxKeysPerFile = 128;
constexpr std::size_t kMaxEntries = 64;
constexpr std::size_t kMaxEntryBytes = 256;

constexpr std::array<std::string_view, 12> kNames{"file",           "namespaces", "principals", "images",   "minTier", "maxDeadlineSeconds", "maxConcurrent",
                                                  "resources", "egress",     "secrets",    "notAfter", "revoked"};

bool is_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

bool made_of(std::string_view text, std::string_view punctuation) {
  return !text.empty() && text.size() <= kMaxEntryBytes &&
         std::all_of(text.begin(), text.end(), [punctuation](char c) { return is_alnum(c) || punctuation.find(c) != std::string_view::npos; });
}

bool is_namespace(std::string_view text) {
  return text == "*" || (made_of(text, "-") && text.size() <= 63 && text.front() != '-' && text.back() != '-' &&
                         std::none_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; }));
}
bool is_pattern(std::string_view text) { return made_of(text, "._/:@+*-"); }

bool is_egress(std::string_view text) {
  constexpr std::string_view kPrivate = "private:";
  constexpr std::string_view kWildcard = "wildcard:*.";
  if (text.starts_with(kPrivate)) {
    return model::parse_ipv4_prefix(text.substr(kPrivate.size())).ok();
  }
  if (text.starts_with(kWildcard)) {
    const std::string_view name = text.substr(kWildcard.size());
    return made_of(name, ".-") && name.find("..") == std::string_view::npos && is_alnum(name.front()) && is_alnum(name.back());
  }
  return text == "public";
}

bool is_file_name(std::string_view text) { return made_of(text, "._-") && text.front() != '.'; }

// Where in which file: "ci.toml:12: ".
class Site {
 public:
  explicit Site(std::string_view source) : source_(source) {}
  [[nodiscard]] Error error(const toml::source_region& region, const std::string& why) const {
    return Error(Errc::kInvalidArgument, source_ + ":" + std::to_string(region.begin.line) + ": " + why);
  }

 private:
  std::string source_;
};

class TableReader {
 public:
  TableReader(const toml::table& table, const Site& site) : table_(table), site_(site) {}

  [[nodiscard]] Error bad(std::string_view name, std::string_view why) const {
    const toml::node* node = table_.get(name);
    return site_.error(node == nullptr ? table_.source() : node->source(), std::string(name) + " " + std::string(why));
  }

  Result<std::optional<std::string>> text(std::string_view name) const {
    const toml::node* node = table_.get(name);
    if (node == nullptr) {
      return std::optional<std::string>();
    }
    const auto* value = node->as_string();
    if (value == nullptr) {
      return bad(name, "is not a string in quotes");
    }
    return std::optional(value->get());
  }

  Result<std::int64_t> integer(std::string_view name, std::int64_t fallback, std::int64_t low, std::int64_t high) const {
    const toml::node* node = table_.get(name);
    if (node == nullptr) {
      return fallback;
    }
    const auto* value = node->as_integer();
    if (value == nullptr || value->get() < low || value->get() > high) {
      return bad(name, "is not an integer between " + std::to_string(low) + " and " + std::to_string(high));
    }
    return value->get();
  }

  Result<std::vector<std::string>> list(std::string_view name, bool (*valid)(std::string_view), std::string_view what) const {
    std::vector<std::string> out;
    const toml::node* node = table_.get(name);
    if (node == nullptr) {
      return out;
    }
    const toml::array* array = node->as_array();
    if (array == nullptr || array->size() > kMaxEntries) {
      return bad(name, "is not a list of at most " + std::to_string(kMaxEntries) + " strings");
    }
    for (const toml::node& entry : *array) {
      const auto* value = entry.as_string();
      if (value == nullptr || !valid(value->get())) {
        return bad(name, "has an entry that is no " + std::string(what));
      }
      out.push_back(value->get());
    }
    return out;
  }

 private:
  const toml::table& table_;
  const Site& site_;
};

Result<base::Unit> read_resources(const toml::table& table, const Site& site, model::Limits& limits) {
  for (const auto& [key, node] : table) {
    const std::string_view name = key.str();
    if (name == "pids") {
      const auto* value = node.as_integer();
      if (value == nullptr || value->get() < 1 || value->get() > 4194304) {
        return site.error(node.source(), "resources.pids is not an integer between 1 and 4194304");
      }
      limits.pids = static_cast<std::uint64_t>(value->get());
      continue;
    }
    if (name != "cpu" && name != "memory" && name != "ephemeral-storage") {
      return site.error(node.source(), "resources has an unknown key; known are cpu, memory, pids and ephemeral-storage");
    }
    const auto* text = node.as_string();
    const auto quantity = text == nullptr ? std::nullopt : name == "cpu" ? model::parse_cpu_millis(text->get()) : model::parse_bytes(text->get());
    if (!quantity.has_value()) {
      return site.error(node.source(), "resources." + std::string(name) + " is no quantity in quotes");
    }
    (name == "cpu" ? limits.cpu_millis : name == "memory" ? limits.memory_bytes : limits.ephemeral_storage_bytes) = *quantity;
  }
  return base::ok();
}

Result<Grant> read_grant(const toml::table& table, const Site& site, std::string_view source) {
  for (const auto& [key, node] : table) {
    if (std::find(kNames.begin(), kNames.end(), key.str()) == kNames.end()) {
      return site.error(node.source(), "unknown key in [[key]]; known are file, namespaces, principals, images, minTier, maxDeadlineSeconds, "
                                       "maxConcurrent, resources, egress, secrets, notAfter and revoked");
    }
  }
  const TableReader reader(table, site);
  Grant out;
  out.source = source;
  out.file = CR_TRY(reader.text("file")).value_or("");
  if (!is_file_name(out.file)) {
    return reader.bad("file", "is not the plain name of a key file beside this one");
  }
  out.namespaces = CR_TRY(reader.list("namespaces", is_namespace, "namespace (RFC 1123 label or \"*\")"));
  out.principals = CR_TRY(reader.list("principals", is_pattern, "pattern"));
  out.images = CR_TRY(reader.list("images", is_pattern, "pattern"));
  out.egress = CR_TRY(reader.list("egress", is_egress, "public, private:CIDR or wildcard:*.NAME"));
  out.secrets = CR_TRY(reader.list("secrets", is_pattern, "pattern"));
  out.min_tier = static_cast<int>(CR_TRY(reader.integer("minTier", out.min_tier, 0, 2)));
  out.max_deadline = std::chrono::seconds(CR_TRY(reader.integer("maxDeadlineSeconds", out.max_deadline.count(), 1, 604800)));
  out.max_concurrent = static_cast<std::uint32_t>(CR_TRY(reader.integer("maxConcurrent", out.max_concurrent, 1, 100000)));
  if (const auto text = CR_TRY(reader.text("notAfter")); text.has_value()) {
    auto time = base::parse_rfc3339(*text);
    if (!time.ok()) {
      return reader.bad("notAfter", "is no RFC 3339 time in UTC");
    }
    out.not_after = *time;
  }
  if (const toml::node* node = table.get("revoked"); node != nullptr) {
    if (node->as_boolean() == nullptr) {
      return reader.bad("revoked", "is neither true nor false");
    }
    out.revoked = node->as_boolean()->get();
  }
  if (const toml::node* node = table.get("resources"); node != nullptr) {
    if (node->as_table() == nullptr) {
      return reader.bad("resources", "is not a table");
    }
    CR_CHECK(read_resources(*node->as_table(), site, out.resources));
  }
  // A revoked key needs no grant; any other must say what it is good for.
  if (!out.revoked && out.namespaces.empty()) {
    return reader.bad("namespaces", "is missing or empty: name them, or write \"*\"");
  }
  if (!out.revoked && out.images.empty()) {
    return reader.bad("images", "is missing or empty: name patterns, or write \"*\"");
  }
  return out;
}

void write_list(std::string& out, std::string_view name, const std::vector<std::string>& values) {
  if (values.empty()) {
    return;
  }
  out.append(name).append(" = [");
  for (std::size_t i = 0; i < values.size(); ++i) {
    out.append(i == 0 ? "\"" : ", \"").append(values[i]).append("\"");
  }
  out += "]\n";
}

}  // namespace

Result<std::vector<Grant>> parse_trust_file(std::string_view text, std::string_view source) {
  const Site site(source);
  toml::table root;
  try {
    root = toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    return site.error(e.source(), std::string(e.description()));
  } catch (const std::exception&) {
    return Error(Errc::kResourceExhausted, std::string(source) + ": cannot be parsed");
  }
  std::vector<Grant> out;
  for (const auto& [name, node] : root) {
    const toml::array* keys = node.as_array();
    if (name.str() != "key" || keys == nullptr || keys->empty()) {
      return site.error(node.source(), "only [[key]] tables may stand here");
    }
    if (keys->size() > kMaxKeysPerFile) {
      return site.error(node.source(), "more than " + std::to_string(kMaxKeysPerFile) + " keys");
    }
    for (const toml::node& entry : *keys) {
      if (entry.as_table() == nullptr) {
        return site.error(entry.source(), "only [[key]] tables may stand here");
      }
      out.push_back(CR_TRY(read_grant(*entry.as_table(), site, source)));
    }
  }
  return out;
}

std::string format_trust_file(const Grant& grant) {
  std::string out = "[[key]]\nfile = \"" + grant.file + "\"\n";
  if (grant.revoked) {
    out += "revoked = true\n";
  }
  write_list(out, "namespaces", grant.namespaces);
  write_list(out, "principals", grant.principals);
  write_list(out, "images", grant.images);
  out += "minTier = " + std::to_string(grant.min_tier) + "\n";
  out += "maxDeadlineSeconds = " + std::to_string(grant.max_deadline.count()) + "\n";
  out += "maxConcurrent = " + std::to_string(grant.max_concurrent) + "\n";
  out += "resources = { cpu = \"" + model::format_cpu_millis(grant.resources.cpu_millis) + "\", memory = \"" +
         model::format_bytes(grant.resources.memory_bytes) + "\", pids = " + std::to_string(grant.resources.pids) + ", ephemeral-storage = \"" +
         model::format_bytes(grant.resources.ephemeral_storage_bytes) + "\" }\n";
  write_list(out, "egress", grant.egress);
  write_list(out, "secrets", grant.secrets);
  if (grant.not_after.has_value()) {
    out += "notAfter = \"" + base::format_rfc3339(*grant.not_after) + "\"\n";
  }
  return out;
}

}  // namespace cellrund::admit
