// One run of a program, timed by the same clock as a job: from before its start to the first byte on its standard
// output and to its end.
#pragma once

#include <string>
#include <vector>

#include "base/clock.hpp"
#include "tools/bench/sample.hpp"

namespace cellrund::bench {

struct CommandOrder {
  std::vector<std::string> argv;  // argv[0] absolute
  std::vector<std::string> env;
  std::string working_dir;  // empty: ours
  std::string expected;     // standard output
  base::Nanoseconds limit{0};
};

// A sample without failure left with exit code 0 and wrote what was expected. At the limit the program is killed.
[[nodiscard]] Sample run_command_sample(const CommandOrder& order);

}  // namespace cellrund::bench
