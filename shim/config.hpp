// shim.toml: which QEMU and which guest, on what accelerator. One schema with defaults and bounds; an unknown key is an
// error. Found by: runtime options (config_path), then CELLRUN_SHIM_CONFIG, then /etc/cellrun/shim.toml.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace cellrund::shim {

enum class Accel { kAuto, kKvm, kTcg };
[[nodiscard]] std::string_view to_string(Accel accel) noexcept;

struct Config {
  std::string qemu = "/usr/bin/qemu-system-x86_64";
  std::string kernel = "/usr/lib/cellrun/guest/vmlinux";
  std::string initrd = "/usr/lib/cellrun/guest/initrd";
  std::string mkfs_erofs = "/usr/bin/mkfs.erofs";
  Accel accel = Accel::kAuto;
  std::uint32_t uid_base = 2'000'000'000;  // uid_range = [base, count]: VMMs of tasks that name no uid themselves
  std::uint32_t uid_count = 1000;
  std::string state_dir = "/var/lib/cellrun/shim";  // boot probe's answer, digests, uid locks, images in the making
  std::chrono::seconds boot_timeout{120};           // QEMU's start to the guest's READY
  std::chrono::seconds probe_timeout{8};            // accel = "auto": a KVM boot that takes longer counts as none
};

inline constexpr std::string_view kDefaultConfigPath = "/etc/cellrun/shim.toml";

base::Result<Config> parse_config(std::string_view toml, std::string_view source_name);
// `explicit_path` empty: the environment, then the default. A missing file is an error unless it is the default one.
base::Result<Config> load_config(const std::string& explicit_path);

}  // namespace cellrund::shim
