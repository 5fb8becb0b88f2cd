// Fuzz: the ttRPC frame parser and the decoding of what containerd, or whoever reaches the socket, sends. Invariants: a
// frame's payload never exceeds the limit, and the split of the input changes nothing.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "containerd_shim.pb.h"
#include "shim/runtime_options.hpp"
#include "shim/ttrpc/frame.hpp"

using cellrund::base::BytesView;
using cellrund::shim::ttrpc::Frame;
using cellrund::shim::ttrpc::FrameParser;

namespace {

std::vector<Frame> parse(BytesView bytes, std::size_t step) {
  FrameParser parser;
  std::vector<Frame> frames;
  while (!bytes.empty()) {
    BytesView piece = bytes.first(std::min(step, bytes.size()));
    bytes = bytes.subspan(piece.size());
    while (!piece.empty()) {
      if (auto frame = parser.next(piece)) {
        frames.push_back(std::move(*frame));
      }
    }
  }
  return frames;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const BytesView input(data, size);
  const std::vector<Frame> whole = parse(input, size + 1);
  const std::vector<Frame> pieces = parse(input, 3);
  if (whole.size() != pieces.size()) {
    std::abort();
  }
  for (std::size_t i = 0; i < whole.size(); ++i) {
    if (whole[i].payload != pieces[i].payload || whole[i].payload.size() > cellrund::shim::ttrpc::kMaxPayload) {
      std::abort();
    }
    cellrund::shimapi::Request request;
    if (request.ParseFromString(whole[i].payload)) {
      cellrund::shimapi::CreateTaskRequest create;
      (void)create.ParseFromString(request.payload());
    }
  }
  (void)cellrund::shim::config_path_from_start_input(std::string(cellrund::base::as_text(input)), "t1", "default");
  return 0;
}
