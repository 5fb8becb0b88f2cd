// A host name as a rule names its target: exactly one name, or everything below one. Pure.
#pragma once

#include <compare>
#include <string>
#include <string_view>

namespace cellrund::model {

struct HostName {
  static constexpr std::size_t kLongest = 128;  // also of what a cell may ask the resolver for

  std::string name;       // lower case, no dot at the end, at most kLongest
  bool wildcard = false;  // any name that ends in "." and `name`, not `name` itself

  // `asked`: lower case, no dot at the end. A wildcard takes only what a host name is made of, and '_'.
  [[nodiscard]] bool matches(std::string_view asked) const noexcept {
    if (!wildcard) {
      return asked == name;
    }
    constexpr std::string_view kMadeOf = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
    return asked.size() > name.size() + 1 && asked.ends_with(name) && asked[asked.size() - name.size() - 1] == '.' &&
           asked.find_first_not_of(kMadeOf) == std::string_view::npos;
  }
  // Whether every name that `other` stands for is one of ours.
  [[nodiscard]] bool covers(const HostName& other) const noexcept {
    return *this == other || (wildcard && matches(other.name));
  }
  [[nodiscard]] std::string text() const { return (wildcard ? "*." : "") + name; }  // as a rule writes it

  friend auto operator<=>(const HostName&, const HostName&) = default;
};

// "api.example.com" or "*.example.com", of a text that was checked to be one.
[[nodiscard]] inline HostName host_name_of(std::string_view text) {
  constexpr std::string_view kAnything = "*.";
  const bool wildcard = text.starts_with(kAnything);
  return {std::string(wildcard ? text.substr(kAnything.size()) : text), wildcard};
}

}  // namespace cellrund::model
