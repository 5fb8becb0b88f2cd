#include "shim/wire/outputs.hpp"

#include <algorithm>

#include "shim/wire/codec.hpp"

namespace cellrund::wire {
namespace {

constexpr std::string_view kMagic = "CRO1";
constexpr std::uint8_t kFile = 1;
constexpr std::uint8_t kRefused = 2;
constexpr std::uint8_t kEnd = 3;
constexpr std::size_t kFileHeadBytes = 4 + 8 + 2;
constexpr std::size_t kRefusedHeadBytes = 1 + 2;
constexpr std::size_t kEndBytes = 8;

// The code point that `text` begins with and its length; a length of 0: none.
struct CodePoint {
  std::uint32_t value = 0;
  std::size_t size = 0;
};

CodePoint first_code_point(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const std::uint32_t lead = byte(0);
  std::size_t size = 1;
  std::uint32_t value = lead;
  std::uint32_t least = 0;
  if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4, value = lead & 7U, least = 0x10000;
  } else if (lead >= 0xE0 && lead < 0xF0) {
    size = 3, value = lead & 15U, least = 0x800;
  } else if (lead >= 0xC2 && lead < 0xE0) {
    size = 2, value = lead & 31U, least = 0x80;
  } else if (lead >= 0x80) {
    return {};
  }
  if (text.size() < size) {
    return {};
  }
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) {
      return {};
    }
    value = (value << 6U) | (byte(i) & 0x3FU);
  }
  const bool surrogate = value >= 0xD800 && value <= 0xDFFF;
  return value < least || value > 0x10FFFF || surrogate ? CodePoint{} : CodePoint{value, size};
}

}  // namespace

std::string_view to_string(OutputRefusal why) noexcept {
  switch (why) {
    case OutputRefusal::kSymlink: return "symbolic link";
    case OutputRefusal::kHardLink: return "hard link";
    case OutputRefusal::kFifo: return "FIFO";
    case OutputRefusal::kSocket: return "socket";
    case OutputRefusal::kDevice: return "device";
    case OutputRefusal::kOtherType: return "not a regular file";
    case OutputRefusal::kName: return "name is not plain UTF-8, or leads out of the folder";
    case OutputRefusal::kDepth: return "too many folders deep";
    case OutputRefusal::kLength: return "name too long";
    case OutputRefusal::kBytes: return "over the budget of bytes";
    case OutputRefusal::kFiles: return "over the budget of files";
    case OutputRefusal::kPaths: return "over the budget of names";
    case OutputRefusal::kUnreadable: return "could not be read";
    case OutputRefusal::kChanged: return "changed while it was read";
  }
  return "";
}

bool is_plain_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    if (point.size == 0 || point.value < 0x20 || (point.value >= 0x7F && point.value < 0xA0)) {
      return false;
    }
    text.remove_prefix(point.size);
  }
  return true;
}

std::optional<OutputRefusal> path_problem(std::string_view path) noexcept {
  if (!is_plain_utf8(path)) {
    return OutputRefusal::kName;
  }
  std::size_t depth = 0;
  std::string_view rest = path;
  while (true) {
    const std::size_t slash = rest.find('/');
    const std::string_view name = rest.substr(0, slash);
    if (name.empty() || name == "." || name == "..") {
      return OutputRefusal::kName;
    }
    if (name.size() > kMaxOutputName) {
      return OutputRefusal::kLength;
    }
    ++depth;
    if (slash == std::string_view::npos) {
      break;
    }
    rest.remove_prefix(slash + 1);
  }
  if (depth > kMaxOutputDepth) {
    return OutputRefusal::kDepth;
  }
  return path.size() > kMaxOutputPath ? std::optional(OutputRefusal::kLength) : std::nullopt;
}

base::Bytes archive_head() { return {kMagic.begin(), kMagic.end()}; }

base::Bytes file_record(std::string_view path, std::uint32_t mode, std::uint64_t size) {
  path = path.substr(0, kMaxArchivePath);
  Writer out;
  out.u8(kFile);
  out.u32(mode);
  out.u64(size);
  out.u16(static_cast<std::uint16_t>(path.size()));
  out.raw(base::as_bytes(path));
  return std::move(out).take();
}

std::array<std::uint8_t, 4> piece_head(std::uint32_t size) {
  return {static_cast<std::uint8_t>(size), static_cast<std::uint8_t>(size >> 8U), static_cast<std::uint8_t>(size >> 16U),
          static_cast<std::uint8_t>(size >> 24U)};
}

