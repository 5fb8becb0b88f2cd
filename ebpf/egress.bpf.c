// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The egress filter of one cell: two tc programs on the host side of its veth pair.
 *
 *   cellrun_out   at the interface's ingress: what the cell sends
 *   cellrun_in    at the interface's egress: what is sent to the cell
 *
 * Default deny. Every packet is parsed as far as its reason needs, counted exactly, and dropped: there are no rules that
 * allow anything yet. A packet that a rule allowed would get config.allow_mark, without which nftables drops it in the
 * router namespace, so a filter that disappears still lets nothing through.
 *
 * Headers are copied out with bpf_skb_load_bytes. Direct packet access sees the linear part only, and a guest chooses
 * what is linear (virtio-net header length), so it could hide its headers from such a program.
 *
 * The same classification in C++, which the tests compare with this one: netpolicy/classifier.cpp.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "egress_abi.h"

#define ETHERNET_HEADER 14
#define IPV4_HEADER 20
#define TCP_HEADER 20
#define UDP_HEADER 8
#define LOWEST_TTL 2

/* Created by user space, one set per cell, named after the cell; these definitions fix their shapes. */
const volatile struct cr_config config = {};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_RDONLY_PROG);
  __type(key, __u32);
  __type(value, struct cr_control);
} control SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, CR_COUNTERS);
  __type(key, __u32);
  __type(value, struct cr_count);
} counters SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH); /* never evicts: what is in it stays until teardown */
  __uint(max_entries, CR_MAX_DECISIONS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct cr_decision_key);
  __type(value, struct cr_decision);
} decisions SEC(".maps");

static __always_inline void count(__u32 slot, __u32 bytes) {
  struct cr_count *c = bpf_map_lookup_elem(&counters, &slot);
  if (c) { /* always: slot < CR_COUNTERS. Own CPU's value, and tc programs do not nest on one CPU. */
    c->packets += 1;
    c->bytes += bytes;
  }
}

/* Exactly one of: an existing decision grows, a new one appears, or `suppressed` grows. */
static __always_inline void remember(const struct cr_decision_key *key) {
  __u64 now = bpf_ktime_get_boot_ns();
  struct cr_decision *d = bpf_map_lookup_elem(&decisions, key);
  if (!d) {
    struct cr_decision fresh = {.count = 1, .first_ns = now, .last_ns = now};
    if (bpf_map_update_elem(&decisions, key, &fresh, BPF_NOEXIST) == 0)
      return;
    d = bpf_map_lookup_elem(&decisions, key); /* another CPU was first, or the map is full */
    if (!d) {
      count(CR_COUNTER_SUPPRESSED, 0);
      return;
    }
  }
  __sync_fetch_and_add(&d->count, 1);
  d->last_ns = now;
}

static __always_inline int deny(struct __sk_buff *skb, struct cr_decision_key *key, __u8 reason) {
  key->reason = reason;
  count(reason, skb->len);
  remember(key);
  return TC_ACT_SHOT;
}

static __always_inline int differs6(const __u8 *a, const volatile __u8 *b) {
  return a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3] || a[4] != b[4] || a[5] != b[5];
}

static __always_inline int differs4(const __u8 *a, const volatile __u8 *b) {
  return a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3];
}

/* CR_REASONS when the state allows traffic at all. */
static __always_inline __u8 state_denies(void) {
  __u32 zero = 0;
  struct cr_control *c = bpf_map_lookup_elem(&control, &zero);
  if (!c || c->state == CR_STATE_UNSET)
    return CR_NOT_ENFORCING;
  if (c->state != CR_STATE_ENFORCE)
    return CR_KILLED;
  return CR_REASONS;
}

/* Where no cell may ever send, whatever a rule says; CR_REASONS for any other address. */
static __always_inline __u8 address_denies(const __u8 *a) {
  if (a[0] >= 240)
    return (a[0] & a[1] & a[2] & a[3]) == 255 ? CR_BROADCAST : CR_RESERVED;
  if (a[0] >= 224)
    return CR_MULTICAST;
  if (a[0] == 0)
    return CR_THIS_NETWORK;
  if (a[0] == 127)
    return CR_LOOPBACK;
  if (a[0] == 169 && a[1] == 254)
    return a[2] == 169 && a[3] == 254 ? CR_METADATA : CR_LINK_LOCAL;
  if (a[0] == 100 && (a[1] & 0xc0) == 64)
    return CR_CELL_NETWORK;
  return CR_REASONS;
}

