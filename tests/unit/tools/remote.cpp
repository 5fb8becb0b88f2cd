// The command line against a server with a node in memory.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/file.hpp"
#include "command.hpp"
#include "daemon/server.hpp"
#include "fake_node.hpp"

using namespace cellrund;
using daemon_test::FakeNode;
using daemon_test::kMine;
using daemon_test::kOther;

namespace {

struct Ran {
  int exit_code = 0;
  std::string out, err;
};

// A node, its sockets in a folder, and the CLI pointed at them.
class Bench {
 public:
  Bench() {
    std::string pattern = "/tmp/cellrun-remote-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    start();
  }
  ~Bench() {
    stop();
    if (const auto names = base::list_dir(path_, 100); names.ok()) {
      for (const std::string& name : *names) {
        (void)base::remove_file(path_ + "/" + name);
      }
    }
    (void)base::remove_dir(path_);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  Bench(Bench&&) = delete;
  Bench& operator=(Bench&&) = delete;

  void start() {
    daemon::ServerOptions options;
    options.socket = path_ + "/cellrund.sock";
    options.admin_socket = path_ + "/admin.sock";
    options.version = CELLRUN_VERSION;
    options.node_id = "node-1";
    server_ = daemon::Server::start(std::move(options), node).value();
  }
  void stop() { server_.reset(); }

  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] std::string write(const std::string& name, const std::string& content) const {
    CR_ASSERT(base::write_file_atomic(file(name), content, 0600).ok());
    return file(name);
  }
  [[nodiscard]] Ran run(const std::vector<std::string>& words) const {
    const std::array<std::string, 2> paths = {file("stdout"), file("stderr")};
    std::array<int, 2> saved{};
    for (int i = 0; i < 2; ++i) {
      const base::UniqueFd captured = base::open_file(paths[i], O_WRONLY | O_CREAT | O_TRUNC, 0600).value();
      saved[i] = ::fcntl(i + 1, F_DUPFD_CLOEXEC, 10);
      REQUIRE(::dup2(captured.get(), i + 1) == i + 1);
    }
    Ran ran;
    ran.exit_code = cli::run_cli(words, {"CELLRUN_PATHS_RUN=" + path_});
    for (int i = 0; i < 2; ++i) {
      REQUIRE(::dup2(saved[i], i + 1) == i + 1);
      REQUIRE(::close(saved[i]) == 0);
    }
    ran.out = base::read_file(paths[0], std::size_t{16} << 20U).value();
    ran.err = base::read_file(paths[1], std::size_t{16} << 20U).value();
    return ran;
  }

  FakeNode node;

 private:
  std::string path_;
  std::unique_ptr<daemon::Server> server_;
};

// What a job of this node does once it is submitted.
template <typename F>
std::jthread when_submitted(FakeNode& node, F then) {
  return std::jthread([&node, then] {
    const base::Deadline deadline = base::Deadline::after(std::chrono::seconds(20));
    while (!node.get(kMine, std::nullopt) && !deadline.expired()) {
      std::this_thread::yield();
    }
    then();
  });
}

void finish(FakeNode& node, model::State state, model::Reason reason, std::optional<int> code) {
  node.change([&](FakeNode::State& all) {
    cell::JobView& view = all.jobs[kMine].view;
    view.state = state;
    view.outcome = {state, reason, code, std::nullopt, ""};
    view.verdict = model::Verdict::kClean;
    view.evidence_digest = "sha256:ee";
    view.closed = true;
    ++view.version;
  });
}

}  // namespace

TEST_CASE("submit streams the job's output byte for byte and leaves with its exit code") {
  Bench bench;
  const std::string bytes("out\0\xff\r\n", 7);
  const std::jthread job = when_submitted(bench.node, [&] {
    bench.node.change([&](FakeNode::State& all) {
      all.jobs[kMine].out = bytes;
      all.jobs[kMine].err = "err\n";
    });
    finish(bench.node, model::State::kFailed, model::Reason::kError, 7);
  });
  const Ran ran = bench.run({"submit", bench.write("e", "envelope"), "--result", bench.file("result.json")});
  CHECK(ran.exit_code == 7);
  CHECK(ran.out == bytes);
  CHECK(ran.err == "err\n");
  CHECK(base::read_file(bench.file("result.json"), 4096).value() ==
        "{\"uid\":\"" + kMine + "\",\"outcome\":\"FAILED\",\"jobExitCode\":7,\"signal\":null,\"reason\":\"Error\","
        "\"teardown\":\"CLEAN\",\"evidenceDigest\":\"sha256:ee\"}\n");
}

