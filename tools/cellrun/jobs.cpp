// ps, inspect, wait, logs, events, cancel.
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/file.hpp"
#include "groups.hpp"

namespace cellrund::cli {
namespace {

// A job may be quiet for as long as its deadline is, and deadlines are bounded by days; a daemon that died closes the
// connection.
constexpr base::Nanoseconds kSilence = std::chrono::hours(24 * 30);

Colour colour_of(model::State state) {
  switch (state) {
    case model::State::kSucceeded: return Colour::kGreen;
    case model::State::kFailed: case model::State::kTimedOut: case model::State::kLost: case model::State::kRejected:
      return Colour::kRed;
    case model::State::kCancelled: return Colour::kYellow;
    case model::State::kAccepted: case model::State::kQueued: case model::State::kPreparing: case model::State::kStarting:
    case model::State::kRunning: case model::State::kStopping: case model::State::kTearingDown:
      return Colour::kNone;
  }
  return Colour::kNone;
}

std::string verdict_text(const api::Job& job) { return job.verdict ? std::string(to_string(*job.verdict)) : "-"; }

std::string event_text(const Context& context, const std::string& uid, const model::TimelineEntry& entry) {
  if (context.style().json()) {
    return base::json::write(base::json::Object{{"uid", uid},
                                                {"state", to_string(entry.state)},
                                                {"wallTime", base::format_rfc3339(entry.wall, true)},
                                                {"bootTimeNs", entry.boot.ns},
                                                {"cause", entry.cause}}) + "\n";
  }
  std::string line = base::format_rfc3339(entry.wall, true) + "  ";
  line += paint(to_string(entry.state), colour_of(entry.state), context.style().colour_out);
  return line + (entry.cause.empty() ? "" : "  " + printable(entry.cause)) + "\n";
}

}  // namespace

base::Result<Connected, Failed> connect_to_job(const Context& context) {
  api::Client client = CR_TRY(context.connect());
  std::string uid = CR_TRY(resolve_job(client, context.arguments().positional[0]));
  return Connected{std::move(client), std::move(uid)};
}

base::Result<bool, Failed> stream(api::Client& client, const api::Request& request,
                                  const std::function<bool(api::Response)>& on_item) {
  base::Result<std::optional<api::Failure>> ended = client.stream(request, kSilence, on_item);
  if (!ended) {
    Failed lost = failed(ended.error(), "the job is not affected; try again once cellrund is back");
    lost.exit_code = kExitUnreachable;
    return lost;
  }
  if (*ended) {
    return failed(std::move(**ended));
  }
  return true;
}

Outcome ps(Context& context) {
  constexpr std::uint32_t kAll = 1000;
  api::Client client = CR_TRY(context.connect());
  api::JobList list = CR_TRY(ask<api::JobList>(client, api::List{kAll}));
  if (!context.arguments().has("all")) {
    std::erase_if(list.jobs, [](const api::Job& job) { return job.closed; });
  }
  if (context.style().json()) {
    base::json::Array items;
    for (const api::Job& job : list.jobs) {
      items.emplace_back(job_json(job));
    }
    return print(list_text(context.format(), "jobs", std::move(items))) ? 0 : kExitOurs;
  }
  const bool wide = context.format() == Format::kWide;
  std::vector<std::string> header = {"UID", "NAMESPACE", "NAME", "LANE", "STATE", "REASON", "TEARDOWN"};
  if (wide) {
    header.insert(header.end(), {"OWNER", "IMAGE", "EVIDENCE"});
  }
  std::vector<std::vector<std::string>> rows;
  for (const api::Job& job : list.jobs) {
    std::vector<std::string> row = {printable(job.uid), or_dash(job.tenant), or_dash(job.name), or_dash(job.lane),
                                    std::string(to_string(job.state)), or_dash(to_string(job.outcome.reason)),
                                    verdict_text(job)};
    if (wide) {
      row.insert(row.end(), {std::to_string(job.owner_uid), or_dash(job.image), or_dash(job.evidence_digest)});
    }
    rows.push_back(std::move(row));
  }
  return print(table(header, rows)) ? 0 : kExitOurs;
}

Outcome inspect(Context& context) {
  Connected at = CR_TRY(connect_to_job(context));
  const api::Job job = CR_TRY(ask<api::Job>(at.client, api::Get{at.uid}));
  if (context.style().json()) {
    return print(object_text(context.format(), job_json(job))) ? 0 : kExitOurs;
  }
  std::string out;
  const auto line = [&out](std::string_view name, std::string_view value) {
    if (!value.empty()) {
      out += std::string(name) + std::string(13 - name.size(), ' ') + printable(value) + "\n";
    }
  };
  line("uid", job.uid);
  line("name", job.tenant + "/" + job.name);
  line("lane", job.lane);
  line("image", job.image);
  line("spec", job.spec_digest);
  line("owner", "uid " + std::to_string(job.owner_uid));
  line("state", to_string(job.state));
  line("reason", to_string(job.outcome.reason));
  line("exit code", job.outcome.exit_code ? std::to_string(*job.outcome.exit_code) : "");
  line("signal", job.outcome.signal ? std::to_string(*job.outcome.signal) : "");
  line("message", job.outcome.message);
  line("teardown", job.verdict ? to_string(*job.verdict) : "");
  line("evidence", job.evidence_digest);
  out += "timeline\n";
  for (const model::TimelineEntry& entry : job.timeline) {
    out += "  " + event_text(context, job.uid, entry);
  }
  return print(out) ? 0 : kExitOurs;
}

Outcome wait_job(Context& context) {
  Connected at = CR_TRY(connect_to_job(context));
  std::optional<api::Job> last;
  (void)CR_TRY(stream(at.client, api::Watch{at.uid, 0}, [&](api::Response response) {
    if (auto* job = std::get_if<api::Job>(&response)) {
      last = std::move(*job);
    }
    return true;
  }));
  if (!last || !last->closed) {
    return failed(base::Error(base::Errc::kUnavailable, "wait for " + at.uid + ": cellrund ended the watch"));
  }
  const bool printed =
      context.style().json()
          ? print(object_text(context.format(), job_json(*last)))
          : print(std::string(to_string(last->state)) + " " + or_dash(to_string(last->outcome.reason)) + " " +
                  verdict_text(*last) + "\n");
  return printed ? exit_code_of(*last) : kExitOurs;
}

// Puts a time before each line of one stream: that of the piece in which the line began.
class LineStamper {
 public:
  std::string stamp(std::string_view data, std::int64_t wall_ns) {
    constexpr std::int64_t kSecond = 1'000'000'000;
    const std::string time =
        base::format_rfc3339({wall_ns / kSecond, static_cast<std::int32_t>(wall_ns % kSecond)}, true) + " ";
    std::string out;
    while (!data.empty()) {
      const std::size_t line = std::min(data.size(), data.find('\n') == std::string_view::npos ? data.size() : data.find('\n') + 1);
      out += at_start_ ? time : "";
      out += data.substr(0, line);
      at_start_ = data[line - 1] == '\n';
      data.remove_prefix(line);
    }
    return out;
  }

