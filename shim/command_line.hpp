// The command line that containerd gives a runtime-v2 shim: Go-style single-dash flags, the action last
// (containerd runtime/v2/README.md, "Commands").
#pragma once

#include <span>
#include <string>

#include "base/result.hpp"

namespace cellrund::shim {

enum class Action { kStart, kDelete, kServe, kProbe, kVersion, kInfo };

struct CommandLine {
  Action action = Action::kStart;
  std::string containerd_namespace;
  std::string id;
  std::string address;         // containerd's gRPC socket
  std::string publish_binary;  // containerd itself
  std::string bundle;          // delete only
  std::string config;          // our own flag: the shim's TOML file
  bool debug = false;
};

// kInvalidArgument names the flag that is wrong. Ids and namespaces become file names: what containerd itself refuses
// (containerd identifiers/validate.go) is refused here too.
base::Result<CommandLine> parse_command_line(std::span<char* const> args);

}  // namespace cellrund::shim
