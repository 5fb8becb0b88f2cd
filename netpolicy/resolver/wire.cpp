#include "netpolicy/resolver/wire.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <utility>

namespace cellrund::netpolicy::resolver {
namespace {

constexpr std::size_t kHeader = 12;
constexpr std::size_t kLongestName = 255;  // on the wire
constexpr std::uint8_t kPointer = 0xc0;
constexpr unsigned kIsResponse = 0x8000, kOpcode = 0x7800, kTruncated = 0x0200, kDesired = 0x0100, kAvailable = 0x0080,
                   kRcode = 0x000f;

// Reads forward through a message. Once something does not fit it is over, and every later read gives zero.
class Reader {
 public:
  Reader(base::BytesView message, std::size_t at) : message_(message), at_(at), good_(at <= message.size()) {}

  [[nodiscard]] bool good() const noexcept { return good_; }
  [[nodiscard]] std::size_t at() const noexcept { return at_; }

  std::uint16_t number16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t number32() { return number(4); }
  void skip(std::size_t bytes) { (void)take(bytes); }

  // Lower case, labels with dots between them. Compressed names may point backward only, so that it ends (RFC
  // 1035, 4.1.4).
  std::string name(bool may_be_compressed) {
    std::string out;
    std::size_t at = at_;
    std::size_t lowest = at_;
    std::size_t total = 0;
    bool jumped = false;
    while (good_) {
      if (at >= message_.size()) {
        break;
      }
      const std::uint8_t length = message_[at];
      if ((length & kPointer) == kPointer) {
        if (!may_be_compressed || at + 1 >= message_.size()) {
          break;
        }
        const std::size_t target = (length & 0x3fU) << 8U | message_[at + 1];
        at_ = jumped ? at_ : at + 2;
        jumped = true;
        if (target >= lowest) {
          break;
        }
        at = lowest = target;
        continue;
      }
      total += length + 1U;
      if ((length & kPointer) != 0 || total > kLongestName || at + 1 + length > message_.size()) {
        break;
      }
      if (length == 0) {
        at_ = jumped ? at_ : at + 1;
        return out;
      }
      out += out.empty() ? "" : ".";
      for (const std::uint8_t byte : message_.subspan(at + 1, length)) {
        out += plain(static_cast<char>(byte));
      }
      at += 1U + length;
    }
    good_ = false;
    return {};
  }

 private:
  static char plain(char c) noexcept {
    if (c >= 'A' && c <= 'Z') {
      return static_cast<char>(c - 'A' + 'a');
    }
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ? c : '?';
  }

  base::BytesView take(std::size_t bytes) {
    if (!good_ || message_.size() - at_ < bytes) {
      good_ = false;
      return {};
    }
    at_ += bytes;
    return message_.subspan(at_ - bytes, bytes);
  }
  std::uint32_t number(std::size_t bytes) {
    std::uint32_t value = 0;
    for (const std::uint8_t byte : take(bytes)) {
      value = value << 8U | byte;
    }
    return value;
  }

  base::BytesView message_;
  std::size_t at_;
  bool good_;
};

void put16(base::Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8U));
  out.push_back(static_cast<std::uint8_t>(value));
}
void put32(base::Bytes& out, std::uint32_t value) {
  put16(out, value >> 16U);
  put16(out, value & 0xffffU);
}

struct Header {
  std::uint16_t id = 0;
  unsigned flags = 0;
  std::size_t questions = 0, answers = 0, authorities = 0;
};
Header read_header(Reader& reader) {
  Header header;
  header.id = reader.number16();
  header.flags = reader.number16();
  header.questions = reader.number16();
  header.answers = reader.number16();
  header.authorities = reader.number16();
  (void)reader.number16();
  return header;
}

// RFC 2181, section 8: one with the highest bit set counts as zero.
std::uint32_t sane_ttl(std::uint32_t ttl) noexcept {
  return ttl > std::numeric_limits<std::int32_t>::max() ? 0 : ttl;
}

// The records of an answer that lead from a name to addresses.
class Records {
 public:
  // False when a record is malformed.
  bool read(Reader& reader, std::size_t count) {
    for (std::size_t i = 0; i < count && reader.good(); ++i) {
      const std::string owner = reader.name(true);
      const std::uint16_t type = reader.number16();
      const std::uint16_t record_class = reader.number16();
      const std::uint32_t ttl = sane_ttl(reader.number32());
      const std::size_t length = reader.number16();
      const std::size_t start = reader.at();
      if (record_class == kClassIn && type == kTypeA && length == 4) {
        hosts_[owner].push_back({reader.number32(), ttl});
      } else if (record_class == kClassIn && type == kTypeCname) {
        const std::string target = reader.name(true);
        if (reader.good() && reader.at() != start + length) {
          return false;
        }
        (void)aliases_.try_emplace(owner, target, ttl);
      } else {
        reader.skip(length);
      }
    }
    return reader.good();
  }

