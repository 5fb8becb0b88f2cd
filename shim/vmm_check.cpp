#include "shim/vmm_check.hpp"

#include <optional>
#include <string_view>

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;
using base::Result;

Error broken(std::string_view what) {
  return Error(Errc::kFailedPrecondition, "the VMM is not confined as promised: " + std::string(what));
}

// The value of "Name:\t<value>\n" (proc(5), /proc/pid/status).
std::optional<std::string> field(std::string_view status, std::string_view name) {
  for (std::size_t at = 0; at < status.size();) {
    const std::size_t end = std::min(status.find('\n', at), status.size());
    const std::string_view line = status.substr(at, end - at);
    if (line.size() > name.size() + 1 && line.starts_with(name) && line[name.size()] == ':') {
      const std::size_t value = line.find_first_not_of("\t ", name.size() + 1);
      return value == std::string_view::npos ? std::string() : std::string(line.substr(value));
    }
    at = end + 1;
  }
  return std::nullopt;
}

}  // namespace

Result<VmmStatus> check_vmm(pid_t pid, const VmmIdentity& expected) {
  const std::string proc = "/proc/" + std::to_string(pid);
  const std::string status = CR_TRY(base::read_file(proc + "/status", 16384).context("check the VMM"));
  VmmStatus found;
  const std::string id = std::to_string(expected.uid);
  const std::string four = id + "\t" + id + "\t" + id + "\t" + id;  // real, effective, saved, file system
  if (field(status, "Uid") != four || field(status, "Gid") != four) {
    return broken("uid or gid");
  }
  if (!field(status, "Groups").value_or("?").empty()) {
    return broken("supplementary groups");
  }
  found.effective_capabilities = field(status, "CapEff").value_or("");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    if (field(status, set) != "0000000000000000") {
      return broken(set);
    }
  }
  found.no_new_privs = field(status, "NoNewPrivs") == "1";
  if (!found.no_new_privs) {
    return broken("no_new_privs");
  }
  found.seccomp = field(status, "Seccomp") == "2" ? 2 : 0;
  if (found.seccomp != 2) {
    return broken("seccomp filter");
  }
  if (CR_TRY(base::file_id(proc + "/exe")) != expected.program) {
    return broken("program file");
  }
  const base::FileId network = CR_TRY(base::file_id(proc + "/ns/net"));
  const base::FileId our_network = CR_TRY(base::file_id("/proc/self/ns/net"));
  if (network == our_network || (expected.network.has_value() && network != *expected.network)) {
    return broken("network namespace");
  }
  for (const char* kind : {"mnt", "pid", "ipc", "uts"}) {
    if (CR_TRY(base::file_id(proc + "/ns/" + kind)) == CR_TRY(base::file_id(std::string("/proc/self/ns/") + kind))) {
      return broken(std::string(kind) + " namespace");
    }
  }
  return found;
}

}  // namespace cellrund::shim
