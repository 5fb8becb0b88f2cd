#include "ledger_snapshot.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <compare>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "base/file.hpp"

namespace cellrund::cellsweep {
namespace {

using base::Errc;
using base::Error;
using base::Status;

constexpr std::uint64_t kMaxBytes = 8ULL << 30U;
constexpr int kAttempts = 5;
constexpr int kApplicationId = 0x63727531;
constexpr int kOldestSchema = 1;  // it knew one boot for all its jobs
constexpr int kNewestSchema = 2;

// A folder of ours alone, for the copy; gone with the object.
class TemporaryFolder {
 public:
  static base::Result<TemporaryFolder> create() {
    std::string pattern = "/tmp/cellsweep-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) {
      return Error::from_errno("mkdtemp");
    }
    return TemporaryFolder(std::move(pattern));
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    if (path_.empty()) {
      return;
    }
    for (const char* name : {"/ledger.db", "/ledger.db-wal", "/ledger.db-shm", "/ledger.db-journal"}) {
      (void)base::remove_file(path_ + name);  // best effort: nothing of it is ours to keep
    }
    (void)base::remove_dir(path_);
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// What changes whenever SQLite writes: the database on a checkpoint, the WAL on a commit, its salts on a restart
// (sqlite.org/fileformat2.html, "The Write-Ahead Log").
struct Fingerprint {
  std::int64_t size = -1, seconds = 0, nanos = 0;
  std::array<char, 32> header{};
  friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
};

base::Result<Fingerprint> fingerprint(const std::string& path) {
  Fingerprint print;
  auto fd = base::open_file(path, O_RDONLY | O_NOFOLLOW);
  if (!fd.ok()) {
    if (fd.error().os_errno() == ENOENT) {
      return print;
    }
    return std::move(fd).error();
  }
  struct stat st {};
  if (::fstat(fd->get(), &st) != 0) {
    return Error::from_errno("stat " + path);
  }
  print.size = st.st_size;
  print.seconds = st.st_mtim.tv_sec;
  print.nanos = st.st_mtim.tv_nsec;
  if (::pread(fd->get(), print.header.data(), print.header.size(), 0) < 0) {
    return Error::from_errno("read " + path);
  }
  return print;
}

Status copy(const std::string& from, const std::string& to) {
  auto in = base::open_file(from, O_RDONLY | O_NOFOLLOW);
  if (!in.ok()) {
    return in.error().os_errno() == ENOENT ? base::ok() : Status(std::move(in).error());
  }
  const base::UniqueFd out = CR_TRY(base::open_file(to, O_WRONLY | O_CREAT | O_TRUNC, 0600));
  std::vector<char> buffer(1UL << 20U);
  std::uint64_t total = 0;
  for (;;) {
    const ssize_t n = ::read(in->get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return Error::from_errno("read " + from);
    }
    if (n == 0) {
      return base::ok();
    }
    total += static_cast<std::uint64_t>(n);
    if (total > kMaxBytes) {
      return Error(Errc::kResourceExhausted, from + " is too large to copy");
    }
    CR_CHECK(base::write_all(out.get(), base::as_bytes({buffer.data(), static_cast<std::size_t>(n)})).context("write " + to));
  }
}

// SQLite's locks are POSIX record locks from byte 2^30 on (os_unix.c, PENDING_BYTE); a WAL connection in exclusive mode
// holds at least the shared one for its whole life.
base::Result<bool> is_held(const std::string& path) {
  const base::UniqueFd fd = CR_TRY(base::open_file(path, O_RDWR | O_NOFOLLOW));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = 0x40000000;
  lock.l_len = 512;
  if (::fcntl(fd.get(), F_OFD_GETLK, &lock) != 0) {
    return Error::from_errno("query the locks of " + path);
  }
  return lock.l_type != F_UNLCK;
}

// A copy of database and WAL that belong together.
Status take_copy(const std::string& path, const std::string& to) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto database = CR_TRY(fingerprint(path));
    const auto wal = CR_TRY(fingerprint(path + "-wal"));
    CR_CHECK(copy(path, to));
    CR_CHECK(copy(path + "-wal", to + "-wal"));
    if (database == CR_TRY(fingerprint(path)) && wal == CR_TRY(fingerprint(path + "-wal"))) {
      return base::ok();
    }
  }
  return Error(Errc::kUnavailable, path + " kept changing while it was copied");
}

struct CloseDatabase {
  void operator()(sqlite3* database) const noexcept { (void)sqlite3_close_v2(database); }
};
struct Finalize {
  void operator()(sqlite3_stmt* statement) const noexcept { (void)sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;

Status each_row(const Database& database, const char* sql, const std::function<void(sqlite3_stmt*)>& row) {
  sqlite3_stmt* raw = nullptr;
  int code = sqlite3_prepare_v2(database.get(), sql, -1, &raw, nullptr);
  const std::unique_ptr<sqlite3_stmt, Finalize> statement(raw);
  while (code == SQLITE_OK || code == SQLITE_ROW) {
    code = sqlite3_step(raw);
    if (code == SQLITE_ROW) {
      row(raw);
    } else {
      break;
    }
  }
  if (code != SQLITE_DONE) {
    return Error(Errc::kDataLoss, std::string("read the ledger: ") + sqlite3_errmsg(database.get()));
  }
  return base::ok();
}

std::string text(sqlite3_stmt* row, int column) {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(row, column));
  return bytes == nullptr ? std::string() : std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(row, column)));
}

