// Private to job/: reading one JSON object of a jobspec against the field table. Every accessor returns the value, or
// nothing when the field is absent, or the refusal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"
#include "model/job_spec.hpp"
#include "model/outcome.hpp"

namespace cellrund::job {

template <typename T>
using Read = base::Result<T, model::Refusal>;

[[nodiscard]] model::Refusal schema_invalid(std::string field, std::string_view what, std::string hint = {});
[[nodiscard]] model::Refusal unsupported(std::string field, std::string_view what = "is not supported by this version",
                                         std::string hint = "remove the field, or submit to a node that supports it");

class ObjectReader {
 public:
  // `table_path` as in job/fields.hpp; `path` is what messages show, with indices. Refuses a value that is no object,
  // an unknown key (with the nearest known one as hint) and a missing required one. `value` outlives the reader.
  static Read<ObjectReader> open(const base::json::Value& value, std::string table_path, std::string path);

  [[nodiscard]] const std::string& where() const noexcept { return path_; }  // of the object itself
  [[nodiscard]] std::string at(std::string_view name) const;
  [[nodiscard]] const base::json::Value* find(std::string_view name) const noexcept { return object_->find(name); }

  [[nodiscard]] Read<std::optional<ObjectReader>> object(std::string_view name) const;
  [[nodiscard]] Read<std::vector<ObjectReader>> objects(std::string_view name, std::size_t max_items) const;
  [[nodiscard]] Read<std::optional<std::string>> text(std::string_view name, std::size_t max_bytes) const;
  [[nodiscard]] Read<std::optional<std::vector<std::string>>> texts(std::string_view name, std::size_t max_items,
                                                                    std::size_t max_bytes) const;
  [[nodiscard]] Read<std::optional<std::int64_t>> integer(std::string_view name, std::int64_t low, std::int64_t high) const;
  [[nodiscard]] Read<std::optional<base::WallTime>> time(std::string_view name) const;  // RFC 3339 in UTC
  [[nodiscard]] Read<std::optional<bool>> boolean(std::string_view name) const;
  [[nodiscard]] Read<model::StringMap> string_map(std::string_view name) const;

  // For fields that open() found present because they are required.
  [[nodiscard]] Read<std::string> required_text(std::string_view name, std::size_t max_bytes) const;
  [[nodiscard]] Read<std::int64_t> required_integer(std::string_view name, std::int64_t low, std::int64_t high) const;
  [[nodiscard]] Read<ObjectReader> required_object(std::string_view name) const;

 private:
  ObjectReader(const base::json::Object& object, std::string table_path, std::string path)
      : object_(&object), table_path_(std::move(table_path)), path_(std::move(path)) {}
  const base::json::Object* object_;
  std::string table_path_;
  std::string path_;
};

}  // namespace cellrund::job
