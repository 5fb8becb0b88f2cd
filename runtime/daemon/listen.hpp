// Listening Unix sockets that appear with their final mode and never in place of something else.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/result.hpp"

namespace cellrund::daemon {

// Owner of a listening socket and of its name. The destructor removes the name if it is still this socket's.
class Listener {
 public:
  // A stale socket of that name is replaced; a live one is kAlreadyExists, and so is anything that is no socket (a
  // symbolic link is never followed). `group` gets read and write when given; nobody can connect before mode and group
  // are set.
  static base::Result<Listener> open(const std::string& path, std::optional<gid_t> group);

  Listener(Listener&&) noexcept = default;
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  Listener(base::UniqueFd fd, std::string path, base::FileId id) : fd_(std::move(fd)), path_(std::move(path)), id_(id) {}
  base::UniqueFd fd_;
  std::string path_;
  base::FileId id_;
};

// The id of a group by name; nullopt when there is none.
[[nodiscard]] std::optional<gid_t> group_id(const std::string& name);

}  // namespace cellrund::daemon
