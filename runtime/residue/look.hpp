// One probe's look at one source of truth, before it becomes part of a report. Internal to residue.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "model/residue_report.hpp"

namespace cellrund::residue {

// Something of the cell that is there. `settles`: the kernel (or containerd) may still be removing it by itself, so it
// is looked for again before it counts.
struct Finding {
  model::ResidueItem item;
  bool settles = false;
};

// A source that could not be read.
struct Blindness {
  std::string cause;
  bool retry = false;  // worth another look (a peer that is restarting, a process that died under our hands)
};

class Look {
 public:
  Look(std::string probe, std::string method) : probe_(std::move(probe)), method_(std::move(method)) {}

  // Bounded: a host with more leftovers than this is dirty beyond doubt.
  void found(Finding finding);
  void blind(std::string cause, bool retry = false);
  void blind(const base::Error& error, bool retry = false) { blind(error.message(), retry); }

  // A limit of this look that does not make it blind; stands in the report beside the method.
  void note(const std::string& limit) { method_ += "; " + limit; }

  [[nodiscard]] const std::string& probe() const noexcept { return probe_; }
  [[nodiscard]] const std::vector<Finding>& findings() const noexcept { return findings_; }
  [[nodiscard]] const std::vector<Blindness>& blindness() const noexcept { return blindness_; }
  [[nodiscard]] bool clean() const noexcept { return findings_.empty() && blindness_.empty(); }
  // True when another look could change the answer.
  [[nodiscard]] bool unsettled() const noexcept;
  void report_to(model::ResidueReport& report) const;

 private:
  std::string probe_;
  std::string method_;
  std::vector<Finding> findings_;
  std::vector<Blindness> blindness_;
  std::size_t dropped_ = 0;
};

}  // namespace cellrund::residue
