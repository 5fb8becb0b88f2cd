#include "cell/kill_switch.hpp"

#include "base/file.hpp"

namespace cellrund::cell {

base::Result<KillSwitch> KillSwitch::open(const std::string& state_dir, const netpolicy::Router& router) {
  KillSwitch out(state_dir + "/kill-switch", router);
  // Engaged is what either of the two says: the kernel's alone may be left from a write that was cut short.
  const bool kept = base::exists(out.file_);
  const bool held = CR_TRY(router.kill_switch());
  out.engaged_.store(kept || held);
  if (kept != held) {
    CR_CHECK(out.set(true));
  }
  return out;
}

base::Status KillSwitch::set(bool engaged) {
  const std::lock_guard setting(setting_);
  if (engaged) {
    engaged_.store(true);
    CR_CHECK(router_.set_kill_switch(true).context("engage kill switch"));
    return base::write_file_atomic(file_, "engaged\n", 0600).context("engage kill switch");
  }
  CR_CHECK(base::remove_file(file_).context("release kill switch"));
  CR_CHECK(router_.set_kill_switch(false).context("release kill switch"));
  engaged_.store(false);
  return base::ok();
}

std::string KillSwitch::truth_of(const model::CellName& name) const {
  const auto cut = router_.kill_switch_cuts(name);
  if (cut.ok()) {
    return *cut ? "cut" : "open";
  }
  return cut.error().code() == base::Errc::kNotFound ? "none" : cut.error().message();
}

}  // namespace cellrund::cell
