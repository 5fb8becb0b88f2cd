#include "cell/workload.hpp"

#include <array>
#include <cstdio>

#include "netpolicy/address.hpp"

namespace cellrund::cell {

wire::Workload base_workload(const CellPlan& plan) {
  const model::JobSpec& spec = plan.job.spec();
  const model::SecurityContext& security = spec.container.security;
  wire::Workload out;
  out.args = plan.process.args;
  out.env = plan.process.env;
  out.cwd = plan.process.cwd;
  out.uid = security.run_as_user;
  out.gid = security.run_as_group;
  out.no_new_privileges = security.no_new_privileges;
  out.read_only_root = security.read_only_root_filesystem;
  out.hostname = spec.metadata.name;
  if (spec.volumes.scratch_bytes > 0) {
    out.tmpfs.push_back({"/scratch", spec.volumes.scratch_bytes, 01777});
  }
  if (plan.inputs != nullptr) {
    // What is written to /workspace lies in memory, as what is written to /scratch does: each at most so much.
    out.inputs = wire::Inputs{.task = spec.volumes.task.has_value(),
                              .workspace_bytes = spec.volumes.workspace_seed.has_value() ? spec.volumes.scratch_bytes : 0};
  }
  if (!spec.secrets.empty()) {
    out.tmpfs.push_back({wire::kSecretsPath, kSecretsFolderBytes, kSecretsFolderMode});
  }
  const netpolicy::CellInterface& nic = plan.network.interface();
  wire::NetworkConfig network;
  network.mac = nic.mac;
  network.address = wire::parse_ipv4(nic.address).value_or(network.address);
  network.prefix = netpolicy::kPrefix;
  network.gateway = wire::parse_ipv4(nic.gateway).value_or(network.gateway);
  network.gateway_mac = nic.gateway_mac;
  network.mtu = nic.mtu;
  out.network = network;
  if (!nic.nameserver.empty()) {
    out.files.push_back({"/etc/resolv.conf", 0644, "nameserver " + nic.nameserver + "\n"});
  }
  if (spec.volumes.outputs.has_value()) {
    out.outputs = wire::OutputsPlan{spec.volumes.outputs->max_bytes, spec.volumes.outputs->max_files};
  }
  out.pids_max = spec.limits.pids;
  out.stop_signal = spec.stop_signal;
  out.grace_ms = static_cast<std::uint64_t>(std::chrono::milliseconds(spec.termination_grace).count());
  out.deadline_ms = static_cast<std::uint64_t>(std::chrono::milliseconds(spec.active_deadline).count());
  return out;
}

std::string ladder_step(std::string_view what, base::BootTime started, base::BootTime at) {
  std::array<char, 32> text{};
  (void)std::snprintf(text.data(), text.size(), "@%.3f", static_cast<double>((at - started).count()) / 1e9);
  return std::string(what) + text.data();
}

}  // namespace cellrund::cell
