// What every command shares: configuration, connection, jobs by name, failures.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.hpp"
#include "command.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;

constexpr base::Nanoseconds kConnectBudget = std::chrono::seconds(5);
constexpr std::size_t kUidLength = 36;

base::Result<api::Client, Failed> connect_to(const std::string& path) {
  base::Result<api::Client> client = api::Client::connect(path, base::Deadline::after(kConnectBudget));
  if (client) {
    return std::move(*client);
  }
  const Errc code = client.error().code();
  if (code == Errc::kPermissionDenied) {
    Failed denied = failed(client.error(), "run as root, or as a member of the group cellrun");
    denied.exit_code = kExitDenied;
    return denied;
  }
  Failed unreachable =
      failed(client.error(), "start it: systemctl start cellrund, or cellrund; cellrun doctor finds out what is wrong");
  unreachable.exit_code = code == Errc::kInvalidArgument ? kExitUsage : kExitUnreachable;
  return unreachable;
}

}  // namespace

Failed failed(const base::Error& error, std::string hint) {
  Failed out{api::failure_from(error), kExitOurs};
  out.failure.hint = std::move(hint);
  return out;
}

Failed failed(api::Failure failure) {
  Failed out{std::move(failure), kExitOurs};
  if (out.failure.reason != model::Reason::kNone) {
    model::Outcome outcome;
    outcome.reason = out.failure.reason;
    outcome.state = model::terminal_state(outcome.reason);
    out.exit_code = model::exit_code_for(outcome, std::nullopt);
  } else if (out.failure.code == Errc::kPermissionDenied) {
    out.exit_code = kExitDenied;
  } else if (out.failure.code == Errc::kNotFound && out.failure.hint.empty()) {
    out.failure.hint = "cellrun ps -a lists the jobs of this node";
  }
  return out;
}

Failed misuse(std::string message, std::string hint) {
  Failed out;
  out.failure.code = Errc::kInvalidArgument;
  out.failure.message = std::move(message);
  out.failure.hint = std::move(hint);
  out.exit_code = kExitUsage;
  return out;
}

base::Result<daemon::LoadedConfig, Failed> Context::load_config() const {
  base::Result<daemon::LoadedConfig> loaded = daemon::load_config({config_file_, config_must_exist_, environment_});
  if (!loaded) {
    return failed(std::move(loaded).error().context("configuration"), "cellrun config default prints every key");
  }
  return std::move(*loaded);
}

base::Result<std::string, Failed> Context::socket_path() const {
  if (std::optional<std::string> path = arguments_.value("socket")) {
    return std::move(*path);
  }
  const daemon::LoadedConfig loaded = CR_TRY(load_config());
  return loaded.config.paths.socket;
}

base::Result<api::Client, Failed> Context::connect() const { return connect_to(CR_TRY(socket_path())); }

base::Result<api::Client, Failed> Context::connect_admin() const {
  if (const std::optional<std::string> path = arguments_.value("socket")) {
    return connect_to(*path);
  }
  const daemon::LoadedConfig loaded = CR_TRY(load_config());
  return connect_to(loaded.config.paths.admin_socket);
}

base::Result<std::string, Failed> resolve_job(api::Client& client, const std::string& text) {
  if (text.size() == kUidLength) {
    return text;
  }
  constexpr std::uint32_t kAll = 1000;
  const api::JobList list = CR_TRY(ask<api::JobList>(client, api::List{kAll}));
  std::vector<std::string> matches;
  for (const api::Job& job : list.jobs) {
    if (!text.empty() && (job.uid.starts_with(text) || job.name == text)) {
      matches.push_back(job.uid);
    }
  }
  if (matches.size() == 1) {
    return matches.front();
  }
  api::Failure failure;
  failure.code = matches.empty() ? Errc::kNotFound : Errc::kInvalidArgument;
  failure.message = "job " + printable(text, kUidLength) + ": " +
                    (matches.empty() ? "no such job on this node"
                                     : std::to_string(matches.size()) + " jobs have this name or beginning");
  failure.hint = matches.empty() ? "" : "write the whole uid: " + matches[0] + " or " + matches[1];
  Failed out = failed(std::move(failure));
  if (!matches.empty()) {
    out.exit_code = kExitUsage;
  }
  return out;
}

base::json::Object job_json(const api::Job& job) {
  base::json::Object out{{"uid", job.uid},       {"name", job.name}, {"namespace", job.tenant}, {"lane", job.lane},
                         {"ownerUid", job.owner_uid}, {"state", to_string(job.state)}};
  if (job.outcome.reason != model::Reason::kNone) {
    out.set("reason", to_string(job.outcome.reason));
  }
  if (job.verdict) {
    out.set("teardown", to_string(*job.verdict));
  }
  out.set("closed", job.closed);
  if (job.foreign) {
    out.set("foreign", true);
    return out;
  }
  out.set("image", job.image);
  out.set("specDigest", job.spec_digest);
  if (job.outcome.exit_code) {
    out.set("jobExitCode", *job.outcome.exit_code);
  }
  if (job.outcome.signal) {
    out.set("signal", *job.outcome.signal);
  }
  if (!job.outcome.message.empty()) {
    out.set("message", job.outcome.message);
  }
  if (!job.evidence_digest.empty()) {
    out.set("evidenceDigest", job.evidence_digest);
  }
  if (!job.timeline.empty()) {
    base::json::Array timeline;
    for (const model::TimelineEntry& entry : job.timeline) {
      timeline.emplace_back(base::json::Object{{"state", to_string(entry.state)},
                                               {"wallTime", base::format_rfc3339(entry.wall, true)},
                                               {"bootTimeNs", entry.boot.ns},
                                               {"cause", entry.cause}});
    }
    out.set("timeline", std::move(timeline));
  }
  return out;
}

base::Result<std::string, Failed> read_input(const std::string& path, std::size_t limit) {
  base::Result<std::string> content =
      path == "-" ? base::read_fd(STDIN_FILENO, limit).context("read stdin") : base::read_file(path, limit);
  if (!content) {
    return failed(content.error(), "FILE is the path of a readable file of at most " + std::to_string(limit) +
                                       " bytes; - reads standard input");
  }
  return std::move(*content);
}

}  // namespace cellrund::cli
