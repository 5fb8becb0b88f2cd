#include "shim/command_line.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace cellrund::shim {
namespace {

using base::Errc;
using base::Error;

constexpr std::size_t kMaxIdentifier = 76;

bool valid_identifier(std::string_view text) noexcept {
  const auto alnum = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !text.empty() && text.size() <= kMaxIdentifier && alnum(text.front()) && alnum(text.back()) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

std::optional<Action> action_of(std::string_view word) noexcept {
  constexpr std::array<std::pair<std::string_view, Action>, 4> kActions{{{"start", Action::kStart},
                                                                         {"delete", Action::kDelete},
                                                                         {"serve", Action::kServe},
                                                                         {"probe", Action::kProbe}}};
  for (const auto& [name, action] : kActions) {
    if (name == word) {
      return action;
    }
  }
  return std::nullopt;
}

}  // namespace

base::Result<CommandLine> parse_command_line(std::span<char* const> args) {
  CommandLine line;
  std::optional<Action> action;
  for (std::size_t i = 1; i < args.size(); ++i) {
    std::string_view word = args[i];
    if (!word.starts_with('-')) {
      if (action.has_value() || !(action = action_of(word)).has_value()) {
        return Error(Errc::kInvalidArgument, "command line: unexpected argument: " + std::string(word));
      }
      continue;
    }
    word.remove_prefix(word.starts_with("--") ? 2 : 1);
    std::optional<std::string> inline_value;
    if (const std::size_t equals = word.find('='); equals != std::string_view::npos) {
      inline_value = std::string(word.substr(equals + 1));
      word = word.substr(0, equals);
    }
    if (word == "debug") {
      line.debug = inline_value.value_or("true") == "true";
      continue;
    }
    if (word == "v" || word == "info") {
      action = word == "v" ? Action::kVersion : Action::kInfo;
      continue;
    }
    std::string* target = word == "namespace"        ? &line.containerd_namespace
                          : word == "id"             ? &line.id
                          : word == "address"        ? &line.address
                          : word == "publish-binary" ? &line.publish_binary
                          : word == "bundle"         ? &line.bundle
                          : word == "config"         ? &line.config
                                                     : nullptr;
    if (target == nullptr) {
      return Error(Errc::kInvalidArgument, "command line: unknown flag: -" + std::string(word));
    }
    if (!inline_value.has_value()) {
      if (i + 1 >= args.size()) {
        return Error(Errc::kInvalidArgument, "command line: flag without a value: -" + std::string(word));
      }
      inline_value = args[++i];
    }
    *target = *inline_value;
  }
  if (!action.has_value()) {
    return Error(Errc::kInvalidArgument, "command line: no action (start, delete, probe)");
  }
  line.action = *action;
  const bool per_task = line.action == Action::kStart || line.action == Action::kServe || line.action == Action::kDelete;
  if (per_task && !valid_identifier(line.id)) {
    return Error(Errc::kInvalidArgument, "command line: -id is missing or not a containerd identifier");
  }
  if (per_task && !valid_identifier(line.containerd_namespace)) {
    return Error(Errc::kInvalidArgument, "command line: -namespace is missing or not a containerd identifier");
  }
  return line;
}

}  // namespace cellrund::shim
