#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "shim/wire/messages.hpp"
#include "shim/wire/workload.hpp"

using namespace cellrund;
using namespace cellrund::wire;

namespace {

Workload full() {
  Workload w;
  w.args = {"/bin/sh", "-c", ""};
  w.env = {"A=1", "EMPTY="};
  w.cwd = "/srv/dir";
  w.uid = 1000;
  w.gid = 1001;
  w.additional_gids = {5, 6};
  w.capabilities = {0x3, 0x1, 0x3, 0x1, 0x1};
  w.no_new_privileges = false;
  w.seccomp = false;
  w.read_only_root = false;
  w.umask = 077;
  w.hostname = "h";
  w.writable_root_bytes = 1 << 20;
  w.tmpfs = {{"/tmp", 4096, 01777}, {"/scratch", 1 << 20, 0700}};
  w.files = {{"/etc/hosts", 0644, "127.0.0.1 localhost\n"}};
  w.rlimits = {{7, 100, 200}};
  w.terminal = WindowSize{50, 132};
  w.network = NetworkConfig{"eth0", {2, 0, 0, 0, 0, 1}, {100, 64, 0, 1}, 31, {100, 64, 0, 0}, {2, 0, 0, 0, 0, 2}, 1400};
  w.pids_max = 64;
  w.stop_signal = 2;
  w.deadline_ms = 1234;
  w.grace_ms = 99;
  w.rootfs_device = "/dev/vdb";
  w.outputs = OutputsPlan{1 << 24, 1000};
  w.inputs = Inputs{"/dev/vdc", -1, true, 1 << 20};
  return w;
}

}  // namespace

TEST_CASE("a workload comes back as it went, and each cut of it is refused") {
  Workload process;
  process.args = {"true"};
  process.process = ProcessRoot{4, 5};
  Workload with_outputs = process;
  with_outputs.outputs = OutputsPlan{1, 1};
  with_outputs.process = ProcessRoot{4, 5, 6};
    process.inputs = Inputs{"/dev/vdb", 6, false, 4096};
  for (const Workload& workload : {full(), process, with_outputs}) {
    const auto encoded = encode(workload);
    REQUIRE(encoded.ok());
    const auto decoded = decode_workload(*encoded);
    REQUIRE(decoded.ok());
    CHECK((*decoded == workload));
    for (std::size_t size = 0; size < encoded->size(); ++size) {
      CHECK_FALSE(decode_workload(base::BytesView(*encoded).first(size)).ok());
    }
    base::Bytes longer = *encoded;
    longer.push_back(0);
    CHECK_FALSE(decode_workload(longer).ok());
  }
}

TEST_CASE("values out of bounds are refused on both ends") {
  const std::vector<std::pair<const char*, std::function<void(Workload&)>>> rows = {
      {"inputs that show nothing", [](Workload& w) { w.inputs = Inputs{.task = false, .workspace_bytes = 0}; }},
      {"a workspace without room", [](Workload& w) { w.inputs = Inputs{.workspace_bytes = 100}; }},
      {"inputs on no device", [](Workload& w) { w.inputs = Inputs{.device = "vdb", .task = true}; }},
      {"no args", [](Workload& w) { w.args.clear(); }},
      {"outputs without a byte", [](Workload& w) { w.outputs = OutputsPlan{0, 1}; }},
      {"outputs without a file", [](Workload& w) { w.outputs = OutputsPlan{1, 0}; }},
      {"too many outputs", [](Workload& w) { w.outputs = OutputsPlan{1, kMaxOutputFiles + 1}; }},
      {"too large outputs", [](Workload& w) { w.outputs = OutputsPlan{kMaxOutputBytes + 1, 1}; }},
      {"empty command", [](Workload& w) { w.args = {""}; }},
      {"NUL in an argument", [](Workload& w) { w.args.push_back(std::string("a\0b", 3)); }},
      {"env without =", [](Workload& w) { w.env = {"A"}; }},
      {"env without a name", [](Workload& w) { w.env = {"=1"}; }},
      {"relative cwd", [](Workload& w) { w.cwd = "x"; }},
      {"cwd with ..", [](Workload& w) { w.cwd = "/a/../b"; }},
      {"tmpfs over the root", [](Workload& w) { w.tmpfs = {{"/", 4096, 0755}}; }},
      {"tmpfs path with an empty part", [](Workload& w) { w.tmpfs = {{"/a//b", 4096, 0755}}; }},
      {"tmpfs path with a last slash", [](Workload& w) { w.tmpfs = {{"/a/", 4096, 0755}}; }},
      {"unlimited tmpfs", [](Workload& w) { w.tmpfs = {{"/tmp", 0, 0755}}; }},
      {"file with a set-uid bit", [](Workload& w) { w.files = {{"/x", 04755, ""}}; }},
      {"too much in files", [](Workload& w) { w.files = {{"/x", 0644, std::string(300 * 1024, 'x')}}; }},
      {"soft above hard limit", [](Workload& w) { w.rlimits = {{7, 2, 1}}; }},
      {"unknown capability", [](Workload& w) { w.capabilities.bounding = 1ULL << 60U; }},
      {"effective but not permitted", [](Workload& w) { w.capabilities = {1, 1, 0, 0, 0}; }},
      {"prefix 0", [](Workload& w) { w.network->prefix = 0; }},
      {"no address", [](Workload& w) { w.network->address = {}; }},
      {"interface with a slash", [](Workload& w) { w.network->interface = "a/b"; }},
      {"signal 0", [](Workload& w) { w.stop_signal = 0; }},
      {"umask", [](Workload& w) { w.umask = 01000; }},
      {"process lane as root", [](Workload& w) {
         w = Workload{};
         w.args = {"true"};
         w.process = ProcessRoot{4, 5};
         w.uid = 0;
       }},
      {"process lane with group root", [](Workload& w) {
         w = Workload{};
         w.args = {"true"};
         w.process = ProcessRoot{4, 5};
         w.additional_gids = {0};
       }},
      {"process lane with a capability", [](Workload& w) {
         w = Workload{};
         w.args = {"true"};
         w.process = ProcessRoot{4, 5};
         w.capabilities.bounding = 1;
       }},
      {"process lane without seccomp", [](Workload& w) {
         w = Workload{};
         w.args = {"true"};
         w.process = ProcessRoot{4, 5};
         w.seccomp = false;
       }},
  };
  for (const auto& [description, change] : rows) {
    CAPTURE(description);
    Workload workload = full();
    change(workload);
    CHECK_FALSE(validate(workload).ok());
    CHECK_FALSE(encode(workload).ok());
  }
}

