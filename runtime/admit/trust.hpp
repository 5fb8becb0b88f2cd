// TrustStore: which key may ask for what. Read from a folder of TOML files (docs/SPEC.md, "Trust") that lie beside the
// keys they name. A missing or empty folder is a store that refuses everything; a file that is wrong in any way is an
// error of the whole store, because a half-read trust policy is not the operator's policy.
// Immutable after load(); share it by const reference, replace it as a whole.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "crypto/keyring.hpp"
#include "model/job_spec.hpp"

namespace cellrund::admit {

// One [[key]] table. Globs: '*' stands for anything but '/', "**" for anything at all, a lone "*" too.
struct Grant {
  std::string source;                   // name of the TOML file
  std::string file;                     // name of the key file
  std::string key_id;
  std::vector<std::string> namespaces;  // exact names, or "*"
  std::vector<std::string> principals;  // globs over "type:id"; the key's own {service, key id} is always allowed
  std::vector<std::string> images;      // globs over the repository
  int min_tier = 2;                     // the lowest minTier that this key may ask for
  std::chrono::seconds max_deadline{3600};
  std::uint32_t max_concurrent = 8;     // jobs that are accepted and not yet closed
  model::Limits resources{4000, 4ULL << 30U, 1024, 10ULL << 30U};  // the most for one job
  std::vector<std::string> egress;      // "public", "private:CIDR", "wildcard:*.name"; empty: jobs reach nothing
  std::vector<std::string> secrets;     // globs over secret references
  std::optional<base::WallTime> not_after;
  bool revoked = false;
};

class TrustStore {
 public:
  static constexpr std::size_t kMaxFiles = 64;

  // Every file: regular, no symbolic link, owned by root or by us, not writable by group or others, at most 64 KiB.
  static base::Result<TrustStore> load(const std::string& dir);

  [[nodiscard]] const crypto::Keyring& keyring() const noexcept { return keyring_; }
  [[nodiscard]] const std::vector<Grant>& grants() const noexcept { return grants_; }
  [[nodiscard]] const Grant* find(std::string_view key_id) const noexcept;

 private:
  crypto::Keyring keyring_;
  std::vector<Grant> grants_;
};

// The [[key]] tables of one file, as load() reads them: names checked, keys not yet read. `source` is for messages.
base::Result<std::vector<Grant>> parse_trust_file(std::string_view toml, std::string_view source);
// One [[key]] table that parse_trust_file() reads back as the same grant.
[[nodiscard]] std::string format_trust_file(const Grant& grant);

// Writes <dir>/<name>.pub and then <dir>/<name>.toml (0644), making the folder if need be; grant.file, key_id and source
// are set from the arguments. kAlreadyExists when either file exists or the key is trusted already. Returns the path of
// the TOML file. `name`: lower-case letters, digits and '-'.
base::Result<std::string> add_trust(const std::string& dir, const std::string& name, const crypto::PublicKey& key,
                                    Grant grant);
// Removes <name>.toml, then <name>.pub. kNotFound when there is no such TOML file.
base::Status remove_trust(const std::string& dir, const std::string& name);

}  // namespace cellrund::admit
