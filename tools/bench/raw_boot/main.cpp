// bench-raw-boot PLAN.json: boots once, prints its sample. Expects to be the first process of a pid namespace and alone
// in a network namespace, so that nothing outlives it:
//
//   unshare --net --pid --fork --kill-child --mount-proc bench-raw-boot PLAN.json
#include <unistd.h>

#include <cstdio>

#include "base/file.hpp"
#include "base/json.hpp"
#include "tools/bench/raw_boot/boot.hpp"

int main(int argc, char** argv) {
  using namespace cellrund;
  constexpr std::size_t kMaxPlan = 256UL * 1024;
  if (argc != 2 || ::getpid() != 1) {
    std::fputs("usage: unshare --net --pid --fork --kill-child --mount-proc bench-raw-boot PLAN.json\n", stderr);
    return 64;
  }
  const auto text = base::read_file(argv[1], kMaxPlan);
  const auto plan = text.ok() ? bench::parse_boot_plan(*text) : base::Result<bench::BootPlan>(text.error().clone());
  if (!plan.ok()) {
    std::fprintf(stderr, "bench-raw-boot: plan: %s\n", plan.error().message().c_str());
    return 64;
  }
  std::printf("%s\n", base::json::write(bench::to_json(bench::raw_boot(*plan))).c_str());
  return 0;
}
