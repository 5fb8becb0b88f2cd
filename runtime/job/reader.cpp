#include "job/reader.hpp"

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "job/fields.hpp"
#include "job/syntax.hpp"

namespace cellrund::job {

namespace json = base::json;
using model::Reason;
using model::Refusal;

namespace {

std::string joined(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : path + "." + std::string(name);
}

Refusal unknown_key(const std::string& path, const std::string& table_path, const std::string& key) {
  Speller speller(key);
  for (const Field& field : fields()) {
    if (field.object == table_path) {
      speller.offer(field.name);
    }
  }
  const std::string where = path.empty() ? "the document" : path;
  std::string hint = speller.best().empty() ? "remove it; `cellrun schema` lists the known fields"
                                            : "did you mean \"" + std::string(speller.best()) + "\"?";
  // The path goes into machine-read output: a key that is no plain name stands only in the message, escaped.
  const bool plain = is_name(key, "-_");
  return {Reason::kSchemaInvalid, where + " has the unknown field " + base::log::quoted(key, 64), std::move(hint),
          plain ? joined(path, key) : path};
}

}  // namespace

Refusal schema_invalid(std::string field, std::string_view what, std::string hint) {
  std::string message = (field.empty() ? std::string("the document") : field) + " " + std::string(what);
  return {Reason::kSchemaInvalid, std::move(message), std::move(hint), std::move(field)};
}

Refusal unsupported(std::string field, std::string_view what, std::string hint) {
  std::string message = field + " " + std::string(what);
  return {Reason::kUnsupportedField, std::move(message), std::move(hint), std::move(field)};
}

Read<ObjectReader> ObjectReader::open(const json::Value& value, std::string table_path, std::string path) {
  const json::Object* object = value.as_object();
  if (object == nullptr) {
    return schema_invalid(path, "is not an object");
  }
  for (const json::Member& member : object->members()) {
    const std::string& key = member.first;
    const bool known = std::any_of(fields().begin(), fields().end(), [&](const Field& field) {
      return field.object == table_path && field.name == key;
    });
    if (!known) {
      return unknown_key(path, table_path, key);
    }
  }
  for (const Field& field : fields()) {
    if (field.required && field.object == table_path && object->find(field.name) == nullptr) {
      return schema_invalid(joined(path, field.name), "is missing");
    }
  }
  return ObjectReader(*object, std::move(table_path), std::move(path));
}

std::string ObjectReader::at(std::string_view name) const { return joined(path_, name); }

Read<std::optional<ObjectReader>> ObjectReader::object(std::string_view name) const {
  const json::Value* value = find(name);
  if (value == nullptr) {
    return std::optional<ObjectReader>();
  }
  return std::optional(CR_TRY(open(*value, joined(table_path_, name), at(name))));
}

Read<ObjectReader> ObjectReader::required_object(std::string_view name) const {
  const json::Value* value = find(name);
  if (value == nullptr) {
    return schema_invalid(at(name), "is missing");
  }
  return open(*value, joined(table_path_, name), at(name));
}

Read<std::vector<ObjectReader>> ObjectReader::objects(std::string_view name, std::size_t max_items) const {
  std::vector<ObjectReader> out;
  const json::Value* value = find(name);
  if (value == nullptr) {
    return out;
  }
  const json::Array* array = value->as_array();
  if (array == nullptr) {
    return schema_invalid(at(name), "is not an array");
  }
  if (array->size() > max_items) {
    return schema_invalid(at(name), "has more than " + std::to_string(max_items) + " entries");
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    out.push_back(CR_TRY(open((*array)[i], joined(table_path_, name) + "[]", at(name) + "[" + std::to_string(i) + "]")));
  }
  return out;
}

Read<std::optional<std::string>> ObjectReader::text(std::string_view name, std::size_t max_bytes) const {
  const json::Value* value = find(name);
  if (value == nullptr) {
    return std::optional<std::string>();
  }
  const std::string* text = value->as_string();
  if (text == nullptr) {
    return schema_invalid(at(name), "is not a string", value->as_int() != nullptr ? "put it in quotes" : "");
  }
  if (text->size() > max_bytes) {
    return schema_invalid(at(name), "is longer than " + std::to_string(max_bytes) + " bytes");
  }
  return std::optional(*text);
}

Read<std::string> ObjectReader::required_text(std::string_view name, std::size_t max_bytes) const {
  std::optional<std::string> out = CR_TRY(text(name, max_bytes));
  if (!out.has_value()) {
    return schema_invalid(at(name), "is missing");
  }
  return std::move(*out);
}

Read<std::optional<std::vector<std::string>>> ObjectReader::texts(std::string_view name, std::size_t max_items,
                                                                  std::size_t max_bytes) const {
  const json::Value* value = find(name);
  if (value == nullptr) {
    return std::optional<std::vector<std::string>>();
  }
  const json::Array* array = value->as_array();
  if (array == nullptr) {
    return schema_invalid(at(name), "is not an array of strings");
  }
  if (array->size() > max_items) {
    return schema_invalid(at(name), "has more than " + std::to_string(max_items) + " entries");
  }
  std::vector<std::string> out;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const std::string* text = (*array)[i].as_string();
    const std::string where = at(name) + "[" + std::to_string(i) + "]";
    if (text == nullptr) {
      return schema_invalid(where, "is not a string");
    }
    if (text->size() > max_bytes) {
      return schema_invalid(where, "is longer than " + std::to_string(max_bytes) + " bytes");
    }
    out.push_back(*text);
  }
  return std::optional(std::move(out));
}

