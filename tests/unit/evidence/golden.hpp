#pragma once

#include <string>

namespace cellrund::evidence::test {

// Compares with tests/golden/<name>; with CELLRUN_ACCEPT=1 in the environment it writes the file instead.
void check_golden(const std::string& name, const std::string& text);

}  // namespace cellrund::evidence::test
