#include "netpolicy/resolver/channel.hpp"

#include <algorithm>
#include <array>

namespace cellrund::netpolicy::resolver {
namespace {

static_assert(kMaxAddresses == 64, "a decision is one bit per address");

enum class Kind : std::uint8_t { kReady = 1, kFailed = 2, kReport = 3, kProposal = 4, kDecision = 5 };

constexpr std::array<std::string_view, kVerdicts> kNames{"answered", "no-data",   "not-listed", "type",          "rate",
                                                         "quota",    "malformed", "upstream",   "denied-address"};

void put(base::Bytes& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = bytes; i > 0; --i) {
    out.push_back(static_cast<std::uint8_t>(value >> (8U * (i - 1))));
  }
}
void put_text(base::Bytes& out, std::string_view text) {
  text = text.substr(0, kMaxRecordedName);
  put(out, text.size(), 1);
  out.insert(out.end(), text.begin(), text.end());
}

class Reader {
 public:
  explicit Reader(base::BytesView bytes) : rest_(bytes) {}
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    for (const std::uint8_t byte : take(bytes)) {
      value = value << 8U | byte;
    }
    return value;
  }
  // Printable ASCII only: it goes to logs and records.
  std::string text() {
    const base::BytesView bytes = take(number(1));
    good_ = good_ && bytes.size() <= kMaxRecordedName &&
            std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t c) { return c >= 0x20 && c < 0x7f; });
    return good_ ? std::string(base::as_text(bytes)) : std::string();
  }
  [[nodiscard]] bool done() const noexcept { return good_ && rest_.empty(); }

 private:
  base::BytesView take(std::size_t bytes) {
    if (bytes > rest_.size()) {
      good_ = false;
      return {};
    }
    const base::BytesView taken = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return taken;
  }
  base::BytesView rest_;
  bool good_ = true;
};

struct Encoder {
  base::Bytes out;
  void kind(Kind kind) { put(out, static_cast<std::uint8_t>(kind), 1); }
  void operator()(const Ready& /*message*/) { kind(Kind::kReady); }
  void operator()(const Failed& message) {
    kind(Kind::kFailed);
    put_text(out, message.why);
  }
  void operator()(const Report& message) {
    kind(Kind::kReport);
    put(out, static_cast<std::uint8_t>(message.verdict), 1);
    put(out, message.type, 2);
    put_text(out, message.name);
  }
  void operator()(const Proposal& message) {
    kind(Kind::kProposal);
    put(out, message.lookup, 4);
    put(out, message.ttl, 4);
    put_text(out, message.name);
    put(out, message.addresses.size(), 1);
    for (const std::uint32_t address : message.addresses) {
      put(out, address, 4);
    }
  }
};

std::optional<FromResolver> read_report(Reader& reader) {
  Report out;
  const std::uint64_t verdict = reader.number(1);
  out.type = static_cast<std::uint16_t>(reader.number(2));
  out.name = reader.text();
  if (!reader.done() || verdict >= kVerdicts) {
    return std::nullopt;
  }
  out.verdict = static_cast<Verdict>(verdict);
  return out;
}

std::optional<FromResolver> read_proposal(Reader& reader) {
  Proposal out;
  out.lookup = static_cast<std::uint32_t>(reader.number(4));
  out.ttl = static_cast<std::uint32_t>(reader.number(4));
  out.name = reader.text();
  const std::uint64_t count = reader.number(1);
  if (count == 0 || count > kMaxAddresses) {
    return std::nullopt;
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    out.addresses.push_back(static_cast<std::uint32_t>(reader.number(4)));
  }
  return reader.done() ? std::optional<FromResolver>(std::move(out)) : std::nullopt;
}

}  // namespace

std::string_view to_string(Verdict verdict) noexcept {
  return kNames.at(static_cast<std::size_t>(verdict));
}

base::Bytes encode(const FromResolver& message) {
  Encoder encoder;
  std::visit(encoder, message);
  return std::move(encoder.out);
}

std::optional<FromResolver> decode_from_resolver(base::BytesView bytes) {
  Reader reader(bytes);
  switch (static_cast<Kind>(reader.number(1))) {
    case Kind::kReady:
      return reader.done() ? std::optional<FromResolver>(Ready{}) : std::nullopt;
    case Kind::kFailed: {
      Failed out{reader.text()};
      return reader.done() ? std::optional<FromResolver>(std::move(out)) : std::nullopt;
    }
    case Kind::kReport:
      return read_report(reader);
    case Kind::kProposal:
      return read_proposal(reader);
    case Kind::kDecision:
      break;
  }
  return std::nullopt;
}

base::Bytes encode(const Decision& decision) {
  base::Bytes out;
  put(out, static_cast<std::uint8_t>(Kind::kDecision), 1);
  put(out, decision.lookup, 4);
  put(out, decision.accepted, 8);
  return out;
}

std::optional<Decision> decode_decision(base::BytesView bytes) {
  Reader reader(bytes);
  const bool decision = reader.number(1) == static_cast<std::uint8_t>(Kind::kDecision);
  Decision out;
  out.lookup = static_cast<std::uint32_t>(reader.number(4));
  out.accepted = reader.number(8);
  return decision && reader.done() ? std::optional(out) : std::nullopt;
}

}  // namespace cellrund::netpolicy::resolver
