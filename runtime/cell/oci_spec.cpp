#include "cell/oci_spec.hpp"

#include <array>
#include <cstdio>

#include "base/json.hpp"
#include "cell/outputs.hpp"
#include "cell/workload.hpp"
#include "netpolicy/address.hpp"

namespace cellrund::cell {
namespace {

using base::json::Array;
using base::json::Object;
using base::json::Value;

Array strings(const std::vector<std::string>& in) {
  Array out;
  for (const std::string& s : in) {
    out.emplace_back(s);
  }
  return out;
}

Value mount(const char* destination, const char* type, Array options) {
  return Object{{"destination", destination}, {"type", type}, {"source", type}, {"options", std::move(options)}};
}

}  // namespace

std::string oci_spec(const CellPlan& plan, std::uint32_t vmm_uid) {
  const model::JobSpec& spec = plan.job.spec();
  const model::SecurityContext& security = spec.container.security;
  const Array capabilities = strings(security.capabilities);

  Object process{
      {"terminal", false},
      {"user", Object{{"uid", security.run_as_user}, {"gid", security.run_as_group}}},
      {"args", strings(plan.process.args)},
      {"env", strings(plan.process.env)},
      {"cwd", plan.process.cwd},
      {"noNewPrivileges", security.no_new_privileges},
      {"capabilities", Object{{"bounding", capabilities},
                              {"effective", capabilities},
                              {"permitted", capabilities},
                              {"inheritable", Array{}},
                              {"ambient", Array{}}}},
  };

  Array mounts{mount("/proc", "proc", {"nosuid", "noexec", "nodev"}),
               mount("/sys", "sysfs", {"nosuid", "noexec", "nodev", "ro"}),
               mount("/dev", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"})};
  if (spec.volumes.scratch_bytes > 0) {
    mounts.push_back(mount("/scratch", "tmpfs",
                           {"nosuid", "nodev", "mode=1777", "size=" + std::to_string(spec.volumes.scratch_bytes)}));
  }

  // One image, opened by the shim as it opens the root file system's, and given to the VMM as a descriptor.
  const auto inputs = [&](const char* destination, Array options) {
    return Object{{"destination", destination}, {"type", kInputsMountType}, {"source", plan.inputs->path()}, {"options", std::move(options)}};
  };
  if (plan.inputs != nullptr && spec.volumes.task.has_value()) {
    mounts.emplace_back(inputs("/task", {"ro", "nosuid", "nodev"}));
  }
  if (plan.inputs != nullptr && spec.volumes.workspace_seed.has_value()) {
    mounts.emplace_back(inputs("/workspace", {"rw", "nosuid", "nodev", "size=" + std::to_string(spec.volumes.scratch_bytes)}));
  }
  if (!spec.secrets.empty()) {
    std::array<char, 8> mode{};
    (void)std::snprintf(mode.data(), mode.size(), "%o", kSecretsFolderMode);
    mounts.push_back(mount(wire::kSecretsPath, "tmpfs", {"nosuid", "nodev", std::string("mode=") + mode.data(),
                                                         "size=" + std::to_string(kSecretsFolderBytes)}));
  }

  constexpr std::int64_t kCpuPeriodUs = 100'000;
  Object resources{
      {"memory", Object{{"limit", spec.limits.memory_bytes}}},
      {"cpu", Object{{"period", kCpuPeriodUs},
                     {"quota", static_cast<std::int64_t>(spec.limits.cpu_millis) * kCpuPeriodUs / 1000}}},
      {"pids", Object{{"limit", spec.limits.pids}}},
  };

  const netpolicy::CellInterface& nic = plan.network.interface();
  Object network_text{
      {"mac", netpolicy::format_mac(nic.mac)},
      {"address", nic.address + "/" + std::to_string(netpolicy::kPrefix)},
      {"gateway", nic.gateway},
      {"gatewayMac", netpolicy::format_mac(nic.gateway_mac)},
      {"mtu", nic.mtu},
  };
  if (!nic.nameserver.empty()) {
    network_text.set("nameserver", nic.nameserver);
  }
  const std::string network = base::json::write(std::move(network_text));

  const auto milliseconds = [](std::chrono::seconds s) {
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(s).count());
  };
  Object annotations{{kAnnotationUid, plan.name.uid},
                     {kAnnotationDeadline, milliseconds(spec.active_deadline)},
                     {kAnnotationGrace, milliseconds(spec.termination_grace)},
                     {kAnnotationStopSignal, std::to_string(spec.stop_signal)},
                     {kAnnotationVmmUid, std::to_string(vmm_uid)},
                     {kAnnotationNetwork, network}};
  if (spec.volumes.outputs.has_value()) {
    annotations.set(kAnnotationOutputs, base::json::write(Object{{"socket", outputs_socket(plan.folder)},
                                                                 {"maxBytes", spec.volumes.outputs->max_bytes},
                                                                 {"maxFiles", spec.volumes.outputs->max_files}}));
  }
  if (!spec.secrets.empty()) {
    annotations.set(kAnnotationSecrets, plan.folder + kSecretsSocket);
  }
  return base::json::write(Object{
      {"ociVersion", "1.0.2"},
      {"process", std::move(process)},
      {"root", Object{{"path", "rootfs"}, {"readonly", security.read_only_root_filesystem}}},
      {"hostname", spec.metadata.name},
      {"mounts", std::move(mounts)},
      {"linux",
       Object{{"cgroupsPath", plan.name.cgroup_path()},
              {"namespaces", Array{Object{{"type", "pid"}}, Object{{"type", "ipc"}}, Object{{"type", "uts"}},
                                   Object{{"type", "mount"}},
                                   Object{{"type", "network"}, {"path", plan.network.netns_path()}}}},
              {"resources", std::move(resources)}}},
      {"annotations", std::move(annotations)},
  });
}

}  // namespace cellrund::cell
