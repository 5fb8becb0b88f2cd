// Bytes of a hostile guest and of a hostile network through the resolver: what it makes of them stays within its
// bounds, nothing is told to the cell that the daemon did not accept, and nobody is asked for what the policy does not
// name.
#include <cstdint>
#include <cstdlib>

#include "netpolicy/resolver/engine.hpp"

using namespace cellrund;
using namespace cellrund::netpolicy::resolver;

namespace {

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// One effect after the other, as the server carries them out; the daemon accepts every second address.
void settle(Engine& engine, base::BootTime now) {
  for (const Effect& effect : engine.take()) {
    if (const auto* reply = std::get_if<SendReply>(&effect); reply != nullptr) {
      require(reply->message.size() >= 12 && (reply->client.stream || reply->message.size() <= kMaxDatagram));
    } else if (const auto* ask = std::get_if<AskUpstream>(&effect); ask != nullptr) {
      const auto asked = parse_query(ask->message);
      require(asked.has_value() && asked->type == kTypeA &&
              (asked->name == "api.example.com" || asked->name.ends_with(".wild.example")));
    } else if (const auto* tell = std::get_if<Tell>(&effect); tell != nullptr) {
      const base::Bytes bytes = encode(tell->message);
      require(bytes.size() <= kMaxChannelMessage && decode_from_resolver(bytes).has_value());
      if (const auto* proposal = std::get_if<Proposal>(&tell->message); proposal != nullptr) {
        require(proposal->addresses.size() <= kMaxAddresses && proposal->name.size() <= model::HostName::kLongest);
        engine.decided({proposal->lookup, 0x5555555555555555ULL}, now);
      }
    }
  }
}

}  // namespace

// The first byte says where the bytes come from; pieces are told apart by their length in front.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  base::BytesView rest(data, size);
  (void)decode_from_resolver(rest);
  (void)decode_decision(rest);
  (void)parse_answer(rest, 7, "api.example.com");
  Engine engine({{{"api.example.com", false}, {"wild.example", true}}, {1, 2}, 50}, [] { return std::uint16_t{7}; });
  base::BootTime now{1'000'000'000};
  while (rest.size() > 2) {
    const std::uint8_t kind = rest[0];
    const std::size_t length = std::min<std::size_t>(rest[1] * 4U, rest.size() - 2);
    const base::BytesView piece = rest.subspan(2, length);
    rest = rest.subspan(2 + length);
    now = now + std::chrono::milliseconds(kind);
    if (kind % 4 == 0) {
      engine.answer(kind / 4U % 8U, piece, now);
    } else if (kind % 4 == 1) {
      engine.tick(now);
    } else {
      engine.query({kind, kind % 4 == 3}, piece, now);
    }
    settle(engine, now);
    settle(engine, now);
  }
  return 0;
}
