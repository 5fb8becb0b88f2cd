#include "shim/process_stdio.hpp"

namespace cellrund::shim {

using base::Result;

Result<std::unique_ptr<ProcessStdio>> ProcessStdio::open(Loop& loop, const StdioPaths& paths,
                                                         const std::unique_ptr<Machine>& machine, const OpenFifo& opener) {
  std::unique_ptr<ProcessStdio> stdio(new ProcessStdio(machine, paths.terminal));
  ProcessStdio* const self = stdio.get();
  const auto granting = [self](wire::Stream stream) {
    return [self, stream](std::size_t bytes) {
      self->machine_->with_session([&](wire::HostSession& s) { s.grant(stream, bytes, self->number_); });
    };
  };
  stdio->out_ = CR_TRY(OutputFifo::open(loop, paths.out, granting(wire::Stream::kStdout), opener));
  stdio->err_ = CR_TRY(OutputFifo::open(loop, paths.terminal ? "" : paths.err, granting(wire::Stream::kStderr), opener));
  InputFifo::Sink sink;
  sink.take = [self](base::BytesView bytes) {
    return self->machine_->with_session([&](wire::HostSession& s) { return s.write_stdin(bytes, self->number_); });
  };
  sink.end = [self] { self->machine_->with_session([self](wire::HostSession& s) { s.close_stdin(self->number_); }); };
  stdio->in_ = CR_TRY(InputFifo::open(loop, paths.in, std::move(sink), paths.terminal, opener));
  return stdio;
}

void ProcessStdio::start(std::uint32_t number) {
  number_ = number;
  in_->start();
}

void ProcessStdio::push(wire::Stream stream, base::BytesView bytes) {
  (stream == wire::Stream::kStderr ? err_ : out_)->push(bytes);
}

void ProcessStdio::say(std::string_view line) {
  (terminal_ ? out_ : err_)->push(base::as_bytes(std::string(line) + (terminal_ ? "\r\n" : "\n")));
}

void ProcessStdio::finish() {
  in_->stop();
  out_->finish();
  err_->finish();
}

}  // namespace cellrund::shim
