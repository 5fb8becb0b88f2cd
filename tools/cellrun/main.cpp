// cellrun: what an operator and a submitter type. See cellrun(1).
#include <unistd.h>

#include <exception>
#include <new>
#include <string>
#include <vector>

#include "command.hpp"

extern char** environ;  // NOLINT(readability-redundant-declaration): unistd.h has it only with _GNU_SOURCE

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
    std::vector<std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      environment.emplace_back(*entry);
    }
    return cellrund::cli::run_cli(words, environment);
  } catch (const std::exception& error) {  // out of memory, or a bug: nothing else throws
    cellrund::cli::remark(std::string("cellrun: ") + error.what() + " (Unknown)\n");
    return cellrund::cli::kExitOurs;
  }
}
