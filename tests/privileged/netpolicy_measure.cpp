// Prints how long a cell's network takes to make and to remove. No assertion: numbers are for people.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "netpolicy/router.hpp"

using namespace cellrund;

namespace {

class NoJournal final : public model::Journal {
 public:
  base::Status intend(const model::Inventory&) override { return base::ok(); }
  base::Status created(const model::InventoryItem&) override { return base::ok(); }
};

double ms_since(base::BootTime start) {
  return static_cast<double>((base::BootTime::now() - start).count()) / 1e6;
}

void print(const char* what, std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::printf("%-12s n=%zu p50=%.2f p90=%.2f max=%.2f ms\n", what, values.size(), values[values.size() / 2],
              values[values.size() * 9 / 10], values.back());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s RUN_DIR auto|tcx|clsact\n", argv[0]);
    return 64;
  }
  const auto attach = netpolicy::parse_attach(argv[2]);
  if (!attach.ok()) {
    return 64;
  }
  const std::string run_dir = argv[1];
  const model::NodeTag node{"ffff0001"};
  if (!base::make_dirs(run_dir, 0700).ok()) {
    return 1;
  }
  base::BootTime start = base::BootTime::now();
  const auto router = netpolicy::Router::open({run_dir, node, *attach});
  if (!router.ok()) {
    std::fprintf(stderr, "%s\n", router.error().message().c_str());
    return 1;
  }
  std::printf("open %.2f ms, attach=%s\n", ms_since(start), std::string(to_string(router->attach())).c_str());
  std::vector<double> up, verify, read, down;
  NoJournal journal;
  int status = 0;
  for (std::uint32_t i = 0; i < 50; ++i) {
    char uid[37];
    std::snprintf(uid, sizeof uid, "0199c1f2-7b1e-7c3a-9d2e-%012x", i);
    const model::CellName name{node, uid, i};
    {
      start = base::BootTime::now();
      const auto cell = router->connect(name, journal);
      up.push_back(ms_since(start));
      if (!cell.ok()) {
        std::fprintf(stderr, "%s\n", cell.error().message().c_str());
        status = 1;
      } else {
        start = base::BootTime::now();
        status |= cell->verify_attached().ok() ? 0 : 1;
        verify.push_back(ms_since(start));
        start = base::BootTime::now();
        status |= cell->read_facts().ok() ? 0 : 1;
        read.push_back(ms_since(start));
      }
    }
    start = base::BootTime::now();
    for (const std::string& failure : netpolicy::disconnect(name, run_dir)) {
      std::fprintf(stderr, "%s\n", failure.c_str());
      status = 1;
    }
    down.push_back(ms_since(start));
    if (status != 0) {
      break;
    }
  }
  print("connect", up);
  if (!verify.empty()) {
    print("verify", verify);
    print("read_facts", read);
  }
  print("disconnect", down);
  for (const std::string& failure : netpolicy::Router::destroy(run_dir, node)) {
    std::fprintf(stderr, "%s\n", failure.c_str());
    status = 1;
  }
  return status;
}
