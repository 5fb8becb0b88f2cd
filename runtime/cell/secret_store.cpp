#include "cell/secret_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/fd.hpp"
#include "base/file.hpp"

namespace cellrund::cell {
namespace {

using base::Errc;
using base::Error;
using base::Result;

Error not_kept(const std::string& path, std::string_view why) {
  return Error(Errc::kPermissionDenied, "secret file " + path + " " + std::string(why));
}

base::Status check_kept(int fd, const std::string& path, std::uint32_t owner, mode_t type) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    return Error::from_errno("stat " + path);
  }
  if ((info.st_mode & S_IFMT) != type) {
    return not_kept(path, type == S_IFDIR ? "is no folder" : "is no regular file");
  }
  if (info.st_uid != owner) {
    return not_kept(path, "is not owned by uid " + std::to_string(owner));
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return not_kept(path, "is open to its group or to others: chmod go-rwx");
  }
  if (type == S_IFREG && info.st_nlink != 1) {
    return not_kept(path, "has a second name");
  }
  return base::ok();
}

Result<base::UniqueFd> open_folder(int parent, const std::string& name, const std::string& path, std::uint32_t owner) {
  base::UniqueFd fd = CR_TRY(base::open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  CR_CHECK(check_kept(fd.get(), path, owner, S_IFDIR));
  return fd;
}

Result<base::Secret> read_value(int folder, const std::string& name, const std::string& path, std::uint32_t owner) {
  const base::UniqueFd fd = CR_TRY(base::open_at(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  CR_CHECK(check_kept(fd.get(), path, owner, S_IFREG));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) {
    return Error::from_errno("stat " + path);
  }
  const auto size = static_cast<std::size_t>(info.st_size);
  if (size == 0 || size > wire::kMaxSecretBytes) {
    return not_kept(path, "is empty or longer than " + std::to_string(wire::kMaxSecretBytes) + " bytes");
  }
  base::Secret out = CR_TRY(base::Secret::create(size));
  std::span<std::uint8_t> rest = out.bytes();
  while (!rest.empty()) {
    const ssize_t n = ::read(fd.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return n < 0 ? Error::from_errno("read " + path) : not_kept(path, "was changed while it was read");
    }
    rest = rest.subspan(static_cast<std::size_t>(n));
  }
  return out;
}

bool is_missing(const Error& error) { return error.os_errno() == ENOENT; }

// A symbolic link, or a file where a folder should be.
Error explain(Error error, const std::string& path) {
  return error.os_errno() == ELOOP || error.os_errno() == ENOTDIR ? not_kept(path, "is a symbolic link, or lies below one") : std::move(error);
}

}  // namespace

Result<base::Secret> SecretStore::read(const std::string& ref) const {
  const std::size_t slash = ref.find('/');
  const std::string space = ref.substr(0, slash);
  const std::string name = slash == std::string::npos ? std::string() : ref.substr(slash + 1);
  // Without a dot in the namespace no two references name one credential.
  if (!wire::is_secret_name(space) || space.find('.') != std::string::npos || !wire::is_secret_name(name)) {
    return Error(Errc::kInvalidArgument, "no reference of a secret");
  }
  const auto below = [&](const std::string& root, bool nested) -> Result<base::Secret> {
    base::UniqueFd folder = CR_TRY(open_folder(AT_FDCWD, root, root, owner_));
    if (!nested) {
      return read_value(folder.get(), space + "." + name, root + "/" + space + "." + name, owner_);
    }
    folder = CR_TRY(open_folder(folder.get(), space, root + "/" + space, owner_));
    return read_value(folder.get(), name, root + "/" + ref, owner_);
  };
  for (const auto& [root, nested] : {std::pair{&folder_, true}, std::pair{&credentials_, false}}) {
    if (root->empty()) {
      continue;
    }
    auto found = below(*root, nested);
    if (found.ok() || !is_missing(found.error())) {
      return found.ok() ? std::move(found) : Result<base::Secret>(explain(std::move(found).error(), *root + "/" + ref));
    }
  }
  return Error(Errc::kNotFound, "this node has no secret " + ref);
}

std::optional<model::Refusal> SecretStore::refusal(const std::vector<model::SecretRef>& secrets) const {
  for (std::size_t i = 0; i < secrets.size(); ++i) {
    if (const auto value = read(secrets[i].ref); !value.ok()) {
      const std::string field = "spec.secrets[" + std::to_string(i) + "].ref";
      return model::Refusal{model::Reason::kPolicyDenied, field + " cannot be given: " + value.error().message(),
                            "cellrun-jobspec(5) says where a node keeps its secrets", field};
    }
  }
  return std::nullopt;
}

Result<std::vector<wire::NamedSecret>> SecretStore::fetch(const std::vector<model::SecretRef>& secrets) const {
  std::vector<wire::NamedSecret> out;
  for (const model::SecretRef& secret : secrets) {
    out.push_back({secret.name, secret.ttl.value_or(std::chrono::seconds(0)), CR_TRY(read(secret.ref))});
  }
  return out;
}

}  // namespace cellrund::cell
