// Archives of inputs: whole and named by their digest, or not there at all; within bounds; never gone under an open job.
#include "image/input_store.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

using namespace cellrund;
using image::InputStore;

namespace {

class Fixture {
 public:
  explicit Fixture(image::InputStoreOptions options = {}) : options_(std::move(options)) {
    std::string name = "/tmp/cellrun-inputs.XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    options_.dir = name + "/inputs";
    root_ = name;
    reopen();
  }
  ~Fixture() {
    store.reset();
    for (const char* folder : {"/inputs/sha256", "/inputs/images"}) {
      const std::vector<std::string> left = base::list_dir(root_ + folder, 1000).value();
      for (const std::string& file : left) {
        (void)base::remove_file(root_ + folder + "/" + file);
      }
      (void)base::remove_dir(root_ + folder);
    }
    (void)base::remove_dir(root_ + "/inputs");
    (void)base::remove_dir(root_);
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;
  Fixture(Fixture&&) = delete;
  Fixture& operator=(Fixture&&) = delete;

  void reopen() { store = InputStore::create(options_).value(); }
  [[nodiscard]] std::vector<std::string> files() const { return base::list_dir(options_.dir + "/sha256", 1000).value(); }
  [[nodiscard]] std::string path(const std::string& digest) const { return options_.dir + "/sha256/" + digest.substr(7); }
  void age(const std::string& digest, std::int64_t seconds) const {
    timespec now{};
    REQUIRE(::clock_gettime(CLOCK_REALTIME, &now) == 0);
    const timespec then{now.tv_sec - seconds, 0};
    const timespec times[2] = {then, then};
    REQUIRE(::utimensat(AT_FDCWD, path(digest).c_str(), times, 0) == 0);
  }
  // A whole upload; its digest.
  [[nodiscard]] std::string put(const std::string& text, std::uint32_t uid) const {
    const std::string digest = crypto::digest_text(base::as_bytes(text));
    auto upload = store->begin(digest, text.size(), uid).value();
    REQUIRE(upload.has_value());
    REQUIRE(upload->append(base::as_bytes(text)).ok());
    REQUIRE(upload->finish().ok());
    return digest;
  }
  [[nodiscard]] bool has(const std::string& digest) const { return base::exists(path(digest)); }

  std::unique_ptr<InputStore> store;

 private:
  image::InputStoreOptions options_;
  std::string root_;
};

// As nobody but the owner of the files may give them to somebody else, every upload is this test's own.
std::uint32_t me() { return ::geteuid(); }

std::string digest_of(const std::string& text) { return crypto::digest_text(base::as_bytes(text)); }

}  // namespace

TEST_CASE("an upload in pieces becomes a private file named by its digest") {
  const Fixture f;
  const std::string digest = digest_of("hello");
  auto upload = f.store->begin(digest, 5, me()).value();
  REQUIRE(upload.has_value());
  CHECK(upload->append(base::as_bytes("he")).ok());
  CHECK(f.files().empty());  // nothing has a name before it is whole
  CHECK_FALSE(upload->finish().ok());
  CHECK(upload->append(base::as_bytes("llo")).ok());
  CHECK(upload->whole());
  REQUIRE(upload->finish().ok());
  struct stat st {};
  REQUIRE(::stat(f.path(digest).c_str(), &st) == 0);
  CHECK((st.st_mode & 07777U) == 0600);
  CHECK(st.st_nlink == 1);
  CHECK(base::read_file(f.path(digest), 100).value() == "hello");
}

TEST_CASE("what is there is not taken again, what is damaged is") {
  const Fixture f;
  const std::string digest = f.put("hello", me());
  CHECK_FALSE(f.store->begin(digest, 5, me())->has_value());
  REQUIRE(::truncate(f.path(digest).c_str(), 3) == 0);
  CHECK(f.put("hello", me()) == digest);
  CHECK(base::read_file(f.path(digest), 100).value() == "hello");
  f.store->discard(digest);
  CHECK(f.files().empty());
}

TEST_CASE("an upload that ends early, or has other bytes than announced, leaves nothing") {
  const Fixture f;
  {
    auto upload = f.store->begin(digest_of("hello"), 5, me()).value();
    REQUIRE(upload->append(base::as_bytes("hel")).ok());
  }
  CHECK(f.files().empty());
  auto upload = f.store->begin(digest_of("hello"), 5, me()).value();
  const base::Status longer = upload->append(base::as_bytes("hello!"));
  CHECK(longer.error().code() == base::Errc::kInvalidArgument);
  REQUIRE(upload->append(base::as_bytes("jello")).ok());
  const base::Status other = upload->finish();
  CHECK(other.error().code() == base::Errc::kDataLoss);
  CHECK(other.error().message().find(digest_of("jello")) != std::string::npos);
  upload.reset();
  CHECK(f.files().empty());
}

TEST_CASE("bad announcements are refused") {
  const Fixture f({.dir = {}, .max_archive_bytes = 10});
  CHECK(f.store->begin("sha256:12", 5, me()).error().code() == base::Errc::kInvalidArgument);
  CHECK(f.store->begin("sha256:../../../../../../../../../../../../../../../../../../../etc/x", 5, me()).error().code() ==
        base::Errc::kInvalidArgument);
  CHECK(f.store->begin(digest_of(""), 0, me()).error().code() == base::Errc::kInvalidArgument);
  const auto large = f.store->begin(digest_of("x"), 11, me());
  CHECK(large.error().code() == base::Errc::kResourceExhausted);
  CHECK(large.error().message().find("inputs.max_archive_bytes") != std::string::npos);
}

TEST_CASE("a peer's oldest archives make room for its new ones, but not while a job names them") {
  const Fixture f({.dir = {}, .max_archive_bytes = 10, .max_peer_bytes = 12, .least_charge = 1});
  const std::string first = f.put("first", me());
  const std::string second = f.put("second", me());
  f.age(first, 100);
  {
    const auto pin = f.store->pin({first}, {});
    REQUIRE(pin.ok());
    f.age(first, 100);  // the pin counts as a use
    const std::string third = f.put("third", me());
    CHECK(f.has(first));
    CHECK_FALSE(f.has(second));
    const auto fourth = f.store->begin(digest_of("fourth4"), 7, me());
    REQUIRE(fourth.ok());
    CHECK_FALSE(f.has(third));
    // What is under way counts as well: five pinned bytes and these seven leave no room.
    const auto fifth = f.store->begin(digest_of("fifth"), 5, me());
    CHECK(fifth.error().code() == base::Errc::kResourceExhausted);
    CHECK(fifth.error().message().find("inputs.max_peer_bytes") != std::string::npos);
  }
  CHECK(f.put("again", me()) == digest_of("again"));
}

TEST_CASE("the store as a whole is bounded, whoever has filled it") {
  const Fixture f({.dir = {}, .max_archive_bytes = 10, .max_peer_bytes = 100, .max_bytes = 12, .least_charge = 1});
  const std::string first = f.put("first", me());
  f.age(first, 100);
  const std::string second = f.put("second", me());
  const std::string third = f.put("third", me());
  CHECK_FALSE(f.has(first));
  const auto pin = f.store->pin({second, third}, {});
  const auto fourth = f.store->begin(digest_of("fourth"), 6, me());
  CHECK(fourth.error().code() == base::Errc::kResourceExhausted);
  CHECK(fourth.error().message().find("inputs.max_bytes") != std::string::npos);
  CHECK(f.has(second));
  CHECK(f.has(third));
}

TEST_CASE("what nothing has named for long goes, also at a start") {
  Fixture f({.dir = {}, .keep = std::chrono::seconds(60)});
  const std::string old = f.put("old", me());
  const std::string named = f.put("named", me());
  const std::string young = f.put("young", me());
  f.age(old, 120);
  {
    const auto pin = f.store->pin({named}, {});
    f.age(named, 120);
    REQUIRE(f.store->collect().ok());
    CHECK_FALSE(f.has(old));
    CHECK(f.has(named));
  }
  f.age(named, 120);
  f.reopen();
  CHECK_FALSE(f.has(named));
  CHECK(f.has(young));
}

TEST_CASE("a job can name only what is there") {
  const Fixture f;
  const std::string here = f.put("here", me());
  const auto missing = f.store->pin({here, digest_of("gone")}, {});
  CHECK(missing.error().code() == base::Errc::kNotFound);
  CHECK(missing.error().message().find(digest_of("gone")) != std::string::npos);
  CHECK(f.store->pin({here}, {}).ok());
}
