// The sockets against real peers of another uid: credentials decide, whatever the peer says.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "api/client.hpp"
#include "base/file.hpp"
#include "daemon/listen.hpp"
#include "daemon/server.hpp"
#include "fake_node.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using daemon_test::FakeNode;
using daemon_test::kMine;
using daemon_test::kOther;

namespace {

constexpr uid_t kAlice = 61001;
constexpr gid_t kGroup = 61500;
constexpr uid_t kEve = 61002;  // not in the group

// Runs `body` on a thread of its own with another user's credentials: setresuid(2) as a raw system call changes the
// calling thread alone, which is what connect(2) records for SO_PEERCRED.
template <typename F>
void as_user(uid_t uid, gid_t gid, F body) {
  std::thread thread([&] {
    CR_ASSERT(::syscall(SYS_setgroups, 0, nullptr) == 0);
    CR_ASSERT(::syscall(SYS_setresgid, gid, gid, gid) == 0);
    CR_ASSERT(::syscall(SYS_setresuid, uid, uid, uid) == 0);
    body();
  });
  thread.join();
}

class Run {
 public:
  Run() {
    std::string pattern = "/tmp/cellrun-peers-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    CR_ASSERT(::chmod(path_.c_str(), 0755) == 0);
    daemon::ServerOptions options;
    options.socket = path_ + "/cellrund.sock";
    options.admin_socket = path_ + "/admin.sock";
    options.group = kGroup;
    options.node_id = "node-1";
    options.limits.refusals_per_second = 3;
    server_ = daemon::Server::start(std::move(options), node).value();
  }
  ~Run() {
    server_.reset();
    CHECK(base::remove_dir(path_).ok());  // nothing is left in it
  }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  Run(Run&&) = delete;
  Run& operator=(Run&&) = delete;
  [[nodiscard]] base::Result<api::Client> connect(const char* name = "cellrund.sock") const {
    return api::Client::connect(path_ + "/" + name, base::Deadline::after(5s));
  }

  FakeNode node;

 private:
  std::string path_;
  std::unique_ptr<daemon::Server> server_;
};

api::Response ask(api::Client& client, const api::Request& request) {
  return client.call(request, base::Deadline::after(5s)).value();
}

}  // namespace

TEST_CASE("who is not in the group cannot connect, and nobody but root to the admin socket") {
  const Run run;
  as_user(kEve, kEve, [&] {
    const auto client = run.connect();
    REQUIRE_FALSE(client.ok());
    CHECK(client.error().code() == base::Errc::kPermissionDenied);
  });
  as_user(kAlice, kGroup, [&] {
    CHECK(run.connect().ok());
    CHECK(run.connect("admin.sock").error().code() == base::Errc::kPermissionDenied);
  });
}

TEST_CASE("a member of the group owns what it submits and sees no contents of others") {
  Run run;
  run.node.add(kOther, 0);
  as_user(kAlice, kGroup, [&] {
    api::Client client = run.connect().value();
    CHECK(std::holds_alternative<api::Submitted>(ask(client, api::Submit{"x"})));
    CHECK(std::get<api::Job>(ask(client, api::Get{kMine})).owner_uid == kAlice);
    CHECK(std::get<api::Failure>(ask(client, api::Get{kOther})).code == base::Errc::kPermissionDenied);
    CHECK(std::get<api::Failure>(ask(client, api::Cancel{kOther})).code == base::Errc::kPermissionDenied);
    CHECK(std::get<api::Failure>(ask(client, api::SetDraining{true})).code == base::Errc::kPermissionDenied);
  });
  api::Client root = run.connect().value();
  CHECK_FALSE(std::get<api::Job>(ask(root, api::Get{kMine})).foreign);
}

TEST_CASE("the budget of refusals is each user's own") {
  Run run;
  as_user(kAlice, kGroup, [&] {
    for (int i = 0; i < 50; ++i) {
      auto client = run.connect();
      if (client.ok()) {
        (void)client->call(api::Submit{"refuse"}, base::Deadline::after(5s));
      }
    }
  });
  CHECK(run.node.snapshot().dropped[kAlice] > 0);
  api::Client root = run.connect().value();
  CHECK(std::get<api::Failure>(ask(root, api::Submit{"refuse"})).reason == model::Reason::kExpired);
  CHECK(run.node.snapshot().dropped[0] == 0);
}

TEST_CASE("a group is found whatever the length of its line") {
  std::string pattern = "/tmp/cellrun-group-XXXXXX";
  const base::UniqueFd file(::mkstemp(pattern.data()));
  REQUIRE(file);
  std::string text = "root:x:0:\ncellrun-many:x:61500:";
  for (int i = 0; i < 4000; ++i) {
    text += (i == 0 ? "member-" : ",member-") + std::to_string(i);
  }
  text += "\n";
  REQUIRE(base::write_all(file.get(), base::as_bytes(text)).ok());
  REQUIRE(::fchmod(file.get(), 0644) == 0);
  std::optional<gid_t> found;
  std::optional<gid_t> missing;
  std::thread thread([&] {  // its mount namespace ends with it
    CR_ASSERT(::unshare(CLONE_NEWNS) == 0);
    CR_ASSERT(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    CR_ASSERT(::mount(pattern.c_str(), "/etc/group", nullptr, MS_BIND, nullptr) == 0);
    found = daemon::group_id("cellrun-many");
    missing = daemon::group_id("cellrun-none");
  });
  thread.join();
  CHECK(found == kGroup);
  CHECK_FALSE(missing.has_value());
  CHECK(base::remove_file(pattern).ok());
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    (void)std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
