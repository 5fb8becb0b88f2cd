#include "shim/ttrpc/frame.hpp"

#include <doctest/doctest.h>

using namespace cellrund;
using shim::ttrpc::encode_frame;
using shim::ttrpc::Frame;
using shim::ttrpc::FrameParser;
using shim::ttrpc::FrameType;

namespace {

std::vector<Frame> parse(FrameParser& parser, std::string_view text) {
  std::vector<Frame> frames;
  base::BytesView bytes = base::as_bytes(text);
  while (!bytes.empty()) {
    if (std::optional<Frame> frame = parser.next(bytes)) {
      frames.push_back(std::move(*frame));
    }
  }
  return frames;
}

}  // namespace

TEST_CASE("a frame survives any split of its bytes") {
  const std::string wire = encode_frame(7, FrameType::kRequest, "payload") + encode_frame(9, FrameType::kResponse, "");
  for (std::size_t cut = 0; cut <= wire.size(); ++cut) {
    FrameParser parser;
    std::vector<Frame> frames = parse(parser, wire.substr(0, cut));
    for (Frame& frame : parse(parser, wire.substr(cut))) {
      frames.push_back(std::move(frame));
    }
    REQUIRE(frames.size() == 2);
    CHECK(frames[0].stream == 7);
    CHECK(frames[0].type == 1);
    CHECK(frames[0].payload == "payload");
    CHECK(frames[1].stream == 9);
    CHECK(frames[1].payload.empty());
    CHECK_FALSE(frames[1].too_long);
  }
}

TEST_CASE("a payload over the limit is discarded without being kept, and the next frame is found") {
  std::string wire = encode_frame(1, FrameType::kRequest, "");
  const std::size_t length = shim::ttrpc::kMaxPayload + 1;
  for (int i = 0; i < 4; ++i) {
    wire[static_cast<std::size_t>(i)] = static_cast<char>((length >> (24 - 8 * i)) & 0xff);
  }
  wire += std::string(length, 'x') + encode_frame(3, FrameType::kRequest, "next");
  FrameParser parser;
  const std::vector<Frame> frames = parse(parser, wire);
  REQUIRE(frames.size() == 2);
  CHECK(frames[0].too_long);
  CHECK(frames[0].payload.empty());
  CHECK(frames[1].payload == "next");
}

TEST_CASE("a declared length costs nothing before the bytes arrive") {
  std::string wire = encode_frame(1, FrameType::kRequest, "");
  wire[1] = '\x40';  // 4 MiB
  FrameParser parser;
  CHECK(parse(parser, wire).empty());
}
