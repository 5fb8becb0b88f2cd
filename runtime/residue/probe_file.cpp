// Files on disk: journalled paths, the cell's run folder, marker names in the folders of the node, and what containerd
// keeps of a task. Symbolic links are looked at, never followed.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/file.hpp"
#include "crypto/digest.hpp"
#include "residue/probes.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxEntries = 65536;

bool absent(int err) noexcept { return err == ENOENT || err == ENOTDIR; }

class FileLook {
 public:
  // `settles`: somebody else (containerd) removes these by itself, a little after it said so.
  FileLook(const Subject& subject, std::string probe, std::string method, bool settles)
      : subject_(subject), look_(std::move(probe), std::move(method)), settles_(settles) {}

  // Anything at `path` is residue, whoever made it: the path itself carries the cell.
  void expect_absent(const std::string& path, model::ItemKind kind, const std::string& why) {
    const auto id = identity(path);
    if (id && seen_.insert(path).second) {
      look_.found({{kind, path, to_text(*id), why}, settles_});
    }
  }

  // A journalled path. Where the name does not carry the cell, only the very object that was made is residue: another
  // one of the same name is somebody else's.
  void journalled(const model::InventoryItem& item) {
    const auto id = identity(item.name);
    if (!id || !seen_.insert(item.name).second || subject_.is_live(item.kind, to_text(*id))) {
      return;
    }
    std::string why = subject_.why_path(item.name);
    const auto expected = parse_object_id(item.identity);
    if (why.empty()) {
      if (expected && expected->file != *id) {
        return;
      }
      why = expected ? "journalled path and identity" : "journalled path, identity never recorded";
    }
    look_.found({{item.kind, item.name, to_text(*id), why}, settles_});
  }

  // Entries of `folder` whose names are claimed. `anybodys`: users may have made some of them.
  void claimed_entries(const std::string& folder, model::ItemKind kind, bool anybodys = false) {
    auto names = base::list_dir(folder, kMaxEntries);
    if (!names.ok()) {
      if (!absent(names.error().os_errno())) {
        look_.blind(names.error());
      }
      return;
    }
    for (const std::string& name : *names) {
      const std::string path = folder + "/" + name;
      if (const std::string why = subject_.why_path(path); !why.empty() && (!anybodys || owned_by_node(path))) {
        expect_absent(path, kind, why);
      }
    }
  }

  [[nodiscard]] Look take() { return std::move(look_); }

 private:
  bool owned_by_node(const std::string& path) const {
    struct stat st {};
    return ::lstat(path.c_str(), &st) == 0 ? subject_.trusts_uid(st.st_uid) : !absent(errno);
  }

  std::optional<base::FileId> identity(const std::string& path) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0) {
      return base::FileId{st.st_dev, st.st_ino};
    }
    if (!absent(errno)) {
      look_.blind(base::Error::from_errno("stat " + path));
    }
    return std::nullopt;
  }

  const Subject& subject_;
  Look look_;
  bool settles_;
  std::set<std::string> seen_;
};

}  // namespace

Look look_at_files(Pass& pass) {
  const Subject& subject = pass.subject();
  FileLook files(subject, "file", "lstat of journalled paths and of marker names in " + subject.paths().run_dir, false);
  if (subject.breadth() == Breadth::kCell) {
    files.expect_absent(subject.paths().run_dir + "/cells/" + subject.uid(), model::ItemKind::kFile, "run folder of the cell");
  } else {
    files.claimed_entries(subject.paths().run_dir + "/cells", model::ItemKind::kFile);
  }
  files.claimed_entries(subject.paths().run_dir, model::ItemKind::kFile);
  for (const model::ItemKind kind : {model::ItemKind::kFile, model::ItemKind::kSocket}) {
    for (const model::InventoryItem& item : subject.items(kind)) {
      files.journalled(item);
    }
  }
  return files.take();
}

Look look_at_bpf_pins(Pass& pass) {
  const Subject& subject = pass.subject();
  FileLook pins(subject, "pin", "entries of " + subject.paths().bpf_dir + ", journalled paths", false);
  pins.claimed_entries(subject.paths().bpf_dir, model::ItemKind::kBpfPin);
  if (subject.breadth() == Breadth::kNode) {
    auto mounts = mount_points(subject.paths().proc, {"bpf"});
    if (!mounts.ok()) {
      Look look = pins.take();
      look.blind(mounts.error());
      return look;
    }
    for (const MountPoint& mount : *mounts) {
      pins.claimed_entries(mount.path, model::ItemKind::kBpfPin, true);
    }
  }
  for (const model::InventoryItem& item : subject.items(model::ItemKind::kBpfPin)) {
    pins.journalled(item);
  }
  return pins.take();
}

// containerd 1.6 runtime/v2/bundle.go: <state|root>/io.containerd.runtime.v2.task/<namespace>/<id>, renamed to ".<id>"
// while it is removed; runtime/v2/shim/util_unix.go SocketAddress(): sha256(<address>/<namespace>/<id>).
Look look_at_bundles(Pass& pass) {
  const Subject& subject = pass.subject();
  FileLook bundles(subject, "bundle", "containerd's task folders and shim sockets", true);
  if (!subject.paths().containerd) {
    return bundles.take();
  }
  const ContainerdPlace& place = *subject.paths().containerd;
  for (const std::string& base : {place.state, place.root}) {
    const std::string folder = base + "/io.containerd.runtime.v2.task/" + place.name_space;
    bundles.claimed_entries(folder, model::ItemKind::kFile);
  }
  std::set<std::string> ids;
  for (const model::ItemKind kind : {model::ItemKind::kContainer, model::ItemKind::kTask}) {
    for (const model::InventoryItem& item : subject.items(kind)) {
      ids.insert(item.name);
    }
  }
  if (subject.breadth() == Breadth::kCell) {
    ids.insert(model::CellName{subject.node(), subject.uid(), 0}.marker());
  }
  for (const std::string& id : ids) {
    const std::string address = place.socket + "/" + place.name_space + "/" + id;
    const std::string digest = crypto::hex(crypto::sha256(base::as_bytes(address)));
    bundles.expect_absent(place.shim_sockets + "/" + digest, model::ItemKind::kSocket, "shim socket of " + id);
  }
  return bundles.take();
}

}  // namespace cellrund::residue
