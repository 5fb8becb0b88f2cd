#include "job/parse_container.hpp"

#include <algorithm>
#include <utility>

#include "job/syntax.hpp"

namespace cellrund::job {
namespace {

constexpr std::size_t kMaxArguments = 1024;
constexpr std::size_t kMaxArgumentBytes = 32UL * 1024;
constexpr std::size_t kMaxEnv = 256;
constexpr std::int64_t kMaxId = 4294967294;  // 2^32-1 means "no change" to setresuid(2)

Read<model::SecurityContext> parse_security(const ObjectReader& object) {
  model::SecurityContext out;
  out.run_as_user = static_cast<std::uint32_t>(CR_TRY(object.integer("runAsUser", 0, kMaxId)).value_or(out.run_as_user));
  out.run_as_group = static_cast<std::uint32_t>(CR_TRY(object.integer("runAsGroup", 0, kMaxId)).value_or(out.run_as_group));
  out.no_new_privileges = CR_TRY(object.boolean("noNewPrivileges")).value_or(out.no_new_privileges);
  out.read_only_root_filesystem = CR_TRY(object.boolean("readOnlyRootFilesystem")).value_or(out.read_only_root_filesystem);
  auto names = CR_TRY(object.texts("capabilities", 64, 64));
  for (const std::string& name : names.value_or(std::vector<std::string>())) {
    const std::string where = object.at("capabilities") + "[" + std::to_string(out.capabilities.size()) + "]";
    if (!is_capability(name)) {
      return schema_invalid(where, "is no capability", "write names of capabilities(7), such as \"CAP_NET_BIND_SERVICE\"");
    }
    if (std::find(out.capabilities.begin(), out.capabilities.end(), name) != out.capabilities.end()) {
      return schema_invalid(where, "repeats an earlier entry");
    }
    out.capabilities.push_back(name);
  }
  return out;
}

Read<model::StringMap> parse_env(const ObjectReader& container) {
  model::StringMap out;
  for (const ObjectReader& entry : CR_TRY(container.objects("env", kMaxEnv))) {
    std::string name = CR_TRY(entry.required_text("name", 1024));
    if (!is_env_name(name)) {
      return schema_invalid(entry.at("name"), "is no environment variable name", "use letters, digits and '_', no digit first");
    }
    if (std::any_of(out.begin(), out.end(), [&](const auto& earlier) { return earlier.first == name; })) {
      return schema_invalid(entry.at("name"), "repeats an earlier entry");
    }
    out.emplace_back(std::move(name), CR_TRY(entry.required_text("value", kMaxArgumentBytes)));
  }
  return out;
}

}  // namespace

Read<model::Container> parse_container(const ObjectReader& object) {
  model::Container out;
  const std::string image = CR_TRY(object.required_text("image", 1024));
  out.image = CR_TRY(parse_image(image, object.at("image")));
  out.command = CR_TRY(object.texts("command", kMaxArguments, kMaxArgumentBytes));
  if (out.command.has_value() && (out.command->empty() || out.command->front().empty())) {
    return schema_invalid(object.at("command"), "names no program", "leave it out to run the image's own command");
  }
  out.args = CR_TRY(object.texts("args", kMaxArguments, kMaxArgumentBytes));
  out.env = CR_TRY(parse_env(object));
  out.working_dir = CR_TRY(object.text("workingDir", 4096)).value_or("");
  if (object.find("workingDir") != nullptr && !is_absolute_path(out.working_dir)) {
    return schema_invalid(object.at("workingDir"), "is no absolute path without empty, '.' or '..' parts");
  }
  if (const auto security = CR_TRY(object.object("securityContext")); security.has_value()) {
    out.security = CR_TRY(parse_security(*security));
  }
  return out;
}

}  // namespace cellrund::job
