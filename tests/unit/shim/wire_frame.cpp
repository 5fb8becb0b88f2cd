#include <doctest/doctest.h>

#include <string>

#include "shim/wire/frame.hpp"

using namespace cellrund;
using namespace cellrund::wire;

namespace {

struct Seen {
  FrameType type;
  std::string payload;
};

// Feeds `bytes` in pieces of `step` bytes.
std::vector<Seen> parse(FrameParser& parser, base::BytesView bytes, std::size_t step) {
  std::vector<Seen> seen;
  while (!bytes.empty()) {
    base::BytesView piece = bytes.first(std::min(step, bytes.size()));
    bytes = bytes.subspan(piece.size());
    while (const auto frame = parser.next(piece)) {
      seen.push_back({frame->type, std::string(base::as_text(frame->payload))});
    }
  }
  return seen;
}

base::Bytes frames() {
  base::Bytes bytes;
  append_frame(bytes, FrameType::kReady, {});
  append_frame(bytes, FrameType::kStdout, base::as_bytes("hello CRW1 world"));
  append_frame(bytes, FrameType::kStderr, base::Bytes(kMaxPayload, 0x43));
  append_frame(bytes, FrameType::kExit, base::as_bytes("x"));
  return bytes;
}

void check_frames(const std::vector<Seen>& seen) {
  REQUIRE(seen.size() == 4);
  CHECK(seen[0].type == FrameType::kReady);
  CHECK(seen[0].payload.empty());
  CHECK(seen[1].payload == "hello CRW1 world");
  CHECK(seen[2].payload.size() == kMaxPayload);
  CHECK(seen[3].type == FrameType::kExit);
}

}  // namespace

TEST_CASE("crc32 agrees with the check value of its definition") {
  CHECK(crc32(base::as_bytes("123456789")) == 0xCBF43926U);  // CRC-32/ISO-HDLC
}

TEST_CASE("frames survive any cut of the stream") {
  for (const std::size_t step : {std::size_t{1}, std::size_t{3}, std::size_t{15}, std::size_t{16}, std::size_t{17},
                                 std::size_t{4096}, std::size_t{1} << 20U}) {
    CAPTURE(step);
    FrameParser parser;
    check_frames(parse(parser, frames(), step));
    CHECK(parser.skipped() == 0);
  }
}

TEST_CASE("garbage in front is skipped and counted, also when it looks like a header at first") {
  for (const std::string garbage : {"x", "C", "CR", "CRW", "CRW1", "CRCRW", "CRW1CRW1CRW1CRW1CRW1", "\x01\x02\x03"}) {
    for (const std::size_t step : {std::size_t{1}, std::size_t{7}, std::size_t{1} << 20U}) {
      CAPTURE(garbage);
      CAPTURE(step);
      base::Bytes bytes(garbage.begin(), garbage.end());
      const base::Bytes good = frames();
      bytes.insert(bytes.end(), good.begin(), good.end());
      FrameParser parser;
      check_frames(parse(parser, bytes, step));
      CHECK(parser.skipped() == garbage.size());
    }
  }
}

TEST_CASE("a header with one wrong bit is no header") {
  base::Bytes good;
  append_frame(good, FrameType::kReady, {});
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    CAPTURE(bit);
    base::Bytes bad = good;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    bad.insert(bad.end(), kHeaderBytes, 0);  // so that the parser has a whole header to judge after it
    FrameParser parser;
    CHECK(parse(parser, bad, 5).empty());
    CHECK(parser.skipped() > 0);
  }
}

TEST_CASE("a length above the bound is no header, whatever its sum says") {
  base::Bytes bytes;
  append_frame(bytes, FrameType::kStdout, base::Bytes(16));
  const std::uint32_t length = kMaxPayload + 1;
  for (unsigned i = 0; i < 4; ++i) {
    bytes[8 + i] = static_cast<std::uint8_t>(length >> (8 * i));
  }
  const std::uint32_t sum = crc32(base::BytesView(bytes).first(12));
  for (unsigned i = 0; i < 4; ++i) {
    bytes[12 + i] = static_cast<std::uint8_t>(sum >> (8 * i));
  }
  FrameParser parser;
  CHECK(parse(parser, bytes, 64).empty());
  CHECK(parser.skipped() > 0);
}
