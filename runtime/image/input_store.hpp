// Archives with the files of jobs (/task, /workspace), as clients have uploaded them, named by their SHA-256:
// <dir>/sha256/<hex>; and the images made of them: <dir>/images/ (the preparer's). Bytes are hashed and stored here,
// never parsed.
//
// Whoever knows a digest may name it in a signed jobspec, and the job then has the content: the digest is the capability.
// It can be had by knowing the content, or from somebody who knew it; nothing here tells one that was not given.
//
// Thread-safe. An upload that ends early leaves nothing: its file has no name until it is whole.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/file.hpp"
#include "base/guarded.hpp"
#include "base/result.hpp"
#include "crypto/digest.hpp"

namespace cellrund::image {

struct InputStoreOptions {
  std::string dir;                                // made if missing, 0700
  std::uint64_t max_archive_bytes = 256ULL << 20U;
  std::uint64_t max_peer_bytes = 1ULL << 30U;     // uploaded by one peer uid and still stored, uploads under way included
  std::uint64_t max_bytes = 4ULL << 30U;          // archives and images; uploads under way included
  // What the smallest archive counts, so that the bounds in bytes bound their number as well.
  std::uint64_t least_charge = 64UL * 1024;
  std::chrono::seconds keep{7 * 86400};           // what no job has named and nobody has uploaded for so long goes
};

class InputStore {
 public:
  // Makes the folders and removes what an interrupted run left in them.
  static base::Result<std::unique_ptr<InputStore>> create(InputStoreOptions options);
  InputStore(const InputStore&) = delete;
  InputStore& operator=(const InputStore&) = delete;
  InputStore(InputStore&&) = delete;
  InputStore& operator=(InputStore&&) = delete;
  ~InputStore() = default;

  // One archive on its way in. Belongs to one thread; the store outlives it. Destroyed before finish() it leaves nothing.
  class Upload {
   public:
    Upload(Upload&& other) noexcept;
    Upload& operator=(Upload&&) = delete;
    Upload(const Upload&) = delete;
    Upload& operator=(const Upload&) = delete;
    ~Upload();
    // kInvalidArgument when that is more than was announced.
    base::Status append(base::BytesView bytes);
    [[nodiscard]] std::uint64_t received() const noexcept { return received_; }
    [[nodiscard]] bool whole() const noexcept { return received_ == size_; }
    [[nodiscard]] const std::string& digest() const noexcept { return digest_; }
    // Durable on success. kDataLoss: the bytes do not have the announced digest.
    base::Status finish();

   private:
    friend class InputStore;
    Upload(InputStore& store, std::string digest, std::uint64_t size, std::uint32_t peer_uid, base::UniqueFd file)
        : store_(&store), digest_(std::move(digest)), size_(size), peer_uid_(peer_uid), file_(std::move(file)) {}
    InputStore* store_;
    std::string digest_;
    std::uint64_t size_;
    std::uint32_t peer_uid_;
    base::UniqueFd file_;
    crypto::Sha256 sha_;
    std::uint64_t received_ = 0;
  };
  // nullopt: the content is here already, and counts as new again. kInvalidArgument for a bad digest or size,
  // kResourceExhausted when it is larger than this node takes, or does not fit beside what open jobs name.
  base::Result<std::optional<Upload>> begin(const std::string& digest, std::uint64_t size, std::uint32_t peer_uid);

  // While it lives, what it names is not removed. The store outlives it.
  class Pin {
   public:
    Pin(Pin&& other) noexcept : store_(std::exchange(other.store_, nullptr)), names_(std::move(other.names_)) {}
    Pin& operator=(Pin&&) = delete;
    Pin(const Pin&) = delete;
    Pin& operator=(const Pin&) = delete;
    ~Pin();

   private:
    friend class InputStore;
    Pin(InputStore& store, std::vector<std::string> names) : store_(&store), names_(std::move(names)) {}
    InputStore* store_;
    std::vector<std::string> names_;
  };
  // Digests of archives, and names of images (which need not exist yet). kNotFound names the first archive that is missing.
  base::Result<Pin> pin(const std::vector<std::string>& archives, const std::vector<std::string>& images);

  // For reading from its start. Not hashed yet.
  [[nodiscard]] base::Result<base::UniqueFd> open(const std::string& digest) const;
  // An archive whose bytes no longer have their digest: the next upload may bring it anew.
  void discard(const std::string& digest);
  [[nodiscard]] std::string images_dir() const { return options_.dir + "/images"; }

  // Removes what is older than `keep`, and the longest unused until all fits; never what is pinned.
  base::Status collect();

 private:
  struct State {
    std::map<std::string, std::uint64_t> pinned;                 // name → pins
    std::map<std::uint32_t, std::uint64_t> under_way;            // peer uid → announced bytes
  };
  struct Stored;
  explicit InputStore(InputStoreOptions options) : options_(std::move(options)) {}
  [[nodiscard]] std::string path_of(const std::string& digest) const;
  [[nodiscard]] base::Result<std::vector<Stored>> list() const;
  // Under the lock. Afterwards `more` bytes of `peer_uid` fit, or kResourceExhausted. Without a peer only age and total count.
  base::Status make_room(State& state, std::uint64_t more, std::optional<std::uint32_t> peer_uid) const;
  base::Status publish(const Upload& upload);

  InputStoreOptions options_;
  base::Guarded<State> state_;
};

}  // namespace cellrund::image
