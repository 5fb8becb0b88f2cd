#include "base/result.hpp"

#include <cerrno>
#include <cstring>

namespace cellrund::base {

std::string_view to_string(Errc code) noexcept {
  switch (code) {
    case Errc::kUnknown: return "Unknown";
    case Errc::kInvalidArgument: return "InvalidArgument";
    case Errc::kNotFound: return "NotFound";
    case Errc::kAlreadyExists: return "AlreadyExists";
    case Errc::kPermissionDenied: return "PermissionDenied";
    case Errc::kResourceExhausted: return "ResourceExhausted";
    case Errc::kFailedPrecondition: return "FailedPrecondition";
    case Errc::kUnimplemented: return "Unimplemented";
    case Errc::kUnavailable: return "Unavailable";
    case Errc::kDeadlineExceeded: return "DeadlineExceeded";
    case Errc::kCancelled: return "Cancelled";
    case Errc::kDataLoss: return "DataLoss";
  }
  return "Unknown";
}

Errc errc_from_errno(int err) noexcept {
  switch (err) {
    case ENOENT: case ENXIO: case ESRCH: case ENODEV: return Errc::kNotFound;
    case EEXIST: return Errc::kAlreadyExists;
    case EPERM: case EACCES: case EROFS: return Errc::kPermissionDenied;
    case EINVAL: case ENAMETOOLONG: case ELOOP: return Errc::kInvalidArgument;
    case ENOMEM: case ENOSPC: case EDQUOT: case EMFILE: case ENFILE: return Errc::kResourceExhausted;
    case ENOSYS: case EOPNOTSUPP: return Errc::kUnimplemented;
    case ETIMEDOUT: return Errc::kDeadlineExceeded;
    case ECONNREFUSED: case ECONNRESET: case EPIPE: case EAGAIN: return Errc::kUnavailable;
    case EBUSY: case ENOTEMPTY: return Errc::kFailedPrecondition;
    case EIO: return Errc::kDataLoss;
    default: return Errc::kUnknown;
  }
}

Error Error::from_errno(std::string_view what) { return from_errno(what, errno); }

Error Error::from_errno(std::string_view what, int err) {
  const char* name = strerrorname_np(err);
  const char* text = strerrordesc_np(err);
  std::string message(what);
  message += ": ";
  message += name != nullptr ? name : "errno " + std::to_string(err);
  if (text != nullptr) {
    message += " (";
    message += text;
    message += ")";
  }
  return Error(errc_from_errno(err), std::move(message), err);
}

void assert_failed(const char* expression, const char* file, int line) noexcept {
  (void)std::fprintf(stderr, "BUG: %s does not hold at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace cellrund::base
