// The `microvm` lane (tier 2): a QEMU microvm made by containerd through this project's own shim.
//
// containerd is needed to start a cell and to remove its objects, never to watch or to kill it: the supervisor waits on
// pidfds of the VMM, the shim and containerd and on the output FIFOs, and reads what the shim wrote into the bundle.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "cell/lane.hpp"
#include "containerd/client.hpp"

namespace cellrund::cell {

struct MicrovmOptions {
  std::string containerd_socket;
  std::string containerd_state;      // bundles: <state>/io.containerd.runtime.v2.task/<namespace>/<id>
  std::string containerd_namespace;
  std::string shim_config;           // path of shim.toml, handed over as runtime option
  std::string shim_digest;           // "sha256:…" of the shim binary
  std::uint32_t vmm_uid_base = 0;
  std::chrono::seconds boot_timeout{120};  // what the shim gives its guest
  bool emulated = false;
};

// `client` outlives the lane.
[[nodiscard]] std::unique_ptr<Lane> make_microvm_lane(MicrovmOptions options, containerd::Client& client);

inline constexpr const char* kMicrovmRuntime = "io.containerd.cellrun.v2";

}  // namespace cellrund::cell
