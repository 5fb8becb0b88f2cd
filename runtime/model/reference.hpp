// The grammar of image names, in one place: what an import may record is what a jobspec may ask for.
#pragma once

#include <string_view>

namespace cellrund::model {

// "registry.example:5000/team/name": a repository without tag and digest, at most 255 characters
// (github.com/distribution/reference, regexp.go; registries by lower-case name or IPv4 address).
[[nodiscard]] bool is_repository(std::string_view text) noexcept;

}  // namespace cellrund::model
