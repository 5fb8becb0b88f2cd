#include "image/unpack/tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/file.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr std::size_t kMaxPath = 4095;
constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxDepth = 256;
constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";

Error refuse(std::string why) {
  return Error(Errc::kInvalidArgument, std::move(why));
}

std::string join(const std::vector<std::string>& parts, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    out += (i == 0 ? "" : "/") + parts[i];
  }
  return out;
}

// What `fd`'s folder holds. Entry names come from our own file system.
Result<std::vector<std::string>> names_in(const UniqueFd& folder) {
  UniqueFd copy(::openat(folder.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy) {
    return Error::from_errno("open folder");
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy.get()), &::closedir);
  if (!stream) {
    return Error::from_errno("fdopendir");
  }
  (void)copy.release();  // owned by the stream now
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) {
      if (errno != 0) {
        return Error::from_errno("readdir");
      }
      return names;
    }
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
}

// The kind of what stands at a name without following it; 0 when there is nothing.
Result<mode_t> kind_of(int parent, const std::string& name) {
  struct stat st {};
  if (::fstatat(parent, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) {
      return mode_t{0};
    }
    return Error::from_errno("stat");
  }
  return st.st_mode & S_IFMT;
}

Result<UniqueFd> open_subfolder(int parent, const std::string& name) {
  UniqueFd fd(::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    return Error::from_errno("open folder");
  }
  return fd;
}

Status unlink_at(int parent, const std::string& name, int flags) {
  if (::unlinkat(parent, name.c_str(), flags) != 0 && errno != ENOENT) {
    return Error::from_errno("remove");
  }
  return base::ok();
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by kMaxDepth, which every path was checked against
Status remove_tree(int parent, const std::string& name, std::size_t depth) {
  if (CR_TRY(kind_of(parent, name)) != S_IFDIR) {
    return unlink_at(parent, name, 0);
  }
  if (depth == 0) {
    return refuse("folders nest too deeply");
  }
  const UniqueFd folder = CR_TRY(open_subfolder(parent, name));
  for (const std::string& child : CR_TRY(names_in(folder))) {
    CR_CHECK(remove_tree(folder.get(), child, depth - 1));
  }
  return unlink_at(parent, name, AT_REMOVEDIR);
}

}  // namespace

Result<std::vector<std::string>> split_entry_path(std::string_view path) {
  if (path.empty() || path.size() > kMaxPath) {
    return refuse("its path is empty or longer than " + std::to_string(kMaxPath) + " bytes");
  }
  if (path.front() == '/') {
    return refuse("its path is absolute");
  }
  if (path.find('\0') != std::string_view::npos) {
    return refuse("its path holds a NUL byte");
  }
  std::vector<std::string> parts;
  while (!path.empty()) {
    const std::string_view part = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), part.size() + 1));
    if (part.empty() || part == ".") {
      continue;
    }
    if (part == "..") {
      return refuse("its path climbs with '..'");
    }
    if (part.size() > kMaxName) {
      return refuse("a component of its path is longer than " + std::to_string(kMaxName) + " bytes");
    }
    parts.emplace_back(part);
  }
  if (parts.size() > kMaxDepth) {
    return refuse("its path has more than " + std::to_string(kMaxDepth) + " components");
  }
  return parts;
}

Result<UniqueFd> Tree::open_folder(const std::string& path) {
  // openat2(2): the kernel refuses (EXDEV, ELOOP) whatever would leave the root or follow a link.
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  UniqueFd fd(
      static_cast<int>(::syscall(SYS_openat2, root_.get(), path.empty() ? "." : path.c_str(), &how, sizeof how)));
  if (fd) {
    return fd;
  }
  switch (errno) {
    case ELOOP:
      return refuse("its path goes through a symbolic link");
    case EXDEV:
      return refuse("its path leaves the root");
    case ENOTDIR:
      return refuse("its path goes through something that is no folder");
    default:
      return Error::from_errno("open parent folder");
  }
}

