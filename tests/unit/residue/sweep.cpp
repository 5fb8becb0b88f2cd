// cellsweep over a /proc and a cgroup hierarchy that the test writes itself.
#include "sweep.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "../ledger/scratch.hpp"
#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/process.hpp"
#include "ledger/ledger.hpp"

using namespace cellrund;

namespace {

class Folder {
 public:
  Folder() {
    std::string pattern = "/tmp/cellsweep-unit-XXXXXX";
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    for (const char* name : {"/proc/self", "/run", "/state"}) {
      REQUIRE(base::make_dirs(path_ + name, 0755).ok());
    }
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_, ignored)) {
      paths.push_back(entry.path());
    }
    std::for_each(paths.rbegin(), paths.rend(), [&](const auto& path) { std::filesystem::remove(path, ignored); });
    std::filesystem::remove(path_, ignored);
  }
  void mountinfo(const std::string& text) const {
    const auto fd = base::open_file(path_ + "/proc/self/mountinfo", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    REQUIRE(fd.ok());
    REQUIRE(base::write_all(fd->get(), base::as_bytes(text)).ok());
  }
  [[nodiscard]] cellsweep::Options options() const {
    cellsweep::Options options;
    options.paths.run_dir = path_ + "/run";
    options.paths.proc = path_ + "/proc";
    options.ledger = path_ + "/state/ledger.db";
    options.budget = std::chrono::seconds(20);
    return options;
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("--all-tags finds a tag in a cgroup hierarchy whose mount point has a blank in its name") {
  const Folder folder;
  REQUIRE(base::make_dirs(folder.path() + "/a b/cellrun/0a1b2c3d", 0755).ok());
  REQUIRE(base::make_dirs(folder.path() + "/c/cellrun/0a1b2c3e", 0755).ok());
  folder.mountinfo("22 27 0:21 / " + folder.path() + "/a\\040b rw - cgroup2 c rw\n23 27 0:22 / " + folder.path() +
                   "/c rw - tmpfs - cgroup rw\n");
  cellsweep::Options options = folder.options();
  options.all_tags = true;
  const cellsweep::Result result = cellsweep::sweep(options);
  REQUIRE(result.nodes.size() == 1);
  CHECK(result.nodes[0].node.value == "0a1b2c3d");
}

TEST_CASE("a cell of an earlier boot is not found by its pids, also when the ledger has seen a later boot since") {
  const base::ProcessId self = base::process_id(::getpid()).value();
  const std::string identity = std::to_string(self.pid) + ":" + std::to_string(self.start_time);
  for (const bool present : {false, true}) {
    const Folder folder;
    cellsweep::Options options = folder.options();
    options.paths.proc = "/proc";
    {
      ledger::Ledger ledger = ledger::Ledger::open(options.ledger).value();
      REQUIRE(ledger.exchange_boot_id(present ? base::boot_id().value() : "00000000-0000-0000-0000-000000000001").ok());
      REQUIRE(ledger.accept(ledger_test::job(), ledger_test::entry(model::State::kAccepted)).ok());
      REQUIRE(ledger.journal_for(ledger_test::kUid)->intend({{model::ItemKind::kProcess, "vmm", identity}}).ok());
      REQUIRE(ledger.seal(ledger_test::kUid, ledger_test::sealed(model::Verdict::kUnknown)).ok());
      REQUIRE(ledger.exchange_boot_id(base::boot_id().value()).ok());
    }
    const cellsweep::Result result = cellsweep::sweep(options);
    REQUIRE(result.nodes.size() == 1);
    CHECK((result.nodes[0].report.residue.size() == 1) == present);
  }
}
