// Memory for secrets. What is freed has been overwritten; what is held is kept out of swap and core dumps as far as the host lets
// us. Copies that a caller makes elsewhere are the caller's to wipe.
#pragma once

#include <string.h>
#include <sys/mman.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace cellrund::base {

// std::allocator that overwrites what it gives back, so that a vector that grows or dies leaves nothing behind. For buffers on
// the way.
template <typename T>
struct WipingAllocator {
  using value_type = T;
  WipingAllocator() noexcept = default;
  template <typename U>
  WipingAllocator(const WipingAllocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor): as std::allocator's
  T* allocate(std::size_t n) { return std::allocator<T>().allocate(n); }
  void deallocate(T* p, std::size_t n) noexcept {
    ::explicit_bzero(p, n * sizeof(T));
    std::allocator<T>().deallocate(p, n);
  }
  friend bool operator==(const WipingAllocator&, const WipingAllocator&) noexcept { return true; }
};
using WipedBytes = std::vector<std::uint8_t, WipingAllocator<std::uint8_t>>;

// A value at rest: pages of its own, locked into memory where RLIMIT_MEMLOCK allows it, never dumped, wiped at the end.
class Secret {
 public:
  Secret() noexcept = default;
  // kResourceExhausted without memory for it. The bytes may be empty.
  static Result<Secret> create(std::size_t size) {
    Secret out;
    if (size != 0) {
      void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (at == MAP_FAILED) {
        return Error::from_errno("memory for a secret");
      }
      (void)::mlock(at, size);  // the limit may be used up: then it is as other memory, and wiped all the same
      (void)::madvise(at, size, MADV_DONTDUMP);
      out.bytes_ = {static_cast<std::uint8_t*>(at), size};
    }
    return out;
  }
  Secret(Secret&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      wipe();
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { wipe(); }

  [[nodiscard]] std::span<std::uint8_t> bytes() noexcept { return bytes_; }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }
  void wipe() noexcept {
    if (!bytes_.empty()) {
      ::explicit_bzero(bytes_.data(), bytes_.size());
      (void)::munmap(bytes_.data(), bytes_.size());
      bytes_ = {};
    }
  }

 private:
  std::span<std::uint8_t> bytes_;
};

}  // namespace cellrund::base
