// Cgroups: the cell's folder in every mounted hierarchy, v2 and v1, and whoever is still inside.
// Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst.
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <set>

#include "base/file.hpp"
#include "residue/proc_text.hpp"
#include "residue/probes.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxMountinfo = 16UL << 20U;
constexpr std::size_t kMaxProcs = 1UL << 20U;
constexpr std::size_t kMaxCells = 65536;

class CgroupLook {
 public:
  explicit CgroupLook(Pass& pass)
      : subject_(pass.subject()), look_("cgroup", "stat and cgroup.procs in every mounted hierarchy") {}

  Look run() {
    auto mounts = mount_points(subject_.paths().proc, {"cgroup", "cgroup2"});
    if (!mounts.ok()) {
      look_.blind(mounts.error());
      return std::move(look_);
    }
    if (mounts->empty()) {
      look_.blind("no cgroup hierarchy is mounted");
    }
    for (const MountPoint& mount : *mounts) {
      struct statfs fs {};
      if (::statfs(mount.path.c_str(), &fs) != 0) {
        look_.blind(base::Error::from_errno("statfs " + mount.path));
        continue;
      }
      if (fs.f_type != CGROUP2_SUPER_MAGIC && fs.f_type != CGROUP_SUPER_MAGIC) {
        look_.blind("cgroup hierarchy " + mount.path + " is hidden by another mount");
        continue;
      }
      hierarchy(mount.path);
    }
    for (const model::InventoryItem& item : subject_.items(model::ItemKind::kCgroup)) {
      folder(item.name, "journalled path");
    }
    return std::move(look_);
  }

 private:
  void hierarchy(const std::string& mount) {
    const std::string parent = mount + "/cellrun/" + subject_.node().value;
    if (subject_.breadth() == Breadth::kCell) {
      folder(parent + "/" + subject_.uid(), "cgroup of the cell");
      return;
    }
    auto names = base::list_dir(parent, kMaxCells);
    if (!names.ok()) {
      if (names.error().os_errno() != ENOENT) {
        look_.blind(names.error());
      }
      return;
    }
    for (const std::string& name : *names) {
      const std::string path = parent + "/" + name;
      if (std::string why = subject_.why_cgroup("/cellrun/" + subject_.node().value + "/" + name); !why.empty()) {
        folder(path, why);
      }
    }
  }

  void folder(const std::string& path, const std::string& why) {
    if (!seen_.insert(path).second) {
      return;
    }
    const auto id = base::file_id(path);
    if (!id.ok()) {
      if (id.error().os_errno() != ENOENT && id.error().os_errno() != ENODEV) {
        look_.blind(id.error());
      }
      return;
    }
    if (subject_.is_live(model::ItemKind::kCgroup, to_text(*id))) {
      return;
    }
    look_.found({{model::ItemKind::kCgroup, path, to_text(*id), why}, false});
    members(path + "/cgroup.procs");
  }

  void members(const std::string& path) {
    const auto text = base::read_file(path, kMaxProcs);
    if (!text.ok()) {
      if (text.error().os_errno() != ENOENT && text.error().os_errno() != ENODEV) {
        look_.blind(text.error());
      }
      return;
    }
    for_each_line(*text, [&](std::string_view line) {
      const auto pid = parse_number(line);
      if (!pid || *pid > INT32_MAX) {
        return;  // 0: a process outside our PID namespace; the folder itself is the finding
      }
      const auto process = identify(subject_.paths().proc, static_cast<pid_t>(*pid));
      if (process.ok()) {
        look_.found({{model::ItemKind::kProcess, process->comm,
                      std::to_string(process->pid) + ":" + std::to_string(process->start_time), "member of " + path},
                     process->exiting});
      }
    });
  }

  const Subject& subject_;
  Look look_;
  std::set<std::string> seen_;
};

}  // namespace

base::Result<std::vector<MountPoint>> mount_points(const std::string& proc, const std::vector<std::string_view>& types) {
  const std::string text = CR_TRY(base::read_file(proc + "/self/mountinfo", kMaxMountinfo));
  std::vector<MountPoint> out;
  for_each_line(text, [&](std::string_view line) {
    auto mount = parse_mount_line(line);
    if (!mount) {
      return;
    }
    for (const std::string_view type : types) {
      if (mount->type == type) {
        out.push_back({mount->mount_point, mount->type});
      }
    }
  });
  return out;
}

Look look_at_cgroups(Pass& pass) { return CgroupLook(pass).run(); }

}  // namespace cellrund::residue
