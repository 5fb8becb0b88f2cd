#include "job/schema.hpp"

#include <doctest/doctest.h>

#include <functional>

#include "base/json.hpp"
#include "example.hpp"
#include "job/fields.hpp"
#include "job/parse.hpp"

using namespace cellrund;
namespace json = base::json;

namespace {

json::Value schema() {
  auto value = json::parse(job::json_schema(), {});
  REQUIRE(value.ok());
  return std::move(*value);
}

}  // namespace

TEST_CASE("every field of the example is a property of the schema") {
  const json::Value root = schema();
  const auto example = json::parse(job::test::example(), {});
  REQUIRE(example.ok());
  std::size_t seen = 0;
  const std::function<void(const json::Value&, const json::Value&)> walk = [&](const json::Value& value, const json::Value& type) {
    if (const json::Array* list = value.as_array(); list != nullptr) {
      for (const json::Value& item : *list) {
        if (const json::Value* items = type.find("items"); items != nullptr) {
          walk(item, *items);
        }
      }
    }
    const json::Value* properties = type.find("properties");
    if (value.as_object() == nullptr || properties == nullptr) {
      return;
    }
    for (const auto& [key, member] : value.as_object()->members()) {
      CAPTURE(key);
      REQUIRE(properties->find(key) != nullptr);
      ++seen;
      walk(member, *properties->find(key));
    }
  };
  walk(*example, root);
  CHECK(seen > 50);
}

TEST_CASE("every object of the schema is closed") {
  const std::function<void(const json::Value&)> walk = [&](const json::Value& type) {
    if (const json::Value* properties = type.find("properties"); properties != nullptr) {
      REQUIRE(type.find("additionalProperties") != nullptr);
      for (const auto& [key, member] : properties->as_object()->members()) {
        walk(member);
      }
    }
    if (const json::Value* items = type.find("items"); items != nullptr) {
      walk(*items);
    }
  };
  walk(schema());
}

TEST_CASE("the parser knows every field of the table and demands the required ones") {
  for (const job::Field& field : job::fields()) {
    const std::string path = field.object.empty() ? std::string(field.name) : std::string(field.object) + "." + std::string(field.name);
    CAPTURE(path);
    if (path.find('[') != std::string::npos) {
      continue;  // array elements: covered by the table of refusals
    }
    if (field.required) {
      const auto without = job::parse_spec(job::test::edited(job::test::example(), path, "-"));
      REQUIRE_FALSE(without.ok());
      CHECK(without.error().message == path + " is missing");
    }
    const auto with = job::parse_spec(job::test::edited(job::test::example(), path, "{\"x\":[]}"));
    REQUIRE_FALSE(with.ok());  // a wrong type or an unknown member, but never an unknown field of this name
    CHECK(with.error().message.find("unknown field \"" + std::string(field.name) + "\"") == std::string::npos);
  }
}
