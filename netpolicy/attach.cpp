#include "netpolicy/attach.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/pkt_sched.h>

#include <array>
#include <cerrno>
#include <span>

#include "netpolicy/names.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Errc;
using base::Error;

// BPF_TCX_INGRESS, BPF_TCX_EGRESS of linux/bpf.h since 6.6; the headers and the libbpf of Debian 12 do not name them.
constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);
constexpr std::uint32_t kLoopback = 1;  // its index in every namespace

struct LinkState {
  std::uint32_t id = 0;
  std::uint32_t program = 0;
  std::uint32_t ifindex = 0;  // 0: the interface is gone
  std::uint32_t attach_type = 0;
};

base::Result<LinkState> link_state(int fd) {
  bpf_link_info info{};
  std::uint32_t size = sizeof info;
  if (::bpf_obj_get_info_by_fd(fd, &info, &size) != 0) {
    return Error::from_errno("read BPF link");
  }
  // info.tcx { ifindex, attach_type } lies where the older headers have netns { netns_ino, attach_type }.
  return LinkState{info.id, info.prog_id, info.netns.netns_ino, info.netns.attach_type};
}

// Program ids at a tcx hook in their order. A kernel without tcx has none.
base::Result<std::vector<std::uint32_t>> tcx_programs(std::uint32_t ifindex, bpf_attach_type hook) {
  std::array<std::uint32_t, 16> ids{};
  LIBBPF_OPTS(bpf_prog_query_opts, options, .prog_ids = ids.data(), .prog_cnt = ids.size());
  if (::bpf_prog_query_opts(static_cast<int>(ifindex), hook, &options) != 0) {
    if (errno == EINVAL) {
      return std::vector<std::uint32_t>{};
    }
    return Error::from_errno("query tcx programs of link " + std::to_string(ifindex));
  }
  return std::vector<std::uint32_t>(ids.begin(), ids.begin() + std::min<std::size_t>(options.prog_cnt, ids.size()));
}

Error differs(const std::string& what) {
  return {Errc::kFailedPrecondition, "egress filter: " + what};
}

base::Status expect_programs(std::span<const std::uint32_t> found, std::span<const std::uint32_t> expected,
                             const char* hook) {
  if (!std::equal(found.begin(), found.end(), expected.begin(), expected.end())) {
    std::string list;
    for (const std::uint32_t id : found) {
      list += (list.empty() ? "" : ", ") + std::to_string(id);
    }
    return differs(std::string(hook) + " holds programs [" + list + "] instead of ours alone");
  }
  return base::ok();
}

base::Result<base::UniqueFd> create_tcx_link(int program_fd, std::uint32_t ifindex, bpf_attach_type hook) {
  base::UniqueFd link(::bpf_link_create(program_fd, static_cast<int>(ifindex), hook, nullptr));
  if (!link) {
    return Error::from_errno("attach tcx program to link " + std::to_string(ifindex));
  }
  return link;
}

// Exchanges the program of a link, and pins the link: unpinned, it would go when its last descriptor closes.
base::Result<std::uint32_t> take_over(int link_fd, int program_fd, const std::string& pin) {
  if (::bpf_link_update(link_fd, program_fd, nullptr) != 0) {
    return Error::from_errno("exchange program of BPF link for " + pin);
  }
  if (::bpf_obj_pin(link_fd, pin.c_str()) != 0) {
    return Error::from_errno("pin " + pin);
  }
  return CR_TRY(link_state(link_fd)).id;
}

base::Status attach_clsact(const LoadedFilter& filter, std::uint32_t ifindex) {
  LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(ifindex),
              .attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS));
  if (const int err = ::bpf_tc_hook_create(&hook); err != 0) {
    return Error::from_errno("create clsact on link " + std::to_string(ifindex), -err);
  }
  const std::array<std::pair<bpf_tc_attach_point, int>, 2> sides{
      {{BPF_TC_INGRESS, filter.out().fd.get()}, {BPF_TC_EGRESS, filter.in().fd.get()}}};
  for (const auto& [point, fd] : sides) {
    hook.attach_point = point;
    // A fixed handle and priority: the kernel would stack a second filter beside one of another number.
    LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = fd, .handle = 1, .priority = 1);
    if (const int err = ::bpf_tc_attach(&hook, &options); err != 0) {
      return Error::from_errno("attach filter to clsact of link " + std::to_string(ifindex), -err);
    }
  }
  return base::ok();
}

base::Result<std::uint32_t> program_id(const std::string& pin) {
  const base::UniqueFd fd = CR_TRY(open_pin(pin));
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  if (::bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
    return Error::from_errno("read " + pin);
  }
  return info.id;
}

base::Status read_back_link(const std::string& pin, std::uint32_t id, std::uint32_t program, std::uint32_t ifindex,
                            bpf_attach_type hook) {
  const base::UniqueFd fd = CR_TRY(open_pin(pin));
  const LinkState state = CR_TRY(link_state(fd.get()));
  if (state.id != id || state.program != program || state.ifindex != ifindex ||
      state.attach_type != static_cast<std::uint32_t>(hook)) {
    return differs(pin + " is not the link that was made for this cell");
  }
  return base::ok();
}

}  // namespace

