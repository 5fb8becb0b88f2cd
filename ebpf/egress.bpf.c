// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The egress filter of one cell: two tc programs on the host side of its veth pair.
 *
 *   cellrun_out   at the interface's ingress: what the cell sends
 *   cellrun_in    at the interface's egress: what is sent to the cell
 *
 * Default deny. Every packet is parsed as far as its reason needs and counted exactly. What passes: a packet to a target
 * that the deny map does not hold and the allow or the named map does, while its rule, the cell's lease and its quota
 * last; then the packets of the flow that it opened, in both directions. The flow table is the fast path too: a flow that
 * lives spares all three look-ups, and it lives no longer than its rule, its epoch and its use.
 *
 * A packet that passes gets config.allow_mark, without which nftables drops it in the router namespace, so a filter that
 * disappears still lets nothing through.
 *
 * Headers are copied out with bpf_skb_load_bytes. Direct packet access sees the linear part only, and a guest chooses
 * what is linear (virtio-net header length), so it could hide its headers from such a program.
 *
 * The same in C++, which the tests compare with this one: netpolicy/classifier.cpp. tests/bpf/mutants.py builds this file
 * once for each `return CR_…;` with that line left out, and expects the comparison to fail.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "egress_abi.h"

#define ETHERNET_HEADER 14
#define IPV4_HEADER 20
#define TCP_HEADER 20
#define UDP_HEADER 8
#define LOWEST_TTL 2
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/*
 * Created by user space, one set per cell, named after the cell; these definitions fix their shapes. The verifier knows
 * the constants: of a policy that opens nothing it reads a third of this file, which shortens the start of such a cell.
 */
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
  __uint(max_entries, CR_VERDICTS);
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

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, CR_SAMPLE_RING_BYTES);
} samples SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
  __type(key, struct cr_deny_key);
  __type(value, struct cr_deny);
} deny_set SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LPM_TRIE);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
  __type(key, struct cr_allow_key);
  __type(value, struct cr_allow);
} allow_set SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH); /* written by the daemon alone, while the cell runs */
  __uint(max_entries, CR_MAX_NAMED);
  __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_RDONLY_PROG);
  __type(key, struct cr_named_key);
  __type(value, struct cr_named);
} named_set SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH); /* of this cell alone: it can push out no flow but its own */
  __uint(max_entries, CR_MAX_FLOWS);
  __type(key, struct cr_flow_key);
  __type(value, struct cr_flow);
} flows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct cr_usage);
} usage SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_RDONLY_PROG);
  __type(key, __u32);
  __type(value, cr_lease);
} lease SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY); /* one for all cells of the node */
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_RDONLY_PROG);
  __type(key, __u32);
  __type(value, struct cr_node);
} node SEC(".maps");

static __always_inline void count(__u32 slot, __u32 bytes) {
  struct cr_count *c = bpf_map_lookup_elem(&counters, &slot);
  if (c) { /* always: slot < CR_VERDICTS. Own CPU's value, and tc programs do not nest on one CPU. */
    c->packets += 1;
    c->bytes += bytes;
  }
}

/* What the table has no room for. Exactly one of: a sample appears, `suppressed` grows, or `lost` does. */
static __always_inline void sample(const struct cr_decision_key *key, __u64 now) {
  __u32 zero = 0, slot = key->reason;
  struct cr_usage *u = bpf_map_lookup_elem(&usage, &zero);
  struct cr_count *c = bpf_map_lookup_elem(&counters, &slot);
  if (!u || !c)
    return; /* never: both are arrays */
  __u64 due = u->sample_ns;
  __u64 start = due + CR_SAMPLE_BURST_NS > now ? due : now - CR_SAMPLE_BURST_NS;
  if (start > now || __sync_val_compare_and_swap(&u->sample_ns, due, start + CR_SAMPLE_INTERVAL_NS) != due) {
    c->suppressed += 1;
    return;
  }
  struct cr_sample *s = bpf_ringbuf_reserve(&samples, sizeof(*s), 0);
  if (!s) {
    c->lost += 1;
    return;
  }
  s->what = *key;
  s->at_ns = now;
  bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP); /* nobody sleeps on it: the warden comes by */
}

