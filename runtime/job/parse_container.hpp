// Private to job/: `spec.container`.
#pragma once

#include "job/reader.hpp"
#include "model/job_spec.hpp"

namespace cellrund::job {

Read<model::Container> parse_container(const ObjectReader& object);

}  // namespace cellrund::job
