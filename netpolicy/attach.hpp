// Attaching a loaded filter to the host side of a cell's veth pair, and reading back that it is there: exactly our
// program at each hook and no other. All functions run in the router namespace (on a throw-away thread).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "netpolicy/filter.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {

// How the filter is attached: tcx links (kernel 6.6 and later), or filters on a clsact qdisc. kAuto takes tcx where the
// kernel has it; what was taken stands in the evidence. tcx survives the removal of qdiscs and is held by pinned links;
// clsact attaches and goes without waiting for RCU grace periods, which counts on machines whose CPUs are all taken.
enum class Attach { kAuto, kTcx, kClsact };
[[nodiscard]] std::string_view to_string(Attach attach) noexcept;
base::Result<Attach> parse_attach(std::string_view text);

// What is attached where, by kernel identity.
struct Attachment {
  Attach mode = Attach::kTcx;  // kTcx or kClsact
  std::uint32_t ifindex = 0;
  std::uint32_t program_out = 0;  // ids
  std::uint32_t program_in = 0;
  std::uint32_t link_out = 0;  // ids; 0 with clsact
  std::uint32_t link_in = 0;
};

// tcx links that hold both hooks of an interface; unpinned, so closing them gives the hooks up.
struct HeldHooks {
  base::UniqueFd out;
  base::UniqueFd in;
};

// Proof that the filter sits on the interface and is armed. Only attach_filter() makes one, and setting a link up takes
// one, so no cell's link is ever up without its filter.
class AttachedFilter {
 public:
  [[nodiscard]] const Attachment& attachment() const noexcept { return attachment_; }

 private:
  friend base::Result<AttachedFilter> attach_filter(const LoadedFilter&, Attach, std::uint32_t, const HeldHooks&,
                                                    const std::string&, Rtnl&);
  explicit AttachedFilter(const Attachment& attachment) : attachment_(attachment) {}
  Attachment attachment_;
};

// Whether this kernel has tcx links (6.6 and later), tried on the loopback interface.
[[nodiscard]] bool kernel_has_tcx();

// A program that drops every packet, for hooks that no filter holds yet.
base::Result<base::UniqueFd> load_drop_all();
base::Result<HeldHooks> hold_hooks(int drop_all_fd, std::uint32_t ifindex);

// Puts the filter in the place of what holds the hooks (tcx) or on a new clsact qdisc, pins the objects and the links
// under `pin_dir`, arms, and reads everything back.
base::Result<AttachedFilter> attach_filter(const LoadedFilter& filter, Attach mode, std::uint32_t ifindex,
                                           const HeldHooks& hooks, const std::string& pin_dir, Rtnl& rtnl);

// kFailedPrecondition names the first difference between the kernel and `expected`.
base::Status read_back(const Attachment& expected, const std::string& pin_dir, Rtnl& rtnl);

// From the pins alone: what they say is attached. ifindex is 0 when the interface is gone, and with clsact.
base::Result<Attachment> attachment_of_pins(const std::string& pin_dir);

// "tcx/ingress+egress" or "clsact/ingress+egress".
[[nodiscard]] std::string hook_name(Attach mode);

}  // namespace cellrund::netpolicy
