// cellsweep: the residue scan without the daemon. Finds what carries a node's tag and belongs to no live cell, from
// kernel and containerd state, the run folder and a copy of the ledger. Changes nothing.
//
// Exit codes: 0 clean, 3 residue, 4 could not tell, 64 usage.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "../cellrun/arguments.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "daemon/config.hpp"
#include "host/box.hpp"
#include "sweep.hpp"

namespace {

using namespace cellrund;

constexpr int kExitResidue = 3;
constexpr int kExitUnknown = 4;
constexpr int kExitUsage = 64;

constexpr const char* kHelp =
    R"(usage: cellsweep [flags]
Looks for what cells left on this host. Changes nothing. Exit codes: 0 clean, 3 residue, 4 could not tell.
  --config FILE       configuration to take the paths from (default /etc/cellrun/config.toml, if it is there)
  --run-dir DIR       run folder of the node
  --state-dir DIR     state folder of the node; the ledger is in it
  --tag TAG           node tag to look for, 8 hex digits; may be repeated (default: the tags found in both folders)
  --all-tags          every node tag that a cgroup on this host carries, too
  --live UID          a cell that is alive; may be repeated (default: what the ledger says, if a daemon is running)
  --containerd SOCKET socket of the node's containerd, or "none" to leave containerd out
  --timeout SECONDS   1 to 3600, default 60
  -o, --output FORMAT text | json
  -h, --help)";

const std::vector<cli::Flag> kFlags{
    {"config", 0, "FILE", ""},        {"run-dir", 0, "DIR", ""}, {"state-dir", 0, "DIR", ""}, {"tag", 0, "TAG", "", true},
    {"all-tags", 0, "", ""},          {"live", 0, "UID", "", true}, {"containerd", 0, "SOCKET", ""},
    {"timeout", 0, "SECONDS", ""},    {"output", 'o', "FORMAT", ""}, {"help", 'h', "", ""},
};

int misuse(const std::string& message, const std::string& hint) {
  std::fprintf(stderr, "cellsweep: %s\nhint: %s\n", message.c_str(), hint.c_str());
  return kExitUsage;
}

bool is_hex(const std::string& text, std::size_t length) {
  return text.size() == length && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

base::Result<daemon::Config> configuration(const cli::Arguments& arguments) {
  daemon::ConfigInput input;
  if (const auto file = arguments.value("config")) {
    input.file = *file;
    input.file_must_exist = true;
  }
  for (char** variable = ::environ; *variable != nullptr; ++variable) {
    input.environment.emplace_back(*variable);
  }
  if (const auto run = arguments.value("run-dir")) {
    input.environment.push_back("CELLRUN_PATHS_RUN=" + *run);  // so that what is derived from it follows
  }
  if (const auto state = arguments.value("state-dir")) {
    input.environment.push_back("CELLRUN_PATHS_STATE=" + *state);
  }
  return CR_TRY(daemon::load_config(input)).config;
}

cellsweep::Options options_of(const daemon::Config& config, const cli::Arguments& arguments) {
  cellsweep::Options options;
  options.paths.run_dir = config.paths.run;
  options.paths.state_dir = config.paths.state;
  const host::BoxIds boxes;
  constexpr std::int64_t kForeignTaskUids = 256;  // VMMs of tasks that are not ours, above those of our slots
  options.node_uids = {{static_cast<std::uint32_t>(config.lanes.uid_base),
                        static_cast<std::uint32_t>(config.lanes.uid_count + kForeignTaskUids)},
                       {boxes.base, boxes.count}};
  options.ledger = config.paths.state + "/ledger.db";
  options.tags = arguments.values("tag");
  options.live = arguments.values("live");
  options.all_tags = arguments.has("all-tags");
  const std::string socket = arguments.value("containerd").value_or(config.containerd.socket);
  // A node whose containerd never ran has neither its socket nor its root.
  const bool there = base::exists(socket) || base::exists(config.containerd.root) || arguments.has("containerd");
  if (socket != "none" && there) {
    options.paths.containerd = residue::ContainerdPlace{.socket = socket, .state = config.containerd.state,
                                                        .root = config.containerd.root,
                                                        .name_space = config.containerd.namespace_};
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  base::log::init("cellsweep", base::log::Level::kWarn);
  const auto arguments = cli::parse_arguments({argv + 1, argv + argc}, kFlags);
  if (!arguments.ok()) {
    return misuse(arguments.error().message, arguments.error().hint);
  }
  if (arguments->has("help")) {
    std::puts(kHelp);
    return 0;
  }
  const std::string format = arguments->value("output").value_or("text");
  const std::string timeout = arguments->value("timeout").value_or("60");
  if (!arguments->positional.empty() || (format != "text" && format != "json") || timeout.size() > 4 || timeout.empty() ||
      timeout.find_first_not_of("0123456789") != std::string::npos || std::stoi(timeout) < 1 || std::stoi(timeout) > 3600) {
    return misuse("a flag's value is not one of those allowed, or there is a word too many", "cellsweep --help");
  }
  for (const std::string& tag : arguments->values("tag")) {
    if (!is_hex(tag, 8)) {
      return misuse("--tag takes 8 lower-case hex digits", "the tag is in the names of the node's cgroups: /cellrun/TAG");
    }
  }
  const auto config = configuration(*arguments);
  if (!config.ok()) {
    std::fprintf(stderr, "cellsweep: %s\nhint: name the folders with --run-dir and --state-dir\n", config.error().message().c_str());
    return kExitUnknown;
  }
  cellsweep::Options options = options_of(*config, *arguments);
  options.budget = std::chrono::seconds(std::stoi(timeout));
  const cellsweep::Result result = cellsweep::sweep(options);
  const std::string out = format == "json" ? to_json(result) : to_text(result);
  if (!base::write_all(STDOUT_FILENO, base::as_bytes(out)).ok()) {
    return kExitUnknown;
  }
  switch (result.verdict()) {
    case model::Verdict::kClean: return 0;
    case model::Verdict::kResidue: return kExitResidue;
    case model::Verdict::kUnknown: break;
  }
  return kExitUnknown;
}