/* Why this packet of the cell is dropped; fills the key as far as the packet was read. */
static __always_inline __u8 classify(struct __sk_buff *skb, struct cr_decision_key *key) {
  __u8 eth[ETHERNET_HEADER];
  __u8 ip[IPV4_HEADER];
  __u8 ports[4];

  __u8 reason = state_denies();
  if (reason != CR_REASONS)
    return reason;

  /* The outer tag has been moved to metadata; tags with VID 0 reach the IP stack like untagged frames. */
  if (skb->vlan_present)
    return CR_VLAN;
  if (bpf_skb_load_bytes(skb, 0, eth, sizeof(eth)))
    return CR_TRUNCATED;
  if (differs6(eth + 6, config.cell_mac))
    return CR_SOURCE_MAC;

  __u16 ethertype = (__u16)(eth[12] << 8 | eth[13]);
  if (ethertype != ETH_P_IP) {
    switch (ethertype) {
      case ETH_P_ARP:
        return CR_ARP;
      case ETH_P_IPV6:
        return CR_IPV6;
      case ETH_P_8021Q:
      case ETH_P_8021AD:
        return CR_VLAN;
      default:
        return CR_ETHERTYPE;
    }
  }

  if (bpf_skb_load_bytes(skb, ETHERNET_HEADER, ip, sizeof(ip)))
    return CR_TRUNCATED;
  __builtin_memcpy(key->address, ip + 16, 4);
  key->protocol = ip[9];

  if (eth[0] & 1)
    return CR_GROUP_MAC;
  if (differs6(eth, config.gateway_mac))
    return CR_DESTINATION_MAC;

  __u32 header = (__u32)(ip[0] & 0x0f) * 4;
  __u32 total = (__u32)ip[2] << 8 | ip[3];
  if (ip[0] >> 4 != 4 || header < IPV4_HEADER || total < header || total + ETHERNET_HEADER > skb->len)
    return CR_MALFORMED;
  if (header != IPV4_HEADER)
    return CR_IP_OPTIONS;
  if (ip[8] < LOWEST_TTL)
    return CR_TTL;
  if ((ip[6] & 0x3f) | ip[7]) /* more-fragments or an offset; "don't fragment" is fine, the reserved bit is ignored */
    return CR_FRAGMENT;
  if (differs4(ip + 12, config.cell_address))
    return CR_SOURCE_ADDRESS;

  reason = address_denies(key->address);
  if (reason != CR_REASONS)
    return reason;

  if (key->protocol == IPPROTO_ICMP)
    return CR_ICMP;
  if (key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP)
    return CR_PROTOCOL;
  if (total < IPV4_HEADER + (key->protocol == IPPROTO_TCP ? TCP_HEADER : UDP_HEADER) ||
      bpf_skb_load_bytes(skb, ETHERNET_HEADER + IPV4_HEADER, ports, sizeof(ports)))
    return CR_TRUNCATED;
  key->port = (__u16)(ports[2] << 8 | ports[3]);

  return CR_DEFAULT_DENY;
}

SEC("tc")
int cellrun_out(struct __sk_buff *skb) {
  struct cr_decision_key key = {};
  return deny(skb, &key, classify(skb, &key));
}

SEC("tc")
int cellrun_in(struct __sk_buff *skb) {
  struct cr_decision_key key = {};
  __u8 ip[IPV4_HEADER];

  __u8 reason = state_denies();
  if (reason == CR_REASONS)
    reason = CR_INBOUND;
  /* Who tried: as far as it can be read. */
  if (skb->protocol == bpf_htons(ETH_P_IP) && !bpf_skb_load_bytes(skb, ETHERNET_HEADER, ip, sizeof(ip))) {
    __builtin_memcpy(key.address, ip + 12, 4);
    key.protocol = ip[9];
  }
  return deny(skb, &key, reason);
}

/* The kernel knows no name for the dual licence of this file (include/linux/license.h); this is the half it needs. */
char _license[] SEC("license") = "GPL";
