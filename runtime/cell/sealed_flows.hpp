// The egress part of a sealed record as values again, for `cellrun flows` after the end of a job.
#pragma once

#include <string>

#include "base/result.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

// `envelope` is our own record, out of our own ledger: its signature is not checked here. Absent parts stay empty.
base::Result<model::EgressFacts> egress_of_record(const std::string& envelope);

}  // namespace cellrund::cell
