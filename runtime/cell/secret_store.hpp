// Where this node's secrets come from: files below a folder that root alone may enter, and systemd credentials. Values are read when
// a job starts and kept nowhere. Safe to use from any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "model/job_spec.hpp"
#include "model/outcome.hpp"
#include "shim/wire/secrets.hpp"

namespace cellrund::cell {

class SecretStore {
 public:
  // `folder`: holds <namespace>/<name>. `credentials`: systemd's $CREDENTIALS_DIRECTORY, which holds <namespace>.<name>; empty:
  // none. Neither has to exist. `owner`: whose all of it must be; root but for tests.
  explicit SecretStore(std::string folder, std::string credentials, std::uint32_t owner = 0)
      : folder_(std::move(folder)), credentials_(std::move(credentials)), owner_(owner) {}

  // The value of "<namespace>/<name>". Folders and file are the owner's alone (no bit for group and others), no symbolic links,
  // and the file is a regular one with one name and at most wire::kMaxSecretBytes.
  // kNotFound: the node has no such secret. kPermissionDenied: it is there, and not kept as it must be.
  base::Result<base::Secret> read(const std::string& ref) const;

  // Whether each of a job's secrets could be read now; the refusal names the first that could not.
  std::optional<model::Refusal> refusal(const std::vector<model::SecretRef>& secrets) const;
  base::Result<std::vector<wire::NamedSecret>> fetch(const std::vector<model::SecretRef>& secrets) const;

 private:
  std::string folder_;
  std::string credentials_;
  std::uint32_t owner_;
};

}  // namespace cellrund::cell
