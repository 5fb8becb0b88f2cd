// The JSON Schema (draft 2020-12) of a jobspec, for editors and generators: `cellrun schema`.
// Made from the same field table that the parser reads (job/fields.hpp), so the two cannot disagree on names.
#pragma once

#include <string>

namespace cellrund::job {

[[nodiscard]] std::string json_schema();  // indented, ends with a newline

}  // namespace cellrund::job
