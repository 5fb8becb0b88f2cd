#include "pack.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <dirent.h>
#include <memory>
#include <vector>

#include "base/file.hpp"
#include "crypto/digest.hpp"
#include "output.hpp"
#include "tar_file.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

// The largest that any node may be configured to take; the node's own bound is usually much lower.
constexpr std::uint64_t kMostBytes = 64ULL << 30U;
constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxPath = 4095;
constexpr std::size_t kMaxNames = 1'000'000;  // of one folder

Error bad(const std::string& path, std::string_view why) {
  return Error(Errc::kInvalidArgument, printable(path) + ": " + std::string(why));
}

// RFC 3629: what a node's unpacker takes as a name.
bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xC2 && lead < 0xE0 ? 2 : lead >= 0xE0 && lead < 0xF0 ? 3
                               : lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
    if (length == 0 || i + length > text.size()) {
      return false;
    }
    std::uint32_t point = length == 1 ? lead : lead & (0x7FU >> length);
    for (std::size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0U) != 0x80) {
        return false;
      }
      point = point << 6U | (next & 0x3FU);
    }
    const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
    if (overlong || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) {
      return false;
    }
    i += length;
  }
  return true;
}

Result<std::vector<std::string>> sorted_names(const UniqueFd& folder) {
  UniqueFd copy = CR_TRY(base::open_at(folder.get(), ".", O_RDONLY | O_DIRECTORY));
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy.get()), &::closedir);
  if (!stream) {
    return Error::from_errno("fdopendir");
  }
  (void)copy.release();  // the stream's now
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) {
      if (errno != 0) {
        return Error::from_errno("readdir");
      }
      break;
    }
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
    if (names.size() > kMaxNames) {
      return Error(Errc::kResourceExhausted, "more than a million names");
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

class Packer {
 public:
  Packer(TarFile& tar, std::string root) : tar_(tar), root_(std::move(root)) {}

  // NOLINTNEXTLINE(misc-no-recursion): bounded by kMaxDepth
  Status folder(const UniqueFd& fd, const std::string& path, std::size_t depth) {
    if (depth > kMaxDepth) {
      return bad(shown(path), "folders nest deeper than " + std::to_string(kMaxDepth));
    }
    auto names = sorted_names(fd);
    if (!names.ok()) {
      return std::move(names).error().context(printable(shown(path)));
    }
    for (const std::string& name : *names) {
      CR_CHECK(entry(fd, name, path.empty() ? name : path + "/" + name, depth));
    }
    return base::ok();
  }

 private:
  [[nodiscard]] std::string shown(const std::string& path) const { return path.empty() ? root_ : root_ + "/" + path; }

  // NOLINTNEXTLINE(misc-no-recursion): bounded by kMaxDepth
  Status entry(const UniqueFd& parent, const std::string& name, const std::string& path, std::size_t depth) {
    if (!is_utf8(name)) {
      return bad(shown(path), "its name is no UTF-8");
    }
    if (path.size() > kMaxPath) {
      return bad(shown(path), "its path is longer than " + std::to_string(kMaxPath) + " bytes");
    }
    struct stat st {};
    if (::fstatat(parent.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      return Error::from_errno(printable(shown(path)));
    }
    switch (st.st_mode & S_IFMT) {
      case S_IFLNK: {
        std::array<char, kMaxPath + 1> target{};
        const ssize_t n = ::readlinkat(parent.get(), name.c_str(), target.data(), target.size());
        if (n < 0) {
          return Error::from_errno(printable(shown(path)));
        }
        const std::string_view text(target.data(), static_cast<std::size_t>(n));
        if (text.size() > kMaxPath || !is_utf8(text)) {
          return bad(shown(path), "its target is too long or no UTF-8");
        }
        return tar_.symlink(path, text).context(printable(shown(path)));
      }
      case S_IFDIR: {
        auto child = base::open_at(parent.get(), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (!child.ok()) {
          return std::move(child).error().context(printable(shown(path)));
        }
        CR_CHECK(tar_.folder(path, st.st_mode).context(printable(shown(path))));
        return folder(*child, path, depth + 1);
      }
      case S_IFREG: return file(parent, name, path);
      case S_IFIFO: return bad(shown(path), "a FIFO: only regular files, folders and symbolic links can be packed");
      case S_IFSOCK: return bad(shown(path), "a socket: only regular files, folders and symbolic links can be packed");
      default: return bad(shown(path), "a device: only regular files, folders and symbolic links can be packed");
    }
  }

  Status file(const UniqueFd& parent, const std::string& name, const std::string& path) {
    auto content = base::open_at(parent.get(), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    struct stat st {};
    if (!content.ok() || ::fstat(content->get(), &st) != 0) {
      return content.ok() ? Error::from_errno(printable(shown(path))) : std::move(content).error().context(printable(shown(path)));
    }
    if (!S_ISREG(st.st_mode)) {
      return bad(shown(path), "it was replaced while it was read");
    }
    return tar_.file(path, st.st_mode, content->get(), static_cast<std::uint64_t>(st.st_size)).context(printable(shown(path)));
  }

  TarFile& tar_;
  std::string root_;
};

Result<PackedFiles> pack_folder(const UniqueFd& folder, const std::string& path) {
  const char* temporary = ::secure_getenv("TMPDIR");
  const std::string place = temporary != nullptr && *temporary != '\0' ? temporary : "/tmp";
  PackedFiles out;
  out.archive = CR_TRY(base::open_file(place, O_TMPFILE | O_RDWR, 0600).context("temporary archive"));
  TarFile tar(out.archive.get(), kMostBytes);
  CR_CHECK(Packer(tar, path).folder(folder, "", 0));
  CR_CHECK(tar.finish());
  out.bytes = tar.bytes();
  return out;
}

Status check_tar(int fd, const std::string& path) {
  constexpr std::string_view kMagic = "ustar";
  constexpr off_t kMagicAt = 257;
  std::array<char, kMagic.size()> magic{};
  if (::pread(fd, magic.data(), magic.size(), kMagicAt) != static_cast<ssize_t>(magic.size()) ||
      std::string_view(magic.data(), magic.size()) != kMagic) {
    return bad(path, "neither a folder nor a tar archive without compression");
  }
  return base::ok();
}

}  // namespace

Result<PackedFiles> pack_files(const std::string& path) {
  UniqueFd fd = CR_TRY(base::open_file(path, O_RDONLY | O_NONBLOCK));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) {
    return Error::from_errno(printable(path));
  }
  PackedFiles out;
  if (S_ISDIR(st.st_mode)) {
    out = CR_TRY(pack_folder(fd, path));
  } else if (S_ISREG(st.st_mode)) {
    CR_CHECK(check_tar(fd.get(), path));
    out.bytes = static_cast<std::uint64_t>(st.st_size);
    out.archive = std::move(fd);
  } else {
    return bad(path, "neither a folder nor a tar archive");
  }
  out.digest = CR_TRY(crypto::digest_of_fd(out.archive.get(), kMostBytes).context(printable(path)));
  return out;
}

}  // namespace cellrund::cli
