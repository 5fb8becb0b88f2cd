// What the raw boot starts: a command line of QEMU that the product was seen to run, the descriptors that it names, and
// the workload for the guest. From JSON, made by the runner from a live cell.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::bench {

struct BootPlan {
  struct File {
    int number = -1;  // inside QEMU
    std::string path;
    bool writable = false;
  };

  std::vector<std::string> argv;
  int qmp = -1;
  int agent = -1;
  int tap = -1;
  std::vector<File> files;
  wire::Workload workload;
  std::string expected;  // standard output
  base::Nanoseconds limit{0};
};

base::Result<BootPlan> parse_boot_plan(std::string_view json);

}  // namespace cellrund::bench
