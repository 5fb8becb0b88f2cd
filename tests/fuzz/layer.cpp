// Hostile layers onto a folder: nothing outside of it may change, and memory and disk stay within the budget. The first
// byte chooses the compression.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>

#include "base/file.hpp"
#include "image/unpack/layer.hpp"

using namespace cellrund;

namespace {

// A folder in memory that goes with the process.
struct Playground {
  std::string dir = "/dev/shm/cellrun-fuzz-layer-XXXXXX";
  Playground() {
    if (::mkdtemp(dir.data()) == nullptr) {
      std::abort();
    }
  }
  Playground(const Playground&) = delete;
  ~Playground() {
    std::error_code ignored;
    std::filesystem::remove_all(dir, ignored);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  static const Playground playground;
  const std::string& dir = playground.dir;
  const std::string root = dir + "/root";
  if (!base::make_dir(root, 0755).ok()) {
    std::abort();
  }
  {
    auto folder = base::open_file(root, O_RDONLY | O_DIRECTORY);
    const auto layer = base::sealed_memfd("layer", {data + 1, size - 1});
    image::Tree tree(std::move(folder).value(), 65536);
    image::Budget budget{1U << 20U, 1000, 4U << 20U};
    (void)image::apply_layer(layer->get(), static_cast<image::Compression>(data[0] % 3), "", tree, budget);
  }
  const auto names = base::list_dir(dir, 10);
  if (!names.ok() || names->size() != 1) {
    std::abort();  // something appeared beside the root
  }
  std::error_code failed;
  std::filesystem::remove_all(root, failed);
  if (failed || base::exists(root)) {
    std::abort();
  }
  return 0;
}
