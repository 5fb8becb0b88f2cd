#include "admit/trust.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "base/file.hpp"

using namespace cellrund;

namespace {

// A folder of its own for each case.
class Dir {
 public:
  Dir() {
    std::string pattern = "/tmp/cellrun-unit-trust-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  Dir(const Dir&) = delete;
  Dir& operator=(const Dir&) = delete;
  Dir(Dir&&) = delete;
  Dir& operator=(Dir&&) = delete;
  ~Dir() {
    const auto names = base::list_dir(path_, 100);
    if (names.ok()) {
      for (const std::string& name : *names) {
        (void)base::remove_file(path_ + "/" + name);  // best effort: a leftover of a failed test in /tmp
      }
    }
    (void)base::remove_dir(path_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& text, unsigned mode = 0644) const {
    REQUIRE(base::write_file_atomic(path_ + "/" + name, text, mode).ok());
  }

 private:
  std::string path_;
};

crypto::PublicKey new_key() { return crypto::PrivateKey::generate()->public_key(); }

admit::Grant grant_for(const std::string& tenant) {
  admit::Grant grant;
  grant.namespaces = {tenant};
  grant.images = {"registry.example/agents/*"};
  return grant;
}

const std::string kMinimal = "[[key]]\nfile = \"ci.pub\"\nnamespaces = [\"research\"]\nimages = [\"*\"]\n";

}  // namespace

TEST_CASE("the trust file of the documentation is read in full") {
  const auto grants = admit::parse_trust_file(R"(
[[key]]
file = "ci.pub"                      # SPKI PEM beside this file
namespaces = ["research"]
principals = ["agent:*"]
images = ["registry.example/agents/*"]
minTier = 1
maxDeadlineSeconds = 3601
maxConcurrent = 9
resources = { cpu = "2", memory = "1Gi", pids = 99, ephemeral-storage = "3Gi" }
egress = ["public", "private:10.2.0.0/16", "wildcard:*.example.com"]
secrets = ["research/*"]
notAfter = "2027-01-01T00:00:00Z"

[[key]]
file = "old.pub"
revoked = true
)", "ci.toml");
  REQUIRE(grants.ok());
  REQUIRE(grants->size() == 2);
  const admit::Grant& grant = (*grants)[0];
  CHECK(grant.source == "ci.toml");
  CHECK(grant.file == "ci.pub");
  CHECK(grant.namespaces == std::vector<std::string>{"research"});
  CHECK(grant.principals == std::vector<std::string>{"agent:*"});
  CHECK(grant.images == std::vector<std::string>{"registry.example/agents/*"});
  CHECK(grant.min_tier == 1);
  CHECK(grant.max_deadline.count() == 3601);
  CHECK(grant.max_concurrent == 9);
  CHECK(grant.resources.cpu_millis == 2000);
  CHECK(grant.resources.memory_bytes == 1ULL << 30U);
  CHECK(grant.resources.pids == 99);
  CHECK(grant.resources.ephemeral_storage_bytes == 3ULL << 30U);
  CHECK(grant.egress.size() == 3);
  CHECK(grant.secrets == std::vector<std::string>{"research/*"});
  CHECK(base::format_rfc3339(*grant.not_after) == "2027-01-01T00:00:00Z");
  CHECK_FALSE(grant.revoked);
  CHECK((*grants)[1].revoked);
  CHECK(admit::format_trust_file((*admit::parse_trust_file(admit::format_trust_file(grant), "x"))[0]) == admit::format_trust_file(grant));
}

TEST_CASE("a trust file that is wrong in any way is an error that names the line") {
  CHECK(admit::parse_trust_file(kMinimal, "f").ok());
  CHECK(admit::parse_trust_file("", "f").ok());
  for (const std::string& bad : std::vector<std::string>{
           "x = 1", "[key]\nfile = \"a.pub\"", "key = []", "key = [1]", "[[keys]]\nfile = \"a.pub\"", "[[key]]", "not toml", kMinimal + "namspaces = [\"a\"]\n",
           kMinimal + "comment = \"x\"\n", kMinimal + "minTier = 3\n", kMinimal + "minTier = \"2\"\n", kMinimal + "minTier = 2.0\n", kMinimal + "maxDeadlineSeconds = 0\n",
           kMinimal + "maxConcurrent = -1\n", kMinimal + "principals = \"agent:*\"\n", kMinimal + "principals = [1]\n", kMinimal + "principals = [\"a b\"]\n",
           kMinimal + "principals = [\"\"]\n", kMinimal + "notAfter = 2027-01-01T00:00:00Z\n", kMinimal + "notAfter = \"tomorrow\"\n", kMinimal + "revoked = \"yes\"\n",
           kMinimal + "resources = { cpus = \"1\" }\n", kMinimal + "resources = { cpu = 1 }\n", kMinimal + "resources = { memory = \"1GB\" }\n",
           kMinimal + "resources = { pids = 0 }\n", kMinimal + "resources = 1\n", kMinimal + "egress = [\"0.0.0.0/0\"]\n", kMinimal + "egress = [\"private:10.0.0.1/8\"]\n",
           kMinimal + "egress = [\"private:10.0.0.0/33\"]\n", kMinimal + "egress = [\"private:10.0.0.0/08\"]\n", kMinimal + "egress = [\"private:10.0.0.0\"]\n",
           kMinimal + "egress = [\"wildcard:*\"]\n", kMinimal + "egress = [\"wildcard:example.com\"]\n", kMinimal + "egress = [\"Public\"]\n",
           kMinimal + "images = [\"*\"]\n", kMinimal + "file = \"b.pub\"\n",
           "[[key]]\nfile = \"../ci.pub\"\nnamespaces = [\"a\"]\nimages = [\"*\"]\n", "[[key]]\nfile = \"/etc/ci.pub\"\nnamespaces = [\"a\"]\nimages = [\"*\"]\n",
           "[[key]]\nfile = \".pub\"\nnamespaces = [\"a\"]\nimages = [\"*\"]\n", "[[key]]\nnamespaces = [\"a\"]\nimages = [\"*\"]\n",
           "[[key]]\nfile = \"a.pub\"\nimages = [\"*\"]\n", "[[key]]\nfile = \"a.pub\"\nnamespaces = []\nimages = [\"*\"]\n",
           "[[key]]\nfile = \"a.pub\"\nnamespaces = [\"a*\"]\nimages = [\"*\"]\n", "[[key]]\nfile = \"a.pub\"\nnamespaces = [\"A\"]\nimages = [\"*\"]\n",
           "[[key]]\nfile = \"a.pub\"\nnamespaces = [\"a\"]\n"}) {
    CAPTURE(bad);
    const auto grants = admit::parse_trust_file(bad, "f.toml");
    REQUIRE_FALSE(grants.ok());
    CHECK(grants.error().message().starts_with("f.toml:"));
  }
}

TEST_CASE("a missing or empty folder trusts nobody") {
  const auto missing = admit::TrustStore::load("/tmp/cellrun-unit-trust-none");
  REQUIRE(missing.ok());
  CHECK(missing->keyring().empty());
  const Dir dir;
  const auto empty = admit::TrustStore::load(dir.path());
  REQUIRE(empty.ok());
  CHECK(empty->grants().empty());
}

TEST_CASE("what is added is loaded again and can be removed") {
  const Dir dir;
  const auto key = new_key();
  const auto path = admit::add_trust(dir.path(), "ci", key, grant_for("research"));
  REQUIRE(path.ok());
  CHECK(*path == dir.path() + "/ci.toml");
  auto store = admit::TrustStore::load(dir.path());
  REQUIRE(store.ok());
  REQUIRE(store->find(key.key_id()) != nullptr);
  CHECK(store->find(key.key_id())->namespaces == std::vector<std::string>{"research"});
  CHECK(store->keyring().find(key.key_id()) != nullptr);

  CHECK(admit::add_trust(dir.path(), "ci", new_key(), grant_for("a")).error().code() == base::Errc::kAlreadyExists);
  CHECK(admit::add_trust(dir.path(), "ci2", key, grant_for("a")).error().code() == base::Errc::kAlreadyExists);
  CHECK_FALSE(admit::add_trust(dir.path(), "../x", new_key(), grant_for("a")).ok());
  CHECK_FALSE(admit::add_trust(dir.path(), "b", new_key(), grant_for("a\"\nrevoked = true #")).ok());
  CHECK_FALSE(admit::add_trust(dir.path(), "b", new_key(), admit::Grant()).ok());
  CHECK_FALSE(base::exists(dir.path() + "/b.toml"));

  CHECK(admit::remove_trust(dir.path(), "ci").ok());
  CHECK(admit::remove_trust(dir.path(), "ci").error().code() == base::Errc::kNotFound);
  CHECK(base::list_dir(dir.path(), 10)->empty());
}

TEST_CASE("a file that others can write, or that is no plain file, spoils the store") {
  const Dir dir;
  const std::string pem = new_key().pem();
  dir.write("ci.toml", kMinimal);
  dir.write("ci.pub", pem);
  CHECK(admit::TrustStore::load(dir.path()).ok());
  for (const char* name : {"/ci.toml", "/ci.pub", ""}) {
    const std::string path = dir.path() + name;
    struct stat st {};
    REQUIRE(stat(path.c_str(), &st) == 0);
    for (const unsigned extra : {0020U, 0002U}) {
      REQUIRE(chmod(path.c_str(), (st.st_mode & 07777U) | extra) == 0);
      CHECK_FALSE(admit::TrustStore::load(dir.path()).ok());
    }
    REQUIRE(chmod(path.c_str(), st.st_mode & 07777U) == 0);
  }
  CHECK(admit::TrustStore::load(dir.path()).ok());
  REQUIRE(symlink((dir.path() + "/ci.toml").c_str(), (dir.path() + "/link.toml").c_str()) == 0);
  CHECK_FALSE(admit::TrustStore::load(dir.path()).ok());
  REQUIRE(base::remove_file(dir.path() + "/link.toml").ok());
  REQUIRE(mkfifo((dir.path() + "/fifo.toml").c_str(), 0644) == 0);
  CHECK_FALSE(admit::TrustStore::load(dir.path()).ok());
}

TEST_CASE("one bad file, a missing key or the same key twice spoils the store") {
  const Dir dir;
  dir.write("ci.toml", kMinimal);
  CHECK_FALSE(admit::TrustStore::load(dir.path()).ok());
  const std::string pem = new_key().pem();
  dir.write("ci.pub", pem);
  CHECK(admit::TrustStore::load(dir.path()).ok());
  dir.write("twice.toml", "[[key]]\nfile = \"twice.pub\"\nnamespaces = [\"*\"]\nimages = [\"*\"]\n");
  dir.write("twice.pub", pem);
  CHECK_FALSE(admit::TrustStore::load(dir.path()).ok());
  dir.write("twice.pub", new_key().pem());
  CHECK(admit::TrustStore::load(dir.path()).ok());
  dir.write("bad.toml", "nonsense");
  CHECK_FALSE(admit::TrustStore::load(dir.path()).ok());
}
