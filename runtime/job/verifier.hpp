// Verifier: the only way from submitted bytes to a VerifiedJob.
//
// Order: envelope bounds and form → payload type → signature → strict parse of the same bytes → time window → audience.
// Nothing of the payload is looked at before a trusted key has signed it.
//
// Which signature failure is reported (all of them refuse; `keyid` steers only the wording):
//   SignerRevoked     a signature verifies under a key of the ring that is revoked
//   SignerNotTrusted  a signature verifies under a key whose notAfter has passed; or no signature verifies, at least one
//                     has the form of a signature, and no keyid names a key of the ring
//   SignatureInvalid  everything else: none given, none well-formed, a wrong payload type, a keyid of the ring that does
//                     not verify (tampered bytes), an envelope that is none
// A signature under a trusted key decides for acceptance, whatever else stands beside it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/file.hpp"
#include "base/result.hpp"
#include "crypto/keyring.hpp"
#include "model/outcome.hpp"
#include "model/stages.hpp"

namespace cellrund::job {

struct VerifyPolicy {
  std::vector<std::string> audiences;  // this node's id, its pools and fleet
  bool require_audience = false;       // refuse a spec that names none
  std::chrono::seconds max_validity{86400};
  std::chrono::seconds clock_skew{60};
};

// A refusal with what is known of the submission: for its sealed record and for the reply.
struct Rejected {
  model::Refusal refusal;
  std::string spec_digest;        // of the payload; of the submitted bytes when they are no envelope
  std::string signer_key_id;      // empty unless a signature verified under a trusted key
  std::string uid, tenant, name;  // empty unless signed by a trusted key and valid
};

class Verifier {
 public:
  // Pure apart from its arguments; any number of threads.
  static base::Result<model::VerifiedJob, Rejected> verify(base::BytesView envelope, const crypto::Keyring& keys,
                                                           const VerifyPolicy& policy, base::WallTime now);
};

}  // namespace cellrund::job