TEST_CASE("submit says what an exit code alone does not") {
  Bench bench;
  const std::jthread job = when_submitted(
      bench.node, [&] { finish(bench.node, model::State::kTimedOut, model::Reason::kDeadlineExceeded, std::nullopt); });
  const Ran ran = bench.run({"submit", bench.write("e", "envelope")});
  CHECK(ran.exit_code == 124);
  CHECK(ran.err.starts_with("cellrun: job " + kMine + ": TIMED_OUT DeadlineExceeded; teardown CLEAN\nhint: "));
}

TEST_CASE("submit -d prints the uid alone") {
  Bench bench;
  const Ran ran = bench.run({"submit", "-d", bench.write("e", "envelope")});
  CHECK(ran.exit_code == 0);
  CHECK(ran.out == kMine + "\n");
  CHECK(ran.err.empty());
}

TEST_CASE("a refusal has its reason, hint, field, exit code and result file") {
  Bench bench;
  const Ran ran = bench.run({"submit", bench.write("e", "refuse"), "--result", bench.file("result.json")});
  CHECK(ran.exit_code == 77);
  CHECK(ran.out.empty());
  CHECK(ran.err == "cellrun: metadata.expiresAt: the jobspec expired (Expired)\nhint: sign a new one\n");
  CHECK(base::read_file(bench.file("result.json"), 4096).value().find("\"outcome\":\"REJECTED\",") != std::string::npos);
}

TEST_CASE("submit lives through a restart of the daemon and repeats no byte") {
  Bench bench;
  const std::jthread job = when_submitted(bench.node, [&] {
    bench.node.change([](FakeNode::State& all) { all.jobs[kMine].out = "before "; });
    bench.stop();
    bench.node.change([](FakeNode::State& all) { all.jobs[kMine].out += "after"; });
    bench.start();
    finish(bench.node, model::State::kSucceeded, model::Reason::kCompleted, 0);
  });
  const Ran ran = bench.run({"submit", bench.write("e", "envelope")});
  CHECK(ran.exit_code == 0);
  CHECK(ran.out == "before after");
}

TEST_CASE("ps, inspect, wait, logs and events show a job") {
  Bench bench;
  bench.node.add(kMine, ::geteuid());
  bench.node.add(kOther, ::geteuid());
  bench.node.change([](FakeNode::State& all) { all.jobs[kMine].out = "hello\n"; all.jobs[kMine].err = "oops\n"; });
  finish(bench.node, model::State::kSucceeded, model::Reason::kCompleted, 0);

  CHECK(bench.run({"ps"}).out.find(kMine) == std::string::npos);
  CHECK(bench.run({"ps"}).out.find(kOther) != std::string::npos);
  const Ran all = bench.run({"ps", "-a", "-o", "wide"});
  CHECK(all.out.starts_with("UID "));
  CHECK(all.out.find("registry.example/x@sha256:00") != std::string::npos);
  CHECK(bench.run({"ps", "-a", "-o", "jsonl"}).out.starts_with("{\"uid\":\"" + kMine + "\""));
  CHECK(bench.run({"inspect", kMine, "--json"}).out.find("\"jobExitCode\": 0") != std::string::npos);
  CHECK(bench.run({"inspect", kMine}).out.find("teardown     CLEAN\n") != std::string::npos);
  const Ran waited = bench.run({"wait", kMine});
  CHECK(waited.exit_code == 0);
  CHECK(waited.out == "SUCCEEDED Completed CLEAN\n");
  const Ran logs = bench.run({"logs", kMine});
  CHECK(logs.out == "hello\n");
  CHECK(logs.err == "oops\n");
  CHECK(bench.run({"logs", kMine, "--stderr"}).out.empty());
  CHECK(bench.run({"events", kMine}).out == "2023-11-14T22:13:20.000Z  ACCEPTED\n");
  CHECK(bench.run({"events", "-f", kMine}).out == "2023-11-14T22:13:20.000Z  ACCEPTED\n");
}

