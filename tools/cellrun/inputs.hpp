// --task and --workspace: a job's files on their way from the submitter to the node.
#pragma once

#include <optional>
#include <string>

#include "command.hpp"
#include "pack.hpp"

namespace cellrund::cli {

struct Inputs {
  std::optional<PackedFiles> task;
  std::optional<PackedFiles> workspace;
};

// What the two flags name, packed.
base::Result<Inputs, Failed> pack_inputs(const Context& context);

// The jobspec with the digests of `inputs` filled in where it has none. A digest that it has must be the same one: the
// failure tells both. A text that is no JSON object is returned as it is, for the parser to judge.
base::Result<std::string, Failed> with_inputs(const std::string& spec_text, const Inputs& inputs, std::string_view command);
// The same check for an envelope, which cannot be changed any more.
base::Result<base::Unit, Failed> check_signed(const std::string& envelope_text, const Inputs& inputs, std::string_view command);

// Hands to the node what it does not have yet.
base::Result<base::Unit, Failed> upload_inputs(api::Client& client, const Inputs& inputs);

}  // namespace cellrund::cli
