#include "shim/guest/privileges.hpp"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace cellrund::guest {
namespace {

using base::Error;

constexpr unsigned kHighestCapability = 63;

base::Status drop_bounding(std::uint64_t keep) {
  for (unsigned cap = 0; cap <= kHighestCapability; ++cap) {
    if ((keep >> cap & 1U) == 0 && ::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
      if (errno == EINVAL) {
        return base::ok();  // beyond what this kernel knows (capabilities(7), cap_last_cap)
      }
      return Error::from_errno("drop bounding capability " + std::to_string(cap));
    }
  }
  return base::ok();
}

base::Status set_capabilities(const wire::CapabilitySets& sets) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> data{};
  for (unsigned half = 0; half < 2; ++half) {
    data[half].effective = static_cast<std::uint32_t>(sets.effective >> (32 * half));
    data[half].permitted = static_cast<std::uint32_t>(sets.permitted >> (32 * half));
    data[half].inheritable = static_cast<std::uint32_t>(sets.inheritable >> (32 * half));
  }
  if (::syscall(SYS_capset, &header, data.data()) != 0) {
    return Error::from_errno("capset");
  }
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) {
    return Error::from_errno("clear ambient capabilities");
  }
  for (unsigned cap = 0; cap <= kHighestCapability; ++cap) {
    if ((sets.ambient >> cap & 1U) != 0 && ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) != 0) {
      return Error::from_errno("raise ambient capability " + std::to_string(cap));
    }
  }
  return base::ok();
}

base::Status set_ids(const wire::Process& process) {
  const auto& groups = process.additional_gids;
  if (::syscall(SYS_setgroups, groups.size(), groups.empty() ? nullptr : groups.data()) != 0) {
    return Error::from_errno("setgroups");
  }
  if (::syscall(SYS_setresgid, process.gid, process.gid, process.gid) != 0) {
    return Error::from_errno("setresgid");
  }
  if (::syscall(SYS_setresuid, process.uid, process.uid, process.uid) != 0) {
    return Error::from_errno("setresuid");
  }
  std::array<uid_t, 3> uids{};
  std::array<gid_t, 3> gids{};
  if (::getresuid(&uids[0], &uids[1], &uids[2]) != 0 || ::getresgid(&gids[0], &gids[1], &gids[2]) != 0) {
    return Error::from_errno("getresuid");
  }
  for (std::size_t i = 0; i < 3; ++i) {
    if (uids[i] != process.uid || gids[i] != process.gid) {
      return Error(base::Errc::kPermissionDenied, "ids did not change");
    }
  }
  return base::ok();
}

}  // namespace

base::Status set_rlimits(const wire::Process& process) {
  // 1, not 0: in the process lane the host's core_pattern counts, and one that is a pipe ignores 0 (fs/coredump.c).
  const rlimit no_core{1, 1};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0) {
    return Error::from_errno("setrlimit core");
  }
  for (const wire::Rlimit& limit : process.rlimits) {
    const rlimit value{limit.soft, limit.hard};
    if (::setrlimit(static_cast<__rlimit_resource>(limit.resource), &value) != 0) {
      return Error::from_errno("setrlimit " + std::to_string(limit.resource));
    }
  }
  return base::ok();
}

base::Status drop_privileges(const wire::Process& process) {
  CR_CHECK(drop_bounding(process.capabilities.bounding));
  // Permitted capabilities survive the change of uid until capset below sets exactly what is asked for.
  if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) {
    return Error::from_errno("prctl keepcaps");
  }
  CR_CHECK(set_ids(process));
  CR_CHECK(set_capabilities(process.capabilities));
  if (::prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0) {
    return Error::from_errno("prctl keepcaps");
  }
  if (process.no_new_privileges && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return Error::from_errno("prctl no_new_privs");
  }
  return base::ok();
}

}  // namespace cellrund::guest
