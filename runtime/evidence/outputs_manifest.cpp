#include "evidence/outputs_manifest.hpp"

#include "crypto/digest.hpp"

namespace cellrund::evidence {

namespace json = base::json;

json::Object output_entry(const model::OutputFile& file) {
  constexpr std::size_t kPrefix = std::string_view("sha256:").size();
  return {{"path", file.path}, {"size", file.size}, {"sha256", file.sha256.substr(kPrefix)}};
}

std::string outputs_manifest(const std::vector<model::OutputFile>& files) {
  json::Array list;
  for (const model::OutputFile& file : files) {
    list.emplace_back(output_entry(file));
  }
  return json::write(json::Object{{"outputs", std::move(list)}});
}

std::string outputs_manifest_digest(const std::vector<model::OutputFile>& files) {
  return crypto::digest_text(base::as_bytes(outputs_manifest(files)));
}

}  // namespace cellrund::evidence
