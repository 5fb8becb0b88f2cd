// The scan against a real cell's network: every journalled object is seen while it is there, by its journalled identity
// and by its name alone, and nothing is seen after the disconnect, with a second cell living beside it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "tests/support/cell_network.hpp"
#include "residue/scan.hpp"

namespace {

using namespace cellrund;
using model::ItemKind;
using model::Verdict;
using test::TestNode;

// One list: what was intended, with its identity once it has one.
class Recorder final : public model::Journal {
 public:
  base::Status intend(const model::Inventory& batch) override {
    items.insert(items.end(), batch.begin(), batch.end());
    return base::ok();
  }
  base::Status created(const model::InventoryItem& made) override {
    for (model::InventoryItem& item : items) {
      if (item.kind == made.kind && item.name == made.name) {
        item.identity = made.identity;
      }
    }
    return base::ok();
  }
  model::Inventory items;
};

residue::CellScope scope_of(const TestNode& node, std::uint32_t slot, model::Inventory inventory, bool with_slot) {
  residue::CellScope scope;
  scope.node = node.tag;
  scope.uid = node.cell(slot).uid;
  if (with_slot) {
    scope.slot = slot;
  }
  scope.inventory = std::move(inventory);
  scope.paths.run_dir = node.run_dir;
  return scope;
}

model::ResidueReport scan(const residue::CellScope& scope) {
  return residue::scan_cell(scope, base::Deadline::after(std::chrono::seconds(30)));
}

std::size_t count(const model::ResidueReport& report, ItemKind kind) {
  return static_cast<std::size_t>(std::count_if(report.residue.begin(), report.residue.end(),
                                                [&](const auto& item) { return item.kind == kind; }));
}

void expect_clean(const model::ResidueReport& report) {
  for (const auto& item : report.residue) {
    MESSAGE("residue " << std::string(model::to_string(item.kind)) << " " << item.name << ": " << item.why);
  }
  for (const auto& unknown : report.unknown) {
    MESSAGE("unknown " << unknown.probe << ": " << unknown.cause);
  }
  CHECK(report.verdict == Verdict::kClean);
}

}  // namespace

TEST_CASE("a cell's network is seen in full, and after the disconnect not at all") {
  TestNode node;
  const netpolicy::Router router = node.open(netpolicy::Attach::kAuto);
  Recorder journal;
  Recorder other_journal;
  std::optional<netpolicy::NetworkedCell> cell = std::move(*router.connect(node.cell(0), journal));
  const auto other = router.connect(node.cell(1), other_journal);
  REQUIRE(other.ok());

  auto intents = journal.items;
  for (auto& item : intents) {
    item.identity.clear();
  }
  for (auto& scope : {scope_of(node, 0, journal.items, false), scope_of(node, 0, {}, true), scope_of(node, 0, intents, false)}) {
    auto impatient = scope;
    impatient.patience.kernel = std::chrono::milliseconds(1);
    const auto report = scan(impatient);
    CHECK(report.verdict == Verdict::kResidue);
    CHECK(count(report, ItemKind::kNetns) >= 1);
    CHECK(count(report, ItemKind::kLink) == 1);
    CHECK(count(report, ItemKind::kBpfProgram) == 2);
    CHECK(count(report, ItemKind::kBpfMap) == 11);
    CHECK(count(report, ItemKind::kBpfPin) == 1);
    CHECK(count(report, ItemKind::kMount) >= 1);
    if (router.attach() == netpolicy::Attach::kTcx) {
      CHECK(count(report, ItemKind::kBpfLink) == 2);
    }
  }

  CHECK(netpolicy::disconnect(node.cell(0), node.run_dir).empty());
  {
    auto impatient = scope_of(node, 0, journal.items, true);
    impatient.patience.kernel = std::chrono::milliseconds(1);
    CHECK(count(scan(impatient), ItemKind::kNetns) >= 1);  // our own object still holds its descriptor
  }
  cell.reset();
  const auto start = std::chrono::steady_clock::now();
  expect_clean(scan(scope_of(node, 0, journal.items, true)));
  MESSAGE("scan after the disconnect took "
          << std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() << " ms");

  // The node: the neighbour lives, the router and its spares are no residue.
  residue::NodeScope whole;
  whole.node = node.tag;
  whole.live = {{node.cell(1).uid, 1, other_journal.items}};
  whole.inventory = journal.items;
  whole.paths.run_dir = node.run_dir;
  expect_clean(residue::scan_node(whole, base::Deadline::after(std::chrono::seconds(60))));
  whole.live.clear();
  whole.patience.kernel = std::chrono::milliseconds(1);
  const auto report = residue::scan_node(whole, base::Deadline::after(std::chrono::seconds(60)));
  CHECK(count(report, ItemKind::kLink) == 1);
  CHECK(count(report, ItemKind::kBpfProgram) == 2);
}

int main(int argc, char** argv) {
  if (::geteuid() != 0) {
    std::fprintf(stderr, "skipped: needs root\n");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
