// The jobspec as a typed value: what was signed, after strict parsing and with every default filled in.
// JSON field names and rules: cellrun-jobspec(5) and job/fields.cpp.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "model/egress.hpp"

namespace cellrund::model {

using StringMap = std::vector<std::pair<std::string, std::string>>;  // ordered, unique keys

enum class Lane { kKata, kMicrovm, kGvisor, kRunc, kProcess };
[[nodiscard]] std::string_view to_string(Lane lane) noexcept;
[[nodiscard]] std::optional<Lane> parse_lane(std::string_view name) noexcept;
// 2 for a microVM, 1 for a shared or user-space kernel, 0 for `process`.
[[nodiscard]] int tier_of(Lane lane) noexcept;

struct Metadata {
  std::string name;
  std::string uid;        // UUIDv7, lower case, 36 characters
  std::string tenant;     // JSON: "namespace"
  base::WallTime issued_at;
  base::WallTime not_before;
  base::WallTime expires_at;
  StringMap labels;
  StringMap annotations;
};

struct Principal {
  std::string type;  // agent | human | service
  std::string id;
  std::vector<std::string> on_behalf_of;
};

// "repo@sha256:<64 hex>", split.
struct ImageRef {
  std::string repository;
  std::string digest;  // "sha256:<64 hex>"
  [[nodiscard]] std::string text() const { return repository + "@" + digest; }
};

struct SecurityContext {
  std::uint32_t run_as_user = 65534;
  std::uint32_t run_as_group = 65534;
  std::vector<std::string> capabilities;
  bool no_new_privileges = true;
  bool read_only_root_filesystem = true;
};

struct Container {
  ImageRef image;
  std::optional<std::vector<std::string>> command;  // absent: the image's entrypoint
  std::optional<std::vector<std::string>> args;     // absent: the image's cmd, unless command is given
  StringMap env;
  std::string working_dir;  // empty: the image's
  SecurityContext security;
};

struct Limits {
  std::uint64_t cpu_millis = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t pids = 0;
  std::uint64_t ephemeral_storage_bytes = 0;
};

struct ExpectBlocked {
  std::string address;  // IPv4 dotted quad
  std::uint16_t port = 0;
  std::string protocol;  // tcp | udp
};

// What a job gets and gives as files: /task, /workspace, /scratch and /outputs in its cell.
struct Volumes {
  struct Outputs {
    std::uint64_t max_bytes = 0;
    std::uint64_t max_files = 0;
  };
  std::optional<std::string> task;            // "sha256:<64 hex>" of the packed inputs; absent: no /task
  std::optional<std::string> workspace_seed;  // the same for /workspace; absent: no /workspace
  std::uint64_t scratch_bytes = 64ULL << 20U;
  std::optional<Outputs> outputs;             // absent: no /outputs
};

// A secret by name; its value stands in no spec, log or record.
struct SecretRef {
  std::string name;  // /run/secrets/<name>
  std::string ref;   // "<namespace>/<name>" at the provider
  std::optional<std::chrono::seconds> ttl;  // from START; absent: until the job ends
};

struct Logs {
  std::uint64_t max_bytes = 16ULL << 20U;
  bool kill_on_limit = false;  // onLimit: "truncate" | "kill"
};

struct JobSpec {
  Metadata metadata;
  std::string audience;  // empty: any node that trusts the key
  std::optional<Principal> principal;
  int min_tier = 2;
  std::optional<Lane> lane;
  Container container;
  Limits limits;
  std::chrono::seconds active_deadline{0};
  std::chrono::seconds start_deadline{120};
  std::chrono::seconds termination_grace{5};
  int stop_signal = 15;
  Volumes volumes;
  std::vector<SecretRef> secrets;
  EgressPolicy egress;
  std::vector<ExpectBlocked> expect_blocked;
  Logs logs;
  std::chrono::seconds ttl_after_finished{86400};  // how long outputs and logs stay
};

}  // namespace cellrund::model
