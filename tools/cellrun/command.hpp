// What a command is, and what it gets. Commands are listed in commands.cpp; each group lives in a file of its own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/client.hpp"
#include "arguments.hpp"
#include "base/result.hpp"
#include "daemon/config.hpp"
#include "output.hpp"

namespace cellrund::cli {

// Why a command could not do its work, and what the process exits with.
struct Failed {
  api::Failure failure;
  int exit_code = 125;
};

// The codes of cellrun-exit-codes(7).
inline constexpr int kExitFound = 3;        // residue, audit, evidence verify, doctor: found something
inline constexpr int kExitUntold = 4;       // … could not tell
inline constexpr int kExitUsage = 64;
inline constexpr int kExitUnreachable = 69;
inline constexpr int kExitDenied = 77;
inline constexpr int kExitOurs = 125;       // cellrun itself failed
inline constexpr int kExitInterrupted = 130;

[[nodiscard]] Failed failed(const base::Error& error, std::string hint = {});
[[nodiscard]] Failed failed(api::Failure failure);
[[nodiscard]] Failed misuse(std::string message, std::string hint);

// An exit code, or why there is none.
using Outcome = base::Result<int, Failed>;

class Context {
 public:
  Context(std::string_view command, Arguments arguments, Style style, std::string config_file, bool config_must_exist,
          std::vector<std::string> environment)
      : command_(command), arguments_(std::move(arguments)), style_(style), config_file_(std::move(config_file)),
        config_must_exist_(config_must_exist), environment_(std::move(environment)) {}

  // The command's own name, such as "image import".
  [[nodiscard]] std::string_view command() const noexcept { return command_; }
  [[nodiscard]] const Arguments& arguments() const noexcept { return arguments_; }
  [[nodiscard]] const Style& style() const noexcept { return style_; }
  [[nodiscard]] Format format() const noexcept { return style_.format; }
  [[nodiscard]] const std::vector<std::string>& environment() const noexcept { return environment_; }
  // The configuration file that was named by flag or environment; empty: the default one.
  [[nodiscard]] std::string named_config() const { return config_must_exist_ ? config_file_ : std::string(); }

  base::Result<daemon::LoadedConfig, Failed> load_config() const;
  // --socket, or else the configured one.
  base::Result<std::string, Failed> socket_path() const;
  base::Result<api::Client, Failed> connect() const;
  base::Result<api::Client, Failed> connect_admin() const;

 private:
  std::string_view command_;
  Arguments arguments_;
  Style style_;
  std::string config_file_;
  bool config_must_exist_;
  std::vector<std::string> environment_;
};

struct Command {
  std::string_view name;      // "submit", "image import"
  std::string_view synopsis;  // what follows the name: "JOBSPEC [-d] [--key KEY]"
  std::string_view summary;   // one line
  std::size_t min_arguments = 0, max_arguments = 0;
  std::vector<Flag> flags;    // besides the global ones
  Outcome (*run)(Context&);
};

// All of them, in the order of the help.
[[nodiscard]] const std::vector<Command>& commands();
// -o, --json, --config, --socket, --help
[[nodiscard]] const std::vector<Flag>& global_flags();

// The one response type that was asked for, or what the daemon said instead.
template <typename Reply>
base::Result<Reply, Failed> reply_in(api::Response response) {
  if (auto* failure = std::get_if<api::Failure>(&response)) {
    return failed(std::move(*failure));
  }
  if (auto* reply = std::get_if<Reply>(&response)) {
    return std::move(*reply);
  }
  return failed(base::Error(base::Errc::kUnknown, "cellrund answered with something else"),
                "cellrun and cellrund may be of different versions: cellrun version");
}

template <typename Reply>
base::Result<Reply, Failed> ask(api::Client& client, const api::Request& request,
                                base::Nanoseconds budget = std::chrono::seconds(30)) {
  base::Result<api::Response> response = client.call(request, base::Deadline::after(budget));
  if (!response) {
    return failed(response.error());
  }
  return reply_in<Reply>(std::move(*response));
}

// What a user wrote for a job: a whole uid, a unique beginning of one, or a unique name.
base::Result<std::string, Failed> resolve_job(api::Client& client, const std::string& text);
[[nodiscard]] base::json::Object job_json(const api::Job& job);

// A file, or stdin for "-"; at most `limit` bytes.
base::Result<std::string, Failed> read_input(const std::string& path, std::size_t limit);

// Of our own program: parse, run, report. Returns the exit code.
int run_cli(const std::vector<std::string>& words, const std::vector<std::string>& environment);

}  // namespace cellrund::cli
