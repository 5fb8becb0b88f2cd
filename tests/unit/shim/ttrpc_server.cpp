#include "shim/ttrpc/server.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "containerd_shim.pb.h"
#include "shim/ttrpc/frame.hpp"

using namespace cellrund;
using namespace cellrund::shim;

namespace {

// A listening socket in the abstract namespace, named by the kernel (unix(7), "autobind").
struct Listener {
  base::UniqueFd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  sockaddr_un name{};
  socklen_t size = sizeof(name);
  Listener() {
    sockaddr_un any{};
    any.sun_family = AF_UNIX;
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof(sa_family_t)) == 0);
    REQUIRE(::listen(fd.get(), 4) == 0);
    REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &size) == 0);
  }
  [[nodiscard]] base::UniqueFd connect() const {
    base::UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(client.get(), reinterpret_cast<const sockaddr*>(&name), size) == 0);
    return client;
  }
};

void send_request(int fd, std::uint32_t stream, const std::string& method) {
  shimapi::Request request;
  request.set_service("s");
  request.set_method(method);
  request.set_payload("body");
  const std::string frame = ttrpc::encode_frame(stream, ttrpc::FrameType::kRequest, request.SerializeAsString());
  REQUIRE(base::write_all(fd, base::as_bytes(frame)).ok());
}

struct Answer {
  std::uint32_t stream = 0;
  shimapi::Response response;
};

Answer read_answer(int fd) {
  std::array<std::uint8_t, 10> header{};
  REQUIRE(::recv(fd, header.data(), header.size(), MSG_WAITALL) == std::ssize(header));
  const std::size_t length = (std::size_t{header[2]} << 8U) | header[3];
  base::Bytes payload(length);
  REQUIRE(::recv(fd, payload.data(), payload.size(), MSG_WAITALL) == std::ssize(payload));
  Answer answer;
  answer.stream = header[7];
  REQUIRE(answer.response.ParseFromArray(payload.data(), static_cast<int>(payload.size())));
  return answer;
}

// Runs the loop in its own thread until the test body is through.
struct Running {
  explicit Running(ttrpc::Server::Handler handler) {
    auto made = Loop::create();
    REQUIRE(made.ok());
    loop = std::make_unique<Loop>(std::move(*made));
    auto stop_pipe = base::make_pipe();
    REQUIRE(stop_pipe.ok());
    stop = std::move(*stop_pipe);
    REQUIRE(loop->watch(stop.read.get(), 1, [this](std::uint32_t) { loop->stop(); }).ok());
    auto created = ttrpc::Server::create(*loop, std::move(listener.fd), std::move(handler));
    REQUIRE(created.ok());
    server = std::move(*created);
    thread = std::jthread([this] { (void)loop->run(); });
  }
  ~Running() {
    stop.write.reset();
    thread.join();
  }
  Listener listener;
  std::unique_ptr<Loop> loop;
  base::Pipe stop;
  std::unique_ptr<ttrpc::Server> server;
  std::jthread thread;
};

}  // namespace

TEST_CASE("answers come in any order, each on its own stream, and errors keep their code") {
  std::vector<ttrpc::Reply> kept;
  Running running([&](ttrpc::Call call, ttrpc::Reply reply) {
    if (call.method == "Wait") {
      kept.push_back(std::move(reply));
    } else if (call.method == "Fail") {
      std::move(reply).fail(base::Error(base::Errc::kNotFound, "no such task"));
    } else {
      std::move(reply).send(call.payload);
      for (ttrpc::Reply& waiter : kept) {
        std::move(waiter).send("at last");
      }
      kept.clear();
    }
  });
  const base::UniqueFd client = running.listener.connect();
  send_request(client.get(), 1, "Wait");
  send_request(client.get(), 3, "Fail");
  send_request(client.get(), 5, "Echo");
  const Answer failed = read_answer(client.get());
  CHECK(failed.stream == 3);
  CHECK(failed.response.status().code() == 5);
  CHECK(failed.response.status().message() == "no such task");
  const Answer echoed = read_answer(client.get());
  CHECK(echoed.stream == 5);
  CHECK(echoed.response.payload() == "body");
  const Answer waited = read_answer(client.get());
  CHECK(waited.stream == 1);
  CHECK(waited.response.payload() == "at last");
}

TEST_CASE("an even stream id, a response frame and garbage each end the connection, and the next one is served") {
  Running running([](ttrpc::Call, ttrpc::Reply reply) { std::move(reply).send("ok"); });
  const std::array<std::string, 3> hostile{ttrpc::encode_frame(2, ttrpc::FrameType::kRequest, ""),
                                           ttrpc::encode_frame(1, ttrpc::FrameType::kResponse, ""),
                                           std::string(10, '\0')};
  for (const std::string& bytes : hostile) {
    const base::UniqueFd client = running.listener.connect();
    REQUIRE(base::write_all(client.get(), base::as_bytes(bytes)).ok());
    char byte = 0;
    CHECK(::read(client.get(), &byte, 1) <= 0);
  }
  const base::UniqueFd client = running.listener.connect();
  send_request(client.get(), 1, "Any");
  CHECK(read_answer(client.get()).response.payload() == "ok");
}

TEST_CASE("a reply that is dropped tells the caller that the call was cancelled") {
  Running running([](ttrpc::Call, ttrpc::Reply) {});
  const base::UniqueFd client = running.listener.connect();
  send_request(client.get(), 1, "Any");
  CHECK(read_answer(client.get()).response.status().code() == 1);
}
