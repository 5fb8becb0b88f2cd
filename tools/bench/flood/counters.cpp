#include "tools/bench/flood/counters.hpp"

#include <charconv>
#include <string>

#include "base/file.hpp"

namespace cellrund::bench {

base::Result<std::uint64_t> link_counter(std::string_view interface, LinkCounter counter) {
  const std::string text = CR_TRY(base::read_file("/proc/thread-self/net/dev", 65536));
  std::size_t at = text.find(std::string(interface) + ":");
  std::uint64_t value = 0;
  for (int column = 0; column < static_cast<int>(counter) && at != std::string::npos; ++column) {
    at = text.find_first_of(" :", at);
    at = text.find_first_not_of(" :", at);
    if (at != std::string::npos) {
      (void)std::from_chars(text.data() + at, text.data() + text.size(), value);
    }
  }
  if (at == std::string::npos) {
    return base::Error(base::Errc::kNotFound, "no " + std::string(interface) + " here");
  }
  return value;
}

}  // namespace cellrund::bench
