#include "image/unpack/layer.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <span>

#include "base/file.hpp"
#include "base/log.hpp"
#include "crypto/digest.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr std::size_t kBlock = 64UL * 1024;
using Reader = std::unique_ptr<archive, int (*)(archive*)>;

Error malformed(std::string why) {
  return Error(Errc::kInvalidArgument, std::move(why));
}

// libarchive's own words about hostile bytes, made fit to print.
std::string cause(archive* reader) {
  const char* text = ::archive_error_string(reader);
  return text != nullptr ? base::log::quoted(text) : "malformed";
}

// The decompressed bytes of a blob, hashed and counted on their way. libarchive reads from it by callback.
class LayerStream {
 public:
  LayerStream(int fd, std::uint64_t& limit) : fd_(fd), limit_(limit) {}

  Status open(Compression compression) {
    if (compression == Compression::kNone) {
      return base::ok();
    }
    raw_ = Reader(::archive_read_new(), &::archive_read_free);
    const bool gzip = compression == Compression::kGzip;
    if (!raw_ || ::archive_read_support_format_raw(raw_.get()) != ARCHIVE_OK ||
        (gzip ? ::archive_read_support_filter_gzip(raw_.get()) : ::archive_read_support_filter_zstd(raw_.get())) !=
            ARCHIVE_OK) {
      return Error(Errc::kUnimplemented, "libarchive lacks the layer's compression");
    }
    archive_entry* entry = nullptr;
    if (::archive_read_open_fd(raw_.get(), fd_, kBlock) != ARCHIVE_OK ||
        ::archive_read_next_header(raw_.get(), &entry) != ARCHIVE_OK) {
      return malformed("decompress: " + cause(raw_.get()));
    }
    // The raw reader also accepts uncompressed bytes: then the media type lied.
    if (::archive_filter_code(raw_.get(), 0) != (gzip ? ARCHIVE_FILTER_GZIP : ARCHIVE_FILTER_ZSTD)) {
      return malformed("its bytes are not compressed as its media type says");
    }
    return base::ok();
  }

  // 0 at the end, -1 on a failure, which failure() tells.
  la_ssize_t read(const void** bytes) {
    const la_ssize_t n = raw_ ? ::archive_read_data(raw_.get(), buffer_.data(), buffer_.size()) : read_plain();
    if (n < 0) {
      failure_ = raw_ ? malformed("decompress: " + cause(raw_.get())) : Error::from_errno("read layer");
      return -1;
    }
    if (static_cast<std::uint64_t>(n) > limit_) {
      failure_ = Error(Errc::kResourceExhausted, "it unpacks to more than this node allows");
      return -1;
    }
    limit_ -= static_cast<std::uint64_t>(n);
    sha_.update(std::span(buffer_).first(static_cast<std::size_t>(n)));
    *bytes = buffer_.data();
    return n;
  }

  // What follows the end of the archive belongs to the diffID, too.
  Status drain() {
    const void* bytes = nullptr;
    la_ssize_t n = 0;
    do {
      n = read(&bytes);
    } while (n > 0);
    return n == 0 ? base::ok() : Status(take_failure());
  }

  [[nodiscard]] bool failed() const noexcept { return failure_.has_value(); }
  Error take_failure() { return std::move(*failure_); }
  std::string digest() { return crypto::digest_text(sha_.finish()); }

 private:
  la_ssize_t read_plain() {
    ssize_t n = 0;
    do {
      n = ::read(fd_, buffer_.data(), buffer_.size());
    } while (n < 0 && errno == EINTR);
    return n;
  }

  int fd_;
  std::uint64_t& limit_;
  Reader raw_{nullptr, &::archive_read_free};
  std::array<std::uint8_t, kBlock> buffer_{};
  crypto::Sha256 sha_;
  std::optional<Error> failure_;
};

la_ssize_t read_callback(archive* reader, void* data, const void** bytes) {
  const la_ssize_t n = static_cast<LayerStream*>(data)->read(bytes);
  if (n < 0) {
    ::archive_set_error(reader, EIO, "layer stream");
  }
  return n;
}

Result<Entry> to_entry(archive_entry* from) {
  const char* path = ::archive_entry_pathname(from);
  if (path == nullptr) {
    return malformed("an entry has no readable name");
  }
  Entry entry;
  entry.path = path;
  entry.mode = ::archive_entry_perm(from);
  entry.uid = ::archive_entry_uid(from);
  entry.gid = ::archive_entry_gid(from);
  if (const char* target = ::archive_entry_hardlink(from)) {
    entry.type = EntryType::kHardlink;
    entry.link_target = target;
    return entry;
  }
  switch (::archive_entry_filetype(from)) {
    case AE_IFREG:
      entry.type = EntryType::kFile;
      break;
    case AE_IFDIR:
      entry.type = EntryType::kDirectory;
      break;
    case AE_IFIFO:
      entry.type = EntryType::kFifo;
      break;
    case AE_IFLNK: {
      const char* target = ::archive_entry_symlink(from);
      entry.type = EntryType::kSymlink;
      entry.link_target = target != nullptr ? target : "";
      break;
    }
    case AE_IFCHR:
    case AE_IFBLK:
      return malformed("entry " + base::log::quoted(entry.path) + ": device nodes are refused");
    default:
      return malformed("entry " + base::log::quoted(entry.path) + ": its type is unknown");
  }
  return entry;
}

