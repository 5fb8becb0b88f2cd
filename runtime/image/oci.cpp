#include "image/oci.hpp"

#include <algorithm>
#include <array>

#include "base/json.hpp"
#include "crypto/digest.hpp"
#include "model/reference.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
namespace json = base::json;

constexpr json::Limits kLimits{.max_bytes = kMaxDocumentBytes, .max_depth = 32, .max_members = 1024};
constexpr std::size_t kMaxLayerCount = 128;  // overlay-based runtimes stop at 127 as well
constexpr std::size_t kMaxIndexEntries = 256;
constexpr std::size_t kMaxStrings = 1024;
constexpr std::size_t kMaxStringBytes = 128UL * 1024;  // of one list: what execve(2) takes anyway

constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kDockerManifest = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
constexpr std::string_view kDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json";
constexpr std::array<std::string_view, 2> kConfigTypes{"application/vnd.oci.image.config.v1+json",
                                                       "application/vnd.docker.container.image.v1+json"};
constexpr std::array<std::pair<std::string_view, LayerCompression>, 5> kLayerTypes{{
    {"application/vnd.oci.image.layer.v1.tar", LayerCompression::kNone},
    {"application/vnd.oci.image.layer.v1.tar+gzip", LayerCompression::kGzip},
    {"application/vnd.oci.image.layer.v1.tar+zstd", LayerCompression::kZstd},
    {"application/vnd.docker.image.rootfs.diff.tar", LayerCompression::kNone},
    {"application/vnd.docker.image.rootfs.diff.tar.gzip", LayerCompression::kGzip},
}};

Error bad(std::string why) {
  return Error(Errc::kInvalidArgument, std::move(why));
}

// Present and not null: Go's encoders write null for an empty list.
const json::Value* member(const json::Value& from, std::string_view key) {
  const json::Value* value = from.find(key);
  return value != nullptr && !value->is_null() ? value : nullptr;
}

Result<std::string> optional_text(const json::Value& from, std::string_view key) {
  const json::Value* value = member(from, key);
  if (value == nullptr) {
    return std::string();
  }
  if (value->as_string() == nullptr) {
    return bad(std::string(key) + " is no string");
  }
  return *value->as_string();
}

Result<std::vector<std::string>> optional_strings(const json::Value& from, std::string_view key) {
  std::vector<std::string> out;
  const json::Value* value = member(from, key);
  if (value == nullptr) {
    return out;
  }
  if (value->as_array() == nullptr || value->as_array()->size() > kMaxStrings) {
    return bad(std::string(key) + " is no list of at most " + std::to_string(kMaxStrings) + " strings");
  }
  std::size_t total = 0;
  for (const json::Value& item : *value->as_array()) {
    if (item.as_string() == nullptr) {
      return bad(std::string(key) + " holds something that is no string");
    }
    total += item.as_string()->size();
    if (total > kMaxStringBytes) {
      return Error(Errc::kResourceExhausted,
                   std::string(key) + " is longer than " + std::to_string(kMaxStringBytes) + " bytes");
    }
    out.push_back(*item.as_string());
  }
  return out;
}

Result<json::Value> parse_document(std::string_view text, std::string_view what) {
  json::Value document = CR_TRY(json::parse(text, kLimits).context(what));
  if (document.as_object() == nullptr) {
    return bad(std::string(what) + " is no JSON object");
  }
  return document;
}

// An index or manifest says schemaVersion 2.
Status check_schema(const json::Value& document, std::string_view what) {
  const json::Value* version = member(document, "schemaVersion");
  if (version == nullptr || version->as_int() == nullptr || *version->as_int() != 2) {
    return bad(std::string(what) + ": schemaVersion is not 2");
  }
  return base::ok();
}

