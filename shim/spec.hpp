// From a bundle's config.json (OCI runtime-spec 1.0) to what this runtime makes of it: a virtual machine and a workload
// for cell-init. Whatever a spec asks for that a cell cannot honour refuses the task, by name; only what every OCI spec
// carries as a matter of course (the standard mounts, masked paths, device rules) is satisfied by the guest's own set-up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "shim/annotations.hpp"
#include "shim/wire/workload.hpp"

namespace cellrund::shim {

// A mount of this type at /task or /workspace: `source` is an EROFS image with a folder of that name (wire::Inputs). One
// image serves both. /workspace needs an option "size=", what may be written over it.
inline constexpr std::string_view kInputsMountType = "cellrun.inputs";
inline constexpr std::uint64_t kMebibyte = 1ULL << 20U;
inline constexpr std::uint64_t kDefaultMemory = 256 * kMebibyte;
inline constexpr std::uint64_t kLeastMemory = 96 * kMebibyte;

struct CellPlan {
  wire::Workload workload;
  Annotations annotations;
  unsigned vcpus = 1;
  std::uint64_t memory_bytes = kDefaultMemory;
  std::string inputs_path;  // an EROFS image for workload.inputs; empty: the cell's inputs disk is empty
  std::string netns_path;   // empty: a fresh, empty network namespace
  std::string cgroup_path;  // linux.cgroupsPath, absolute, normal form
};

// kInvalidArgument for a malformed spec, kUnimplemented for one that asks for something a cell does not have.
base::Result<CellPlan> parse_spec(std::string_view config_json);
// The OCI process of one that joins `task`. kPermissionDenied for a capability that the task itself may not have; the task's
// seccomp filter and no_new_privs hold for it whatever it says.
base::Result<wire::Process> parse_process(std::string_view process_json, const wire::Process& task);
// Reads at most 2 MiB of `<bundle>/config.json`.
base::Result<CellPlan> load_spec(const std::string& bundle);

}  // namespace cellrund::shim
