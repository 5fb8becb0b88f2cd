#include "tools/bench/stand_in/guest.hpp"

#include <optional>
#include <utility>

#include "shim/wire/workload.hpp"

namespace cellrund::bench {
namespace {

using base::Errc;
using base::Error;
using wire::FrameType;

// It claims no kernel, since there is none.
constexpr const char* kRelease = "none-bench-stand-in";

std::string echo(const std::vector<std::string>& args) {
  std::string out;
  for (std::size_t i = 1; i < args.size(); ++i) {
    out += (i == 1 ? "" : " ") + args[i];
  }
  return out + "\n";
}

}  // namespace

base::Status StandInGuest::feed(base::BytesView bytes) {
  while (const std::optional<wire::FrameView> frame = parser_.next(bytes)) {
    CR_CHECK(on_frame(*frame));
  }
  return base::ok();
}

base::Bytes StandInGuest::take_output() {
  return std::exchange(output_, {});
}

base::Status StandInGuest::on_frame(const wire::FrameView& frame) {
  switch (frame.type) {
    case FrameType::kHello: {
      const wire::HostHello hello = CR_TRY(wire::decode_host_hello(frame.payload));
      wire::append_frame(output_, FrameType::kHello,
                         wire::encode(wire::GuestHello{wire::kProtocolVersion, nonce_, hello.nonce, kRelease}));
      return base::ok();
    }
    case FrameType::kWorkload:
      if (workload_.size() + frame.payload.size() > wire::kMaxWorkloadBytes) {
        return Error(Errc::kResourceExhausted, "a workload without end");
      }
      workload_.insert(workload_.end(), frame.payload.begin(), frame.payload.end());
      if (frame.payload.size() < wire::kMaxPayload) {  // the last piece
        wire::append_frame(output_, FrameType::kReady, {});
      }
      return base::ok();
    case FrameType::kStart: {
      const wire::Start start = CR_TRY(wire::decode_start(frame.payload));
      if (start.echo != nonce_) {
        return Error(Errc::kInvalidArgument, "START for another guest");
      }
      const wire::Workload workload = CR_TRY(wire::decode_workload(workload_));
      wire::append_frame(output_, FrameType::kStarted, {});
      wire::append_frame(output_, FrameType::kStdout, base::as_bytes(echo(workload.args)));
      wire::append_frame(output_, FrameType::kExit, wire::encode(wire::Exit{}));
      return base::ok();
    }
    case FrameType::kEntropy:
    case FrameType::kSecret:
    case FrameType::kRevoke:
    case FrameType::kClock:
    case FrameType::kStdin:
    case FrameType::kStdinClose:
    case FrameType::kCredit:
    case FrameType::kSignal:
    case FrameType::kResize:
    case FrameType::kExec:
    case FrameType::kShutdown:
      return base::ok();  // nothing here has a clock, a stdin or a process to signal
    case FrameType::kReady:
    case FrameType::kStarted:
    case FrameType::kStdout:
    case FrameType::kStderr:
    case FrameType::kExit:
      break;
  }
  return Error(Errc::kInvalidArgument, "a frame that only a guest sends");
}

}  // namespace cellrund::bench
