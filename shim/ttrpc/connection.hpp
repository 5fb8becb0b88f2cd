// One accepted ttRPC connection: incoming frames to calls, answers to outgoing bytes. Both directions are bounded; a peer
// that floods or does not read its answers loses the connection, never the shim. Owned by Server.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>

#include "base/fd.hpp"
#include "shim/loop.hpp"
#include "shim/ttrpc/frame.hpp"
#include "shim/ttrpc/server.hpp"

namespace cellrund::shim::ttrpc {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Server& server, base::UniqueFd socket) : server_(server), socket_(std::move(socket)) {}

  base::Status start();
  // Leaves the loop and closes. Answers that come later go nowhere.
  void stop();
  void answer(std::uint32_t stream, int code, std::string_view message, std::string_view payload);
  [[nodiscard]] bool flushed() const noexcept { return out_.empty(); }

 private:
  // False: the connection is over and must be closed.
  bool on_ready(std::uint32_t events);
  bool read_some();
  bool write_some();
  bool take(Frame frame);

  Server& server_;
  base::UniqueFd socket_;
  FrameParser parser_;
  std::unordered_set<std::uint32_t> open_streams_;
  std::string out_;
  bool broken_ = false;
};

}  // namespace cellrund::shim::ttrpc
