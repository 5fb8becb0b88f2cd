#include "residue/look.hpp"

#include <algorithm>

#include "base/log.hpp"

namespace cellrund::residue {
namespace {

constexpr std::size_t kMaxFindings = 256;
constexpr std::size_t kMaxBlindness = 16;
constexpr std::size_t kNamedInSummary = 4;
constexpr std::size_t kMaxText = 256;

std::string describe(const model::ResidueItem& item) {
  std::string text(model::to_string(item.kind));
  text += " " + base::log::quoted(item.name, kMaxText);
  if (!item.identity.empty()) {
    text += " (" + base::log::quoted(item.identity, kMaxText) + ")";
  }
  return text;
}

}  // namespace

void Look::found(Finding finding) {
  if (findings_.size() >= kMaxFindings) {
    ++dropped_;
    return;
  }
  findings_.push_back(std::move(finding));
}

void Look::blind(std::string cause, bool retry) {
  if (blindness_.size() >= kMaxBlindness) {
    return;  // one cause is enough for UNKNOWN; the first ones are told
  }
  const bool known = std::any_of(blindness_.begin(), blindness_.end(), [&](const Blindness& b) { return b.cause == cause; });
  if (!known) {
    blindness_.push_back({std::move(cause), retry});
  }
}

bool Look::unsettled() const noexcept {
  return std::any_of(findings_.begin(), findings_.end(), [](const Finding& f) { return f.settles; }) ||
         std::any_of(blindness_.begin(), blindness_.end(), [](const Blindness& b) { return b.retry; });
}

void Look::report_to(model::ResidueReport& report) const {
  model::ResidueCheck check{probe_, method_, "absent", "absent", findings_.empty() && blindness_.empty()};
  if (!findings_.empty()) {
    check.found = std::to_string(findings_.size() + dropped_) + ": ";
    for (std::size_t i = 0; i < std::min(findings_.size(), kNamedInSummary); ++i) {
      check.found += (i == 0 ? "" : ", ") + describe(findings_[i].item);
    }
    if (findings_.size() + dropped_ > kNamedInSummary) {
      check.found += ", ...";
    }
  } else if (!blindness_.empty()) {
    check.found = "not known";
  }
  report.checks.push_back(std::move(check));
  for (const Finding& finding : findings_) {
    report.residue.push_back(finding.item);
  }
  for (const Blindness& blindness : blindness_) {
    report.unknown.push_back({probe_, blindness.cause});
  }
}

}  // namespace cellrund::residue
