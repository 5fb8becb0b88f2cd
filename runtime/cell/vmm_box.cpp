#include "cell/vmm_box.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "crypto/digest.hpp"

namespace cellrund::cell {
namespace {

using base::Errc;
using base::Error;
using host::OpenFile;
using host::ThreadFacts;

constexpr int kSeccompFilter = 2;
// Monitor, agent and outputs.
constexpr std::size_t kMaxSockets = 3;
// Its standard error; outputs.
constexpr std::size_t kMaxPipes = 2;
constexpr std::size_t kMaxUnixList = 16UL << 20U;
// Of which every thread has the cell's own, and of which it has the host's: capabilities over none of them are left to it.
constexpr std::array<const char*, 5> kOwn{"mnt", "pid", "net", "ipc", "uts"};
constexpr std::array<const char*, 2> kShared{"user", "cgroup"};
// Where a mount of its root may be (shim/vmm_root.cpp): the host's programs, the loader's cache, its own /proc. Beside these, the
// first folder of its own program.
constexpr std::array<const char*, 7> kMountPoints{"/", "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc"};

std::string id_text(const base::FileId& id) { return std::to_string(id.dev) + ":" + std::to_string(id.ino); }

template <typename Numbers>
std::string list_text(const Numbers& numbers) {
  std::string out;
  for (const auto number : numbers) {
    out += (out.empty() ? "" : ",") + std::to_string(number);
  }
  return out;
}

std::optional<std::string> credentials_deviation(const host::Credentials& found, std::uint32_t uid) {
  const std::array<std::uint32_t, 4> declared{uid, uid, uid, uid};
  if (found.uids != declared) {
    return "uid is " + list_text(found.uids) + ", not " + std::to_string(uid);
  }
  if (found.gids != declared) {
    return "gid is " + list_text(found.gids) + ", not " + std::to_string(uid);
  }
  if (!found.groups.empty()) {
    return "it has supplementary groups: " + list_text(found.groups);
  }
  for (std::size_t i = 0; i < found.capabilities.size(); ++i) {
    if (found.capabilities[i] != 0) {
      return std::string(host::kCapabilitySets[i]) + " is not empty";
    }
  }
  if (!found.no_new_privs) {
    return "no_new_privs is not set";
  }
  if (found.seccomp != kSeccompFilter) {
    return "seccomp is " + std::to_string(found.seccomp) + ", not " + std::to_string(kSeccompFilter);
  }
  // Two numbers: one here, and in its own namespace below.
  if (found.namespace_pids.size() != 2) {
    return "it is not in a pid namespace right below the host's";
  }
  return std::nullopt;
}

std::optional<std::string> namespaces_deviation(const host::Namespaces& found, const DeclaredBox& declared) {
  const auto of = [](const host::Namespaces& all, const char* kind) -> std::optional<base::FileId> {
    const auto entry = all.find(kind);
    return entry == all.end() ? std::nullopt : std::optional(entry->second);
  };
  for (const char* kind : kOwn) {
    const auto cell = of(found, kind);
    if (!cell.has_value() || cell == of(declared.host, kind)) {
      return std::string(kind) + " namespace is the host's";
    }
  }
  for (const char* kind : kShared) {
    if (of(found, kind) != of(declared.host, kind)) {
      return std::string(kind) + " namespace is not the one that the node runs in";
    }
  }
  if (of(found, "net") != declared.network) {
    return "net namespace is not the cell's";
  }
  return std::nullopt;
}

std::optional<std::string> thread_deviation(const ThreadFacts& thread, const ThreadFacts& first, const DeclaredBox& declared) {
  if (auto what = credentials_deviation(thread.credentials, declared.uid)) {
    return what;
  }
  if (auto what = namespaces_deviation(thread.namespaces, declared)) {
    return what;
  }
  if (thread.namespaces != first.namespaces) {
    return "its namespaces are not those of the first thread";
  }
  if (thread.cgroups != first.cgroups) {
    return "its cgroups are not those of the first thread";
  }
  return std::nullopt;
}

bool is_device(const OpenFile& file, unsigned major_number, unsigned minor_number) {
  return file.device == makedev(major_number, minor_number);
}

// Numbers: Documentation/admin-guide/devices.txt.
bool is_declared_device(const OpenFile& file, bool kvm) {
  return is_device(file, 1, 3) || is_device(file, 1, 8) || is_device(file, 1, 9) ||  // null, random, urandom
         is_device(file, 10, 200) || (kvm && is_device(file, 10, 232));              // net/tun, kvm
}

bool is_declared_anonymous(const std::string& target, bool kvm) {
  for (const char* name : {"anon_inode:[eventfd]", "anon_inode:[signalfd]", "anon_inode:[eventpoll]", "anon_inode:[timerfd]"}) {
    if (target == name) {
      return true;
    }
  }
  return kvm && (target == "anon_inode:kvm-vm" || target.starts_with("anon_inode:kvm-vcpu"));
}

// What an open file is, or what is wrong with it.
struct Kind {
  std::string name;
  std::string deviation;
};

Kind kind_of(const OpenFile& file, const DeclaredBox& declared) {
  if (file.target.starts_with("anon_inode:")) {
    return is_declared_anonymous(file.target, declared.kvm) ? Kind{file.target.substr(11), {}} : Kind{{}, "is of an undeclared kind"};
  }
  switch (file.type) {
    case S_IFSOCK:
      return declared.unix_sockets.contains(file.id.ino) ? Kind{"socket", {}} : Kind{{}, "is a socket, and no Unix socket of the host's"};
    case S_IFIFO:
      return {"pipe", {}};
    case S_IFCHR:
      return is_declared_device(file, declared.kvm) ? Kind{"device", {}} : Kind{{}, "is an undeclared device"};
    case S_IFREG: {
      const bool image = std::find(declared.images.begin(), declared.images.end(), file.id) != declared.images.end();
      if (image) {
        return file.writable ? Kind{{}, "is an image, open for writing"} : Kind{"image", {}};
      }
      if (file.seals > 0 && (file.seals & F_SEAL_WRITE) != 0) {
        return {"sealed", {}};
      }
      // Without a name: its own scratch disk. Anything that still has one is somebody else's as well.
      return file.links == 0 ? Kind{"scratch", {}} : Kind{{}, "is a file of the host's that was not declared"};
    }
    case S_IFBLK: return {{}, "is a block device"};
    case S_IFDIR: return {{}, "is a folder"};
    default: return {{}, "could not be looked at"};
  }
}

std::optional<std::string> files_deviation(const std::vector<OpenFile>& files, const DeclaredBox& declared) {
  std::map<std::string, std::set<base::FileId>> seen;
  for (const OpenFile& file : files) {
    Kind kind = kind_of(file, declared);
    if (!kind.deviation.empty()) {
      return "descriptor " + std::to_string(file.number) + " (" + file.target + ") " + kind.deviation;
    }
    seen[std::move(kind.name)].insert(file.id);
  }
  const std::map<std::string, std::size_t> most{{"socket", kMaxSockets}, {"pipe", kMaxPipes}, {"scratch", 1}};
  for (const auto& [kind, limit] : most) {
    if (seen[kind].size() > limit) {
      return "it has " + std::to_string(seen[kind].size()) + " open files of the kind " + kind + ", and at most " +
             std::to_string(limit) + " are declared";
    }
  }
  return std::nullopt;
}

bool lies_under(const std::string& path, const std::string& folder) {
  return path == folder || (folder != "/" && path.starts_with(folder + "/"));
}

std::optional<std::string> mounts_deviation(const std::vector<host::MountFacts>& mounts, const std::string& program) {
  if (mounts.empty()) {
    return "it has no mounts";
  }
  const std::string program_folder = program.substr(0, program.find('/', 1));
  for (const host::MountFacts& mount : mounts) {
    const bool declared = lies_under(mount.point, program_folder) ||
                          std::any_of(kMountPoints.begin(), kMountPoints.end(),
                                      [&](const char* point) { return lies_under(mount.point, point); });
    const bool own_proc = mount.type == "proc" && mount.point == "/proc";
    if (!declared || (!mount.read_only && !own_proc)) {
      return "mount at " + mount.point + (declared ? " is writable" : " is not declared");
    }
    if (mount.point == "/" && mount.type != "tmpfs") {
      return "its root is no tmpfs of its own";
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> box_deviation(const host::ProcessFacts& found, const DeclaredBox& declared) {
  if (found.threads.empty()) {
    return "it has no threads";
  }
  const ThreadFacts& first = found.threads.front();
  for (const ThreadFacts& thread : found.threads) {
    if (auto what = thread_deviation(thread, first, declared)) {
      return "thread " + std::to_string(thread.tid) + ": " + *what;
    }
  }
  if (first.credentials.namespace_pids.back() != 1) {
    return "it is not the first process of its pid namespace";
  }
  if (found.root == declared.host_root) {
    return "root is the host's";
  }
  if (auto what = mounts_deviation(found.mounts, found.program)) {
    return what;
  }
  return files_deviation(found.files, declared);
}

model::VmmFacts box_facts(const host::ProcessFacts& found) {
  model::VmmFacts out;
  out.pid = found.id.pid;
  out.start_time = found.id.start_time;
  out.threads = static_cast<std::uint32_t>(found.threads.size());
  out.root = id_text(found.root);
  out.argv_digest = crypto::digest_text(base::as_bytes(found.arguments));
  if (!found.threads.empty()) {
    const ThreadFacts& first = found.threads.front();
    out.uid = first.credentials.uids[1];
    out.seccomp = first.credentials.seccomp;
    out.no_new_privs = first.credentials.no_new_privs;
    const auto hex = [](std::uint64_t set) {
      std::array<char, 17> text{};
      (void)std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(set));
      return std::string(text.data());
    };
    out.effective_capabilities = hex(first.credentials.capabilities[2]);
    out.bounding_capabilities = hex(first.credentials.capabilities[3]);
    for (const auto& [kind, id] : first.namespaces) {
      out.namespaces.emplace_back(kind, id_text(id));
    }
    std::string_view rest = first.cgroups;
    while (!rest.empty()) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      // A hierarchy that no cell uses shows its root, which says nothing.
      if (const std::string_view line = rest.substr(0, end); !line.empty() && !line.ends_with(":/")) {
        out.cgroups.emplace_back(line);
      }
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  for (const OpenFile& file : found.files) {
    out.open_files.push_back(std::to_string(file.number) + " " + file.target);
  }
  return out;
}

// "Num RefCount Protocol Flags Type St Inode Path" under a line of titles (proc(5), /proc/net/unix).
std::set<std::uint64_t> parse_unix_sockets(std::string_view text) {
  std::set<std::uint64_t> out;
  text.remove_prefix(std::min(text.find('\n'), text.size()));
  while (!text.empty()) {
    text.remove_prefix(1);
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size());
    if (line.empty()) {
      continue;
    }
    constexpr int kBefore = 6;
    for (int i = 0; i < kBefore; ++i) {
      line.remove_prefix(std::min(line.find(' '), line.size()));
      line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    }
    std::uint64_t inode = 0;
    // Anybody may bind a name with a line break in it, which the kernel prints as it is. A socket that is missing here is one that
    // no VMM may have.
    if (std::from_chars(line.data(), line.data() + line.size(), inode).ec == std::errc()) {
      out.insert(inode);
    }
  }
  return out;
}

base::Result<ProvenBox> prove_box(const base::ProcessId& vmm, DeclaredBox declared, const host::Cgroup& cgroup) {
  ProvenBox out;
  out.process = CR_TRY(base::PidFd::open(vmm));
  const auto deviation = [&]() -> base::Result<std::optional<std::string>> {
    // Before the sockets are listed, so that all it has are older than the list.
    const host::ProcessFacts found = CR_TRY(host::read_process(vmm));
    declared.host = CR_TRY(host::own_namespaces());
    declared.host_root = CR_TRY(base::file_id("/"));
    const std::string sockets = CR_TRY(base::read_file("/proc/net/unix", kMaxUnixList));
    declared.unix_sockets = parse_unix_sockets(sockets);
    out.facts = box_facts(found);
    out.facts.checked = base::BootTime::now();
    if (auto what = box_deviation(found, declared)) {
      return what;
    }
    return cgroup.deviation_of_only_member(vmm.pid);
  }();
  if (!deviation.ok() || deviation->has_value()) {
    (void)out.process.signal(SIGKILL);  // what survives that, the teardown finds
    if (!deviation.ok()) {
      return deviation.error().clone().context("look at the VMM's box");
    }
    return Error(Errc::kFailedPrecondition, "the VMM's box is not as declared: " + **deviation);
  }
  if (CR_TRY(out.process.wait_exit(base::Deadline::after(base::Nanoseconds(0))))) {
    return Error(Errc::kNotFound, "the VMM ended while its box was looked at", ESRCH);
  }
  return out;
}

}  // namespace cellrund::cell
