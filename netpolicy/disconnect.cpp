// The way back from a cell's network, from names alone.
#include <bpf/bpf.h>

#include "base/file.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/networked_cell.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

constexpr auto kLinkGoes = std::chrono::seconds(2);
constexpr std::size_t kMaxPins = 256;

// Deleting either end of a veth pair takes both, wherever the other one is.
base::Status remove_link(const std::string& name, const std::string& router_path) {
  auto router = open_netns(router_path);
  if (!router.ok()) {
    // Without its namespace (or its mount) there is no way to the link, and the cell's own namespace takes the pair
    // along.
    const bool gone = router.error().code() == Errc::kNotFound || router.error().code() == Errc::kFailedPrecondition;
    return gone ? base::ok() : base::Status(std::move(router).error());
  }
  return in_netns(router->get(), [&]() -> base::Status {
    Rtnl rtnl = CR_TRY(Rtnl::open());
    const auto index = rtnl.link_index(name);
    if (!index.ok()) {
      return index.error().code() == Errc::kNotFound ? base::ok() : base::Status(index.error().clone());
    }
    CR_CHECK(rtnl.delete_link(*index));
    if (!CR_TRY(rtnl.wait_link_gone(name, base::Deadline::after(kLinkGoes)))) {
      return Error(Errc::kDeadlineExceeded, "link " + name + " is still there after its deletion");
    }
    return base::ok();
  });
}

}  // namespace

base::Status kill_network(const model::CellName& name, const std::string& run_dir) {
  const auto control = open_pin(map_pin(pin_dir(run_dir, name), MapRole::kControl));
  if (!control.ok()) {
    return control.error().code() == Errc::kNotFound ? base::ok() : base::Status(control.error().clone());
  }
  return write_state(control->get(), CR_STATE_KILLED);
}

std::vector<std::string> disconnect(const model::CellName& name, const std::string& run_dir) {
  std::vector<std::string> failures;
  const auto note = [&](const base::Status& status) {
    if (!status.ok()) {
      failures.push_back("disconnect " + name.marker() + ": " + status.error().message());
    }
  };
  note(kill_network(name, run_dir));
  // The link before the pins: while the interface exists, its filter does.
  note(remove_link(name.host_link(), router_netns(run_dir, name.node)));
  note(remove_netns(cell_netns(run_dir, name)));

  const std::string pins = pin_dir(run_dir, name);
  if (base::exists(pins)) {
    const auto entries = base::list_dir(pins, kMaxPins);
    if (entries.ok()) {
      for (const std::string& entry : *entries) {
        note(base::remove_file(pins + "/" + entry));
      }
    } else {
      note(entries.error().clone());
    }
    note(base::remove_dir(pins));
  }
  return failures;
}

}  // namespace cellrund::netpolicy
