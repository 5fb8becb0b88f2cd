#include "daemon/keeper/config.hpp"

#include <sys/un.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/log.hpp"

namespace cellrund::daemon::keeper {
namespace {

constexpr std::string_view kTtrpcSuffix = ".ttrpc";

bool is_plain(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '.' ||
         c == '_' || c == '-' || c == '+';
}

base::Status check_path(std::string_view option, const std::string& path) {
  if (path.empty() || path.front() != '/' || !std::all_of(path.begin(), path.end(), is_plain)) {
    return base::Error(base::Errc::kInvalidArgument, std::string(option) + " " + base::log::quoted(path) +
                                                         ": not an absolute path of plain characters");
  }
  return base::ok();
}

// What a node needs none of. cri: Kubernetes' interface; opt: would make /opt/containerd; nri: would open a socket of
// its own; the snapshotters: refuse to start without their file systems. Names that a version does not know are
// ignored.
constexpr std::array kDisabledPlugins = {
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
};

}  // namespace

base::Status validate(const Config& config) {
  CR_CHECK(check_path("--run-dir", config.run_dir));
  CR_CHECK(check_path("--root", config.root));
  CR_CHECK(check_path("--state", config.state));
  CR_CHECK(check_path("--socket", config.socket));
  CR_CHECK(check_path("--containerd", config.containerd));
  CR_CHECK(check_path("--shim-dir", config.shim_dir));
  if (!config.shim_config.empty()) {
    CR_CHECK(check_path("--shim-config", config.shim_config));
  }
  if (config.socket.size() + kTtrpcSuffix.size() >= sizeof(sockaddr_un::sun_path)) {
    return base::Error(base::Errc::kInvalidArgument, "--socket " + config.socket + ": too long for a Unix socket");
  }
  return base::ok();
}

std::vector<std::string> to_arguments(const Config& config) {
  std::vector<std::string> out = {"--run-dir",    config.run_dir,    "--root",     config.root,
                                  "--state",      config.state,      "--socket",   config.socket,
                                  "--containerd", config.containerd, "--shim-dir", config.shim_dir};
  if (!config.shim_config.empty()) {
    out.insert(out.end(), {"--shim-config", config.shim_config});
  }
  return out;
}

std::string ttrpc_socket(const Config& config) {
  return config.socket + std::string(kTtrpcSuffix);
}

std::string containerd_toml(const Config& config) {
  std::string out = "# Written by cellrun-keeper at every start.\nversion = 2\n";
  out += "root = \"" + config.root + "\"\nstate = \"" + config.state + "\"\noom_score = 0\n";
  out += "disabled_plugins = [\n";
  for (const char* plugin : kDisabledPlugins) {
    out.append("  \"").append(plugin).append("\",\n");
  }
  out += "]\n\n[grpc]\naddress = \"" + config.socket + "\"\n\n[ttrpc]\naddress = \"" + ttrpc_socket(config) + "\"\n";
  out += "\n[debug]\nlevel = \"warn\"\n";
  return out;
}

}  // namespace cellrund::daemon::keeper