/* Exactly one of: an existing decision grows, a new one appears, or the packet is sampled. */
static __always_inline void remember(const struct cr_decision_key *key) {
  __u64 now = bpf_ktime_get_boot_ns();
  struct cr_decision *d = bpf_map_lookup_elem(&decisions, key);
  if (!d) {
    struct cr_decision fresh = {.count = 1, .first_ns = now, .last_ns = now};
    if (bpf_map_update_elem(&decisions, key, &fresh, BPF_NOEXIST) == 0)
      return;
    d = bpf_map_lookup_elem(&decisions, key); /* another CPU was first, or the map is full */
    if (!d) {
      sample(key, now);
      return;
    }
  }
  __sync_fetch_and_add(&d->count, 1);
  d->last_ns = now;
}

static __always_inline int differs6(const __u8 *a, const volatile __u8 *b) {
  return a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3] || a[4] != b[4] || a[5] != b[5];
}

static __always_inline int differs4(const __u8 *a, const volatile __u8 *b) {
  return a[0] != b[0] || a[1] != b[1] || a[2] != b[2] || a[3] != b[3];
}

/* Why nothing passes at all, or CR_REASONS, and then the node's epoch. */
static __always_inline __u8 stopped(__u32 *epoch) {
  __u32 zero = 0;
  struct cr_control *c = bpf_map_lookup_elem(&control, &zero);
  struct cr_node *n = bpf_map_lookup_elem(&node, &zero);
  if (!c || !n || c->state == CR_STATE_UNSET)
    return CR_NOT_ENFORCING;
  if (c->state != CR_STATE_ENFORCE)
    return CR_KILLED;
  if (n->kill_switch)
    return CR_KILL_SWITCH;
  *epoch = n->epoch;
  return CR_REASONS;
}

/* TCP's or UDP's header: its ports, in the order of the wire, and TCP's flags. CR_REASONS when it is there. */
struct transport {
  __u16 source, destination;
  __u8 flags;
};

static __always_inline __u8 read_transport(struct __sk_buff *skb, __u8 protocol, __u32 total, struct transport *out,
                                           __u8 truncated) {
  __u8 header[14]; /* up to TCP's flags */
  if (protocol == IPPROTO_TCP) {
    if (total < IPV4_HEADER + TCP_HEADER || bpf_skb_load_bytes(skb, ETHERNET_HEADER + IPV4_HEADER, header, 14))
      return truncated;
    out->flags = header[13];
  } else {
    if (total < IPV4_HEADER + UDP_HEADER || bpf_skb_load_bytes(skb, ETHERNET_HEADER + IPV4_HEADER, header, 4))
      return truncated;
    out->flags = 0;
  }
  out->source = (__u16)(header[0] << 8 | header[1]);
  out->destination = (__u16)(header[2] << 8 | header[3]);
  return CR_REASONS;
}

static __always_inline int lives(const struct cr_flow *flow, __u64 now, __u32 epoch) {
  return flow->epoch == epoch && now < flow->expires_ns && now - flow->last_ns < flow->idle_ns;
}

static __always_inline void touch(struct cr_flow *flow, __u64 now, __u8 flags) {
  flow->last_ns = now;
  if (flags & (TCP_FIN | TCP_RST))
    flow->idle_ns = CR_IDLE_CLOSING_NS;
}

/* Adds, unless that would go beyond the limit. */
static __always_inline int exceeds(__u64 *used, __u64 more, __u64 limit) {
  __u64 before = __sync_fetch_and_add(used, more);
  if (before + more <= limit)
    return 0;
  __sync_fetch_and_add(used, -more);
  return 1;
}

/* Books bytes on a line of config.bytes_per_second: a line that is used up for longer than the burst takes no more. */
static __always_inline int too_fast(struct cr_usage *u, __u64 bytes, __u64 now) {
  __u64 cost = bytes * 1000000000ull / config.bytes_per_second;
#pragma unroll
  for (int i = 0; i < CR_RATE_ATTEMPTS; ++i) {
    __u64 paid = u->paid_until_ns;
    __u64 start = paid > now ? paid : now;
    if (start - now > CR_RATE_BURST_NS)
      return 1;
    if (__sync_val_compare_and_swap(&u->paid_until_ns, paid, start + cost) == paid)
      return 0;
  }
  return 1;
}

