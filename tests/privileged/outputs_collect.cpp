// The real collector in its real box: hostile archives, floods, cells that die, and what the box may do. Needs root and user
// namespaces.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/process.hpp"
#include "cell/output_store.hpp"
#include "cell/outputs.hpp"
#include "crypto/digest.hpp"
#include "tests/support/outputs_cases.hpp"

using namespace cellrund;
using namespace outputs_test;
using cell::OutputCollector;

namespace {

class Notes final : public model::Journal {
 public:
  base::Status intend(const model::Inventory&) override { return base::ok(); }
  base::Status created(const model::InventoryItem& item) override {
    items.push_back(item);
    return base::ok();
  }
  [[nodiscard]] pid_t collector() const {
    for (const model::InventoryItem& item : items) {
      if (item.kind == model::ItemKind::kProcess) {
        return std::stoi(item.identity);
      }
    }
    return 0;
  }
  model::Inventory items;
};

// <folder>/canary/secret is what a name that leads out of the outputs would find; <folder>/{cell,state} are the daemon's.
class Place {
 public:
  Place() {
    REQUIRE(::mkdtemp(folder_.data()) != nullptr);
    for (const char* name : {"/canary", "/cell", "/state"}) {
      REQUIRE(base::make_dir(folder_ + name, 0700).ok());
    }
    REQUIRE(base::write_file_atomic(folder_ + "/canary/secret", "secret", 0600).ok());
    watch_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    for (const char* name : {"/canary", "/canary/secret"}) {
      REQUIRE(::inotify_add_watch(watch_.get(), (folder_ + name).c_str(), IN_ALL_EVENTS) >= 0);
    }
  }
  Place(const Place&) = delete;
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  [[nodiscard]] std::string cell() const { return folder_ + "/cell"; }
  [[nodiscard]] std::string job() const { return folder_ + "/state/jobs/u"; }

  base::Result<OutputCollector> start(const cell::collect::Request& request) {
    return OutputCollector::start({.program = CELLRUN_COLLECT, .cell_folder = cell(), .job_folder = job(), .budget = {request.max_bytes, request.max_files}},
                                  notes);
  }
  // Nobody looked at the canary, and below the folder there is nothing but what the daemon and the collector's data file are.
  void check_untouched() {
    std::array<char, 4096> events{};
    CHECK(::read(watch_.get(), events.data(), events.size()) < 0);
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_)) {
      found.insert(entry.path().string().substr(folder_.size()));
    }
    CHECK(found == std::set<std::string>{"/canary", "/canary/secret", "/cell", "/cell/outputs", "/state", "/state/jobs", "/state/jobs/u",
                                         "/state/jobs/u/manifest.json", "/state/jobs/u/outputs", "/state/jobs/u/outputs.json"});
  }
  Notes notes;

 private:
  std::string folder_ = "/tmp/cellrun-collect-XXXXXX";
  base::UniqueFd watch_;
};

model::OutputFacts finish(OutputCollector& collector) {
  auto facts = collector.finish();
  REQUIRE_MESSAGE(facts.ok(), (facts.ok() ? "" : facts.error().message()));
  return std::move(*facts);
}

bool gone(pid_t pid) { return ::kill(pid, 0) != 0 && errno == ESRCH; }

// Sends until the other side takes no more. Bytes that went.
std::size_t flood(int fd, std::size_t most) {
  const std::string block(65536, 'x');
  std::size_t sent = 0;
  while (sent < most) {
    const ssize_t n = ::send(fd, block.data(), block.size(), MSG_NOSIGNAL);
    if (n <= 0) {
      break;
    }
    sent += static_cast<std::size_t>(n);
  }
  return sent;
}

}  // namespace

TEST_CASE("each hostile archive gives exactly its files and refusals, and nothing else of the host is read or written") {
  REQUIRE(cases().size() >= 60);
  for (const Case& c : cases()) {
    CAPTURE(c.name);
    Place place;
    auto collector = place.start(kBudget);
    REQUIRE_MESSAGE(collector.ok(), (collector.ok() ? "" : collector.error().message()));
    {
      const auto cell = cell::connect_outputs(place.cell());
      REQUIRE(cell.ok());
      (void)base::write_all(cell->get(), c.archive.bytes());
    }
    const model::OutputFacts facts = finish(*collector);
    std::vector<std::pair<std::string, std::string>> files;
    for (const model::OutputFile& file : facts.files) {
      const auto source = cell::open_output(place.job(), file.path);
      REQUIRE(source.ok());
      std::string content(file.size, '\0');
      REQUIRE(::pread(source->data.get(), content.data(), content.size(), static_cast<off_t>(source->offset)) == static_cast<ssize_t>(file.size));
      CHECK(file.sha256 == crypto::digest_text(base::as_bytes(content)));
      files.emplace_back(file.path, content);
    }
    CHECK(files == c.taken);
    std::vector<std::pair<std::string, std::string>> refused;
    for (const model::RefusedOutput& output : facts.refused) {
      refused.emplace_back(output.path, output.why);
    }
    CHECK(refused == c.refused);
    CHECK(facts.refused_count == (c.refused_count != 0 ? c.refused_count : c.refused.size()));
    CHECK(facts.incomplete_because.empty() == c.incomplete.empty());
    CHECK(facts.incomplete_because.starts_with(c.incomplete));
    struct stat st {};
    REQUIRE(::stat((place.job() + "/outputs").c_str(), &st) == 0);
    CHECK(st.st_uid == 0);
    CHECK((st.st_mode & 07777U) == 0600);
    CHECK(gone(place.notes.collector()));
    place.check_untouched();
  }
}