// The value of a pragma, which must be within the bounds.
base::Result<int> number_of(const Database& database, const char* pragma, int least, int most) {
  int found = -1;
  CR_CHECK(each_row(database, pragma, [&](sqlite3_stmt* row) { found = sqlite3_column_int(row, 0); }));
  if (found < least || found > most) {
    return Error(Errc::kFailedPrecondition, std::string("the ledger has another schema (") + pragma + " is " + std::to_string(found) + ")");
  }
  return found;
}

}  // namespace

base::Result<LedgerSnapshot> read_ledger(const std::string& path) {
  LedgerSnapshot snapshot;
  snapshot.held = CR_TRY(is_held(path));
  const TemporaryFolder folder = CR_TRY(TemporaryFolder::create());
  const std::string copy_path = folder.path() + "/ledger.db";
  CR_CHECK(take_copy(path, copy_path));

  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(copy_path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  const Database database(raw);
  if (code != SQLITE_OK) {
    return Error(Errc::kDataLoss, "open the copy of " + path + ": " + sqlite3_errstr(code));
  }
  (void)CR_TRY(number_of(database, "PRAGMA application_id", kApplicationId, kApplicationId));
  const int schema = CR_TRY(number_of(database, "PRAGMA user_version", kOldestSchema, kNewestSchema));
  std::string last_boot;
  CR_CHECK(each_row(database, "SELECT key, value FROM meta WHERE key IN ('node_tag', 'boot_id')", [&](sqlite3_stmt* row) {
    (text(row, 0) == "node_tag" ? snapshot.node.value : last_boot) = text(row, 1);
  }));
  std::map<std::string, JournalledCell> cells;
  CR_CHECK(each_row(database, "SELECT uid FROM jobs WHERE closed = 0", [&](sqlite3_stmt* row) {
    const std::string uid = text(row, 0);
    cells[uid].uid = uid;
  }));
  std::optional<Error> bad;
  CR_CHECK(each_row(database,
                    schema == kOldestSchema
                        ? "SELECT journal.uid, kind, journal.name, identity, coalesce(jobs.closed, 1), '' FROM journal "
                          "LEFT JOIN jobs ON jobs.uid = journal.uid WHERE removed = 0"
                        : "SELECT journal.uid, kind, journal.name, identity, coalesce(jobs.closed, 1), jobs.boot_id "
                          "FROM journal LEFT JOIN jobs ON jobs.uid = journal.uid WHERE removed = 0",
                    [&](sqlite3_stmt* row) {
                      const auto kind = model::parse_item_kind(text(row, 1));
                      if (!kind) {
                        bad = Error(Errc::kDataLoss, "the journal names an unknown kind of object");
                        return;
                      }
                      JournalledCell& cell = cells[text(row, 0)];
                      cell.uid = text(row, 0);
                      cell.closed = sqlite3_column_int(row, 4) != 0;
                      cell.boot_id = schema == kOldestSchema ? last_boot : text(row, 5);
                      cell.inventory.push_back({*kind, text(row, 2), text(row, 3)});
                    }));
  if (bad) {
    return std::move(*bad);
  }
  for (auto& [uid, cell] : cells) {
    snapshot.cells.push_back(std::move(cell));
  }
  return snapshot;
}

}  // namespace cellrund::cellsweep
