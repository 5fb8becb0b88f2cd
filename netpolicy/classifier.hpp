// What the filter does with a frame, in plain C++: the reference that the tests hold the kernel program to, and what the
// canary expects. Pure: time, state and lease come in as conditions.
#pragma once

#include <array>
#include <map>

#include "base/file.hpp"
#include "ebpf/egress_abi.h"
#include "netpolicy/policy.hpp"
#include "netpolicy/verdicts.hpp"

namespace cellrund::netpolicy {

// What the kernel program reads beside the frame.
struct Conditions {
  cr_state state = CR_STATE_ENFORCE;
  cr_node node{};
  std::uint64_t now_ns = 0;  // CLOCK_BOOTTIME
  cr_lease lease = 0;
};

struct Classified {
  unsigned verdict = CR_NOT_ENFORCING;  // a cr_reason or a cr_pass
  cr_decision_key key{};                // as it would be recorded; only denials and CR_ALLOWED are

  [[nodiscard]] bool passes() const noexcept { return verdict >= CR_REASONS; }
};

// One cell's filter with the flows and the usage that the frames so far have left. Never evicts a flow.
class Classifier {
 public:
  // `policy` outlives the object.
  Classifier(const cr_config& config, const CompiledPolicy& policy) : config_(config), policy_(policy) {}

  // A frame that the cell sends, Ethernet header first. `vlan_in_metadata`: the kernel has taken a tag off already.
  Classified out(base::BytesView frame, const Conditions& conditions, bool vlan_in_metadata = false);
  // A frame on its way to the cell.
  Classified in(base::BytesView frame, const Conditions& conditions, bool vlan_in_metadata = false);

  // What the daemon writes into the named map, and takes out of it.
  void put_named(const NamedService& service, const NamedEntry& entry) { named_[service] = entry; }
  void erase_named(const NamedService& service) { named_.erase(service); }

  [[nodiscard]] const cr_usage& usage() const noexcept { return usage_; }

 private:
  using FlowKey = std::array<std::uint8_t, sizeof(cr_flow_key)>;
  struct Transport {
    std::uint16_t source = 0, destination = 0;
    std::uint8_t flags = 0;  // of TCP
  };
  unsigned verdict_out(base::BytesView frame, const Conditions& conditions, bool vlan, cr_decision_key& key);
  unsigned verdict_in(base::BytesView frame, const Conditions& conditions, bool vlan, cr_decision_key& key);
  unsigned by_flow_or_rule(const cr_decision_key& key, const Transport& transport, std::size_t bytes,
                           const Conditions& conditions);
  unsigned spend(std::uint64_t bytes, std::uint64_t connections, const Conditions& conditions);

  cr_config config_;
  const CompiledPolicy& policy_;
  std::map<NamedService, NamedEntry> named_;
  std::map<FlowKey, cr_flow> flows_;
  cr_usage usage_{};
};

}  // namespace cellrund::netpolicy
