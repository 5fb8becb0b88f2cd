#include "cell/vmm_box.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <functional>

using namespace cellrund;

namespace {

constexpr std::uint32_t kUid = 2000007;
const base::FileId kImage{9, 90};

host::Namespaces namespaces(std::uint64_t first) {
  host::Namespaces out;
  for (const char* kind : {"mnt", "pid", "net", "ipc", "uts"}) {
    out[kind] = {4, first++};
  }
  out["user"] = {4, 900};
  out["cgroup"] = {4, 901};
  return out;
}

host::ThreadFacts thread(pid_t tid) {
  host::ThreadFacts out;
  out.tid = tid;
  out.credentials.uids = {kUid, kUid, kUid, kUid};
  out.credentials.gids = out.credentials.uids;
  out.credentials.no_new_privs = true;
  out.credentials.seccomp = 2;
  out.credentials.namespace_pids = {tid, tid - 11};
  out.namespaces = namespaces(100);
  out.cgroups = "8:pids:/cellrun/x/y\n5:devices:/\n0::/cellrun/x/y\n";
  return out;
}

host::OpenFile file(int number, std::string target, mode_t type, std::uint64_t ino, bool writable = false) {
  host::OpenFile out;
  out.number = number;
  out.target = std::move(target);
  out.type = type;
  out.id = {8, ino};
  out.links = 1;
  out.writable = writable;
  return out;
}

host::OpenFile device(int number, unsigned major_number, unsigned minor_number, mode_t type = S_IFCHR) {
  host::OpenFile out = file(number, "/dev/some", type, 50 + minor_number);
  out.device = makedev(major_number, minor_number);
  return out;
}

host::OpenFile memory(int number, const char* name, int seals, std::uint64_t ino) {
  host::OpenFile out = file(number, std::string("/memfd:") + name + " (deleted)", S_IFREG, ino, true);
  out.links = 0;
  out.seals = seals;
  return out;
}

// As a microVM's VMM was seen on a real host.
host::ProcessFacts confined() {
  host::ProcessFacts out;
  out.id = {12, 34};
  out.program = "/usr/bin/qemu-system-x86_64";
  out.root = {40, 1};
  out.threads = {thread(12), thread(13)};
  out.mounts = {{"/", "tmpfs", true}, {"/usr", "ext4", true}, {"/etc/ld.so.cache", "ext4", true}, {"/proc", "proc", false}};
  host::OpenFile image = file(13, "/var/lib/cellrun/images/a.erofs", S_IFREG, 0);
  image.id = kImage;
  host::OpenFile scratch = file(15, "/var/lib/cellrun/shim/#77 (deleted)", S_IFREG, 77, true);
  scratch.links = 0;
  out.files = {device(0, 1, 3), file(1, "pipe:[5]", S_IFIFO, 5, true), file(2, "pipe:[5]", S_IFIFO, 5, true),
               file(3, "socket:[60]", S_IFSOCK, 60, true), file(4, "socket:[61]", S_IFSOCK, 61, true),
               memory(5, "guest-image", F_SEAL_WRITE, 1), memory(6, "guest-image", F_SEAL_WRITE | F_SEAL_GROW, 2),
               file(8, "anon_inode:[eventfd]", 0, 26, true), device(10, 10, 200), device(11, 1, 9), image, scratch};
  return out;
}

cell::DeclaredBox declared() {
  cell::DeclaredBox out;
  out.uid = kUid;
  out.network = {4, 102};
  out.host = namespaces(200);
  out.host_root = {1, 2};
  out.images = {kImage};
  out.unix_sockets = {60, 61, 62};
  return out;
}

}  // namespace

TEST_CASE("a VMM in the box that the shim makes is as declared") {
  const auto deviation = cell::box_deviation(confined(), declared());
  CHECK_MESSAGE(!deviation.has_value(), deviation.value_or(""));
}

TEST_CASE("each deviation is found and named, in the first thread and in any other") {
  using Change = std::function<void(host::ThreadFacts&)>;
  const std::vector<std::pair<const char*, Change>> table{
      {"uid", [](auto& t) { t.credentials.uids[2] = 0; }},
      {"gid", [](auto& t) { t.credentials.gids[3] = 0; }},
      {"groups", [](auto& t) { t.credentials.groups = {0}; }},
      {"CapInh", [](auto& t) { t.credentials.capabilities[0] = 1; }},
      {"CapPrm", [](auto& t) { t.credentials.capabilities[1] = 1; }},
      {"CapEff", [](auto& t) { t.credentials.capabilities[2] = 1; }},
      {"CapBnd", [](auto& t) { t.credentials.capabilities[3] = 1; }},
      {"CapAmb", [](auto& t) { t.credentials.capabilities[4] = 1; }},
      {"no_new_privs", [](auto& t) { t.credentials.no_new_privs = false; }},
      {"seccomp is 0", [](auto& t) { t.credentials.seccomp = 0; }},
      {"seccomp is 1", [](auto& t) { t.credentials.seccomp = 1; }},
      {"pid namespace right below", [](auto& t) { t.credentials.namespace_pids = {12}; }},
      {"mnt namespace", [](auto& t) { t.namespaces["mnt"] = namespaces(200).at("mnt"); }},
      {"pid namespace", [](auto& t) { t.namespaces["pid"] = namespaces(200).at("pid"); }},
      {"ipc namespace", [](auto& t) { t.namespaces["ipc"] = namespaces(200).at("ipc"); }},
      {"uts namespace", [](auto& t) { t.namespaces["uts"] = namespaces(200).at("uts"); }},
      {"net namespace is the host's", [](auto& t) { t.namespaces["net"] = namespaces(200).at("net"); }},
      {"net namespace is not the cell's", [](auto& t) { t.namespaces["net"] = {4, 777}; }},
      {"net namespace", [](auto& t) { t.namespaces.erase("net"); }},
      {"user namespace", [](auto& t) { t.namespaces["user"] = {4, 5}; }},
      {"cgroup namespace", [](auto& t) { t.namespaces["cgroup"] = {4, 5}; }},
  };
  for (const auto& [name, change] : table) {
    for (const std::size_t which : {0UL, 1UL}) {
      CAPTURE(name);
      CAPTURE(which);
      host::ProcessFacts found = confined();
      change(found.threads[which]);
      const auto deviation = cell::box_deviation(found, declared());
      REQUIRE(deviation.has_value());
      INFO(*deviation);
      CHECK(deviation->starts_with("thread " + std::to_string(found.threads[which].tid)));
      CHECK(deviation->find(name) != std::string::npos);
    }
  }
}

