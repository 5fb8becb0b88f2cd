#include "daemon/keeper/state.hpp"

#include "base/file.hpp"
#include "base/json.hpp"

namespace cellrund::daemon::keeper {
namespace {

namespace json = base::json;
constexpr std::size_t kMaxFile = 16 * 1024;

base::Error malformed(const std::string& path) {
  return base::Error(base::Errc::kDataLoss, path + ": malformed");
}

const std::int64_t* positive(const json::Value& value, std::string_view key) {
  const json::Value* found = value.find(key);
  const std::int64_t* number = found == nullptr ? nullptr : found->as_int();
  return number != nullptr && *number > 0 ? number : nullptr;
}

bool read_process(const json::Value& value, base::ProcessId& out) {
  const std::int64_t* pid = positive(value, "pid");
  const std::int64_t* start_time = positive(value, "startTime");
  if (pid == nullptr || start_time == nullptr || *pid > INT32_MAX) {
    return false;
  }
  out = base::ProcessId{static_cast<pid_t>(*pid), static_cast<std::uint64_t>(*start_time)};
  return true;
}

}  // namespace

std::string containerd_state_path(const std::string& run_dir) {
  return run_dir + "/containerd.json";
}
std::string lock_path(const std::string& run_dir) {
  return run_dir + "/keeper.lock";
}

std::string encode(const ContainerdState& state) {
  return json::write(json::Object{{"pid", static_cast<std::int64_t>(state.process.pid)},
                                  {"startTime", state.process.start_time},
                                  {"socket", state.socket},
                                  {"generation", state.generation}}) +
         "\n";
}

std::string encode(const KeeperState& state) {
  json::Array arguments;
  for (const std::string& argument : state.arguments) {
    arguments.emplace_back(argument);
  }
  return json::write(json::Object{{"pid", static_cast<std::int64_t>(state.process.pid)},
                                  {"startTime", state.process.start_time},
                                  {"arguments", std::move(arguments)}}) +
         "\n";
}

base::Result<ContainerdState> decode_containerd_state(std::string_view text, const std::string& where) {
  const json::Value value = CR_TRY(json::parse(text, json::Limits{}).context(where));
  ContainerdState out;
  const json::Value* socket = value.find("socket");
  const std::int64_t* generation = positive(value, "generation");
  if (!read_process(value, out.process) || socket == nullptr || socket->as_string() == nullptr ||
      generation == nullptr) {
    return malformed(where);
  }
  out.socket = *socket->as_string();
  out.generation = static_cast<std::uint64_t>(*generation);
  return out;
}

base::Result<ContainerdState> read_containerd_state(const std::string& run_dir) {
  const std::string path = containerd_state_path(run_dir);
  return decode_containerd_state(CR_TRY(base::read_file(path, kMaxFile)), path);
}

base::Result<KeeperState> read_keeper_state(const std::string& run_dir) {
  const std::string path = lock_path(run_dir);
  const std::string text = CR_TRY(base::read_file(path, kMaxFile));
  const json::Value value = CR_TRY(json::parse(text, json::Limits{}).context(path));
  KeeperState out;
  const json::Value* arguments = value.find("arguments");
  if (!read_process(value, out.process) || arguments == nullptr || arguments->as_array() == nullptr) {
    return malformed(path);
  }
  for (const json::Value& argument : *arguments->as_array()) {
    if (argument.as_string() == nullptr) {
      return malformed(path);
    }
    out.arguments.push_back(*argument.as_string());
  }
  return out;
}

}  // namespace cellrund::daemon::keeper
