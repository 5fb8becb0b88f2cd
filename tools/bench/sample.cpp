#include "tools/bench/sample.hpp"

#include <time.h>

namespace cellrund::bench {
namespace {

using base::Errc;
using base::Error;

Error wrong(std::string_view key) {
  return Error(Errc::kInvalidArgument, std::string(key) + ": missing, or of the wrong type");
}

}  // namespace

std::int64_t now_ns() noexcept {
  timespec now{};
  (void)::clock_gettime(CLOCK_MONOTONIC, &now);  // cannot fail for this clock (clock_gettime(2))
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

base::json::Object to_json(const Sample& sample) {
  base::json::Object out{{"startNs", sample.start_ns},
                         {"firstByteNs", sample.first_byte_ns},
                         {"endNs", sample.end_ns},
                         {"failure", sample.failure}};
  for (const base::json::Member& member : sample.details.members()) {
    out.set(member.first, member.second);
  }
  return out;
}

base::Result<std::string> text(const base::json::Value& object, std::string_view key) {
  const base::json::Value* value = object.find(key);
  if (value == nullptr || value->as_string() == nullptr) {
    return wrong(key);
  }
  return *value->as_string();
}

base::Result<std::int64_t> integer(const base::json::Value& object, std::string_view key) {
  const base::json::Value* value = object.find(key);
  if (value == nullptr || value->as_int() == nullptr) {
    return wrong(key);
  }
  return *value->as_int();
}

base::Result<std::vector<std::string>> texts(const base::json::Value& object, std::string_view key) {
  const base::json::Value* value = object.find(key);
  if (value == nullptr || value->as_array() == nullptr) {
    return wrong(key);
  }
  std::vector<std::string> out;
  for (const base::json::Value& entry : *value->as_array()) {
    if (entry.as_string() == nullptr) {
      return wrong(key);
    }
    out.push_back(*entry.as_string());
  }
  return out;
}

}  // namespace cellrund::bench
