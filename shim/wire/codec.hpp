// Little-endian byte writer and bounded reader for the payloads of this protocol. A Reader never reads past its input:
// after the first short read it stays failed and yields zeroes, so decoders check once, at the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.hpp"

namespace cellrund::wire {

class Writer {
 public:
  void u8(std::uint8_t value) { out_.push_back(value); }
  void u16(std::uint16_t value) { integer(value, 2); }
  void u32(std::uint32_t value) { integer(value, 4); }
  void u64(std::uint64_t value) { integer(value, 8); }
  void raw(base::BytesView bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  // u32 length, then the bytes.
  void text(std::string_view value) {
    u32(static_cast<std::uint32_t>(value.size()));
    raw(base::as_bytes(value));
  }
  [[nodiscard]] const base::Bytes& bytes() const noexcept { return out_; }
  [[nodiscard]] base::Bytes take() && noexcept { return std::move(out_); }

 private:
  void integer(std::uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; ++i) {
      out_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    }
  }
  base::Bytes out_;
};

class Reader {
 public:
  explicit Reader(base::BytesView in) noexcept : in_(in) {}
  std::uint8_t u8() { return static_cast<std::uint8_t>(integer(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(integer(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(integer(4)); }
  std::uint64_t u64() { return integer(8); }
  base::BytesView raw(std::size_t size) {
    if (failed_ || in_.size() < size) {
      failed_ = true;
      return {};
    }
    const base::BytesView out = in_.first(size);
    in_ = in_.subspan(size);
    return out;
  }
  // A text longer than `limit` fails the reader before anything is copied.
  std::string text(std::size_t limit) {
    const std::size_t size = u32();
    if (size > limit) {
      failed_ = true;
      return {};
    }
    return std::string(base::as_text(raw(size)));
  }
  // A count of things that take at least one byte each; bounded by `limit` and by what is left to read.
  std::size_t count(std::size_t limit) {
    const std::size_t n = u32();
    if (n > limit || n > in_.size()) {
      failed_ = true;
      return 0;
    }
    return n;
  }
  void fail() noexcept { failed_ = true; }
  [[nodiscard]] bool failed() const noexcept { return failed_; }
  [[nodiscard]] std::size_t left() const noexcept { return in_.size(); }
  [[nodiscard]] bool at_end() const noexcept { return in_.empty(); }
  // Everything read, nothing over.
  [[nodiscard]] bool complete() const noexcept { return !failed_ && in_.empty(); }

 private:
  std::uint64_t integer(std::size_t width) {
    const base::BytesView bytes = raw(width);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      value |= std::uint64_t{bytes[i]} << (8 * i);
    }
    return value;
  }
  base::BytesView in_;
  bool failed_ = false;
};

}  // namespace cellrund::wire
