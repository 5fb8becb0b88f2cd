#include "ledger/database.hpp"

#include <cstring>
#include <utility>

#include "base/file.hpp"
#include "ledger/schema.hpp"

namespace cellrund::ledger {
namespace {

using base::Errc;
using base::Error;

Errc errc_of(int code) noexcept {
  switch (code & 0xff) {  // the primary part of an extended result code
    case SQLITE_BUSY: case SQLITE_LOCKED: return Errc::kUnavailable;
    case SQLITE_CONSTRAINT: return Errc::kAlreadyExists;
    case SQLITE_FULL: case SQLITE_NOMEM: case SQLITE_TOOBIG: return Errc::kResourceExhausted;
    case SQLITE_PERM: case SQLITE_AUTH: case SQLITE_READONLY: return Errc::kPermissionDenied;
    case SQLITE_CANTOPEN: return Errc::kNotFound;
    case SQLITE_IOERR: case SQLITE_CORRUPT: case SQLITE_NOTADB: return Errc::kDataLoss;
    default: return Errc::kUnknown;
  }
}

void bind_one(sqlite3_stmt* statement, int index, const Parameter& parameter) {
  // SQLITE_STATIC: the caller keeps the bytes until the statement was reset, so nothing is copied.
  if (const auto* number = std::get_if<std::int64_t>(&parameter)) {
    (void)sqlite3_bind_int64(statement, index, *number);
  } else if (const auto* text = std::get_if<std::string_view>(&parameter)) {
    (void)sqlite3_bind_text64(statement, index, text->data() == nullptr ? "" : text->data(), text->size(), nullptr,
                              SQLITE_UTF8);
  } else if (const auto* blob = std::get_if<Blob>(&parameter)) {
    (void)sqlite3_bind_blob64(statement, index, blob->bytes.data() == nullptr ? "" : blob->bytes.data(),
                              blob->bytes.size(), nullptr);
  } else {
    (void)sqlite3_bind_null(statement, index);
  }
}

}  // namespace

bool Row::is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
std::int64_t Row::integer(int column) const { return sqlite3_column_int64(statement_, column); }
std::string Row::text(int column) const {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(bytes, static_cast<std::size_t>(size));
}

base::Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
  const auto where = [&path](Error error) { return std::move(error).context("open ledger " + path); };
  if (!base::exists(path)) {
    // An empty file is an empty database. Made here, so that it has its mode from birth (SQLite gives the same to the
    // WAL) and its name is durable.
    base::Status made = base::write_file_atomic(path, "", 0600);
    if (!made) {
      return where(std::move(made).error());
    }
  }
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> database(new Database(raw));
  if (code != SQLITE_OK) {
    return where(database->failure("open", code));
  }
  base::Status ready = database->configure();
  if (ready.ok()) {
    ready = database->migrate();
  }
  if (!ready) {
    Error error = std::move(ready).error();
    if (error.code() == Errc::kUnavailable) {
      error = Error(Errc::kUnavailable, "another process holds it");
    }
    return where(std::move(error));
  }
  return database;
}

