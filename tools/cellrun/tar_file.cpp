#include "tar_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <vector>

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;
using base::Status;

constexpr std::size_t kBlock = 512;
constexpr std::uint64_t kMostInOctal = (1ULL << 33U) - 1;  // 11 digits
constexpr std::size_t kNameField = 100;

using Block = std::array<char, kBlock>;

void put_text(Block& block, std::size_t at, std::size_t size, std::string_view text) {
  (void)text.copy(block.data() + at, size);
}
// Digits and a NUL, as every reader takes them.
void put_octal(Block& block, std::size_t at, int digits, std::uint64_t value) {
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "%0*llo", digits, static_cast<unsigned long long>(value));
  put_text(block, at, static_cast<std::size_t>(digits), text.data());
}

// "LENGTH key=value\n", where LENGTH counts itself.
std::string pax_record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;  // blank, equals sign, newline
  std::size_t length = rest + 1;
  while (length != rest + std::to_string(length).size()) {
    length = rest + std::to_string(length).size();
  }
  return std::to_string(length) + " " + std::string(key) + "=" + std::string(value) + "\n";
}

}  // namespace

struct TarFile::Header {
  std::string_view path;
  char type;
  unsigned mode;
  std::uint64_t size;
  std::string_view link;
};

Status TarFile::put(base::BytesView bytes) {
  if (bytes.size() > limit_ - written_) {
    return Error(Errc::kResourceExhausted, "larger than " + std::to_string(limit_) + " bytes when packed");
  }
  CR_CHECK(base::write_all(fd_, bytes));
  written_ += bytes.size();
  return base::ok();
}

Status TarFile::pad() {
  constexpr std::array<std::uint8_t, kBlock> kZeros{};
  const std::size_t over = written_ % kBlock;
  return over == 0 ? base::ok() : put(base::BytesView(kZeros).first(kBlock - over));
}

// Fields: POSIX.1-2017, pax, "ustar Interchange Format". What does not fit stands in an extended header before it.
Status TarFile::header(const Header& h) {
  std::string extended;
  if (h.path.size() > kNameField) {
    extended += pax_record("path", h.path);
  }
  if (h.link.size() > kNameField) {
    extended += pax_record("linkpath", h.link);
  }
  if (h.size > kMostInOctal) {
    extended += pax_record("size", std::to_string(h.size));
  }
  if (!extended.empty()) {
    CR_CHECK(header({.path = "pax", .type = 'x', .mode = 0644, .size = extended.size(), .link = {}}));
    CR_CHECK(put(base::as_bytes(extended)));
    CR_CHECK(pad());
  }
  Block block{};
  put_text(block, 0, kNameField, h.path);
  put_octal(block, 100, 7, h.mode & 0777U);
  put_octal(block, 108, 7, 0);  // uid
  put_octal(block, 116, 7, 0);  // gid
  put_octal(block, 124, 11, std::min(h.size, kMostInOctal));
  put_octal(block, 136, 11, 0);  // mtime
  put_text(block, 148, 8, "        ");
  block[156] = h.type;
  put_text(block, 157, kNameField, h.link);
  put_text(block, 257, 8, std::string_view("ustar\00000", 8));
  unsigned sum = 0;
  for (const char byte : block) {
    sum += static_cast<unsigned char>(byte);
  }
  put_octal(block, 148, 6, sum);
  block[154] = '\0';
  return put({reinterpret_cast<const std::uint8_t*>(block.data()), block.size()});
}

Status TarFile::folder(std::string_view path, unsigned mode) {
  return header({.path = std::string(path) + "/", .type = '5', .mode = mode, .size = 0, .link = {}});
}

Status TarFile::symlink(std::string_view path, std::string_view target) {
  return header({.path = path, .type = '2', .mode = 0777, .size = 0, .link = target});
}

Status TarFile::file(std::string_view path, unsigned mode, int content, std::uint64_t size) {
  CR_CHECK(header({.path = path, .type = '0', .mode = mode, .size = size, .link = {}}));
  std::vector<std::uint8_t> buffer(64UL * 1024);
  std::uint64_t left = size;
  for (;;) {
    const ssize_t n = ::read(content, buffer.data(), buffer.size());
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("read");
    }
    if (static_cast<std::uint64_t>(n) > left || (n == 0 && left != 0)) {
      return Error(Errc::kFailedPrecondition, "its size changed while it was read");
    }
    if (n == 0) {
      return pad();
    }
    CR_CHECK(put({buffer.data(), static_cast<std::size_t>(n)}));
    left -= static_cast<std::uint64_t>(n);
  }
}

Status TarFile::finish() {
  constexpr std::array<std::uint8_t, 2 * kBlock> kEnd{};
  return put(kEnd);
}

}  // namespace cellrund::cli
