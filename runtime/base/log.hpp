// The process log, on spdlog behind this header alone. One event is one line: "cell=… step=… outcome=…".
// Only cell/, daemon/ and programs' mains log; lower layers return errors.
#pragma once

#include <string>
#include <string_view>

namespace cellrund::base::log {

enum class Level { kDebug, kInfo, kWarn, kError };

// To stderr, which the supervisor or the quickstart directs to a file. Thread-safe.
void init(std::string_view program, Level level);
void info(std::string_view message);
void warn(std::string_view message);
void error(std::string_view message);

// An untrusted string made fit for one log line or terminal: quoted, C0/C1 controls and non-UTF-8 bytes as \xNN,
// cut after `limit` bytes.
[[nodiscard]] std::string quoted(std::string_view untrusted, std::size_t limit = 128);

}  // namespace cellrund::base::log
