#include "job/schema.hpp"

#include <string_view>
#include <utility>

#include "base/json.hpp"
#include "job/fields.hpp"

namespace cellrund::job {
namespace {

namespace json = base::json;

json::Object object_schema(std::string_view path);  // NOLINT(misc-no-recursion): as deep as the table

json::Value constant(std::string_view text) {
  auto value = json::parse(text, {});
  CR_ASSERT(value.ok() && value->as_object() != nullptr);  // the table is a constant of this program
  return std::move(*value);
}

json::Value field_schema(const Field& field) {
  switch (field.kind) {
    case FieldKind::kObject: return object_schema(object_path(field));
    case FieldKind::kObjects: {
      json::Object list = field.schema.empty() ? json::Object{{"type", "array"}} : *constant(field.schema).as_object();
      list.set("items", object_schema(object_path(field)));
      return list;
    }
    case FieldKind::kValue: break;
  }
  return constant(field.schema);
}

json::Object object_schema(std::string_view path) {
  json::Object properties;
  json::Array required;
  for (const Field& field : fields()) {
    if (field.object != path) {
      continue;
    }
    properties.set(std::string(field.name), field_schema(field));
    if (field.required) {
      required.emplace_back(field.name);
    }
  }
  json::Object schema{{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) {
    schema.set("required", std::move(required));
  }
  schema.set("additionalProperties", false);
  return schema;
}

}  // namespace

std::string json_schema() {
  json::Object root{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                    {"$id", "https://cellrun.dev/schema/jobspec-v1.json"},
                    {"title", "cellrun jobspec"}};
  const json::Object document = object_schema("");
  for (const auto& [key, value] : document.members()) {
    root.set(key, value);
  }
  return json::write_pretty(std::move(root));
}

}  // namespace cellrund::job
