// A full set of facts, as a microVM job leaves them, and a key that is always the same.
#pragma once

#include "crypto/keys.hpp"
#include "model/evidence.hpp"

namespace cellrund::evidence::test {

[[nodiscard]] const crypto::PrivateKey& node_key();
[[nodiscard]] model::Evidence full();
// A refusal before anything was made.
[[nodiscard]] model::Evidence refused();

}  // namespace cellrund::evidence::test
