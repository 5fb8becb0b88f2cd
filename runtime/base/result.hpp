// Result<T>: the one channel for "we could not do it".
//
// Three channels are never mixed in this code base: a Result says that an operation could not be done,
// a plain value (Outcome, Refusal, ResidueReport) says what is true of a cell, and CR_ASSERT says that
// the program itself is wrong. A dropped Result does not compile without a warning.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace cellrund::base {

// What kind of failure this is, as far as a caller may want to branch on it. The names are gRPC's
// canonical ones (google/rpc/code.proto) so that they need no translation table at the edges.
enum class Errc {
  kUnknown,
  kInvalidArgument,
  kNotFound,
  kAlreadyExists,
  kPermissionDenied,
  kResourceExhausted,
  kFailedPrecondition,
  kUnimplemented,
  kUnavailable,
  kDeadlineExceeded,
  kCancelled,
  kDataLoss,
};

[[nodiscard]] std::string_view to_string(Errc code) noexcept;

// Maps an errno to the nearest Errc; kUnknown where nothing fits.
[[nodiscard]] Errc errc_from_errno(int err) noexcept;

// A move-only failure. `message` reads operation: object: cause, outermost first, and never holds
// payload bytes, keys or environment. `os_errno` is 0 when no system call was the cause.
class Error {
 public:
  Error(Errc code, std::string message, int os_errno = 0)
      : code_(code), os_errno_(os_errno), message_(std::move(message)) {}
  Error(Error&&) noexcept = default;
  Error& operator=(Error&&) noexcept = default;
  Error(const Error&) = delete;
  Error& operator=(const Error&) = delete;
  ~Error() = default;

  // From errno as it is right now: capture before any other call. "what: strerrorname (text)".
  static Error from_errno(std::string_view what);
  static Error from_errno(std::string_view what, int err);

  [[nodiscard]] Errc code() const noexcept { return code_; }
  [[nodiscard]] int os_errno() const noexcept { return os_errno_; }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }
  // Adds where we were when it happened, in front: "arm filter of cj12: bpf_link_create: EPERM".
  [[nodiscard]] Error context(std::string_view where) && {
    message_.insert(0, std::string(where) + ": ");
    return std::move(*this);
  }
  // A copy for the rare place that must report one failure twice.
  [[nodiscard]] Error clone() const { return Error(code_, message_, os_errno_); }

 private:
  Errc code_;
  int os_errno_;
  std::string message_;
};

struct Unit {};

// Value or failure. E is Error nearly everywhere; the admission path uses model::Refusal, which is a
// statement about a submission and not an operational failure.
template <typename T = Unit, typename E = Error>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  using error_type = E;

  // Implicit on purpose, so that `return value;` and `return Error{...};` read as they should.
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT(google-explicit-constructor)
  Result(E error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  [[nodiscard]] T& value() & { return std::get<0>(state_); }
  [[nodiscard]] const T& value() const& { return std::get<0>(state_); }
  [[nodiscard]] T&& value() && { return std::get<0>(std::move(state_)); }
  [[nodiscard]] T& operator*() & { return value(); }
  [[nodiscard]] const T& operator*() const& { return value(); }
  [[nodiscard]] T&& operator*() && { return std::move(*this).value(); }
  [[nodiscard]] T* operator->() { return &value(); }
  [[nodiscard]] const T* operator->() const { return &value(); }

  [[nodiscard]] E& error() & { return std::get<1>(state_); }
  [[nodiscard]] const E& error() const& { return std::get<1>(state_); }
  [[nodiscard]] E&& error() && { return std::get<1>(std::move(state_)); }

  // The same result with `where` put in front of a failure's message (Error only).
  [[nodiscard]] Result context(std::string_view where) && {
    if (ok()) {
      return std::move(*this);
    }
    return Result(std::move(*this).error().context(where));
  }

 private:
  std::variant<T, E> state_;
};

using Status = Result<Unit>;
[[nodiscard]] inline Status ok() { return Unit{}; }

[[noreturn]] void assert_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace cellrund::base

// The value of a Result, or return its failure from the enclosing function.
// GNU statement expression: understood by g++ and clang, the only compilers of this project.
#define CR_TRY(expr)                          \
  __extension__({                             \
    auto cr_try_ = (expr);                    \
    if (!cr_try_.ok()) {                      \
      return std::move(cr_try_).error();      \
    }                                         \
    std::move(cr_try_).value();               \
  })

// The same for a Status, as a statement.
#define CR_CHECK(expr)                        \
  do {                                        \
    auto cr_check_ = (expr);                  \
    if (!cr_check_.ok()) {                    \
      return std::move(cr_check_).error();    \
    }                                         \
  } while (false)

// A bug, never an environment failure. Stays on in release.
#define CR_ASSERT(cond) \
  ((cond) ? static_cast<void>(0) : ::cellrund::base::assert_failed(#cond, __FILE__, __LINE__))
