#include "cell/shim_report.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include "base/file.hpp"

using namespace cellrund;

namespace {

struct Bundle {
  Bundle() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Bundle() {
    for (const char* name : {"/cellrun-vm.json", "/cellrun-exit.json", "/cellrun-vmm.pid"}) {
      (void)base::remove_file(path + name);
    }
    (void)base::remove_dir(path);
  }
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;
  void write(const char* name, const char* text) const { REQUIRE(base::write_file_atomic(path + name, text, 0600).ok()); }
  std::string path = "/tmp/cellrun-bundle-XXXXXX";
};

}  // namespace

TEST_CASE("a start report gives the processes, the time of START and the facts of the lane") {
  const Bundle bundle;
  CHECK(cell::read_shim_started(bundle.path).error().code() == base::Errc::kNotFound);
  bundle.write("/cellrun-vm.json",
               R"({"vmm":{"path":"/usr/bin/qemu","digest":"sha256:aa","version":"7.2","pid":12,"startTime":34,"seccomp":2,)"
               R"("uid":2000001,"noNewPrivs":true,"capEff":"0000000000000000"},"shim":{"pid":11,"startTime":33},"accel":"tcg",)"
               R"("kernelDigest":"sha256:bb","initrdDigest":"sha256:cc","guestKernelRelease":"6.1.0","startedBootNs":5,"deadlineBootNs":9})");
  const auto report = cell::read_shim_started(bundle.path);
  REQUIRE(report.ok());
  CHECK(report->vmm == base::ProcessId{12, 34});
  CHECK(report->shim == base::ProcessId{11, 33});
  CHECK(report->started.ns == 5);
  CHECK(report->lane.accel == "tcg");
  REQUIRE(report->lane.vmm.has_value());
  CHECK(report->lane.vmm->no_new_privs);
  CHECK(report->lane.vmm->seccomp == 2);
}

TEST_CASE("a start report without a VMM is refused") {
  const Bundle bundle;
  bundle.write("/cellrun-vm.json", R"({"shim":{"pid":11,"startTime":33},"startedBootNs":5})");
  CHECK(cell::read_shim_started(bundle.path).error().code() == base::Errc::kDataLoss);
}

TEST_CASE("an exit report carries the shim's own ladder, relative to START") {
  const Bundle bundle;
  bundle.write("/cellrun-exit.json",
               R"({"kind":"vmm_died","value":9,"message":"","deadlineFiredBootNs":2000000000,)"
               R"("ladder":["TERM@2000000000","VMM@3500000000"],"guestOomKilled":true,"guestDiskFull":true,"endedBootNs":3600000000})");
  const auto end = cell::read_shim_exit(bundle.path, base::BootTime{1'000'000'000});
  REQUIRE(end.ok());
  CHECK(end->kind == cell::EndKind::kVmmDied);
  CHECK(end->limits.memory);
  CHECK(end->limits.disk);
  CHECK_FALSE(end->limits.pids);
  REQUIRE(end->deadline_fired.has_value());
  CHECK(end->ladder == std::vector<std::string>{"TERM@1.000", "VMM@2.500"});
}

TEST_CASE("the pid file is a pid and a start time") {
  const Bundle bundle;
  bundle.write("/cellrun-vmm.pid", "12 34\n");
  REQUIRE(cell::read_vmm_pid(bundle.path).ok());
  CHECK(*cell::read_vmm_pid(bundle.path) == base::ProcessId{12, 34});
  bundle.write("/cellrun-vmm.pid", "12");
  CHECK_FALSE(cell::read_vmm_pid(bundle.path).ok());
}