Status write_block(int fd, const void* bytes, std::size_t size, la_int64_t offset) {
  const auto* at = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t n = ::pwrite(fd, at, size, offset);
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return Error::from_errno("write");
    }
    at += n;
    offset += n;
    size -= static_cast<std::size_t>(n);
  }
  return base::ok();
}

Status copy_content(archive* reader, const UniqueFd& file, la_int64_t size) {
  for (;;) {
    const void* bytes = nullptr;
    std::size_t length = 0;
    la_int64_t offset = 0;
    const int status = ::archive_read_data_block(reader, &bytes, &length, &offset);
    if (status == ARCHIVE_EOF) {
      break;
    }
    if (status != ARCHIVE_OK) {
      return malformed("content: " + cause(reader));
    }
    if (offset < 0 || offset > size || static_cast<la_int64_t>(length) > size - offset) {
      return malformed("content exceeds the size in its header");
    }
    CR_CHECK(write_block(file.get(), bytes, length, offset));
  }
  if (::ftruncate(file.get(), size) != 0) {  // a hole at the end
    return Error::from_errno("truncate");
  }
  return base::ok();
}

Status apply_one(archive* reader, archive_entry* from, Tree& tree, Budget& budget, Purpose purpose) {
  Entry entry = CR_TRY(to_entry(from));
  const std::string where = "entry " + base::log::quoted(entry.path);
  if (purpose == Purpose::kInputs) {
    if (entry.type == EntryType::kFifo) {
      return malformed(where + ": inputs hold regular files, folders and links only");
    }
    entry.uid = entry.gid = 0;
    entry.mode &= 0777U;
  }
  const la_int64_t size = entry.type == EntryType::kFile ? ::archive_entry_size(from) : 0;
  if (size < 0) {
    return malformed(where + ": its size is negative");
  }
  if (budget.entries == 0 || static_cast<std::uint64_t>(size) > budget.bytes) {
    return Error(Errc::kResourceExhausted, where + ": it unpacks to more than this node allows");
  }
  budget.entries -= 1;
  budget.bytes -= static_cast<std::uint64_t>(size);
  const UniqueFd file = CR_TRY(tree.apply(entry).context(where));
  if (!file) {
    return base::ok();
  }
  CR_CHECK(copy_content(reader, file, size).context(where));
  return tree.finish_file(file, entry).context(where);
}

}  // namespace

Status apply_layer(int fd, Compression compression, const std::string& diff_id, Tree& tree, Budget& budget, Purpose purpose) {
  LayerStream stream(fd, budget.stream_bytes);
  CR_CHECK(stream.open(compression));
  tree.begin_layer();
  {
    const Reader reader(::archive_read_new(), &::archive_read_free);
    // Tar and nothing else; "empty" so that a layer of no bytes is refused by its diffID and not by a parser's mood.
    if (!reader || ::archive_read_support_format_tar(reader.get()) != ARCHIVE_OK ||
        ::archive_read_support_format_empty(reader.get()) != ARCHIVE_OK) {
      return Error(Errc::kUnimplemented, "libarchive lacks tar");
    }
    int status = ::archive_read_open(reader.get(), &stream, nullptr, &read_callback, nullptr);
    while (status == ARCHIVE_OK) {
      archive_entry* entry = nullptr;
      status = ::archive_read_next_header(reader.get(), &entry);
      if (status == ARCHIVE_OK) {
        auto applied = apply_one(reader.get(), entry, tree, budget, purpose);
        if (!applied.ok()) {
          return stream.failed() ? stream.take_failure() : std::move(applied).error();
        }
      }
    }
    if (stream.failed()) {
      return stream.take_failure();
    }
    if (status != ARCHIVE_EOF) {  // warnings as well: what one reader mends another reads otherwise
      return malformed("tar: " + cause(reader.get()));
    }
  }
  CR_CHECK(stream.drain());
  if (stream.digest() != diff_id) {
    return Error(Errc::kDataLoss, purpose == Purpose::kInputs ? "its bytes do not have the digest that names it"
                                                               : "its decompressed bytes do not have the diffID of the image's config");
  }
  return base::ok();
}

}  // namespace cellrund::image
