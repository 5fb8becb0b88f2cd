// What the daemon asks of cellrun-collect (one JSON document on descriptor 0) and what it answers (one on 1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell::collect {

// Descriptors of the box beside 0, 1 and 2.
inline constexpr int kListenFd = 3;  // a listening Unix socket; one connection is accepted
inline constexpr int kStopFd = 4;    // a pipe that nobody writes to: its end of file says that the cell is over
inline constexpr int kDataFd = 5;    // an empty regular file: the taken files' bytes, one after the other

inline constexpr std::size_t kMaxListed = 256;            // refused outputs that an answer names
inline constexpr std::size_t kMaxRefusedPath = 256;       // bytes of one such path
inline constexpr std::size_t kMaxAnswer = 4UL << 20U;

struct Request {
  std::uint64_t max_bytes = 0;
  std::uint64_t max_files = 0;
};
[[nodiscard]] std::string write_request(const Request& request);
base::Result<Request> parse_request(std::string_view text);

// OutputFacts without the manifest's digest.
[[nodiscard]] std::string write_answer(const model::OutputFacts& facts);
// Strict: kDataLoss for anything that the collector's rules would not have let through.
base::Result<model::OutputFacts> parse_answer(std::string_view text, const Request& request);

}  // namespace cellrund::cell::collect
