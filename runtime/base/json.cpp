#include "base/json.hpp"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

namespace cellrund::base::json {
namespace {

using nlohmann::json;

// Builds our Value from nlohmann's events and refuses what JSON leaves open (RFC 8259 sections 4 and 6).
class Builder final : public nlohmann::json_sax<json> {
 public:
  explicit Builder(const Limits& limits) : limits_(limits) {}

  bool null() override { return add(Value()); }
  bool boolean(bool b) override { return add(Value(b)); }
  bool number_integer(std::int64_t n) override { return add(Value(n)); }
  bool number_unsigned(std::uint64_t n) override {
    if (n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return refuse("a number outside the range of a signed 64-bit integer");
    }
    return add(Value(static_cast<std::int64_t>(n)));
  }
  bool number_float(double /*value*/, const std::string& /*text*/) override {
    return refuse("a number that is no integer in range");
  }
  bool string(std::string& s) override {
    if (s.find('\0') != std::string::npos) {
      return refuse("a NUL inside a string");
    }
    return add(Value(std::move(s)));
  }
  bool binary(json::binary_t& /*value*/) override { return refuse("binary data"); }
  bool start_object(std::size_t /*size*/) override { return open(Value(Object())); }
  bool start_array(std::size_t /*size*/) override { return open(Value(Array())); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& k) override {
    if (k.find('\0') != std::string::npos) {
      return refuse("a NUL inside a key");
    }
    if (stack_.back().value.as_object()->size() >= limits_.max_members) {
      return refuse("an object with more than " + std::to_string(limits_.max_members) + " members");
    }
    if (stack_.back().value.find(k) != nullptr) {
      return refuse("a duplicate key");
    }
    stack_.back().key = std::move(k);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/, const json::exception& /*e*/) override {
    if (problem_.empty()) {
      problem_ = "not well-formed JSON near byte " + std::to_string(position);
    }
    return false;
  }

  [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
  [[nodiscard]] Value take() { return std::move(root_); }

 private:
  struct Frame {
    Value value;
    std::string key;
  };

  bool refuse(std::string_view what) {
    problem_ = what;
    return false;
  }
  bool open(Value container) {
    if (stack_.size() >= limits_.max_depth) {
      return refuse("nesting deeper than " + std::to_string(limits_.max_depth));
    }
    stack_.push_back({std::move(container), {}});
    return true;
  }
  bool close() {
    Value done = std::move(stack_.back().value);
    stack_.pop_back();
    return add(std::move(done));
  }
  bool add(Value value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Frame& top = stack_.back();
    if (Array* array = top.value.as_array(); array != nullptr) {
      array->push_back(std::move(value));
    } else {
      top.value.as_object()->set(std::move(top.key), std::move(value));
    }
    return true;
  }

  const Limits& limits_;
  std::vector<Frame> stack_;
  Value root_;
  std::string problem_;
};

void write_string(const std::string& s, std::string& out) {
  // replace: our own strings are UTF-8; one that came from /proc and is not must not throw.
  out += json(s).dump(-1, ' ', false, json::error_handler_t::replace);
}

void write_value(const Value& value, int indent, int depth, std::string& out) {
  const auto newline = [&](int level) {
    if (indent > 0) {
      out += '\n';
      out.append(static_cast<std::size_t>(indent * level), ' ');
    }
  };
  if (value.is_null()) {
    out += "null";
  } else if (const bool* b = value.as_bool()) {
    out += *b ? "true" : "false";
  } else if (const std::int64_t* n = value.as_int()) {
    out += std::to_string(*n);
  } else if (const std::string* s = value.as_string()) {
    write_string(*s, out);
  } else if (const Array* array = value.as_array()) {
    out += '[';
    bool first = true;
    for (const Value& item : *array) {
      out += first ? "" : ",";
      first = false;
      newline(depth + 1);
      write_value(item, indent, depth + 1, out);
    }
    if (!array->empty()) {
      newline(depth);
    }
    out += ']';
  } else if (const Object* object = value.as_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : object->members()) {
      out += first ? "" : ",";
      first = false;
      newline(depth + 1);
      write_string(key, out);
      out += indent > 0 ? ": " : ":";
      write_value(item, indent, depth + 1, out);
    }
    if (!object->empty()) {
      newline(depth);
    }
    out += '}';
  }
}

}  // namespace

Object::Object(std::initializer_list<Member> members) {
  for (const Member& m : members) {
    set(m.first, m.second);
  }
}

const Value* Object::find(std::string_view key) const noexcept {
  for (const auto& [name, value] : members_) {
    if (name == key) {
      return &value;
    }
  }
  return nullptr;
}

void Object::set(std::string key, Value value) {
  for (auto& [name, old] : members_) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  members_.emplace_back(std::move(key), std::move(value));
}

const Value* Value::find(std::string_view key) const noexcept {
  const Object* object = as_object();
  return object == nullptr ? nullptr : object->find(key);
}

Result<Value> parse(std::string_view text, const Limits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error(Errc::kResourceExhausted, "longer than " + std::to_string(limits.max_bytes) + " bytes");
  }
  // nlohmann's lexer would skip a byte order mark; the contract refuses it.
  if (text.starts_with("\xEF\xBB\xBF")) {
    return Error(Errc::kInvalidArgument, "a byte order mark");
  }
  // nlohmann's lexer takes a NUL for the end of the input and never looks behind it.
  if (text.find('\0') != std::string_view::npos) {
    return Error(Errc::kInvalidArgument, "a NUL byte");
  }
  Builder builder(limits);
  bool parsed = false;
  try {
    parsed = json::sax_parse(text.begin(), text.end(), &builder, json::input_format_t::json, true, false);
  } catch (const std::exception&) {  // bad_alloc, or a lexer bug: either way nothing was accepted
    return Error(Errc::kInvalidArgument, "cannot be parsed");
  }
  if (!parsed) {
    return Error(Errc::kInvalidArgument, builder.problem());
  }
  return builder.take();
}

std::string write(const Value& value) {
  std::string out;
  write_value(value, 0, 0, out);
  return out;
}

std::string write_pretty(const Value& value) {
  std::string out;
  write_value(value, 2, 0, out);
  out += '\n';
  return out;
}

}  // namespace cellrund::base::json
