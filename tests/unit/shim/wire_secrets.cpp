#include "shim/wire/secrets.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "shim/wire/host_session.hpp"

using namespace cellrund;
using namespace cellrund::wire;

namespace {

NamedSecret secret(const std::string& name, const std::string& value, long ttl = 0) {
  NamedSecret out{name, std::chrono::seconds(ttl), std::move(base::Secret::create(value.size())).value()};
  std::copy(value.begin(), value.end(), out.value.bytes().begin());
  return out;
}

std::vector<NamedSecret> two() {
  std::vector<NamedSecret> out;
  out.push_back(secret("token", "hunter2", 5));
  out.push_back(secret("key", std::string(kMaxSecretBytes, 'k')));
  return out;
}

}  // namespace

TEST_CASE("secrets survive the socket, and every cut of the message is refused") {
  const base::WipedBytes message = encode_secrets(two());
  const auto back = decode_secrets(message);
  REQUIRE(back.ok());
  REQUIRE(back->size() == 2);
  CHECK(back->front().name == "token");
  CHECK(back->front().ttl.count() == 5);
  CHECK(base::as_text(back->front().value.bytes()) == "hunter2");
  CHECK(back->back().value.bytes().size() == kMaxSecretBytes);
  for (std::size_t size = 0; size < 64; ++size) {
    CHECK_FALSE(decode_secrets(base::BytesView(message).first(size)).ok());
  }
  CHECK_FALSE(decode_secrets(base::BytesView(message).first(message.size() - 1)).ok());
  base::WipedBytes longer = message;
  longer.push_back(0);
  CHECK_FALSE(decode_secrets(longer).ok());
}

TEST_CASE("names that are no plain file names, doubles and lengths beyond the bound are refused") {
  for (const char* name : {"", ".", "..", ".x", "a/b", "a b", "a\n"}) {
    CAPTURE(name);
    CHECK_FALSE(is_secret_name(name));
    std::vector<NamedSecret> list;
    list.push_back(secret(name, "x"));
    CHECK_FALSE(decode_secrets(encode_secrets(list)).ok());
  }
  CHECK_FALSE(is_secret_name(std::string(64, 'a')));
  CHECK(is_secret_name(std::string(63, 'a')));
  std::vector<NamedSecret> doubled;
  doubled.push_back(secret("a", "x"));
  doubled.push_back(secret("a", "y"));
  CHECK_FALSE(decode_secrets(encode_secrets(doubled)).ok());
  std::vector<NamedSecret> large;
  large.push_back(secret("a", std::string(kMaxSecretBytes + 1, 'x')));
  CHECK_FALSE(decode_secrets(encode_secrets(large)).ok());
}

TEST_CASE("a session takes secrets between READY and START, in pieces, and revokes after START") {
  auto session = HostSession::create(HostSession::Mode::kProcess);
  REQUIRE(session.ok());
  const NamedSecret big = secret("big", std::string(kMaxSecretPiece + 1, 'b'));
  CHECK(session->send_secret(big).error().code() == base::Errc::kFailedPrecondition);
  // HELLO carries our nonce behind its protocol number.
  base::Bytes sent(session->output().begin(), session->output().end());
  Nonce nonce{};
  std::copy_n(sent.begin() + kHeaderBytes + 4, nonce.size(), nonce.begin());
  session->consumed(sent.size());
  base::Bytes answer;
  append_frame(answer, FrameType::kHello, encode(GuestHello{kProtocolVersion, {}, nonce, "test"}));
  (void)session->feed(answer);
  Workload workload;
  workload.args = {"/bin/true"};
  REQUIRE(session->send_workload(workload).ok());
  session->consumed(session->output().size());
  base::Bytes ready;
  append_frame(ready, FrameType::kReady, {});
  (void)session->feed(ready);
  REQUIRE(session->send_secret(big).ok());
  REQUIRE(session->start().ok());
  CHECK(session->revoke("big"));
  FrameParser parser;
  base::BytesView rest = session->output();
  std::vector<FrameType> order;
  std::size_t bytes = 0;
  std::string last_name;
  while (const auto frame = parser.next(rest)) {
    order.push_back(frame->type);
    if (frame->type == FrameType::kSecret) {
      const auto piece = decode_secret_piece(frame->payload);
      REQUIRE(piece.ok());
      bytes += piece->bytes.size();
      CHECK(piece->last == (order.size() == 2));
    } else if (frame->type == FrameType::kRevoke) {
      last_name = *decode_revoke(frame->payload);
    }
  }
  CHECK(order == std::vector<FrameType>{FrameType::kSecret, FrameType::kSecret, FrameType::kStart, FrameType::kRevoke});
  CHECK(bytes == kMaxSecretPiece + 1);
  CHECK(last_name == "big");
  CHECK(session->send_secret(big).error().code() == base::Errc::kFailedPrecondition);
}
