// What the bench's programs share: one clock, one form of a sample, and typed access to the JSON that the runner hands
// over.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace cellrund::bench {

// CLOCK_MONOTONIC. Every time of every sample comes from here.
[[nodiscard]] std::int64_t now_ns() noexcept;

// One run of one side. Times that were not reached are 0.
struct Sample {
  std::int64_t start_ns = 0;
  std::int64_t first_byte_ns = 0;  // the first byte that the user's command wrote to its standard output has arrived
  std::int64_t end_ns = 0;         // nothing is left to be done; each sampler says what that means for it
  std::string failure;             // empty: it did what it was to do
  base::json::Object details;      // how far it came, and when
};
[[nodiscard]] base::json::Object to_json(const Sample& sample);

// Members of an object. kInvalidArgument, with the key, when one is missing or of another type.
base::Result<std::string> text(const base::json::Value& object, std::string_view key);
base::Result<std::int64_t> integer(const base::json::Value& object, std::string_view key);
base::Result<std::vector<std::string>> texts(const base::json::Value& object, std::string_view key);

}  // namespace cellrund::bench
