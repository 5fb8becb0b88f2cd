// DNS messages as far as the resolver reads and writes them (RFC 1035). Pure, and total: every byte comes from a
// hostile guest or from a network that nobody vouches for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"

namespace cellrund::netpolicy::resolver {

inline constexpr std::size_t kMaxDatagram = 512;       // to and from a cell; there is no EDNS
inline constexpr std::size_t kMaxMessage = 16 * 1024;  // of an upstream server over TCP
inline constexpr std::size_t kMaxAddresses = 64;       // of one answer; more are left out
inline constexpr std::size_t kMaxRecords = 256;        // of one answer; one with more is no answer
inline constexpr std::size_t kMaxChain = 8;            // CNAMEs in a row
inline constexpr std::uint16_t kTypeA = 1;
inline constexpr std::uint16_t kTypeCname = 5;
inline constexpr std::uint16_t kTypeAaaa = 28;
inline constexpr std::uint16_t kClassIn = 1;

enum class Rcode : std::uint8_t { kNoError = 0, kServerFailure = 2, kNameError = 3, kRefused = 5 };

// "A", "AAAA", "TXT" and the like, or "TYPE64000".
[[nodiscard]] std::string type_name(std::uint16_t type);

// A standard query with one question.
struct Query {
  std::uint16_t id = 0;
  bool recursion_desired = false;
  std::string name;  // lower case, no dot at the end; a byte that no host name has is '?'
  std::uint16_t type = 0;
  std::uint16_t query_class = 0;
  base::Bytes question;  // as it came, to be repeated in the answer
};

// What stands behind the question (EDNS, for one) is not read. Null: no such query, and not worth an answer.
[[nodiscard]] std::optional<Query> parse_query(base::BytesView message);

struct Answer {
  Rcode rcode = Rcode::kServerFailure;
  bool truncated = false;                // ask again over TCP
  std::vector<std::uint32_t> addresses;  // of the name, or of what its CNAMEs lead to; host byte order, each once
  std::uint32_t ttl = 0;                 // the least of the records that lead there, seconds
};

// Null: not an answer to the A question for `name` under this id, whatever else it may be. An answer that is malformed
// or leads in a circle is a server failure.
[[nodiscard]] std::optional<Answer> parse_answer(base::BytesView message, std::uint16_t id, std::string_view name);

// The A question for `name`, recursion desired, without EDNS.
[[nodiscard]] base::Bytes build_question(std::uint16_t id, std::string_view name);

struct Reply {
  Rcode rcode = Rcode::kNoError;
  std::span<const std::uint32_t> addresses;
  std::uint32_t ttl = 0;
};
// For at most `limit` bytes; addresses that do not fit are all left out, and the reply says that it was truncated.
[[nodiscard]] base::Bytes build_reply(const Query& query, const Reply& reply, std::size_t limit);

}  // namespace cellrund::netpolicy::resolver
