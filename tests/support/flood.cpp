// flood-sender ADDRESS PACKETS PER_SECOND TARGETS: a flood from the cell whose namespace this runs in. Prints how many
// packets left the cell. For tests/e2e.
#include <charconv>
#include <cstdio>
#include <string_view>

#include "model/ipv4.hpp"
#include "tools/bench/flood/sender.hpp"

int main(int argc, char** argv) {
  using namespace cellrund;
  const auto number = [&](int at) {
    std::uint64_t value = 0;
    const std::string_view text = argv[at];
    (void)std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
  };
  const auto source =
      argc == 5 ? model::parse_ipv4(argv[1]) : base::Error(base::Errc::kInvalidArgument, "four arguments");
  if (!source.ok()) {
    std::fputs("usage: flood-sender ADDRESS PACKETS PER_SECOND TARGETS\n", stderr);
    return 64;
  }
  const std::atomic<bool> stop{false};
  const auto done = bench::send_flood({*source, number(2), number(3), static_cast<std::uint32_t>(number(4))}, stop);
  if (!done.ok()) {
    std::fprintf(stderr, "flood-sender: %s\n", done.error().message().c_str());
    return 1;
  }
  std::printf("%llu\n", static_cast<unsigned long long>(done->sent - done->refused));
  return 0;
}
