// The node between its sockets and its cells: what is accepted, found again, cancelled and closed. Real ledger, router and
// threads; the one lane here never starts anything. Needs root.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <latch>
#include <mutex>
#include <thread>
#include <vector>

#include "base/log.hpp"
#include "cell/node_impl.hpp"
#include "crypto/random.hpp"
#include "job/parse.hpp"
#include "tests/support/cell_network.hpp"
#include "tests/support/image_store.hpp"
#include "tests/support/small_disk.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using model::Reason;
using model::State;

namespace {

constexpr std::uint32_t kAlice = 1000, kBob = 1001;

// For what tells nothing when it changes: the clock, a thread about to end.
void pause(base::Nanoseconds span) {
  const base::UniqueFd timer = base::boot_timer(base::BootTime::now() + span).value();
  CR_ASSERT(base::wait_readable(timer.get(), base::Deadline::after(60s)).ok());
}

class NoLane final : public cell::Lane {
 public:
  model::Inventory intended(const model::CellName& /*name*/) const override { return {}; }
  std::uint64_t memory_overhead() const override { return 0; }
  bool uses_containerd() const override { return false; }
  base::Result<std::unique_ptr<cell::RunningCell>, cell::StartFailure> start(cell::CellPlan /*plan*/, base::Deadline /*deadline*/,
                                                                             cell::OutputSink& /*sink*/) override {
    return cell::StartFailure{Reason::kVmmStartFailed, "this lane starts nothing"};
  }
};

// Answers nothing until the call's end, as a stopped containerd does.
class DeafStore final : public test::MemoryStore {
 public:
  base::Result<image::ImageRecord> find_image(const std::string& /*name*/, const base::Until& until) override {
    ++asked;
    std::mutex mutex;
    std::unique_lock lock(mutex);
    (void)std::condition_variable_any().wait_for(lock, until.stop, until.deadline.remaining(), [] { return false; });
    return base::Error(until.stopped() ? base::Errc::kCancelled : base::Errc::kDeadlineExceeded, "no answer");
  }
  std::atomic<int> asked = 0;
};

struct Folder {
  Folder() {
    std::string name = "/tmp/cellrun-node-test-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

enum class Room { kFree, kTaken };  // taken: every job stays queued

class Bench {
 public:
  explicit Bench(Room room, std::uint32_t max_concurrent = 100, std::string ledger_file = {})
      : router_(network_.open(netpolicy::Attach::kAuto)), cgroups_(host::CgroupTree::discover().value()),
        key_(crypto::PrivateKey::generate().value()), signer_(crypto::PrivateKey::generate().value()),
        ledger_(ledger::Ledger::open(ledger_file.empty() ? folder_.path + "/ledger.db" : ledger_file).value()),
        capacity_({.cpu_millis = 100'000, .memory_bytes = 1ULL << 40U, .cells = room == Room::kFree ? 16U : 1U, .queue = 100}),
        watchdog_(cell::Watchdog::start().value()),
        images_(image::Preparer::create({.images_dir = folder_.path + "/images", .unpack_program = "/nonexistent"}).value()),
        inputs_(image::InputStore::create({.dir = folder_.path + "/inputs"}).value()) {
    if (room == Room::kTaken) {
      taken_ = capacity_.adopt(0, {}).value();
    }
    trust(max_concurrent, false);
    model::NodeFacts facts;
    facts.id = "node-1";
    facts.key_id = key_.public_key().key_id();
    services_.emplace(cell::Services{.paths = {.state = folder_.path, .run = network_.run_dir},
                                     .tag = network_.tag,
                                     .facts = std::move(facts),
                                     .vmm_uid_base = 0,
                                     .scan_paths = {},
                                     .ledger = ledger_,
                                     .table = table_,
                                     .capacity = capacity_,
                                     .secrets = secrets_,
                                     .watchdog = *watchdog_,
                                     .images = *images_,
                                     .content = store,
                                     .inputs = *inputs_,
                                     .router = router_,
                                     .cgroups = cgroups_,
                                     .containerd = nullptr,
                                     .node_key = key_,
                                     .lanes = {}});
    services_->lanes.emplace(model::Lane::kProcess, std::make_unique<NoLane>());
    cell::NodeOptions options;
    options.trust_dir = folder_.path + "/trust";
    options.verify.clock_skew = 0s;
    options.policy.lanes = {{model::Lane::kProcess, admit::Accel::kNone}};
    node = cell::NodeImpl::create(*services_, std::move(options)).value();
  }

  void trust(std::uint32_t max_concurrent, bool revoked) {
    distrust();
    admit::Grant grant;
    grant.namespaces = {"test"};
    grant.images = {"*"};
    grant.min_tier = 0;
    grant.max_concurrent = max_concurrent;
    grant.revoked = revoked;
    REQUIRE(admit::add_trust(folder_.path + "/trust", "job", signer_.public_key(), grant).ok());
  }
  void distrust() { (void)admit::remove_trust(folder_.path + "/trust", "job"); }

  [[nodiscard]] std::string envelope(const std::string& uid, std::chrono::seconds valid = 1h, const std::string& name = "job") const {
    base::WallTime now = base::WallTime::now();
    now.nanos = 0;
    const base::WallTime later{now.seconds + valid.count(), 0};
    return job::sign_spec(R"({"apiVersion":"cellrun.dev/v1","kind":"Job","metadata":{"name":")" + name + R"(","uid":")" + uid +
                              R"(","namespace":"test","issuedAt":")" + base::format_rfc3339(now) + R"(","expiresAt":")" +
                              base::format_rfc3339(later) + R"("},"spec":{"minTier":0,"lane":"process","container":{"image":"a/b@sha256:)" +
                              std::string(64, 'a') + R"("},"resources":{"limits":{"cpu":"1","memory":"64Mi","pids":8}},)" +
                              R"("activeDeadlineSeconds":60,"startDeadlineSeconds":86400}})",
                          signer_)
        .value();
  }
  [[nodiscard]] auto submit(const std::string& bytes, std::uint32_t peer = kAlice) const {
    return node->submit(base::as_bytes(bytes), {peer, peer, 1});
  }
  // Whether it was known already.
  [[nodiscard]] bool known(const std::string& bytes, std::uint32_t peer = kAlice) const {
    const auto answer = submit(bytes, peer);
    REQUIRE(answer.ok());
    const auto* accepted = std::get_if<cell::Accepted>(&*answer);
    REQUIRE_MESSAGE(accepted != nullptr, std::get<model::Refusal>(*answer).message);
    return accepted->already_known;
  }
  [[nodiscard]] Reason refused(const std::string& bytes, std::uint32_t peer = kAlice) const {
    const auto answer = submit(bytes, peer);
    REQUIRE(answer.ok());
    const auto* refusal = std::get_if<model::Refusal>(&*answer);
    return refusal == nullptr ? Reason::kNone : refusal->reason;
  }
  // The job once `done` holds for it; fails the test after two seconds, in which a cancelled job must have ended.
  template <typename F>
  [[nodiscard]] cell::JobView await(const std::string& uid, F&& done) const {
    const base::Deadline deadline = base::Deadline::after(2s);
    for (;;) {
      auto job = node->get(uid, std::nullopt);
      REQUIRE(job.has_value());
      if (done(*job) || deadline.expired()) {
        return *job;
      }
      node->wait_change(uid, job->version, ~0ULL, deadline);
    }
  }

 private:
  Folder folder_;
  test::TestNode network_;
  netpolicy::Router router_;
  host::CgroupTree cgroups_;
  crypto::PrivateKey key_, signer_;
  ledger::Ledger ledger_;
  cell::JobTable table_;
  admit::CapacityPool capacity_;
  cell::SecretStore secrets_{"/nonexistent", ""};
  std::optional<admit::Ticket> taken_;
  std::unique_ptr<cell::Watchdog> watchdog_;
  std::unique_ptr<image::Preparer> images_;
  std::unique_ptr<image::InputStore> inputs_;
  std::optional<cell::Services> services_;

 public:
  DeafStore store;
  std::unique_ptr<cell::NodeImpl> node;  // last: its end waits for every job
};

std::string uid_of(int number) {
  char text[37];
  (void)std::snprintf(text, sizeof text, "0199c1f2-7b1e-7c3a-9d2e-%012d", number);
  return text;
}

bool closed(const cell::JobView& job) { return job.closed; }

// Calls body(0) … body(count - 1) side by side.
template <typename F>
void side_by_side(int count, const F& body) {
  std::latch start(count);
  std::vector<std::jthread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      body(i);
    });
  }
}

}  // namespace