std::array<std::uint8_t, 5> file_end(bool whole) { return {0, 0, 0, 0, static_cast<std::uint8_t>(whole ? 0 : 1)}; }

base::Bytes refused_record(std::string_view path, OutputRefusal why) {
  path = path.substr(0, kMaxArchivePath);
  Writer out;
  out.u8(kRefused);
  out.u8(static_cast<std::uint8_t>(why));
  out.u16(static_cast<std::uint16_t>(path.size()));
  out.raw(base::as_bytes(path));
  return std::move(out).take();
}

base::Bytes end_record(std::uint64_t unlisted) {
  Writer out;
  out.u8(kEnd);
  out.u64(unlisted);
  return std::move(out).take();
}

base::Status ArchiveReader::fail(const char* what) {
  state_ = State::kFailed;
  return base::Error(base::Errc::kDataLoss, std::string("outputs archive: ") + what);
}

void ArchiveReader::expect(State state, std::size_t bytes) {
  state_ = state;
  wanted_ = bytes;
  held_.clear();
}

base::Status ArchiveReader::feed(base::BytesView bytes) {
  if (state_ == State::kFailed) {
    return fail("failed before");
  }
  while (!bytes.empty()) {
    if (state_ == State::kEnded) {
      return fail("bytes after the end");
    }
    const base::BytesView part = bytes.first(std::min(bytes.size(), wanted_ - (state_ == State::kPiece ? 0 : held_.size())));
    bytes = bytes.subspan(part.size());
    if (state_ == State::kPiece) {
      sink_.data(part);
      wanted_ -= part.size();
      if (wanted_ == 0) {
        expect(State::kPieceHead, 4);
      }
      continue;
    }
    held_.insert(held_.end(), part.begin(), part.end());
    // A field of length 0 (an empty path) is complete at once.
    while (held_.size() == wanted_ && state_ != State::kPiece && state_ != State::kEnded) {
      CR_CHECK(step());
    }
  }
  return base::ok();
}

// One whole field is held.
base::Status ArchiveReader::step() {
  Reader in(held_);
  switch (state_) {
    case State::kMagic:
      if (base::as_text(held_) != kMagic) {
        return fail("it does not begin as one");
      }
      expect(State::kKind, 1);
      return base::ok();
    case State::kKind:
      switch (in.u8()) {
        case kFile: expect(State::kFileHead, kFileHeadBytes); return base::ok();
        case kRefused: expect(State::kRefusedHead, kRefusedHeadBytes); return base::ok();
        case kEnd: expect(State::kEndHead, kEndBytes); return base::ok();
        default: return fail("unknown record");
      }
    case State::kFileHead: {
      mode_ = in.u32();
      size_ = in.u64();
      const std::size_t length = in.u16();
      if (length > kMaxArchivePath) {
        return fail("a path is too long");
      }
      expect(State::kFilePath, length);
      return base::ok();
    }
    case State::kFilePath:
      sink_.file(base::as_text(held_), mode_, size_);
      expect(State::kPieceHead, 4);
      return base::ok();
    case State::kPieceHead: {
      const std::size_t length = in.u32();
      if (length > kMaxPiece) {
        return fail("a piece is too long");
      }
      expect(length == 0 ? State::kFileStatus : State::kPiece, length == 0 ? 1 : length);
      return base::ok();
    }
    case State::kFileStatus: {
      const std::uint8_t status = in.u8();
      if (status > 1) {
        return fail("unknown status of a file");
      }
      sink_.file_end(status == 0);
      expect(State::kKind, 1);
      return base::ok();
    }
    case State::kRefusedHead: {
      const std::uint8_t why = in.u8();
      const std::size_t length = in.u16();
      if (why == 0 || why > kLastOutputRefusal) {
        return fail("unknown reason of a refusal");
      }
      if (length > kMaxArchivePath) {
        return fail("a path is too long");
      }
      why_ = static_cast<OutputRefusal>(why);
      expect(State::kRefusedPath, length);
      return base::ok();
    }
    case State::kRefusedPath:
      sink_.refused(base::as_text(held_), why_);
      expect(State::kKind, 1);
      return base::ok();
    case State::kEndHead:
      sink_.end(in.u64());
      expect(State::kEnded, 0);
      return base::ok();
    case State::kPiece:
    case State::kEnded:
    case State::kFailed:
      break;
  }
  return fail("reader in no state for this");
}

}  // namespace cellrund::wire
