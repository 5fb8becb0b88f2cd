// capacity, drain, undrain, killswitch; and the commands that live in programs of their own: image, residue scan.
#include <unistd.h>

#include "base/file.hpp"
#include "base/process.hpp"
#include "groups.hpp"
#include "model/quantity.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;

// Replaces this process by a helper. The containerd client and the residue probes would make every start of the CLI pay
// for libraries that only these commands need.
// Returns only to say why it could not.
Outcome become(const std::string& program, std::vector<std::string> words, const std::vector<std::string>& environment) {
  words.insert(words.begin(), program);
  (void)::execve(program.c_str(), base::c_strings(words).data(), base::c_strings(environment).data());
  return failed(Error::from_errno("run " + program), "the installation is incomplete, or paths.shim names another folder");
}

Outcome set_draining(const Context& context, bool draining) {
  api::Client client = CR_TRY(context.connect_admin());
  (void)CR_TRY(ask<api::Ack>(client, api::SetDraining{draining}));
  if (context.style().json()) {
    return print(object_text(context.format(), {{"draining", draining}})) ? 0 : kExitOurs;
  }
  return print(draining ? "draining: no new jobs; running ones end\n" : "accepting jobs\n") ? 0 : kExitOurs;
}

// For people: rounded down, as the exact number has ten digits.
std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes >> 20U) + "Mi"; }

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    out += (out.empty() ? "" : " ") + printable(word);
  }
  return out.empty() ? "none" : out;
}

}  // namespace

Outcome capacity(Context& context) {
  api::Client client = CR_TRY(context.connect());
  const api::Capacity c = CR_TRY(ask<api::Capacity>(client, api::GetCapacity{}));
  if (context.style().json()) {
    base::json::Array lanes;
    for (const std::string& lane : c.lanes) {
      lanes.emplace_back(lane);
    }
    const auto of = [](std::uint64_t total, std::uint64_t used) {
      return base::json::Object{{"total", total}, {"used", used}};
    };
    return print(object_text(context.format(),
                             {{"cpuMillis", of(c.cpu_millis_total, c.cpu_millis_used)},
                              {"memoryBytes", of(c.memory_bytes_total, c.memory_bytes_used)},
                              {"cells", base::json::Object{{"total", c.cells_total}, {"used", c.cells_used},
                                                           {"quarantined", c.cells_quarantined}}},
                              {"queue", base::json::Object{{"limit", c.queue_limit}, {"used", c.queued}}},
                              {"draining", c.draining}, {"held", c.held}, {"lanes", std::move(lanes)}, {"accel", c.accel}})) ? 0 : kExitOurs;
  }
  std::string out = table({"RESOURCE", "USED", "TOTAL"},
                          {{"cpu", model::format_cpu_millis(c.cpu_millis_used), model::format_cpu_millis(c.cpu_millis_total)},
                           {"memory", mebibytes(c.memory_bytes_used), mebibytes(c.memory_bytes_total)},
                           {"cells", std::to_string(c.cells_used), std::to_string(c.cells_total)},
                           {"quarantined", std::to_string(c.cells_quarantined), "-"},
                           {"queue", std::to_string(c.queued), std::to_string(c.queue_limit)}});
  out += "lanes: " + joined(c.lanes) + (c.accel.empty() ? "" : " (accel: " + printable(c.accel) + ")") + "\n";
  out += c.held.empty() ? "" : "held: " + printable(c.held, 512) + "\n";
  out += c.draining ? "draining: no new jobs\n" : "";
  return print(out) ? 0 : kExitOurs;
}

Outcome drain(Context& context) { return set_draining(context, true); }
Outcome undrain(Context& context) { return set_draining(context, false); }

Outcome kill_switch(Context& context) {
  api::UseKillSwitch request;
  if (context.command() != "killswitch status") {
    request.action = context.command() == "killswitch engage" ? api::KillSwitchAction::kEngage : api::KillSwitchAction::kRelease;
  }
  api::Client client = CR_TRY(context.connect_admin());
  const api::KillSwitch reply = CR_TRY(ask<api::KillSwitch>(client, request));
  if (context.style().json()) {
    base::json::Array jobs;
    for (const api::KillSwitch::Job& job : reply.jobs) {
      jobs.emplace_back(base::json::Object{{"uid", job.uid}, {"name", job.name}, {"state", model::to_string(job.state)}, {"network", job.network}});
    }
    return print(object_text(context.format(), {{"engaged", reply.engaged}, {"jobs", std::move(jobs)}})) ? 0 : kExitOurs;
  }
  std::vector<std::vector<std::string>> rows;
  for (const api::KillSwitch::Job& job : reply.jobs) {
    rows.push_back({job.uid, printable(job.name), std::string(model::to_string(job.state)), printable(job.network)});
  }
  std::string out = reply.engaged ? "engaged: no cell's packet passes, no job is accepted\n" : "released\n";
  if (!rows.empty()) {
    out += table({"UID", "NAME", "STATE", "NETWORK"}, rows);
  }
  return print(out) ? 0 : kExitOurs;
}

Outcome image(Context& context) {
  const daemon::LoadedConfig loaded = CR_TRY(context.load_config());
  const daemon::Config& config = loaded.config;
  // What the helper needs to know of the configuration, then the user's own words.
  std::vector<std::string> words = {"--containerd", config.containerd.socket,  "--namespace", config.containerd.namespace_,
                                    "--images",     config.paths.state + "/images", "--output",
                                    context.format() == Format::kJson        ? "json"
                                    : context.format() == Format::kJsonLines ? "jsonl"
                                                                             : "table"};
  if (const std::optional<std::string> name = context.arguments().value("name")) {
    words.insert(words.end(), {"--name", *name});
  }
  words.insert(words.end(), {"--", std::string(context.command().substr(context.command().find(' ') + 1))});
  words.insert(words.end(), context.arguments().positional.begin(), context.arguments().positional.end());
  return become(config.paths.shim + "/cellrun-image", std::move(words), context.environment());
}

Outcome residue_scan(Context& context) {
  const daemon::LoadedConfig loaded = CR_TRY(context.load_config());
  std::vector<std::string> words;
  if (const std::string config = context.named_config(); !config.empty()) {
    words.insert(words.end(), {"--config", config});
  }
  if (context.arguments().has("all-tags")) {
    words.emplace_back("--all-tags");
  }
  if (context.style().json()) {
    words.insert(words.end(), {"-o", "json"});
  }
  Outcome outcome = become(loaded.config.paths.shim + "/cellsweep", std::move(words), context.environment());
  outcome.error().exit_code = kExitUntold;
  return outcome;
}

}  // namespace cellrund::cli
