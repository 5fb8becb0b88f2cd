// Strict JSON: the only JSON reader and writer of the project (nlohmann's lexer behind it).
//
// The reader refuses what other readers disagree about: duplicate keys at any depth (after escapes are resolved),
// floats and numbers outside int64, NUL in strings, non-UTF-8, lone surrogates, a byte order mark, trailing bytes,
// and anything deeper or larger than its limits. Objects keep their order, so that writing is deterministic.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.hpp"

namespace cellrund::base::json {

class Value;
using Array = std::vector<Value>;
using Member = std::pair<std::string, Value>;

// Keys are unique; kept in order of insertion.
class Object {
 public:
  Object() = default;
  Object(std::initializer_list<Member> members);
  [[nodiscard]] const Value* find(std::string_view key) const noexcept;
  // Replaces the value of an existing key.
  void set(std::string key, Value value);
  [[nodiscard]] const std::vector<Member>& members() const noexcept { return members_; }
  [[nodiscard]] bool empty() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept;

 private:
  std::vector<Member> members_;
};

class Value {
 public:
  Value() = default;  // null
  Value(std::nullptr_t) {}                                      // NOLINT(google-explicit-constructor)
  Value(bool b) : data_(b) {}                                   // NOLINT(google-explicit-constructor)
  Value(std::int64_t n) : data_(n) {}                           // NOLINT(google-explicit-constructor)
  Value(int n) : data_(static_cast<std::int64_t>(n)) {}         // NOLINT(google-explicit-constructor)
  Value(unsigned n) : data_(static_cast<std::int64_t>(n)) {}    // NOLINT(google-explicit-constructor)
  // Values above INT64_MAX do not occur: sizes, counts and times of this project are bounded below it.
  Value(std::uint64_t n) : data_(static_cast<std::int64_t>(n)) {}  // NOLINT(google-explicit-constructor)
  Value(std::string s) : data_(std::move(s)) {}                 // NOLINT(google-explicit-constructor)
  Value(std::string_view s) : data_(std::string(s)) {}          // NOLINT(google-explicit-constructor)
  Value(const char* s) : data_(std::string(s)) {}               // NOLINT(google-explicit-constructor)
  Value(Array a) : data_(std::move(a)) {}                       // NOLINT(google-explicit-constructor)
  Value(Object o) : data_(std::move(o)) {}                      // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool is_null() const noexcept { return std::holds_alternative<std::monostate>(data_); }
  // nullptr when it is of another type.
  [[nodiscard]] const bool* as_bool() const noexcept { return std::get_if<bool>(&data_); }
  [[nodiscard]] const std::int64_t* as_int() const noexcept { return std::get_if<std::int64_t>(&data_); }
  [[nodiscard]] const std::string* as_string() const noexcept { return std::get_if<std::string>(&data_); }
  [[nodiscard]] const Array* as_array() const noexcept { return std::get_if<Array>(&data_); }
  [[nodiscard]] const Object* as_object() const noexcept { return std::get_if<Object>(&data_); }
  [[nodiscard]] Array* as_array() noexcept { return std::get_if<Array>(&data_); }
  [[nodiscard]] Object* as_object() noexcept { return std::get_if<Object>(&data_); }
  // Member of an object by key; nullptr when absent or not an object.
  [[nodiscard]] const Value* find(std::string_view key) const noexcept;

 private:
  std::variant<std::monostate, bool, std::int64_t, std::string, Array, Object> data_;
};

// Here because clang looks into the vector at their definition, which needs Value to be complete.
inline bool Object::empty() const noexcept { return members_.empty(); }
inline std::size_t Object::size() const noexcept { return members_.size(); }

struct Limits {
  std::size_t max_bytes = 256 * 1024;
  std::size_t max_depth = 32;
  std::size_t max_members = 1024;  // of one object: bounds the quadratic search for duplicate keys
};

// kResourceExhausted above a limit, kInvalidArgument for everything else that is wrong; the message says what and
// near which byte, and never quotes the input.
Result<Value> parse(std::string_view text, const Limits& limits);

// Compact, in order, non-ASCII as UTF-8.
[[nodiscard]] std::string write(const Value& value);
// Two-space indent, for people.
[[nodiscard]] std::string write_pretty(const Value& value);

}  // namespace cellrund::base::json
