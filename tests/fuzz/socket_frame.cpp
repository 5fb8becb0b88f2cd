// Any byte stream into a session of the native socket: frames, decoding, dispatch and authorisation.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#include "api/messages.hpp"
#include "base/fd.hpp"
#include "daemon/session.hpp"
#include "fake_node.hpp"

using namespace cellrund;
using daemon_test::FakeNode;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint32_t kPeer = 4242;
  constexpr std::size_t kMaxInput = 65536;  // fits the socket's buffer, so that one thread can play both sides
  if (size > kMaxInput) {
    return 0;
  }
  // The client's side reads what a daemon sent; the same bytes must not harm it either.
  (void)api::decode_response({data, size});

  FakeNode node;
  node.add(daemon_test::kMine, kPeer);
  node.add(daemon_test::kOther, kPeer + 1);
  node.close(daemon_test::kMine);  // streams end at once
  daemon::Config::Limits limits;
  limits.send_seconds = 0;  // a peer that reads nothing is left when its buffer is full
  daemon::RefusalBudget refusals(limits.refusals_per_second);
  const std::atomic<bool> stopping = false;
  const daemon::SessionContext context{node, refusals, limits, "0", "fuzz", stopping};
  base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  if (size > 0 && !base::write_all(pair.theirs.get(), {data, size}).ok()) {
    std::abort();
  }
  if (::shutdown(pair.theirs.get(), SHUT_WR) != 0) {
    std::abort();
  }
  daemon::Session(context, pair.ours.get(), {kPeer, kPeer, 1}, daemon::Door::kOrdinary).run();
  // Whatever was said: no foreign job was touched, and nothing that root alone may do was done.
  const FakeNode::State after = node.snapshot();
  if (after.draining || after.jobs.at(daemon_test::kOther).cancelled || after.jobs.at(daemon_test::kMine).by_operator) {
    std::abort();
  }
  return 0;
}
