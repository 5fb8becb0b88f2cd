#include "output.hpp"

#include <unistd.h>

#include <algorithm>

#include "base/file.hpp"

namespace cellrund::cli {

bool wants_colour(bool is_terminal, std::string_view no_colour, std::string_view force_colour, std::string_view term) {
  if (!no_colour.empty()) {
    return false;
  }
  if (!force_colour.empty() && force_colour != "0") {
    return true;
  }
  return is_terminal && term != "dumb" && !term.empty();
}

std::string paint(std::string_view text, Colour colour, bool enabled) {
  if (!enabled || colour == Colour::kNone) {
    return std::string(text);
  }
  std::string_view code;
  switch (colour) {
    case Colour::kRed: code = "31"; break;
    case Colour::kGreen: code = "32"; break;
    case Colour::kYellow: code = "33"; break;
    case Colour::kBold: case Colour::kNone: code = "1"; break;
  }
  return "\x1b[" + std::string(code) + "m" + std::string(text) + "\x1b[0m";
}

std::string printable(std::string_view untrusted, std::size_t limit) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  for (const char c : untrusted.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4U];
      out += kHex[byte & 15U];
    }
  }
  return untrusted.size() > limit ? out + "..." : out;
}

std::string or_dash(std::string_view untrusted) { return untrusted.empty() ? "-" : printable(untrusted); }

std::string table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const std::string& cell : header) {
    widths.push_back(cell.size());
  }
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string out;
  const auto add = [&](const std::vector<std::string>& row) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) {
        line.append(widths[i] - row[i].size() + 2, ' ');
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  add(header);
  for (const auto& row : rows) {
    add(row);
  }
  return out;
}

std::string list_text(Format format, std::string_view name, base::json::Array items) {
  if (format == Format::kJsonLines) {
    std::string out;
    for (const base::json::Value& item : items) {
      out += base::json::write(item) + "\n";
    }
    return out;
  }
  return base::json::write_pretty(base::json::Object{{std::string(name), std::move(items)}});
}

std::string object_text(Format format, base::json::Object object) {
  return format == Format::kJsonLines ? base::json::write(std::move(object)) + "\n"
                                      : base::json::write_pretty(std::move(object));
}

std::string error_text(const Style& style, const api::Failure& failure) {
  const std::string code(to_string(failure.code));
  const std::string reason(to_string(failure.reason));
  if (style.json()) {
    return base::json::write(base::json::Object{{"code", code}, {"reason", reason}, {"message", failure.message},
                                                {"hint", failure.hint}, {"retryable", failure.retryable},
                                                {"field", failure.field}, {"uid", failure.uid}}) + "\n";
  }
  std::string out = paint("cellrun:", Colour::kRed, style.colour_err) + " ";
  out += failure.field.empty() || failure.message.starts_with(failure.field) ? "" : printable(failure.field) + ": ";
  out += printable(failure.message, 4096) + " (" + (reason.empty() ? code : reason) + ")\n";
  if (!failure.hint.empty()) {
    out += paint("hint:", Colour::kBold, style.colour_err) + " " + printable(failure.hint, 4096) + "\n";
  }
  return out;
}

bool print(std::string_view text) { return base::write_all(STDOUT_FILENO, base::as_bytes(text)).ok(); }

void remark(std::string_view text) {
  (void)base::write_all(STDERR_FILENO, base::as_bytes(text));  // there is no one left to tell
}

}  // namespace cellrund::cli