TEST_CASE("submissions side by side take no more jobs than maxConcurrent, and a refused or closed one counts no more") {
  constexpr int kSubmissions = 16;
  const Bench bench(Room::kTaken, 2);
  std::vector<std::string> envelopes;
  for (int i = 0; i < kSubmissions; ++i) {
    envelopes.push_back(bench.envelope(uid_of(i)));
  }
  std::array<std::atomic<int>, kSubmissions> accepted{};
  side_by_side(kSubmissions, [&](int i) {
    const auto answer = bench.submit(envelopes[static_cast<std::size_t>(i)]);
    accepted[static_cast<std::size_t>(i)] = answer.ok() && std::holds_alternative<cell::Accepted>(*answer) ? 1 : 0;
  });
  int total = 0;
  int one = -1;
  for (int i = 0; i < kSubmissions; ++i) {
    total += accepted[static_cast<std::size_t>(i)];
    one = accepted[static_cast<std::size_t>(i)] != 0 ? i : one;
  }
  CHECK(total == 2);
  REQUIRE(one >= 0);
  CHECK(bench.refused(bench.envelope(uid_of(100))) == Reason::kPolicyDenied);
  REQUIRE(bench.node->cancel(uid_of(one), false).ok());
  CHECK(bench.await(uid_of(one), closed).closed);
  const base::Deadline deadline = base::Deadline::after(2s);
  const std::string next = bench.envelope(uid_of(101));
  while (bench.refused(next) != Reason::kNone && !deadline.expired()) {  // the thread of the closed job is about to end
    pause(5ms);
  }
  CHECK(bench.known(next));
}

