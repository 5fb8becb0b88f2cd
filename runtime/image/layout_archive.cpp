#include "image/layout_archive.hpp"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <memory>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "crypto/digest.hpp"
#include "image/oci.hpp"

namespace cellrund::image {
namespace {

using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr std::size_t kBlock = 256UL * 1024;
constexpr std::size_t kMaxMembers = 4096;
using Reader = std::unique_ptr<archive, int (*)(archive*)>;
using Sink = std::function<Status(base::BytesView)>;

std::string cause(archive* reader) {
  const char* text = ::archive_error_string(reader);
  return text != nullptr ? base::log::quoted(text) : "malformed";
}

std::string blob_name(const std::string& digest) {
  constexpr std::size_t kPrefix = std::string_view("sha256:").size();
  return "blobs/sha256/" + digest.substr(kPrefix);
}

// Feeds the bytes of the first regular member of that name to the sink. kNotFound when there is none.
Status stream_member(int file, const std::string& name, std::uint64_t limit, const Sink& sink) {
  if (::lseek(file, 0, SEEK_SET) < 0) {
    return Error::from_errno("rewind");
  }
  const Reader reader(::archive_read_new(), &::archive_read_free);
  if (!reader || ::archive_read_support_format_tar(reader.get()) != ARCHIVE_OK ||
      ::archive_read_support_filter_gzip(reader.get()) != ARCHIVE_OK ||
      ::archive_read_support_filter_zstd(reader.get()) != ARCHIVE_OK) {
    return Error(Errc::kUnimplemented, "libarchive lacks tar, gzip or zstd");
  }
  if (::archive_read_open_fd(reader.get(), file, kBlock) != ARCHIVE_OK) {
    return Error(Errc::kInvalidArgument, "this is no tar file: " + cause(reader.get()));
  }
  for (std::size_t members = 0; members < kMaxMembers; ++members) {
    archive_entry* entry = nullptr;
    const int status = ::archive_read_next_header(reader.get(), &entry);
    if (status == ARCHIVE_EOF) {
      return Error(Errc::kNotFound, "the archive has no " + name);
    }
    if (status != ARCHIVE_OK) {
      return Error(Errc::kInvalidArgument, "read the archive: " + cause(reader.get()));
    }
    const char* path = ::archive_entry_pathname(entry);
    std::string_view plain = path != nullptr ? path : "";
    if (plain.starts_with("./")) {
      plain.remove_prefix(2);
    }
    if (plain != name || ::archive_entry_filetype(entry) != AE_IFREG || ::archive_entry_hardlink(entry) != nullptr) {
      continue;
    }
    std::array<std::uint8_t, 65536> buffer{};
    std::uint64_t total = 0;
    for (;;) {
      const la_ssize_t n = ::archive_read_data(reader.get(), buffer.data(), buffer.size());
      if (n < 0) {
        return Error(Errc::kInvalidArgument, "read " + name + ": " + cause(reader.get()));
      }
      if (n == 0) {
        return base::ok();
      }
      total += static_cast<std::uint64_t>(n);
      if (total > limit) {
        return Error(Errc::kResourceExhausted, name + " is longer than " + std::to_string(limit) + " bytes");
      }
      CR_CHECK(sink(base::BytesView(buffer).first(static_cast<std::size_t>(n))));
    }
  }
  return Error(Errc::kResourceExhausted, "the archive has more than " + std::to_string(kMaxMembers) + " members");
}

}  // namespace

Result<LayoutArchive> LayoutArchive::open(const std::string& path) {
  LayoutArchive out(CR_TRY(base::open_file(path, O_RDONLY)));
  struct stat st {};
  if (::fstat(out.file_.get(), &st) != 0) {
    return Error::from_errno("stat " + path);
  }
  if (!S_ISREG(st.st_mode)) {
    return Error(Errc::kInvalidArgument, path + " is no regular file");
  }
  const std::string layout = CR_TRY(out.read_member("oci-layout", 4096).context("no OCI image layout"));
  const base::json::Value document =
      CR_TRY(base::json::parse(layout, {.max_bytes = 4096, .max_depth = 4, .max_members = 16}).context("oci-layout"));
  const base::json::Value* version = document.find("imageLayoutVersion");
  if (version == nullptr || version->as_string() == nullptr || *version->as_string() != "1.0.0") {
    return Error(Errc::kInvalidArgument, "oci-layout: imageLayoutVersion is not 1.0.0");
  }
  return out;
}

Result<std::string> LayoutArchive::read_member(const std::string& name, std::size_t limit) const {
  std::string out;
  CR_CHECK(stream_member(file_.get(), name, limit, [&](base::BytesView bytes) {
    out.append(base::as_text(bytes));
    return base::ok();
  }));
  return out;
}

Result<std::string> LayoutArchive::index() const {
  return read_member("index.json", kMaxDocumentBytes);
}

Result<std::string> LayoutArchive::document(const Descriptor& blob) const {
  std::string text = CR_TRY(read_member(blob_name(blob.digest), kMaxDocumentBytes));
  if (text.size() != blob.size || crypto::digest_text(base::as_bytes(text)) != blob.digest) {
    return Error(Errc::kDataLoss, "blob " + blob.digest + ": its bytes have another size or digest");
  }
  return text;
}

Result<UniqueFd> LayoutArchive::extract(const Descriptor& blob, const std::string& dir) const {
  UniqueFd out = CR_TRY(base::open_file(dir, O_TMPFILE | O_RDWR, 0600));
  crypto::Sha256 sha;
  std::uint64_t size = 0;
  CR_CHECK(stream_member(file_.get(), blob_name(blob.digest), blob.size, [&](base::BytesView bytes) {
    sha.update(bytes);
    size += bytes.size();
    return base::write_all(out.get(), bytes);
  }));
  if (size != blob.size || crypto::digest_text(sha.finish()) != blob.digest) {
    return Error(Errc::kDataLoss, "blob " + blob.digest + ": its bytes have another size or digest");
  }
  if (::lseek(out.get(), 0, SEEK_SET) < 0) {
    return Error::from_errno("rewind");
  }
  return out;
}

}  // namespace cellrund::image
