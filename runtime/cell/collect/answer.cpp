#include "cell/collect/answer.hpp"

#include <set>

#include "base/json.hpp"
#include "shim/wire/outputs.hpp"

namespace cellrund::cell::collect {
namespace {

using base::Errc;
using base::Error;
using base::Result;
namespace json = base::json;

constexpr std::size_t kMaxWhy = 256;

Error bad(std::string_view what) { return Error(Errc::kDataLoss, "collector's answer: bad " + std::string(what)); }

Result<const std::string*> text_of(const json::Value& from, std::string_view key) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_string() == nullptr) {
    return bad(key);
  }
  return value->as_string();
}

Result<std::uint64_t> count_of(const json::Value& from, std::string_view key) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_int() == nullptr || *value->as_int() < 0) {
    return bad(key);
  }
  return static_cast<std::uint64_t>(*value->as_int());
}

Result<const json::Array*> list_of(const json::Value& from, std::string_view key, std::uint64_t most) {
  const json::Value* value = from.find(key);
  if (value == nullptr || value->as_array() == nullptr || value->as_array()->size() > most) {
    return bad(key);
  }
  return value->as_array();
}

bool is_hex_digest(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

base::Status read_files(const json::Array& list, const Request& request, model::OutputFacts& facts) {
  std::set<std::string_view> seen;
  std::uint64_t bytes = 0;
  for (const json::Value& item : list) {
    model::OutputFile file;
    file.path = *CR_TRY(text_of(item, "path"));
    file.size = CR_TRY(count_of(item, "size"));
    const std::string& digest = *CR_TRY(text_of(item, "sha256"));
    if (wire::path_problem(file.path).has_value() || !is_hex_digest(digest) || file.size > request.max_bytes - bytes) {
      return bad("file");
    }
    bytes += file.size;
    file.sha256 = "sha256:" + digest;
    facts.files.push_back(std::move(file));
  }
  for (const model::OutputFile& file : facts.files) {
    if (!seen.insert(file.path).second) {
      return bad("file: the same path twice");
    }
  }
  return base::ok();
}

}  // namespace

std::string write_request(const Request& request) {
  return json::write(json::Object{{"maxBytes", request.max_bytes}, {"maxFiles", request.max_files}});
}

Result<Request> parse_request(std::string_view text) {
  const json::Value document = CR_TRY(json::parse(text, {.max_bytes = 4096, .max_depth = 2, .max_members = 8}));
  return Request{CR_TRY(count_of(document, "maxBytes")), CR_TRY(count_of(document, "maxFiles"))};
}

std::string write_answer(const model::OutputFacts& facts) {
  json::Array files;
  for (const model::OutputFile& file : facts.files) {
    files.emplace_back(json::Object{{"path", file.path}, {"size", file.size}, {"sha256", file.sha256.substr(7)}});
  }
  json::Array refused;
  for (const model::RefusedOutput& output : facts.refused) {
    refused.emplace_back(json::Object{{"path", output.path}, {"why", output.why}});
  }
  return json::write(json::Object{{"files", std::move(files)},
                                  {"refused", std::move(refused)},
                                  {"refusedCount", facts.refused_count},
                                  {"incomplete", facts.incomplete_because}});
}

Result<model::OutputFacts> parse_answer(std::string_view text, const Request& request) {
  const auto document = json::parse(text, {.max_bytes = kMaxAnswer, .max_depth = 4, .max_members = 8});
  if (!document.ok()) {
    return bad("JSON: " + document.error().message());
  }
  model::OutputFacts facts;
  CR_CHECK(read_files(*CR_TRY(list_of(*document, "files", request.max_files)), request, facts));
  for (const json::Value& item : *CR_TRY(list_of(*document, "refused", kMaxListed))) {
    model::RefusedOutput refused{*CR_TRY(text_of(item, "path")), *CR_TRY(text_of(item, "why"))};
    if (refused.path.size() > kMaxRefusedPath || !wire::is_plain_utf8(refused.path) || refused.why.size() > kMaxWhy ||
        !wire::is_plain_utf8(refused.why)) {
      return bad("refusal");
    }
    facts.refused.push_back(std::move(refused));
  }
  facts.refused_count = CR_TRY(count_of(*document, "refusedCount"));
  facts.incomplete_because = *CR_TRY(text_of(*document, "incomplete"));
  if (facts.refused_count < facts.refused.size() || facts.incomplete_because.size() > kMaxWhy ||
      !wire::is_plain_utf8(facts.incomplete_because)) {
    return bad("count of refusals, or reason");
  }
  return facts;
}

}  // namespace cellrund::cell::collect
