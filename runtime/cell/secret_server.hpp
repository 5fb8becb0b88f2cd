// Hands a job's secrets to its shim: a socket in the cell's folder, for one connection of one process, once. containerd carries the
// path of it in an annotation and never the values.
#pragma once

#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::cell {

class SecretServer {
 public:
  // Listens at `path`, in a folder that root alone may enter. The path is at most 107 bytes (unix(7)).
  static base::Result<SecretServer> create(std::string path);
  SecretServer(SecretServer&&) noexcept = default;
  SecretServer& operator=(SecretServer&&) = delete;
  SecretServer(const SecretServer&) = delete;
  SecretServer& operator=(const SecretServer&) = delete;
  ~SecretServer();  // the path goes with it

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // To root's process `shim`, and to nobody else: kPermissionDenied when another one has come. kDeadlineExceeded without one.
  base::Status hand_over(const std::vector<wire::NamedSecret>& secrets, pid_t shim, base::Deadline deadline);

 private:
  SecretServer(std::string path, base::UniqueFd listener) : path_(std::move(path)), listener_(std::move(listener)) {}
  std::string path_;
  base::UniqueFd listener_;
};

}  // namespace cellrund::cell
