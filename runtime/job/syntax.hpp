// The small languages inside a jobspec's strings. All ASCII: look-alike and invisible characters fail everywhere a name
// is compared.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "model/job_spec.hpp"
#include "model/outcome.hpp"

namespace cellrund::job {

[[nodiscard]] bool is_label(std::string_view text) noexcept;         // RFC 1123 label: a-z 0-9 -, 1 to 63
[[nodiscard]] bool is_name(std::string_view text, std::string_view punctuation) noexcept;  // alphanumeric first, 1 to 128
[[nodiscard]] bool is_env_name(std::string_view text) noexcept;      // POSIX: letter or _, then alphanumerics and _
[[nodiscard]] bool is_absolute_path(std::string_view text) noexcept; // no empty, "." or ".." part, no control characters
// A host name in full, RFC 1123: labels between dots, two at least, 253 in all, the last one no number (so no address).
[[nodiscard]] bool is_dns_name(std::string_view text) noexcept;
[[nodiscard]] bool is_capability(std::string_view text) noexcept;    // CAP_… of capabilities(7)
[[nodiscard]] bool is_printable(std::string_view text) noexcept;     // no C0 control characters, no DEL
[[nodiscard]] std::optional<int> parse_signal(std::string_view text) noexcept;

// "repo@sha256:<64 hex>" as the distribution spec names repositories, without a tag.
base::Result<model::ImageRef, model::Refusal> parse_image(std::string_view text, const std::string& field);

// The known name nearest to a misspelt one: other case, or at most two edits. Empty when nothing is near.
class Speller {
 public:
  explicit Speller(std::string_view wrong) : wrong_(wrong) {}
  void offer(std::string_view known);
  [[nodiscard]] std::string_view best() const noexcept { return best_; }

 private:
  std::string_view wrong_;
  std::string_view best_;
  std::size_t distance_ = 3;
};

}  // namespace cellrund::job
