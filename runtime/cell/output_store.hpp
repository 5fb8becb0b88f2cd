// The stored outputs of one job, below <state>/jobs/<uid>/ (0700, root; files 0600):
//   outputs        the bytes of all output files, one after the other; what a guest named is no name here
//   outputs.json   what was taken and what was refused (collect/answer.hpp)
//   manifest.json  the manifest whose digest the record has as a subject
//   result.json    how the job ended, once its record is sealed
//   ttl            how many seconds after its end all this and the logs stay, where it is not the default
// Written by the job's cell thread alone; read by any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "model/evidence.hpp"

namespace cellrund::cell {

[[nodiscard]] std::string job_folder(const std::string& state_dir, const std::string& uid);

// Makes the folder where it is missing, and an empty file for the outputs' bytes; read and write. Promises it room on the disk:
// kResourceExhausted when `max_bytes` would leave less than 256 MiB free.
base::Result<base::UniqueFd> create_outputs(const std::string& folder, std::uint64_t max_bytes);
// Durably: the data, then what it is. Fills in facts.manifest_digest. kDataLoss when the data is not as long as they say.
base::Status store_outputs(const std::string& folder, int data_fd, model::OutputFacts& facts);
// kNotFound when there are none, or none any more.
base::Result<model::OutputFacts> read_outputs(const std::string& folder);

// Where one output's bytes are.
struct OutputSource {
  base::UniqueFd data;
  std::uint64_t offset = 0;
  model::OutputFile file;
};
// kNotFound when the job has no output of this path.
base::Result<OutputSource> open_output(const std::string& folder, std::string_view path);

// How the job ended, for whoever comes later: result.json.
base::Status write_result(const std::string& folder, const model::Evidence& evidence, const std::string& evidence_digest);

base::Status write_ttl(const std::string& folder, std::chrono::seconds ttl);
// The default (a day) when none was written.
[[nodiscard]] std::chrono::seconds read_ttl(const std::string& folder);

// Removes the folder and what is in it; a missing one is success.
base::Status remove_job_folder(const std::string& folder);

}  // namespace cellrund::cell
