#include "inputs.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.hpp"
#include "base/json.hpp"
#include "crypto/dsse.hpp"
#include "job/parse.hpp"

namespace cellrund::cli {
namespace {

namespace json = base::json;
using base::Errc;
using base::Error;

// The node hashes and syncs the archive before it answers the last piece.
constexpr base::Nanoseconds kPieceBudget = std::chrono::seconds(60);

struct Volume {
  std::string_view flag;   // also its key in spec.volumes
  std::string_view field;  // of the digest in it
  const std::optional<PackedFiles>& files;
};

std::array<Volume, 2> volumes_of(const Inputs& inputs) {
  return {{{"task", "digest", inputs.task}, {"workspace", "seed", inputs.workspace}}};
}

std::string path_of(const Volume& volume) {
  return "spec.volumes." + std::string(volume.flag) + "." + std::string(volume.field);
}

Failed mismatch(std::string_view command, const Volume& volume, const std::string& named) {
  Failed out = misuse(std::string(command) + ": --" + std::string(volume.flag) + " has the digest " + volume.files->digest + ", but " +
                          path_of(volume) + " is " + printable(named),
                      "leave " + path_of(volume) + " out of a jobspec that is signed now, and the right digest is filled in");
  out.failure.field = path_of(volume);
  return out;
}

// A copy of the member if it is an object, a new one if it is absent; nullopt when it is something else.
std::optional<json::Object> object_in(const json::Object& parent, std::string_view key) {
  const json::Value* value = parent.find(key);
  if (value == nullptr) {
    return json::Object();
  }
  return value->as_object() != nullptr ? std::optional(*value->as_object()) : std::nullopt;
}

base::Result<std::string> read_piece(int fd, std::uint64_t offset, std::size_t size) {
  std::string out(size, '\0');
  std::size_t at = 0;
  while (at < size) {
    const ssize_t n = ::pread(fd, out.data() + at, size - at, static_cast<off_t>(offset + at));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      return n == 0 ? Error(Errc::kDataLoss, "the archive became shorter") : Error::from_errno("read the archive");
    }
    at += static_cast<std::size_t>(n);
  }
  return out;
}

base::Result<base::Unit, Failed> upload(api::Client& client, std::string_view flag, const PackedFiles& files) {
  // First without bytes: the node may have them from an earlier job.
  api::Upload piece{.digest = files.digest, .size = files.bytes, .offset = 0, .data = {}};
  for (;;) {
    auto reply = ask<api::Uploaded>(client, piece, kPieceBudget);
    if (!reply.ok()) {
      Failed out = std::move(reply).error();
      out.failure.message = "--" + std::string(flag) + ": " + out.failure.message;
      return out;
    }
    if (reply->whole) {
      return base::Unit{};
    }
    const bool first = piece.offset == 0 && piece.data.empty();
    if (reply->received != piece.offset + piece.data.size() || (!first && piece.data.empty())) {
      return failed(Error(Errc::kUnknown, "cellrund took other bytes than were sent"));
    }
    const std::uint64_t offset = reply->received;
    auto data = read_piece(files.archive.get(), offset, std::min<std::uint64_t>(api::kMaxUploadPiece, files.bytes - offset));
    if (!data.ok()) {
      return failed(data.error());
    }
    piece = api::Upload{.digest = files.digest, .size = files.bytes, .offset = offset, .data = std::move(*data)};
  }
}

}  // namespace

base::Result<Inputs, Failed> pack_inputs(const Context& context) {
  Inputs out;
  for (const auto& [flag, into] : {std::pair{"task", &out.task}, std::pair{"workspace", &out.workspace}}) {
    const std::optional<std::string> path = context.arguments().value(flag);
    if (!path.has_value()) {
      continue;
    }
    auto packed = pack_files(*path);
    if (!packed.ok()) {
      Failed failure = failed(std::move(packed).error().context(std::string(context.command()) + ": --" + flag),
                              "name a folder, or a tar archive without compression");
      failure.exit_code = kExitUsage;
      return failure;
    }
    *into = std::move(packed).value();
  }
  return out;
}

base::Result<std::string, Failed> with_inputs(const std::string& spec_text, const Inputs& inputs, std::string_view command) {
  if (!inputs.task.has_value() && !inputs.workspace.has_value()) {
    return spec_text;
  }
  auto document = json::parse(spec_text, {.max_bytes = job::kMaxSpecBytes});
  json::Object* root = document.ok() ? document->as_object() : nullptr;
  auto spec = root != nullptr ? object_in(*root, "spec") : std::nullopt;
  auto volumes = spec.has_value() ? object_in(*spec, "volumes") : std::nullopt;
  if (!volumes.has_value()) {
    return spec_text;
  }
  bool changed = false;
  for (const Volume& volume : volumes_of(inputs)) {
    auto entry = volume.files.has_value() ? object_in(*volumes, volume.flag) : std::nullopt;
    if (!entry.has_value()) {
      continue;
    }
    if (const json::Value* named = entry->find(volume.field); named != nullptr) {
      if (named->as_string() != nullptr && *named->as_string() != volume.files->digest) {
        return mismatch(command, volume, *named->as_string());
      }
      continue;
    }
    entry->set(std::string(volume.field), volume.files->digest);
    volumes->set(std::string(volume.flag), std::move(*entry));
    changed = true;
  }
  if (!changed) {
    return spec_text;  // its own bytes, whatever their layout
  }
  spec->set("volumes", std::move(*volumes));
  root->set("spec", std::move(*spec));
  return json::write(*document);
}

base::Result<base::Unit, Failed> check_signed(const std::string& envelope_text, const Inputs& inputs, std::string_view command) {
  const auto envelope = crypto::dsse::parse(base::as_bytes(envelope_text), {});
  const auto spec = envelope.ok() ? job::parse_spec(base::as_text(envelope->payload))
                                  : base::Result<model::JobSpec, model::Refusal>(model::Refusal{});
  if (!spec.ok()) {
    return base::Unit{};  // the node refuses it, and that is on record
  }
  for (const Volume& volume : volumes_of(inputs)) {
    const std::optional<std::string>& named = volume.flag == "task" ? spec->volumes.task : spec->volumes.workspace_seed;
    if (!volume.files.has_value() || named == volume.files->digest) {
      continue;
    }
    if (named.has_value()) {
      return mismatch(command, volume, *named);
    }
    return misuse(std::string(command) + ": --" + std::string(volume.flag) + ": the signed jobspec names no " + path_of(volume),
                  "its digest is " + volume.files->digest + "; cellrun sign --" + std::string(volume.flag) + " fills it in");
  }
  return base::Unit{};
}

base::Result<base::Unit, Failed> upload_inputs(api::Client& client, const Inputs& inputs) {
  for (const Volume& volume : volumes_of(inputs)) {
    if (volume.files.has_value()) {
      CR_CHECK(upload(client, volume.flag, *volume.files));
    }
  }
  return base::Unit{};
}

}  // namespace cellrund::cli
