#include "host/process_facts.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <thread>

using namespace cellrund;

namespace {

constexpr const char* kStatus =
    "Name:\tq\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t \nNSpid:\t12\t1\nCapInh:\t0000000000000000\n"
    "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n"
    "NoNewPrivs:\t1\nSeccomp:\t2\n";
constexpr const char* kStat = "12 (q) (0)) S 1 12 12 0 -1 0 0 0 0 0 0 0 0 0 20 0 2 0 34 0\n";

// A /proc of one process, 12, with two threads and one file.
struct FakeProc {
  FakeProc() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    for (const char* dir : {"/12", "/12/fd", "/12/fdinfo", "/12/task", "/12/root"}) {
      REQUIRE(base::make_dir(path + dir, 0755).ok());
    }
    write("/12/stat", kStat);
    write("/12/cmdline", std::string("q\0-x\0", 5));
    write("/12/mountinfo", "77 48 0:40 / / ro,nosuid - tmpfs vmm rw\n80 77 0:41 / /proc rw shared:3 - proc proc rw\n");
    write("/file", "");
    REQUIRE(::symlink((path + "/file").c_str(), (path + "/12/fd/3").c_str()) == 0);
    REQUIRE(::symlink("socket:[5]", (path + "/12/fd/4").c_str()) == 0);
    REQUIRE(::symlink("/usr/bin/q", (path + "/12/exe").c_str()) == 0);
    write("/12/fdinfo/3", "pos:\t0\nflags:\t0100000\n");
    write("/12/fdinfo/4", "pos:\t0\nflags:\t02\n");
    for (const std::string tid : {"12", "13"}) {
      const std::string task = "/12/task/" + tid;
      REQUIRE(base::make_dir(path + task, 0755).ok());
      REQUIRE(base::make_dir(path + task + "/ns", 0755).ok());
      write(task + "/status", kStatus);
      write(task + "/cgroup", "0::/x\n");
      write(task + "/ns/net", "");
    }
  }
  ~FakeProc() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  FakeProc(const FakeProc&) = delete;
  FakeProc& operator=(const FakeProc&) = delete;
  void write(const std::string& name, const std::string& text) const {
    REQUIRE(base::write_file_atomic(path + name, text, 0644).ok());
  }
  std::string path = "/tmp/cellrun-proc-XXXXXX";
};

}  // namespace

TEST_CASE("a process is read with all its threads, files and mounts") {
  const FakeProc proc;
  const auto found = host::read_process({12, 34}, proc.path);
  REQUIRE_MESSAGE(found.ok(), (found.ok() ? "" : found.error().message()));
  CHECK(found->program == "/usr/bin/q");
  CHECK(found->arguments == std::string("q\0-x\0", 5));
  REQUIRE(found->threads.size() == 2);
  CHECK(found->threads[0].tid == 12);
  CHECK(found->threads[1].credentials.capabilities[3] == 0x1ffffffffff);
  CHECK(found->threads[1].credentials.namespace_pids == std::vector<pid_t>{12, 1});
  CHECK(found->threads[1].namespaces.at("net") == *base::file_id(proc.path + "/12/task/13/ns/net"));
  REQUIRE(found->mounts.size() == 2);
  CHECK(found->mounts[0].read_only);
  CHECK(found->mounts[1].type == "proc");
  CHECK_FALSE(found->mounts[1].read_only);
  REQUIRE(found->files.size() == 2);
  CHECK(found->files[0].type == S_IFREG);
  CHECK_FALSE(found->files[0].writable);
  CHECK(found->files[1].target == "socket:[5]");
  CHECK(found->files[1].writable);
}

TEST_CASE("another start time is another process") {
  const FakeProc proc;
  CHECK(host::read_process({12, 35}, proc.path).error().code() == base::Errc::kNotFound);
  CHECK(host::read_process({14, 34}, proc.path).error().code() == base::Errc::kNotFound);
}

TEST_CASE("what is missing or malformed is an error, never a default") {
  for (const char* line : {"Uid", "Gid", "Groups", "NSpid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}) {
    CAPTURE(line);
    std::string status = kStatus;
    const std::size_t at = status.find(std::string(line) + ":");
    std::string without = status;
    without.erase(at, status.find('\n', at) + 1 - at);
    CHECK(host::parse_credentials(without).error().code() == base::Errc::kDataLoss);
    status.replace(at, status.find('\n', at) - at, std::string(line) + ":\tx");
    CHECK(host::parse_credentials(status).error().code() == base::Errc::kDataLoss);
  }
  CHECK(host::parse_mounts("77 48 0:40 / / ro tmpfs vmm rw\n").error().code() == base::Errc::kDataLoss);
}

TEST_CASE("this very process reads as the kernel has it") {
  std::jthread other([](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::this_thread::yield();
    }
  });
  const auto found = host::read_process(*base::process_id(::getpid()));
  REQUIRE_MESSAGE(found.ok(), (found.ok() ? "" : found.error().message()));
  CHECK(found->threads.size() >= 2);
  CHECK(found->threads.front().tid == ::getpid());
  CHECK(found->threads.front().credentials.uids[1] == ::geteuid());
  CHECK(found->threads.front().namespaces == *host::own_namespaces());
  CHECK(std::any_of(found->files.begin(), found->files.end(), [](const auto& file) { return file.number == 2; }));
}