TEST_CASE("a workload above 1 MiB is refused") {
  Workload workload = full();
  workload.args.emplace_back(kMaxWorkloadBytes, 'x');
  const auto encoded = encode(workload);
  REQUIRE_FALSE(encoded.ok());
  CHECK(encoded.error().code() == base::Errc::kResourceExhausted);
}

TEST_CASE("a process that joins comes back as it went, and each cut of it is refused") {
  const Process process = full();
  const auto encoded = encode_process(process);
  REQUIRE(encoded.ok());
  const auto decoded = decode_process(*encoded);
  REQUIRE(decoded.ok());
  CHECK((*decoded == process));
  for (std::size_t size = 0; size < encoded->size(); ++size) {
    CHECK_FALSE(decode_process(base::BytesView(*encoded).first(size)).ok());
  }
  CHECK_FALSE(decode_process(encode(full()).value()).ok());
  Process bad = process;
  bad.cwd = "x";
  CHECK_FALSE(encode_process(bad).ok());
}

TEST_CASE("names and addresses") {
  CHECK(capability_number("CAP_CHOWN") == 0U);
  CHECK(capability_number("NET_RAW") == 13U);
  CHECK(capability_number("CAP_CHECKPOINT_RESTORE") == 40U);
  CHECK_FALSE(capability_number("CAP_").has_value());
  CHECK_FALSE(capability_number("cap_chown").has_value());
  CHECK(rlimit_number("RLIMIT_NOFILE") == 7U);
  CHECK(rlimit_number("RLIMIT_RTTIME") == 15U);
  CHECK_FALSE(rlimit_number("RLIMIT_X").has_value());
  CHECK(parse_ipv4("100.64.0.1") == std::array<std::uint8_t, 4>{100, 64, 0, 1});
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1..2.3", "1.2.3.", "0x1.2.3.4"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_ipv4(bad).has_value());
  }
  CHECK(parse_mac("02:00:00:00:aB:ff") == std::array<std::uint8_t, 6>{2, 0, 0, 0, 0xab, 0xff});
  for (const char* bad : {"", "02:00:00:00:00", "02:00:00:00:00:0g", "2:0:0:0:0:1", "02-00-00-00-00-01", "02:00:00:00:00:001"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_mac(bad).has_value());
  }
}

TEST_CASE("an exit message is cut, made printable, and checked on arrival") {
  Exit exit;
  exit.kind = ExitKind::kExecFailed;
  exit.value = 127;
  exit.message = "bad\x1b[2J" + std::string(1000, 'x');
  exit.oom_killed = true;
  exit.disk_full = true;
  const auto decoded = decode_exit(encode(exit));
  REQUIRE(decoded.ok());
  CHECK(decoded->message.size() == kMaxExitMessage);
  CHECK(decoded->message.starts_with("bad?[2J"));
  CHECK(decoded->oom_killed);
  CHECK(decoded->disk_full);
  CHECK_FALSE(decoded->pids_exhausted);
  for (const auto& [kind, value] : {std::pair{ExitKind::kExited, 256}, std::pair{ExitKind::kExited, -1},
                                    std::pair{ExitKind::kSignaled, 0}, std::pair{ExitKind::kSignaled, 65},
                                    std::pair{ExitKind::kExecFailed, 1}, std::pair{ExitKind::kSetupFailed, 1}}) {
    Exit bad;
    bad.kind = kind;
    bad.value = value;
    CHECK_FALSE(decode_exit(encode(bad)).ok());
  }
}