 private:
  bool at_start_ = true;
};

Outcome logs(Context& context) {
  Connected at = CR_TRY(connect_to_job(context));
  const bool only_out = context.arguments().has("stdout");
  const bool only_err = context.arguments().has("stderr");
  if (only_out && only_err) {
    return misuse("logs: --stdout and --stderr contradict each other", "without either both come");
  }
  const bool timestamps = context.arguments().has("timestamps");
  LineStamper out_lines, err_lines;
  base::Status written = base::ok();
  bool cut = false;
  const api::Logs request{at.uid, 0, 0, context.arguments().has("follow"), timestamps};
  (void)CR_TRY(stream(at.client, request, [&](api::Response response) {
    if (const auto* chunk = std::get_if<api::LogChunk>(&response)) {
      const bool is_out = chunk->stream == api::Stream::kStdout;
      cut = cut || chunk->cut;
      if (is_out ? !only_err : !only_out) {
        const std::string stamped = timestamps ? (is_out ? out_lines : err_lines).stamp(chunk->data, chunk->wall_ns) : "";
        written = base::write_all(is_out ? STDOUT_FILENO : STDERR_FILENO, base::as_bytes(timestamps ? stamped : chunk->data));
      }
    }
    return written.ok();
  }));
  if (cut) {
    remark(kOutputWasCut);
  }
  return written ? Outcome(0) : Outcome(failed(written.error()));
}

Outcome events(Context& context) {
  Connected at = CR_TRY(connect_to_job(context));
  std::size_t shown = 0;
  bool printed = true;
  const auto show = [&](const api::Job& job) {
    for (; shown < job.timeline.size() && printed; ++shown) {
      printed = print(event_text(context, job.uid, job.timeline[shown]));
    }
  };
  if (!context.arguments().has("follow")) {
    show(CR_TRY(ask<api::Job>(at.client, api::Get{at.uid})));
    return printed ? 0 : kExitOurs;
  }
  (void)CR_TRY(stream(at.client, api::Watch{at.uid, 0}, [&](api::Response response) {
    if (const auto* job = std::get_if<api::Job>(&response)) {
      show(*job);
    }
    return printed;
  }));
  return printed ? 0 : kExitOurs;
}

Outcome cancel(Context& context) {
  Connected at = CR_TRY(connect_to_job(context));
  (void)CR_TRY(ask<api::Ack>(at.client, api::Cancel{at.uid}));
  return print(context.style().json() ? object_text(context.format(), {{"uid", at.uid}}) : at.uid + "\n") ? 0 : kExitOurs;
}

}  // namespace cellrund::cli
