// A root file system under construction: applies the entries of one layer after the other (OCI image-spec, layer.md).
//
// Every path of an entry is hostile. It is resolved below the root directory by openat2(2) without following any
// symbolic link, so that nothing outside can be named, whatever earlier entries have planted. Belongs to one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace cellrund::image {

enum class EntryType { kFile, kDirectory, kSymlink, kHardlink, kFifo };

// One tar entry. Names are bytes as they stand in the archive.
struct Entry {
  EntryType type = EntryType::kFile;
  std::string path;
  std::string link_target;  // of a symbolic link: kept as it is; of a hard link: a path like `path`
  unsigned mode = 0;        // permission bits with setuid, setgid and sticky
  std::int64_t uid = 0;
  std::int64_t gid = 0;
};

// The components of an entry's path. "./" and doubled slashes vanish; an empty result is the root itself.
// kInvalidArgument for absolute paths, "..", NUL, and more or longer components than any file system takes.
base::Result<std::vector<std::string>> split_entry_path(std::string_view path);

// Whether names such as ".wh.NAME" hide what lower layers made, or are names like any other.
enum class Whiteouts { kHonoured, kPlainNames };

class Tree {
 public:
  // `root` is a directory; ids of entries must lie below `id_count`.
  Tree(base::UniqueFd root, std::uint32_t id_count, Whiteouts whiteouts = Whiteouts::kHonoured)
      : root_(std::move(root)), id_count_(id_count), whiteouts_(whiteouts) {}

  // Whiteouts hide what lower layers made, never what the present one did.
  void begin_layer() { touched_.clear(); }
  // Whiteouts (".wh.NAME", ".wh..wh..opq") are files by type and take effect here. For kFile, the new empty file is
  // returned for writing and finish_file() must follow; otherwise the descriptor is invalid.
  base::Result<base::UniqueFd> apply(const Entry& entry);
  // Sets owner and mode after the content, because writing and chown(2) clear setuid bits.
  base::Status finish_file(const base::UniqueFd& file, const Entry& entry);

 private:
  struct Place {
    base::UniqueFd parent;
    std::string name;
  };
  // The parent folder of a path; `make`: missing parents are made as root's, mode 0755, as other unpackers do.
  base::Result<Place> locate(const std::vector<std::string>& parts, bool make);
  base::Result<base::UniqueFd> open_folder(const std::string& path);
  base::Status apply_directory(const Entry& entry, const std::vector<std::string>& parts);
  base::Status apply_whiteout(std::vector<std::string> parts);
  base::Status apply_link(const Entry& entry, const Place& place);
  // Removes what stands at the place, whoever made it.
  base::Status clear(const Place& place);
  // Removes what lower layers made at or below the place; `path` is its full name.
  base::Status hide(int parent, const std::string& name, const std::string& path, int depth);
  base::Status hide_children(const base::UniqueFd& folder, const std::string& path, int depth);
  base::Status own(int fd, const Entry& entry);
  void touch(const std::vector<std::string>& parts);

  base::UniqueFd root_;
  std::uint32_t id_count_;
  Whiteouts whiteouts_;
  std::unordered_set<std::string> touched_;  // paths that this layer made, and their parents
};

}  // namespace cellrund::image
