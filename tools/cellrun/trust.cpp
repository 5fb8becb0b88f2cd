// trust add, ls, rm: which key may ask for what. Works on the trust folder, as root; the daemon reads it.
#include <charconv>

#include "admit/trust.hpp"
#include "base/file.hpp"
#include "crypto/keys.hpp"
#include "groups.hpp"
#include "model/quantity.hpp"

namespace cellrund::cli {
namespace {

constexpr std::size_t kMaxKeyBytes = 4096;

base::Result<std::string, Failed> trust_dir(const Context& context) {
  return CR_TRY(context.load_config()).config.paths.trust;
}

// "ci-runner" of "/x/CI_runner.pub"
std::string name_of(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  std::string base = slash == std::string::npos ? path : path.substr(slash + 1);
  base = base.substr(0, base.find_last_of('.'));
  std::string name;
  for (const char c : base) {
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      name += c;
    } else if (c >= 'A' && c <= 'Z') {
      name += static_cast<char>(c - 'A' + 'a');
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return name;
}

template <typename Number>
base::Result<Number, Failed> number_of(std::string_view flag, const std::string& text, Number min, Number max) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return misuse("trust add: --" + std::string(flag) + " " + printable(text) + " is no number from " +
                      std::to_string(min) + " to " + std::to_string(max),
                  "cellrun trust add --help");
  }
  return value;
}

base::Result<std::uint64_t, Failed> quantity_of(std::string_view flag, const std::string& text) {
  const std::optional<std::uint64_t> value =
      flag == "cpu" ? model::parse_cpu_millis(text) : model::parse_bytes(text);
  if (!value) {
    return misuse("trust add: --" + std::string(flag) + " " + printable(text) + " is no quantity",
                  flag == "cpu" ? "for example 2 or 500m" : "for example 512Mi or 4Gi");
  }
  return *value;
}

base::Result<admit::Grant, Failed> grant_of(const Arguments& arguments) {
  admit::Grant grant;
  grant.namespaces = arguments.values("namespace");
  if (grant.namespaces.empty()) {
    return misuse("trust add: --namespace is missing", "a key is trusted for namespaces that are named: --namespace research");
  }
  if (arguments.has("principal")) {
    grant.principals = arguments.values("principal");
  }
  grant.images = arguments.has("image") ? arguments.values("image") : std::vector<std::string>{"**"};
  grant.egress = arguments.values("egress");
  grant.secrets = arguments.values("secret");
  if (const auto text = arguments.value("min-tier")) {
    grant.min_tier = CR_TRY(number_of<int>("min-tier", *text, 0, 2));
  }
  if (const auto text = arguments.value("max-deadline")) {
    grant.max_deadline = std::chrono::seconds(CR_TRY(number_of<std::int64_t>("max-deadline", *text, 1, 30 * 86400)));
  }
  if (const auto text = arguments.value("max-concurrent")) {
    grant.max_concurrent = CR_TRY(number_of<std::uint32_t>("max-concurrent", *text, 1, 100000));
  }
  if (const auto text = arguments.value("cpu")) {
    grant.resources.cpu_millis = CR_TRY(quantity_of("cpu", *text));
  }
  if (const auto text = arguments.value("memory")) {
    grant.resources.memory_bytes = CR_TRY(quantity_of("memory", *text));
  }
  if (const auto text = arguments.value("pids")) {
    grant.resources.pids = CR_TRY(number_of<std::uint64_t>("pids", *text, 1, 4194304));
  }
  if (const auto text = arguments.value("storage")) {
    grant.resources.ephemeral_storage_bytes = CR_TRY(quantity_of("storage", *text));
  }
  if (const auto text = arguments.value("not-after")) {
    const base::Result<base::WallTime> time = base::parse_rfc3339(*text);
    if (!time) {
      return misuse("trust add: --not-after " + printable(*text) + " is no time", "for example 2027-01-01T00:00:00Z");
    }
    grant.not_after = *time;
  }
  return grant;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    out += (out.empty() ? "" : ",") + printable(word);
  }
  return out.empty() ? "-" : out;
}

base::json::Array strings(const std::vector<std::string>& words) {
  base::json::Array out;
  for (const std::string& word : words) {
    out.emplace_back(word);
  }
  return out;
}

}  // namespace

Outcome trust_add(Context& context) {
  const std::string& path = context.arguments().positional[0];
  admit::Grant grant = CR_TRY(grant_of(context.arguments()));
  const base::Result<std::string> pem = base::read_file(path, kMaxKeyBytes);
  if (!pem) {
    return failed(pem.error());
  }
  const base::Result<crypto::PublicKey> key = crypto::PublicKey::from_pem(*pem);
  if (!key) {
    return failed(key.error().clone().context("trust add: " + path), "the public half is needed: NAME.pub of cellrun keygen");
  }
  const std::string dir = CR_TRY(trust_dir(context));
  base::Result<std::string> added =
      admit::add_trust(dir, context.arguments().value("name").value_or(name_of(path)), *key, std::move(grant));
  if (!added) {
    return failed(std::move(added).error().context("trust add"));
  }
  if (context.style().json()) {
    return print(object_text(context.format(), {{"file", *added}, {"keyId", key->key_id()}})) ? 0 : kExitOurs;
  }
  return print(*added + "\n") ? 0 : kExitOurs;
}

Outcome trust_list(Context& context) {
  const std::string dir = CR_TRY(trust_dir(context));
  const base::Result<admit::TrustStore> store = admit::TrustStore::load(dir);
  if (!store) {
    return failed(store.error(), "until this is mended the node refuses every job");
  }
  if (context.style().json()) {
    base::json::Array items;
    for (const admit::Grant& grant : store->grants()) {
      base::json::Object item{{"name", grant.source}, {"keyId", grant.key_id}, {"namespaces", strings(grant.namespaces)},
                              {"principals", strings(grant.principals)}, {"images", strings(grant.images)},
                              {"minTier", grant.min_tier}, {"maxDeadlineSeconds", std::int64_t{grant.max_deadline.count()}},
                              {"maxConcurrent", grant.max_concurrent}, {"egress", strings(grant.egress)},
                              {"secrets", strings(grant.secrets)}, {"revoked", grant.revoked}};
      if (grant.not_after) {
        item.set("notAfter", base::format_rfc3339(*grant.not_after));
      }
      items.emplace_back(std::move(item));
    }
    return print(list_text(context.format(), "keys", std::move(items))) ? 0 : kExitOurs;
  }
  std::vector<std::vector<std::string>> rows;
  for (const admit::Grant& grant : store->grants()) {
    rows.push_back({printable(grant.source), grant.key_id.substr(0, 16), joined(grant.namespaces), joined(grant.images),
                    std::to_string(grant.min_tier), joined(grant.egress),
                    grant.revoked ? "revoked" : grant.not_after ? "until " + base::format_rfc3339(*grant.not_after) : "valid"});
  }
  return print(table({"FILE", "KEY", "NAMESPACES", "IMAGES", "MIN-TIER", "EGRESS", "STATUS"}, rows)) ? 0 : kExitOurs;
}

Outcome trust_remove(Context& context) {
  const std::string dir = CR_TRY(trust_dir(context));
  std::string name = context.arguments().positional[0];
  if (name.ends_with(".toml")) {
    name.resize(name.size() - 5);
  }
  const base::Status removed = admit::remove_trust(dir, name);
  return removed ? Outcome(print(name + "\n") ? 0 : kExitOurs)
                 : Outcome(failed(removed.error(), "cellrun trust ls lists the names"));
}

}  // namespace cellrund::cli
