// submit: hand a signed jobspec to the node, stream the job's output, leave with its exit code.
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <limits>

#include "api/frame.hpp"
#include "base/file.hpp"
#include "crypto/keys.hpp"
#include "groups.hpp"
#include "inputs.hpp"
#include "job/parse.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;

// How long a daemon may be away (a restart with its recovery) before the follower gives up. The job is unaffected.
constexpr base::Nanoseconds kReconnectBudget = std::chrono::seconds(60);
constexpr int kReconnectPauseMs = 200;
constexpr base::Nanoseconds kAnswerBudget = std::chrono::seconds(30);

bool has_member(const std::string& text, std::string_view key) {
  const base::Result<base::json::Value> value = base::json::parse(text, {.max_bytes = api::kMaxRequestBytes});
  return value.ok() && value->find(key) != nullptr;
}

// The envelope to submit: the file's own bytes, or the jobspec in it signed with --key.
base::Result<std::string, Failed> envelope_of(const Context& context, const Inputs& inputs) {
  const std::string& path = context.arguments().positional[0];
  std::string text = CR_TRY(read_input(path, api::kMaxRequestBytes - 1024));
  const std::optional<std::string> key_path = context.arguments().value("key");
  if (!key_path) {
    if (has_member(text, "apiVersion")) {
      return misuse("submit: " + printable(path) + " is a jobspec without a signature",
                    "cellrun submit " + printable(path) + " --key KEY signs it first");
    }
    CR_CHECK(check_signed(text, inputs, "submit"));
    return text;  // whatever it is: the node judges it, and its refusal is on record
  }
  if (has_member(text, "payloadType")) {
    return misuse("submit: " + printable(path) + " is signed already", "submit it without --key");
  }
  text = CR_TRY(with_inputs(text, inputs, "submit"));
  if (const auto spec = job::parse_spec(text); !spec) {
    return failed(api::failure_from(spec.error(), {}));
  }
  const base::Result<crypto::PrivateKey> key = crypto::PrivateKey::load(*key_path);
  if (!key) {
    return failed(key.error(), "the key must be a PKCS#8 PEM file that only you can read");
  }
  base::Result<std::string> envelope = job::sign_spec(text, *key);
  if (!envelope) {
    return failed(envelope.error());
  }
  return std::move(*envelope);
}

base::json::Value or_null(const std::optional<int>& number) {
  return number ? base::json::Value(*number) : base::json::Value();
}
base::json::Value or_null(std::string_view text) { return text.empty() ? base::json::Value() : base::json::Value(text); }

base::Status write_result(const Context& context, const api::Job& job) {
  const std::optional<std::string> path = context.arguments().value("result");
  if (!path) {
    return base::ok();
  }
  const base::json::Object result{{"uid", or_null(job.uid)},
                                  {"outcome", to_string(job.state)},
                                  {"jobExitCode", or_null(job.outcome.exit_code)},
                                  {"signal", or_null(job.outcome.signal)},
                                  {"reason", or_null(to_string(job.outcome.reason))},
                                  {"teardown", job.verdict ? base::json::Value(to_string(*job.verdict)) : base::json::Value()},
                                  {"evidenceDigest", or_null(job.evidence_digest)}};
  return base::write_file_atomic(*path, base::json::write(result) + "\n", 0644);
}

// The end of a wait on a connection and on our signals.
enum class Woken { kReadable, kSignal };

Woken wait_for(int fd, int signals) {
  pollfd waits[] = {{signals, POLLIN, 0}, {fd, POLLIN, 0}};
  while (::poll(waits, 2, -1) < 0) {
  }
  return (waits[0].revents & POLLIN) != 0 ? Woken::kSignal : Woken::kReadable;
}

