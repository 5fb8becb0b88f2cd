// One signed job through the node's own socket, timed. The clock starts before the signature is made and ends with the
// sealed record in hand: accepted durably, run, torn down, scanned, signed.
#pragma once

#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "crypto/keys.hpp"
#include "tools/bench/sample.hpp"

namespace cellrund::bench {

struct JobOrder {
  base::json::Object spec;  // a whole jobspec; metadata.uid, issuedAt and expiresAt are set anew for each job
  std::string expected;     // standard output
  base::Nanoseconds limit{0};
};

class JobSampler {
 public:
  // `node_pub`: the key that the records must verify with.
  static base::Result<JobSampler> create(std::string socket, const std::string& key, const std::string& node_pub);

  // A sample without failure succeeded, wrote what was expected, and has a record that verifies and says CLEAN.
  // Checking this is not timed.
  [[nodiscard]] Sample run(const JobOrder& order) const;

 private:
  JobSampler(std::string socket, crypto::PrivateKey key, crypto::PublicKey node)
      : socket_(std::move(socket)), key_(std::move(key)), node_(std::move(node)) {}

  base::Status follow(const std::string& spec, const JobOrder& order, Sample& sample) const;

  std::string socket_;
  crypto::PrivateKey key_;
  crypto::PublicKey node_;
};

}  // namespace cellrund::bench
