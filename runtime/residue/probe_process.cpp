// Processes: by journalled identity, by what the walk claimed, by membership in a cgroup of the cell (see probe_cgroup).
#include "residue/probes.hpp"

namespace cellrund::residue {
namespace {

std::string identity_of(const Walker& process) {
  return std::to_string(process.pid) + ":" + std::to_string(process.start_time);
}

}  // namespace

Look look_at_processes(Pass& pass) {
  const Subject& subject = pass.subject();
  Look look("process", subject.breadth() == Breadth::kCell
                           ? "journalled pid and start time; /proc/*/cmdline, owner"
                           : "journalled pid and start time; /proc/*/cmdline, environ, cgroup");
  for (const model::InventoryItem& item : subject.items(model::ItemKind::kProcess)) {
    if (item.identity.empty()) {
      continue;  // never recorded: the walk and the cgroups find it by marker
    }
    const auto id = parse_process_id(item.identity);
    if (!id) {
      look.blind("journalled process " + item.name + ": identity is not pid:start_time");
      continue;
    }
    const auto now = identify(subject.paths().proc, id->pid);
    if (!now.ok()) {
      if (now.error().code() != base::Errc::kNotFound) {
        look.blind(now.error());
      }
      continue;
    }
    if (now->start_time == id->start_time) {  // else the pid is another process by now
      look.found({{model::ItemKind::kProcess, item.name + " " + now->comm, item.identity,
                   now->exiting ? "journalled identity, exiting" : "journalled identity"},
                  now->exiting});
    }
  }
  for (const ClaimedProcess& claimed : pass.walk().processes) {
    if (!subject.is_live(model::ItemKind::kProcess, identity_of(claimed.process))) {
      look.found({{model::ItemKind::kProcess, claimed.process.comm, identity_of(claimed.process), claimed.why},
                  claimed.process.exiting});
    }
  }
  pass.add_walk_failures(look);
  return look;
}

Look look_at_open_files(Pass& pass) {
  Look look("open-file", "/proc/*/{cwd,root,fd}");
  for (const ClaimedFile& file : pass.walk().files) {
    look.found({{model::ItemKind::kFile, file.target, identity_of(file.process),
                 "held by " + file.process.comm + " (pid " + std::to_string(file.process.pid) + ", " + file.via + "): " +
                     file.why},
                file.process.exiting});
  }
  pass.add_walk_failures(look);
  return look;
}

}  // namespace cellrund::residue
