// Every key of the configuration, once: its section, name, meaning and bounds. Reading, dumping, checking and listing
// are visitors of this one list. Private to config*.cpp.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/config.hpp"

namespace cellrund::daemon {

struct Field {
  std::string_view section;
  std::string_view key;
  std::string_view help;
};

enum class TextKind {
  kName,       // letters, digits, '.', '-', '_'; at most 128; may be empty
  kPath,       // absolute, without ".." and control characters; at most 512; may be empty where a default is derived
  kSocket,     // the same, and short enough for sockaddr_un
  kLink,       // "none", or what may be the name of a network interface
  kChoice,     // one of `choices`
  kResolver,   // an IPv4 address at which a name server may be
};
struct TextRule {
  TextKind kind = TextKind::kName;
  std::vector<std::string_view> choices = {};
};
struct NumberRule {
  std::int64_t min = 0;
  std::int64_t max = std::numeric_limits<std::int64_t>::max();
};

// Calls v(Field, value&, rule) for each key in the order of a dump; value is std::string, std::vector<std::string>
// (the rule holds for each entry; at most 64 entries), std::int64_t, or bool (without a rule).
template <typename ConfigT, typename Visitor>
void visit_fields(ConfigT& c, Visitor&& v) {
  const TextRule name{TextKind::kName};
  const TextRule path{TextKind::kPath};
  const TextRule socket{TextKind::kSocket};
  const auto choice = [](std::vector<std::string_view> choices) { return TextRule{TextKind::kChoice, std::move(choices)}; };
  constexpr std::int64_t kDay = 86400;

  v(Field{"node", "id", "this node's name in specs (audience) and evidence; empty: the host name"}, c.node.id, name);
  v(Field{"node", "pools", "pools that a jobspec's audience may name"}, c.node.pools, name);
  v(Field{"node", "fleet", "fleet that a jobspec's audience may name"}, c.node.fleet, name);

  v(Field{"paths", "state", "durable state: ledger, images, outputs"}, c.paths.state, path);
  v(Field{"paths", "run", "sockets and everything that ends with the boot"}, c.paths.run, path);
  v(Field{"paths", "trust", "which keys may ask for what; empty or missing: everything is refused"}, c.paths.trust, path);
  v(Field{"paths", "node_key", "the key that signs evidence (PKCS#8 PEM, root's alone)"}, c.paths.node_key, path);
  v(Field{"paths", "node_pub", "its public half, for verifiers"}, c.paths.node_pub, path);
  v(Field{"paths", "socket", "for the group cellrun; empty: <run>/cellrund.sock"}, c.paths.socket, socket);
  v(Field{"paths", "admin_socket", "for root; empty: <run>/admin.sock"}, c.paths.admin_socket, socket);
  v(Field{"paths", "shim", "folder of the containerd shim and the helpers; empty: as installed"}, c.paths.shim, path);
  v(Field{"paths", "guest", "folder of the guest's vmlinux and initrd; empty: <state>/guest"}, c.paths.guest, path);

  v(Field{"containerd", "mode", "embedded: own one, kept alive by the keeper; system: the host's"}, c.containerd.mode,
    choice({"embedded", "system"}));
  v(Field{"containerd", "binary", "what the embedded mode runs"}, c.containerd.binary, path);
  v(Field{"containerd", "socket", "empty: <run>/containerd/containerd.sock, or the host's"}, c.containerd.socket, socket);
  v(Field{"containerd", "root", "empty: <state>/containerd, or the host's"}, c.containerd.root, path);
  v(Field{"containerd", "state", "empty: <run>/containerd/state, or the host's"}, c.containerd.state, path);
  v(Field{"containerd", "namespace", "containerd namespace of all cells"}, c.containerd.namespace_, name);

  v(Field{"secrets", "directory", "holds <namespace>/<name>, root's alone (0700, 0600); jobs get these by spec.secrets"}, c.secrets.directory, path);

  v(Field{"network", "attach", "auto takes tcx where the kernel has it"}, c.network.attach,
    choice({"auto", "tcx", "clsact"}));
  v(Field{"network", "uplink", "none, or the host's interface by which allowed packets leave, under its address"}, c.network.uplink,
    TextRule{TextKind::kLink});
  v(Field{"network", "dns_upstream", "IPv4 addresses of name servers, asked by the cells' resolvers on port 53 through the uplink; empty: rules may not name hosts"},
    c.network.dns_upstream, TextRule{TextKind::kResolver});

  v(Field{"lanes", "enabled", "lanes that jobs may use"}, c.lanes.enabled, choice({"microvm", "process"}));
  v(Field{"lanes", "accel", "auto finds out by booting a guest"}, c.lanes.accel, choice({"auto", "kvm", "tcg"}));
  v(Field{"lanes", "allow_emulated_tier2", "whether an emulated cell counts as tier 2; QEMU promises no isolation for it"},
    c.lanes.allow_emulated_tier2);
  v(Field{"lanes", "uid_base", "first host uid of the range that VMMs run under"}, c.lanes.uid_base,
    NumberRule{1000, 4000000000});
  v(Field{"lanes", "uid_count", "size of that range: no more cells than this"}, c.lanes.uid_count, NumberRule{1, 46656});
  v(Field{"lanes", "boot_timeout_seconds", "the guest's boot to READY, including restarts in place"},
    c.lanes.boot_timeout_seconds, NumberRule{1, 600});

  v(Field{"capacity", "cpu_millis", "thousandths of a CPU for all cells; 0: the host's"}, c.capacity.cpu_millis,
    NumberRule{0, 10000000});
  v(Field{"capacity", "memory_bytes", "memory for all cells; 0: the host's less a reserve"}, c.capacity.memory_bytes,
    NumberRule{0, std::int64_t{1} << 50});
  v(Field{"capacity", "cells", "cells at one time; 0: derived"}, c.capacity.cells, NumberRule{0, 46656});
  v(Field{"capacity", "queue", "accepted jobs that wait for capacity"}, c.capacity.queue, NumberRule{0, 100000});
  v(Field{"capacity", "memory_reserve_bytes", "of the host's available memory, what a new cell must leave; until it does the job waits"},
    c.capacity.memory_reserve_bytes, NumberRule{0, std::int64_t{1} << 50});
  v(Field{"capacity", "memory_pressure_percent", "jobs wait while tasks stalled for memory more of the last 10 s than this (PSI); 0: not looked at"},
    c.capacity.memory_pressure_percent, NumberRule{0, 100});

  v(Field{"policy", "max_validity_seconds", "longest time from issuedAt to expiresAt"}, c.policy.max_validity_seconds,
    NumberRule{60, 366 * kDay});
  v(Field{"policy", "clock_skew_seconds", "how far a signer's clock may be off"}, c.policy.clock_skew_seconds,
    NumberRule{0, 3600});
  v(Field{"policy", "require_audience", "refuse jobspecs that name no audience"}, c.policy.require_audience);

  v(Field{"limits", "refusals_per_second", "sealed refusals of one peer uid; above it the connection is closed"},
    c.limits.refusals_per_second, NumberRule{1, 10000});
  v(Field{"limits", "connections", "at one time on the ordinary socket"}, c.limits.connections, NumberRule{1, 4096});
  v(Field{"limits", "connections_per_uid", "of one peer uid"}, c.limits.connections_per_uid, NumberRule{1, 4096});
  v(Field{"limits", "idle_seconds", "between two requests of one connection"}, c.limits.idle_seconds, NumberRule{1, 3600});
  v(Field{"limits", "frame_seconds", "from the first byte of a request to its last"}, c.limits.frame_seconds,
    NumberRule{1, 300});
  v(Field{"limits", "send_seconds", "for a peer to take one response"}, c.limits.send_seconds, NumberRule{1, 300});

  constexpr std::int64_t kLargest = std::int64_t{1} << 46U;  // 64 TiB
  v(Field{"inputs", "max_archive_bytes", "of one archive for /task or /workspace"}, c.inputs.max_archive_bytes,
    NumberRule{4096, std::int64_t{1} << 36U});
  v(Field{"inputs", "max_peer_bytes", "of one peer uid's archives that are kept"}, c.inputs.max_peer_bytes, NumberRule{4096, kLargest});
  v(Field{"inputs", "max_bytes", "of all archives and the images made of them; the longest unused go first"}, c.inputs.max_bytes,
    NumberRule{4096, kLargest});
  v(Field{"inputs", "keep_seconds", "an archive that no job has named for so long goes"}, c.inputs.keep_seconds,
    NumberRule{60, 366LL * 86400});

  v(Field{"log", "level", "of the daemon's log on stderr"}, c.log.level, choice({"debug", "info", "warn", "error"}));
}

// What is wrong with the value, or empty.
[[nodiscard]] std::string check_text(const std::string& value, const TextRule& rule);
[[nodiscard]] std::string check_number(std::int64_t value, const NumberRule& rule);

// Where each value was set last; grows while sources are read.
struct Origins {
  std::vector<std::pair<std::string, std::string>> of;  // "section.key" → source
  void set(const Field& field, std::string source);
  [[nodiscard]] std::string get(const Field& field) const;
};

// config_toml.cpp: overlays one file. `text` is its content.
base::Status read_toml(Config& config, Origins& origins, const std::string& path, const std::string& text);

}  // namespace cellrund::daemon