Read<std::optional<std::int64_t>> ObjectReader::integer(std::string_view name, std::int64_t low, std::int64_t high) const {
  const json::Value* value = find(name);
  if (value == nullptr) {
    return std::optional<std::int64_t>();
  }
  const std::int64_t* number = value->as_int();
  if (number == nullptr) {
    return schema_invalid(at(name), "is not an integer", value->as_string() != nullptr ? "write it without quotes" : "");
  }
  if (*number < low || *number > high) {
    return schema_invalid(at(name), "is not between " + std::to_string(low) + " and " + std::to_string(high));
  }
  return std::optional(*number);
}

Read<std::int64_t> ObjectReader::required_integer(std::string_view name, std::int64_t low, std::int64_t high) const {
  const std::optional<std::int64_t> out = CR_TRY(integer(name, low, high));
  if (!out.has_value()) {
    return schema_invalid(at(name), "is missing");
  }
  return *out;
}

Read<std::optional<base::WallTime>> ObjectReader::time(std::string_view name) const {
  const auto written = CR_TRY(text(name, 64));
  if (!written.has_value()) {
    return std::optional<base::WallTime>();
  }
  auto time = base::parse_rfc3339(*written);
  if (!time.ok()) {
    return schema_invalid(at(name), "is no RFC 3339 time in UTC", R"(write it as "2026-11-21T10:00:00Z")");
  }
  return std::optional(*time);
}

Read<std::optional<bool>> ObjectReader::boolean(std::string_view name) const {
  const json::Value* value = find(name);
  if (value == nullptr) {
    return std::optional<bool>();
  }
  const bool* flag = value->as_bool();
  if (flag == nullptr) {
    return schema_invalid(at(name), "is neither true nor false");
  }
  return std::optional(*flag);
}

Read<model::StringMap> ObjectReader::string_map(std::string_view name) const {
  constexpr std::size_t kMaxEntries = 32;
  constexpr std::size_t kMaxValue = 1024;
  model::StringMap out;
  const json::Value* value = find(name);
  if (value == nullptr) {
    return out;
  }
  const json::Object* object = value->as_object();
  if (object == nullptr) {
    return schema_invalid(at(name), "is not an object of strings");
  }
  if (object->size() > kMaxEntries) {
    return schema_invalid(at(name), "has more than " + std::to_string(kMaxEntries) + " entries");
  }
  for (const auto& [key, entry] : object->members()) {
    const std::string* text = entry.as_string();
    if (!is_name(key, "._/-")) {
      return schema_invalid(at(name), "has a key that is no name", "keys are letters, digits and '._/-', at most 128");
    }
    if (text == nullptr || text->size() > kMaxValue || !is_printable(*text)) {
      return schema_invalid(at(name) + "." + key, "is not a string of at most 1024 bytes without control characters");
    }
    out.emplace_back(key, *text);
  }
  return out;
}

}  // namespace cellrund::job