TEST_CASE("the same bytes side by side are one job") {
  const Bench bench(Room::kTaken, 1);
  const std::string envelope = bench.envelope(uid_of(1));
  std::atomic<int> fresh = 0;
  std::atomic<int> known = 0;
  side_by_side(8, [&](int) {
    const auto answer = bench.submit(envelope);
    if (answer.ok() && std::holds_alternative<cell::Accepted>(*answer)) {
      ++(std::get<cell::Accepted>(*answer).already_known ? known : fresh);
    }
  });
  CHECK(fresh == 1);
  CHECK(known == 7);
}

TEST_CASE("a job that is cancelled while it is queued or its image prepared ends at once") {
  SUBCASE("queued") {
    const Bench bench(Room::kTaken);
    CHECK_FALSE(bench.known(bench.envelope(uid_of(1))));
    REQUIRE(bench.node->cancel(uid_of(1), false).ok());
    const cell::JobView job = bench.await(uid_of(1), closed);
    CHECK(job.state == State::kCancelled);
    CHECK(job.outcome.reason == Reason::kCancelledByUser);
  }
  SUBCASE("preparing, one in the store and one behind it") {
    Bench bench(Room::kFree);
    for (const int i : {1, 2}) {
      CHECK_FALSE(bench.known(bench.envelope(uid_of(i))));
      CHECK(bench.await(uid_of(i), [](const cell::JobView& job) { return job.state == State::kPreparing; }).state == State::kPreparing);
      while (bench.store.asked == 0) {
        pause(5ms);
      }
    }
    for (const int i : {2, 1}) {
      REQUIRE(bench.node->cancel(uid_of(i), i == 1).ok());
      const cell::JobView job = bench.await(uid_of(i), closed);
      CHECK(job.state == State::kCancelled);
      CHECK(job.outcome.reason == (i == 1 ? Reason::kKilledByOperator : Reason::kCancelledByUser));
    }
    CHECK(bench.store.asked == 1);
  }
  SUBCASE("the whole node ends") {
    Bench bench(Room::kFree);
    CHECK_FALSE(bench.known(bench.envelope(uid_of(1))));
    CHECK(bench.await(uid_of(1), [](const cell::JobView& job) { return job.state == State::kPreparing; }).state == State::kPreparing);
    std::jthread ends([&] { bench.node->shutdown(); });
    const cell::JobView job = bench.await(uid_of(1), closed);
    CHECK(job.closed);
    CHECK(job.outcome.reason == Reason::kNodeShutdown);
  }
}