TEST_CASE("what is the whole process's is found too") {
  using Change = std::function<void(host::ProcessFacts&)>;
  const std::vector<std::pair<const char*, Change>> table{
      {"no threads", [](auto& p) { p.threads.clear(); }},
      {"its cgroups are not", [](auto& p) { p.threads[1].cgroups = "0::/\n"; }},
      {"its namespaces are not", [](auto& p) { p.threads[1].namespaces["mnt"] = {4, 778}; }},
      {"not the first process", [](auto& p) { p.threads[0].credentials.namespace_pids = {12, 2}; }},
      {"root is the host's", [](auto& p) { p.root = {1, 2}; }},
      {"no mounts", [](auto& p) { p.mounts.clear(); }},
      {"mount at /home is not declared", [](auto& p) { p.mounts.push_back({"/home", "ext4", true}); }},
      {"mount at /usr is writable", [](auto& p) { p.mounts[1].read_only = false; }},
      {"mount at /usrlocal is not declared", [](auto& p) { p.mounts.push_back({"/usrlocal", "ext4", true}); }},
      {"mount at /proc is writable", [](auto& p) { p.mounts.push_back({"/proc", "ext4", false}); }},
      {"no tmpfs", [](auto& p) { p.mounts[0].type = "ext4"; }},
      {"block device", [](auto& p) { p.files.push_back(device(20, 8, 0, S_IFBLK)); }},
      {"undeclared device", [](auto& p) { p.files.push_back(device(20, 1, 1)); }},            // mem
      {"undeclared device", [](auto& p) { p.files.push_back(device(20, 10, 232)); }},         // kvm, under emulation
      {"undeclared kind", [](auto& p) { p.files.push_back(file(20, "anon_inode:bpf-map", 0, 26)); }},
      {"undeclared kind", [](auto& p) { p.files.push_back(file(20, "anon_inode:kvm-vm", 0, 26)); }},
      {"folder", [](auto& p) { p.files.push_back(file(20, "/", S_IFDIR, 2)); }},
      {"not declared", [](auto& p) { p.files.push_back(file(20, "/etc/shadow", S_IFREG, 2)); }},
      {"image, open for writing", [](auto& p) { p.files[10].writable = true; }},
      {"of the kind scratch", [](auto& p) { p.files.push_back(memory(20, "more", 0, 3)); }},
      {"no Unix socket", [](auto& p) { p.files.push_back(file(20, "socket:[63]", S_IFSOCK, 63)); }},
      {"could not be looked at", [](auto& p) { p.files.push_back(file(20, "/gone", 0, 0)); }},
      {"of the kind pipe", [](auto& p) {
         p.files.push_back(file(20, "pipe:[6]", S_IFIFO, 6));
         p.files.push_back(file(21, "pipe:[7]", S_IFIFO, 7));
       }},
  };
  for (const auto& [name, change] : table) {
    CAPTURE(name);
    host::ProcessFacts found = confined();
    change(found);
    const auto deviation = cell::box_deviation(found, declared());
    REQUIRE(deviation.has_value());
    INFO(*deviation);
    CHECK(deviation->find(name) != std::string::npos);
  }
}

TEST_CASE("KVM's descriptors are declared where the lane uses it") {
  host::ProcessFacts found = confined();
  found.files.push_back(device(20, 10, 232));
  found.files.push_back(file(21, "anon_inode:kvm-vm", 0, 26));
  found.files.push_back(file(22, "anon_inode:kvm-vcpu:0", 0, 26));
  cell::DeclaredBox box = declared();
  box.kvm = true;
  CHECK_FALSE(cell::box_deviation(found, box).has_value());
}

TEST_CASE("the facts of a box are those of the record") {
  const model::VmmFacts facts = cell::box_facts(confined());
  CHECK(facts.pid == 12);
  CHECK(facts.uid == kUid);
  CHECK(facts.threads == 2);
  CHECK(facts.effective_capabilities == "0000000000000000");
  CHECK(facts.cgroups == std::vector<std::string>{"8:pids:/cellrun/x/y", "0::/cellrun/x/y"});
  CHECK(facts.open_files.size() == confined().files.size());
}

TEST_CASE("Unix sockets are read by inode, also behind a name with a line break") {
  constexpr const char* kTitle = "Num       RefCount Protocol Flags    Type St Inode Path\n";
  const auto list = cell::parse_unix_sockets(std::string(kTitle) +
                                             "0000000000000000: 00000003 00000000 00000000 0001 03 60\n"
                                             "0000000000000000: 00000002 00000000 00010000 0001 01 70 /run/some socket\n"
                                             "0000000000000000: 00000002 00000000 00010000 0001 01 80 /run/broken\nname\n"
                                             "0000000000000000: 00000002 00000000 00010000 0001 01 90\n");
  CHECK(list == std::set<std::uint64_t>{60, 70, 80, 90});
}