TEST_CASE("a job may be named by a unique beginning, and an ambiguous one is not guessed") {
  Bench bench;
  bench.node.add(kMine, ::geteuid());
  bench.node.add(kOther, ::geteuid());
  CHECK(bench.run({"inspect", kMine.substr(0, 8)}).exit_code == 64);
  CHECK(bench.run({"inspect", "nothing"}).err.find("no such job on this node (NotFound)") != std::string::npos);
  bench.node.change([](FakeNode::State& all) { all.jobs[kOther].view.name = "the-one"; });
  CHECK(bench.run({"inspect", "the-one", "-o", "jsonl"}).out.starts_with("{\"uid\":\"" + kOther));
}

TEST_CASE("cancel, drain, undrain, capacity, flows and evidence export reach the node") {
  Bench bench;
  bench.node.add(kMine, ::geteuid());
  CHECK(bench.run({"cancel", kMine}).out == kMine + "\n");
  CHECK(bench.node.snapshot().jobs[kMine].cancelled);
  CHECK(bench.run({"drain"}).exit_code == 0);
  CHECK(bench.run({"capacity", "--json"}).out.find("\"draining\": true") != std::string::npos);
  CHECK(bench.run({"undrain"}).exit_code == 0);
  CHECK_FALSE(bench.node.snapshot().draining);
  CHECK(bench.run({"capacity"}).out.find("lanes: none") != std::string::npos);
  CHECK(bench.run({"flows", kMine}).out.find("accounting: seen 0") != std::string::npos);
  const Ran early = bench.run({"evidence", "export", kMine});
  CHECK(early.exit_code == 125);
  CHECK(early.err.find("not sealed yet (FailedPrecondition)") != std::string::npos);
  finish(bench.node, model::State::kSucceeded, model::Reason::kCompleted, 0);
  CHECK(bench.run({"evidence", "export", kMine}).out == "{}\n");
  CHECK(bench.run({"version"}).out == "cellrun  " CELLRUN_VERSION "\ncellrund " CELLRUN_VERSION "\n");
}

TEST_CASE("flows selects by verdict, sums up, follows to the end, and prints nothing raw") {
  Bench bench;
  bench.node.add(kMine, ::geteuid());
  bench.node.change([](FakeNode::State& all) {
    all.jobs[kMine].egress.decisions = {{1, 2, 6, "198.51.100.7", 443, "denied", "default-deny", 4},
                                        {2, 3, 6, "192.0.2.7", 443, "allowed", "allowed", 1},
                                        {3, 1'000'000'001, 17, "\x1b[31m", 53, "denied", "default-deny", 90}};
  });
  const auto lines = [](const std::string& text) { return std::count(text.begin(), text.end(), '\n'); };
  CHECK(lines(bench.run({"flows", kMine}).out) == 5);  // with header and accounting
  CHECK(lines(bench.run({"flows", kMine, "--verdict", "allowed"}).out) == 3);
  const Ran top = bench.run({"flows", kMine, "--top=1", "-o", "jsonl"});
  CHECK(lines(top.out) == 1);
  CHECK(top.out.find("\"count\":90") != std::string::npos);
  CHECK(lines(bench.run({"flows", kMine, "--top"}).out) == 5);
  finish(bench.node, model::State::kSucceeded, model::Reason::kCompleted, 0);
  const Ran followed = bench.run({"flows", kMine, "-f", "--verdict=denied"});
  CHECK(followed.exit_code == 0);
  CHECK(followed.out ==
        "2023-11-14T22:13:20.000Z  denied  default-deny  tcp  198.51.100.7:443  4\n"
        "2023-11-14T22:13:21.000Z  denied  default-deny  udp  \\x1b[31m:53  90\n");
  CHECK(bench.run({"flows", kMine, "-f", "--verdict=allowed", "--json"}).out ==
        "{\"time\":\"2023-11-14T22:13:20.000Z\",\"bootTimeNs\":3,\"proto\":\"tcp\",\"dst\":\"192.0.2.7\",\"port\":443,"
        "\"verdict\":\"allowed\",\"reason\":\"allowed\",\"count\":1}\n");
}

TEST_CASE("flows refuses what it does not understand") {
  const Bench bench;
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {"flows", kMine, "--verdict", "dropped"}, {"flows", kMine, "--top=0"}, {"flows", kMine, "--top=1001"},
           {"flows", kMine, "--top=5x"}, {"flows", kMine, "--top="}, {"flows", kMine, "--top", "5"},
           {"flows", kMine, "-f", "--top"}, {"flows"}}) {
    CAPTURE(words.back());
    const Ran ran = bench.run(words);
    CHECK(ran.exit_code == 64);
    CHECK(ran.err.find("hint:") != std::string::npos);
    CHECK(ran.out.empty());
  }
}
