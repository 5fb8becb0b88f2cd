#include "netpolicy/policy.hpp"

#include "crypto/digest.hpp"

namespace cellrund::netpolicy {

std::string policy_digest() {
  return crypto::digest_text(base::as_bytes(kDenyAll));
}

}  // namespace cellrund::netpolicy
