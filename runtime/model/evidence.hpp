// The facts of one submission, as they go into the sealed record (docs/EVIDENCE.md).
// A field that was not produced stays empty and is then absent from the record, never invented.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/inventory.hpp"
#include "model/job_spec.hpp"
#include "model/outcome.hpp"
#include "model/residue_report.hpp"

namespace cellrund::model {

struct NodeFacts {
  std::string id, boot_id, kernel, cellrun_version, config_digest, key_id;
};

struct PeerFacts {
  std::uint32_t uid = 0, gid = 0;
  std::int32_t pid = 0;
};

struct RequestFacts {
  std::string uid;             // empty when the payload could not be read
  std::string spec_digest;     // "sha256:…" of the DSSE payload, or of the submitted bytes if it is no envelope
  std::string signer_key_id;   // empty when no signature verified
  std::string tenant, name;    // empty when unverified
  std::optional<base::WallTime> verified_at;
  PeerFacts peer;
};

struct ImageFacts {
  std::string ref, digest, rootfs_digest;
};

// What stands at /task and under /workspace, as one file system image made of the named archives.
struct InputFacts {
  std::string task, workspace;  // "sha256:…" of the archives; empty: the job names none
  std::string image_digest;     // of the EROFS file
};

// Path, digest and version are the shim's; the rest the daemon has read from /proc itself, before START, and found as declared
// for every thread (cell/vmm_box.hpp).
struct VmmFacts {
  std::string path, digest, version;
  std::int32_t pid = 0;
  std::uint64_t start_time = 0;
  std::uint32_t uid = 0;
  int seccomp = -1;  // /proc/PID/status "Seccomp": 2 = filter
  bool no_new_privs = false;
  std::string effective_capabilities, bounding_capabilities;  // CapEff, CapBnd, hex
  std::uint32_t threads = 0;
  std::vector<std::pair<std::string, std::string>> namespaces;  // kind → "dev:ino"
  std::vector<std::string> cgroups;     // lines of /proc/PID/cgroup, without those of a root
  std::string root;                     // "dev:ino"
  std::vector<std::string> open_files;  // "3 socket:[12]"
  std::string argv_digest;              // of /proc/PID/cmdline
  base::BootTime checked;               // 0: the daemon has not looked
};

struct LaneFacts {
  std::string name;
  int tier = 0;
  std::string accel;    // kvm | tcg; empty for `process`
  std::string runtime;  // io.containerd.cellrun.v2
  std::string shim_digest;
  std::optional<VmmFacts> vmm;
  std::string guest_kernel_digest, guest_kernel_release;  // the release is the guest's claim
  std::string initrd_digest;
};

struct EgressDecision {
  std::uint64_t seq = 0;
  std::int64_t boot_ns = 0;  // first seen
  std::uint8_t protocol = 0;  // IP protocol number, 0 for a non-IP frame
  std::string destination;    // IPv4 dotted quad; empty for a non-IP frame
  std::uint16_t port = 0;
  std::string verdict;        // "denied" | "allowed": opened a flow
  std::string reason;         // e.g. "default-deny", "ipv6"; "allowed"
  std::uint64_t count = 0;
};

// The canary once more, after the workload's end. Only `proven` says that the policy still held: where the network had been
// cut by then, nothing could be asked of it any more.
struct EndCanary {
  std::uint64_t sent = 0, blocked = 0, counted = 0;
  bool proven = false;
  std::string why;  // not
};

// One kind of query to the cell's resolver. Name and type are the guest's words.
struct DnsQuery {
  std::uint64_t seq = 0;
  std::int64_t boot_ns = 0;  // first seen
  std::string name;          // at most 128 characters of it
  std::string type;          // "A", "TXT"; empty when it was malformed
  std::string verdict;       // "answered", "not-listed" and the like
  std::vector<std::string> addresses;  // "192.0.2.7", or "10.0.0.1 private" when it was dropped
  std::uint64_t count = 0;
};
struct DnsFacts {
  std::vector<std::string> upstreams;
  bool tunnel_capable = false;  // a wildcard rule: a job can send anything in the names that it asks for
  std::vector<DnsQuery> queries;
  std::uint64_t seen = 0, suppressed = 0, counted = 0;
  std::string failure;  // why the resolver stopped before the job did
  std::vector<std::pair<std::string, std::uint64_t>> counters;  // verdict → queries; counted is their sum
};

struct EgressFacts {
  std::string policy_digest, program_tag, map_digest;
  std::vector<std::uint32_t> program_ids, link_ids;
  std::string attach_netns;  // "dev:ino" of the router namespace
  std::uint32_t attach_ifindex = 0;
  std::string attach_hook;   // tcx/ingress+egress | clsact
  std::int64_t readback_boot_ns = 0;
  std::uint64_t canary_sent = 0, canary_blocked = 0, canary_counted = 0;
  std::optional<EndCanary> canary_at_end;
  std::vector<std::pair<std::string, std::uint64_t>> counters;  // reason, or what passed → packets
  std::vector<EgressDecision> decisions;
  std::uint64_t seen = 0, suppressed = 0, lost = 0, counted = 0;
  std::string imbalance;  // the first verdict of which that sum does not hold; empty: it holds of each
  std::vector<std::string> relaxations;  // of deny-by-default, as the trust file writes them
  std::uint64_t used_bytes = 0, used_packets = 0, used_connections = 0;  // passed, both directions
  bool quota_exhausted = false;
  std::optional<DnsFacts> dns;  // of a policy that names hosts
};

struct TimelineEntry {
  State state = State::kAccepted;
  base::WallTime wall;
  base::BootTime boot;
  std::string cause;
};

struct DeadlineFacts {
  std::optional<base::BootTime> set;  // active deadline, absolute
  std::optional<base::BootTime> fired_at;
  std::vector<std::string> ladder;    // "TERM@12.000", "KILL@17.000", "VMM@17.010": seconds after START
  std::int64_t overrun_ms = 0;        // death after deadline + grace; 0 when it did not fire
};

struct LogFacts {
  std::string sha256;  // over stdout then stderr as stored
  std::uint64_t bytes = 0;
  bool truncated = false;
};

// What the collector took from the cell. Paths are the guest's words, kept as bytes that are valid UTF-8 (others are refused).
struct OutputFile {
  std::string path;  // relative to /outputs
  std::uint64_t size = 0;
  std::string sha256;  // "sha256:…"
};
struct RefusedOutput {
  std::string path;  // at most 256 bytes, escaped where it is no UTF-8
  std::string why;
};
struct OutputFacts {
  std::vector<OutputFile> files;
  std::vector<RefusedOutput> refused;  // a bounded number of them
  std::uint64_t refused_count = 0;     // all of them
  std::string manifest_digest;         // of the stored manifest
  std::string incomplete_because;      // empty: the guest said that it had sent all
};

struct SecretFacts {
  std::string name;
  std::optional<base::WallTime> issued, revoked;
};

// Highest use, read from the cell's cgroup on the host, VMM included.
struct PeakFacts {
  std::uint64_t memory_bytes = 0, pids = 0, cpu_usec = 0;
};

// What ran against a limit of the job. The first two the host's kernel counted in the cell's cgroup; the others are what
// cell-init found at the end, in a virtual machine the guest's word.
struct LimitFacts {
  std::uint64_t host_oom_kills = 0, host_pids_refused = 0;
  bool memory = false;  // the OOM killer hit the workload
  bool pids = false;    // a fork was refused
  bool disk = false;    // a writable file system had no block or no inode left when the workload ended
};

struct TeardownFacts {
  base::WallTime started, finished;
  Inventory created;
  std::vector<std::string> failures;  // what a teardown step reported; the verdict does not depend on it
  ResidueReport residue;
};

struct Evidence {
  NodeFacts node;
  RequestFacts request;
  std::optional<JobSpec> spec;  // requested resources
  std::optional<ImageFacts> image;
  std::optional<InputFacts> inputs;
  std::optional<LaneFacts> lane;
  Limits enforced;              // read back; zero = not produced
  std::uint64_t overhead_memory_bytes = 0;  // of the lane (VMM), a part of enforced.memory_bytes
  std::optional<LimitFacts> limits_hit;     // of a cell that had a cgroup
  std::optional<EgressFacts> egress;
  std::vector<TimelineEntry> timeline;
  Outcome outcome;
  DeadlineFacts deadline;
  std::optional<PeakFacts> peak;
  std::optional<LogFacts> logs;
  std::optional<OutputFacts> outputs;
  std::vector<SecretFacts> secrets;
  std::optional<TeardownFacts> teardown;  // absent when nothing was created
  std::vector<std::string> gaps;
  std::string incomplete_because;         // empty: complete
  std::uint64_t refusals_sealed = 0;      // > 0: this record seals a count of over-budget refusals
};

}  // namespace cellrund::model
