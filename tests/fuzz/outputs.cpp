// The archive of /outputs and the collector's rules: whatever a guest sends, what was taken is within the budgets, is as long
// as its list says, has names that lead nowhere, and its list passes the daemon's own check. The first two bytes: in what
// steps it arrives, and whether files are few.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "cell/collect/answer.hpp"
#include "cell/collect/collection.hpp"

using namespace cellrund;
using namespace cellrund::cell::collect;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) {
    return 0;
  }
  const std::size_t step = data[0] == 0 ? size : data[0];
  const Request request{65536, data[1] % 2 == 0 ? 3U : 64U};
  base::BytesView archive{data + 2, size - 2};
  const base::UniqueFd file(::memfd_create("data", MFD_CLOEXEC));
  Collection collection(request, file.get());
  wire::ArchiveReader reader(collection);
  std::string why = "cut";
  while (!archive.empty()) {
    const base::BytesView part = archive.first(std::min(step, archive.size()));
    archive = archive.subspan(part.size());
    if (!reader.feed(part).ok()) {
      break;
    }
    if (reader.ended()) {
      why.clear();
    }
  }
  const model::OutputFacts facts = collection.finish(why);
  std::uint64_t bytes = 0;
  for (const model::OutputFile& taken : facts.files) {
    bytes += taken.size;
    if (wire::path_problem(taken.path).has_value()) {
      std::abort();
    }
  }
  struct stat st {};
  if (facts.files.size() > request.max_files || bytes > request.max_bytes || facts.refused.size() > kMaxListed ||
      ::fstat(file.get(), &st) != 0 || static_cast<std::uint64_t>(st.st_size) != bytes) {
    std::abort();
  }
  if (!parse_answer(write_answer(facts), request).ok()) {
    std::abort();
  }
  return 0;
}
