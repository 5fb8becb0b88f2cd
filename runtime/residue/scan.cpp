#include "residue/scan.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "residue/probes.hpp"

namespace cellrund::residue {
namespace {

// Waits between looks: soon at first, since most of what settles does so within milliseconds.
constexpr std::chrono::milliseconds kFirstWait{2};
constexpr std::chrono::milliseconds kLongestWait{200};

struct Probe {
  Look (*look)(Pass&);
  bool containerd = false;
};

constexpr std::array<Probe, 12> kProbes{{
    {look_at_cgroups}, {look_at_processes}, {look_at_network_namespaces}, {look_at_links}, {look_at_mounts},
    {look_at_bpf_objects}, {look_at_bpf_pins}, {look_at_containerd, true}, {look_at_bundles, true}, {look_at_sockets},
    {look_at_files}, {look_at_open_files},
}};

bool names_containerd(const Subject& subject) {
  return subject.has(model::ItemKind::kContainer) || subject.has(model::ItemKind::kTask) ||
         subject.has(model::ItemKind::kLease) || subject.has(model::ItemKind::kSnapshot);
}

bool has_process(const Look& look) {
  return std::any_of(look.findings().begin(), look.findings().end(),
                     [](const Finding& f) { return f.item.kind == model::ItemKind::kProcess; });
}

struct Slot {
  const Probe* probe;
  std::optional<Look> look;
};

// Sleeps on a timer descriptor; a failure to make one only makes the scan less patient.
bool pause(base::Nanoseconds how_long, base::Deadline deadline) {
  const auto timer = base::boot_timer(base::BootTime::now() + how_long);
  if (!timer.ok()) {
    return false;
  }
  const auto waited = base::wait_readable(timer->get(), deadline);
  return waited.ok() && *waited;
}

// Looks until nothing is left, nothing can change any more, or patience (or the deadline) ends. What is "not yet" gone is
// looked at again; only what stays is residue.
std::vector<Slot> look_patiently(const Subject& subject, const Patience& patience, base::Deadline deadline) {
  std::vector<Slot> slots;
  for (const Probe& probe : kProbes) {
    if (!probe.containerd || subject.paths().containerd || names_containerd(subject)) {
      slots.push_back({&probe, std::nullopt});
    }
  }
  const base::Deadline kernel_patience = base::Deadline::after(patience.kernel);
  const base::Deadline containerd_patience = base::Deadline::after(patience.containerd);
  base::Nanoseconds wait = kFirstWait;
  for (;;) {
    Pass pass(subject, deadline);
    bool process = false;
    bool again = false;
    for (Slot& slot : slots) {
      if (slot.look && slot.look->clean()) {
        continue;
      }
      slot.look = slot.probe->look(pass);
      process = process || has_process(*slot.look);
      const base::Deadline& limit = slot.probe->containerd ? containerd_patience : kernel_patience;
      again = again || (slot.look->unsettled() && !limit.expired());
    }
    if (!again || deadline.expired() || !pause(wait, deadline)) {
      return slots;
    }
    wait = std::min<base::Nanoseconds>(wait * 2, kLongestWait);
    if (process) {
      for (Slot& slot : slots) {
        slot.look.reset();  // while a process lived, it may have made what an earlier probe did not find
      }
    }
  }
}

model::ResidueReport report_of(const std::vector<Slot>& slots) {
  model::ResidueReport report;
  for (const Slot& slot : slots) {
    slot.look->report_to(report);
  }
  report.verdict = model::verdict_of(report);
  return report;
}

}  // namespace

model::ResidueReport scan_cell(const CellScope& scope, base::Deadline deadline) {
  const Subject subject(scope);
  return report_of(look_patiently(subject, scope.patience, deadline));
}

model::ResidueReport scan_node(const NodeScope& scope, base::Deadline deadline) {
  const Subject subject(scope);
  return report_of(look_patiently(subject, scope.patience, deadline));
}

}  // namespace cellrund::residue
