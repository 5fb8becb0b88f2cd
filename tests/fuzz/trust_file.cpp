// Trust files are the operator's, but a parser that crashes on a typing error takes the daemon down. Property: what is
// accepted and written out again reads back as the same grant.
#include <cstdint>
#include <cstdlib>

#include "admit/glob.hpp"
#include "admit/trust.hpp"
#include "base/file.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cellrund;
  if (size > 64UL * 1024) {
    return 0;
  }
  const auto grants = admit::parse_trust_file(base::as_text({data, size}), "fuzz.toml");
  if (!grants.ok()) {
    return 0;
  }
  for (const admit::Grant& grant : *grants) {
    const std::string text = admit::format_trust_file(grant);
    const auto again = admit::parse_trust_file(text, "again.toml");
    if (!again.ok() || again->size() != 1 || admit::format_trust_file(again->front()) != text) {
      std::abort();
    }
    for (const std::string& pattern : grant.images) {
      (void)admit::glob_match(pattern, "registry.example/agents/python");
    }
  }
  return 0;
}