/* The last checks of what is about to pass: lease, rate, quota. */
static __always_inline __u8 spend(__u64 bytes, __u64 connections, __u64 now) {
  __u32 zero = 0;
  cr_lease *until = bpf_map_lookup_elem(&lease, &zero);
  struct cr_usage *u = bpf_map_lookup_elem(&usage, &zero);
  if (!until || !u || now >= *until)
    return CR_LEASE;
  if (u->exhausted)
    return CR_QUOTA;
  if (config.bytes_per_second != CR_UNLIMITED && config.bytes_per_second != 0 && too_fast(u, bytes, now))
    return CR_RATE;
  if (!exceeds(&u->bytes, bytes, config.max_bytes)) {
    if (!exceeds(&u->packets, 1, config.max_packets)) {
      if (!exceeds(&u->connections, connections, config.max_connections))
        return CR_REASONS;
      __sync_fetch_and_add(&u->packets, -1);
    }
    __sync_fetch_and_add(&u->bytes, -bytes);
  }
  u->exhausted = 1;
  return CR_QUOTA;
}

/* What the maps say of a target; CR_ALLOWED with the flow that it would open. */
static __always_inline __u8 by_rules(const struct cr_flow_key *to, __u8 flags, __u64 now, struct cr_flow *opened) {
  struct cr_deny_key far = {.prefix_length = 32};
  struct cr_allow_key service = {.prefix_length = CR_ALLOW_EXACT_BITS + 32, .protocol = to->protocol};

  __builtin_memcpy(far.address, to->address, 4);
  struct cr_deny *denied = bpf_map_lookup_elem(&deny_set, &far);
  if (!denied)
    return CR_NOT_ENFORCING;
  if (denied->reason == CR_ROUTER_BUT_DNS) {
    if (to->port != CR_DNS_PORT)
      return CR_ROUTER;
  } else if (denied->reason != CR_REASONS) {
    return (__u8)denied->reason;
  }

  service.port[0] = (__u8)(to->port >> 8);
  service.port[1] = (__u8)to->port;
  __builtin_memcpy(service.address, to->address, 4);
  struct cr_allow *rule = config.opens & CR_OPENS_RULES ? bpf_map_lookup_elem(&allow_set, &service) : 0;
  if (rule && now < rule->expires_ns) {
    opened->expires_ns = rule->expires_ns;
    opened->rule = rule->rule;
  } else {
    struct cr_named_key host = {.protocol = to->protocol};
    __builtin_memcpy(host.port, service.port, 2);
    __builtin_memcpy(host.address, to->address, 4);
    struct cr_named *named = config.opens & CR_OPENS_NAMES ? bpf_map_lookup_elem(&named_set, &host) : 0;
    if (!named) {
      if (!rule)
        return CR_DEFAULT_DENY;
      return CR_EXPIRED;
    }
    if (now >= named->expires_ns)
      return CR_EXPIRED;
    opened->expires_ns = named->rule_expires_ns;
    opened->rule = named->rule;
  }
  if (to->protocol == IPPROTO_TCP && (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
    return CR_TCP_STATE;
  opened->idle_ns = to->protocol == IPPROTO_TCP ? CR_IDLE_TCP_NS : CR_IDLE_UDP_NS;
  return CR_ALLOWED;
}

/* The verdict on a packet of the cell; fills the key as far as the packet was read. */
static __always_inline __u8 classify_out(struct __sk_buff *skb, struct cr_decision_key *key) {
  __u8 eth[ETHERNET_HEADER];
  __u8 ip[IPV4_HEADER];
  struct transport transport = {};
  __u32 epoch = 0;

  __u8 reason = stopped(&epoch);
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

  if (key->protocol == IPPROTO_ICMP)
    return CR_ICMP;
  if (key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP)
    return CR_PROTOCOL;
  reason = read_transport(skb, key->protocol, total, &transport, CR_TRUNCATED);
  if (reason != CR_REASONS)
    return reason;
  key->port = transport.destination;

  __u64 now = bpf_ktime_get_boot_ns();
  struct cr_flow_key flow_key = {
      .port = transport.destination, .cell_port = transport.source, .protocol = key->protocol};
  __builtin_memcpy(flow_key.address, key->address, 4);
  struct cr_flow *flow = config.opens ? bpf_map_lookup_elem(&flows, &flow_key) : 0;
  /* A SYN on a flow that is closing opens another one; on any other it is sent again. */
  int again = (transport.flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
  if (flow && lives(flow, now, epoch) && !(again && flow->idle_ns == CR_IDLE_CLOSING_NS)) {
    reason = spend(skb->len, 0, now);
    if (reason != CR_REASONS)
      return reason;
    touch(flow, now, transport.flags);
    return CR_ESTABLISHED;
  }

  struct cr_flow opened = {.last_ns = now, .epoch = epoch};
  reason = by_rules(&flow_key, transport.flags, now, &opened);
  if (reason != CR_ALLOWED)
    return reason;
  reason = spend(skb->len, 1, now);
  if (reason != CR_REASONS)
    return reason;
  if (bpf_map_update_elem(&flows, &flow_key, &opened, BPF_ANY))
    return CR_FLOW_TABLE;
  return CR_ALLOWED;
}

/* The verdict on a packet to the cell: a reply passes, and nothing else. */
static __always_inline __u8 classify_in(struct __sk_buff *skb, struct cr_decision_key *key) {
  __u8 eth[ETHERNET_HEADER];
  __u8 ip[IPV4_HEADER];
  struct transport transport = {};
  __u32 epoch = 0;

  __u8 reason = stopped(&epoch);
  if (reason != CR_REASONS)
    return reason;
  if (skb->vlan_present || bpf_skb_load_bytes(skb, 0, eth, sizeof(eth)))
    return CR_INBOUND_FRAME;
  if (eth[12] != ETH_P_IP >> 8 || eth[13] != (ETH_P_IP & 0xff))
    return CR_INBOUND_FRAME;
  if (bpf_skb_load_bytes(skb, ETHERNET_HEADER, ip, sizeof(ip)))
    return CR_INBOUND_HEADER;
  /* Who tried: as far as it can be read. */
  __builtin_memcpy(key->address, ip + 12, 4);
  key->protocol = ip[9];
  if (differs6(eth, config.cell_mac))
    return CR_INBOUND_FRAME;
  if (differs6(eth + 6, config.gateway_mac))
    return CR_INBOUND_FRAME;

  __u32 total = (__u32)ip[2] << 8 | ip[3];
  if (ip[0] != 0x45 || total < IPV4_HEADER || total + ETHERNET_HEADER > skb->len)
    return CR_INBOUND_HEADER;
  if ((ip[6] & 0x3f) | ip[7])
    return CR_INBOUND_HEADER;
  if (differs4(ip + 16, config.cell_address))
    return CR_INBOUND_HEADER;
  if (key->protocol == IPPROTO_ICMP)
    return CR_INBOUND_ICMP;
  if (key->protocol != IPPROTO_TCP && key->protocol != IPPROTO_UDP)
    return CR_INBOUND_PROTOCOL;
  reason = read_transport(skb, key->protocol, total, &transport, CR_INBOUND_HEADER);
  if (reason != CR_REASONS)
    return reason;
  key->port = transport.source;

  __u64 now = bpf_ktime_get_boot_ns();
  struct cr_flow_key flow_key = {
      .port = transport.source, .cell_port = transport.destination, .protocol = key->protocol};
  __builtin_memcpy(flow_key.address, key->address, 4);
  struct cr_flow *flow = config.opens ? bpf_map_lookup_elem(&flows, &flow_key) : 0;
  if (!flow || !lives(flow, now, epoch))
    return CR_INBOUND;
  reason = spend(skb->len, 0, now);
  if (reason != CR_REASONS)
    return reason;
  touch(flow, now, transport.flags);
  return CR_REPLY;
}

/* Counts the verdict and records it where it is a decision: each denial, and each flow opened. */
static __always_inline int answer(struct __sk_buff *skb, struct cr_decision_key *key, __u8 verdict) {
  /* Through the packet's scratch space: what comes back is any number to the verifier, which otherwise follows the rest of
   * this function once for each verdict, three times the work at the start of each cell. */
  skb->cb[0] = verdict;
  verdict = (__u8)*(volatile __u32 *)&skb->cb[0];
  count(verdict, skb->len);
  if (verdict <= CR_ALLOWED) {
    key->reason = verdict;
    remember(key);
  }
  return verdict < CR_REASONS ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int cellrun_out(struct __sk_buff *skb) {
  struct cr_decision_key key = {};
  __u8 verdict = classify_out(skb, &key);
  if (verdict >= CR_REASONS)
    skb->mark = config.allow_mark;
  return answer(skb, &key, verdict);
}

SEC("tc")
int cellrun_in(struct __sk_buff *skb) {
  struct cr_decision_key key = {};
  __u8 verdict = classify_in(skb, &key);
  return answer(skb, &key, verdict);
}

/* The kernel knows no name for the dual licence of this file (include/linux/license.h); this is the half it needs. */
char _license[] SEC("license") = "GPL";
