// From the words of a command line to an exit code.
#include <unistd.h>

#include <algorithm>

#include "command.hpp"
#include "groups.hpp"

namespace cellrund::cli {
namespace {

constexpr std::string_view kDefaultConfig = "/etc/cellrun/config.toml";

std::string variable(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& entry : environment) {
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=') {
      return entry.substr(name.size() + 1);
    }
  }
  return {};
}

// The command whose name is the first words; two words before one.
const Command* find_command(const std::vector<std::string>& words) {
  for (const std::size_t count : {std::size_t{2}, std::size_t{1}}) {
    if (words.size() < count) {
      continue;
    }
    const std::string name = count == 2 ? words[0] + " " + words[1] : words[0];
    for (const Command& command : commands()) {
      if (command.name == name) {
        return &command;
      }
    }
  }
  return nullptr;
}

Failed unknown_command(const std::vector<std::string>& words) {
  std::vector<std::string_view> firsts;
  std::vector<std::string_view> seconds;
  for (const Command& command : commands()) {
    const std::size_t space = command.name.find(' ');
    firsts.push_back(command.name.substr(0, space));
    if (space != std::string_view::npos && command.name.substr(0, space) == words[0]) {
      seconds.push_back(command.name.substr(space + 1));
    }
  }
  if (!seconds.empty()) {
    const std::string near = words.size() > 1 ? nearest(words[1], seconds) : "";
    std::string list;
    for (const std::string_view second : seconds) {
      list += (list.empty() ? "" : ", ") + std::string(second);
    }
    return misuse(words.size() > 1 ? "unknown command " + words[0] + " " + words[1] : words[0] + " needs a command",
                  near.empty() ? "one of: " + list : "did you mean " + words[0] + " " + near + "?");
  }
  const std::string near = nearest(words[0], firsts);
  return misuse("unknown command " + words[0],
                near.empty() ? "cellrun help lists the commands" : "did you mean " + near + "?");
}

base::Result<Format, Failed> format_of(const Arguments& arguments, const std::string& from_environment) {
  std::string text = arguments.value("output").value_or(from_environment);
  if (arguments.has("json")) {
    if (arguments.has("output") && text != "json") {
      return misuse("--json and -o " + text + " contradict each other", "give one of them");
    }
    text = "json";
  }
  if (text.empty() || text == "table") {
    return Format::kTable;
  }
  if (text == "wide") {
    return Format::kWide;
  }
  if (text == "json") {
    return Format::kJson;
  }
  if (text == "jsonl") {
    return Format::kJsonLines;
  }
  return misuse("output format " + printable(text) + " is unknown", "-o table, wide, json or jsonl");
}

// How many of the first words are global flags with their values, as in `cellrun --config FILE ps`.
std::size_t leading_flags(const std::vector<std::string>& words) {
  std::size_t count = 0;
  while (count < words.size()) {
    const Flag* known = nullptr;
    for (const Flag& flag : global_flags()) {
      const std::string name = "--" + std::string(flag.name);
      if (words[count] == name || words[count].starts_with(name + "=") ||
          (flag.letter != 0 && words[count] == std::string{'-', flag.letter})) {
        known = &flag;
      }
    }
    if (known == nullptr) {
      break;
    }
    const bool value_follows = !known->value_name.empty() && words[count].find('=') == std::string::npos;
    count += value_follows && count + 1 < words.size() ? 2 : 1;
  }
  return count;
}

int report(const Style& style, const Failed& failed) {
  remark(error_text(style, failed.failure));
  return failed.exit_code;
}

}  // namespace

int run_cli(const std::vector<std::string>& words, const std::vector<std::string>& environment) {
  const auto env = [&environment](std::string_view name) { return variable(environment, name); };
  Style style;
  style.colour_out = wants_colour(::isatty(STDOUT_FILENO) == 1, env("NO_COLOR"), env("FORCE_COLOR"), env("TERM"));
  style.colour_err = wants_colour(::isatty(STDERR_FILENO) == 1, env("NO_COLOR"), env("FORCE_COLOR"), env("TERM"));
  // For errors before the flags are known.
  for (std::size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    const bool is_output = (words[i] == "-o" || words[i] == "--output") && i + 1 < words.size();
    const std::string value = is_output ? words[i + 1] : words[i].starts_with("--output=") ? words[i].substr(9) : "";
    if (words[i] == "--json" || value == "json" || value == "jsonl") {
      style.format = Format::kJsonLines;
    }
  }
  if (words.empty()) {
    remark(overview());
    return kExitUsage;
  }
  if (words[0] == "--help" || words[0] == "-h") {
    return print(overview()) ? 0 : kExitOurs;
  }
  const auto leading = static_cast<std::ptrdiff_t>(leading_flags(words));
  std::vector<std::string> named(words.begin() + leading, words.end());
  if (named.empty()) {
    return report(style, misuse("a command is missing", "cellrun help lists the commands"));
  }
  if (named[0] == "--version") {
    named[0] = "version";
  }
  const Command* command = find_command(named);
  if (command == nullptr) {
    if (named[0].starts_with("-")) {
      return report(style, misuse("unknown flag " + printable(named[0]) + " before a command", "cellrun help"));
    }
    return report(style, unknown_command(named));
  }
  const auto name_words = std::count(command->name.begin(), command->name.end(), ' ') + 1;
  std::vector<Flag> flags = command->flags;
  flags.insert(flags.end(), global_flags().begin(), global_flags().end());
  std::vector<std::string> rest(words.begin(), words.begin() + leading);
  rest.insert(rest.end(), named.begin() + name_words, named.end());
  base::Result<Arguments, Misuse> parsed = parse_arguments(rest, flags);
  const std::string prefix = std::string(command->name) + ": ";
  if (!parsed) {
    return report(style, misuse(prefix + parsed.error().message, parsed.error().hint));
  }
  if (parsed->has("help")) {
    return print(help_of(*command)) ? 0 : kExitOurs;
  }
  base::Result<Format, Failed> format = format_of(*parsed, env("CELLRUN_OUTPUT"));
  if (!format) {
    return report(style, format.error());
  }
  style.format = *format;
  if (parsed->positional.size() < command->min_arguments || parsed->positional.size() > command->max_arguments) {
    const bool few = parsed->positional.size() < command->min_arguments;
    return report(style, misuse(prefix + (few ? "an argument is missing" : "too many arguments"),
                                "cellrun " + std::string(command->name) + " " + std::string(command->synopsis)));
  }
  const std::string from_environment = env("CELLRUN_CONFIG");
  const std::optional<std::string> from_flag = parsed->value("config");
  const std::string config_file = from_flag.value_or(from_environment.empty() ? std::string(kDefaultConfig) : from_environment);
  Context context(command->name, std::move(*parsed), style, config_file,
                  from_flag.has_value() || !from_environment.empty(), environment);
  const Outcome outcome = command->run(context);
  return outcome ? *outcome : report(style, outcome.error());
}

}  // namespace cellrund::cli
