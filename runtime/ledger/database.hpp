// Database: one SQLite connection with its prepared statements, and the rule that a failed write stops it for ever.
// Private to the ledger. Not thread-safe: the ledger guards it.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/result.hpp"

namespace cellrund::ledger {

// A bound parameter. A blob is bound as such; it must outlive the call.
struct Blob {
  std::string_view bytes;
};
using Parameter = std::variant<std::nullptr_t, std::int64_t, std::string_view, Blob>;

// The current row of a query; columns count from 0.
class Row {
 public:
  explicit Row(sqlite3_stmt* statement) noexcept : statement_(statement) {}
  [[nodiscard]] bool is_null(int column) const;
  [[nodiscard]] std::int64_t integer(int column) const;
  [[nodiscard]] std::string text(int column) const;  // of a blob as well

 private:
  sqlite3_stmt* statement_;
};

class Database {
 public:
  // Opens or creates; exclusive from the first access on. See Ledger::open for the codes.
  static base::Result<std::unique_ptr<Database>> open(const std::string& path);

  // Runs one statement to its end. `sql` must be a string literal: it is the key of the statement cache.
  // A failure stops the database: all that this class writes is expected to succeed.
  base::Status run(const char* sql, const std::vector<Parameter>& parameters = {});
  // Calls `each` for every row.
  base::Status query(const char* sql, const std::vector<Parameter>& parameters,
                     const std::function<void(const Row&)>& each);
  // Rows that the last run() changed.
  [[nodiscard]] int changes() const { return sqlite3_changes(connection_.get()); }

  // Starts a transaction unless one is open. kDataLoss once stopped.
  base::Status begin();
  // Ends the open transaction on the disk; without one it does nothing.
  base::Status commit();
  // Rolls back and refuses every later write. Returns the error to hand on.
  base::Error stop(base::Error cause);
  [[nodiscard]] const std::optional<std::string>& stopped() const noexcept { return stopped_; }

 private:
  struct Close {
    void operator()(sqlite3* connection) const noexcept { (void)sqlite3_close_v2(connection); }
  };
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept { (void)sqlite3_finalize(statement); }
  };
  using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

  explicit Database(sqlite3* connection) : connection_(connection) {}
  base::Result<sqlite3_stmt*> prepare(const char* sql);
  base::Status step_all(const char* sql, const std::vector<Parameter>& parameters,
                        const std::function<void(const Row&)>& each);
  base::Status configure();
  base::Status migrate();
  [[nodiscard]] base::Error failure(std::string_view what, int code) const;

  std::unique_ptr<sqlite3, Close> connection_;
  std::unordered_map<const char*, Statement> statements_;
  bool in_transaction_ = false;
  std::optional<std::string> stopped_;
};

}  // namespace cellrund::ledger