// A connection to a daemon that comes back; nullopt after a signal to us. `signals` may be -1: they then do what they always do.
base::Result<std::optional<api::Client>, Failed> reconnect(const Context& context, const std::string& uid, const Error& cause,
                                                           int signals) {
  const base::Deadline deadline = base::Deadline::after(kReconnectBudget);
  while (!deadline.expired()) {
    pollfd signal{signals, POLLIN, 0};
    if (::poll(&signal, 1, kReconnectPauseMs) > 0) {
      return std::optional<api::Client>();
    }
    base::Result<api::Client, Failed> client = context.connect();
    if (client) {
      return std::optional<api::Client>(std::move(*client));
    }
  }
  Failed lost = uid.empty() ? failed(cause.clone().context("submit"), "whether the job was accepted is not known: submit the same envelope "
                                                                      "again once cellrund is back, it runs once")
                            : failed(cause.clone().context("follow job " + uid),
                                     "the job is not affected: cellrun wait " + uid + " once cellrund is back");
  lost.exit_code = kExitUnreachable;
  return lost;
}

// The daemon's answer to the envelope. The same bytes are the same job, so a daemon that went away before it answered is
// asked again.
base::Result<api::Submitted, Failed> hand_over(const Context& context, api::Client& client, const std::string& envelope) {
  for (;;) {
    base::Result<api::Response> response = client.call(api::Submit{envelope}, base::Deadline::after(kAnswerBudget));
    if (response) {
      return reply_in<api::Submitted>(std::move(*response));
    }
    if (response.error().code() != Errc::kUnavailable) {
      return failed(response.error());
    }
    client = std::move(*CR_TRY(reconnect(context, {}, response.error(), -1)));  // no signals, so there is a client
  }
}

// Follows one job over as many connections as it takes.
class Follower {
 public:
  Follower(const Context& context, std::string uid, int signals)
      : context_(context), uid_(std::move(uid)), signals_(signals) {}

  // The closed job, or nullopt after a signal to us.
  base::Result<std::optional<api::Job>, Failed> follow(api::Client client) {
    for (;;) {
      base::Result<std::optional<api::Job>> job = follow_on(client);
      if (refused_) {
        return std::move(*refused_);
      }
      if (job) {
        return std::move(*job);
      }
      std::optional<api::Client> next = CR_TRY(reconnect(context_, uid_, job.error(), signals_));
      if (!next) {
        return std::optional<api::Job>();
      }
      client = std::move(*next);
    }
  }

 private:
  // An Error is a broken connection.
  base::Result<std::optional<api::Job>> follow_on(api::Client& client) {
    CR_CHECK(client.send(api::Logs{uid_, out_offset_, err_offset_, true}));
    for (;;) {
      if (wait_for(client.fd(), signals_) == Woken::kSignal) {
        return std::optional<api::Job>();
      }
      api::Response response = CR_TRY(client.receive(kAnswerBudget));
      if (auto* chunk = std::get_if<api::LogChunk>(&response)) {
        const bool is_out = chunk->stream == api::Stream::kStdout;
        const base::Status written = base::write_all(is_out ? STDOUT_FILENO : STDERR_FILENO, base::as_bytes(chunk->data));
        if (!written) {
          refused_ = failed(written.error(), "the job goes on: cellrun logs -f " + uid_);
          return std::optional<api::Job>();
        }
        if (chunk->cut) {
          remark(kOutputWasCut);
        } else {
          (is_out ? out_offset_ : err_offset_) = chunk->offset + chunk->data.size();
        }
      } else if (std::holds_alternative<api::End>(response)) {
        break;
      } else if (auto* failure = std::get_if<api::Failure>(&response)) {
        refused_ = failed(std::move(*failure));
        return std::optional<api::Job>();
      }
    }
    CR_CHECK(client.send(api::Get{uid_}));
    api::Response response = CR_TRY(client.receive(kAnswerBudget));
    if (auto* job = std::get_if<api::Job>(&response)) {
      return std::optional<api::Job>(std::move(*job));
    }
    return Error(Errc::kUnavailable, "cellrund answered with something else than a job");
  }

  const Context& context_;
  std::string uid_;
  int signals_;
  std::uint64_t out_offset_ = 0, err_offset_ = 0;
  std::optional<Failed> refused_;
};

