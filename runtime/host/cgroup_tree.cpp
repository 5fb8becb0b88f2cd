// CgroupTree: where a cell's directories go, and making them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "host/cgroup.hpp"

namespace cellrund::host {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr std::size_t kMaxMountinfo = 16UL * 1024 * 1024;
constexpr unsigned kFolderMode = 0755;
constexpr std::array<std::string_view, 3> kWanted{"memory", "pids", "cpu"};

bool contains_word(std::string_view text, std::string_view word) {
  while (!text.empty()) {
    const std::size_t end = text.find_first_of(" \n");
    if (text.substr(0, end) == word) {
      return true;
    }
    if (end == std::string_view::npos) {
      return false;
    }
    text.remove_prefix(end + 1);
  }
  return false;
}

// A path below a hierarchy: absolute, no empty, "." or ".." component.
bool is_plain_path(std::string_view path) {
  if (path.size() < 2 || path.front() != '/' || path.back() == '/') {
    return false;
  }
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view name = path.substr(0, path.find('/'));
    if (name.empty() || name == "." || name == "..") {
      return false;
    }
    path.remove_prefix(name.size());
  }
  return true;
}

// Lets the children of a v2 group have the controllers that it has itself.
Status enable_controllers(const std::string& folder) {
  const std::string have = CR_TRY(base::read_file(folder + "/cgroup.controllers", 4096));
  const std::string enabled = CR_TRY(base::read_file(folder + "/cgroup.subtree_control", 4096));
  for (const std::string_view controller : kWanted) {
    if (contains_word(have, controller) && !contains_word(enabled, controller)) {
      CR_CHECK(base::write_kernel_file(folder + "/cgroup.subtree_control", "+" + std::string(controller))
                   .context("enable the " + std::string(controller) + " controller"));
    }
  }
  return base::ok();
}

std::vector<std::string> v2_controllers(const std::string& folder) {
  std::vector<std::string> out;
  const auto text = base::read_file(folder + "/cgroup.controllers", 4096);
  for (const std::string_view controller : kWanted) {
    if (text.ok() && contains_word(*text, controller)) {
      out.emplace_back(controller);
    }
  }
  return out;
}

std::string directory(const Hierarchy& hierarchy, std::string_view path) {
  return hierarchy.mount_point + std::string(path);
}

// The ancestors of "/a/b/c" from the outermost: "/a", "/a/b".
std::vector<std::string> ancestors(std::string_view path) {
  std::vector<std::string> out;
  for (std::size_t at = path.find('/', 1); at != std::string_view::npos; at = path.find('/', at + 1)) {
    out.emplace_back(path.substr(0, at));
  }
  return out;
}

}  // namespace

Result<CgroupTree> CgroupTree::discover() {
  std::vector<Hierarchy> found = parse_cgroup_mounts(CR_TRY(base::read_file("/proc/self/mountinfo", kMaxMountinfo)));
  if (found.empty()) {
    return Error(Errc::kUnimplemented, "find cgroups: no hierarchy is mounted");
  }
  for (Hierarchy& hierarchy : found) {
    if (hierarchy.v2) {
      hierarchy.controllers = v2_controllers(hierarchy.mount_point);
    }
  }
  return CgroupTree(std::move(found));
}

bool CgroupTree::has_v2() const noexcept {
  return hierarchies_.front().v2;
}

model::Inventory CgroupTree::intended(std::string_view path) const {
  model::Inventory out;
  for (const Hierarchy& hierarchy : hierarchies_) {
    out.push_back({model::ItemKind::kCgroup, directory(hierarchy, path), ""});
  }
  return out;
}

Result<Cgroup> CgroupTree::create(std::string_view path, const CgroupLimits& limits) const {
  if (!is_plain_path(path)) {
    return Error(Errc::kInvalidArgument, "create cgroup: not a normal absolute path");
  }
  std::vector<Cgroup::Directory> made;
  const auto make_in = [&](const Hierarchy& hierarchy) -> Status {
    const std::string leaf = directory(hierarchy, path);
    // Another cell's teardown may remove an empty parent between our two mkdir calls: then once more.
    constexpr int kAttempts = 8;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      if (hierarchy.v2) {
        CR_CHECK(enable_controllers(hierarchy.mount_point));
      }
      bool parents = true;
      for (const std::string& ancestor : ancestors(path)) {
        const std::string folder = directory(hierarchy, ancestor);
        auto status = base::make_dir(folder, kFolderMode);
        if (status.ok() && hierarchy.v2) {
          status = enable_controllers(folder);
        }
        if (!status.ok() && status.error().os_errno() != ENOENT) {
          return status;
        }
        parents = parents && status.ok();
      }
      if (!parents) {
        continue;
      }
      if (::mkdir(leaf.c_str(), kFolderMode) == 0) {
        const base::FileId id = CR_TRY(base::file_id(leaf));
        made.push_back({leaf, hierarchy.v2, hierarchy.v2 ? v2_controllers(leaf) : hierarchy.controllers, id});
        return base::ok();
      }
      if (errno != ENOENT) {
        return Error::from_errno("mkdir " + leaf);
      }
    }
    return Error(Errc::kUnavailable, "mkdir " + leaf + ": its parents keep disappearing");
  };
  Status status = base::ok();
  for (const Hierarchy& hierarchy : hierarchies_) {
    status = make_in(hierarchy);
    if (!status.ok()) {
      break;
    }
  }
  Cgroup group{std::string(path), std::move(made)};
  if (status.ok()) {
    status = group.apply(limits);
  }
  if (status.ok()) {
    return group;
  }
  for (const Cgroup::Directory& directory : group.directories_) {
    (void)::rmdir(directory.path.c_str());  // ours and empty; the failure to report is the first one
  }
  return std::move(status).error().context("create cgroup " + std::string(path));
}

Result<Cgroup> CgroupTree::adopt(std::string_view path) const {
  if (!is_plain_path(path)) {
    return Error(Errc::kInvalidArgument, "adopt cgroup: not a normal absolute path");
  }
  std::vector<Cgroup::Directory> found;
  for (const Hierarchy& hierarchy : hierarchies_) {
    const std::string leaf = directory(hierarchy, path);
    auto id = base::file_id(leaf);
    if (id.ok()) {
      found.push_back({leaf, hierarchy.v2, hierarchy.v2 ? v2_controllers(leaf) : hierarchy.controllers, *id});
    } else if (id.error().code() != Errc::kNotFound) {
      return std::move(id).error();
    }
  }
  if (found.empty()) {
    return Error(Errc::kNotFound, "adopt cgroup " + std::string(path) + ": no hierarchy has it");
  }
  return Cgroup{std::string(path), std::move(found)};
}

void CgroupTree::remove_empty_parents(std::string_view path) const {
  std::vector<std::string> parents = ancestors(path);
  std::reverse(parents.begin(), parents.end());
  for (const Hierarchy& hierarchy : hierarchies_) {
    for (const std::string& parent : parents) {
      if (::rmdir(directory(hierarchy, parent).c_str()) != 0 && errno != ENOENT) {
        break;  // in use by other cells, and so are its parents
      }
    }
  }
}

}  // namespace cellrund::host
