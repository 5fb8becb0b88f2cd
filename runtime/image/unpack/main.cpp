// cellrun-unpack: layers in, one EROFS file out. Runs in a box (host/box.hpp) as PID 1 of its own namespace; it
// confines itself further before it reads a byte of a layer, unpacks in a child under the strictest filter, and then
// becomes mkfs.erofs. Not for use by hand.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <clocale>
#include <cstdio>
#include <optional>
#include <vector>

#include "base/file.hpp"
#include "base/process.hpp"
#include "crypto/digest.hpp"
#include "host/confine.hpp"
#include "image/unpack/request.hpp"

namespace {

using namespace cellrund;
using base::Errc;
using base::Error;
using base::Result;
using base::Status;
using base::UniqueFd;

constexpr const char* kTree = "/tree";
constexpr const char* kOutput = "/rootfs.erofs";
constexpr std::uint64_t kAddressSpace = 1ULL << 30U;  // neither program maps file contents as a whole
constexpr std::uint64_t kTarOverheadPerEntry = 4096;  // headers, pax records and padding

// One UUID for all images: the bytes of the file then depend on the layers alone.
constexpr const char* kUuid = "00000000-0000-0000-0000-000000000000";

// Only what building a tree with foreign owners needs, and only over the box's own ids.
constexpr std::array<int, 4> kCapabilities{CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID};

std::string folder_path(const std::string& name) { return std::string(kTree) + "/" + name; }

Status confine(const image::UnpackRequest& request) {
  host::RootPlan plan;
  plan.tmpfs_bytes = request.max_bytes;  // in whole pages, so that many small files cannot take more
  plan.tmpfs_inodes = request.max_entries + 4096;
  // mkfs.erofs, its libraries and its loader.
  for (const char* path : {"/usr", "/lib", "/lib64", "/nix/store"}) {
    if (base::exists(path)) {
      plan.read_only.emplace_back(path);
    }
  }
  plan.files.push_back({image::kOutputMountFd, kOutput});
  CR_CHECK(host::enter_private_root(plan));
  CR_CHECK(base::make_dir(kTree, 0755));
  for (const image::UnpackRequest::Layer& layer : request.layers) {
    if (!layer.folder.empty()) {
      CR_CHECK(base::make_dir(folder_path(layer.folder), 0755));
    }
  }
  CR_CHECK(host::keep_capabilities(kCapabilities));
  return host::set_limits({.address_space_bytes = kAddressSpace,
                           .cpu_seconds = request.cpu_seconds,
                           .open_files = 1024,
                           .file_bytes = plan.tmpfs_bytes + (1ULL << 30U)});
}

image::UnpackAnswer unpack(const image::UnpackRequest& request) {
  using image::UnpackVerdict;
  auto root = base::open_file(kTree, O_RDONLY | O_DIRECTORY);
  if (!root.ok()) {
    return {UnpackVerdict::kHostFailure, root.error().message()};
  }
  std::optional<image::Tree> tree;
  tree.emplace(std::move(*root), request.id_count);
  const auto purpose = request.inputs_of.has_value() ? image::Purpose::kInputs : image::Purpose::kLayer;
  image::Budget budget{request.max_bytes, request.max_entries,
                       request.max_bytes + request.max_entries * kTarOverheadPerEntry};
  for (std::size_t i = 0; i < request.layers.size(); ++i) {
    const auto& layer = request.layers[i];
    if (!layer.folder.empty()) {
      auto folder = base::open_file(folder_path(layer.folder), O_RDONLY | O_DIRECTORY);
      if (!folder.ok()) {
        return {UnpackVerdict::kHostFailure, folder.error().message()};
      }
      tree.emplace(std::move(*folder), request.id_count, image::Whiteouts::kPlainNames);
    }
    auto applied = image::apply_layer(image::kFirstLayerFd + static_cast<int>(i), layer.compression, layer.diff_id, *tree,
                                      budget, purpose);
    if (!applied.ok()) {
      const Error error = std::move(applied).error().context(layer.folder.empty() ? "layer " + std::to_string(i + 1) : layer.folder);
      switch (error.code()) {
        case Errc::kDataLoss:
          return {UnpackVerdict::kMismatch, error.message()};
        // An operating system error is the host's, but for a tmpfs that a too large image has filled.
        case Errc::kInvalidArgument:
        case Errc::kResourceExhausted:
          return {UnpackVerdict::kInvalid, error.message()};
        default:
          return {UnpackVerdict::kHostFailure, error.message()};
      }
    }
  }
  return {UnpackVerdict::kUnpacked, ""};
}

// The child: hostile bytes are read from here on.
[[noreturn]] void unpack_and_end(const image::UnpackRequest& request, int answer_fd) {
  auto filtered = host::apply_seccomp(host::SeccompProfile::kUnpacker);
  const image::UnpackAnswer answer =
      filtered.ok() ? unpack(request)
                    : image::UnpackAnswer{image::UnpackVerdict::kHostFailure, filtered.error().message()};
  const bool written = base::write_all(answer_fd, base::as_bytes(image::write_answer(answer))).ok();
  ::_exit(written ? 0 : 1);
}

// The child's answer, or a failure when it died before it gave one (the filter kills with SIGSYS).
Result<std::string> run_child(const image::UnpackRequest& request) {
  base::Pipe pipe = CR_TRY(base::make_pipe());
  const pid_t child = ::fork();  // single-threaded: the copy is whole
  if (child < 0) {
    return Error::from_errno("fork");
  }
  if (child == 0) {
    (void)::close(1);  // the result is the parent's to write
    unpack_and_end(request, pipe.write.get());
  }
  pipe.write.reset();
  std::string answer = CR_TRY(base::read_fd(pipe.read.get(), 65536));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) {
      return Error::from_errno("waitpid");
    }
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return Error(Errc::kUnknown, WIFSIGNALED(status) ? "the unpacker died of signal " + std::to_string(WTERMSIG(status))
                                                     : std::string("the unpacker failed"));
  }
  return answer;
}

