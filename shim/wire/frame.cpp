#include "shim/wire/frame.hpp"

#include <algorithm>
#include <cstring>

#include "base/result.hpp"

namespace cellrund::wire {
namespace {

constexpr std::array<std::uint8_t, 4> kMagic{'C', 'R', 'W', '1'};
constexpr std::size_t kLengthOffset = 8;
constexpr std::size_t kCrcOffset = 12;

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value & 1U) != 0 ? (value >> 1U) ^ 0xEDB88320U : value >> 1U;
    }
    table[i] = value;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

std::uint32_t load_u32(const std::uint8_t* p) noexcept {
  return std::uint32_t{p[0]} | std::uint32_t{p[1]} << 8U | std::uint32_t{p[2]} << 16U | std::uint32_t{p[3]} << 24U;
}

void store_u32(std::uint8_t* p, std::uint32_t value) noexcept {
  for (unsigned i = 0; i < 4; ++i) {
    p[i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

bool header_is_valid(const std::array<std::uint8_t, kHeaderBytes>& h) noexcept {
  return std::equal(kMagic.begin(), kMagic.end(), h.begin()) && h[4] == kProtocolVersion && h[5] >= 1 &&
         h[5] <= kLastFrameType && h[6] == 0 && h[7] == 0 && load_u32(&h[kLengthOffset]) <= kMaxPayload &&
         load_u32(&h[kCrcOffset]) == crc32(base::BytesView(h.data(), kCrcOffset));
}

}  // namespace

std::uint32_t crc32(base::BytesView bytes) noexcept {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const std::uint8_t byte : bytes) {
    crc = kCrcTable[(crc ^ byte) & 0xFFU] ^ (crc >> 8U);
  }
  return ~crc;
}

std::array<std::uint8_t, kHeaderBytes> frame_header(FrameType type, base::BytesView payload) {
  CR_ASSERT(payload.size() <= kMaxPayload);
  std::array<std::uint8_t, kHeaderBytes> header{};
  std::copy(kMagic.begin(), kMagic.end(), header.begin());
  header[4] = kProtocolVersion;
  header[5] = static_cast<std::uint8_t>(type);
  store_u32(&header[kLengthOffset], static_cast<std::uint32_t>(payload.size()));
  store_u32(&header[kCrcOffset], crc32(base::BytesView(header.data(), kCrcOffset)));
  return header;
}

void FrameParser::end_frame() {
  if (static_cast<FrameType>(header_[5]) == FrameType::kSecret) {
    payload_ = base::WipedBytes();  // what it held goes with its memory
  }
  frame_out_ = false;
  header_valid_ = false;
  header_fill_ = 0;
  payload_.clear();
}

void FrameParser::drop_to_next_magic() {
  // The shortest shift after which what remains could still be the front of a magic.
  std::size_t shift = 1;
  for (; shift < header_fill_; ++shift) {
    const std::size_t comparable = std::min(kMagic.size(), header_fill_ - shift);
    if (std::equal(kMagic.begin(), kMagic.begin() + static_cast<std::ptrdiff_t>(comparable),
                   header_.begin() + static_cast<std::ptrdiff_t>(shift))) {
      break;
    }
  }
  std::memmove(header_.data(), header_.data() + shift, header_fill_ - shift);
  header_fill_ -= shift;
  skipped_ += shift;
}

std::optional<FrameView> FrameParser::next(base::BytesView& input) {
  if (frame_out_) {
    end_frame();
  }
  while (!header_valid_) {
    const std::size_t take = std::min(kHeaderBytes - header_fill_, input.size());
    std::copy_n(input.begin(), take, header_.begin() + static_cast<std::ptrdiff_t>(header_fill_));
    header_fill_ += take;
    input = input.subspan(take);
    if (header_fill_ < kHeaderBytes) {
      return std::nullopt;
    }
    if (!header_is_valid(header_)) {
      drop_to_next_magic();
      continue;
    }
    header_valid_ = true;
    length_ = load_u32(&header_[kLengthOffset]);
  }
  const FrameType type = static_cast<FrameType>(header_[5]);
  if (payload_.empty() && input.size() >= length_) {  // whole in the input: no copy
    const FrameView frame{type, input.first(length_)};
    input = input.subspan(length_);
    frame_out_ = true;
    return frame;
  }
  const std::size_t take = std::min(length_ - payload_.size(), input.size());
  payload_.insert(payload_.end(), input.begin(), input.begin() + static_cast<std::ptrdiff_t>(take));
  input = input.subspan(take);
  if (payload_.size() < length_) {
    return std::nullopt;
  }
  frame_out_ = true;
  return FrameView{type, base::BytesView(payload_)};
}

}  // namespace cellrund::wire
