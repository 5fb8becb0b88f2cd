// Private to evidence/: writing facts into JSON under a budget, and remembering what the budget cut away.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/json.hpp"

namespace cellrund::evidence {

struct Budget {
  std::size_t list_items;
  std::size_t string_bytes;
};

class Writer {
 public:
  explicit Writer(const Budget& budget) : budget_(budget) {}

  // A string that the strict reader takes back: cut to the budget, NUL replaced (U+FFFD). The JSON writer replaces what
  // is no UTF-8.
  [[nodiscard]] base::json::Value text(std::string_view value) {
    std::string out(value.substr(0, budget_.string_bytes));
    for (std::size_t at = out.find('\0'); at != std::string::npos; at = out.find('\0', at)) {
      out.replace(at, 1, "\xEF\xBF\xBD");
    }
    if (value.size() > budget_.string_bytes) {
      out += "…";
      cut_ = true;
    }
    return out;
  }
  // Counters come from the kernel as 64 unsigned bits; JSON readers hold 63 of them.
  [[nodiscard]] static base::json::Value count(std::uint64_t value) {
    constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return static_cast<std::int64_t>(value > kMax ? kMax : value);
  }
  [[nodiscard]] static base::json::Value wall(base::WallTime time) { return base::format_rfc3339(time, true); }

  // Sets `key` only when there is something to say.
  void put(base::json::Object& object, const char* key, std::string_view value) {
    if (!value.empty()) {
      object.set(key, text(value));
    }
  }
  void put(base::json::Object& object, const char* key, base::json::Object value) const {
    if (!value.empty()) {
      object.set(key, std::move(value));
    }
  }
  void put_count(base::json::Object& object, const char* key, std::uint64_t value) const {
    if (value != 0) {
      object.set(key, count(value));
    }
  }

  template <typename T, typename Render>
  [[nodiscard]] base::json::Array list(const std::vector<T>& items, std::string_view name, Render render) {
    base::json::Array out;
    for (const T& item : items) {
      if (out.size() == budget_.list_items) {
        gaps_.push_back(std::string(name) + ": " + std::to_string(items.size() - out.size()) + " more entries than a record holds");
        break;
      }
      out.emplace_back(render(item));
    }
    return out;
  }

  [[nodiscard]] bool cut() const noexcept { return cut_ || !gaps_.empty(); }
  [[nodiscard]] const std::vector<std::string>& gaps() const noexcept { return gaps_; }

 private:
  Budget budget_;
  bool cut_ = false;
  std::vector<std::string> gaps_;
};

}  // namespace cellrund::evidence
