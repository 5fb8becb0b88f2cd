#include "api/frame.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <thread>

#include "base/fd.hpp"
#include "base/file.hpp"

using namespace cellrund;
using namespace std::chrono_literals;
using api::read_frame;
using api::write_frame;

namespace {

constexpr std::size_t kLimit = 1024;

void send_raw(int fd, std::string_view bytes) { REQUIRE(base::write_all(fd, base::as_bytes(bytes)).ok()); }

}  // namespace

TEST_CASE("frames come out as they went in, also large ones and empty ones") {
  const base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  const std::string large(std::size_t{3} << 20U, 'x');
  const std::jthread writer([&] {
    for (const std::string& body : {std::string("hello"), std::string(), large}) {
      (void)write_frame(pair.theirs.get(), body, base::Deadline::after(10s));
    }
    (void)::shutdown(pair.theirs.get(), SHUT_WR);
  });
  CHECK(read_frame(pair.ours.get(), api::kMaxResponseBytes, 10s, 10s).value() == "hello");
  CHECK(read_frame(pair.ours.get(), api::kMaxResponseBytes, 10s, 10s).value() == "");
  CHECK(read_frame(pair.ours.get(), api::kMaxResponseBytes, 10s, 10s).value() == large);
  CHECK_FALSE(read_frame(pair.ours.get(), api::kMaxResponseBytes, 10s, 10s).value().has_value());
}

TEST_CASE("a length above the limit is refused before anything of the body is read") {
  const base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  send_raw(pair.theirs.get(), std::string("\x00\x00\x04\x01", 4));
  CHECK(read_frame(pair.ours.get(), kLimit, 1s, 1s).error().code() == base::Errc::kResourceExhausted);
  send_raw(pair.theirs.get(), std::string("\xff\xff\xff\xff", 4));
  CHECK(read_frame(pair.ours.get(), kLimit, 1s, 1s).error().code() == base::Errc::kResourceExhausted);
}

TEST_CASE("a peer that stops inside a frame is told from one that closes between frames") {
  SUBCASE("inside the length") {
    base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
    send_raw(pair.theirs.get(), std::string("\x00\x00", 2));
    pair.theirs.reset();
    CHECK(read_frame(pair.ours.get(), kLimit, 1s, 1s).error().code() == base::Errc::kUnavailable);
  }
  SUBCASE("inside the body") {
    base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
    send_raw(pair.theirs.get(), std::string("\x00\x00\x00\x05hel", 7));
    pair.theirs.reset();
    CHECK(read_frame(pair.ours.get(), kLimit, 1s, 1s).error().code() == base::Errc::kUnavailable);
  }
}

TEST_CASE("a peer that sends nothing or too slowly runs out of budget") {
  const base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  SUBCASE("silent") { CHECK(read_frame(pair.ours.get(), kLimit, 10ms, 10s).error().code() == base::Errc::kDeadlineExceeded); }
  SUBCASE("silent after the first byte") {
    send_raw(pair.theirs.get(), std::string("\x00", 1));
    CHECK(read_frame(pair.ours.get(), kLimit, 10s, 10ms).error().code() == base::Errc::kDeadlineExceeded);
  }
}

TEST_CASE("a peer that does not read does not hold the writer for ever") {
  const base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  const std::string large(std::size_t{3} << 20U, 'x');
  const base::Status sent = write_frame(pair.ours.get(), large, base::Deadline::after(20ms));
  REQUIRE_FALSE(sent.ok());
  CHECK(sent.error().code() == base::Errc::kDeadlineExceeded);
}

TEST_CASE("writing to a closed peer is an error and no signal") {
  base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  pair.theirs.reset();
  CHECK_FALSE(write_frame(pair.ours.get(), "x", base::Deadline::after(1s)).ok());
}

TEST_CASE("a passed descriptor ends the connection and never enters our table") {
  const base::SocketPair pair = base::make_socket_pair(SOCK_STREAM).value();
  const base::UniqueFd file = base::open_file("/dev/null", O_RDONLY).value();
  const int next_free = base::open_file("/dev/null", O_RDONLY).value().get();

  std::string bytes("\x00\x00\x00\x01x", 5);
  iovec chunk{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &chunk;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int passed = file.get();
  std::memcpy(CMSG_DATA(header), &passed, sizeof(passed));
  REQUIRE(::sendmsg(pair.theirs.get(), &message, 0) == 5);

  CHECK(read_frame(pair.ours.get(), kLimit, 1s, 1s).error().code() == base::Errc::kPermissionDenied);
  CHECK(base::open_file("/dev/null", O_RDONLY).value().get() == next_free);
}
