// help, version, completion: all made from the table of commands.
#include <algorithm>

#include "groups.hpp"

namespace cellrund::cli {
namespace {

constexpr std::string_view kExitCodes = R"(Exit codes of submit and wait:
  the job's own   it ended by itself, and its teardown was verified CLEAN
  122             cancelled: CancelledByUser, KilledByOperator, NodeShutdown (reserved: KillSwitch)
  123             the teardown is not CLEAN; wins over every code of the job, 0 included
  124             DeadlineExceeded
  125             cellrun itself failed: the cell did not start, crashed, or was lost
  126, 127        the command cannot be invoked, or was not found in the cell
  128+n           the job died of signal n (reserved: 137 for memory, pids, disk, log and egress limits)
  64              usage
  65              SchemaInvalid, UnsupportedField, ImageNotPinned
  69              cellrund cannot be reached
  75              NoCapacity, NodeDraining: try again (reserved: NodeQuarantined)
  77              every other refusal
  130             interrupted; the job goes on

evidence verify, doctor and residue scan: 0 clean, 3 found something, 4 could not tell.
config validate: 0 valid, 1 not.
)";

std::string padded(std::string_view text, std::size_t width) {
  return std::string(text) + std::string(text.size() < width ? width - text.size() : 1, ' ');
}

std::string flag_lines(const std::vector<Flag>& flags) {
  std::string out;
  for (const Flag& flag : flags) {
    std::string left = flag.letter != 0 ? std::string("-") + flag.letter + ", " : "    ";
    const std::string value(flag.value_name);
    left += "--" + std::string(flag.name) + (value.empty() ? "" : flag.optional_value ? "[=" + value + "]" : " " + value);
    out += "  " + padded(left, 30) + std::string(flag.help) + (flag.repeatable ? " (may be repeated)" : "") + "\n";
  }
  return out;
}

std::vector<std::string> flag_words(const Command& command) {
  std::vector<std::string> words;
  for (const std::vector<Flag>* flags : {&command.flags, &global_flags()}) {
    for (const Flag& flag : *flags) {
      words.push_back("--" + std::string(flag.name));
    }
  }
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) {
    out += (out.empty() ? "" : " ") + word;
  }
  return out;
}

// First words, without duplicates; and the second words of one.
std::vector<std::string> first_words() {
  std::vector<std::string> words;
  for (const Command& command : commands()) {
    const std::string first(command.name.substr(0, command.name.find(' ')));
    if (std::find(words.begin(), words.end(), first) == words.end()) {
      words.push_back(first);
    }
  }
  return words;
}

std::vector<std::string> second_words(std::string_view first) {
  std::vector<std::string> words;
  for (const Command& command : commands()) {
    const std::size_t space = command.name.find(' ');
    if (space != std::string_view::npos && command.name.substr(0, space) == first) {
      words.emplace_back(command.name.substr(space + 1));
    }
  }
  return words;
}

std::string bash_completion() {
  std::string out = "# bash completion of cellrun: source it, or put it into /etc/bash_completion.d\n"
                    "_cellrun() {\n"
                    "  local word=${COMP_WORDS[COMP_CWORD]} list\n"
                    "  case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n";
  for (const Command& command : commands()) {
    const bool two = command.name.find(' ') != std::string_view::npos;
    out += "    '" + std::string(command.name) + (two ? "'" : " '*") + ") list='" + joined(flag_words(command)) + "' ;;\n";
  }
  out += "  esac\n"
         "  if [ \"$COMP_CWORD\" = 1 ]; then list='" + joined(first_words()) + "'; fi\n"
         "  if [ \"$COMP_CWORD\" = 2 ]; then\n"
         "    case \"${COMP_WORDS[1]}\" in\n";
  for (const std::string& first : first_words()) {
    if (const std::vector<std::string> seconds = second_words(first); !seconds.empty()) {
      out += "      " + first + ") list='" + joined(seconds) + "' ;;\n";
    }
  }
  out += "    esac\n"
         "  fi\n"
         "  if [[ $COMP_CWORD -gt 1 && $word != -* && -z $(compgen -W \"$list\" -- \"$word\") ]]; then\n"
         "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "  else\n"
         "    COMPREPLY=($(compgen -W \"$list\" -- \"$word\"))\n"
         "  fi\n"
         "}\n"
         "complete -F _cellrun cellrun\n";
  return out;
}

