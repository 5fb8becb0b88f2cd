#include "netpolicy/networked_cell.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cstring>

#include "base/hex.hpp"
#include "crypto/digest.hpp"
#include "netpolicy/account.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/firewall.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/policy.hpp"
#include "netpolicy/rtnl.hpp"

namespace cellrund::netpolicy {
namespace {

using base::Error;

base::Result<std::string> program_tag(const std::string& pin) {
  const base::UniqueFd fd = CR_TRY(open_pin(pin));
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  if (::bpf_obj_get_info_by_fd(fd.get(), &info, &size) != 0) {
    return Error::from_errno("read " + pin);
  }
  return base::to_hex({&info.tag[0], sizeof info.tag});
}

// Of the frozen constants as the kernel holds them. The mark is left out: it is a secret, and too short for a digest to
// hide it.
base::Result<std::string> config_digest(const std::string& pin) {
  const base::UniqueFd fd = CR_TRY(open_pin(pin));
  cr_config config{};
  const std::uint32_t zero = 0;
  if (::bpf_map_lookup_elem(fd.get(), &zero, &config) != 0) {
    return Error::from_errno("read " + pin);
  }
  config.allow_mark = 0;
  return crypto::digest_text(base::BytesView(reinterpret_cast<const std::uint8_t*>(&config), sizeof config));
}

base::Status add_account(const std::string& pins, model::EgressFacts& facts) {
  const base::UniqueFd counters = CR_TRY(open_pin(pins + "/" + kPinCounters));
  const base::UniqueFd decisions = CR_TRY(open_pin(pins + "/" + kPinDecisions));
  fill_account(CR_TRY(read_account(counters.get(), decisions.get())), facts);
  return base::ok();
}

}  // namespace

base::Result<model::EgressFacts> read_facts(const model::CellName& name, const std::string& run_dir) {
  const std::string pins = pin_dir(run_dir, name);
  const Attachment attachment = CR_TRY(attachment_of_pins(pins));
  model::EgressFacts facts;
  facts.policy_digest = policy_digest();
  facts.program_tag =
      CR_TRY(program_tag(pins + "/" + kPinProgramOut)) + "+" + CR_TRY(program_tag(pins + "/" + kPinProgramIn));
  facts.map_digest = CR_TRY(config_digest(pins + "/" + kPinConfig));
  facts.program_ids = {attachment.program_out, attachment.program_in};
  if (attachment.mode == Attach::kTcx) {
    facts.link_ids = {attachment.link_out, attachment.link_in};
  }
  facts.attach_ifindex = attachment.ifindex;
  facts.attach_hook = hook_name(attachment.mode);
  CR_CHECK(add_account(pins, facts));
  return facts;
}

base::Result<model::EgressFacts> NetworkedCell::read_facts() const {
  model::EgressFacts facts = facts_;
  CR_CHECK(add_account(pin_dir(run_dir_, name_), facts).context("read filter account of " + name_.marker()));
  return facts;
}

base::Status NetworkedCell::verify_attached() const {
  const std::string pins = pin_dir(run_dir_, name_);
  Attachment expected;
  expected.mode = facts_.link_ids.empty() ? Attach::kClsact : Attach::kTcx;
  expected.ifindex = facts_.attach_ifindex;
  expected.program_out = facts_.program_ids.at(0);
  expected.program_in = facts_.program_ids.at(1);
  if (expected.mode == Attach::kTcx) {
    expected.link_out = facts_.link_ids.at(0);
    expected.link_in = facts_.link_ids.at(1);
  }
  const base::UniqueFd router = CR_TRY(open_netns(router_netns(run_dir_, name_.node)));
  return in_netns(router.get(),
                  [&]() -> base::Status {
                    Rtnl rtnl = CR_TRY(Rtnl::open());
                    const std::uint32_t ifindex = CR_TRY(rtnl.link_index(name_.host_link()));
                    if (ifindex != expected.ifindex) {
                      return Error(base::Errc::kFailedPrecondition, name_.host_link() + " is another link now");
                    }
                    CR_CHECK(expect_firewall(firewall_));
                    return read_back(expected, pins, rtnl);
                  })
      .context("verify filter of " + name_.marker());
}

}  // namespace cellrund::netpolicy
