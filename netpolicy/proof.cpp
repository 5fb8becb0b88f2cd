#include "netpolicy/proof.hpp"

#include "netpolicy/firewall.hpp"
#include "netpolicy/names.hpp"

namespace cellrund::netpolicy {

base::Status Proof::hold(Rtnl& rtnl) const {
  if (CR_TRY(rtnl.link_index(name.host_link())) != attachment.ifindex) {
    return base::Error(base::Errc::kFailedPrecondition, name.host_link() + " is another link now");
  }
  CR_CHECK(expect_firewall(firewall));
  return read_back(attachment, pin_dir(run_dir, name), rtnl);
}

}  // namespace cellrund::netpolicy
