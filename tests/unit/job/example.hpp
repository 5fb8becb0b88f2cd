// A jobspec that uses every supported field, and edits of it.
#pragma once

#include <string>
#include <string_view>

namespace cellrund::job::test {

[[nodiscard]] std::string example();
// The smallest valid one.
[[nodiscard]] std::string minimal();

// The document with the member at `path` ("spec.container.image") set to this JSON, or removed when `json_text` is "-".
// Parents that are missing are made.
[[nodiscard]] std::string edited(const std::string& document, std::string_view path, std::string_view json_text);

}  // namespace cellrund::job::test
