#include "job/parse.hpp"

#include <algorithm>
#include <utility>

#include "base/json.hpp"
#include "crypto/digest.hpp"
#include "crypto/dsse.hpp"
#include "crypto/random.hpp"
#include "job/parse_container.hpp"
#include "job/parse_network.hpp"
#include "job/reader.hpp"
#include "job/syntax.hpp"
#include "model/quantity.hpp"

namespace cellrund::job {

namespace json = base::json;
using model::Refusal;

namespace {

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::uint64_t kTiB = 1ULL << 40U;
// Outputs that a record can list (evidence/bounded.hpp), and that a client asks for one by one.
constexpr std::int64_t kMaxOutputFiles = 4096;
constexpr std::int64_t kMaxOutputBytes = 1LL << 30U;
constexpr std::int64_t kMaxTtlSeconds = 365LL * 86400;
constexpr std::string_view kIdPunctuation = "._@:+-";

struct Sizes {
  std::uint64_t low, high;
};

Read<std::optional<std::uint64_t>> bytes_field(const ObjectReader& object, std::string_view name, Sizes range) {
  const auto text = CR_TRY(object.text(name, 1024));
  if (!text.has_value()) {
    return std::optional<std::uint64_t>();
  }
  const auto bytes = model::parse_bytes(*text);
  if (!bytes.has_value()) {
    return schema_invalid(object.at(name), "is no quantity of bytes", R"(write "268435456", "256Mi" or "0.25Gi")");
  }
  if (*bytes < range.low || *bytes > range.high) {
    return schema_invalid(object.at(name), "is not between " + model::format_bytes(range.low) + " and " +
                                               model::format_bytes(range.high));
  }
  return bytes;
}

Read<std::string> label_field(const ObjectReader& object, std::string_view name) {
  std::string text = CR_TRY(object.required_text(name, 1024));
  if (!is_label(text)) {
    return schema_invalid(object.at(name), "is no RFC 1123 label", "use a-z, 0-9 and '-', at most 63, no '-' at the ends");
  }
  return text;
}

Read<model::Metadata> parse_metadata(const ObjectReader& object, Identity& identity) {
  model::Metadata out;
  out.uid = CR_TRY(object.required_text("uid", 1024));
  if (!crypto::is_uuid_v7(out.uid)) {
    return schema_invalid(object.at("uid"), "is no UUIDv7 in lower case", "make a new one for every job (RFC 9562, version 7)");
  }
  identity.uid = out.uid;
  out.tenant = CR_TRY(label_field(object, "namespace"));
  identity.tenant = out.tenant;
  out.name = CR_TRY(label_field(object, "name"));
  identity.name = out.name;

  // issuedAt and expiresAt are required: ObjectReader::open() found them.
  out.issued_at = CR_TRY(object.time("issuedAt")).value_or(base::WallTime{});
  out.expires_at = CR_TRY(object.time("expiresAt")).value_or(base::WallTime{});
  out.not_before = CR_TRY(object.time("notBefore")).value_or(out.issued_at);
  if (out.expires_at <= out.issued_at || out.expires_at <= out.not_before) {
    return schema_invalid(object.at("expiresAt"), "is not after issuedAt and notBefore");
  }
  out.labels = CR_TRY(object.string_map("labels"));
  out.annotations = CR_TRY(object.string_map("annotations"));
  return out;
}

Read<model::Principal> parse_principal(const ObjectReader& object) {
  model::Principal out;
  out.type = CR_TRY(object.required_text("type", 16));
  if (out.type != "agent" && out.type != "human" && out.type != "service") {
    return schema_invalid(object.at("type"), "is neither agent nor human nor service");
  }
  constexpr const char* kHint = "use letters, digits and '._@:+-', a letter or digit first, at most 128";
  out.id = CR_TRY(object.required_text("id", 1024));
  if (!is_name(out.id, kIdPunctuation)) {
    return schema_invalid(object.at("id"), "is no identifier", kHint);
  }
  if (auto chain = CR_TRY(object.texts("onBehalfOf", 8, 1024)); chain.has_value()) {
    for (std::size_t i = 0; i < chain->size(); ++i) {
      if (!is_name((*chain)[i], kIdPunctuation)) {
        return schema_invalid(object.at("onBehalfOf") + "[" + std::to_string(i) + "]", "is no identifier", kHint);
      }
    }
    out.on_behalf_of = std::move(*chain);
  }
  return out;
}

Read<model::Limits> parse_limits(const ObjectReader& object) {
  constexpr std::uint64_t kMaxMillis = 1024UL * 1000;
  model::Limits out;
  const std::string cpu_text = CR_TRY(object.required_text("cpu", 1024));
  const auto cpu = model::parse_cpu_millis(cpu_text);
  if (!cpu.has_value()) {
    return schema_invalid(object.at("cpu"), "is no quantity of CPUs", R"(write "1", "0.5" or "500m")");
  }
  if (*cpu < 1 || *cpu > kMaxMillis) {
    return schema_invalid(object.at("cpu"), "is not between 1m and 1024");
  }
  out.cpu_millis = *cpu;
  out.memory_bytes = CR_TRY(bytes_field(object, "memory", {kMiB, 16 * kTiB})).value_or(0);
  out.pids = static_cast<std::uint64_t>(CR_TRY(object.required_integer("pids", 1, 4194304)));
  if (CR_TRY(bytes_field(object, "ephemeral-storage", {0, 16 * kTiB})).value_or(0) != 0) {
    return unsupported(object.at("ephemeral-storage"), "other than 0 is not supported by this version",
                       "leave it out: what a job writes goes to spec.volumes.scratch, whose size is bounded");
  }
  return out;
}

Read<std::string> digest_field(const ObjectReader& object, std::string_view name) {
  std::string text = CR_TRY(object.required_text(name, 1024));
  if (!crypto::is_digest_text(text)) {
    return schema_invalid(object.at(name), "is no digest", "write \"sha256:\" and 64 digits in lower case; cellrun submit --task and --workspace fill it in");
  }
  return text;
}

base::Result<base::Unit, Refusal> parse_volumes(const ObjectReader& object, model::JobSpec& spec) {
  if (const auto task = CR_TRY(object.object("task")); task.has_value()) {
    spec.volumes.task = CR_TRY(digest_field(*task, "digest"));
  }
  if (const auto workspace = CR_TRY(object.object("workspace")); workspace.has_value()) {
    spec.volumes.workspace_seed = CR_TRY(digest_field(*workspace, "seed"));
  }
  if (const auto scratch = CR_TRY(object.object("scratch")); scratch.has_value()) {
    spec.volumes.scratch_bytes = CR_TRY(bytes_field(*scratch, "size", {64UL * 1024, kTiB})).value_or(spec.volumes.scratch_bytes);
  }
  if (const auto outputs = CR_TRY(object.object("outputs")); outputs.has_value()) {
    spec.volumes.outputs = model::Volumes::Outputs{
        .max_bytes = static_cast<std::uint64_t>(CR_TRY(outputs->required_integer("maxBytes", 1, kMaxOutputBytes))),
        .max_files = static_cast<std::uint64_t>(CR_TRY(outputs->required_integer("maxFiles", 1, kMaxOutputFiles)))};
  }
  return base::Unit{};
}

base::Result<base::Unit, Refusal> parse_logs(const ObjectReader& object, model::JobSpec& spec) {
  if (const auto bytes = CR_TRY(object.integer("maxBytes", 1024, 1LL << 30U)); bytes.has_value()) {
    spec.logs.max_bytes = static_cast<std::uint64_t>(*bytes);
  }
  const std::string action = CR_TRY(object.text("onLimit", 16)).value_or("truncate");
  if (action != "truncate" && action != "kill") {
    return schema_invalid(object.at("onLimit"), "is neither truncate nor kill");
  }
  spec.logs.kill_on_limit = action == "kill";
  return base::Unit{};
}

base::Result<base::Unit, Refusal> parse_lane(const ObjectReader& object, model::JobSpec& spec) {
  spec.audience = CR_TRY(object.text("audience", 1024)).value_or("");
  if (object.find("audience") != nullptr && !is_name(spec.audience, "._-")) {
    return schema_invalid(object.at("audience"), "is no node, pool or fleet name", "use letters, digits and '._-', at most 128");
  }
  spec.min_tier = static_cast<int>(CR_TRY(object.integer("minTier", 0, 2)).value_or(2));
  if (const auto name = CR_TRY(object.text("lane", 64)); name.has_value()) {
    spec.lane = model::parse_lane(*name);
    if (!spec.lane.has_value()) {
      return schema_invalid(object.at("lane"), "is no lane", "the lanes are kata, microvm, gvisor, runc and process");
    }
    if (model::tier_of(*spec.lane) < spec.min_tier) {
      return schema_invalid(object.at("lane"), "is of a lower tier than spec.minTier",
                            "the lane gives tier " + std::to_string(model::tier_of(*spec.lane)) + "; lower minTier or name another lane");
    }
  }
  return base::Unit{};
}

base::Result<base::Unit, Refusal> parse_times(const ObjectReader& object, model::JobSpec& spec) {
  using std::chrono::seconds;
  spec.active_deadline = seconds(CR_TRY(object.required_integer("activeDeadlineSeconds", 1, 7 * 86400)));
  spec.start_deadline = seconds(CR_TRY(object.integer("startDeadlineSeconds", 1, 86400)).value_or(spec.start_deadline.count()));
  spec.termination_grace =
      seconds(CR_TRY(object.integer("terminationGracePeriodSeconds", 0, 600)).value_or(spec.termination_grace.count()));
  spec.ttl_after_finished =
      seconds(CR_TRY(object.integer("ttlSecondsAfterFinished", 0, kMaxTtlSeconds)).value_or(spec.ttl_after_finished.count()));
  if (const auto name = CR_TRY(object.text("stopSignal", 64)); name.has_value()) {
    const auto signal = parse_signal(*name);
    if (!signal.has_value()) {
      return schema_invalid(object.at("stopSignal"), "is no signal that stops a process", R"(write "SIGTERM", "SIGINT", …)");
    }
    spec.stop_signal = *signal;
  }
  return base::Unit{};
}

// 1 to 63 of letters, digits, '.', '_' and '-', no '.' first: a file name that hides nothing.
bool is_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && name.front() != '.' && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

base::Result<base::Unit, Refusal> parse_secrets(const ObjectReader& object, model::JobSpec& spec) {
  constexpr std::size_t kMost = 16;
  constexpr const char* kNameHint = "use letters, digits and '._-', no '.' first, at most 63";
  for (const ObjectReader& entry : CR_TRY(object.objects("secrets", kMost))) {
    model::SecretRef secret;
    secret.name = CR_TRY(entry.required_text("name", 1024));
    if (!is_file_name(secret.name)) {
      return schema_invalid(entry.at("name"), "is no file name", kNameHint);
    }
    for (const model::SecretRef& other : spec.secrets) {
      if (other.name == secret.name) {
        return schema_invalid(entry.at("name"), "stands in the list twice");
      }
    }
    secret.ref = CR_TRY(entry.required_text("ref", 1024));
    const std::size_t slash = secret.ref.find('/');
    if (slash == std::string::npos || !is_label(secret.ref.substr(0, slash)) || !is_file_name(secret.ref.substr(slash + 1))) {
      return schema_invalid(entry.at("ref"), "is no reference of a secret", "write NAMESPACE/NAME, as in \"research/token\"");
    }
    if (const auto mode = CR_TRY(entry.text("mode", 16)); mode.has_value() && *mode != "file") {
      return schema_invalid(entry.at("mode"), "is not file", "a secret is given as a file, /run/secrets/NAME");
    }
    if (const auto ttl = CR_TRY(entry.integer("ttlSeconds", 1, 7 * 86400)); ttl.has_value()) {
      secret.ttl = std::chrono::seconds(*ttl);
    }
    spec.secrets.push_back(std::move(secret));
  }
  return base::Unit{};
}

base::Result<base::Unit, Refusal> parse_body(const ObjectReader& object, model::JobSpec& spec) {
  CR_CHECK(parse_lane(object, spec));
  CR_CHECK(parse_times(object, spec));
  if (const auto principal = CR_TRY(object.object("principal")); principal.has_value()) {
    spec.principal = CR_TRY(parse_principal(*principal));
  }
  const ObjectReader container = CR_TRY(object.required_object("container"));
  spec.container = CR_TRY(parse_container(container));
  const ObjectReader resources = CR_TRY(object.required_object("resources"));
  const ObjectReader limits = CR_TRY(resources.required_object("limits"));
  spec.limits = CR_TRY(parse_limits(limits));
  if (const auto volumes = CR_TRY(object.object("volumes")); volumes.has_value()) {
    CR_CHECK(parse_volumes(*volumes, spec));
  }
  CR_CHECK(parse_secrets(object, spec));
  if (const auto network = CR_TRY(object.object("network")); network.has_value()) {
    CR_CHECK(parse_network(*network, spec));
  }
  if (const auto logs = CR_TRY(object.object("logs")); logs.has_value()) {
    CR_CHECK(parse_logs(*logs, spec));
  }
  return base::Unit{};
}

}  // namespace

base::Result<model::JobSpec, Refusal> parse_spec(std::string_view text, Identity* identity) {
  Identity unused;
  auto document = json::parse(text, {.max_bytes = kMaxSpecBytes, .max_depth = 32, .max_members = 1024});
  if (!document.ok()) {
    return schema_invalid("", "is not strict JSON: " + document.error().message());
  }
  // First of all: another version or kind may well have other fields.
  for (const auto& [name, wanted] : {std::pair{"apiVersion", "cellrun.dev/v1"}, std::pair{"kind", "Job"}}) {
    const json::Value* value = document->find(name);
    if (document->as_object() != nullptr && value != nullptr && (value->as_string() == nullptr || *value->as_string() != wanted)) {
      return schema_invalid(name, std::string("is not \"") + wanted + "\"");
    }
  }
  const ObjectReader root = CR_TRY(ObjectReader::open(*document, "", ""));
  model::JobSpec spec;
  const ObjectReader metadata = CR_TRY(root.required_object("metadata"));
  spec.metadata = CR_TRY(parse_metadata(metadata, identity == nullptr ? unused : *identity));
  const ObjectReader body = CR_TRY(root.required_object("spec"));
  CR_CHECK(parse_body(body, spec));
  return spec;
}

base::Result<std::string> sign_spec(std::string_view payload, const crypto::PrivateKey& key) {
  const auto envelope = CR_TRY(crypto::dsse::sign(kPayloadType, base::as_bytes(payload), key));
  return crypto::dsse::write(envelope);
}

}  // namespace cellrund::job
