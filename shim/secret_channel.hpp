// The shim's end of the socket over which cellrund hands a job's secrets: connected before the VMM is made, read to its end, once.
// Lives on the loop's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"
#include "shim/loop.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::shim {

class SecretChannel {
 public:
  using Received = std::function<void(base::Result<std::vector<wire::NamedSecret>>)>;

  // `received` is called once, never from within open(); the object may be destroyed in it.
  static base::Result<std::unique_ptr<SecretChannel>> open(Loop& loop, const std::string& path, Received received);
  SecretChannel(const SecretChannel&) = delete;
  SecretChannel& operator=(const SecretChannel&) = delete;
  SecretChannel(SecretChannel&&) = delete;
  SecretChannel& operator=(SecretChannel&&) = delete;
  ~SecretChannel();

 private:
  SecretChannel(Loop& loop, base::UniqueFd socket, Received received)
      : loop_(loop), socket_(std::move(socket)), received_(std::move(received)) {}
  void read();

  Loop& loop_;
  base::UniqueFd socket_;
  Received received_;
  base::WipedBytes message_;
};

}  // namespace cellrund::shim
