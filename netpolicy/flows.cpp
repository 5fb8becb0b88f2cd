// What a live cell has tried so far.
#include "netpolicy/account.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/router.hpp"
#include "netpolicy/router_state.hpp"
#include "netpolicy/samples.hpp"

namespace cellrund::netpolicy {

base::Result<model::EgressFacts> Router::flows(const model::CellName& name) const {
  const std::shared_ptr<Samples> samples = state_->warden->samples_of(name);
  if (samples == nullptr) {
    return base::Error(base::Errc::kNotFound, name.marker() + " has no filter that is watched");
  }
  model::EgressFacts facts;
  CR_CHECK(add_account(pin_dir(state_->options.run_dir, name), *samples, facts));
  auto records = state_->dns_records.lock();
  if (const auto found = records->find(name.uid); found != records->end()) {
    if (const auto record = found->second.lock(); record != nullptr) {
      facts.dns = record->facts();
    }
  }
  return facts;
}

}  // namespace cellrund::netpolicy
