#include "admit/trust.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/file.hpp"

namespace cellrund::admit {

using base::Errc;
using base::Error;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::size_t kMaxFileBytes = 64UL * 1024;
constexpr std::size_t kMaxDirEntries = 1024;
constexpr unsigned kWritableByOthers = 022;

// A policy that someone else can change is not the operator's.
base::Status check_owner(int fd, const std::string& what, bool directory) {
  struct stat st {};
  if (fstat(fd, &st) != 0) {
    return Error::from_errno("load trust: " + what + ": fstat");
  }
  if (directory ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)) {
    return Error(Errc::kInvalidArgument, "load trust: " + what + (directory ? ": not a directory" : ": not a regular file"));
  }
  if (st.st_uid != 0 && st.st_uid != geteuid()) {
    return Error(Errc::kPermissionDenied, "load trust: " + what + ": belongs to another user than root");
  }
  if ((st.st_mode & kWritableByOthers) != 0) {
    return Error(Errc::kPermissionDenied, "load trust: " + what + ": writable by group or others; `chmod go-w` it");
  }
  return base::ok();
}

Result<std::string> read_checked(int dir_fd, const std::string& name) {
  const UniqueFd fd = CR_TRY(base::open_at(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK).context("load trust"));
  CR_CHECK(check_owner(fd.get(), name, false));
  return base::read_fd(fd.get(), kMaxFileBytes).context("load trust: " + name);
}

bool is_entry_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && name.front() != '-' &&
         std::all_of(name.begin(), name.end(), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

Error bad_name(std::string_view operation) {
  return Error(Errc::kInvalidArgument, std::string(operation) + ": a name is lower-case letters, digits and '-', at most 64");
}

}  // namespace

const Grant* TrustStore::find(std::string_view key_id) const noexcept {
  for (const Grant& grant : grants_) {
    if (grant.key_id == key_id) {
      return &grant;
    }
  }
  return nullptr;
}

Result<TrustStore> TrustStore::load(const std::string& dir) {
  TrustStore out;
  auto dir_fd = base::open_file(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!dir_fd.ok()) {
    if (dir_fd.error().os_errno() == ENOENT) {
      return out;  // trusts no one
    }
    return std::move(dir_fd).error().context("load trust");
  }
  CR_CHECK(check_owner(dir_fd->get(), dir, true));
  std::vector<std::string> names = CR_TRY(base::list_dir(dir, kMaxDirEntries).context("load trust"));
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(".toml") || name.starts_with('.'); });
  std::sort(names.begin(), names.end());
  if (names.size() > kMaxFiles) {
    return Error(Errc::kResourceExhausted, "load trust: " + dir + ": more than " + std::to_string(kMaxFiles) + " files");
  }
  for (const std::string& name : names) {
    const std::string text = CR_TRY(read_checked(dir_fd->get(), name));
    std::vector<Grant> grants = CR_TRY(parse_trust_file(text, name).context("load trust"));
    for (Grant& grant : grants) {
      const std::string pem = CR_TRY(read_checked(dir_fd->get(), grant.file));
      auto key = CR_TRY(crypto::PublicKey::from_pem(pem).context("load trust: " + grant.file));
      grant.key_id = key.key_id();
      // Two grants for one key would leave open which of them counts.
      CR_CHECK(out.keyring_.add({std::move(key), grant.revoked, grant.not_after}).context("load trust: " + name + ": " + grant.file));
      out.grants_.push_back(std::move(grant));
    }
  }
  return out;
}

Result<std::string> add_trust(const std::string& dir, const std::string& name, const crypto::PublicKey& key, Grant grant) {
  if (!is_entry_name(name)) {
    return bad_name("add trust");
  }
  CR_CHECK(base::make_dirs(dir, 0755).context("add trust"));
  const TrustStore store = CR_TRY(TrustStore::load(dir).context("add trust"));
  if (const Grant* known = store.find(key.key_id()); known != nullptr) {
    return Error(Errc::kAlreadyExists, "add trust: key " + key.key_id() + ": already in " + known->source);
  }
  const std::string toml_path = dir + "/" + name + ".toml";
  const std::string key_path = dir + "/" + name + ".pub";
  for (const std::string& path : {toml_path, key_path}) {
    if (base::exists(path)) {
      return Error(Errc::kAlreadyExists, "add trust: " + path + ": already exists");
    }
  }
  grant.file = name + ".pub";
  const std::string text = format_trust_file(grant);
  // What load() would refuse must not be written: it would take every other key down with it.
  CR_CHECK(parse_trust_file(text, name + ".toml").context("add trust"));
  CR_CHECK(base::write_file_atomic(key_path, key.pem(), 0644).context("add trust"));
  CR_CHECK(base::write_file_atomic(toml_path, text, 0644).context("add trust"));
  return toml_path;
}

base::Status remove_trust(const std::string& dir, const std::string& name) {
  if (!is_entry_name(name)) {
    return bad_name("remove trust");
  }
  const std::string toml_path = dir + "/" + name + ".toml";
  if (!base::exists(toml_path)) {
    return Error(Errc::kNotFound, "remove trust: " + toml_path + ": no such file");
  }
  CR_CHECK(base::remove_file(toml_path).context("remove trust"));
  // A hand-written file may use the same key file.
  const TrustStore left = CR_TRY(TrustStore::load(dir).context("remove trust"));
  const std::string key_file = name + ".pub";
  if (std::any_of(left.grants().begin(), left.grants().end(), [&](const Grant& grant) { return grant.file == key_file; })) {
    return base::ok();
  }
  return base::remove_file(dir + "/" + key_file).context("remove trust");
}

}  // namespace cellrund::admit
