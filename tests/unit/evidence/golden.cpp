#include "golden.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include "base/file.hpp"

namespace cellrund::evidence::test {

void check_golden(const std::string& name, const std::string& text) {
  const std::string path = std::string(CELLRUN_GOLDEN_DIR) + "/" + name;
  const char* accept = secure_getenv("CELLRUN_ACCEPT");
  if (accept != nullptr && std::string(accept) == "1") {
    REQUIRE(base::write_file_atomic(path, text, 0644).ok());
    return;
  }
  const auto golden = base::read_file(path, 1UL << 20U);
  REQUIRE(golden.ok());
  CHECK(text == *golden);
}

}  // namespace cellrund::evidence::test
