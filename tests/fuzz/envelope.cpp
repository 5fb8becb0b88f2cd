// The jobspec parser, below the signature: what any signer, trusted by mistake, can make a node read. Also the envelope
// itself, which anyone can send. Properties: no crash, no unbounded work, and the accepted spec is within its bounds.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "crypto/dsse.hpp"
#include "job/parse.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cellrund;
  const base::BytesView bytes(data, size);
  const auto envelope = crypto::dsse::parse(bytes, {});
  if (envelope.ok() && (envelope->payload.size() > 256UL * 1024 || envelope->signatures.size() > 8)) {
    std::abort();
  }
  const auto spec = job::parse_spec(base::as_text(bytes));
  if (!spec.ok()) {
    if (spec.error().message.empty() || spec.error().message.find('\n') != std::string::npos) {
      std::abort();
    }
    return 0;
  }
  if (spec->active_deadline.count() < 1 || spec->limits.cpu_millis == 0 || spec->limits.memory_bytes == 0 || spec->limits.pids == 0 ||
      spec->metadata.uid.size() != 36 || (spec->lane.has_value() && model::tier_of(*spec->lane) < spec->min_tier)) {
    std::abort();
  }
  return 0;
}
