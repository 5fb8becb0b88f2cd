#include "shim/spec.hpp"

#include <doctest/doctest.h>

#include "base/json.hpp"

using namespace cellrund;
using base::json::Array;
using base::json::Object;
using base::json::Value;

namespace {

// As `ctr run` writes it, shortened.
Value minimal() {
  auto parsed = base::json::parse(R"({
    "ociVersion": "1.0.2-dev",
    "process": {"user": {"uid": 0, "gid": 0, "additionalGids": [1, 2]}, "args": ["/bin/sh", "-c", "true"],
      "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
      "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
      "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}]},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
      {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
      {"destination": "/run", "type": "tmpfs", "source": "tmpfs",
       "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}],
    "linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}], "cpu": {"shares": 1024}},
      "cgroupsPath": "/default/t1",
      "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}],
      "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]}})",
                                  {});
  REQUIRE(parsed.ok());
  return *std::move(parsed);
}

// Sets a member below the top by its path, making objects on the way.
void put(Value& root, const std::vector<std::string_view>& path, Value value) {
  Object* at = root.as_object();
  for (auto it = path.begin(); it != path.end(); ++it) {
    const bool last = std::next(it) == path.end();
    if (last) {
      at->set(std::string(*it), std::move(value));
      return;
    }
    if (at->find(*it) == nullptr) {
      at->set(std::string(*it), Object{});
    }
    at = const_cast<Value*>(at->find(*it))->as_object();
  }
}

base::Result<shim::CellPlan> plan_of(const Value& spec) { return shim::parse_spec(base::json::write(spec)); }

}  // namespace

TEST_CASE("what ctr writes becomes a workload and a small machine") {
  const auto plan = plan_of(minimal());
  REQUIRE_MESSAGE(plan.ok(), (plan.ok() ? "" : plan.error().message()));
  CHECK(plan->workload.args == std::vector<std::string>{"/bin/sh", "-c", "true"});
  CHECK(plan->workload.additional_gids == std::vector<std::uint32_t>{1, 2});
  CHECK(plan->workload.capabilities.bounding == 1);
  CHECK(plan->workload.capabilities.ambient == 0);
  REQUIRE(plan->workload.rlimits.size() == 1);
  CHECK(plan->workload.rlimits[0] == wire::Rlimit{7, 512, 1024});
  REQUIRE(plan->workload.tmpfs.size() == 1);
  CHECK(plan->workload.tmpfs[0] == wire::TmpfsMount{"/run", 64U << 20U, 0755});
  CHECK_FALSE(plan->workload.read_only_root);
  CHECK(plan->vcpus == 1);
  CHECK(plan->memory_bytes == shim::kDefaultMemory);
  CHECK(plan->cgroup_path == "/default/t1");
  CHECK(plan->netns_path.empty());
  CHECK_FALSE(plan->annotations.active_deadline.has_value());
}

TEST_CASE("resources become processors, memory and a process limit") {
  Value spec = minimal();
  put(spec, {"linux", "resources", "cpu", "quota"}, 250000);
  put(spec, {"linux", "resources", "cpu", "period"}, 100000);
  put(spec, {"linux", "resources", "memory", "limit"}, std::int64_t{200'000'001});
  put(spec, {"linux", "resources", "pids", "limit"}, 33);
  const auto plan = plan_of(spec);
  REQUIRE(plan.ok());
  CHECK(plan->vcpus == 3);
  CHECK(plan->memory_bytes == 191 * shim::kMebibyte);
  CHECK(plan->workload.pids_max == 33);

  put(spec, {"linux", "resources", "memory", "limit"}, 1024);
  CHECK(plan_of(spec)->memory_bytes == shim::kLeastMemory);
}

TEST_CASE("annotations carry deadline, grace, signal, uid and network") {
  Value spec = minimal();
  put(spec, {"annotations", "dev.cellrun.uid"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11");
  put(spec, {"annotations", "dev.cellrun.active-deadline-ms"}, "1500");
  put(spec, {"annotations", "dev.cellrun.grace-ms"}, "250");
  put(spec, {"annotations", "dev.cellrun.stop-signal"}, "2");
  put(spec, {"annotations", "dev.cellrun.vmm-uid"}, "70001");
  put(spec, {"annotations", "dev.cellrun.network"},
      R"({"mac":"02:00:00:00:00:01","address":"100.64.0.1/31","gateway":"100.64.0.0","gatewayMac":"02:00:00:00:00:02","mtu":1400,"nameserver":"100.64.0.0"})");
  put(spec, {"annotations", "org.example.other"}, "x");
  put(spec, {"linux", "namespaces"}, Array{Object{{"type", "network"}, {"path", "/run/n"}}});
  const auto plan = plan_of(spec);
  REQUIRE_MESSAGE(plan.ok(), (plan.ok() ? "" : plan.error().message()));
  CHECK(plan->annotations.active_deadline == std::chrono::milliseconds(1500));
  CHECK(plan->annotations.grace == std::chrono::milliseconds(250));
  CHECK(plan->workload.stop_signal == 2);
  CHECK(plan->annotations.vmm_uid == 70001);
  CHECK(plan->netns_path == "/run/n");
  REQUIRE(plan->workload.network.has_value());
  CHECK(plan->workload.network->prefix == 31);
  CHECK(plan->workload.network->mtu == 1400);
  CHECK(plan->workload.files == std::vector<wire::FileEntry>{{"/etc/resolv.conf", 0644, "nameserver 100.64.0.0\n"}});
  // The guest is not asked to keep time.
  CHECK(plan->workload.deadline_ms == 0);
}

TEST_CASE("inputs come as mounts of one image, at /task and /workspace alone") {
  const auto with = [](std::vector<Value> mounts) {
    Value spec = minimal();
    put(spec, {"mounts"}, Array(mounts.begin(), mounts.end()));
    return plan_of(spec);
  };
  const auto inputs = [](const char* where, const char* source, Array options) -> Value {
    return Object{{"destination", where}, {"type", "cellrun.inputs"}, {"source", source}, {"options", std::move(options)}};
  };
  const auto plan = with({inputs("/task", "/s/a.erofs", {"ro", "nosuid"}), inputs("/workspace", "/s/a.erofs", {"rw", "size=2m"})});
  REQUIRE_MESSAGE(plan.ok(), (plan.ok() ? "" : plan.error().message()));
  CHECK(plan->inputs_path == "/s/a.erofs");
  REQUIRE(plan->workload.inputs.has_value());
  CHECK((*plan->workload.inputs == wire::Inputs{.task = true, .workspace_bytes = 2U << 20U}));

  CHECK_FALSE(with({inputs("/etc", "/s/a.erofs", {"ro"})}).ok());
  CHECK_FALSE(with({inputs("/task", "a.erofs", {"ro"})}).ok());
  CHECK_FALSE(with({inputs("/task", "/s/a.erofs", {"rw"})}).ok());
  CHECK_FALSE(with({inputs("/workspace", "/s/a.erofs", {"rw"})}).ok());
  CHECK_FALSE(with({inputs("/task", "/s/a.erofs", {}), inputs("/task", "/s/a.erofs", {})}).ok());
  CHECK_FALSE(with({inputs("/task", "/s/a.erofs", {}), inputs("/workspace", "/s/b.erofs", {"size=2m"})}).ok());
}

TEST_CASE("a terminal has the size it is given") {
  Value spec = minimal();
  put(spec, {"process", "consoleSize"}, Object{{"height", 50}, {"width", 132}});
  CHECK_FALSE(plan_of(spec)->workload.terminal.has_value());
  put(spec, {"process", "terminal"}, true);
  CHECK((plan_of(spec)->workload.terminal == wire::WindowSize{50, 132}));
  put(spec, {"process", "consoleSize"}, Object{{"height", 70000}});
  CHECK_FALSE(plan_of(spec).ok());
}

TEST_CASE("a process that joins may be what its task may, and no more") {
  const auto plan = plan_of(minimal());
  REQUIRE(plan.ok());
  const auto joining = [&](std::string_view capability) {
    const std::string sets = R"({"bounding": [")" + std::string(capability) + R"("]})";
    return shim::parse_process(R"({"args": ["/bin/id"], "cwd": "/", "capabilities": )" + sets + "}", plan->workload);
  };
  const auto process = joining("CAP_CHOWN");
  REQUIRE(process.ok());
  CHECK(process->no_new_privileges);  // the task has it
  CHECK(process->seccomp);
  CHECK(joining("CAP_SYS_ADMIN").error().code() == base::Errc::kPermissionDenied);
  // Nor does it gain what the task could only have gained: with no_new_privs it cannot.
  wire::Process task = plan->workload;
  task.capabilities = {.bounding = ~std::uint64_t{0}, .effective = 0, .permitted = 0, .inheritable = 0, .ambient = 0};
  const std::string holding = R"({"args": ["/bin/id"], "cwd": "/", "capabilities": {"effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}})";
  CHECK(shim::parse_process(holding, task).error().code() == base::Errc::kPermissionDenied);
  task.no_new_privileges = false;
  CHECK(shim::parse_process(holding, task).ok());
  CHECK_FALSE(shim::parse_process(R"({"args": ["/bin/id"], "selinuxLabel": "x"})", plan->workload).ok());
  CHECK_FALSE(shim::parse_process("[]", plan->workload).ok());
  CHECK_FALSE(shim::parse_process("", plan->workload).ok());
}

TEST_CASE("whatever a cell cannot honour refuses the task and is named") {
  struct Case {
    std::vector<std::string_view> path;
    Value value;
    const char* names;
  };
  const std::vector<Case> cases{
      {{"process", "apparmorProfile"}, "p", "process.apparmorProfile"},
      {{"process", "oomScoreAdj"}, -500, "process.oomScoreAdj"},
      {{"process", "somethingNew"}, 1, "process.somethingNew"},
      {{"hooks"}, Object{{"prestart", Array{Object{{"path", "/bin/true"}}}}}, "hooks"},
      {{"linux", "seccomp"}, Object{{"defaultAction", "SCMP_ACT_ERRNO"}}, "linux.seccomp"},
      {{"linux", "devices"}, Array{Object{{"path", "/dev/kvm"}}}, "linux.devices"},
      {{"linux", "uidMappings"}, Array{Object{{"size", 1}}}, "linux.uidMappings"},
      {{"linux", "sysctl"}, Object{{"net.ipv4.ip_forward", "1"}}, "linux.sysctl"},
      {{"linux", "resources", "cpu", "cpus"}, "0", "linux.resources.cpu.cpus"},
      {{"linux", "resources", "cpu", "shares"}, 512, "linux.resources.cpu.shares"},
      {{"linux", "resources", "unified"}, Object{{"memory.high", "1"}}, "linux.resources.unified"},
      {{"linux", "namespaces"}, Array{Object{{"type", "pid"}}}, "linux.namespaces"},
      {{"linux", "namespaces"}, Array{Object{{"type", "network"}}, Object{{"type", "user"}}}, "user"},
      {{"linux", "namespaces"}, Array{Object{{"type", "network"}}, Object{{"type", "pid"}, {"path", "/p"}}}, "pid"},
      {{"linux", "maskedPaths"}, Array{"/etc/shadow"}, "linux.maskedPaths"},
      {{"mounts"},
       Array{Object{{"destination", "/etc/resolv.conf"}, {"type", "bind"}, {"source", "/x"}, {"options", Array{"rbind"}}}},
       "/etc/resolv.conf"},
      {{"mounts"}, Array{Object{{"destination", "/t"}, {"type", "tmpfs"}, {"options", Array{"ro"}}}}, "/t"},
  };
  for (const Case& one : cases) {
    Value spec = minimal();
    put(spec, one.path, one.value);
    const auto plan = plan_of(spec);
    CAPTURE(one.names);
    REQUIRE_FALSE(plan.ok());
    CHECK(plan.error().code() == base::Errc::kUnimplemented);
    CHECK(plan.error().message().find(one.names) != std::string::npos);
  }
}

TEST_CASE("a malformed spec is refused as such") {
  struct Case {
    std::vector<std::string_view> path;
    Value value;
  };
  const std::vector<Case> cases{
      {{"ociVersion"}, "2.0"},
      {{"process", "args"}, Array{}},
      {{"process", "args"}, Array{1}},
      {{"process", "user", "uid"}, -1},
      {{"process", "user", "uid"}, std::int64_t{4294967295}},
      {{"process", "capabilities", "bounding"}, Array{"CAP_EVERYTHING"}},
      {{"process", "rlimits"}, Array{Object{{"type", "RLIMIT_NOFILE"}, {"hard", 1}, {"soft", 2}}}},
      {{"linux", "cgroupsPath"}, "relative"},
      {{"linux", "cgroupsPath"}, "/a/../b"},
      {{"linux", "resources", "memory", "limit"}, "256Mi"},
      {{"annotations", "dev.cellrun.active-deadline-ms"}, "0"},
      {{"annotations", "dev.cellrun.active-deadline-ms"}, "1e3"},
      {{"annotations", "dev.cellrun.vmm-uid"}, "0"},
      {{"annotations", "dev.cellrun.unheard-of"}, "1"},
      {{"annotations", "dev.cellrun.network"}, R"({"mac":"02:00:00:00:00:01","address":"100.64.0.1/31"})"},  // no path
      {{"annotations", "dev.cellrun.network"}, "{}"},
  };
  for (const Case& one : cases) {
    Value spec = minimal();
    put(spec, one.path, one.value);
    const auto plan = plan_of(spec);
    CAPTURE(one.path.back());
    REQUIRE_FALSE(plan.ok());
    CHECK(plan.error().code() == base::Errc::kInvalidArgument);
  }
  CHECK_FALSE(shim::parse_spec("{").ok());
  CHECK_FALSE(shim::parse_spec("").ok());
}
