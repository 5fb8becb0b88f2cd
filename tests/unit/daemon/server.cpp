// The sockets themselves: how they appear, whom they let in, and that no client holds up another.
#include "daemon/server.hpp"

#include <doctest/doctest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "api/client.hpp"
#include "api/frame.hpp"
#include "base/file.hpp"
#include "daemon/listen.hpp"
#include "fake_node.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using daemon_test::FakeNode;
using daemon_test::kMine;

namespace {

class Run {
 public:
  Run() {
    std::string pattern = "/tmp/cellrun-server-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Run() {
    if (const auto names = base::list_dir(path_, 100); names.ok()) {
      for (const std::string& name : *names) {
        (void)base::remove_file(path_ + "/" + name);
      }
    }
    (void)base::remove_dir(path_);
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  Run(Run&&) = delete;
  Run& operator=(Run&&) = delete;

  [[nodiscard]] std::string socket() const { return path_ + "/cellrund.sock"; }
  [[nodiscard]] std::string admin() const { return path_ + "/admin.sock"; }
  [[nodiscard]] daemon::ServerOptions options() const {
    daemon::ServerOptions options;
    options.socket = socket();
    options.admin_socket = admin();
    options.version = "1.2.3";
    options.node_id = "node-1";
    return options;
  }

 private:
  std::string path_;
};

api::Client connect(const std::string& path) { return api::Client::connect(path, base::Deadline::after(5s)).value(); }

bool answers(api::Client& client) {
  const auto response = client.call(api::Ping{}, base::Deadline::after(5s));
  return response.ok() && std::holds_alternative<api::Pong>(*response);
}

unsigned mode_of(const std::string& path) {
  struct stat st {};
  REQUIRE(::lstat(path.c_str(), &st) == 0);
  return st.st_mode & 07777U;
}

}  // namespace

TEST_CASE("both sockets serve, with their modes, and go away with the server") {
  const Run run;
  FakeNode node;
  {
    const auto server = daemon::Server::start(run.options(), node).value();
    CHECK(mode_of(run.socket()) == 0600);
    CHECK(mode_of(run.admin()) == 0600);
    api::Client client = connect(run.socket());
    CHECK(answers(client));
    CHECK(answers(client));
    api::Client admin = connect(run.admin());
    CHECK(std::holds_alternative<api::Ack>(admin.call(api::SetDraining{true}, base::Deadline::after(5s)).value()));
  }
  CHECK_FALSE(base::exists(run.socket()));
  CHECK_FALSE(base::exists(run.admin()));
  const auto gone = api::Client::connect(run.socket(), base::Deadline::after(1s));
  REQUIRE_FALSE(gone.ok());
  CHECK(gone.error().code() == base::Errc::kUnavailable);
  CHECK(gone.error().message() == "cellrund is not running at " + run.socket());
}

TEST_CASE("a group opens the ordinary socket to it") {
  const Run run;
  FakeNode node;
  daemon::ServerOptions options = run.options();
  options.group = ::getegid();
  const auto server = daemon::Server::start(std::move(options), node).value();
  CHECK(mode_of(run.socket()) == 0660);
  CHECK(mode_of(run.admin()) == 0600);
}

TEST_CASE("a stale socket is replaced; a live one and anything else are not") {
  const Run run;
  FakeNode node;
  SUBCASE("stale") {
    const base::UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, run.socket().c_str(), run.socket().size());
    REQUIRE(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    const auto server = daemon::Server::start(run.options(), node);
    REQUIRE(server.ok());
    api::Client client = connect(run.socket());
    CHECK(answers(client));
  }
  SUBCASE("live") {
    const auto first = daemon::Server::start(run.options(), node).value();
    CHECK(daemon::Server::start(run.options(), node).error().code() == base::Errc::kAlreadyExists);
    api::Client client = connect(run.socket());
    CHECK(answers(client));
  }
  SUBCASE("a file") {
    REQUIRE(base::write_file_atomic(run.socket(), "precious", 0600).ok());
    CHECK(daemon::Server::start(run.options(), node).error().code() == base::Errc::kAlreadyExists);
    CHECK(base::read_file(run.socket(), 100).value() == "precious");
  }
  SUBCASE("a symbolic link") {
    REQUIRE(::symlink("/dev/null", run.socket().c_str()) == 0);
    CHECK(daemon::Server::start(run.options(), node).error().code() == base::Errc::kAlreadyExists);
  }
}

TEST_CASE("more connections than allowed are turned away with a reason, and room comes back") {
  const Run run;
  FakeNode node;
  daemon::ServerOptions options = run.options();
  options.limits.connections = 8;
  options.limits.connections_per_uid = 4;
  const auto server = daemon::Server::start(std::move(options), node).value();
  {
    std::vector<api::Client> clients;
    for (int i = 0; i < 4; ++i) {
      clients.push_back(connect(run.socket()));
      CHECK(answers(clients.back()));
    }
    api::Client fifth = connect(run.socket());
    const auto response = fifth.call(api::Ping{}, base::Deadline::after(5s)).value();
    REQUIRE(std::holds_alternative<api::Failure>(response));
    CHECK(std::get<api::Failure>(response).code == base::Errc::kResourceExhausted);
    CHECK(std::get<api::Failure>(response).retryable);
    api::Client admin = connect(run.admin());
    CHECK(answers(admin));  // root gets in all the same
  }
  for (int i = 0;; ++i) {  // the closed ones are noticed
    REQUIRE(i < 1000);
    auto again = api::Client::connect(run.socket(), base::Deadline::after(5s));
    if (again.ok() && answers(*again)) {
      break;
    }
  }
}

TEST_CASE("thousands of connections that come and go leave the server well") {
  const Run run;
  FakeNode node;
  const auto server = daemon::Server::start(run.options(), node).value();
  // A burst may find the backlog full (unix(7): EAGAIN); what counts is that the server is well afterwards.
  for (int i = 0; i < 3000; ++i) {
    (void)api::Client::connect(run.socket(), base::Deadline::after(5s));
  }
  for (int i = 0;; ++i) {
    REQUIRE(i < 1000);
    auto client = api::Client::connect(run.socket(), base::Deadline::after(5s));
    if (client.ok() && answers(*client)) {
      break;
    }
  }
}

TEST_CASE("a client that sends a frame slowly is dropped, and others are served meanwhile") {
  const Run run;
  FakeNode node;
  daemon::ServerOptions options = run.options();
  options.limits.frame_seconds = 1;
  const auto server = daemon::Server::start(std::move(options), node).value();
  const api::Client slow = connect(run.socket());
  REQUIRE(base::write_all(slow.fd(), base::as_bytes(std::string_view("\0\0", 2))).ok());
  api::Client other = connect(run.socket());
  CHECK(answers(other));
  const auto end = api::read_frame(slow.fd(), api::kMaxResponseBytes, 10s, 10s);
  CHECK((!end.ok() || !end->has_value()));
}

TEST_CASE("a client that reads nothing neither grows the server nor holds up others") {
  const Run run;
  FakeNode node;
  node.add(kMine, ::geteuid());
  node.change([](FakeNode::State& state) { state.jobs[kMine].out.assign(std::size_t{16} << 20U, 'x'); });
  daemon::ServerOptions options = run.options();
  options.limits.send_seconds = 1;
  const auto server = daemon::Server::start(std::move(options), node).value();
  const api::Client deaf = connect(run.socket());
  REQUIRE(api::write_frame(deaf.fd(), api::encode(api::Request(api::Logs{kMine, 0, 0, true})), base::Deadline::after(5s)).ok());
  api::Client other = connect(run.socket());
  CHECK(answers(other));
  // What it finds later is a cut stream, much shorter than the log.
  std::size_t taken = 0;
  for (;;) {
    pollfd ready{deaf.fd(), 0, 0};
    if (::poll(&ready, 1, 50) == 1 || taken > 0) {  // closed by the server
      const auto frame = api::read_frame(deaf.fd(), api::kMaxResponseBytes, 5s, 5s);
      if (!frame.ok() || !frame->has_value()) {
        break;
      }
      taken += (*frame)->size();
    }
  }
  CHECK(taken < (std::size_t{16} << 20U));
}

TEST_CASE("the server stops with connections open") {
  const Run run;
  FakeNode node;
  node.add(kMine, ::geteuid());
  auto server = daemon::Server::start(run.options(), node).value();
  api::Client idle = connect(run.socket());
  CHECK(answers(idle));
  const api::Client follower = connect(run.socket());
  REQUIRE(api::write_frame(follower.fd(), api::encode(api::Request(api::Watch{kMine, 0})), base::Deadline::after(5s)).ok());
  CHECK(api::read_frame(follower.fd(), api::kMaxResponseBytes, 5s, 5s).value().has_value());
  server.reset();
  CHECK_FALSE(answers(idle));
}
