// The commands by group; one .cpp each.
#pragma once

#include <functional>

#include "command.hpp"
#include "model/job_spec.hpp"

namespace cellrund::cli {

// keys.cpp
Outcome keygen(Context& context);
Outcome sign(Context& context);
Outcome lint(Context& context);
Outcome schema(Context& context);
// A jobspec in full, or the failure that names its first fault.
base::Result<model::JobSpec, Failed> checked_spec(const std::string& text);
// submit.cpp. exit_code_of(): what `submit` and `wait` leave with for a closed job.
[[nodiscard]] int exit_code_of(const api::Job& job);
Outcome submit(Context& context);
// jobs.cpp
Outcome ps(Context& context);
Outcome inspect(Context& context);
Outcome wait_job(Context& context);
Outcome logs(Context& context);
Outcome events(Context& context);
Outcome cancel(Context& context);
// The daemon, and the job that the first argument names.
struct Connected {
  api::Client client;
  std::string uid;
};
base::Result<Connected, Failed> connect_to_job(const Context& context);
// Streams until End, and turns both ways to fail into one.
base::Result<bool, Failed> stream(api::Client& client, const api::Request& request,
                                  const std::function<bool(api::Response)>& on_item);
// flows.cpp
Outcome flows(Context& context);
// outputs.cpp
Outcome outputs_list(Context& context);
Outcome outputs_get(Context& context);
// egress.cpp
Outcome egress_explain(Context& context);
// evidence.cpp
Outcome evidence_show(Context& context);
Outcome evidence_verify(Context& context);
Outcome evidence_export(Context& context);
// trust.cpp
Outcome trust_add(Context& context);
Outcome trust_list(Context& context);
Outcome trust_remove(Context& context);
// node.cpp
Outcome capacity(Context& context);
Outcome drain(Context& context);
Outcome undrain(Context& context);
Outcome kill_switch(Context& context);
Outcome image(Context& context);
Outcome residue_scan(Context& context);
// doctor.cpp
Outcome doctor(Context& context);
// configuration.cpp
Outcome config_default(Context& context);
Outcome config_dump(Context& context);
Outcome config_validate(Context& context);
Outcome config_sources(Context& context);
// help.cpp
Outcome version(Context& context);
Outcome completion(Context& context);
Outcome help(Context& context);
[[nodiscard]] std::string overview();
[[nodiscard]] std::string help_of(const Command& command);

}  // namespace cellrund::cli
