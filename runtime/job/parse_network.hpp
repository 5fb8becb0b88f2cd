// Private to job/: spec.network.
#pragma once

#include "job/reader.hpp"

namespace cellrund::job {

// Fills spec.egress and spec.expect_blocked; spec.metadata must be read already.
base::Result<base::Unit, model::Refusal> parse_network(const ObjectReader& object, model::JobSpec& spec);

}  // namespace cellrund::job
