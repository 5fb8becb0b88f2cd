// What a restarted daemon does with the journal of its predecessor: in the same boot it ends what the journal names, in
// another boot the same pid and start time are somebody else, who lives on and is no residue.
#define DOCTEST_CONFIG_IMPLEMENT
#include "cell/recover.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/file.hpp"
#include "base/process.hpp"

namespace {

using namespace cellrund;

constexpr const char* kUid = "0199c1f2-7b1e-7c3a-9d2e-2f4b6a8c0e11";
constexpr const char* kEarlierBoot = "00000000-0000-0000-0000-000000000001";

// A job without an image never asks it.
class NoContent final : public image::ContentStore {
 public:
  base::Result<image::ImageRecord> find_image(const std::string& /*name*/, const base::Until& /*until*/) override { return none(); }
  base::Result<std::vector<image::ImageRecord>> list_images(base::Deadline /*deadline*/) override { return none(); }
  base::Status put_image(const std::string& /*name*/, const image::Descriptor& /*target*/, base::Deadline /*deadline*/) override { return none(); }
  base::Status remove_image(const std::string& /*name*/, base::Deadline /*deadline*/) override { return none(); }
  base::Result<std::string> read_blob(const std::string& /*digest*/, std::size_t /*limit*/, const base::Until& /*until*/) override { return none(); }
  base::Status fetch_blob(const std::string& /*digest*/, int /*fd*/, std::uint64_t /*limit*/, const base::Until& /*until*/) override { return none(); }
  base::Status ingest_blob(const image::Descriptor& /*blob*/, int /*fd*/, const image::Labels& /*labels*/, base::Deadline /*deadline*/) override { return none(); }
  base::Status hold(base::Deadline /*deadline*/) override { return none(); }
  base::Status release(base::Deadline /*deadline*/) override { return none(); }

 private:
  static base::Error none() { return {base::Errc::kUnavailable, "no content here"}; }
};

struct Node {
  Node() {
    std::string pattern = "/tmp/cell-recover-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    folder = pattern;
    REQUIRE(base::make_dirs(folder + "/run/cells", 0700).ok());
  }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  Node(Node&&) = delete;
  Node& operator=(Node&&) = delete;
  ~Node() {
    if (!tag.value.empty()) {
      CHECK(netpolicy::Router::destroy(folder + "/run", tag).empty());
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  std::string folder;
  model::NodeTag tag;
};

// Recovers a journal of `boot` that names `process`; returns the job as sealed.
ledger::JobRow recover_journal_of(const std::string& boot, const base::ProcessId& process) {
  Node node;
  ledger::Ledger ledger = ledger::Ledger::open(node.folder + "/ledger.db").value();
  node.tag = ledger.node_tag();
  REQUIRE(ledger.exchange_boot_id(boot).ok());
  ledger::NewJob job;
  job.uid = kUid;
  job.spec_digest = "sha256:" + std::string(64, '0');
  job.name = "recovered";
  job.tenant = "t";
  job.lane = "process";
  job.signer_key_id = "k";
  REQUIRE(ledger.accept(job, {model::State::kAccepted, base::WallTime::now(), base::BootTime::now(), ""}).ok());
  const std::string identity = std::to_string(process.pid) + ":" + std::to_string(process.start_time);
  REQUIRE(ledger.journal_for(kUid)->intend({{model::ItemKind::kProcess, "cell-init", identity}}).ok());

  const std::string now = base::boot_id().value();
  REQUIRE(ledger.exchange_boot_id(now).ok());  // an earlier start in this boot came so far and no further
  REQUIRE(ledger.exchange_boot_id(now).ok());
  cell::JobTable table;
  const cell::SecretStore secrets("/nonexistent", "");
  admit::CapacityPool capacity({1000, 1UL << 30U, 1, 1});
  const auto watchdog = cell::Watchdog::start().value();
  const auto images = image::Preparer::create({.images_dir = node.folder + "/images", .unpack_program = "/bin/false"}).value();
  const auto inputs = image::InputStore::create({.dir = node.folder + "/inputs"}).value();
  NoContent content;
  auto router = netpolicy::Router::open({.run_dir = node.folder + "/run", .node = node.tag});
  REQUIRE_MESSAGE(router.ok(), (router.ok() ? "" : router.error().message()));
  const host::CgroupTree cgroups = host::CgroupTree::discover().value();
  const crypto::PrivateKey key = crypto::PrivateKey::generate().value();
  residue::Paths scan;
  scan.run_dir = node.folder + "/run";
  cell::Services services{.paths = {.state = node.folder, .run = node.folder + "/run"},
                          .tag = node.tag,
                          .facts = {.id = "n", .boot_id = now, .kernel = "k", .cellrun_version = "v", .config_digest = "c",
                                    .key_id = key.public_key().key_id()},
                          .vmm_uid_base = 2000000,
                          .scan_paths = scan,
                          .ledger = ledger,
                          .table = table,
                          .capacity = capacity,
                          .secrets = secrets,
                          .watchdog = *watchdog,
                          .images = *images,
                          .content = content,
                          .inputs = *inputs,
                          .router = *router,
                          .cgroups = cgroups,
                          .containerd = nullptr,
                          .node_key = key,
                          .lanes = {}};
  const auto recovered = cell::recover(services);
  REQUIRE_MESSAGE(recovered.ok(), (recovered.ok() ? "" : recovered.error().message()));
  CHECK(recovered->jobs == 1);
  return ledger.get(kUid).value().value();
}

}  // namespace

TEST_CASE("a process of the same boot is ended, one with the same numbers in a later boot is nobody") {
  for (const bool same_boot : {true, false}) {
    const base::PidFd sleeper = base::spawn({.argv = {"/bin/sleep", "3600"}}).value();
    const ledger::JobRow job = recover_journal_of(same_boot ? base::boot_id().value() : kEarlierBoot, sleeper.id());
    CHECK(base::is_alive(sleeper.id()) != same_boot);
    CHECK(job.closed);
    CHECK(job.outcome.reason == (same_boot ? model::Reason::kDaemonRestarted : model::Reason::kNodeRebooted));
    CHECK(job.verdict == model::Verdict::kClean);
    (void)sleeper.signal(SIGKILL);  // of the first case it is gone
    (void)sleeper.reap(base::Deadline::after(std::chrono::seconds(5)));
  }
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
