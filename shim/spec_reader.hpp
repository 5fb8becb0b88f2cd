// Typed access to the members of one JSON object of an OCI spec. Every member must be asked for, or be declared as known
// to be harmless, before done(): a member that nobody looked at is an instruction that would have been dropped.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace cellrund::shim {

class SpecReader {
 public:
  // `value` may be nullptr or null: then every member is absent.
  static base::Result<SpecReader> open(const base::json::Value* value, std::string where);

  // Absent or null: nullptr.
  const base::json::Value* get(std::string_view key);
  // Absent: the fallback. Another type: kInvalidArgument.
  base::Result<std::string> text(std::string_view key, std::string fallback = {});
  base::Result<bool> boolean(std::string_view key, bool fallback);
  base::Result<std::int64_t> integer(std::string_view key, std::int64_t fallback);
  base::Result<std::uint32_t> id(std::string_view key, std::uint32_t fallback);  // 0 … 2^32-2
  base::Result<std::vector<std::string>> texts(std::string_view key);
  // The elements of an array; empty when absent.
  base::Result<base::json::Array> list(std::string_view key);
  base::Result<SpecReader> object(std::string_view key);

  // Present and neither null, "", 0, false, [] nor {}: kUnimplemented.
  base::Status refuse(std::initializer_list<std::string_view> keys);
  // Known, and of no consequence here.
  void ignore(std::initializer_list<std::string_view> keys);
  // kUnimplemented names the first member that was not asked for.
  base::Status done() const;

  [[nodiscard]] base::Error bad(std::string_view key, std::string_view why) const;
  [[nodiscard]] base::Error unsupported(std::string_view key, std::string_view why = "a cell does not have it") const;

 private:
  SpecReader(const base::json::Object* object, std::string where) : object_(object), where_(std::move(where)) {}
  const base::json::Object* object_;  // nullptr: absent
  std::string where_;
  std::unordered_set<std::string> seen_;
};

}  // namespace cellrund::shim
