// Uids for the VMMs of tasks that name none: each in use by one live shim at most, held by a lock on a file of that
// number (flock(2)), so that it comes back by itself however the shim ends.
#pragma once

#include <cstdint>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "shim/config.hpp"

namespace cellrund::shim {

struct HeldUid {
  std::uint32_t uid = 0;
  base::UniqueFd lock;  // empty for a uid that the caller of the task chose
};

// kResourceExhausted when all are taken.
base::Result<HeldUid> take_uid(const Config& config);

}  // namespace cellrund::shim
