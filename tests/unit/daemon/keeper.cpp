#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "base/file.hpp"
#include "base/process.hpp"
#include "daemon/keeper/arguments.hpp"
#include "daemon/keeper/probe.hpp"
#include "daemon/keeper/run_folder.hpp"
#include "daemon/keeper/state.hpp"

using namespace cellrund;
using namespace cellrund::daemon::keeper;
using namespace std::chrono_literals;

namespace {

struct TempDir {
  TempDir() {
    std::string pattern = "/tmp/ctrd-unit-XXXXXX";
    path = ::mkdtemp(pattern.data());
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { std::filesystem::remove_all(path); }
  std::string path;
};

Config example() {
  return {"/run/c",     "/var/lib/c",    "/run/c/state", "/run/c/c.sock", "/usr/bin/containerd",
          "/usr/lib/c", "/etc/shim.toml"};
}

struct Listener {
  explicit Listener(const std::string& path) : fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd.get(), 1) == 0);
  }
  base::UniqueFd fd;
};

}  // namespace

TEST_CASE("a configuration survives its own command line") {
  auto parsed = parse_arguments(to_arguments(example()));
  REQUIRE(parsed.ok());
  CHECK(parsed->mode == Mode::kKeep);
  CHECK(to_arguments(parsed->config) == to_arguments(example()));
  Config without = example();
  without.shim_config.clear();
  CHECK(parse_arguments(to_arguments(without))->config.shim_config.empty());
}

TEST_CASE("arguments that are wrong are named") {
  const auto why = [](std::vector<std::string> arguments) {
    auto parsed = parse_arguments(arguments);
    return parsed.ok() ? std::string() : parsed.error().message();
  };
  CHECK(why({"--frob"}).find("--frob") != std::string::npos);
  CHECK(why({"--root"}).find("needs a value") != std::string::npos);
  CHECK(why({"--root", "/a", "--root", "/b"}).find("twice") != std::string::npos);
  CHECK(why({}).find("--run-dir") != std::string::npos);
  CHECK(why({"--ready-fd", "2"}).find("--ready-fd") != std::string::npos);
  CHECK(why({"--ready-fd", "3x"}).find("--ready-fd") != std::string::npos);
  CHECK(why({"--stop"}).find("--run-dir") != std::string::npos);
  CHECK(parse_arguments({"--stop", "--run-dir", "/run/c"})->mode == Mode::kStop);
  CHECK(parse_arguments({"--help"})->mode == Mode::kHelp);
}

TEST_CASE("a path that would need quoting in containerd's configuration is refused") {
  for (const char* bad : {"", "relative", "/a b", "/a\"b", "/a\\b", "/a\nb", "/a'b"}) {
    Config config = example();
    config.root = bad;
    CHECK_FALSE(validate(config).ok());
  }
  Config config = example();
  config.socket = "/" + std::string(105, 's');
  CHECK_FALSE(validate(config).ok());
}

TEST_CASE("containerd's configuration names our folders and switches off what a node has no use for") {
  const std::string toml = containerd_toml(example());
  CHECK(toml.find("version = 2\n") != std::string::npos);
  CHECK(toml.find("root = \"/var/lib/c\"\n") != std::string::npos);
  CHECK(toml.find("[grpc]\naddress = \"/run/c/c.sock\"\n") != std::string::npos);
  CHECK(toml.find("io.containerd.grpc.v1.cri") != std::string::npos);
  CHECK(toml.find("io.containerd.runtime.v1.linux") == std::string::npos);
}

TEST_CASE("published state is read back, and nothing malformed is") {
  const TempDir dir;
  CHECK(read_containerd_state(dir.path).error().code() == base::Errc::kNotFound);
  const ContainerdState state{{4711, 99}, "/run/c/c.sock", 3};
  REQUIRE(base::write_file_atomic(containerd_state_path(dir.path), encode(state), 0644).ok());
  CHECK(*read_containerd_state(dir.path) == state);
  for (const char* bad : {"", "{}", "[]", R"({"pid":0,"startTime":1,"socket":"s","generation":1})",
                          R"({"pid":1,"startTime":1,"socket":7,"generation":1})",
                          R"({"pid":4294967297,"startTime":1,"socket":"s","generation":1})"}) {
    CHECK_FALSE(decode_containerd_state(bad, "x").ok());
  }
}

TEST_CASE("one keeper at a time holds a run folder, and the next one is not fooled by the file") {
  const TempDir dir;
  auto first = Lock::try_acquire(dir.path);
  REQUIRE((first.ok() && first->has_value()));
  REQUIRE((*first)->write({{7, 8}, {"--root", "/r"}}).ok());
  const auto told = read_keeper_state(dir.path);
  REQUIRE(told.ok());
  CHECK(told->process == base::ProcessId{7, 8});
  CHECK(told->arguments == std::vector<std::string>{"--root", "/r"});
  CHECK_FALSE(Lock::try_acquire(dir.path)->has_value());
  REQUIRE((*first)->remove().ok());
  CHECK_FALSE(base::exists(lock_path(dir.path)));
  CHECK(Lock::try_acquire(dir.path)->has_value());
}

TEST_CASE("only the right process that speaks HTTP/2 serves") {
  const TempDir dir;
  const std::string path = dir.path + "/s";
  const auto soon = [] { return base::Deadline::after(2s); };
  CHECK(probe(path, ::getpid(), soon()) == Answer::kNobody);
  const Listener listener(path);
  CHECK(probe(path, ::getpid() + 1, soon()) == Answer::kNobody);
  CHECK(probe(path, ::getpid(), base::Deadline::after(50ms)) == Answer::kSilent);
}

TEST_CASE("a listener that opens with a SETTINGS frame serves") {
  const TempDir dir;
  const std::string path = dir.path + "/s";
  const Listener listener(path);
  std::jthread server([&listener] {
    using namespace std::string_view_literals;
    const base::UniqueFd peer(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    constexpr auto kSettings = "\0\0\0\x04\0\0\0\0\0"sv;
    (void)::send(peer.get(), kSettings.data(), kSettings.size(), MSG_NOSIGNAL);
  });
  CHECK(probe(path, ::getpid(), base::Deadline::after(2s)) == Answer::kServes);
}

TEST_CASE("a listener that speaks something else does not serve") {
  const TempDir dir;
  const std::string path = dir.path + "/s";
  const Listener listener(path);
  std::jthread server([&listener] {
    const base::UniqueFd peer(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    constexpr std::string_view kText = "HTTP/1.1 400 Bad Request\r\n\r\n";
    (void)::send(peer.get(), kText.data(), kText.size(), MSG_NOSIGNAL);
  });
  CHECK(probe(path, ::getpid(), base::Deadline::after(2s)) == Answer::kSilent);
}