std::string fish_completion() {
  std::string out = "# fish completion of cellrun: put it into ~/.config/fish/completions/cellrun.fish\n"
                    "complete -c cellrun -n __fish_use_subcommand -f -a '" + joined(first_words()) + "'\n";
  for (const std::string& first : first_words()) {
    if (const std::vector<std::string> seconds = second_words(first); !seconds.empty()) {
      out += "complete -c cellrun -n '__fish_seen_subcommand_from " + first + "; and not __fish_seen_subcommand_from " +
             joined(seconds) + "' -f -a '" + joined(seconds) + "'\n";
    }
  }
  for (const Command& command : commands()) {
    for (const std::vector<Flag>* flags : {&command.flags, &global_flags()}) {
      for (const Flag& flag : *flags) {
        std::string condition;
        std::string name(command.name);
        std::replace(name.begin(), name.end(), ' ', ';');
        for (std::size_t at = 0; at < name.size();) {
          const std::size_t end = std::min(name.find(';', at), name.size());
          condition += (condition.empty() ? "" : "; and ") + ("__fish_seen_subcommand_from " + name.substr(at, end - at));
          at = end + 1;
        }
        out += "complete -c cellrun -n '" + condition + "' -l " + std::string(flag.name) +
               (flag.letter != 0 ? std::string(" -s ") + flag.letter : "") + (flag.value_name.empty() || flag.optional_value ? "" : " -r") + "\n";
      }
    }
  }
  return out;
}

}  // namespace

std::string overview() {
  std::string out = "cellrun: signed jobs in disposable microVMs\n\nusage: cellrun COMMAND [ARGUMENTS] [FLAGS]\n\n";
  for (const Command& command : commands()) {
    out += "  " + padded(command.name, 18) + std::string(command.summary) + "\n";
  }
  return out + "\nFlags of every command:\n" + flag_lines(global_flags()) +
         "\ncellrun help COMMAND tells more; cellrun help exit-codes lists the exit codes.\n";
}

std::string help_of(const Command& command) {
  std::string out = "usage: cellrun " + std::string(command.name) + (command.synopsis.empty() ? "" : " ") +
                    std::string(command.synopsis) + "\n\n" + std::string(command.summary) + "\n\nFlags:\n";
  return out + flag_lines(command.flags) + flag_lines(global_flags());
}

Outcome help(Context& context) {
  const std::vector<std::string>& words = context.arguments().positional;
  if (words.empty()) {
    return print(overview()) ? 0 : kExitOurs;
  }
  const std::string name = joined(words);
  if (name == "exit-codes") {
    return print(kExitCodes) ? 0 : kExitOurs;
  }
  std::string out;
  for (const Command& command : commands()) {
    if (command.name == name || command.name.starts_with(name + " ")) {
      out += (out.empty() ? "" : "\n") + help_of(command);
    }
  }
  if (out.empty()) {
    std::vector<std::string_view> names = {"exit-codes"};
    for (const Command& command : commands()) {
      names.push_back(command.name);
    }
    const std::string near = nearest(name, names);
    return misuse("no help for " + printable(name), near.empty() ? "cellrun help" : "did you mean " + near + "?");
  }
  return print(out) ? 0 : kExitOurs;
}

Outcome version(Context& context) {
  // The daemon may be down or of another user: the client's version is an answer all the same.
  std::string daemon;
  if (base::Result<api::Client, Failed> client = context.connect()) {
    if (const base::Result<api::Pong, Failed> pong = ask<api::Pong>(*client, api::Ping{}, std::chrono::seconds(2))) {
      daemon = pong->version;
    }
  }
  if (context.style().json()) {
    return print(object_text(context.format(), {{"cellrun", CELLRUN_VERSION}, {"cellrund", daemon}})) ? 0 : kExitOurs;
  }
  return print("cellrun  " CELLRUN_VERSION "\ncellrund " + (daemon.empty() ? "not running" : printable(daemon)) + "\n") ? 0
                                                                                                                        : kExitOurs;
}

Outcome completion(Context& context) {
  const std::string& shell = context.arguments().positional[0];
  if (shell == "bash") {
    return print(bash_completion()) ? 0 : kExitOurs;
  }
  if (shell == "zsh") {
    return print("#compdef cellrun\nautoload -U +X bashcompinit && bashcompinit\n" + bash_completion()) ? 0 : kExitOurs;
  }
  if (shell == "fish") {
    return print(fish_completion()) ? 0 : kExitOurs;
  }
  return misuse("completion: shell " + printable(shell) + " is unknown", "bash, zsh or fish");
}

}  // namespace cellrund::cli
