#include "shim/guest/inputs.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.hpp"
#include "shim/guest/image_mount.hpp"
#include "shim/guest/paths.hpp"

namespace cellrund::guest {
namespace {

using base::Error;

constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV;

// A second mount of what stands at `path` (open_tree(2)): it lives on when the old root, with all that is mounted in it,
// is detached, and leaves none of the paths in the workload's view.
base::Result<base::UniqueFd> detached(const std::string& path) {
  base::UniqueFd mount(static_cast<int>(::syscall(SYS_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (!mount) {
    return Error::from_errno("open_tree " + path);
  }
  return mount;
}

base::Status attach(const base::UniqueFd& mount, const std::string& target) {
  const base::UniqueFd place = CR_TRY(open_dir(target, 0755));
  if (::syscall(SYS_move_mount, mount.get(), "", place.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) != 0) {
    return Error::from_errno("move_mount to " + target);
  }
  return base::ok();
}

// overlayfs: the seed below, a tmpfs of the workload's own above. The seed is never copied as a whole, nor changed.
base::Result<base::UniqueFd> stage_workspace(const wire::Workload& workload, const std::string& seed, const std::string& stage) {
  const std::string layer = stage + "/workspace-layer";
  const std::string joined = stage + "/workspace";
  struct stat st {};
  if (::stat(seed.c_str(), &st) != 0) {
    return Error::from_errno("inputs: the workspace's seed");
  }
  CR_CHECK(base::make_dir(layer, 0755));
  CR_CHECK(mount_at("workspace", layer, "tmpfs", kFlags, "mode=0755,size=" + std::to_string(workload.inputs->workspace_bytes)));
  const std::string upper = layer + "/upper";
  for (const std::string& folder : {upper, layer + "/work", joined}) {
    CR_CHECK(base::make_dir(folder, 0755));
  }
  // The joined folder is what the upper one is (Documentation/filesystems/overlayfs.rst, "Merged directories").
  if (::chown(upper.c_str(), workload.uid, workload.gid) != 0 || ::chmod(upper.c_str(), (st.st_mode & 0777U) | 0700U) != 0) {
    return Error::from_errno("give away the workspace");
  }
  CR_CHECK(mount_at("workspace", joined, "overlay", kFlags,
                    "lowerdir=" + seed + ",upperdir=" + upper + ",workdir=" + layer + "/work"));
  return detached(joined);
}

}  // namespace

base::Result<StagedInputs> stage_inputs(const wire::Workload& workload, const std::string& stage) {
  StagedInputs out;
  if (!workload.inputs) {
    return out;
  }
  const std::string image = stage + "/inputs";
  CR_CHECK(base::make_dir(image, 0755));
  CR_CHECK(mount_image({workload.inputs->device, workload.process ? workload.inputs->image_fd : -1}, image));
  // The clone of a mount keeps its flags.
  CR_CHECK(mount_at("", image, "", MS_BIND | MS_REMOUNT | MS_RDONLY | kFlags, ""));
  if (workload.inputs->task) {
    out.task = CR_TRY(detached(image + "/task"));
  }
  if (workload.inputs->workspace_bytes != 0) {
    out.workspace = CR_TRY(stage_workspace(workload, image + "/workspace", stage));
  }
  return out;
}

base::Status attach_inputs(const StagedInputs& inputs) {
  if (inputs.task) {
    CR_CHECK(attach(inputs.task, "/task"));
  }
  return inputs.workspace ? attach(inputs.workspace, "/workspace") : base::ok();
}

}  // namespace cellrund::guest
