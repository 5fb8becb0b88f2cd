// outputs ls, outputs get.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file.hpp"
#include "crypto/digest.hpp"
#include "evidence/outputs_manifest.hpp"
#include "groups.hpp"

namespace cellrund::cli {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::UniqueFd;

constexpr std::size_t kWholePath = 1024;  // of the longest output

// Below `folder`, through no link of any kind, whatever somebody puts there meanwhile (openat2(2)).
UniqueFd open_below(int folder, const std::string& path, int flags, unsigned mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how)));
}

// The folder that `path` is in, made where it is missing.
Result<UniqueFd> parent_of(int folder, const std::string& path) {
  UniqueFd at = open_below(folder, ".", O_PATH | O_DIRECTORY, 0);
  if (!at) {
    return Error::from_errno("open the folder");
  }
  std::size_t begin = 0;
  for (std::size_t slash = path.find('/'); slash != std::string::npos; begin = slash + 1, slash = path.find('/', begin)) {
    const std::string name = path.substr(begin, slash - begin);
    if (::mkdirat(at.get(), name.c_str(), 0777) != 0 && errno != EEXIST) {
      return Error::from_errno("make folder " + printable(name));
    }
    at = open_below(at.get(), name, O_PATH | O_DIRECTORY, 0);
    if (!at) {
      return Error::from_errno("enter folder " + printable(name));
    }
  }
  return at;
}

enum class Existing { kKeep, kReplace };

