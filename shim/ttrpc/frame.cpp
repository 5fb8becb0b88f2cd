#include "shim/ttrpc/frame.hpp"

#include <algorithm>
#include <cstring>

namespace cellrund::shim::ttrpc {
namespace {

std::uint32_t load_be32(const std::uint8_t* at) noexcept {
  return (std::uint32_t{at[0]} << 24U) | (std::uint32_t{at[1]} << 16U) | (std::uint32_t{at[2]} << 8U) | at[3];
}

void append_be32(std::string& out, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) {
    out.push_back(static_cast<char>((value >> shift) & 0xffU));
  }
}

}  // namespace

std::string encode_frame(std::uint32_t stream, FrameType type, std::string_view payload) {
  std::string out;
  out.reserve(kHeaderBytes + payload.size());
  append_be32(out, static_cast<std::uint32_t>(payload.size()));
  append_be32(out, stream);
  out.push_back(static_cast<char>(type));
  out.push_back('\0');  // flags: unary
  out.append(payload);
  return out;
}

std::optional<Frame> FrameParser::next(base::BytesView& bytes) {
  if (header_fill_ < kHeaderBytes) {
    const std::size_t take = std::min(kHeaderBytes - header_fill_, bytes.size());
    std::copy_n(bytes.begin(), take, header_ + header_fill_);
    header_fill_ += take;
    bytes = bytes.subspan(take);
    if (header_fill_ < kHeaderBytes) {
      return std::nullopt;
    }
    length_ = load_be32(header_);
    seen_ = 0;
    frame_ = Frame{load_be32(header_ + 4), header_[8], header_[9], {}, length_ > kMaxPayload};
  }
  const std::size_t take = std::min<std::size_t>(length_ - seen_, bytes.size());
  if (!frame_.too_long) {
    frame_.payload.append(base::as_text(bytes.first(take)));
  }
  bytes = bytes.subspan(take);
  seen_ += static_cast<std::uint32_t>(take);
  if (seen_ < length_) {
    return std::nullopt;
  }
  header_fill_ = 0;
  return std::move(frame_);
}

}  // namespace cellrund::shim::ttrpc
