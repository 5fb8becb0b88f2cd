// The node's configuration: one struct with its defaults; config_fields.hpp holds names and bounds once for reading,
// dumping and listing sources. Precedence: environment > config.d/*.toml > config.toml > built in; flags of a command
// are applied by that command. An unknown key or a value out of bounds is an error that names file and line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace cellrund::daemon {

struct Config {
  struct Node {
    std::string id;  // empty in the file: the host name
    std::vector<std::string> pools;
    std::string fleet;
  } node;
  struct Paths {
    std::string state = "/var/lib/cellrun";
    std::string run = "/run/cellrun";
    std::string trust = "/etc/cellrun/trust.d";
    std::string node_key = "/etc/cellrun/node.key";
    std::string node_pub = "/etc/cellrun/node.pub";
    std::string socket;        // empty: <run>/cellrund.sock
    std::string admin_socket;  // empty: <run>/admin.sock
    std::string shim;          // folder of containerd-shim-cellrun-v2 and the other helpers; empty: as installed
    std::string guest;         // folder of the guest's vmlinux and initrd; empty: <state>/guest
  } paths;
  struct Containerd {
    std::string mode = "embedded";  // embedded | system
    std::string binary = "/usr/bin/containerd";
    std::string socket;  // empty: <run>/containerd/containerd.sock when embedded, /run/containerd/containerd.sock else
    std::string root;    // empty: <state>/containerd
    std::string state;   // empty: <run>/containerd/state
    std::string namespace_ = "cellrun";
  } containerd;
  struct Secrets {
    std::string directory = "/etc/cellrun/secrets";
  } secrets;
  struct Network {
    std::string attach = "auto";  // auto | tcx | clsact
    std::string uplink = "none";            // or an interface of the host
    std::vector<std::string> dns_upstream;  // IPv4 addresses, at most kMaxUpstreams of the resolver
  } network;
  struct Lanes {
    std::vector<std::string> enabled = {"microvm", "process"};
    std::string accel = "auto";  // auto | kvm | tcg
    bool allow_emulated_tier2 = false;
    std::int64_t uid_base = 2000000;  // VMM uids: uid_base + slot
    std::int64_t uid_count = 1024;
    std::int64_t boot_timeout_seconds = 120;
  } lanes;
  struct Capacity {  // 0: from the host
    std::int64_t cpu_millis = 0;
    std::int64_t memory_bytes = 0;
    std::int64_t cells = 0;
    std::int64_t queue = 64;
    std::int64_t memory_reserve_bytes = 256LL << 20;
    std::int64_t memory_pressure_percent = 20;  // 0: not looked at
  } capacity;
  struct Policy {
    std::int64_t max_validity_seconds = 86400;
    std::int64_t clock_skew_seconds = 60;
    bool require_audience = false;
  } policy;
  struct Limits {
    std::int64_t refusals_per_second = 50;      // of one peer uid
    std::int64_t connections = 256;             // of the ordinary socket; the admin socket has 16 of its own
    std::int64_t connections_per_uid = 64;      // root counts as a uid like any other
    std::int64_t idle_seconds = 60;             // between two requests of one connection
    std::int64_t frame_seconds = 5;             // from the first byte of a request to its last
    std::int64_t send_seconds = 10;             // for a peer to take one response
  } limits;
  struct Inputs {  // archives for /task and /workspace, see image/input_store.hpp
    std::int64_t max_archive_bytes = 256LL << 20U;
    std::int64_t max_peer_bytes = 1LL << 30U;
    std::int64_t max_bytes = 4LL << 30U;
    std::int64_t keep_seconds = 7 * 86400;
  } inputs;
  struct Log {
    std::string level = "info";  // debug | info | warn | error
  } log;
};

// Where a value came from: "built in", a file with its line ("/etc/cellrun/config.toml:12"), or an environment variable.
struct ConfigSource {
  std::string key;  // "paths.state"
  std::string value;
  std::string source;
};

struct LoadedConfig {
  Config config;                      // with the empty values above filled in
  std::vector<ConfigSource> sources;  // every key, in order of the dump
};

struct ConfigInput {
  std::string file = "/etc/cellrun/config.toml";
  bool file_must_exist = false;              // true when the path was given by hand
  std::vector<std::string> environment;      // "NAME=value"; CELLRUN_<SECTION>_<KEY> is read, the rest is not ours
};

// `file`, then the *.toml of the folder `config.d` beside it in order of their names, then the environment. A value out
// of bounds, an unknown key and a value of the wrong type are kInvalidArgument: "FILE:LINE: section.key: cause".
base::Result<LoadedConfig> load_config(const ConfigInput& input);
// The whole configuration as TOML that load_config() reads back to the same values.
[[nodiscard]] std::string dump_config(const Config& config);
// The same for the built-in defaults, each key with its meaning as a comment: the start of a configuration file.
[[nodiscard]] std::string default_config_text();
// "sha256:…" of dump_config(): which configuration a record was made under.
[[nodiscard]] std::string config_digest(const Config& config);

}  // namespace cellrund::daemon
