// A disk that is soon full. Needs root.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>

#include <string>

#include "base/file.hpp"

namespace cellrund::test {

// A tmpfs of `size` at a folder of its own.
class SmallDisk {
 public:
  explicit SmallDisk(const char* size) {
    std::string pattern = "/tmp/cellrun-disk-XXXXXX";
    CR_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, (std::string("mode=0700,size=") + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted_) {
      CR_ASSERT(::umount2(path_.c_str(), MNT_DETACH) == 0);
    }
    (void)base::remove_dir(path_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  SmallDisk(SmallDisk&&) = delete;
  SmallDisk& operator=(SmallDisk&&) = delete;
  [[nodiscard]] bool mounted() const { return mounted_; }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }
  // Until nothing more fits.
  void fill() const {
    const base::UniqueFd file = base::open_file(path_ + "/filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600).value();
    const base::Bytes page(4096);
    while (base::write_all(file.get(), page).ok()) {
    }
  }
  void grow(const char* size) const {
    REQUIRE(::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV,
                    (std::string("mode=0700,size=") + size).c_str()) == 0);
  }

 private:
  std::string path_;
  bool mounted_ = false;
};

}  // namespace cellrund::test