Status become_mkfs(const image::UnpackRequest& request) {
  const std::string& program = request.mkfs_program;
  // Its chatter belongs to the messages, not to the result.
  if (::dup2(2, 1) < 0) {
    return Error::from_errno("dup2");
  }
  // Uncompressed: under emulation the guest would pay for decompression, and the host's page cache is shared.
  std::vector<std::string> words{program, "--quiet", "-T0", "-U", kUuid, "-x-1"};
  if (request.inputs_of.has_value()) {
    words.push_back("--force-uid=" + std::to_string(request.inputs_of->uid));
    words.push_back("--force-gid=" + std::to_string(request.inputs_of->gid));
  }
  words.insert(words.end(), {kOutput, kTree});
  const std::vector<char*> argv = base::c_strings(words);
  std::array<const char*, 2> env{"LC_ALL=C.UTF-8", nullptr};
  CR_CHECK(host::apply_seccomp(host::SeccompProfile::kMkfs));
  (void)::execve(program.c_str(), argv.data(), const_cast<char* const*>(env.data()));
  return Error::from_errno("exec " + program);
}

Status run() {
  const std::string text = CR_TRY(base::read_fd(0, 65536));
  const image::UnpackRequest request = CR_TRY(image::parse_request(text));
  // Names in pax headers are UTF-8; without such a locale libarchive cannot hand them out. libcrypto sets itself up at
  // its first use. Both before the filter.
  if (std::setlocale(LC_CTYPE, "C.UTF-8") == nullptr) {
    return Error(Errc::kUnimplemented, "the C.UTF-8 locale is missing");
  }
  (void)crypto::sha256({});
  (void)::umask(0);
  CR_CHECK(confine(request));
  const std::string answer_text = CR_TRY(run_child(request));
  const image::UnpackAnswer answer = CR_TRY(image::parse_answer(answer_text));
  CR_CHECK(base::write_all(1, base::as_bytes(image::write_answer(answer))));
  if (answer.verdict != image::UnpackVerdict::kUnpacked) {
    return base::ok();
  }
  return become_mkfs(request);
}

}  // namespace

int main() {
  const auto status = run();
  if (!status.ok()) {
    (void)std::fprintf(stderr, "cellrun-unpack: %s\n", status.error().message().c_str());
    return 1;
  }
  return 0;
}
