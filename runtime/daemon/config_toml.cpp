// The one file that includes toml++; its exceptions end here.
#include <toml++/toml.h>

#include <type_traits>

#include "daemon/config_fields.hpp"

namespace cellrund::daemon {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kMaxListEntries = 64;

std::string place(const std::string& path, const toml::node& node) {
  return path + ":" + std::to_string(node.source().begin.line);
}

// Takes one TOML node as the value of one field. The result is what is wrong, or empty.
template <typename Value, typename Rule>
std::string take(const toml::node& node, Value& out, const Rule& rule) {
  if constexpr (std::is_same_v<Value, std::string>) {
    const auto* text = node.as_string();
    if (text == nullptr) {
      return "must be a string";
    }
    std::string problem = check_text(text->get(), rule);
    if (problem.empty()) {
      out = text->get();
    }
    return problem;
  } else if constexpr (std::is_same_v<Value, std::int64_t>) {
    const auto* number = node.as_integer();
    if (number == nullptr) {
      return "must be an integer";
    }
    std::string problem = check_number(number->get(), rule);
    if (problem.empty()) {
      out = number->get();
    }
    return problem;
  } else {
    const auto* array = node.as_array();
    if (array == nullptr) {
      return "must be an array of strings";
    }
    if (array->size() > kMaxListEntries) {
      return "must have at most " + std::to_string(kMaxListEntries) + " entries";
    }
    std::vector<std::string> entries;
    for (const toml::node& entry : *array) {
      std::string text;
      if (std::string problem = take(entry, text, rule); !problem.empty()) {
        return "entry " + std::to_string(entries.size() + 1) + " " + problem;
      }
      entries.push_back(std::move(text));
    }
    out = std::move(entries);
    return {};
  }
}

struct NoRule {};

std::string take(const toml::node& node, bool& out, const NoRule& /*rule*/) {
  const auto* boolean = node.as_boolean();
  if (boolean == nullptr) {
    return "must be true or false";
  }
  out = boolean->get();
  return {};
}

struct Overlay {
  const std::string& path;
  const toml::table& document;
  Origins& origins;
  std::string problem;

  template <typename Value, typename... Rule>
  void operator()(const Field& field, Value& value, const Rule&... rule) {
    const toml::table* section = document[field.section].as_table();
    const toml::node* node = section == nullptr ? nullptr : section->get(field.key);
    if (node == nullptr || !problem.empty()) {
      return;
    }
    std::string wrong;
    if constexpr (sizeof...(Rule) == 0) {
      wrong = take(*node, value, NoRule{});
    } else {
      wrong = take(*node, value, rule...);
    }
    if (wrong.empty()) {
      origins.set(field, place(path, *node));
    } else {
      problem = place(path, *node) + ": " + std::string(field.section) + "." + std::string(field.key) + ": " + wrong;
    }
  }
};

struct Known {
  std::string_view section, key;
  bool has_section = false, has_key = false;

  template <typename... Rest>
  void operator()(const Field& field, const Rest&... /*value and rule*/) {
    has_section = has_section || field.section == section;
    has_key = has_key || (field.section == section && field.key == key);
  }
};

base::Status refuse_unknown_keys(const Config& config, const std::string& path, const toml::table& document) {
  for (const auto& [section, node] : document) {
    Known known{section.str(), {}};
    visit_fields(config, known);
    const toml::table* table = node.as_table();
    if (!known.has_section || table == nullptr) {
      return Error(Errc::kInvalidArgument, place(path, node) + ": " + std::string(section.str()) +
                                               (known.has_section ? ": must be a table" : ": unknown key"));
    }
    for (const auto& [key, value] : *table) {
      Known inner{section.str(), key.str()};
      visit_fields(config, inner);
      if (!inner.has_key) {
        return Error(Errc::kInvalidArgument, place(path, value) + ": " + std::string(section.str()) + "." +
                                                 std::string(key.str()) + ": unknown key");
      }
    }
  }
  return base::ok();
}

}  // namespace

base::Status read_toml(Config& config, Origins& origins, const std::string& path, const std::string& text) {
  try {
    const toml::table document = toml::parse(text, path);
    CR_CHECK(refuse_unknown_keys(config, path, document));
    Overlay overlay{path, document, origins, {}};
    visit_fields(config, overlay);
    if (!overlay.problem.empty()) {
      return Error(Errc::kInvalidArgument, std::move(overlay.problem));
    }
    return base::ok();
  } catch (const toml::parse_error& error) {
    return Error(Errc::kInvalidArgument, path + ":" + std::to_string(error.source().begin.line) + ": " +
                                             std::string(error.description()));
  } catch (const std::exception& error) {
    return Error(Errc::kInvalidArgument, path + ": " + error.what());
  }
}

}  // namespace cellrund::daemon