TEST_CASE("the collector has no network, no capability, no file but its own, and a filter") {
  Place place;
  auto collector = place.start(kBudget);
  REQUIRE(collector.ok());
  const auto cell = cell::connect_outputs(place.cell());
  REQUIRE(cell.ok());
  // It confines itself before it answers; the answer to an end says that it has.
  REQUIRE(base::write_all(cell->get(), Archive().file("a", "1").bytes()).ok());
  const std::string proc = "/proc/" + std::to_string(place.notes.collector());
  std::string status;
  for (int i = 0; i < 500 && status.find("Seccomp:\t2") == std::string::npos; ++i) {
    status = base::read_file(proc + "/status", 65536).value();
    (void)base::wait_readable(cell->get(), base::Deadline::after(std::chrono::milliseconds(10)));
  }
  for (const char* line : {"Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000"}) {
    CAPTURE(line);
    CHECK(status.find(line) != std::string::npos);
  }
  CHECK(status.find("Uid:\t0") == std::string::npos);
  for (const char* ns : {"net", "user", "mnt", "pid", "ipc", "uts", "cgroup"}) {
    CAPTURE(ns);
    CHECK_FALSE(base::file_id(proc + "/ns/" + ns).value() == base::file_id(std::string("/proc/self/ns/") + ns).value());
  }
  REQUIRE(base::write_all(cell->get(), wire::end_record(0)).ok());
  std::uint8_t answer = 0;
  CHECK(::recv(cell->get(), &answer, 1, 0) == 1);
  CHECK(answer == wire::kArchiveTaken);
  CHECK(finish(*collector).files.size() == 1);
}

TEST_CASE("a flood is cut off at the budget, and the disk gets none of it") {
  Place place;
  auto collector = place.start(kBudget);
  REQUIRE(collector.ok());
  const auto cell = cell::connect_outputs(place.cell());
  REQUIRE(cell.ok());
  Archive head;
  head.file("kept", "k");
  REQUIRE(base::write_all(cell->get(), head.bytes()).ok());
  const std::size_t before = 1U << 30U;
  // Pieces of a file that is refused: the same 64 KiB piece over and over.
  const Archive refused = Archive::without_head().open("../x", 1);
  REQUIRE(base::write_all(cell->get(), refused.bytes()).ok());
  base::Bytes piece(4 + wire::kMaxPiece);
  const auto length = wire::piece_head(wire::kMaxPiece);
  std::copy(length.begin(), length.end(), piece.begin());
  std::size_t sent = 0;
  while (sent < before) {
    const ssize_t n = ::send(cell->get(), piece.data(), piece.size(), MSG_NOSIGNAL);
    if (n <= 0) {
      break;
    }
    sent += static_cast<std::size_t>(n);
  }
  CHECK(sent < 64U << 20U);
  const model::OutputFacts facts = finish(*collector);
  REQUIRE(facts.files.size() == 1);
  CHECK(facts.files.front().path == "kept");
  CHECK(facts.incomplete_because == "the archive is over its budget");
  place.check_untouched();
}

TEST_CASE("garbage ends the reading at once") {
  Place place;
  auto collector = place.start(kBudget);
  REQUIRE(collector.ok());
  const auto cell = cell::connect_outputs(place.cell());
  REQUIRE(cell.ok());
  CHECK(flood(cell->get(), 64U << 20U) < 8U << 20U);
  CHECK(finish(*collector).incomplete_because == "outputs archive: it does not begin as one");
}

TEST_CASE("a cell that goes away in the middle leaves what it had handed over; one that stays silent is not waited for") {
  for (const bool open : {false, true}) {
    CAPTURE(open);
    Place place;
    auto collector = place.start(kBudget);
    REQUIRE(collector.ok());
    auto cell = cell::connect_outputs(place.cell());
    REQUIRE(cell.ok());
    REQUIRE(base::write_all(cell->get(), Archive().file("whole", "1").open("half", 100).piece("abc").bytes()).ok());
    if (!open) {
      cell->reset();
    }
    const model::OutputFacts facts = finish(*collector);
    REQUIRE(facts.files.size() == 1);
    CHECK(facts.files.front().path == "whole");
    REQUIRE(facts.refused.size() == 1);
    CHECK(facts.refused.front().why == "cut short");
    CHECK_FALSE(facts.incomplete_because.empty());
  }
}

TEST_CASE("a cell that never connects leaves nothing, and no process") {
  Place place;
  auto collector = place.start(kBudget);
  REQUIRE(collector.ok());
  const model::OutputFacts facts = finish(*collector);
  CHECK(facts.files.empty());
  CHECK(facts.incomplete_because == "the cell handed nothing over");
  CHECK(gone(place.notes.collector()));
}

TEST_CASE("a collector that dies gives an error and nothing stored; one that is dropped is killed") {
  Place place;
  pid_t pid = 0;
  {
    auto collector = place.start(kBudget);
    REQUIRE(collector.ok());
    pid = place.notes.collector();
    REQUIRE(::kill(pid, SIGKILL) == 0);
    CHECK_FALSE(collector->finish().ok());
    CHECK_FALSE(cell::read_outputs(place.job()).ok());
  }
  CHECK(gone(pid));
  Place other;
  {
    auto collector = other.start(kBudget);
    REQUIRE(collector.ok());
    pid = other.notes.collector();
  }
  CHECK(gone(pid));
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::puts("skipped: needs root");
    return 77;
  }
  if (!base::exists("/proc/self/ns/user")) {
    std::puts("skipped: needs user namespaces");
    return 77;
  }
  (void)::signal(SIGPIPE, SIG_IGN);  // a collector that has read enough hangs up
  return doctest::Context(argc, argv).run();
}
