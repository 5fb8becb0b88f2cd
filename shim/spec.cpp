#include "shim/spec.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "shim/spec_reader.hpp"

namespace cellrund::shim {
namespace {

using base::Error;
using base::Result;
using base::Status;
namespace json = base::json;

constexpr std::size_t kMaxConfig = 2U << 20U;
constexpr std::uint64_t kDefaultTmpfs = 64 * kMebibyte;
constexpr std::uint64_t kMostMemory = 1ULL << 40U;
constexpr std::int64_t kMostVcpus = 64;
constexpr std::int64_t kNeutralShares = 1024;  // the kernel's default, which `ctr` writes out

Result<std::uint64_t> capabilities(SpecReader& reader, std::string_view key) {
  std::uint64_t set = 0;
  for (const std::string& name : CR_TRY(reader.texts(key))) {
    const std::optional<unsigned> number = wire::capability_number(name);
    if (!number.has_value()) {
      return reader.bad(key, "unknown capability " + base::log::quoted(name, 32));
    }
    set |= std::uint64_t{1} << *number;
  }
  return set;
}

Status read_user(SpecReader user, wire::Process& workload) {
  workload.uid = CR_TRY(user.id("uid", 0));
  workload.gid = CR_TRY(user.id("gid", 0));
  workload.umask = CR_TRY(user.id("umask", 022));
  for (const json::Value& gid : CR_TRY(user.list("additionalGids"))) {
    const std::int64_t* number = gid.as_int();
    if (number == nullptr || *number < 0 || *number >= std::numeric_limits<std::uint32_t>::max()) {
      return user.bad("additionalGids", "not an array of group ids");
    }
    workload.additional_gids.push_back(static_cast<std::uint32_t>(*number));
  }
  user.ignore({"username"});  // Windows
  return user.done();
}

Status read_rlimits(SpecReader& process, wire::Process& workload) {
  for (const json::Value& element : CR_TRY(process.list("rlimits"))) {
    SpecReader limit = CR_TRY(SpecReader::open(&element, "process.rlimits[]"));
    const std::string type = CR_TRY(limit.text("type"));
    const std::optional<std::uint32_t> number = wire::rlimit_number(type);
    const std::int64_t soft = CR_TRY(limit.integer("soft", -1));
    const std::int64_t hard = CR_TRY(limit.integer("hard", -1));
    if (!number.has_value() || soft < 0 || hard < soft) {
      return limit.bad("type", "unknown resource, or values out of order");
    }
    workload.rlimits.push_back({*number, static_cast<std::uint64_t>(soft), static_cast<std::uint64_t>(hard)});
    CR_CHECK(limit.done());
  }
  return base::ok();
}

Status read_terminal(SpecReader& process, wire::Process& workload) {
  const bool terminal = CR_TRY(process.boolean("terminal", false));
  SpecReader size = CR_TRY(process.object("consoleSize"));
  const std::int64_t rows = CR_TRY(size.integer("height", 0));
  const std::int64_t columns = CR_TRY(size.integer("width", 0));
  constexpr std::int64_t kMost = std::numeric_limits<std::uint16_t>::max();
  if (rows < 0 || columns < 0 || rows > kMost || columns > kMost) {
    return size.bad("height", "height or width out of range");
  }
  if (terminal) {
    workload.terminal = wire::WindowSize{static_cast<std::uint16_t>(rows), static_cast<std::uint16_t>(columns)};
  }
  return size.done();
}

Status read_process(SpecReader process, wire::Process& workload) {
  CR_CHECK(read_terminal(process, workload));
  workload.args = CR_TRY(process.texts("args"));
  if (workload.args.empty()) {
    return process.bad("args", "required");
  }
  workload.env = CR_TRY(process.texts("env"));
  workload.cwd = CR_TRY(process.text("cwd", "/"));
  workload.no_new_privileges = CR_TRY(process.boolean("noNewPrivileges", false));
  CR_CHECK(read_user(CR_TRY(process.object("user")), workload));
  SpecReader sets = CR_TRY(process.object("capabilities"));
  workload.capabilities = {.bounding = CR_TRY(capabilities(sets, "bounding")),
                           .effective = CR_TRY(capabilities(sets, "effective")),
                           .permitted = CR_TRY(capabilities(sets, "permitted")),
                           .inheritable = CR_TRY(capabilities(sets, "inheritable")),
                           .ambient = CR_TRY(capabilities(sets, "ambient"))};
  CR_CHECK(sets.done());
  CR_CHECK(read_rlimits(process, workload));
  // Host notions: a cell's kernel has no AppArmor or SELinux policy, and its OOM killer sees one job only.
  CR_CHECK(process.refuse({"apparmorProfile", "selinuxLabel", "oomScoreAdj", "commandLine", "ioPriority", "scheduler"}));
  return process.done();
}

// "64m", "65536k", "1048576" (tmpfs(5)).
std::optional<std::uint64_t> parse_size(std::string_view text) noexcept {
  std::uint64_t value = 0;
  const auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view suffix(end, static_cast<std::size_t>(text.data() + text.size() - end));
  unsigned shift = 0;
  if (suffix == "k" || suffix == "K") {
    shift = 10;
  } else if (suffix == "m" || suffix == "M") {
    shift = 20;
  } else if (suffix == "g" || suffix == "G") {
    shift = 30;
  } else if (!suffix.empty()) {
    return std::nullopt;
  }
  if (err != std::errc{} || value > (kMostMemory >> shift)) {
    return std::nullopt;
  }
  return value << shift;
}

Status read_tmpfs(SpecReader& mount, const std::string& destination, wire::Workload& workload) {
  wire::TmpfsMount tmpfs{destination, kDefaultTmpfs, 01777};
  constexpr std::array<std::string_view, 8> kSatisfied{"rw",          "nosuid",   "nodev",    "exec",
                                                       "strictatime", "relatime", "noatime", "rprivate"};
  for (const std::string& option : CR_TRY(mount.texts("options"))) {
    if (option.starts_with("size=")) {
      const std::optional<std::uint64_t> size = parse_size(std::string_view(option).substr(5));
      if (!size.has_value() || *size < 4096) {
        return mount.bad("options", "size of the tmpfs at " + destination);
      }
      tmpfs.size_bytes = *size;
    } else if (option.starts_with("mode=")) {
      const auto [end, err] = std::from_chars(option.data() + 5, option.data() + option.size(), tmpfs.mode, 8);
      if (err != std::errc{} || end != option.data() + option.size() || tmpfs.mode > 07777) {
        return mount.bad("options", "mode of the tmpfs at " + destination);
      }
    } else if (std::find(kSatisfied.begin(), kSatisfied.end(), option) == kSatisfied.end()) {
      return mount.unsupported("options", "tmpfs at " + destination + " with " + base::log::quoted(option, 32));
    }
  }
  workload.tmpfs.push_back(std::move(tmpfs));
  return base::ok();
}

Status read_inputs(SpecReader& mount, const std::string& destination, CellPlan& plan) {
  const std::string source = CR_TRY(mount.text("source"));
  if (source.empty() || source.front() != '/' || (!plan.inputs_path.empty() && plan.inputs_path != source)) {
    return mount.bad("source", "not one absolute path for all inputs");
  }
  if (destination != "/task" && destination != "/workspace") {
    return mount.bad("destination", "inputs stand at /task and /workspace");
  }
  plan.inputs_path = source;
  if (!plan.workload.inputs) {
    plan.workload.inputs.emplace();
  }
  wire::Inputs& inputs = *plan.workload.inputs;
  if (destination == "/task" ? inputs.task : inputs.workspace_bytes != 0) {
    return mount.bad("destination", "named twice");
  }
  inputs.task = inputs.task || destination == "/task";
  for (const std::string& option : CR_TRY(mount.texts("options"))) {
    if (destination == "/workspace" && option.starts_with("size=")) {
      const std::optional<std::uint64_t> size = parse_size(std::string_view(option).substr(5));
      if (!size.has_value() || *size < 4096) {
        return mount.bad("options", "size of the inputs at /workspace");
      }
      inputs.workspace_bytes = *size;
    } else if (option != (destination == "/task" ? "ro" : "rw") && option != "nosuid" && option != "nodev") {
      return mount.unsupported("options", "inputs at " + destination + " with " + base::log::quoted(option, 32));
    }
  }
  if (destination == "/workspace" && inputs.workspace_bytes == 0) {
    return mount.bad("options", "the inputs at /workspace need a size");
  }
  return base::ok();
}

Status read_mounts(SpecReader& spec, CellPlan& plan) {
  // What every generator of OCI specs puts in, and cell-init makes by itself.
  constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kStandard{{
      {"/proc", "proc"}, {"/dev", "tmpfs"}, {"/dev/pts", "devpts"}, {"/dev/shm", "tmpfs"}, {"/dev/mqueue", "mqueue"},
      {"/sys", "sysfs"}, {"/sys/fs/cgroup", "cgroup"}, {"/sys/fs/cgroup", "cgroup2"}, {"/dev/shm", "shm"}}};
  for (const json::Value& element : CR_TRY(spec.list("mounts"))) {
    SpecReader mount = CR_TRY(SpecReader::open(&element, "mounts[]"));
    const std::string destination = CR_TRY(mount.text("destination"));
    const std::string type = CR_TRY(mount.text("type"));
    mount.ignore({"source", "options"});
    if (std::find(kStandard.begin(), kStandard.end(), std::pair<std::string_view, std::string_view>(destination, type)) !=
        kStandard.end()) {
      CR_CHECK(mount.done());
      continue;
    }
    if (type == kInputsMountType) {
      CR_CHECK(read_inputs(mount, destination, plan));
      CR_CHECK(mount.done());
      continue;
    }
    if (type != "tmpfs") {
      return mount.unsupported("type", "a cell shares no folder with the host: " + base::log::quoted(type, 16) +
                                           " mount at " + base::log::quoted(destination));
    }
    CR_CHECK(read_tmpfs(mount, destination, plan.workload));
    CR_CHECK(mount.done());
  }
  return base::ok();
}

Status read_resources(SpecReader resources, CellPlan& plan) {
  SpecReader cpu = CR_TRY(resources.object("cpu"));
  const std::int64_t quota = CR_TRY(cpu.integer("quota", 0));
  const std::int64_t period = CR_TRY(cpu.integer("period", 100000));
  if (quota > 0) {
    if (period < 1000 || period > 1000000 || quota > period * kMostVcpus) {
      return cpu.bad("quota", "quota or period out of range");
    }
    plan.vcpus = static_cast<unsigned>((quota + period - 1) / period);
  }
  if (const std::int64_t shares = CR_TRY(cpu.integer("shares", 0)); shares != 0 && shares != kNeutralShares) {
    return cpu.unsupported("shares", "a cell has whole processors of its own");
  }
  CR_CHECK(cpu.refuse({"realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle", "burst"}));
  CR_CHECK(cpu.done());

  SpecReader memory = CR_TRY(resources.object("memory"));
  const std::int64_t limit = CR_TRY(memory.integer("limit", 0));
  if (limit > static_cast<std::int64_t>(kMostMemory)) {
    return memory.bad("limit", "out of range");
  }
  if (limit > 0) {
    const std::uint64_t rounded = (static_cast<std::uint64_t>(limit) + kMebibyte - 1) / kMebibyte * kMebibyte;
    plan.memory_bytes = std::max(rounded, kLeastMemory);
  }
  CR_CHECK(memory.refuse({"reservation", "swap", "kernel", "kernelTCP", "swappiness", "disableOOMKiller", "useHierarchy"}));
  CR_CHECK(memory.done());

  SpecReader pids = CR_TRY(resources.object("pids"));
  const std::int64_t pids_limit = CR_TRY(pids.integer("limit", 0));
  plan.workload.pids_max = pids_limit > 0 ? static_cast<std::uint64_t>(pids_limit) : 0;
  CR_CHECK(pids.done());

  CR_CHECK(resources.refuse({"blockIO", "hugepageLimits", "network", "rdma", "unified"}));
  resources.ignore({"devices"});  // rules about host devices; a cell has its own, and linux.devices is refused
  return resources.done();
}

Status read_namespaces(SpecReader& linux_part, CellPlan& plan) {
  constexpr std::array<std::string_view, 6> kOwn{"pid", "ipc", "uts", "mount", "cgroup", "network"};
  bool own_network = false;
  for (const json::Value& element : CR_TRY(linux_part.list("namespaces"))) {
    SpecReader entry = CR_TRY(SpecReader::open(&element, "linux.namespaces[]"));
    const std::string type = CR_TRY(entry.text("type"));
    const std::string path = CR_TRY(entry.text("path"));
    CR_CHECK(entry.done());
    if (std::find(kOwn.begin(), kOwn.end(), type) == kOwn.end()) {
      return entry.unsupported("type", base::log::quoted(type, 16) + " namespace");
    }
    if (type == "network") {
      own_network = true;
      plan.netns_path = path;
    } else if (!path.empty()) {
      return entry.unsupported("path", "a cell cannot join a " + type + " namespace of the host");
    }
  }
  if (!own_network) {
    return linux_part.unsupported("namespaces", "a cell never uses the host's network");
  }
  return base::ok();
}

Status read_linux(SpecReader linux_part, CellPlan& plan) {
  CR_CHECK(read_namespaces(linux_part, plan));
  CR_CHECK(read_resources(CR_TRY(linux_part.object("resources")), plan));
  plan.cgroup_path = CR_TRY(linux_part.text("cgroupsPath"));
  if (!plan.cgroup_path.empty() &&
      (plan.cgroup_path.front() != '/' || plan.cgroup_path.back() == '/' || plan.cgroup_path.size() > 512 ||
       plan.cgroup_path.find("//") != std::string::npos || plan.cgroup_path.find("/.") != std::string::npos)) {
    return linux_part.bad("cgroupsPath", "not an absolute path in normal form");
  }
  for (const std::string_view key : {"maskedPaths", "readonlyPaths"}) {
    for (const std::string& path : CR_TRY(linux_part.texts(key))) {
      if (!path.starts_with("/proc") && !path.starts_with("/sys")) {
        return linux_part.unsupported(key, "only the guest kernel's own files are masked");
      }
    }
  }
  const std::string propagation = CR_TRY(linux_part.text("rootfsPropagation"));
  if (!propagation.empty() && propagation != "private" && propagation != "rprivate") {
    return linux_part.unsupported("rootfsPropagation");
  }
  CR_CHECK(linux_part.refuse({"uidMappings", "gidMappings", "sysctl", "devices", "seccomp", "mountLabel", "intelRdt",
                              "personality", "timeOffsets", "netDevices", "memoryPolicy"}));
  return linux_part.done();
}

}  // namespace

Result<CellPlan> parse_spec(std::string_view config_json) {
  const json::Value document =
      CR_TRY(json::parse(config_json, {.max_bytes = kMaxConfig, .max_depth = 16, .max_members = 1024}).context("OCI spec"));
  CellPlan plan;
  SpecReader spec = CR_TRY(SpecReader::open(&document, ""));
  const std::string version = CR_TRY(spec.text("ociVersion"));
  if (!version.starts_with("1.")) {
    return spec.bad("ociVersion", "not 1.x");
  }
  CR_CHECK(read_process(CR_TRY(spec.object("process")), plan.workload));
  SpecReader root = CR_TRY(spec.object("root"));
  plan.workload.read_only_root = CR_TRY(root.boolean("readonly", false));
  root.ignore({"path"});  // the root file system is a block device, whatever it would have been called on the host
  CR_CHECK(root.done());
  plan.workload.hostname = CR_TRY(spec.text("hostname", "cell"));
  if (plan.workload.hostname.empty()) {
    plan.workload.hostname = "cell";
  }
  CR_CHECK(read_mounts(spec, plan));
  CR_CHECK(read_linux(CR_TRY(spec.object("linux")), plan));
  CR_CHECK(spec.refuse({"hooks", "domainname", "solaris", "windows", "vm", "zos"}));

  const json::Value* annotations = spec.get("annotations");
  if (annotations != nullptr && annotations->as_object() == nullptr) {
    return spec.bad("annotations", "not an object");
  }
  plan.annotations = CR_TRY(parse_annotations(annotations == nullptr ? nullptr : annotations->as_object()));
  CR_CHECK(spec.done());

  plan.workload.network = plan.annotations.network;
  if (!plan.annotations.nameserver.empty()) {
    plan.workload.files.push_back({"/etc/resolv.conf", 0644, "nameserver " + plan.annotations.nameserver + "\n"});
  }
  if (plan.annotations.outputs.has_value()) {
    plan.workload.outputs = plan.annotations.outputs->plan;
  }
  plan.workload.stop_signal = plan.annotations.stop_signal;
  plan.workload.grace_ms = static_cast<std::uint64_t>(plan.annotations.grace.count());
  // The guest's own clock may stand still or run ahead; the shim holds the deadline, from outside.
  plan.workload.deadline_ms = 0;
  if (plan.annotations.network.has_value() && plan.netns_path.empty()) {
    return Error(base::Errc::kInvalidArgument, "annotation dev.cellrun.network needs linux.namespaces network with a path");
  }
  CR_CHECK(wire::validate(plan.workload).context("OCI spec"));
  return plan;
}

Result<wire::Process> parse_process(std::string_view process_json, const wire::Process& task) {
  const json::Value document =
      CR_TRY(json::parse(process_json, {.max_bytes = kMaxConfig, .max_depth = 16, .max_members = 1024}).context("OCI process"));
  wire::Process process;
  CR_CHECK(read_process(CR_TRY(SpecReader::open(&document, "process")), process));
  const wire::CapabilitySets& asked = process.capabilities;
  const std::uint64_t held = asked.effective | asked.permitted | asked.inheritable | asked.ambient;
  // With no_new_privs the task cannot come to hold what it does not start with.
  const std::uint64_t most = task.no_new_privileges ? task.capabilities.permitted : task.capabilities.bounding;
  if ((held & ~most) != 0 || (asked.bounding & ~task.capabilities.bounding) != 0) {
    return Error(base::Errc::kPermissionDenied, "OCI process: a capability that the task itself does not have");
  }
  process.no_new_privileges = process.no_new_privileges || task.no_new_privileges;
  process.seccomp = task.seccomp;
  return process;
}

Result<CellPlan> load_spec(const std::string& bundle) {
  return parse_spec(CR_TRY(base::read_file(bundle + "/config.json", kMaxConfig)));
}

}  // namespace cellrund::shim