Result<Tree::Place> Tree::locate(const std::vector<std::string>& parts, bool make) {
  const std::string parent = join(parts, parts.size() - 1);
  auto folder = open_folder(parent);
  if (folder.ok()) {
    return Place{std::move(*folder), parts.back()};
  }
  if (!make || folder.error().os_errno() != ENOENT) {
    return std::move(folder).error();
  }
  UniqueFd at = CR_TRY(open_folder(""));
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    if (::mkdirat(at.get(), parts[i].c_str(), 0755) != 0 && errno != EEXIST) {
      return Error::from_errno("make parent folder");
    }
    at = CR_TRY(open_folder(join(parts, i + 1)));
  }
  return Place{std::move(at), parts.back()};
}

void Tree::touch(const std::vector<std::string>& parts) {
  std::string path;
  for (const std::string& part : parts) {
    path += (path.empty() ? "" : "/") + part;
    touched_.insert(path);
  }
}

Status Tree::own(int fd, const Entry& entry) {
  if (::fchown(fd, static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid)) != 0) {
    return Error::from_errno("chown");
  }
  if (::fchmod(fd, static_cast<mode_t>(entry.mode & 07777U)) != 0) {
    return Error::from_errno("chmod");
  }
  return base::ok();
}

Status Tree::clear(const Place& place) {
  return remove_tree(place.parent.get(), place.name, kMaxDepth);
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by depth
Status Tree::hide_children(const UniqueFd& folder, const std::string& path, int depth) {
  for (const std::string& child : CR_TRY(names_in(folder))) {
    CR_CHECK(hide(folder.get(), child, path.empty() ? child : path + "/" + child, depth - 1));
  }
  return base::ok();
}

// NOLINTNEXTLINE(misc-no-recursion): bounded by depth
Status Tree::hide(int parent, const std::string& name, const std::string& path, int depth) {
  if (!touched_.contains(path)) {
    return remove_tree(parent, name, kMaxDepth);
  }
  if (depth <= 0 || CR_TRY(kind_of(parent, name)) != S_IFDIR) {
    return base::ok();
  }
  const UniqueFd folder = CR_TRY(open_subfolder(parent, name));
  return hide_children(folder, path, depth);
}

Status Tree::apply_whiteout(std::vector<std::string> parts) {
  const std::string marker = parts.back();
  parts.pop_back();
  const bool opaque = marker == kOpaque;
  const std::string hidden = marker.substr(kWhiteout.size());
  if (!opaque && (hidden.empty() || hidden == "." || hidden == ".." || hidden.starts_with(kWhiteout))) {
    return refuse("its name is a reserved whiteout");
  }
  auto folder = open_folder(join(parts, parts.size()));
  if (!folder.ok()) {
    // Nothing there to hide.
    return folder.error().os_errno() == ENOENT ? base::ok() : Status(std::move(folder).error());
  }
  const std::string path = join(parts, parts.size());
  constexpr int kDepth = static_cast<int>(kMaxDepth);
  if (opaque) {
    return hide_children(*folder, path, kDepth);
  }
  return hide(folder->get(), hidden, path.empty() ? hidden : path + "/" + hidden, kDepth);
}

Status Tree::apply_directory(const Entry& entry, const std::vector<std::string>& parts) {
  if (parts.empty()) {
    const UniqueFd root = CR_TRY(open_subfolder(root_.get(), "."));
    return own(root.get(), entry);
  }
  const Place place = CR_TRY(locate(parts, true));
  const mode_t kind = CR_TRY(kind_of(place.parent.get(), place.name));
  if (kind != S_IFDIR) {
    CR_CHECK(unlink_at(place.parent.get(), place.name, 0));
    if (::mkdirat(place.parent.get(), place.name.c_str(), 0700) != 0) {
      return Error::from_errno("mkdir");
    }
  }
  const UniqueFd folder = CR_TRY(open_subfolder(place.parent.get(), place.name));
  return own(folder.get(), entry);
}

Status Tree::apply_link(const Entry& entry, const Place& place) {
  if (entry.type == EntryType::kSymlink) {
    if (entry.link_target.empty() || entry.link_target.size() > kMaxPath) {
      return refuse("its link target is empty or too long");
    }
    CR_CHECK(clear(place));
    if (::symlinkat(entry.link_target.c_str(), place.parent.get(), place.name.c_str()) != 0 ||
        ::fchownat(place.parent.get(), place.name.c_str(), static_cast<uid_t>(entry.uid), static_cast<gid_t>(entry.gid),
                   AT_SYMLINK_NOFOLLOW) != 0) {
      return Error::from_errno("make symbolic link");
    }
    return base::ok();
  }
  auto target_parts = split_entry_path(entry.link_target);
  if (!target_parts.ok() || target_parts->empty()) {
    return refuse("its hard link target is no plain relative path");
  }
  auto target = locate(*target_parts, false);
  if (!target.ok()) {
    return target.error().os_errno() == ENOENT ? Status(refuse("its hard link target does not exist"))
                                               : Status(std::move(target).error().context("hard link target"));
  }
  const mode_t kind = CR_TRY(kind_of(target->parent.get(), target->name));
  if (kind == 0 || kind == S_IFDIR) {
    return refuse(kind == 0 ? "its hard link target does not exist" : "its hard link target is a folder");
  }
  if (*target_parts == CR_TRY(split_entry_path(entry.path))) {
    return refuse("it is a hard link to itself");
  }
  CR_CHECK(clear(place));
  // Flags 0: a target that is a symbolic link is linked itself, not what it points at.
  if (::linkat(target->parent.get(), target->name.c_str(), place.parent.get(), place.name.c_str(), 0) != 0) {
    return Error::from_errno("make hard link");
  }
  return base::ok();
}

Result<UniqueFd> Tree::apply(const Entry& entry) {
  const std::vector<std::string> parts = CR_TRY(split_entry_path(entry.path));
  if (entry.uid < 0 || entry.gid < 0 || entry.uid >= id_count_ || entry.gid >= id_count_) {
    return refuse("its owner is outside of 0 to " + std::to_string(id_count_ - 1));
  }
  const bool honoured = whiteouts_ == Whiteouts::kHonoured;
  if (honoured && !parts.empty() && parts.back().starts_with(kWhiteout)) {
    if (entry.type != EntryType::kFile) {
      return refuse("a whiteout must be a regular file");
    }
    CR_CHECK(apply_whiteout(parts));
    return UniqueFd();
  }
  for (const std::string& part : parts) {
    if (honoured && part.starts_with(kWhiteout)) {
      return refuse("its path goes through a whiteout");
    }
  }
  if (entry.type == EntryType::kDirectory) {
    CR_CHECK(apply_directory(entry, parts));
    touch(parts);
    return UniqueFd();
  }
  if (parts.empty()) {
    return refuse("the root must be a folder");
  }
  const Place place = CR_TRY(locate(parts, true));
  touch(parts);
  switch (entry.type) {
    case EntryType::kSymlink:
    case EntryType::kHardlink:
      CR_CHECK(apply_link(entry, place));
      return UniqueFd();
    case EntryType::kFifo: {
      CR_CHECK(clear(place));
      if (::mknodat(place.parent.get(), place.name.c_str(), S_IFIFO | 0600, 0) != 0) {
        return Error::from_errno("make FIFO");
      }
      const UniqueFd fifo(
          ::openat(place.parent.get(), place.name.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
      if (!fifo) {
        return Error::from_errno("open FIFO");
      }
      CR_CHECK(own(fifo.get(), entry));
      return UniqueFd();
    }
    case EntryType::kFile:
    case EntryType::kDirectory:
      break;
  }
  CR_CHECK(clear(place));
  UniqueFd file(
      ::openat(place.parent.get(), place.name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    return Error::from_errno("create file");
  }
  return file;
}

Status Tree::finish_file(const UniqueFd& file, const Entry& entry) {
  return own(file.get(), entry);
}

}  // namespace cellrund::image
