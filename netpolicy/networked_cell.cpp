#include "netpolicy/networked_cell.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <cstring>

#include "base/hex.hpp"
#include "crypto/digest.hpp"
#include "netpolicy/account.hpp"
#include "netpolicy/attach.hpp"
#include "netpolicy/names.hpp"
#include "netpolicy/netns.hpp"
#include "netpolicy/policy_maps.hpp"
#include "netpolicy/resolver/name_service.hpp"
#include "netpolicy/rtnl.hpp"
#include "netpolicy/samples.hpp"

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

// Of everything frozen, as the kernel holds it: constants, deny and allow set. The mark is left out: it is a secret, and
// too short for a digest to hide it.
base::Result<std::string> frozen_digest(const std::string& pins) {
  const base::UniqueFd constants = CR_TRY(open_pin(map_pin(pins, MapRole::kConfig)));
  cr_config config{};
  const std::uint32_t zero = 0;
  if (::bpf_map_lookup_elem(constants.get(), &zero, &config) != 0) {
    return Error::from_errno("read " + map_pin(pins, MapRole::kConfig));
  }
  config.allow_mark = 0;
  const base::UniqueFd deny = CR_TRY(open_pin(map_pin(pins, MapRole::kDeny)));
  const base::UniqueFd allow = CR_TRY(open_pin(map_pin(pins, MapRole::kAllow)));
  const base::BytesView bytes(reinterpret_cast<const std::uint8_t*>(&config), sizeof config);
  const std::string text = "constants " + crypto::digest_text(bytes) + "\npolicy " +
                           CR_TRY(read_policy_digest(deny.get(), allow.get())) + "\n";
  return crypto::digest_text(base::as_bytes(text));
}

}  // namespace

base::Result<model::EgressFacts> read_facts(const model::CellName& name, const std::string& run_dir) {
  const std::string pins = pin_dir(run_dir, name);
  const Attachment attachment = CR_TRY(attachment_of_pins(pins));
  model::EgressFacts facts;
  facts.program_tag =
      CR_TRY(program_tag(pins + "/" + kPinProgramOut)) + "+" + CR_TRY(program_tag(pins + "/" + kPinProgramIn));
  facts.map_digest = CR_TRY(frozen_digest(pins));
  facts.program_ids = {attachment.program_out, attachment.program_in};
  if (attachment.mode == Attach::kTcx) {
    facts.link_ids = {attachment.link_out, attachment.link_in};
  }
  facts.attach_ifindex = attachment.ifindex;
  facts.attach_hook = hook_name(attachment.mode);
  Samples samples;
  CR_CHECK(add_account(pins, samples, facts));
  return facts;
}

NetworkedCell::NetworkedCell(std::string run_dir, model::CellName name, base::UniqueFd netns, std::string netns_path,
                             CellInterface interface, model::EgressFacts facts, Probes probes, Proof proof, Warden::Watch watch,
                             std::unique_ptr<resolver::NameService> names)
    : run_dir_(std::move(run_dir)),
      name_(std::move(name)),
      netns_(std::move(netns)),
      netns_path_(std::move(netns_path)),
      interface_(std::move(interface)),
      facts_(std::move(facts)),
      probes_(std::move(probes)),
      proof_(std::move(proof)),
      watch_(std::move(watch)),
      names_(std::move(names)) {}
NetworkedCell::NetworkedCell(NetworkedCell&&) noexcept = default;
NetworkedCell& NetworkedCell::operator=(NetworkedCell&&) noexcept = default;
NetworkedCell::~NetworkedCell() = default;

base::Result<model::EgressFacts> NetworkedCell::read_facts() const {
  model::EgressFacts facts = facts_;
  CR_CHECK(add_account(pin_dir(run_dir_, name_), watch_.samples(), facts).context("read filter account of " + name_.marker()));
  if (names_ != nullptr) {
    facts.dns = names_->record()->facts();
  }
  return facts;
}

base::Result<model::EgressFacts> NetworkedCell::final_facts() const {
  model::EgressFacts facts = CR_TRY(read_facts());
  if (facts.imbalance.empty()) {
    return facts;
  }
  const base::UniqueFd router = CR_TRY(open_netns(router_netns(run_dir_, name_.node)));
  CR_CHECK(in_netns(router.get(), [&]() -> base::Status {
    Rtnl rtnl = CR_TRY(Rtnl::open());
    return rtnl.set_down(CR_TRY(rtnl.link_index(name_.host_link())));
  }).context("take the link of " + name_.marker() + " down"));
  return read_facts();
}

base::Status NetworkedCell::verify_attached() const {
  const base::UniqueFd router = CR_TRY(open_netns(router_netns(run_dir_, name_.node)));
  return in_netns(router.get(), [&]() -> base::Status {
    Rtnl rtnl = CR_TRY(Rtnl::open());
    CR_CHECK(proof_.hold(rtnl));
    const std::string found = CR_TRY(frozen_digest(pin_dir(run_dir_, name_)));
    if (found != facts_.map_digest) {
      return Error(base::Errc::kFailedPrecondition, "the policy in the filter is not the one that was proven");
    }
    return base::ok();
  }).context("verify filter of " + name_.marker());
}

}  // namespace cellrund::netpolicy
