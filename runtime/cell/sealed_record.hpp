// Parts of a sealed record as values again, for what is asked of a job after its end.
#pragma once

#include <string>

#include "base/result.hpp"
#include "model/evidence.hpp"
#include "model/outcome.hpp"

namespace cellrund::cell {

// `envelope` is our own record, out of our own ledger: its signature is not checked here. Absent parts stay empty.
base::Result<model::EgressFacts> egress_of_record(const std::string& envelope);
base::Result<model::Outcome> refusal_of_record(const std::string& envelope);

}  // namespace cellrund::cell
