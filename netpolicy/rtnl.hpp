// Rtnl: one rtnetlink socket and the few requests that a cell's network needs (rtnetlink(7), linux/rtnetlink.h). The
// socket belongs to the namespace in which it was opened, wherever it is used from. Every request is acknowledged by
// the kernel before it returns. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"
#include "base/result.hpp"
#include "netpolicy/address.hpp"

namespace cellrund::netpolicy {

struct VethSpec {
  std::string name;
  Mac mac{};
  std::string peer_name;
  Mac peer_mac{};
  int peer_netns_fd = -1;
  std::uint32_t mtu = kMtu;
};

struct LinkInfo {
  std::uint32_t index = 0;
  std::uint32_t peer = 0;  // ifindex of a veth's other end, in whichever namespace that is
  std::uint32_t mtu = 0;
  std::string name;
  std::string alias;  // free text that whoever made the link left on it
};

class Rtnl {
 public:
  // In the calling thread's namespace.
  static base::Result<Rtnl> open();

  // Both ends are down. kAlreadyExists when either name is taken.
  base::Status create_veth(const VethSpec& spec);
  // kNotFound when there is no such link.
  base::Result<std::uint32_t> link_index(const std::string& name);
  base::Result<LinkInfo> find_link(const std::string& name);
  base::Result<std::vector<LinkInfo>> list_links();
  base::Status set_alias(std::uint32_t ifindex, const std::string& alias);
  // The link must be down.
  base::Status rename(std::uint32_t ifindex, const std::string& name);
  base::Status set_up(std::uint32_t ifindex);
  base::Status set_down(std::uint32_t ifindex);
  // A link that is gone already is success.
  base::Status delete_link(std::uint32_t ifindex);
  base::Status add_address(std::uint32_t ifindex, std::uint32_t address, int prefix);
  // NUD_PERMANENT: never asked for, never expires.
  base::Status add_neighbour(std::uint32_t ifindex, std::uint32_t address, const Mac& mac);
  // The link must be up.
  base::Status add_default_route(std::uint32_t ifindex, std::uint32_t gateway);
  // Program ids of all tc filters at TC_H_CLSACT's `hook` (TC_H_MIN_INGRESS or TC_H_MIN_EGRESS); 0 for a filter of any
  // other kind than bpf.
  base::Result<std::vector<std::uint32_t>> tc_filters(std::uint32_t ifindex, std::uint32_t hook);
  // True once no link of that name exists, false at the deadline. Driven by the kernel's notifications.
  base::Result<bool> wait_link_gone(const std::string& name, base::Deadline deadline);

 private:
  explicit Rtnl(base::UniqueFd socket) : socket_(std::move(socket)) {}
  base::Result<std::vector<std::uint8_t>> transact(std::span<std::uint8_t> request, const std::string& what);

  base::UniqueFd socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace cellrund::netpolicy