TEST_CASE("the same bytes stay the same job when they have expired or their key is trusted no more; nothing else does") {
  Bench bench(Room::kTaken);
  const std::string lasting = bench.envelope(uid_of(1));
  const std::string brief = bench.envelope(uid_of(2), 2s);
  CHECK_FALSE(bench.known(lasting));
  CHECK_FALSE(bench.known(brief));
  const std::string other = bench.envelope(uid_of(2), 1s, "other");
  pause(2100ms);
  CHECK(bench.known(brief));
  CHECK(bench.refused(brief, kBob) == Reason::kExpired);
  CHECK(bench.refused(other) == Reason::kExpired);
  CHECK(bench.refused(bench.envelope(uid_of(2), 1h, "other")) == Reason::kReplayed);

  bench.trust(100, true);
  CHECK(bench.known(lasting));
  CHECK(bench.known(brief));
  CHECK(bench.refused(lasting, kBob) == Reason::kSignerRevoked);
  CHECK(bench.refused(bench.envelope(uid_of(3))) == Reason::kSignerRevoked);
  std::string tampered = lasting;
  const std::size_t at = tampered.find("\"sig\":");
  REQUIRE(at != std::string::npos);
  char& first = tampered[tampered.find('"', at + 6) + 1];
  first = first == 'A' ? 'B' : 'A';
  CHECK(bench.refused(tampered) == Reason::kSignatureInvalid);
  bench.distrust();
  CHECK(bench.known(lasting));
  CHECK(bench.refused(bench.envelope(uid_of(3))) == Reason::kSignerNotTrusted);
}

TEST_CASE("a refused peer finds its own record, whatever others submit under the same uid") {
  Bench bench(Room::kTaken);
  bench.trust(1, false);
  CHECK_FALSE(bench.known(bench.envelope(uid_of(1))));
  CHECK(bench.refused(bench.envelope(uid_of(2), 1h, "alices"), kAlice) == Reason::kPolicyDenied);
  CHECK(bench.refused(bench.envelope(uid_of(2), 1h, "bobs"), kBob) == Reason::kPolicyDenied);
  CHECK(bench.node->get(uid_of(2), kAlice)->owner_uid == kAlice);
  CHECK(bench.node->get(uid_of(2), kBob)->owner_uid == kBob);
  CHECK(bench.node->get(uid_of(2), std::nullopt)->owner_uid == kBob);
  CHECK(bench.node->evidence(uid_of(2), kAlice).value() != bench.node->evidence(uid_of(2), kBob).value());
  CHECK(bench.node->evidence(uid_of(2), std::nullopt).value() == bench.node->evidence(uid_of(2), kBob).value());
}

TEST_CASE("on a full disk the node says that it has stopped, and an ended job why it has no record") {
  const test::SmallDisk disk("1m");
  REQUIRE(disk.mounted());
  const Bench bench(Room::kTaken, 100, disk.file("ledger.db"));
  CHECK_FALSE(bench.known(bench.envelope(uid_of(1))));
  CHECK_FALSE(bench.node->stopped().has_value());
  disk.fill();
  int submissions = 2;
  while (bench.submit(bench.envelope(uid_of(submissions))).ok()) {
    REQUIRE(++submissions < 2000);  // the write-ahead log has room of its own for a while
  }
  const auto why = bench.node->stopped();
  REQUIRE(why.has_value());
  CHECK(why->code() == base::Errc::kDataLoss);
  CHECK(why->message() == bench.submit(bench.envelope(uid_of(3000))).error().message());
  REQUIRE(bench.node->cancel(uid_of(1), false).ok());
  const cell::JobView job = bench.await(uid_of(1), [](const cell::JobView& view) { return !view.unsealed.empty(); });
  CHECK_FALSE(job.closed);
  CHECK(job.unsealed.find("the ledger stopped") != std::string::npos);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    (void)std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  base::log::init("node-jobs", base::log::Level::kError);
  doctest::Context context(argc, argv);
  return context.run();
}
