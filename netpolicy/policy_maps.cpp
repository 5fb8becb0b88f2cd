#include "netpolicy/policy_maps.hpp"

#include <bpf/bpf.h>

#include <cerrno>
#include <utility>
#include <vector>

namespace cellrund::netpolicy {
namespace {

using base::Error;

constexpr std::size_t kMostEntries = model::EgressPolicy::kMaxRules * model::EgressPolicy::kMaxPorts + 65536;

void put_address(std::uint32_t address, cr_u8 (&bytes)[4]) noexcept {
  for (unsigned i = 0; i < 4; ++i) {
    bytes[i] = static_cast<cr_u8>(address >> (24U - 8U * i));
  }
}

std::uint32_t address_of(const cr_u8 (&bytes)[4]) noexcept {
  return static_cast<std::uint32_t>(bytes[0]) << 24U | static_cast<std::uint32_t>(bytes[1]) << 16U |
         static_cast<std::uint32_t>(bytes[2]) << 8U | bytes[3];
}

cr_named_key key_of(const NamedService& service) noexcept {
  cr_named_key key{static_cast<cr_u8>(service.protocol),
                   0,
                   {static_cast<cr_u8>(service.port >> 8U), static_cast<cr_u8>(service.port & 0xffU)},
                   {}};
  put_address(service.address, key.address);
  return key;
}

// Every entry of a map; a frozen one stays as it is meanwhile.
template <typename Key, typename Value>
base::Result<std::vector<std::pair<Key, Value>>> read_all(int fd, const char* what) {
  std::vector<std::pair<Key, Value>> out;
  Key key{};
  const Key* previous = nullptr;
  while (out.size() < kMostEntries) {
    Key next{};
    if (::bpf_map_get_next_key(fd, previous, &next) != 0) {
      if (errno == ENOENT) {
        return out;
      }
      return Error::from_errno(std::string("read back ") + what);
    }
    Value value{};
    if (::bpf_map_lookup_elem(fd, &next, &value) != 0) {
      return Error::from_errno(std::string("read back ") + what);
    }
    out.emplace_back(next, value);
    key = next;
    previous = &key;
  }
  return Error(base::Errc::kDataLoss, std::string("read back ") + what + ": more entries than any policy has");
}

}  // namespace

base::Status write_policy(const CompiledPolicy& policy, int deny_fd, int allow_fd) {
  for (const DenyEntry& entry : policy.deny) {
    cr_deny_key key{entry.prefix.length, {}};
    put_address(entry.prefix.address, key.address);
    const cr_deny value{entry.reason};
    if (::bpf_map_update_elem(deny_fd, &key, &value, BPF_NOEXIST) != 0) {
      return Error::from_errno("write deny set: " + entry.prefix.text());
    }
  }
  for (const AllowEntry& entry : policy.allow) {
    cr_allow_key key{CR_ALLOW_EXACT_BITS + static_cast<cr_u32>(entry.prefix.length),
                     static_cast<cr_u8>(entry.protocol),
                     0,
                     {static_cast<cr_u8>(entry.port >> 8U), static_cast<cr_u8>(entry.port & 0xffU)},
                     {}};
    put_address(entry.prefix.address, key.address);
    const cr_allow value{entry.expires_ns, entry.rule, 0};
    if (::bpf_map_update_elem(allow_fd, &key, &value, BPF_NOEXIST) != 0) {
      return Error::from_errno("write allow set: " + model::rule_field(entry.rule));
    }
  }
  return base::ok();
}

base::Status put_named(int named_fd, const NamedService& service, const NamedEntry& entry) {
  const cr_named_key key = key_of(service);
  const cr_named value{entry.expires_ns, entry.rule_expires_ns, entry.rule, 0};
  if (::bpf_map_update_elem(named_fd, &key, &value, BPF_ANY) != 0) {
    return Error::from_errno("write named set: " + model::rule_field(entry.rule));
  }
  return base::ok();
}

base::Status erase_named(int named_fd, const NamedService& service) {
  const cr_named_key key = key_of(service);
  if (::bpf_map_delete_elem(named_fd, &key) != 0 && errno != ENOENT) {
    return Error::from_errno("write named set");
  }
  return base::ok();
}

base::Result<std::string> read_policy_digest(int deny_fd, int allow_fd) {
  std::vector<DenyEntry> deny;
  for (const auto& [key, value] : CR_TRY((read_all<cr_deny_key, cr_deny>(deny_fd, "deny set")))) {
    deny.push_back({{address_of(key.address), static_cast<std::uint8_t>(key.prefix_length)}, value.reason});
  }
  std::vector<AllowEntry> allow;
  for (const auto& [key, value] : CR_TRY((read_all<cr_allow_key, cr_allow>(allow_fd, "allow set")))) {
    allow.push_back({static_cast<model::Transport>(key.protocol),
                     static_cast<std::uint16_t>(key.port[0] << 8U | key.port[1]),
                     {address_of(key.address), static_cast<std::uint8_t>(key.prefix_length - CR_ALLOW_EXACT_BITS)},
                     value.expires_ns,
                     value.rule});
  }
  return map_digest(std::move(deny), std::move(allow));
}

}  // namespace cellrund::netpolicy