Result<Descriptor> parse_descriptor(const json::Value& from, std::string_view what, std::uint64_t max_size) {
  Descriptor out;
  if (from.as_object() == nullptr) {
    return bad(std::string(what) + " is no descriptor");
  }
  out.media_type = CR_TRY(optional_text(from, "mediaType"));
  out.digest = CR_TRY(optional_text(from, "digest"));
  const json::Value* size = member(from, "size");
  if (!crypto::is_digest_text(out.digest)) {
    return bad(std::string(what) + ": its digest is not sha256 with 64 lower-case hex digits");
  }
  if (size == nullptr || size->as_int() == nullptr || *size->as_int() <= 0) {
    return bad(std::string(what) + ": its size is no positive number");
  }
  out.size = static_cast<std::uint64_t>(*size->as_int());
  if (out.size > max_size) {
    return Error(Errc::kResourceExhausted, std::string(what) + ": larger than " + std::to_string(max_size) + " bytes");
  }
  const json::Value* urls = member(from, "urls");
  if (urls != nullptr && (urls->as_array() == nullptr || !urls->as_array()->empty())) {
    return bad(std::string(what) + ": content from foreign addresses is refused");
  }
  return out;
}

std::string annotated_name(const json::Value& from) {
  const json::Value* annotations = member(from, "annotations");
  if (annotations == nullptr) {
    return {};
  }
  // containerd and Docker put the full name into the first; the second may be a mere tag.
  for (const std::string_view key : {"io.containerd.image.name", "org.opencontainers.image.ref.name"}) {
    const json::Value* name = member(*annotations, key);
    if (name != nullptr && name->as_string() != nullptr) {
      return *name->as_string();
    }
  }
  return {};
}

// "NAME=value" with unique names; the last one wins, as in a shell.
Result<model::StringMap> parse_env(const std::vector<std::string>& entries) {
  model::StringMap out;
  for (const std::string& entry : entries) {
    const std::size_t equals = entry.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return bad("config: an Env entry is not NAME=value");
    }
    const std::string name = entry.substr(0, equals);
    const auto known = std::find_if(out.begin(), out.end(), [&](const auto& pair) { return pair.first == name; });
    if (known != out.end()) {
      known->second = entry.substr(equals + 1);
    } else {
      out.emplace_back(name, entry.substr(equals + 1));
    }
  }
  return out;
}

}  // namespace

bool is_index_type(std::string_view media_type) noexcept {
  return media_type == kOciIndex || media_type == kDockerIndex;
}
bool is_manifest_type(std::string_view media_type) noexcept {
  return media_type == kOciManifest || media_type == kDockerManifest;
}

Result<Manifest> parse_manifest(std::string_view text) {
  const json::Value document = CR_TRY(parse_document(text, "manifest"));
  CR_CHECK(check_schema(document, "manifest"));
  Manifest out;
  out.media_type = CR_TRY(optional_text(document, "mediaType"));
  if (is_index_type(out.media_type) || document.find("manifests") != nullptr) {
    return bad("manifest: this is an index of several images; name the one for linux/amd64");
  }
  if (!out.media_type.empty() && !is_manifest_type(out.media_type)) {
    return bad("manifest: its media type is unknown");
  }
  if (out.media_type.empty()) {
    out.media_type = kOciManifest;
  }
  const json::Value* config = member(document, "config");
  const json::Value* layers = member(document, "layers");
  if (config == nullptr || layers == nullptr || layers->as_array() == nullptr) {
    return bad("manifest: it has no config or no layers");
  }
  out.config = CR_TRY(parse_descriptor(*config, "config", kMaxDocumentBytes));
  if (std::find(kConfigTypes.begin(), kConfigTypes.end(), out.config.media_type) == kConfigTypes.end()) {
    return bad("manifest: its config is not that of an image");
  }
  if (layers->as_array()->empty() || layers->as_array()->size() > kMaxLayerCount) {
    return bad("manifest: it has " + std::to_string(layers->as_array()->size()) + " layers; 1 to " +
               std::to_string(kMaxLayerCount) + " are accepted");
  }
  for (const json::Value& item : *layers->as_array()) {
    const std::string what = "layer " + std::to_string(out.layers.size() + 1);
    Layer layer;
    layer.blob = CR_TRY(parse_descriptor(item, what, kMaxLayerBytes));
    const auto* type = std::find_if(kLayerTypes.begin(), kLayerTypes.end(),
                                    [&](const auto& known) { return known.first == layer.blob.media_type; });
    if (type == kLayerTypes.end()) {
      return bad(what + ": its media type is unknown");
    }
    layer.compression = type->second;
    out.layers.push_back(std::move(layer));
  }
  return out;
}

