// A keeper and a containerd of the test's own, below one temporary folder that is gone at the end with everything in
// it.
#pragma once

#include <doctest/doctest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "base/file.hpp"
#include "base/process.hpp"
#include "containerd/client.hpp"
#include "daemon/keeper/start.hpp"

namespace cellrund::test {

using namespace std::chrono_literals;

inline base::Deadline in(base::Nanoseconds budget) {
  return base::Deadline::after(budget);
}

template <typename T>
std::string why(const base::Result<T>& result) {
  return result.ok() ? "" : result.error().message();
}

class Node {
 public:
  Node() {
    std::string pattern = "/tmp/ctrd-test-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    dir = pattern;
    config.run_dir = dir + "/run";
    config.root = dir + "/root";
    config.state = dir + "/state";
    config.socket = dir + "/run/containerd.sock";
    config.shim_dir = "/usr/bin";
    start();
    auto made = containerd::Client::create(config.socket, "cellrun-test");
    REQUIRE_MESSAGE(made.ok(), why(made));
    client.emplace(std::move(*made));
    REQUIRE(client->wait_ready(in(20s)).ok());
    REQUIRE(client->ensure_namespace(in(10s)).ok());
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node() {
    client.reset();
    const auto stopped = daemon::keeper::stop_keeper(config.run_dir, in(40s));
    CHECK_MESSAGE(stopped.ok(), why(stopped));
    if (kept.started) {
      (void)kept.keeper.reap(in(5s));
    }
    CHECK_FALSE(base::exists(config.socket));
    CHECK(processes_naming(dir).empty());
    CHECK(read("/proc/self/mountinfo").find(dir) == std::string::npos);
    std::filesystem::remove_all(dir);
  }

  void start() {
    auto ensured = daemon::keeper::ensure_keeper(::secure_getenv("CELLRUN_KEEPER"), config, in(60s));
    REQUIRE_MESSAGE(ensured.ok(), why(ensured));
    kept = std::move(*ensured);
  }
  // The published state once it is of another generation than `old`.
  daemon::keeper::ContainerdState await_generation_after(std::uint64_t old) {
    const auto deadline = in(120s);
    for (;;) {
      auto state = daemon::keeper::read_containerd_state(config.run_dir);
      if (state.ok() && state->generation > old) {
        return *state;
      }
      REQUIRE_FALSE(deadline.expired());
      (void)base::wait_readable(kept.keeper.fd(), in(50ms));
    }
  }

  static std::string read(const std::string& path) {
    const std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file.rdbuf()), {}};
  }
  // Command lines that mention `text`, other than ours.
  static std::vector<std::string> processes_naming(const std::string& text) {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string pid = entry.path().filename();
      if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(::getpid())) {
        continue;
      }
      std::string line = read(entry.path() / "cmdline");
      if (line.find(text) != std::string::npos) {
        out.push_back(std::move(line));
      }
    }
    return out;
  }

  std::string dir;
  daemon::keeper::Config config;
  daemon::keeper::Kept kept;
  std::optional<containerd::Client> client;
};

}  // namespace cellrund::test
