// Bytes of a hostile guest through the frame parser and the host's session, in two different cuts: both must see the
// same events, and memory stays bounded.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "shim/wire/host_session.hpp"

using namespace cellrund;
using namespace cellrund::wire;

namespace {

// The whole input at once, or byte by byte.
std::size_t drive(base::BytesView bytes, std::size_t step, bool answer_hello) {
  HostSession host = HostSession::create(HostSession::Mode::kMicrovm).value();
  std::size_t events = 0;
  Process process;
  process.args = {"true"};
  const base::Bytes input(kStdinWindow, 'i');
  if (answer_hello) {
    base::BytesView out = host.output();
    FrameParser parser;
    const auto hello = decode_host_hello(parser.next(out)->payload).value();
    base::Bytes answer;
    append_frame(answer, FrameType::kHello, encode(GuestHello{kProtocolVersion, {}, hello.nonce, "fuzz"}));
    events += host.feed(answer).size();
    Workload workload;
    workload.args = {"true"};
    (void)host.send_workload(workload);
  }
  while (!bytes.empty()) {
    const base::BytesView piece = bytes.first(std::min(step, bytes.size()));
    bytes = bytes.subspan(piece.size());
    for (const Event& event : host.feed(piece)) {
      ++events;
      if (std::holds_alternative<ReadyEvent>(event)) {
        (void)host.start();
      } else if (const auto* started = std::get_if<StartedEvent>(&event)) {
        if (started->process == 0) {
          (void)host.exec(process);
          (void)host.exec(process);
        }
      } else if (const auto* output = std::get_if<OutputEvent>(&event)) {
        host.grant(output->stream, output->data.size(), output->process);
      } else if (const auto* room = std::get_if<StdinRoomEvent>(&event)) {
        (void)host.write_stdin(input, room->process);
      } else if (const auto* exit = std::get_if<ExitEvent>(&event)) {
        (void)host.exec(process);
        host.signal(15, exit->process);
      }
    }
    if (host.output().size() > HostSession::kMaxOutput) {
      std::abort();
    }
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const base::BytesView bytes(data, size);
  for (const bool answer_hello : {false, true}) {
    // START is said between the pieces, so only the parser's part of the work may be cut at will.
    (void)drive(bytes, 1, answer_hello);
    (void)drive(bytes, size + 1, answer_hello);
  }
  FrameParser whole;
  FrameParser bytewise;
  std::size_t seen_whole = 0;
  std::size_t seen_bytewise = 0;
  base::BytesView all = bytes;
  while (whole.next(all)) {
    ++seen_whole;
  }
  for (std::size_t i = 0; i < size; ++i) {
    base::BytesView one = bytes.subspan(i, 1);
    while (bytewise.next(one)) {
      ++seen_bytewise;
    }
  }
  if (seen_whole != seen_bytewise || whole.skipped() != bytewise.skipped()) {
    std::abort();
  }
  (void)decode_process(bytes);
  (void)decode_workload(bytes);  // from our own host, but no reason to trust it less carefully
  return 0;
}
