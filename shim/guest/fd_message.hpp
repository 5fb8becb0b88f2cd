// Datagrams with descriptors between the agent and the namespace init (unix(7), SCM_RIGHTS).
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::guest {

// As send(2) of one datagram; a negative descriptor is left out.
base::Status send_message(int socket, base::BytesView data, std::initializer_list<int> fds = {});

struct Message {
  base::BytesView data;  // in the caller's buffer; empty: end of file
  std::vector<base::UniqueFd> fds;
};
// nullopt: nothing now (EAGAIN, EINTR). A datagram that does not fit is an error.
base::Result<std::optional<Message>> receive_message(int socket, std::span<std::uint8_t> buffer);

}  // namespace cellrund::guest
