// Mounts in every mount namespace that has a process: private copies keep files, namespaces and disks busy long after
// the mount is gone from ours. Source: proc_pid_mountinfo(5), mount_namespaces(7).
#include <fcntl.h>

#include <cerrno>

#include "base/file.hpp"
#include "residue/namespace_visit.hpp"
#include "residue/probes.hpp"
#include "residue/proc_text.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxMountinfo = 64UL << 20U;

class MountLook {
 public:
  explicit MountLook(Pass& pass)
      : pass_(pass), subject_(pass.subject()), look_("mount", "mountinfo of every mount namespace") {}

  Look run() {
    for (const auto& [ino, holders] : pass_.walk().mount) {
      one_namespace(ino, holders);
    }
    pass_.add_walk_failures(look_);
    return std::move(look_);
  }

 private:
  void one_namespace(std::uint64_t ino, const std::vector<NamespaceHolder>& holders) {
    bool has_member = false;
    for (const NamespaceHolder& holder : holders) {
      if (holder.via.starts_with("fd/")) {
        continue;  // mountinfo can only be read through a member
      }
      has_member = true;
      const std::string thread =
          holder.via.starts_with("task/") ? "/" + holder.via.substr(0, holder.via.find("/ns/")) : std::string();
      if (read_through("/" + std::to_string(holder.pid) + thread, holder.pid, ino)) {
        return;
      }
    }
    if (!has_member) {
      return;
    }
    // All of them ended under our hands. A member that the walk missed has the same view; without one it is gone.
    const auto member = member_of_namespace(subject_.paths().proc, "mnt", ino);
    if (member && !read_through("/" + std::to_string(*member), *member, ino)) {
      look_.blind("mount namespace " + std::to_string(ino) + ": its processes ended while it was looked at", true);
    }
  }

  // True when this namespace needs no other look.
  bool read_through(const std::string& folder, pid_t pid, std::uint64_t ino) {
    const auto text = base::read_file(subject_.paths().proc + folder + "/mountinfo", kMaxMountinfo);
    if (!text.ok()) {
      const int err = text.error().os_errno();
      if (err == ENOENT || err == ESRCH || err == EINVAL) {  // EINVAL: exiting, it has no mount namespace any more
        return false;
      }
      look_.blind(text.error());
      return true;
    }
    for_each_line(*text, [&](std::string_view line) {
      const auto mount = parse_mount_line(line);
      if (!mount) {
        look_.blind("mount namespace " + std::to_string(ino) + ": a line of mountinfo is malformed");
        return;
      }
      if (const std::string why = why_mount(*mount, folder); !why.empty()) {
        look_.found({{model::ItemKind::kMount, mount->mount_point, std::to_string(mount->id),
                     why + ", in mount namespace " + std::to_string(ino) + " of pid " + std::to_string(pid)},
                    true});
      }
    });
    return true;
  }

  std::string why_mount(const MountLine& mount, const std::string& folder) {
    if (std::string why = why_named(mount); !why.empty() && names_count(mount, folder)) {
      return why;
    }
    if (const auto ino = namespace_inode(mount.root, "net"); ino && is_our_namespace(*ino, mount, folder)) {
      return "bind mount of the cell's network namespace";
    }
    for (const model::InventoryItem& item : subject_.items(model::ItemKind::kMount)) {
      if (item.name == mount.mount_point &&
          (item.identity.empty() ? names_count(mount, folder) : parse_number(item.identity) == mount.id)) {
        return "journalled mount point";
      }
    }
    return {};
  }

  // In a mount namespace of their own users mount under any name, and FUSE lets them do it in ours.
  bool names_count(const MountLine& mount, const std::string& folder) const {
    if (mount.type.starts_with("fuse") && !subject_.in_node_folder(mount.mount_point)) {
      return false;
    }
    const auto fd = base::open_file(subject_.paths().proc + folder + "/ns/mnt", O_RDONLY);
    return !fd.ok() || owned_by_root(fd->get());  // PID 1 may be closed to us
  }

  std::string why_named(const MountLine& mount) const {
    for (const std::string* field : {&mount.mount_point, &mount.root, &mount.source}) {
      if (std::string why = subject_.why_path(*field); !why.empty()) {
        return why;
      }
    }
    if (std::string why = subject_.why_text(mount.super_options); !why.empty()) {
      return why;  // overlay's lowerdir, upperdir, workdir
    }
    const std::string cells = subject_.paths().run_dir + "/cells/";
    for (std::size_t at = mount.super_options.find(cells); at != std::string::npos;
         at = mount.super_options.find(cells, at + 1)) {
      if (std::string why = subject_.why_path(std::string_view(mount.super_options).substr(at)); !why.empty()) {
        return why;
      }
    }
    return {};
  }

  // Inode numbers of namespaces are reused at once. The journalled cookie tells; without one, a name of the node's own
  // folder that is not the subject's says that it belongs to another cell by now.
  bool is_our_namespace(std::uint64_t ino, const MountLine& mount, const std::string& folder) {
    for (const model::InventoryItem& item : subject_.items(model::ItemKind::kNetns)) {
      const auto id = parse_object_id(item.identity);
      if (!id || id->file.ino != ino || subject_.is_live(model::ItemKind::kNetns, item.identity)) {
        continue;
      }
      if (!id->cookie) {
        return !mount.mount_point.starts_with(subject_.paths().netns_dir + "/");
      }
      if (network_namespace_existence(ino, *id->cookie) == Existence::kGone) {
        return false;
      }
      const auto fd = open_namespace(ino, mount.mount_point, folder);
      if (!fd.ok()) {
        look_.blind(fd.error(), true);
        return false;
      }
      const auto cookie = network_cookie(fd->get());
      if (!cookie.ok()) {
        look_.blind(cookie.error(), true);
        return false;
      }
      return *cookie == *id->cookie;
    }
    return false;
  }

  // The process that showed the mount may be closed to us (PID 1 under a security module). A number names one living namespace at
  // a time, so the same path in our own mounts is as good where it has the same number.
  base::Result<base::UniqueFd> open_namespace(std::uint64_t ino, const std::string& mount_point, const std::string& folder) {
    base::Result<base::UniqueFd> shown = base::open_file(subject_.paths().proc + folder + "/root" + mount_point, O_RDONLY);
    if (!shown.ok()) {
      base::Result<base::UniqueFd> ours = base::open_file(subject_.paths().proc + "/self/root" + mount_point, O_RDONLY);
      if (ours.ok()) {
        if (const auto id = base::file_id(ours->get()); id.ok() && id->ino == ino) {
          return ours;
        }
      }
    }
    return shown;
  }

  Pass& pass_;
  const Subject& subject_;
  Look look_;
};

}  // namespace

Look look_at_mounts(Pass& pass) { return MountLook(pass).run(); }

}  // namespace cellrund::residue