// SIGINT and SIGTERM as a descriptor, so that a wait can end in order.
base::Result<base::UniqueFd> take_signals() {
  sigset_t signals;
  (void)sigemptyset(&signals);
  (void)sigaddset(&signals, SIGINT);
  (void)sigaddset(&signals, SIGTERM);
  if (::sigprocmask(SIG_BLOCK, &signals, nullptr) != 0) {
    return Error::from_errno("sigprocmask");
  }
  base::UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!fd) {
    return Error::from_errno("signalfd");
  }
  return fd;
}

// What the exit code alone does not say.
void remark_end(const Context& context, const api::Job& job) {
  const model::Reason reason = job.outcome.reason;
  const bool clean = job.verdict == model::Verdict::kClean;
  if ((reason == model::Reason::kCompleted || reason == model::Reason::kError) && clean) {
    return;
  }
  const std::string hint = reason == model::Reason::kImageNotFound
                               ? "cellrun image ls lists the images of this node, cellrun image import FILE adds one"
                               : "cellrun inspect " + job.uid + ", cellrun evidence show " + job.uid;
  if (context.style().json()) {
    api::Failure failure;
    failure.reason = reason;
    failure.message = job.outcome.message;
    failure.hint = hint;
    failure.uid = job.uid;
    remark(error_text(context.style(), failure));
    return;
  }
  std::string line = "cellrun: job " + job.uid + ": " + std::string(to_string(job.state)) + " " + std::string(to_string(reason));
  if (!job.outcome.message.empty()) {
    line += ": " + printable(job.outcome.message);
  }
  if (job.verdict) {
    line += "; teardown " + std::string(to_string(*job.verdict));
  }
  remark(line + "\nhint: " + hint + "\n");
}

}  // namespace

// Also the end of `wait`.
int exit_code_of(const api::Job& job) {
  std::optional<model::Verdict> verdict = job.verdict;
  if (!verdict && (job.outcome.exit_code || job.outcome.signal)) {
    verdict = model::Verdict::kUnknown;  // something ran, and nobody says that it is gone
  }
  return model::exit_code_for(job.outcome, verdict);
}

Outcome submit(Context& context) {
  const Inputs inputs = CR_TRY(pack_inputs(context));
  const std::string envelope = CR_TRY(envelope_of(context, inputs));
  api::Client client = CR_TRY(context.connect());
  CR_CHECK(upload_inputs(client, inputs));
  base::Result<api::Submitted, Failed> submitted = hand_over(context, client, envelope);
  if (!submitted) {
    if (submitted.error().failure.reason != model::Reason::kNone) {
      api::Job refused;
      refused.uid = submitted.error().failure.uid;
      refused.state = model::State::kRejected;
      refused.outcome.reason = submitted.error().failure.reason;
      if (const base::Status written = write_result(context, refused); !written) {
        remark(error_text(context.style(), failed(written.error()).failure));
      }
    }
    return std::move(submitted).error();
  }
  if (context.arguments().has("detach")) {
    return print(context.style().json() ? object_text(context.format(), {{"uid", submitted->uid},
                                                                         {"alreadyKnown", submitted->already_known}})
                                        : submitted->uid + "\n") ? 0 : kExitOurs;
  }
  const base::Result<base::UniqueFd> signals = take_signals();
  if (!signals) {
    return failed(signals.error());
  }
  Follower follower(context, submitted->uid, signals->get());
  const std::optional<api::Job> job = CR_TRY(follower.follow(std::move(client)));
  if (!job) {
    remark("cellrun: detached: job " + submitted->uid + " goes on\nhint: cellrun logs -f " + submitted->uid +
           ", or cellrun cancel " + submitted->uid + "\n");
    return kExitInterrupted;
  }
  if (const base::Status written = write_result(context, *job); !written) {
    return failed(written.error());
  }
  remark_end(context, *job);
  return exit_code_of(*job);
}

}  // namespace cellrund::cli
