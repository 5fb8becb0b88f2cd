// What the resolver of a cell and the daemon say to each other, one message per datagram of a SOCK_SEQPACKET pair. The
// daemon's side takes every message for hostile: decoding is total and bounded.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/file.hpp"
#include "netpolicy/resolver/wire.hpp"

namespace cellrund::netpolicy::resolver {

inline constexpr std::size_t kMaxChannelMessage = 1024;
inline constexpr std::size_t kMaxRecordedName = 128;  // of a query in the record; a longer one is cut

// What became of a query.
enum class Verdict : std::uint8_t {
  kAnswered,
  kNoData,     // a name of the policy that has no such record; so is every AAAA
  kNotListed,  // no name of the policy: refused, and nobody was asked
  kType,       // neither A nor AAAA: refused
  kRate,       // too many a second, or too many at once: refused
  kQuota,      // the job's dnsQueries are used up: refused
  kMalformed,  // no query at all: not answered
  kUpstream,   // no server gave an answer
  kDenied,     // every address that the name has is one that the cell may not reach: dropped
};
inline constexpr std::size_t kVerdicts = 9;
[[nodiscard]] std::string_view to_string(Verdict verdict) noexcept;

// Resolver → daemon.
struct Ready {};  // confined; serves from now on
struct Failed {   // cannot serve
  std::string why;
};
struct Report {  // one query of the cell, before it is answered
  Verdict verdict = Verdict::kMalformed;
  std::uint16_t type = 0;
  std::string name;
};
struct Proposal {  // addresses that a server gave; nothing of it is told to the cell before the decision
  std::uint32_t lookup = 0;
  std::uint32_t ttl = 0;  // seconds
  std::string name;
  std::vector<std::uint32_t> addresses;  // 1 to kMaxAddresses
};
using FromResolver = std::variant<Ready, Failed, Report, Proposal>;

// Daemon → resolver: bit n says whether the cell can reach address n by now.
struct Decision {
  std::uint32_t lookup = 0;
  std::uint64_t accepted = 0;
};

[[nodiscard]] base::Bytes encode(const FromResolver& message);
[[nodiscard]] std::optional<FromResolver> decode_from_resolver(base::BytesView bytes);
[[nodiscard]] base::Bytes encode(const Decision& decision);
[[nodiscard]] std::optional<Decision> decode_decision(base::BytesView bytes);

}  // namespace cellrund::netpolicy::resolver
