// A record for people: verdict first, then what ran where, what it tried, how long each state took, what was checked.
#pragma once

#include <string>

#include "evidence/verify.hpp"

namespace cellrund::evidence {

// Plain text with a trailing newline, no colours. Absent facts are left out; every string from the record is escaped.
[[nodiscard]] std::string summary(const Record& record);

}  // namespace cellrund::evidence
