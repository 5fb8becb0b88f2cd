// bench-sampler SOCKET JOB.key NODE.pub: takes orders from its standard input, one JSON object a line, and answers each
// with its sample. It stays up between samples, so that both sides of a pair are timed by one process that is warm.
//
//   {"do": "job", "spec": {…}, "expected": "42\n", "limitMs": 60000}
//   {"do": "command", "argv": […], "env": […], "cwd": "", "expected": "42\n", "limitMs": 60000}
#include <cstdio>
#include <iostream>
#include <string>

#include "base/json.hpp"
#include "tools/bench/sampler/command.hpp"
#include "tools/bench/sampler/job.hpp"

namespace {

using namespace cellrund;

constexpr std::size_t kMaxOrder = 64UL * 1024;

base::Result<bench::Sample> obey(const bench::JobSampler& jobs, const std::string& line) {
  const base::json::Value order = CR_TRY(base::json::parse(line, {.max_bytes = kMaxOrder}));
  const std::string what = CR_TRY(bench::text(order, "do"));
  const std::string expected = CR_TRY(bench::text(order, "expected"));
  const auto limit = std::chrono::milliseconds(CR_TRY(bench::integer(order, "limitMs")));
  if (what == "command") {
    return bench::run_command_sample({CR_TRY(bench::texts(order, "argv")), CR_TRY(bench::texts(order, "env")),
                                      CR_TRY(bench::text(order, "cwd")), expected, limit});
  }
  const base::json::Value* spec = order.find("spec");
  if (what != "job" || spec == nullptr || spec->as_object() == nullptr) {
    return base::Error(base::Errc::kInvalidArgument, "neither a job with its spec nor a command");
  }
  return jobs.run({*spec->as_object(), expected, limit});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: bench-sampler SOCKET JOB.key NODE.pub\n", stderr);
    return 64;
  }
  const auto jobs = bench::JobSampler::create(argv[1], argv[2], argv[3]);
  if (!jobs.ok()) {
    std::fprintf(stderr, "bench-sampler: %s\n", jobs.error().message().c_str());
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const auto sample = obey(*jobs, line);
    if (!sample.ok()) {
      std::fprintf(stderr, "bench-sampler: order: %s\n", sample.error().message().c_str());
      return 64;
    }
    std::printf("%s\n", base::json::write(bench::to_json(*sample)).c_str());
    if (std::fflush(stdout) != 0) {
      return 1;
    }
  }
  return 0;
}
