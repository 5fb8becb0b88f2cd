// The files below /run/secrets of a workload, written and taken away by the agent through a descriptor of their tmpfs. The agent is
// outside the workload's namespaces, so no value passes through a process that the workload descends from.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::guest {

class SecretFiles {
 public:
  // `folder`: the tmpfs; `uid` and `gid`: whose the files become.
  SecretFiles(base::UniqueFd folder, std::uint32_t uid, std::uint32_t gid)
      : folder_(std::move(folder)), uid_(uid), gid_(gid) {}

  // Appends; the last piece makes the file readable for its owner, mode 0400. kFailedPrecondition: pieces of two values mixed.
  base::Status add(const wire::SecretPiece& piece);
  // Whether a value is still in the making.
  [[nodiscard]] bool pending() const noexcept { return pending_; }
  // Overwrites, empties and unlinks: who has it open, or mapped, has it no more, wherever its name went. Never blocks: the
  // descriptor that wrote the file is kept, which also keeps its owner from taking a lease (fcntl(2)). One that was removed
  // already is success. What the workload has copied elsewhere is beyond reach.
  base::Status remove(const std::string& name);

 private:
  base::UniqueFd folder_;
  std::uint32_t uid_;
  std::uint32_t gid_;
  struct File {
    std::string name;
    base::UniqueFd fd;
    std::size_t size = 0;
  };
  std::vector<File> files_;  // at most as many as a job may have; the protocol counts them
  bool pending_ = false;     // the last one is in the making
};

}  // namespace cellrund::guest
