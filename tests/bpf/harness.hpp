// The filter in the kernel beside its reference: both see the same frames under the same conditions, and must agree on
// each verdict, on every counter, on every recorded decision and on what was used up. Needs CAP_BPF and CAP_NET_ADMIN.
#pragma once

#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <stdlib.h>

#include <cstring>
#include <map>
#include <string>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "netpolicy/account.hpp"
#include "netpolicy/classifier.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/policy_maps.hpp"
#include "tests/support/egress_packets.hpp"

namespace cellrund::test {

using namespace cellrund::netpolicy;

inline constexpr std::size_t kShortestInput = 14;  // the kernel refuses less in a test run

// Newer kernels also refuse a test run whose IP header is cut short; the live test sends such frames.
inline bool can_run(const base::Bytes& frame) {
  const unsigned ethertype = frame[12] * 256U + frame[13];
  return frame.size() > kShortestInput && (ethertype != 0x0800 || frame.size() >= 34) &&
         (ethertype != 0x86dd || frame.size() >= 54);
}

// CELLRUN_EGRESS_OBJECT names another object file than the built-in one: tests/bpf/mutants.py.
inline const FilterProgram& program() {
  static const auto prepared = []() -> base::Result<FilterProgram> {
    const char* path = ::secure_getenv("CELLRUN_EGRESS_OBJECT");
    if (path == nullptr) {
      return FilterProgram::prepare();
    }
    const std::string object = CR_TRY(base::read_file(path, 4U << 20U));
    return FilterProgram::prepare(base::as_bytes(object));
  }();
  REQUIRE_MESSAGE(prepared.ok(), (prepared.ok() ? "" : prepared.error().message()));
  return *prepared;
}

template <typename Value>
void put(int fd, const Value& value) {
  const std::uint32_t zero = 0;
  REQUIRE(::bpf_map_update_elem(fd, &zero, &value, BPF_ANY) == 0);
}

using Key = std::array<std::uint8_t, sizeof(cr_decision_key)>;
inline Key key_of(const cr_decision_key& key) {
  Key out{};
  std::memcpy(out.data(), &key, sizeof key);
  return out;
}

class Pair {
 public:
  explicit Pair(const CompiledPolicy& policy, const model::EgressQuota& quota = {})
      : policy_(policy), config_(packet_config(quota)), reference_(config_, policy_), filter_(load()) {
    conditions.lease = CR_NEVER;
    apply();
  }

  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;
  Pair(Pair&&) = delete;
  Pair& operator=(Pair&&) = delete;
  ~Pair() = default;

  // Tells the kernel the conditions.
  void apply() {
    REQUIRE(write_state(filter_.map(MapRole::kControl).fd.get(), conditions.state).ok());
    put(node_.get(), conditions.node);
    put(filter_.map(MapRole::kLease).fd.get(), conditions.lease);
  }

  // What the daemon does to the named map, on both sides.
  void put_named(const NamedService& service, const NamedEntry& entry) {
    REQUIRE(netpolicy::put_named(filter_.map(MapRole::kNamed).fd.get(), service, entry).ok());
    reference_.put_named(service, entry);
  }
  void erase_named(const NamedService& service) {
    REQUIRE(netpolicy::erase_named(filter_.map(MapRole::kNamed).fd.get(), service).ok());
    reference_.erase_named(service);
  }

  // Runs both; false when they disagree on what happens to the packet.
  bool out(const base::Bytes& frame) { return run(filter_.out(), frame, true); }
  bool in(const base::Bytes& frame) { return run(filter_.in(), frame, false); }
  [[nodiscard]] unsigned last() const noexcept { return last_; }  // the reference's verdict

  // What the kernel alone answers; the reference does not see the frame.
  [[nodiscard]] int kernel_alone(bool outward, const base::Bytes& frame) const {
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data());
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    const LoadedFilter::Program& program = outward ? filter_.out() : filter_.in();
    return ::bpf_prog_test_run_opts(program.fd.get(), &options) == 0 ? static_cast<int>(options.retval) : -1;
  }

  // Empty when both have counted and recorded the same.
  [[nodiscard]] std::string difference() const {
    const auto account = read_account(filter_.counters(), filter_.decisions());
    REQUIRE(account.ok());
    for (unsigned verdict = 0; verdict < CR_VERDICTS; ++verdict) {
      if (account->packets[verdict] != counters_[verdict]) {
        return "counted as " + std::string(reason_name(verdict)) + ": " + std::to_string(account->packets[verdict]) +
               " instead of " + std::to_string(counters_[verdict]);
      }
    }
    std::map<Key, std::uint64_t> found;
    for (const auto& [key, decision] : account->decisions) {
      found[key_of(key)] = decision.count;
    }
    if (found != decisions_) {
      return "recorded decisions differ";
    }
    if (const std::string imbalance = account->imbalance(); !imbalance.empty()) {
      return imbalance;
    }
    const auto usage = read_usage(filter_.map(MapRole::kUsage).fd.get());
    REQUIRE(usage.ok());
    const cr_usage& expected = reference_.usage();
    const bool same = usage->bytes == expected.bytes && usage->packets == expected.packets &&
                      usage->connections == expected.connections && usage->exhausted == expected.exhausted;
    return same ? "" : "usage differs";
  }

  [[nodiscard]] const LoadedFilter& filter() const noexcept { return filter_; }

  Conditions conditions;  // now_ns is taken from the clock for each packet

 private:
  LoadedFilter load() {
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_RDONLY_PROG);
    node_.reset(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "cellrun_test", 4, sizeof(cr_node), 1, &options));
    REQUIRE(node_.valid());
    auto filter = program().load({{"ffffbbbb"}, "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11", 0}, config_, policy_, node_.get());
    REQUIRE_MESSAGE(filter.ok(), (filter.ok() ? "" : filter.error().message()));
    return std::move(*filter);
  }

  bool run(const LoadedFilter::Program& program, const base::Bytes& frame, bool outward) {
    conditions.now_ns = static_cast<std::uint64_t>(base::BootTime::now().ns);
    const Classified expected = outward ? reference_.out(frame, conditions) : reference_.in(frame, conditions);
    last_ = expected.verdict;
    ++counters_[expected.verdict];
    if (expected.verdict <= CR_ALLOWED) {
      ++decisions_[key_of(expected.key)];
    }
    __sk_buff after{};
    LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data());
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.ctx_out = &after;
    options.ctx_size_out = sizeof after;
    if (::bpf_prog_test_run_opts(program.fd.get(), &options) != 0) {
      return false;
    }
    const std::uint32_t mark = expected.passes() && outward ? config_.allow_mark : 0;
    return options.retval == static_cast<std::uint32_t>(expected.passes() ? TC_ACT_OK : TC_ACT_SHOT) && after.mark == mark;
  }

  CompiledPolicy policy_;
  cr_config config_;
  Classifier reference_;
  base::UniqueFd node_;
  LoadedFilter filter_;
  std::array<std::uint64_t, CR_VERDICTS> counters_{};
  std::map<Key, std::uint64_t> decisions_;
  unsigned last_ = CR_NOT_ENFORCING;
};

}  // namespace cellrund::test
