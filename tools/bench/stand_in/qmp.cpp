#include "tools/bench/stand_in/qmp.hpp"

#include <utility>

namespace cellrund::bench {

// The version is none of QEMU's: it goes into the evidence of every job that ran on this.
StandInQmp::StandInQmp()
    : out_(
          "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 0, \"minor\": 0, \"micro\": 0}, "
          "\"package\": \"bench stand-in, no QEMU\"}, \"capabilities\": []}}\r\n") {}

void StandInQmp::feed(std::string_view bytes) {
  in_ += bytes;
  for (std::size_t end = in_.find('\n'); end != std::string::npos; end = in_.find('\n')) {
    running_ = running_ || std::string_view(in_).substr(0, end).find("\"cont\"") != std::string_view::npos;
    in_.erase(0, end + 1);
    out_ += "{\"return\": {}}\r\n";
  }
}

std::string StandInQmp::take_output() {
  return std::exchange(out_, {});
}

}  // namespace cellrund::bench
