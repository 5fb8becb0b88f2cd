// EROFS images of a root file system that holds Debian's static busybox, made in a folder of their own below /tmp.
#pragma once

#include <unistd.h>

#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/process.hpp"

namespace cellrund::tests {

inline bool run_quietly(std::vector<std::string> argv) {
  const auto result = base::run_command({.argv = std::move(argv)}, "", base::Deadline::after(std::chrono::seconds(30)));
  return result.ok() && !result->exit.signaled && result->exit.value == 0;
}

class ErofsImages {
 public:
  // False: root's tools are missing.
  static bool possible() { return base::exists(kMkfs) && base::exists(kBusybox); }

  ErofsImages() : folder_("/tmp/guest-images-" + std::to_string(::getpid())) {
    usable_ = base::make_dirs(folder_ + "/root/bin", 0755).ok() && base::make_dir(folder_ + "/root/etc", 0755).ok() &&
              run_quietly({"/bin/cp", kBusybox, folder_ + "/root/bin/busybox"}) &&
              run_quietly({kBusybox, "ln", "-s", "busybox", folder_ + "/root/bin/sh"}) &&
              run_quietly({kMkfs, plain(), folder_ + "/root"}) &&
              run_quietly({kBusybox, "ln", "-s", "etc", folder_ + "/root/proc"}) &&
              run_quietly({kMkfs, with_linked_proc(), folder_ + "/root"});
  }
  ~ErofsImages() { (void)run_quietly({"/bin/rm", "-r", folder_}); }
  ErofsImages(const ErofsImages&) = delete;
  ErofsImages& operator=(const ErofsImages&) = delete;
  ErofsImages(ErofsImages&&) = delete;
  ErofsImages& operator=(ErofsImages&&) = delete;

  [[nodiscard]] bool usable() const { return usable_; }
  // bin/busybox, bin/sh, etc; no mount points.
  [[nodiscard]] std::string plain() const { return folder_ + "/plain.erofs"; }
  // The same, and proc as a symbolic link to etc.
  [[nodiscard]] std::string with_linked_proc() const { return folder_ + "/linked.erofs"; }

 private:
  static constexpr const char* kBusybox = "/bin/busybox";
  static constexpr const char* kMkfs = "/usr/bin/mkfs.erofs";
  std::string folder_;
  bool usable_ = false;
};

}  // namespace cellrund::tests
