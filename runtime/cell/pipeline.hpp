// The story of one job, from acceptance to its sealed record. run_cell() is one straight line on one thread; each forward
// step takes what the step before made, and the way back always runs, from the journal.
#pragma once

#include <memory>
#include <optional>

#include "admit/capacity.hpp"
#include "cell/job_table.hpp"
#include "cell/services.hpp"
#include "image/input_store.hpp"
#include "model/evidence.hpp"
#include "model/stages.hpp"

namespace cellrund::cell {

// What the job finds at /task and /workspace; nullopt when its spec names neither.
[[nodiscard]] std::optional<image::InputsPlan> inputs_of(const model::JobSpec& spec);

struct JobTicket {
  model::AdmittedJob job;
  admit::Place place;
  std::shared_ptr<CancelFlag> cancel;
  model::Evidence evidence;  // what submission knew: node, request, spec, first timeline entry
  base::Deadline start_by;   // startDeadlineSeconds, counted from acceptance
  std::optional<image::InputStore::Pin> inputs;  // of a job that names any: they stay until it is closed
};

// Returns when the job is closed. Never throws; every failure ends in the record.
void run_cell(Services& services, JobTicket ticket);

}  // namespace cellrund::cell
