// Tar archives written byte by byte, so that tests can say exactly what is wrong with them (POSIX.1-2017 pax(1),
// ustar).
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace cellrund::test {

struct TarEntry {
  std::string name;
  char type = '0';  // 0 file, 1 hard link, 2 symbolic link, 3 character device, 5 folder, 6 FIFO
  std::string content;
  std::string link;
  unsigned mode = 0644;
  unsigned uid = 0;
  unsigned gid = 0;
  std::string size_field;  // overrides the size as it is written
};

class Tar {
 public:
  explicit Tar(unsigned uid = 0, unsigned gid = 0) : uid_(uid), gid_(gid) {}

  Tar& add(TarEntry entry) {
    std::array<char, 512> header{};
    const auto put = [&](std::size_t at, std::size_t length, std::string_view text) {
      text.copy(header.data() + at, std::min(length, text.size()));
    };
    const auto octal = [](std::uint64_t value, int digits) {
      std::array<char, 32> text{};
      (void)std::snprintf(text.data(), text.size(), "%0*lo", digits, static_cast<unsigned long>(value));
      return std::string(text.data());
    };
    put(0, 100, entry.name);
    put(100, 8, octal(entry.mode, 7));
    put(108, 8, octal(entry.uid != 0 ? entry.uid : uid_, 7));
    put(116, 8, octal(entry.gid != 0 ? entry.gid : gid_, 7));
    put(124, 12, entry.size_field.empty() ? octal(entry.content.size(), 11) : entry.size_field);
    put(136, 12, octal(1, 11));
    put(148, 8, "        ");
    header[156] = entry.type;
    put(157, 100, entry.link);
    put(257, 8, std::string_view("ustar\00000", 8));
    unsigned sum = 0;
    for (const char c : header) {
      sum += static_cast<unsigned char>(c);
    }
    put(148, 8, octal(sum, 6) + std::string("\0 ", 2));
    bytes_.append(header.data(), header.size());
    bytes_ += entry.content;
    bytes_.append((512 - entry.content.size() % 512) % 512, '\0');
    return *this;
  }
  Tar& file(const std::string& name, const std::string& content, unsigned mode = 0644) {
    return add({.name = name, .content = content, .mode = mode});
  }
  Tar& folder(const std::string& name, unsigned mode = 0755) { return add({.name = name, .type = '5', .mode = mode}); }
  Tar& symlink(const std::string& name, const std::string& to) { return add({.name = name, .type = '2', .link = to}); }
  Tar& hardlink(const std::string& name, const std::string& to) { return add({.name = name, .type = '1', .link = to}); }
  // A pax extended header for the next entry.
  Tar& pax(const std::string& key, const std::string& value) {
    const std::string body = " " + key + "=" + value + "\n";
    std::size_t length = body.size() + 1;
    while (std::to_string(length).size() + body.size() != length) {
      ++length;
    }
    return add({.name = "pax", .type = 'x', .content = std::to_string(length) + body});
  }
  [[nodiscard]] std::string bytes() const { return bytes_ + std::string(1024, '\0'); }
  [[nodiscard]] const std::string& unfinished() const { return bytes_; }

 private:
  unsigned uid_;
  unsigned gid_;
  std::string bytes_;
};

}  // namespace cellrund::test