bool kernel_has_tcx() {
  LIBBPF_OPTS(bpf_prog_query_opts, options);
  return ::bpf_prog_query_opts(kLoopback, kTcxIngress, &options) == 0;
}

base::Result<base::UniqueFd> load_drop_all() {
  constexpr int kShot = 2;  // TC_ACT_SHOT
  const std::array<bpf_insn, 2> instructions{{
      {BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, kShot},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  }};
  base::UniqueFd program(::bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "cellrun_spare", "GPL", instructions.data(),
                                         instructions.size(), nullptr));
  if (!program) {
    return Error::from_errno("load drop-all program");
  }
  return program;
}

base::Result<HeldHooks> hold_hooks(int drop_all_fd, std::uint32_t ifindex) {
  HeldHooks hooks;
  hooks.out = CR_TRY(create_tcx_link(drop_all_fd, ifindex, kTcxIngress));
  hooks.in = CR_TRY(create_tcx_link(drop_all_fd, ifindex, kTcxEgress));
  return hooks;
}

base::Result<AttachedFilter> attach_filter(const LoadedFilter& filter, Attach mode, std::uint32_t ifindex,
                                           const HeldHooks& hooks, const std::string& pin_dir, Rtnl& rtnl) {
  Attachment attachment{mode, ifindex, filter.out().id, filter.in().id, 0, 0};
  CR_CHECK(filter.pin(pin_dir));
  if (mode == Attach::kTcx) {
    attachment.link_out = CR_TRY(take_over(hooks.out.get(), filter.out().fd.get(), pin_dir + "/" + kPinLinkOut));
    attachment.link_in = CR_TRY(take_over(hooks.in.get(), filter.in().fd.get(), pin_dir + "/" + kPinLinkIn));
  } else {
    CR_CHECK(attach_clsact(filter, ifindex));
  }
  CR_CHECK(filter.arm());
  CR_CHECK(read_back(attachment, pin_dir, rtnl));
  return AttachedFilter(attachment);
}

base::Status read_back(const Attachment& expected, const std::string& pin_dir, Rtnl& rtnl) {
  const std::array<std::uint32_t, 1> out{expected.program_out};
  const std::array<std::uint32_t, 1> in{expected.program_in};
  const auto tcx_out = CR_TRY(tcx_programs(expected.ifindex, kTcxIngress));
  const auto tcx_in = CR_TRY(tcx_programs(expected.ifindex, kTcxEgress));
  if (expected.mode == Attach::kTcx) {
    CR_CHECK(expect_programs(tcx_out, out, "tcx ingress"));
    CR_CHECK(expect_programs(tcx_in, in, "tcx egress"));
    CR_CHECK(read_back_link(pin_dir + "/" + kPinLinkOut, expected.link_out, expected.program_out, expected.ifindex,
                            kTcxIngress));
    CR_CHECK(read_back_link(pin_dir + "/" + kPinLinkIn, expected.link_in, expected.program_in, expected.ifindex,
                            kTcxEgress));
  } else {
    // A tcx program would run first and could let packets past clsact.
    CR_CHECK(expect_programs(tcx_out, {}, "tcx ingress"));
    CR_CHECK(expect_programs(tcx_in, {}, "tcx egress"));
    CR_CHECK(expect_programs(CR_TRY(rtnl.tc_filters(expected.ifindex, TC_H_MIN_INGRESS)), out, "clsact ingress"));
    CR_CHECK(expect_programs(CR_TRY(rtnl.tc_filters(expected.ifindex, TC_H_MIN_EGRESS)), in, "clsact egress"));
  }
  const base::UniqueFd control = CR_TRY(open_pin(map_pin(pin_dir, MapRole::kControl)));
  cr_control state{};
  const std::uint32_t zero = 0;
  if (::bpf_map_lookup_elem(control.get(), &zero, &state) != 0) {
    return Error::from_errno("read filter state");
  }
  if (state.state != CR_STATE_ENFORCE) {
    return differs("state is " + std::to_string(state.state) + " instead of enforcing");
  }
  return base::ok();
}

base::Result<Attachment> attachment_of_pins(const std::string& pin_dir) {
  Attachment attachment;
  attachment.program_out = CR_TRY(program_id(pin_dir + "/" + kPinProgramOut));
  attachment.program_in = CR_TRY(program_id(pin_dir + "/" + kPinProgramIn));
  const std::array<std::pair<const char*, std::uint32_t*>, 2> links{
      {{kPinLinkOut, &attachment.link_out}, {kPinLinkIn, &attachment.link_in}}};
  for (const auto& [name, id] : links) {
    auto fd = open_pin(pin_dir + "/" + name);
    if (!fd.ok()) {
      if (fd.error().code() != Errc::kNotFound) {
        return std::move(fd).error();
      }
      attachment.mode = Attach::kClsact;
      continue;
    }
    const LinkState state = CR_TRY(link_state(fd->get()));
    *id = state.id;
    attachment.ifindex = state.ifindex;
  }
  return attachment;
}

std::string hook_name(Attach mode) {
  return std::string(to_string(mode)) + "/ingress+egress";
}

}  // namespace cellrund::netpolicy
