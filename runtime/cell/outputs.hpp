// One job's collector: the boxed process (collect/main.cpp) that reads what the cell hands over of /outputs, from a socket
// in the cell's folder. The lane connects the cell to it; neither the daemon nor the shim reads what goes through.
// Belongs to the job's cell thread, with which it dies.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/process.hpp"
#include "base/result.hpp"
#include "model/evidence.hpp"
#include "model/inventory.hpp"
#include "model/job_spec.hpp"
#include "model/journal.hpp"

namespace cellrund::cell {

[[nodiscard]] std::string outputs_socket(const std::string& cell_folder);
// The cell's end, for a lane whose cell is a process of this host.
base::Result<base::UniqueFd> connect_outputs(const std::string& cell_folder);

class OutputCollector {
 public:
  struct Options {
    std::string program;      // absolute path of cellrun-collect
    std::string cell_folder;  // exists
    std::string job_folder;   // where the outputs stay
    model::Volumes::Outputs budget;
  };
  // What start() will make, to be journalled before.
  [[nodiscard]] static model::Inventory intended(const std::string& cell_folder);
  static base::Result<OutputCollector> start(const Options& options, model::Journal& journal);

  OutputCollector(OutputCollector&&) noexcept = default;
  OutputCollector& operator=(OutputCollector&&) = delete;
  OutputCollector(const OutputCollector&) = delete;
  OutputCollector& operator=(const OutputCollector&) = delete;
  // Kills it if it still runs.
  ~OutputCollector();

  // Once, when the cell is over: what has come is stored durably, and the process has ended. Takes moments, at most
  // 15 s, and then as long as the disk takes to sync them; an error: nothing is stored.
  base::Result<model::OutputFacts> finish();

 private:
  OutputCollector(Options options, base::PidFd process, base::UniqueFd stop, base::UniqueFd answer, base::UniqueFd data)
      : options_(std::move(options)), process_(std::move(process)), stop_(std::move(stop)), answer_(std::move(answer)),
        data_(std::move(data)) {}

  Options options_;
  base::PidFd process_;
  base::UniqueFd stop_;    // closing it tells the collector that the cell is over
  base::UniqueFd answer_;
  base::UniqueFd data_;
};

}  // namespace cellrund::cell
