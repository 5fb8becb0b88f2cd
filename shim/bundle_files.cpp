#include "shim/bundle_files.hpp"

#include <charconv>

#include "base/file.hpp"
#include "base/json.hpp"

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
namespace json = base::json;

constexpr unsigned kRootOnly = 0600;
constexpr std::size_t kMaxFile = 64U << 10U;

json::Value to_json(const base::ProcessId& id) {
  return json::Object{{"pid", std::int64_t{id.pid}}, {"startTime", id.start_time}};
}

std::optional<base::ProcessId> process_from(const json::Value* value) {
  const json::Value* pid = value == nullptr ? nullptr : value->find("pid");
  const json::Value* start = value == nullptr ? nullptr : value->find("startTime");
  if (pid == nullptr || start == nullptr || pid->as_int() == nullptr || start->as_int() == nullptr ||
      *pid->as_int() <= 1 || *start->as_int() <= 0) {
    return std::nullopt;
  }
  return base::ProcessId{static_cast<pid_t>(*pid->as_int()), static_cast<std::uint64_t>(*start->as_int())};
}

Status write(const std::string& bundle, const char* name, const json::Value& value) {
  return base::write_file_atomic(bundle + "/" + name, json::write(value) + "\n", kRootOnly);
}

std::string text_at(const json::Value& object, std::string_view key) {
  const json::Value* value = object.find(key);
  return value != nullptr && value->as_string() != nullptr ? *value->as_string() : std::string();
}

}  // namespace

Status write_vmm_pid(const std::string& bundle, const base::ProcessId& vmm) {
  return base::write_file_atomic(bundle + "/" + kVmmPidFile,
                                 std::to_string(vmm.pid) + " " + std::to_string(vmm.start_time) + "\n", kRootOnly);
}

Result<base::ProcessId> read_vmm_pid(const std::string& bundle) {
  const std::string text = CR_TRY(base::read_file(bundle + "/" + kVmmPidFile, 64));
  base::ProcessId id;
  const char* const end = text.data() + text.size();
  const auto [after_pid, pid_error] = std::from_chars(text.data(), end, id.pid);
  if (pid_error != std::errc{} || after_pid == end || *after_pid != ' ' || id.pid <= 1) {
    return Error(Errc::kDataLoss, std::string("read ") + kVmmPidFile + ": malformed");
  }
  const auto [after_time, time_error] = std::from_chars(after_pid + 1, end, id.start_time);
  if (time_error != std::errc{} || after_time == end || *after_time != '\n') {
    return Error(Errc::kDataLoss, std::string("read ") + kVmmPidFile + ": malformed");
  }
  return id;
}

Status write_owned(const std::string& bundle, const Owned& owned) {
  return write(bundle, kOwnedFile,
               json::Object{{"shim", to_json(owned.shim)},
                            {"socket", owned.socket_path},
                            {"cgroup", owned.cgroup_path},
                            {"cgroupIsOurs", owned.cgroup_is_ours}});
}

Result<Owned> read_owned(const std::string& bundle) {
  const std::string text = CR_TRY(base::read_file(bundle + "/" + kOwnedFile, kMaxFile));
  const json::Value value = CR_TRY(json::parse(text, {.max_bytes = kMaxFile}));
  Owned owned;
  const std::optional<base::ProcessId> shim = process_from(value.find("shim"));
  const json::Value* ours = value.find("cgroupIsOurs");
  if (!shim.has_value() || ours == nullptr || ours->as_bool() == nullptr) {
    return Error(Errc::kDataLoss, std::string("read ") + kOwnedFile + ": malformed");
  }
  owned.shim = *shim;
  owned.socket_path = text_at(value, "socket");
  owned.cgroup_path = text_at(value, "cgroup");
  owned.cgroup_is_ours = *ours->as_bool();
  return owned;
}

Status write_vm_facts(const std::string& bundle, const VmFacts& facts) {
  json::Object vmm{{"path", facts.vmm_path},
                   {"digest", facts.vmm_digest},
                   {"version", facts.vmm_version},
                   {"pid", std::int64_t{facts.vmm.pid}},
                   {"startTime", facts.vmm.start_time},
                   {"seccomp", facts.seccomp},
                   {"uid", facts.uid},
                   {"noNewPrivs", facts.no_new_privs},
                   {"capEff", facts.effective_capabilities}};
  return write(bundle, kVmFile,
               json::Object{{"vmm", std::move(vmm)},
                            {"shim", to_json(facts.shim)},
                            {"accel", facts.accel},
                            {"kernelDigest", facts.kernel_digest},
                            {"initrdDigest", facts.initrd_digest},
                            {"guestKernelRelease", facts.guest_kernel_release},
                            {"startedBootNs", facts.started.ns},
                            {"deadlineBootNs", facts.deadline.has_value() ? facts.deadline->ns : std::int64_t{0}}});
}

std::string_view to_string(EndKind kind) noexcept {
  switch (kind) {
    case EndKind::kExited: return "exited";
    case EndKind::kSignaled: return "signaled";
    case EndKind::kExecFailed: return "exec_failed";
    case EndKind::kVmmDied: return "vmm_died";
    case EndKind::kAgentUnreachable: return "agent_unreachable";
    case EndKind::kProtocolError: return "protocol_error";
  }
  return "vmm_died";
}

std::uint32_t exit_status(const End& end) noexcept {
  constexpr std::uint32_t kKilled = 128 + 9;
  constexpr std::uint32_t kUnknown = 255;
  switch (end.kind) {
    case EndKind::kExited:
    case EndKind::kExecFailed: return static_cast<std::uint32_t>(end.value) & 0xffU;
    case EndKind::kSignaled: return 128U + (static_cast<std::uint32_t>(end.value) & 0x7fU);
    case EndKind::kVmmDied: return end.value == 9 ? kKilled : kUnknown;
    case EndKind::kAgentUnreachable:
    case EndKind::kProtocolError: return kUnknown;
  }
  return kUnknown;
}

std::string encode(const End& end) {
  json::Array ladder;
  for (const std::string& step : end.ladder) {
    ladder.emplace_back(step);
  }
  json::Array revoked;
  for (const auto& [name, at] : end.revoked) {
    revoked.emplace_back(json::Object{{"name", name}, {"bootNs", at.ns}});
  }
  return json::write(json::Object{{"kind", to_string(end.kind)},
                                  {"value", end.value},
                                  {"message", end.message},
                                  {"guestOomKilled", end.guest_oom_killed},
                                  {"guestPidsExhausted", end.guest_pids_exhausted},
                                  {"guestDiskFull", end.guest_disk_full},
                                  {"deadlineFiredBootNs", end.deadline_fired.has_value() ? end.deadline_fired->ns : std::int64_t{0}},
                                  {"ladder", std::move(ladder)},
                                  {"revokedSecrets", std::move(revoked)},
                                  {"endedBootNs", end.ended.ns}});
}

Status write_end(const std::string& bundle, std::string_view report) {
  return base::write_file_atomic(bundle + "/" + kExitFile, std::string(report) + "\n", kRootOnly);
}

}  // namespace cellrund::shim
