// Names of the small enumerations, node and cell names, and the verdict rule.
#include <array>

#include "model/inventory.hpp"
#include "model/job_spec.hpp"
#include "model/node.hpp"
#include "model/residue_report.hpp"

namespace cellrund::model {
namespace {

constexpr std::array<std::pair<Lane, std::string_view>, 5> kLanes{{
    {Lane::kKata, "kata"}, {Lane::kMicrovm, "microvm"}, {Lane::kGvisor, "gvisor"}, {Lane::kRunc, "runc"},
    {Lane::kProcess, "process"},
}};

constexpr std::array<std::pair<ItemKind, std::string_view>, 15> kItemKinds{{
    {ItemKind::kProcess, "process"}, {ItemKind::kCgroup, "cgroup"}, {ItemKind::kNetns, "netns"},
    {ItemKind::kLink, "link"}, {ItemKind::kBpfProgram, "bpf-program"}, {ItemKind::kBpfMap, "bpf-map"},
    {ItemKind::kBpfLink, "bpf-link"}, {ItemKind::kBpfPin, "bpf-pin"}, {ItemKind::kMount, "mount"},
    {ItemKind::kFile, "file"}, {ItemKind::kSocket, "socket"}, {ItemKind::kContainer, "container"},
    {ItemKind::kTask, "task"}, {ItemKind::kLease, "lease"}, {ItemKind::kSnapshot, "snapshot"},
}};

std::string base36(std::uint32_t n) {
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::string out;
  do {
    out.insert(out.begin(), kDigits[n % 36]);
    n /= 36;
  } while (n != 0);
  return out;
}

}  // namespace

std::string_view to_string(Lane lane) noexcept {
  for (const auto& [v, name] : kLanes) {
    if (v == lane) {
      return name;
    }
  }
  return "";
}

std::optional<Lane> parse_lane(std::string_view name) noexcept {
  for (const auto& [v, n] : kLanes) {
    if (n == name) {
      return v;
    }
  }
  return std::nullopt;
}

int tier_of(Lane lane) noexcept {
  switch (lane) {
    case Lane::kKata: case Lane::kMicrovm: return 2;
    case Lane::kGvisor: case Lane::kRunc: return 1;
    case Lane::kProcess: return 0;
  }
  return 0;
}

std::string_view to_string(ItemKind kind) noexcept {
  for (const auto& [v, name] : kItemKinds) {
    if (v == kind) {
      return name;
    }
  }
  return "";
}

std::optional<ItemKind> parse_item_kind(std::string_view text) noexcept {
  for (const auto& [v, name] : kItemKinds) {
    if (name == text) {
      return v;
    }
  }
  return std::nullopt;
}

std::string CellName::marker() const { return "cr-" + node.value + "-" + uid; }
std::string CellName::cgroup_path() const { return "/cellrun/" + node.value + "/" + uid; }
std::string CellName::host_link() const { return "cj" + node.value + base36(slot); }
std::string CellName::bpf_prefix() const { return "cr" + node.value + base36(slot); }

std::string router_name(const NodeTag& node) { return "cr-" + node.value + "-router"; }

Verdict verdict_of(const ResidueReport& report) noexcept {
  if (!report.residue.empty()) {
    return Verdict::kResidue;
  }
  if (!report.unknown.empty() || report.checks.empty()) {
    return Verdict::kUnknown;
  }
  return Verdict::kClean;
}

}  // namespace cellrund::model
