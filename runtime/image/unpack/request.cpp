#include "image/unpack/request.hpp"

#include <array>

#include "base/json.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
namespace json = base::json;

constexpr json::Limits kLimits{.max_bytes = 64UL * 1024, .max_depth = 6, .max_members = 64};
constexpr std::array<std::pair<Compression, std::string_view>, 3> kCompressions{
    {{Compression::kNone, "none"}, {Compression::kGzip, "gzip"}, {Compression::kZstd, "zstd"}}};
constexpr std::array<std::pair<UnpackVerdict, std::string_view>, 4> kVerdicts{{{UnpackVerdict::kUnpacked, "unpacked"},
                                                                               {UnpackVerdict::kInvalid, "invalid"},
                                                                               {UnpackVerdict::kMismatch, "mismatch"},
                                                                               {UnpackVerdict::kHostFailure, "host"}}};

template <typename E, std::size_t N>
std::string_view name_of(const std::array<std::pair<E, std::string_view>, N>& names, E value) {
  for (const auto& [v, name] : names) {
    if (v == value) {
      return name;
    }
  }
  return "";
}

Error bad(std::string_view what) {
  return Error(Errc::kInvalidArgument, "malformed " + std::string(what));
}

Result<std::string> text_of(const json::Value& from, std::string_view key) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_string() == nullptr) {
    return bad(key);
  }
  return *value->as_string();
}

Result<std::uint64_t> number_of(const json::Value& from, std::string_view key) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_int() == nullptr || *value->as_int() < 0) {
    return bad(key);
  }
  return static_cast<std::uint64_t>(*value->as_int());
}

template <typename E, std::size_t N>
Result<E> enum_of(const json::Value& from, std::string_view key,
                  const std::array<std::pair<E, std::string_view>, N>& names) {
  const std::string text = CR_TRY(text_of(from, key));
  for (const auto& [v, name] : names) {
    if (name == text) {
      return v;
    }
  }
  return bad(key);
}

}  // namespace

std::string write_request(const UnpackRequest& request) {
  json::Array layers;
  for (const UnpackRequest::Layer& layer : request.layers) {
    layers.emplace_back(
        json::Object{{"compression", name_of(kCompressions, layer.compression)}, {"diffId", layer.diff_id}, {"folder", layer.folder}});
  }
  json::Object out{{"layers", std::move(layers)},
                   {"maxBytes", request.max_bytes},
                   {"maxEntries", request.max_entries},
                   {"cpuSeconds", request.cpu_seconds},
                   {"idCount", std::uint64_t{request.id_count}},
                   {"mkfs", request.mkfs_program}};
  if (request.inputs_of.has_value()) {
    out.set("inputsOf", json::Object{{"uid", std::uint64_t{request.inputs_of->uid}}, {"gid", std::uint64_t{request.inputs_of->gid}}});
  }
  return json::write(std::move(out));
}

Result<UnpackRequest> parse_request(std::string_view text) {
  const json::Value document = CR_TRY(json::parse(text, kLimits));
  UnpackRequest out;
  const json::Value* layers = document.find("layers");
  if (layers == nullptr || layers->as_array() == nullptr || layers->as_array()->size() > kMaxLayers) {
    return bad("layers");
  }
  for (const json::Value& layer : *layers->as_array()) {
    out.layers.push_back({CR_TRY(enum_of(layer, "compression", kCompressions)), CR_TRY(text_of(layer, "diffId")),
                          CR_TRY(text_of(layer, "folder"))});
  }
  out.max_bytes = CR_TRY(number_of(document, "maxBytes"));
  out.max_entries = CR_TRY(number_of(document, "maxEntries"));
  out.cpu_seconds = CR_TRY(number_of(document, "cpuSeconds"));
  out.id_count = static_cast<std::uint32_t>(CR_TRY(number_of(document, "idCount")));
  if (const json::Value* owner = document.find("inputsOf"); owner != nullptr) {
    out.inputs_of = UnpackRequest::Owner{static_cast<std::uint32_t>(CR_TRY(number_of(*owner, "uid"))),
                                         static_cast<std::uint32_t>(CR_TRY(number_of(*owner, "gid")))};
  }
  out.mkfs_program = CR_TRY(text_of(document, "mkfs"));
  return out;
}

std::string write_answer(const UnpackAnswer& answer) {
  return json::write(json::Object{{"verdict", name_of(kVerdicts, answer.verdict)}, {"message", answer.message}});
}

Result<UnpackAnswer> parse_answer(std::string_view text) {
  const json::Value document = CR_TRY(json::parse(text, kLimits));
  return UnpackAnswer{CR_TRY(enum_of(document, "verdict", kVerdicts)), CR_TRY(text_of(document, "message"))};
}

}  // namespace cellrund::image
