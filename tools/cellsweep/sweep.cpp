#include "sweep.hpp"

#include <algorithm>
#include <set>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "ledger_snapshot.hpp"
#include "residue/probes.hpp"
#include "residue/scan.hpp"

namespace cellrund::cellsweep {
namespace {

constexpr std::size_t kMaxEntries = 65536;
constexpr std::size_t kTagLength = 8;

bool is_tag(std::string_view text) {
  return text.size() == kTagLength && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// "cr-<tag>-…" names in a folder of the node. A missing folder has none.
void tags_of_markers(const std::string& folder, std::set<std::string>& tags, Result& result) {
  const auto names = base::list_dir(folder, kMaxEntries);
  if (!names.ok()) {
    if (names.error().code() != base::Errc::kNotFound) {
      result.unknown.push_back(names.error().message());
    }
    return;
  }
  for (const std::string& name : *names) {
    if (name.starts_with("cr-") && name.size() > 4 + kTagLength && name[3 + kTagLength] == '-' && is_tag(name.substr(3, kTagLength))) {
      tags.insert(name.substr(3, kTagLength));
    }
  }
}

// Folder names below <hierarchy>/cellrun.
void tags_of_cgroups(const std::string& proc, std::set<std::string>& tags, Result& result) {
  const auto mounts = residue::mount_points(proc, {"cgroup", "cgroup2"});
  if (!mounts.ok()) {
    result.unknown.push_back(mounts.error().message());
    return;
  }
  for (const residue::MountPoint& mount : *mounts) {
    const auto names = base::list_dir(mount.path + "/cellrun", kMaxEntries);
    if (!names.ok()) {
      if (names.error().code() != base::Errc::kNotFound) {
        result.unknown.push_back(names.error().message());
      }
      continue;
    }
    std::copy_if(names->begin(), names->end(), std::inserter(tags, tags.end()), is_tag);
  }
}

residue::NodeScope scope_of(const Options& options, const std::string& tag, const std::optional<LedgerSnapshot>& ledger) {
  residue::NodeScope scope;
  scope.node = {tag};
  scope.paths = options.paths;
  scope.node_uids = options.node_uids;
  scope.patience.containerd = std::chrono::seconds(2);
  for (const std::string& uid : options.live) {
    scope.live.push_back({uid, std::nullopt, {}});
  }
  if (!ledger || ledger->node.value != tag) {
    return scope;
  }
  for (const JournalledCell& cell : ledger->cells) {
    const model::Inventory inventory = residue::of_this_boot(cell.inventory, cell.boot_id);
    const auto named = std::find_if(scope.live.begin(), scope.live.end(), [&](const auto& live) { return live.uid == cell.uid; });
    if (named != scope.live.end()) {
      named->inventory = inventory;
    } else if (ledger->held && !cell.closed) {
      scope.live.push_back({cell.uid, std::nullopt, inventory});
    } else {
      scope.inventory.insert(scope.inventory.end(), inventory.begin(), inventory.end());
    }
  }
  return scope;
}

std::string quoted(const std::string& text) { return base::log::quoted(text, 512); }

}  // namespace

model::Verdict Result::verdict() const {
  bool known = unknown.empty() && !nodes.empty();
  for (const NodeResult& node : nodes) {
    if (node.report.verdict == model::Verdict::kResidue) {
      return model::Verdict::kResidue;
    }
    known = known && node.report.verdict == model::Verdict::kClean;
  }
  return known ? model::Verdict::kClean : model::Verdict::kUnknown;
}

Result sweep(const Options& options) {
  Result result;
  const base::Deadline deadline = base::Deadline::after(options.budget);
  std::set<std::string> tags(options.tags.begin(), options.tags.end());
  std::optional<LedgerSnapshot> ledger;
  if (auto read = read_ledger(options.ledger); read.ok()) {
    ledger = std::move(*read);
    if (options.tags.empty()) {
      tags.insert(ledger->node.value);
    }
    result.notes.push_back(ledger->held ? "a daemon is running: its unclosed cells are left alone"
                                        : "no daemon is running: no cell counts as alive");
  } else if (read.error().code() == base::Errc::kNotFound) {
    result.notes.push_back("no ledger at " + options.ledger + ": by markers alone");
  } else {
    result.unknown.push_back(read.error().message());
  }
  if (options.tags.empty()) {
    for (const char* folder : {"", "/netns", "/bpf"}) {
      tags_of_markers(options.paths.run_dir + folder, tags, result);
    }
  }
  if (options.all_tags) {
    tags_of_cgroups(options.paths.proc, tags, result);
  }
  if (tags.empty()) {
    result.unknown.push_back("no node tag in " + options.ledger + " or " + options.paths.run_dir + ": name one with --tag");
  }
  for (const std::string& tag : tags) {
    const residue::NodeScope scope = scope_of(options, tag, ledger);
    NodeResult node{{tag}, {}, residue::scan_node(scope, deadline)};
    for (const residue::LiveCell& cell : scope.live) {
      node.live.push_back(cell.uid);
    }
    result.nodes.push_back(std::move(node));
  }
  return result;
}

std::string to_json(const Result& result) {
  using base::json::Array;
  using base::json::Object;
  Array nodes;
  for (const NodeResult& node : result.nodes) {
    Array live;
    for (const std::string& uid : node.live) {
      live.emplace_back(uid);
    }
    Array checks;
    for (const model::ResidueCheck& check : node.report.checks) {
      checks.emplace_back(Object{{"probe", check.probe}, {"method", check.method}, {"expected", check.expected},
                                 {"found", check.found}, {"ok", check.ok}});
    }
    Array residue;
    for (const model::ResidueItem& item : node.report.residue) {
      residue.emplace_back(Object{{"kind", model::to_string(item.kind)}, {"name", item.name}, {"identity", item.identity},
                                  {"why", item.why}});
    }
    Array unknown;
    for (const model::ResidueUnknown& one : node.report.unknown) {
      unknown.emplace_back(Object{{"probe", one.probe}, {"cause", one.cause}});
    }
    nodes.emplace_back(Object{{"node", node.node.value}, {"verdict", model::to_string(node.report.verdict)},
                              {"live", std::move(live)}, {"checks", std::move(checks)}, {"residue", std::move(residue)},
                              {"unknown", std::move(unknown)}});
  }
  const auto strings = [](const std::vector<std::string>& in) {
    Array out;
    for (const std::string& text : in) {
      out.emplace_back(text);
    }
    return out;
  };
  return base::json::write_pretty(Object{{"verdict", model::to_string(result.verdict())}, {"nodes", std::move(nodes)},
                                         {"notes", strings(result.notes)}, {"unknown", strings(result.unknown)}}) + "\n";
}

std::string to_text(const Result& result) {
  std::string out;
  for (const std::string& note : result.notes) {
    out += "note: " + note + "\n";
  }
  for (const NodeResult& node : result.nodes) {
    out += "node " + node.node.value + ": " + std::string(model::to_string(node.report.verdict)) + ", " +
           std::to_string(node.report.checks.size()) + " probes, " + std::to_string(node.live.size()) + " live cells\n";
    for (const model::ResidueItem& item : node.report.residue) {
      out += "  residue  " + std::string(model::to_string(item.kind)) + " " + quoted(item.name) +
             (item.identity.empty() ? "" : " (" + quoted(item.identity) + ")") + ": " + quoted(item.why) + "\n";
    }
    for (const model::ResidueUnknown& one : node.report.unknown) {
      out += "  unknown  " + one.probe + ": " + quoted(one.cause) + "\n";
    }
  }
  for (const std::string& cause : result.unknown) {
    out += "unknown: " + quoted(cause) + "\n";
  }
  return out + std::string(model::to_string(result.verdict())) + "\n";
}

}  // namespace cellrund::cellsweep
