// cellrun-resolver: answers the DNS queries of one cell. Runs in a box (host/box.hpp) whose network is the router's
// namespace; it confines itself further before it reads a packet. Started by cellrund alone, not for use by hand.
#include <cstdint>

#include "base/file.hpp"
#include "host/confine.hpp"
#include "netpolicy/resolver/channel.hpp"
#include "netpolicy/resolver/server.hpp"

namespace {

using namespace cellrund;

constexpr std::uint64_t kAddressSpace = 256ULL << 20U;
constexpr std::uint64_t kOpenFiles = 64;  // the connections of the cell, one socket per lookup, and a few

base::Status run() {
  const std::string text = CR_TRY(base::read_fd(0, 256UL * 1024));
  netpolicy::resolver::Orders orders = CR_TRY(netpolicy::resolver::parse_orders(text));
  host::RootPlan nothing;
  nothing.tmpfs_bytes = 4096;
  nothing.tmpfs_inodes = 2;
  CR_CHECK(host::enter_private_root(nothing));
  CR_CHECK(host::keep_capabilities({}));
  CR_CHECK(host::set_limits(
      {.address_space_bytes = kAddressSpace, .cpu_seconds = 0, .open_files = kOpenFiles, .file_bytes = 1}));
  CR_CHECK(host::apply_seccomp(host::SeccompProfile::kResolver));
  return netpolicy::resolver::serve(std::move(orders));
}

}  // namespace

int main() {
  const auto status = run();
  if (!status.ok()) {
    (void)netpolicy::resolver::tell_daemon(netpolicy::resolver::encode(
        netpolicy::resolver::FromResolver{netpolicy::resolver::Failed{status.error().message()}}));
    return 1;
  }
  return 0;
}