base::Status Database::configure() {
  (void)sqlite3_extended_result_codes(connection_.get(), 1);
  (void)sqlite3_db_config(connection_.get(), SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  // Exclusive before the first access: then the WAL index lives on the heap and no -shm file exists (sqlite.org/wal.html,
  // "Use of WAL Without Shared-Memory"). FULL: every commit is synced.
  std::string mode;
  const auto read_mode = [&mode](const Row& row) { mode = row.text(0); };
  CR_CHECK(query("PRAGMA locking_mode = EXCLUSIVE", {}, read_mode));
  CR_CHECK(query("PRAGMA journal_mode = WAL", {}, read_mode));
  if (mode != "wal") {
    return Error(Errc::kFailedPrecondition, "journal mode is " + mode + ", not wal");
  }
  CR_CHECK(run("PRAGMA synchronous = FULL"));
  CR_CHECK(run("PRAGMA trusted_schema = OFF"));
  CR_CHECK(run("PRAGMA cell_size_check = ON"));
  CR_CHECK(run("PRAGMA temp_store = MEMORY"));
  return base::ok();
}

base::Status Database::migrate() {
  std::int64_t application = 0;
  std::int64_t version = 0;
  std::int64_t tables = 0;
  CR_CHECK(query("PRAGMA application_id", {}, [&](const Row& row) { application = row.integer(0); }));
  CR_CHECK(query("PRAGMA user_version", {}, [&](const Row& row) { version = row.integer(0); }));
  CR_CHECK(query("SELECT count(*) FROM sqlite_schema", {}, [&](const Row& row) { tables = row.integer(0); }));
  if (tables == 0 && application == 0 && version == 0) {
    // One transaction: a crash leaves an empty file or a whole schema.
    const std::string script = "BEGIN EXCLUSIVE;" + std::string(kSchema) +
                               "PRAGMA application_id = " + std::to_string(kApplicationId) +
                               "; PRAGMA user_version = " + std::to_string(kSchemaVersion) + "; COMMIT;";
    const int code = sqlite3_exec(connection_.get(), script.c_str(), nullptr, nullptr, nullptr);
    return code == SQLITE_OK ? run(kJobsBySpec) : base::Status(failure("create schema", code));
  }
  if (application != kApplicationId) {
    return Error(Errc::kDataLoss, "it is no cellrun ledger");
  }
  if (version > kSchemaVersion) {
    return Error(Errc::kFailedPrecondition, "its schema version " + std::to_string(version) +
                                                " is newer than this cellrund's " + std::to_string(kSchemaVersion));
  }
  if (version == 1) {
    const std::string script = "BEGIN EXCLUSIVE;" + std::string(kFromVersion1) +
                               "PRAGMA user_version = " + std::to_string(kSchemaVersion) + "; COMMIT;";
    const int code = sqlite3_exec(connection_.get(), script.c_str(), nullptr, nullptr, nullptr);
    return code == SQLITE_OK ? run(kJobsBySpec) : base::Status(failure("migrate from schema version 1", code));
  }
  if (version != kSchemaVersion) {
    return Error(Errc::kDataLoss, "its schema version " + std::to_string(version) + " never existed");
  }
  // Takes the exclusive lock now instead of at the first job.
  CR_CHECK(begin());
  CR_CHECK(run("UPDATE meta SET value = value WHERE key = ''"));
  CR_CHECK(run(kJobsBySpec));
  return commit();
}

base::Error Database::failure(std::string_view what, int code) const {
  std::string message(what);
  message += ": ";
  message += connection_ ? sqlite3_errmsg(connection_.get()) : sqlite3_errstr(code);
  if (const int system = connection_ ? sqlite3_system_errno(connection_.get()) : 0; system != 0 && code != SQLITE_BUSY) {
    message += std::string(" (") + strerrorname_np(system) + ")";
  }
  return Error(errc_of(code), std::move(message));
}

base::Result<sqlite3_stmt*> Database::prepare(const char* sql) {
  if (const auto known = statements_.find(sql); known != statements_.end()) {
    return known->second.get();
  }
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(connection_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  Statement statement(raw);
  if (code != SQLITE_OK) {
    return failure("prepare", code);
  }
  return statements_.emplace(sql, std::move(statement)).first->second.get();
}

base::Status Database::step_all(const char* sql, const std::vector<Parameter>& parameters,
                                const std::function<void(const Row&)>& each) {
  sqlite3_stmt* statement = CR_TRY(prepare(sql));
  int index = 0;
  for (const Parameter& parameter : parameters) {
    bind_one(statement, ++index, parameter);
  }
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
    if (each) {
      each(Row(statement));
    }
  }
  base::Status result = base::ok();
  if (code != SQLITE_DONE) {
    result = failure("ledger statement", code);  // before the reset, which would clear the message
  }
  (void)sqlite3_reset(statement);  // repeats the code of the failed step
  (void)sqlite3_clear_bindings(statement);
  return result;
}

base::Status Database::run(const char* sql, const std::vector<Parameter>& parameters) {
  base::Status done = step_all(sql, parameters, nullptr);
  if (!done) {
    return stop(std::move(done).error());
  }
  return done;
}

base::Status Database::query(const char* sql, const std::vector<Parameter>& parameters,
                             const std::function<void(const Row&)>& each) {
  return step_all(sql, parameters, each);
}

base::Status Database::begin() {
  if (stopped_) {
    return Error(Errc::kDataLoss, "the ledger stopped: " + *stopped_);
  }
  if (in_transaction_) {
    return base::ok();
  }
  CR_CHECK(run("BEGIN IMMEDIATE"));
  in_transaction_ = true;
  return base::ok();
}

base::Status Database::commit() {
  if (!in_transaction_) {
    return base::ok();
  }
  CR_CHECK(run("COMMIT"));
  in_transaction_ = false;
  return base::ok();
}

base::Error Database::stop(base::Error cause) {
  if (!stopped_) {
    stopped_ = cause.message();
  }
  if (sqlite3_get_autocommit(connection_.get()) == 0) {
    (void)sqlite3_exec(connection_.get(), "ROLLBACK", nullptr, nullptr, nullptr);  // nothing more can be done
  }
  in_transaction_ = false;
  return cause;
}

}  // namespace cellrund::ledger
