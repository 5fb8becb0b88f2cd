#include "netpolicy/account.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <span>
#include <tuple>

#include "netpolicy/address.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/samples.hpp"
#include "netpolicy/verdicts.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Error;

constexpr int kAttempts = 4;  // to find a cell quiet

// All counters in one call (since Linux 5.13), so that they belong together and cost one system call.
base::Result<Account> read_counters(int fd) {
  const int cpus = ::libbpf_num_possible_cpus();
  if (cpus <= 0) {
    return Error::from_errno("count possible CPUs", -cpus);
  }
  const auto per_slot = static_cast<std::size_t>(cpus);
  std::array<std::uint32_t, CR_VERDICTS> slots{};
  std::vector<cr_count> values(CR_VERDICTS * per_slot);
  std::uint32_t count = CR_VERDICTS;
  std::uint32_t position = 0;
  LIBBPF_OPTS(bpf_map_batch_opts, options);
  if ((::bpf_map_lookup_batch(fd, nullptr, &position, slots.data(), values.data(), &count, &options) != 0 && errno != ENOENT) ||
      count != CR_VERDICTS) {
    return Error::from_errno("read filter counters");
  }
  Account counters;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    for (const cr_count& value : std::span(values).subspan(i * per_slot, per_slot)) {
      counters.packets.at(slots[i]) += value.packets;
      counters.suppressed.at(slots[i]) += value.suppressed;
      counters.lost.at(slots[i]) += value.lost;
    }
  }
  return counters;
}

base::Result<std::vector<std::pair<cr_decision_key, cr_decision>>> read_decisions(int fd) {
  // CPUs that insert at once may each find the last place free (is_map_full() in kernel/bpf/hashtab.c).
  constexpr std::uint32_t kMost = CR_MAX_DECISIONS + 1024;
  std::vector<cr_decision_key> keys(kMost);
  std::vector<cr_decision> values(kMost);
  std::uint32_t count = kMost;
  std::uint32_t position = 0;
  LIBBPF_OPTS(bpf_map_batch_opts, options);
  // The buffers hold more than a full map, so one call reads all of it: ENOENT says that the end was reached.
  if (::bpf_map_lookup_batch(fd, nullptr, &position, keys.data(), values.data(), &count, &options) == 0) {
    return Error(base::Errc::kDataLoss, "read filter decisions: more than the table holds");
  }
  if (errno != ENOENT) {
    return Error::from_errno("read filter decisions");
  }
  std::vector<std::pair<cr_decision_key, cr_decision>> decisions;
  decisions.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    decisions.emplace_back(keys[i], values[i]);
  }
  return decisions;
}

}  // namespace

std::uint64_t Account::counted() const noexcept {
  return std::accumulate(packets.begin(), packets.begin() + CR_ALLOWED + 1, std::uint64_t{0});
}

std::string Account::imbalance() const {
  ByVerdict known = suppressed;
  for (unsigned verdict = 0; verdict < CR_VERDICTS; ++verdict) {
    known[verdict] += lost[verdict];
  }
  for (const auto& [key, decision] : decisions) {
    known.at(key.reason) += decision.count;
  }
  for (unsigned verdict = 0; verdict <= CR_ALLOWED; ++verdict) {
    if (known[verdict] != packets[verdict]) {
      return std::string(reason_name(verdict)) + ": " + std::to_string(packets[verdict]) + " packets counted, " +
             std::to_string(known[verdict]) + " accounted for";
    }
  }
  return {};
}

base::Result<Account> read_account(int counters_fd, int decisions_fd) {
  Account account = CR_TRY(read_counters(counters_fd));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    auto decisions = CR_TRY(read_decisions(decisions_fd));
    Account after = CR_TRY(read_counters(counters_fd));
    const bool quiet = after.packets == account.packets;
    account = std::move(after);
    account.decisions = std::move(decisions);
    if (quiet) {
      break;
    }
  }
  return account;
}

base::Result<cr_usage> read_usage(int usage_fd) {
  const std::uint32_t zero = 0;
  cr_usage usage{};
  if (::bpf_map_lookup_elem(usage_fd, &zero, &usage) != 0) {
    return Error::from_errno("read egress usage");
  }
  return usage;
}

void fill_account(const Account& account, model::EgressFacts& facts) {
  facts.counters.clear();
  for (unsigned reason = 0; reason < CR_VERDICTS; ++reason) {
    if (account.packets[reason] != 0) {
      facts.counters.emplace_back(reason_name(reason), account.packets[reason]);
    }
  }
  auto ordered = account.decisions;
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    const auto rank = [](const auto& d) {
      return std::tuple(d.second.first_ns, d.first.reason, d.first.protocol, d.first.address[0], d.first.address[1],
                        d.first.address[2], d.first.address[3], d.first.port);
    };
    return rank(a) < rank(b);
  });
  facts.decisions.clear();
  facts.seen = 0;
  for (const auto& [key, decision] : ordered) {
    model::EgressDecision out;
    out.seq = facts.decisions.size() + 1;
    out.boot_ns = static_cast<std::int64_t>(decision.first_ns);
    out.protocol = key.protocol;
    const std::uint32_t address = static_cast<std::uint32_t>(key.address[0]) << 24U |
                                  static_cast<std::uint32_t>(key.address[1]) << 16U |
                                  static_cast<std::uint32_t>(key.address[2]) << 8U | key.address[3];
    if (address != 0 || key.protocol != 0 || key.reason == CR_THIS_NETWORK) {
      out.destination = format_ipv4(address);
    }
    out.port = key.port;
    out.verdict = key.reason == CR_ALLOWED ? "allowed" : "denied";
    out.reason = reason_name(key.reason);
    out.count = decision.count;
    facts.seen += decision.count;
    facts.decisions.push_back(std::move(out));
  }
  const auto sum = [](const Account::ByVerdict& values) {
    return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
  };
  facts.suppressed = sum(account.suppressed);
  facts.lost = sum(account.lost);
  facts.counted = account.counted();
  facts.imbalance = account.imbalance();
}

base::Status add_account(const std::string& pins, Samples& samples, model::EgressFacts& facts) {
  const base::UniqueFd counters = CR_TRY(open_pin(map_pin(pins, MapRole::kCounters)));
  const base::UniqueFd decisions = CR_TRY(open_pin(map_pin(pins, MapRole::kDecisions)));
  const base::UniqueFd ring = CR_TRY(open_pin(map_pin(pins, MapRole::kSamples)));
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Account account = CR_TRY(read_account(counters.get(), decisions.get()));
    (void)samples.drain(ring.get());  // what stays in the ring is missing in the sum, which tells
    samples.add_to(account);
    fill_account(account, facts);
    if (facts.imbalance.empty()) {
      break;
    }
  }
  const base::UniqueFd usage_map = CR_TRY(open_pin(map_pin(pins, MapRole::kUsage)));
  const cr_usage usage = CR_TRY(read_usage(usage_map.get()));
  facts.used_bytes = usage.bytes;
  facts.used_packets = usage.packets;
  facts.used_connections = usage.connections;
  facts.quota_exhausted = usage.exhausted != 0;
  return base::ok();
}

}  // namespace cellrund::netpolicy
