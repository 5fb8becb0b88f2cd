#include "cell/shim_report.hpp"

#include <charconv>

#include "base/file.hpp"
#include "base/json.hpp"
#include "cell/workload.hpp"

namespace cellrund::cell {
namespace {

using base::BootTime;
using base::Errc;
using base::Error;
using base::json::Value;

constexpr std::size_t kMaxReport = 64UL * 1024;

base::Result<Value> read_report(const std::string& path) {
  const std::string text = CR_TRY(base::read_file(path, kMaxReport));
  return base::json::parse(text, {.max_bytes = kMaxReport}).context(path);
}

std::string text_of(const Value* value) {
  const std::string* s = value == nullptr ? nullptr : value->as_string();
  return s == nullptr ? std::string() : *s;
}

std::int64_t number_of(const Value* value) {
  const std::int64_t* n = value == nullptr ? nullptr : value->as_int();
  return n == nullptr ? 0 : *n;
}

bool flag_of(const Value* value) {
  const bool* flag = value == nullptr ? nullptr : value->as_bool();
  return flag != nullptr && *flag;
}

base::ProcessId process_of(const Value* value) {
  if (value == nullptr) {
    return {};
  }
  return {static_cast<pid_t>(number_of(value->find("pid"))),
          static_cast<std::uint64_t>(number_of(value->find("startTime")))};
}

}  // namespace

base::Result<ShimStarted> read_shim_started(const std::string& bundle) {
  const std::string path = bundle + "/cellrun-vm.json";
  const Value report = CR_TRY(read_report(path));
  ShimStarted out;
  const Value* vmm = report.find("vmm");
  out.vmm = process_of(vmm);
  out.shim = process_of(report.find("shim"));
  out.started = BootTime{number_of(report.find("startedBootNs"))};
  if (vmm == nullptr || out.vmm.pid <= 0 || out.shim.pid <= 0 || out.started.ns <= 0) {
    return Error(Errc::kDataLoss, path + ": the processes or the time of START are missing");
  }
  model::VmmFacts facts;
  facts.path = text_of(vmm->find("path"));
  facts.digest = text_of(vmm->find("digest"));
  facts.version = text_of(vmm->find("version"));
  facts.pid = out.vmm.pid;
  facts.start_time = out.vmm.start_time;
  facts.uid = static_cast<std::uint32_t>(number_of(vmm->find("uid")));
  facts.seccomp = static_cast<int>(number_of(vmm->find("seccomp")));
  const Value* no_new_privs = vmm->find("noNewPrivs");
  facts.no_new_privs = no_new_privs != nullptr && no_new_privs->as_bool() != nullptr && *no_new_privs->as_bool();
  facts.effective_capabilities = text_of(vmm->find("capEff"));
  out.lane.vmm = std::move(facts);
  out.lane.accel = text_of(report.find("accel"));
  out.lane.guest_kernel_digest = text_of(report.find("kernelDigest"));
  out.lane.guest_kernel_release = text_of(report.find("guestKernelRelease"));
  out.lane.initrd_digest = text_of(report.find("initrdDigest"));
  return out;
}

base::Result<pid_t> read_shim_pid(const std::string& bundle) {
  const std::string path = bundle + "/shim.pid";
  const std::string text = CR_TRY(base::read_file(path, 64));
  pid_t pid = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), pid).ec != std::errc() || pid <= 1) {
    return Error(Errc::kDataLoss, path + ": no pid");
  }
  return pid;
}

base::Result<base::ProcessId> read_vmm_pid(const std::string& bundle) {
  const std::string path = bundle + "/cellrun-vmm.pid";
  const std::string text = CR_TRY(base::read_file(path, 64));
  base::ProcessId id;
  const char* end = text.data() + text.size();
  const auto pid = std::from_chars(text.data(), end, id.pid);
  if (pid.ec != std::errc() || pid.ptr == end || *pid.ptr != ' ' ||
      std::from_chars(pid.ptr + 1, end, id.start_time).ec != std::errc()) {
    return Error(Errc::kDataLoss, path + ": not \"pid start-time\"");
  }
  return id;
}

base::Result<LaneEnd> read_shim_exit(const std::string& bundle, std::optional<BootTime> started) {
  const std::string path = bundle + "/cellrun-exit.json";
  const Value report = CR_TRY(read_report(path));
  LaneEnd end;
  const std::string kind = text_of(report.find("kind"));
  if (kind == "exited") {
    end.kind = EndKind::kExited;
  } else if (kind == "signaled") {
    end.kind = EndKind::kSignaled;
  } else if (kind == "exec_failed") {
    end.kind = EndKind::kExecFailed;
  } else if (kind == "vmm_died") {
    end.kind = EndKind::kVmmDied;
  } else if (kind == "agent_unreachable" || kind == "protocol_error") {
    end.kind = EndKind::kAgentUnreachable;
  } else {
    return Error(Errc::kDataLoss, path + ": unknown kind");
  }
  end.value = static_cast<int>(number_of(report.find("value")));
  end.message = text_of(report.find("message"));
  end.limits.memory = flag_of(report.find("guestOomKilled"));
  end.limits.pids = flag_of(report.find("guestPidsExhausted"));
  end.limits.disk = flag_of(report.find("guestDiskFull"));
  end.ended = BootTime{number_of(report.find("endedBootNs"))};
  if (const std::int64_t fired = number_of(report.find("deadlineFiredBootNs")); fired != 0) {
    end.deadline_fired = BootTime{fired};
  }
  const Value* revoked = report.find("revokedSecrets");
  if (const base::json::Array* list = revoked == nullptr ? nullptr : revoked->as_array(); list != nullptr) {
    for (const Value& entry : *list) {
      end.revoked.emplace_back(text_of(entry.find("name")), BootTime{number_of(entry.find("bootNs"))});
    }
  }
  const Value* ladder = report.find("ladder");
  if (const base::json::Array* steps = ladder == nullptr ? nullptr : ladder->as_array();
      steps != nullptr && started.has_value()) {
    for (const Value& step : *steps) {
      const std::string text = text_of(&step);
      const std::size_t at = text.find('@');
      std::int64_t ns = 0;
      if (at == std::string::npos ||
          std::from_chars(text.data() + at + 1, text.data() + text.size(), ns).ec != std::errc()) {
        continue;  // a step that is not one is left out; the others stand
      }
      end.ladder.push_back(ladder_step(text.substr(0, at), *started, BootTime{ns}));
    }
  }
  return end;
}

}  // namespace cellrund::cell
