#include "shim/uid_pool.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include "base/file.hpp"

namespace cellrund::shim {

using base::Errc;
using base::Error;
using base::Result;

Result<HeldUid> take_uid(const Config& config) {
  const std::string folder = config.state_dir + "/uids";
  CR_CHECK(base::make_dirs(folder, 0700));
  for (std::uint32_t i = 0; i < config.uid_count; ++i) {
    const std::uint32_t uid = config.uid_base + i;
    base::UniqueFd lock =
        CR_TRY(base::open_file(folder + "/" + std::to_string(uid), O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) {
      return HeldUid{uid, std::move(lock)};
    }
  }
  return Error(Errc::kResourceExhausted, "every uid of uid_range is in use");
}

}  // namespace cellrund::shim