Result<std::vector<IndexEntry>> parse_index(std::string_view text) {
  const json::Value document = CR_TRY(parse_document(text, "index"));
  CR_CHECK(check_schema(document, "index"));
  const std::string media_type = CR_TRY(optional_text(document, "mediaType"));
  const json::Value* manifests = member(document, "manifests");
  if ((!media_type.empty() && !is_index_type(media_type)) || document.find("layers") != nullptr ||
      document.find("config") != nullptr) {
    return bad("index: it is something else");
  }
  if (manifests == nullptr || manifests->as_array() == nullptr || manifests->as_array()->size() > kMaxIndexEntries) {
    return bad("index: it has no list of at most " + std::to_string(kMaxIndexEntries) + " manifests");
  }
  std::vector<IndexEntry> out;
  for (const json::Value& item : *manifests->as_array()) {
    IndexEntry entry;
    entry.blob = CR_TRY(parse_descriptor(item, "index entry " + std::to_string(out.size() + 1), kMaxDocumentBytes));
    if (const json::Value* platform = member(item, "platform")) {
      entry.os = CR_TRY(optional_text(*platform, "os"));
      entry.architecture = CR_TRY(optional_text(*platform, "architecture"));
    }
    entry.name = annotated_name(item);
    out.push_back(std::move(entry));
  }
  return out;
}

Result<Config> parse_config(std::string_view text) {
  const json::Value document = CR_TRY(parse_document(text, "config"));
  Config out;
  out.os = CR_TRY(optional_text(document, "os"));
  out.architecture = CR_TRY(optional_text(document, "architecture"));
  const json::Value* rootfs = member(document, "rootfs");
  if (rootfs == nullptr || CR_TRY(optional_text(*rootfs, "type")) != "layers") {
    return bad("config: its rootfs is not of type layers");
  }
  out.diff_ids = CR_TRY(optional_strings(*rootfs, "diff_ids"));
  if (!std::all_of(out.diff_ids.begin(), out.diff_ids.end(), crypto::is_digest_text)) {
    return bad("config: a diff_id is not sha256 with 64 lower-case hex digits");
  }
  if (const json::Value* config = member(document, "config")) {
    out.process.entrypoint = CR_TRY(optional_strings(*config, "Entrypoint"));
    out.process.cmd = CR_TRY(optional_strings(*config, "Cmd"));
    const std::vector<std::string> env = CR_TRY(optional_strings(*config, "Env"));
    out.process.env = CR_TRY(parse_env(env));
    out.process.working_dir = CR_TRY(optional_text(*config, "WorkingDir"));
    out.process.user = CR_TRY(optional_text(*config, "User"));
  }
  if (!out.process.working_dir.empty() && out.process.working_dir.front() != '/') {
    return bad("config: its WorkingDir is not absolute");
  }
  return out;
}

Result<std::string> repository_of(std::string_view name) {
  name = name.substr(0, name.find('@'));
  const std::size_t slash = name.rfind('/');
  const std::size_t colon = name.rfind(':');
  if (colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash)) {
    name = name.substr(0, colon);  // a tag; a port stands before a slash
  }
  if (!model::is_repository(name)) {
    return bad("this is no repository name like registry.example/team/name");
  }
  return std::string(name);
}

}  // namespace cellrund::image