  [[nodiscard]] Answer lead_from(std::string name) const {
    Answer out;
    std::uint32_t ttl = std::numeric_limits<std::int32_t>::max();
    for (std::size_t hops = 0;; ++hops) {
      const auto alias = aliases_.find(name);
      if (alias == aliases_.end()) {
        break;
      }
      if (hops == kMaxChain) {
        return out;  // a server failure
      }
      ttl = std::min(ttl, alias->second.second);
      name = alias->second.first;
    }
    out.rcode = Rcode::kNoError;
    const auto found = hosts_.find(name);
    if (found == hosts_.end()) {
      return out;
    }
    for (const auto& [address, own_ttl] : found->second) {
      ttl = std::min(ttl, own_ttl);
      if (out.addresses.size() < kMaxAddresses &&
          std::find(out.addresses.begin(), out.addresses.end(), address) == out.addresses.end()) {
        out.addresses.push_back(address);
      }
    }
    out.ttl = ttl;
    return out;
  }

 private:
  std::map<std::string, std::vector<std::pair<std::uint32_t, std::uint32_t>>, std::less<>> hosts_;  // address, TTL
  std::map<std::string, std::pair<std::string, std::uint32_t>, std::less<>> aliases_;               // target, TTL
};

}  // namespace

std::string type_name(std::uint16_t type) {
  constexpr std::array<std::pair<std::uint16_t, std::string_view>, 14> kNames{{
      {1, "A"},
      {2, "NS"},
      {5, "CNAME"},
      {6, "SOA"},
      {10, "NULL"},
      {12, "PTR"},
      {15, "MX"},
      {16, "TXT"},
      {28, "AAAA"},
      {33, "SRV"},
      {43, "DS"},
      {64, "SVCB"},
      {65, "HTTPS"},
      {255, "ANY"},
  }};
  for (const auto& [number, name] : kNames) {
    if (number == type) {
      return std::string(name);
    }
  }
  return "TYPE" + std::to_string(type);
}

std::optional<Query> parse_query(base::BytesView message) {
  Reader reader(message, 0);
  const Header header = read_header(reader);
  if (!reader.good() || message.size() > kMaxDatagram || (header.flags & (kIsResponse | kOpcode)) != 0 ||
      header.questions != 1 || header.answers != 0 || header.authorities != 0) {
    return std::nullopt;
  }
  Query out;
  out.id = header.id;
  out.recursion_desired = (header.flags & kDesired) != 0;
  out.name = reader.name(false);
  out.type = reader.number16();
  out.query_class = reader.number16();
  if (!reader.good()) {
    return std::nullopt;
  }
  out.question.assign(message.begin() + kHeader, message.begin() + static_cast<std::ptrdiff_t>(reader.at()));
  return out;
}

std::optional<Answer> parse_answer(base::BytesView message, std::uint16_t id, std::string_view name) {
  Reader reader(message, 0);
  const Header header = read_header(reader);
  if (!reader.good() || header.id != id || (header.flags & kIsResponse) == 0 || (header.flags & kOpcode) != 0 ||
      header.questions != 1) {
    return std::nullopt;
  }
  const std::string asked = reader.name(false);
  const std::uint16_t type = reader.number16();
  const std::uint16_t query_class = reader.number16();
  if (!reader.good() || asked != name || type != kTypeA || query_class != kClassIn) {
    return std::nullopt;
  }
  Answer out;
  const auto rcode = static_cast<Rcode>(header.flags & kRcode);
  if (rcode == Rcode::kNameError) {
    out.rcode = rcode;
    return out;
  }
  if (rcode != Rcode::kNoError) {
    return out;
  }
  if ((header.flags & kTruncated) != 0) {
    out.rcode = rcode;
    out.truncated = true;
    return out;
  }
  Records records;
  if (header.answers > kMaxRecords || !records.read(reader, header.answers)) {
    return out;
  }
  return records.lead_from(asked);
}

base::Bytes build_question(std::uint16_t id, std::string_view name) {
  base::Bytes out;
  put16(out, id);
  put16(out, kDesired);
  put16(out, 1);
  for (int i = 0; i < 3; ++i) {
    put16(out, 0);
  }
  while (!name.empty()) {
    const std::string_view label = name.substr(0, name.find('.'));
    out.push_back(static_cast<std::uint8_t>(label.size()));
    out.insert(out.end(), label.begin(), label.end());
    name.remove_prefix(std::min(name.size(), label.size() + 1));
  }
  out.push_back(0);
  put16(out, kTypeA);
  put16(out, kClassIn);
  return out;
}

base::Bytes build_reply(const Query& query, const Reply& reply, std::size_t limit) {
  constexpr std::size_t kRecord = 16;
  const bool fits = kHeader + query.question.size() + reply.addresses.size() * kRecord <= limit;
  const std::size_t count = fits ? reply.addresses.size() : 0;
  base::Bytes out;
  put16(out, query.id);
  put16(out, kIsResponse | (query.recursion_desired ? kDesired : 0U) | kAvailable | (fits ? 0U : kTruncated) |
                 static_cast<unsigned>(reply.rcode));
  put16(out, 1);
  put16(out, count);
  put16(out, 0);
  put16(out, 0);
  out.insert(out.end(), query.question.begin(), query.question.end());
  for (const std::uint32_t address : reply.addresses.first(count)) {
    put16(out, static_cast<std::size_t>(kPointer) << 8U | kHeader);  // the name of the question
    put16(out, kTypeA);
    put16(out, kClassIn);
    put32(out, reply.ttl);
    put16(out, 4);
    put32(out, address);
  }
  return out;
}

}  // namespace cellrund::netpolicy::resolver
