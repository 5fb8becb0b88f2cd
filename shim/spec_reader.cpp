#include "shim/spec_reader.hpp"

#include <limits>

namespace cellrund::shim {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
namespace json = base::json;

namespace {

bool is_empty(const json::Value& value) noexcept {
  if (const bool* b = value.as_bool()) {
    return !*b;
  }
  if (const std::int64_t* n = value.as_int()) {
    return *n == 0;
  }
  if (const std::string* s = value.as_string()) {
    return s->empty();
  }
  if (const json::Array* a = value.as_array()) {
    return a->empty();
  }
  if (const json::Object* o = value.as_object()) {
    return o->empty();
  }
  return true;
}

}  // namespace

Result<SpecReader> SpecReader::open(const json::Value* value, std::string where) {
  if (value == nullptr || value->is_null()) {
    return SpecReader(nullptr, std::move(where));
  }
  if (value->as_object() == nullptr) {
    return Error(Errc::kInvalidArgument, "OCI spec: " + where + ": not an object");
  }
  return SpecReader(value->as_object(), std::move(where));
}

const json::Value* SpecReader::get(std::string_view key) {
  seen_.emplace(key);
  const json::Value* value = object_ == nullptr ? nullptr : object_->find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Result<std::string> SpecReader::text(std::string_view key, std::string fallback) {
  const json::Value* value = get(key);
  if (value == nullptr) {
    return fallback;
  }
  if (value->as_string() == nullptr) {
    return bad(key, "not a string");
  }
  return *value->as_string();
}

Result<bool> SpecReader::boolean(std::string_view key, bool fallback) {
  const json::Value* value = get(key);
  if (value == nullptr) {
    return fallback;
  }
  if (value->as_bool() == nullptr) {
    return bad(key, "not a boolean");
  }
  return *value->as_bool();
}

Result<std::int64_t> SpecReader::integer(std::string_view key, std::int64_t fallback) {
  const json::Value* value = get(key);
  if (value == nullptr) {
    return fallback;
  }
  if (value->as_int() == nullptr) {
    return bad(key, "not an integer");
  }
  return *value->as_int();
}

Result<std::uint32_t> SpecReader::id(std::string_view key, std::uint32_t fallback) {
  const std::int64_t value = CR_TRY(integer(key, fallback));
  if (value < 0 || value >= std::numeric_limits<std::uint32_t>::max()) {
    return bad(key, "out of range");
  }
  return static_cast<std::uint32_t>(value);
}

Result<json::Array> SpecReader::list(std::string_view key) {
  const json::Value* value = get(key);
  if (value == nullptr) {
    return json::Array{};
  }
  if (value->as_array() == nullptr) {
    return bad(key, "not an array");
  }
  return *value->as_array();
}

Result<std::vector<std::string>> SpecReader::texts(std::string_view key) {
  std::vector<std::string> out;
  for (const json::Value& element : CR_TRY(list(key))) {
    if (element.as_string() == nullptr) {
      return bad(key, "not an array of strings");
    }
    out.push_back(*element.as_string());
  }
  return out;
}

Result<SpecReader> SpecReader::object(std::string_view key) {
  return open(get(key), where_.empty() ? std::string(key) : where_ + "." + std::string(key));
}

Status SpecReader::refuse(std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    const json::Value* value = get(key);
    if (value != nullptr && !is_empty(*value)) {
      return unsupported(key);
    }
  }
  return base::ok();
}

void SpecReader::ignore(std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    seen_.emplace(key);
  }
}

Status SpecReader::done() const {
  if (object_ != nullptr) {
    for (const auto& [key, value] : object_->members()) {
      if (!seen_.contains(key)) {
        return unsupported(key, "unknown member");
      }
    }
  }
  return base::ok();
}

Error SpecReader::bad(std::string_view key, std::string_view why) const {
  return Error(Errc::kInvalidArgument,
               "OCI spec: " + (where_.empty() ? "" : where_ + ".") + std::string(key) + ": " + std::string(why));
}

Error SpecReader::unsupported(std::string_view key, std::string_view why) const {
  return Error(Errc::kUnimplemented, "OCI spec: " + (where_.empty() ? "" : where_ + ".") + std::string(key) +
                                         " is not supported: " + std::string(why));
}

}  // namespace cellrund::shim
