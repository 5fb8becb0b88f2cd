// What the CLI prints: data on stdout as table, JSON or JSON lines; errors and remarks on stderr.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/messages.hpp"
#include "base/json.hpp"

namespace cellrund::cli {

enum class Format { kTable, kWide, kJson, kJsonLines };

enum class Colour { kNone, kRed, kGreen, kYellow, kBold };

// How to print; decided once from the flags, the environment and whether the descriptors are terminals.
struct Style {
  Format format = Format::kTable;
  bool colour_out = false;
  bool colour_err = false;
  [[nodiscard]] bool json() const noexcept { return format == Format::kJson || format == Format::kJsonLines; }
};

// NO_COLOR (no-color.org: present and not empty), FORCE_COLOR, TERM=dumb, terminal or not.
[[nodiscard]] bool wants_colour(bool is_terminal, std::string_view no_colour, std::string_view force_colour,
                                std::string_view term);

[[nodiscard]] std::string paint(std::string_view text, Colour colour, bool enabled);

// An untrusted string for a terminal: everything but printable ASCII as \xNN, cut after `limit` bytes.
[[nodiscard]] std::string printable(std::string_view untrusted, std::size_t limit = 512);

// The same, and "-" for nothing.
[[nodiscard]] std::string or_dash(std::string_view untrusted);

// Columns padded to their widest cell, two spaces between them, no space at the end of a line. Cells must be printable.
[[nodiscard]] std::string table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows);

// A list as {"name": [...]} (JSON) or one object a line (JSON lines).
[[nodiscard]] std::string list_text(Format format, std::string_view name, base::json::Array items);
// One object, indented (JSON) or on one line (JSON lines).
[[nodiscard]] std::string object_text(Format format, base::json::Object object);

// "cellrun: MESSAGE (CODE)" and "hint: …", or {code, reason, message, hint, retryable, field, uid}.
[[nodiscard]] std::string error_text(const Style& style, const api::Failure& failure);

// To stdout or stderr, all of it. False when the reader is gone.
bool print(std::string_view text);
void remark(std::string_view text);
inline constexpr std::string_view kOutputWasCut =
    "cellrun: the job wrote more than its log may hold (spec.logs.maxBytes): what came then was dropped\n";

}  // namespace cellrund::cli
