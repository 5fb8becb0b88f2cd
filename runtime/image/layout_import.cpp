#include "image/layout_import.hpp"

#include <algorithm>
#include <memory>

#include "base/file.hpp"
#include "base/log.hpp"
#include "crypto/digest.hpp"
#include "image/layout_archive.hpp"
#include "image/oci.hpp"

namespace cellrund::image {
namespace {

using base::Deadline;
using base::Errc;
using base::Error;
using base::Result;
using base::Status;

constexpr const char* kOs = "linux";
constexpr const char* kArchitecture = "amd64";
constexpr int kMaxIndexDepth = 3;
constexpr const char* kSpoolDir = "/var/tmp";  // nameless files; /tmp may be small and in memory

struct Candidate {
  Descriptor manifest;
  std::string name;  // from the annotations, maybe empty
};

// Entries for our platform, and those that do not say theirs: their config will.
bool may_run_here(const IndexEntry& entry) {
  return (entry.os.empty() || entry.os == kOs) && (entry.architecture.empty() || entry.architecture == kArchitecture);
}

// Follows indexes down to manifests. A name further out applies where there is none further in.
// NOLINTNEXTLINE(misc-no-recursion): bounded by depth
Status collect(const LayoutArchive& archive, const std::string& index, const std::string& outer_name, int depth,
               std::vector<Candidate>& into) {
  const std::vector<IndexEntry> entries = CR_TRY(parse_index(index));
  for (const IndexEntry& entry : entries) {
    if (!may_run_here(entry)) {
      continue;
    }
    const std::string& name = entry.name.empty() ? outer_name : entry.name;
    if (is_manifest_type(entry.blob.media_type)) {
      into.push_back({entry.blob, name});
    } else if (is_index_type(entry.blob.media_type)) {
      if (depth == 0) {
        return Error(Errc::kInvalidArgument, "indexes nest too deeply");
      }
      const std::string nested = CR_TRY(archive.document(entry.blob));
      CR_CHECK(collect(archive, nested, name, depth - 1, into));
    }
  }
  return base::ok();
}

// The lease around an import. Released on every way out.
class Hold {
 public:
  static Result<std::unique_ptr<Hold>> take(ContentStore& store, Deadline deadline) {
    CR_CHECK(store.hold(deadline).context("take a lease"));
    return std::unique_ptr<Hold>(new Hold(store));
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  Hold(Hold&&) = delete;
  Hold& operator=(Hold&&) = delete;
  ~Hold() {
    constexpr auto kBudget = std::chrono::seconds(10);
    (void)store_.release(Deadline::after(kBudget));  // a lease that stays expires by itself
  }

 private:
  explicit Hold(ContentStore& store) : store_(store) {}
  ContentStore& store_;
};

// The labels that keep children alive in containerd's garbage collection (its images/mediatypes.go).
Labels gc_labels(const Manifest& manifest) {
  Labels out{{"containerd.io/gc.ref.content.config", manifest.config.digest}};
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    out.emplace_back("containerd.io/gc.ref.content.l." + std::to_string(i), manifest.layers[i].blob.digest);
  }
  return out;
}

Result<ImportedImage> import_one(const LayoutArchive& archive, const Candidate& candidate,
                                 const std::string& repository, ContentStore& store, Deadline deadline) {
  const std::string manifest_text = CR_TRY(archive.document(candidate.manifest));
  const Manifest manifest = CR_TRY(parse_manifest(manifest_text));
  const std::string config_text = CR_TRY(archive.document(manifest.config));
  const Config config = CR_TRY(parse_config(config_text));
  if (config.os != kOs || config.architecture != kArchitecture) {
    return Error(Errc::kInvalidArgument,
                 "it is for " + base::log::quoted(config.os + "/" + config.architecture) + ", not linux/amd64");
  }
  if (config.diff_ids.size() != manifest.layers.size()) {
    return Error(Errc::kInvalidArgument, "its config names another number of layers than its manifest");
  }
  ImportedImage out;
  out.reference = repository + "@" + candidate.manifest.digest;
  out.layers = manifest.layers.size();
  const auto ingest = [&](const Descriptor& blob, const Labels& labels) -> Status {
    const base::UniqueFd fd = CR_TRY(archive.extract(blob, kSpoolDir));
    out.bytes += blob.size;
    return store.ingest_blob(blob, fd.get(), labels, deadline).context("store " + blob.digest);
  };
  // Children first: a parent's labels may only name what is there.
  for (const Layer& layer : manifest.layers) {
    CR_CHECK(ingest(layer.blob, {}));
  }
  CR_CHECK(ingest(manifest.config, {}));
  Descriptor target = candidate.manifest;
  target.media_type = manifest.media_type;
  CR_CHECK(ingest(target, gc_labels(manifest)));
  CR_CHECK(store.put_image(out.reference, target, deadline).context("record " + out.reference));
  return out;
}

Result<std::string> repository_for(const Candidate& candidate, const ImportOptions& options) {
  if (!options.repository.empty()) {
    return repository_of(options.repository);
  }
  // A bare tag such as "latest", as skopeo and podman write it, is no name.
  const bool bare = candidate.name.find('/') == std::string::npos && candidate.name.find(':') == std::string::npos;
  auto name = candidate.name.empty() || bare ? Result<std::string>(Error(Errc::kInvalidArgument, ""))
                                             : repository_of(candidate.name);
  if (!name.ok()) {
    return Error(Errc::kInvalidArgument, "the archive does not say the image's repository; give one with --name");
  }
  return name;
}

}  // namespace

Result<std::vector<ImportedImage>> import_layout(const ImportOptions& options, ContentStore& store, Deadline deadline) {
  const std::string where = "import " + options.path;
  const LayoutArchive archive = CR_TRY(LayoutArchive::open(options.path).context(where));
  std::vector<Candidate> candidates;
  const std::string index = CR_TRY(archive.index().context(where));
  CR_CHECK(collect(archive, index, "", kMaxIndexDepth, candidates).context(where));
  if (candidates.empty()) {
    return Error(Errc::kInvalidArgument, where + ": the archive has no image for linux/amd64");
  }
  if (candidates.size() > 1 && !options.repository.empty()) {
    return Error(Errc::kInvalidArgument, where + ": the archive has " + std::to_string(candidates.size()) +
                                             " images; one name cannot be given to all of them");
  }
  const std::unique_ptr<Hold> hold = CR_TRY(Hold::take(store, deadline).context(where));
  std::vector<ImportedImage> out;
  for (const Candidate& candidate : candidates) {
    const std::string repository = CR_TRY(repository_for(candidate, options).context(where));
    ImportedImage image = CR_TRY(import_one(archive, candidate, repository, store, deadline).context(where));
    if (std::none_of(out.begin(), out.end(), [&](const auto& other) { return other.reference == image.reference; })) {
      out.push_back(std::move(image));
    }
  }
  return out;
}

}  // namespace cellrund::image
