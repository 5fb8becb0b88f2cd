// The one table of jobspec fields: the parser takes its known and required names from it, the schema is made from it.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace cellrund::job {

enum class FieldKind { kValue, kObject, kObjects };  // kObjects: an array of objects

struct Field {
  std::string_view object;  // path of the object it stands in; "" is the document, "[]" after a name its elements
  std::string_view name;
  FieldKind kind = FieldKind::kValue;
  bool required = false;
  std::string_view schema;  // JSON Schema of a kValue; of kObjects what the array has besides its items, if anything
};

[[nodiscard]] std::span<const Field> fields() noexcept;

// The path of the object (or of the elements) that a field of kind kObject (kObjects) holds.
[[nodiscard]] std::string object_path(const Field& field);

}  // namespace cellrund::job
