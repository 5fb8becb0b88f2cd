#include "image/rootfs_cache.hpp"

#include "base/file.hpp"
#include "base/json.hpp"
#include "crypto/digest.hpp"

namespace cellrund::image {
namespace {

using base::Result;
using base::Status;
namespace json = base::json;

constexpr std::size_t kMaxMetadata = 4UL * 1024 * 1024;
constexpr std::int64_t kFormat = 1;
constexpr std::size_t kMaxFiles = 100'000;

std::string stem(const std::string& dir, const std::string& digest) {
  constexpr std::size_t kPrefix = std::string_view("sha256:").size();
  return dir + "/" + digest.substr(kPrefix);
}

json::Array to_json(const std::vector<std::string>& strings) {
  return {strings.begin(), strings.end()};
}

bool read_strings(const json::Value& from, std::string_view key, std::vector<std::string>& into) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_array() == nullptr) {
    return false;
  }
  for (const json::Value& item : *value->as_array()) {
    if (item.as_string() == nullptr) {
      return false;
    }
    into.push_back(*item.as_string());
  }
  return true;
}

bool read_text(const json::Value& from, std::string_view key, std::string& into) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_string() == nullptr) {
    return false;
  }
  into = *value->as_string();
  return true;
}

std::optional<CachedImage> understand(const json::Value& document) {
  CachedImage out;
  const json::Value* format = document.find("format");
  const json::Value* bytes = document.find("rootfsBytes");
  const json::Value* config = document.find("config");
  if (format == nullptr || format->as_int() == nullptr || *format->as_int() != kFormat || bytes == nullptr ||
      bytes->as_int() == nullptr || config == nullptr || !read_text(document, "manifest", out.manifest_digest) ||
      !read_text(document, "rootfsDigest", out.rootfs_digest) ||
      !read_strings(document, "repositories", out.repositories) ||
      !read_strings(*config, "entrypoint", out.config.entrypoint) || !read_strings(*config, "cmd", out.config.cmd) ||
      !read_text(*config, "workingDir", out.config.working_dir) || !read_text(*config, "user", out.config.user)) {
    return std::nullopt;
  }
  std::vector<std::string> env;
  if (!read_strings(*config, "env", env)) {
    return std::nullopt;
  }
  for (const std::string& entry : env) {
    const std::size_t equals = entry.find('=');
    if (equals == std::string::npos) {
      return std::nullopt;
    }
    out.config.env.emplace_back(entry.substr(0, equals), entry.substr(equals + 1));
  }
  out.rootfs_bytes = static_cast<std::uint64_t>(*bytes->as_int());
  return out;
}

}  // namespace

std::string rootfs_file(const std::string& dir, const std::string& digest) {
  return stem(dir, digest) + ".erofs";
}
std::string metadata_file(const std::string& dir, const std::string& digest) {
  return stem(dir, digest) + ".json";
}

Result<std::optional<CachedImage>> load_cached(const std::string& dir, const std::string& digest) {
  auto text = base::read_file(metadata_file(dir, digest), kMaxMetadata);
  if (!text.ok()) {
    if (text.error().code() == base::Errc::kNotFound) {
      return std::optional<CachedImage>();
    }
    return std::move(text).error();
  }
  const auto document = json::parse(*text, {.max_bytes = kMaxMetadata, .max_depth = 4, .max_members = 64});
  std::optional<CachedImage> image = document.ok() ? understand(*document) : std::nullopt;
  if (image.has_value() && image->manifest_digest != digest) {
    image.reset();
  }
  return image;
}

Status save_cached(const std::string& dir, const CachedImage& image) {
  json::Array env;
  for (const auto& [name, value] : image.config.env) {
    env.emplace_back(name + "=" + value);
  }
  const json::Object document{{"format", kFormat},
                              {"manifest", image.manifest_digest},
                              {"rootfsDigest", image.rootfs_digest},
                              {"rootfsBytes", image.rootfs_bytes},
                              {"repositories", to_json(image.repositories)},
                              {"config", json::Object{{"entrypoint", to_json(image.config.entrypoint)},
                                                      {"cmd", to_json(image.config.cmd)},
                                                      {"env", std::move(env)},
                                                      {"workingDir", image.config.working_dir},
                                                      {"user", image.config.user}}}};
  return base::write_file_atomic(metadata_file(dir, image.manifest_digest), json::write(document), 0600);
}

Status remove_unfinished(const std::string& dir) {
  for (const std::string& name : CR_TRY(base::list_dir(dir, kMaxFiles))) {
    if (name.starts_with(kUnfinishedImage) || name.ends_with(".new")) {
      CR_CHECK(base::remove_file(dir + "/" + name));
    }
  }
  return base::ok();
}

Status remove_cached(const std::string& dir, const std::string& digest) {
  CR_CHECK(base::remove_file(metadata_file(dir, digest)));
  return base::remove_file(rootfs_file(dir, digest));
}

}  // namespace cellrund::image
