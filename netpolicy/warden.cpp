#include "netpolicy/warden.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <optional>
#include <utility>

#include "netpolicy/account.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/networked_cell.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Error;

constexpr unsigned kMostUnseen = 4;  // two seconds

// The host is out of something for a moment: descriptors, memory, time. Says nothing about the filter.
bool is_shortage(base::Errc code) {
  return code == base::Errc::kResourceExhausted || code == base::Errc::kDeadlineExceeded || code == base::Errc::kUnavailable;
}

base::Status renew(const std::string& pins) {
  const base::UniqueFd map = CR_TRY(open_pin(map_pin(pins, MapRole::kLease)));
  const std::uint32_t zero = 0;
  const auto until = static_cast<cr_lease>((base::BootTime::now() + Warden::kLease).ns);
  if (::bpf_map_update_elem(map.get(), &zero, &until, BPF_ANY) != 0) {
    return Error::from_errno("renew lease");
  }
  return base::ok();
}

base::Result<cr_usage> usage_of(const std::string& pins) {
  const base::UniqueFd map = CR_TRY(open_pin(map_pin(pins, MapRole::kUsage)));
  return read_usage(map.get());
}

base::Status take_samples(const std::string& pins, Samples& samples) {
  const base::UniqueFd ring = CR_TRY(open_pin(map_pin(pins, MapRole::kSamples)));
  return samples.drain(ring.get());
}

}  // namespace

Warden::Watch::~Watch() {
  if (warden_ != nullptr) {
    (void)warden_->state_.lock()->wards.erase(id_);
  }
}

Warden::Warden(int router_netns) : router_netns_(router_netns), thread_([this] { run(); }) {}

Warden::~Warden() {
  state_.lock()->ending = true;
  changed_.notify_one();
}

base::Result<Warden::Watch> Warden::watch(const Proof& proof, OnAlarm on_alarm) {
  CR_CHECK(renew(pin_dir(proof.run_dir, proof.name)));
  auto state = state_.lock();
  const std::uint64_t id = state->next_id++;
  auto samples = std::make_shared<Samples>();
  Ward& ward = state->wards[id];
  ward.proof = proof;
  ward.on_alarm = std::move(on_alarm);
  ward.samples = samples;
  return Watch(this, id, std::move(samples));
}

std::shared_ptr<Samples> Warden::samples_of(const model::CellName& name) {
  auto state = state_.lock();
  for (const auto& [id, ward] : state->wards) {
    if (ward.proof.name.uid == name.uid) {
      return ward.samples;
    }
  }
  return nullptr;
}

void Warden::look_at(Ward& ward, Rtnl& rtnl) {
  if (ward.unproven) {
    return;
  }
  const std::string pins = pin_dir(ward.proof.run_dir, ward.proof.name);
  auto held = ward.proof.hold(rtnl);
  if (held.ok()) {
    held = renew(pins);
  }
  // Nothing was seen of the filter, good or bad: no new lease, and another look soon. The old one outlasts them.
  if (!held.ok() && is_shortage(held.error().code()) && ++ward.unseen < kMostUnseen) {
    return;
  }
  if (held.ok()) {
    ward.unseen = 0;
  } else {
    ward.unproven = true;
    // Where the filter is gone the firewall drops what it did not mark; the lease runs out in any case.
    (void)kill_network(ward.proof.name, ward.proof.run_dir);
    if (ward.on_alarm) {
      ward.on_alarm(Alarm::kUnproven, held.error().message());
    }
    return;
  }
  const auto usage = usage_of(pins);
  if (!usage.ok()) {
    return;
  }
  if (usage->sample_ns != ward.sample_ns && take_samples(pins, *ward.samples).ok()) {
    ward.sample_ns = usage->sample_ns;
  }
  if (usage->exhausted != 0 && !ward.over_quota) {
    ward.over_quota = true;
    if (ward.on_alarm) {
      ward.on_alarm(Alarm::kQuota, "the job's egress quota is used up");
    }
  }
}

void Warden::run() {
  // Without the namespace or the socket nobody gets a lease: nothing passes, and each cell is reported as unproven.
  const base::Status entered = enter_netns(router_netns_);
  std::optional<Rtnl> rtnl;
  if (entered.ok()) {
    if (auto opened = Rtnl::open(); opened.ok()) {
      rtnl.emplace(std::move(*opened));
    }
  }
  while (true) {
    auto state = state_.lock();
    const base::Deadline next = base::Deadline::after(kInterval);
    while (!state->ending && !next.expired()) {
      state.wait(changed_, next);
    }
    if (state->ending) {
      return;
    }
    for (auto& [id, ward] : state->wards) {
      if (rtnl.has_value()) {
        look_at(ward, *rtnl);
      } else if (!std::exchange(ward.unproven, true) && ward.on_alarm) {
        ward.on_alarm(Alarm::kUnproven, "the warden cannot look into the router namespace");
      }
    }
  }
}

}  // namespace cellrund::netpolicy
