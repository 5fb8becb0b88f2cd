#include "cell/output_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/file.hpp"
#include "base/json.hpp"
#include "cell/collect/answer.hpp"
#include "evidence/outputs_manifest.hpp"
#include "shim/wire/outputs.hpp"

namespace cellrund::cell {
namespace {

using base::Errc;
using base::Error;
using base::json::Object;

constexpr const char* kData = "/outputs";
constexpr const char* kFacts = "/outputs.json";
constexpr const char* kManifest = "/manifest.json";
constexpr const char* kResult = "/result.json";
constexpr const char* kTtl = "/ttl";
constexpr std::size_t kMaxEntries = 64;
constexpr std::uint64_t kDiskReserve = 256ULL << 20U;  // bytes that outputs leave free
constexpr collect::Request kWidest{wire::kMaxOutputBytes, wire::kMaxOutputFiles};

}  // namespace

std::string job_folder(const std::string& state_dir, const std::string& uid) { return state_dir + "/jobs/" + uid; }

base::Result<base::UniqueFd> create_outputs(const std::string& folder, std::uint64_t max_bytes) {
  CR_CHECK(base::make_dirs(folder, 0700));
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0) {
    return Error::from_errno("outputs: ask for free disk space");
  }
  // The ledger lives on this file system and must go on writing.
  const std::uint64_t free = static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
  if (free < kDiskReserve || free - kDiskReserve < max_bytes) {
    return Error(Errc::kResourceExhausted, "outputs: the node's disk has " + std::to_string(free) + " bytes free, of which " +
                                               std::to_string(kDiskReserve) + " must stay, and the job may write " + std::to_string(max_bytes));
  }
  base::UniqueFd file = CR_TRY(base::open_file(folder + kData, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  // Promised now, so that jobs side by side do not count the same room; a file system that cannot promise any is asked for none.
  if (::fallocate(file.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(max_bytes)) != 0 && errno != EOPNOTSUPP) {
    const Error why = Error::from_errno("outputs: room for " + std::to_string(max_bytes) + " bytes");
    (void)base::remove_file(folder + kData);
    return why.clone();
  }
  return file;
}

base::Status store_outputs(const std::string& folder, int data_fd, model::OutputFacts& facts) {
  std::uint64_t bytes = 0;
  for (const model::OutputFile& file : facts.files) {
    bytes += file.size;
  }
  struct stat st {};
  if (::fstat(data_fd, &st) != 0) {
    return Error::from_errno("stat outputs");
  }
  if (static_cast<std::uint64_t>(st.st_size) != bytes) {
    return Error(Errc::kDataLoss, "outputs: the collector's list does not match what it stored");
  }
  // What was promised and not used is free again.
  if (::ftruncate(data_fd, st.st_size) != 0) {
    return Error::from_errno("trim outputs");
  }
  if (::fdatasync(data_fd) != 0) {
    return Error::from_errno("sync outputs");
  }
  facts.manifest_digest = evidence::outputs_manifest_digest(facts.files);
  CR_CHECK(base::write_file_atomic(folder + kManifest, evidence::outputs_manifest(facts.files), 0600));
  return base::write_file_atomic(folder + kFacts, collect::write_answer(facts), 0600);
}

base::Result<model::OutputFacts> read_outputs(const std::string& folder) {
  const std::string text = CR_TRY(base::read_file(folder + kFacts, collect::kMaxAnswer));
  model::OutputFacts facts = CR_TRY(collect::parse_answer(text, kWidest).context("stored outputs"));
  facts.manifest_digest = evidence::outputs_manifest_digest(facts.files);
  return facts;
}

base::Result<OutputSource> open_output(const std::string& folder, std::string_view path) {
  const model::OutputFacts facts = CR_TRY(read_outputs(folder));
  OutputSource source;
  for (const model::OutputFile& file : facts.files) {
    if (file.path == path) {
      source.data = CR_TRY(base::open_file(folder + kData, O_RDONLY | O_NOFOLLOW));
      source.file = file;
      return source;
    }
    source.offset += file.size;
  }
  return Error(Errc::kNotFound, "the job has no output of this name");
}

base::Status write_result(const std::string& folder, const model::Evidence& evidence, const std::string& evidence_digest) {
  const model::Outcome& outcome = evidence.outcome;
  Object result{{"uid", evidence.request.uid},
                {"state", model::to_string(outcome.state)},
                {"reason", model::to_string(outcome.reason)}};
  if (outcome.exit_code.has_value()) {
    result.set("exitCode", *outcome.exit_code);
  }
  if (outcome.signal.has_value()) {
    result.set("signal", *outcome.signal);
  }
  if (evidence.teardown.has_value()) {
    result.set("teardown", model::to_string(evidence.teardown->residue.verdict));
  }
  base::json::Array timeline;
  for (const model::TimelineEntry& entry : evidence.timeline) {
    timeline.emplace_back(Object{{"state", model::to_string(entry.state)}, {"wallTime", base::format_rfc3339(entry.wall, true)}});
  }
  result.set("timeline", std::move(timeline));
  if (evidence.outputs.has_value()) {
    base::json::Array outputs;
    for (const model::OutputFile& file : evidence.outputs->files) {
      outputs.emplace_back(evidence::output_entry(file));
    }
    result.set("outputs", std::move(outputs));
    result.set("manifestDigest", evidence.outputs->manifest_digest);
  }
  result.set("evidenceDigest", evidence_digest);
  return base::write_file_atomic(folder + kResult, base::json::write_pretty(std::move(result)) + "\n", 0600);
}

base::Status write_ttl(const std::string& folder, std::chrono::seconds ttl) {
  CR_CHECK(base::make_dirs(folder, 0700));
  const base::UniqueFd file = CR_TRY(base::open_file(folder + kTtl, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
  return base::write_all(file.get(), base::as_bytes(std::to_string(ttl.count())));
}

std::chrono::seconds read_ttl(const std::string& folder) {
  constexpr std::size_t kLongest = 16;
  const auto text = base::read_file(folder + kTtl, kLongest);
  std::chrono::seconds::rep count = 0;
  if (!text.ok() || std::from_chars(text->data(), text->data() + text->size(), count).ec != std::errc{}) {
    return model::JobSpec{}.ttl_after_finished;
  }
  return std::chrono::seconds(count);
}

base::Status remove_job_folder(const std::string& folder) {
  auto names = base::list_dir(folder, kMaxEntries);
  if (!names.ok()) {
    return names.error().code() == Errc::kNotFound ? base::ok() : base::Status(std::move(names).error());
  }
  for (const std::string& name : *names) {
    CR_CHECK(base::remove_file(folder + "/" + name));
  }
  return base::remove_dir(folder);
}

}  // namespace cellrund::cell