// A new file below `folder` that holds nothing yet.
class NewFile {
 public:
  static Result<NewFile> create(int folder, const std::string& path, Existing existing) {
    UniqueFd parent = CR_TRY(parent_of(folder, path));
    std::string name = path.substr(path.rfind('/') + 1);
    if (existing == Existing::kReplace && ::unlinkat(parent.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
      return Error::from_errno("replace " + printable(path));
    }
    UniqueFd file = open_below(parent.get(), name, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file) {
      return Error::from_errno("create " + printable(path));
    }
    return NewFile(std::move(parent), std::move(name), std::move(file));
  }
  [[nodiscard]] int fd() const noexcept { return file_.get(); }
  void remove() const noexcept { (void)::unlinkat(parent_.get(), name_.c_str(), 0); }

 private:
  NewFile(UniqueFd parent, std::string name, UniqueFd file)
      : parent_(std::move(parent)), name_(std::move(name)), file_(std::move(file)) {}
  UniqueFd parent_;
  std::string name_;
  UniqueFd file_;
};

// The bytes of one output into `fd`; a failure when they are not those of the manifest.
base::Result<bool, Failed> fetch(Connected& at, const model::OutputFile& file, int fd) {
  crypto::Sha256 hash;
  std::uint64_t size = 0;
  base::Status written = base::ok();
  (void)CR_TRY(stream(at.client, api::ReadOutput{at.uid, file.path}, [&](api::Response response) {
    if (const auto* chunk = std::get_if<api::OutputChunk>(&response)) {
      if (chunk->offset != size || chunk->data.size() > file.size - size) {
        written = Error(Errc::kDataLoss, "cellrund sent other bytes than it announced");
        return false;
      }
      size += chunk->data.size();
      hash.update(chunk->data);
      written = base::write_all(fd, base::as_bytes(chunk->data));
    }
    return written.ok();
  }));
  if (written.ok() && (size != file.size || crypto::digest_text(hash.finish()) != file.sha256)) {
    written = Error(Errc::kDataLoss, printable(file.path) + " is not what the manifest says");
  }
  if (!written.ok()) {
    return failed(written.error());
  }
  return true;
}

base::Result<model::OutputFacts, Failed> outputs_of(Connected& at) {
  api::Outputs reply = CR_TRY(ask<api::Outputs>(at.client, api::GetOutputs{at.uid}));
  if (evidence::outputs_manifest_digest(reply.facts.files) != reply.facts.manifest_digest) {
    return failed(Error(Errc::kDataLoss, "outputs of " + at.uid + ": the list is not that of the manifest's digest"));
  }
  return std::move(reply.facts);
}

// What is missing, for people.
void remark_missing(const model::OutputFacts& facts) {
  if (!facts.incomplete_because.empty()) {
    remark("not all of /outputs was handed over: " + printable(facts.incomplete_because) + "\n");
  }
  if (facts.refused_count > 0) {
    remark(std::to_string(facts.refused_count) + " refused:\n");
    for (const model::RefusedOutput& refused : facts.refused) {
      remark("  " + printable(refused.path) + ": " + printable(refused.why) + "\n");
    }
  }
}

base::json::Object facts_json(const model::OutputFacts& facts) {
  base::json::Array files;
  for (const model::OutputFile& file : facts.files) {
    files.emplace_back(evidence::output_entry(file));
  }
  base::json::Array refused;
  for (const model::RefusedOutput& output : facts.refused) {
    refused.emplace_back(base::json::Object{{"path", output.path}, {"why", output.why}});
  }
  base::json::Object out{{"outputs", std::move(files)},
                         {"refusedOutputs", std::move(refused)},
                         {"refused", facts.refused_count},
                         {"manifestDigest", facts.manifest_digest}};
  if (!facts.incomplete_because.empty()) {
    out.set("incompleteBecause", facts.incomplete_because);
  }
  return out;
}

// Those that were named, or all: a folder's name stands for what is in it.
base::Result<std::vector<model::OutputFile>, Failed> chosen(const model::OutputFacts& facts, const std::vector<std::string>& names) {
  if (names.empty()) {
    return facts.files;
  }
  std::vector<model::OutputFile> out;
  for (const std::string& name : names) {
    const std::size_t before = out.size();
    for (const model::OutputFile& file : facts.files) {
      if (file.path == name || file.path.starts_with(name.ends_with('/') ? name : name + "/")) {
        out.push_back(file);
      }
    }
    if (out.size() == before) {
      return failed(Error(Errc::kNotFound, "the job has no output " + printable(name)), "cellrun outputs ls JOB lists them");
    }
  }
  return out;
}

Outcome get_one(Connected& at, const model::OutputFile& file, const std::string& target, Existing existing) {
  if (target == "-") {
    (void)CR_TRY(fetch(at, file, STDOUT_FILENO));
    return 0;
  }
  if (existing == Existing::kReplace) {
    (void)base::remove_file(target);  // what cannot be removed shows when it is made
  }
  const auto made = base::open_file(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
  if (!made.ok()) {
    return failed(made.error(), made.error().os_errno() == EEXIST ? "--force replaces it" : "");
  }
  auto fetched = fetch(at, file, made->get());
  if (!fetched.ok()) {
    (void)base::remove_file(target);
    return std::move(fetched).error();
  }
  return 0;
}

}  // namespace

Outcome outputs_list(Context& context) {
  Connected at = CR_TRY(connect_to_job(context));
  const model::OutputFacts facts = CR_TRY(outputs_of(at));
  if (context.format() == Format::kJson) {
    return print(object_text(context.format(), facts_json(facts))) ? 0 : kExitOurs;
  }
  if (context.format() == Format::kJsonLines) {
    base::json::Array files;
    for (const model::OutputFile& file : facts.files) {
      files.emplace_back(evidence::output_entry(file));
    }
    return print(list_text(context.format(), "outputs", std::move(files))) ? 0 : kExitOurs;
  }
  std::vector<std::vector<std::string>> rows;
  for (const model::OutputFile& file : facts.files) {
    rows.push_back({printable(file.path, kWholePath), std::to_string(file.size), file.sha256});
  }
  const bool printed = print(table({"PATH", "BYTES", "DIGEST"}, rows));
  remark_missing(facts);
  return printed ? 0 : kExitOurs;
}

Outcome outputs_get(Context& context) {
  const Arguments& arguments = context.arguments();
  const auto target = arguments.value("to");
  if (target.has_value() && arguments.has("directory")) {
    return misuse("outputs get: --to and --directory contradict each other", "--to takes one output, --directory any number");
  }
  Connected at = CR_TRY(connect_to_job(context));
  const model::OutputFacts facts = CR_TRY(outputs_of(at));
  const std::vector<std::string> names(arguments.positional.begin() + 1, arguments.positional.end());
  const std::vector<model::OutputFile> files = CR_TRY(chosen(facts, names));
  const Existing existing = arguments.has("force") ? Existing::kReplace : Existing::kKeep;
  if (target.has_value()) {
    if (files.size() != 1) {
      return misuse("outputs get: --to takes exactly one output, and these are " + std::to_string(files.size()), "name one PATH");
    }
    return get_one(at, files.front(), *target, existing);
  }
  const std::string folder_name = arguments.value("directory").value_or(".");
  const auto folder = base::open_file(folder_name, O_PATH | O_DIRECTORY);
  if (!folder.ok()) {
    return failed(folder.error(), "--directory names a folder that exists");
  }
  for (const model::OutputFile& file : files) {
    const auto made = NewFile::create(folder->get(), file.path, existing);
    if (!made.ok()) {
      return failed(made.error(), made.error().os_errno() == EEXIST ? "--force replaces files that exist" : "");
    }
    auto fetched = fetch(at, file, made->fd());
    if (!fetched.ok()) {
      made->remove();
      return std::move(fetched).error();
    }
  }
  remark_missing(facts);
  return 0;
}

}  // namespace cellrund::cli
