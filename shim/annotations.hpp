// The annotations by which cellrund tells the shim about a job (dev.cellrun.*). A plain `ctr run` has none: no deadline,
// no network, a uid from the pool.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/json.hpp"
#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::shim {

// Where the archive of /outputs goes, and how much of it.
struct OutputsAnnotation {
  std::string socket;  // absolute path of a Unix stream socket that somebody listens on
  wire::OutputsPlan plan;
};

struct Annotations {
  std::string job_uid;                                        // dev.cellrun.uid; empty: not a job of cellrund
  std::optional<std::chrono::milliseconds> active_deadline;   // dev.cellrun.active-deadline-ms
  std::chrono::milliseconds grace{5000};                      // dev.cellrun.grace-ms
  int stop_signal = 15;                                       // dev.cellrun.stop-signal, a number
  std::optional<std::uint32_t> vmm_uid;                       // dev.cellrun.vmm-uid
  // dev.cellrun.network = {"mac","address":"100.64.0.1/31","gateway","gatewayMac","mtu",
  // "nameserver"}; the last is left out where the cell has no resolver
  std::optional<wire::NetworkConfig> network;
  std::string nameserver;
  std::optional<OutputsAnnotation> outputs;  // dev.cellrun.outputs = {"socket","maxBytes","maxFiles"}
  std::string secrets_socket;  // dev.cellrun.secrets: where to fetch the job's secrets; empty: it has none
};

// `annotations` is the OCI spec's object, or nullptr. An unknown dev.cellrun.* key is kInvalidArgument: an instruction
// that is not understood must not be dropped. Keys of others are none of our business.
base::Result<Annotations> parse_annotations(const base::json::Object* annotations);

}  // namespace cellrund::shim
