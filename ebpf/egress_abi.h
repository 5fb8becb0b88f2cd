/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the egress filter (ebpf/egress.bpf.c) and user space (netpolicy/) agree on: map layouts, states and the reason of
 * every verdict. Plain C with fixed-width types, without padding, so that both compilers see the same bytes.
 */
#ifndef CELLRUN_EGRESS_ABI_H
#define CELLRUN_EGRESS_ABI_H

#ifdef __cplusplus
#include <cstdint>
typedef std::uint8_t cr_u8;
typedef std::uint16_t cr_u16;
typedef std::uint32_t cr_u32;
typedef std::uint64_t cr_u64;
#else
#include <linux/types.h>
typedef __u8 cr_u8;
typedef __u16 cr_u16;
typedef __u32 cr_u32;
typedef __u64 cr_u64;
#endif

/* Value 0 of the state map: anything but ENFORCE drops every packet, a map never written included. */
enum cr_state {
  CR_STATE_UNSET = 0,
  CR_STATE_ENFORCE = 1,
  CR_STATE_KILLED = 2,
};

/*
 * Why a packet was dropped, in the order in which the filter asks. The first reason that holds is the one counted. The
 * numbers are part of no stored format: records carry the names (netpolicy/classifier.hpp).
 */
enum cr_reason {
  CR_NOT_ENFORCING = 0,   /* state is UNSET: the filter was not armed */
  CR_KILLED = 1,          /* state is KILLED: teardown or kill switch */
  CR_VLAN = 2,            /* any VLAN tag, in metadata or in the frame, VID 0 included */
  CR_TRUNCATED = 3,       /* a header does not fit into the frame */
  CR_SOURCE_MAC = 4,      /* not the cell's own */
  CR_ARP = 5,
  CR_IPV6 = 6,
  CR_ETHERTYPE = 7,       /* neither IPv4 nor one of the above */
  CR_GROUP_MAC = 8,       /* multicast or broadcast at layer 2 */
  CR_DESTINATION_MAC = 9, /* not the gateway's */
  CR_MALFORMED = 10,      /* IPv4 header that contradicts itself or the frame */
  CR_IP_OPTIONS = 11,
  CR_TTL = 12,            /* would expire at the router */
  CR_FRAGMENT = 13,       /* first or later */
  CR_SOURCE_ADDRESS = 14, /* not the cell's own */
  CR_BROADCAST = 15,      /* 255.255.255.255 */
  CR_MULTICAST = 16,      /* 224.0.0.0/4 */
  CR_RESERVED = 17,       /* 240.0.0.0/4 */
  CR_THIS_NETWORK = 18,   /* 0.0.0.0/8 */
  CR_LOOPBACK = 19,       /* 127.0.0.0/8 */
  CR_METADATA = 20,       /* 169.254.169.254 */
  CR_LINK_LOCAL = 21,     /* 169.254.0.0/16 */
  CR_CELL_NETWORK = 22,   /* 100.64.0.0/10: the gateway and the other cells */
  CR_ICMP = 23,
  CR_PROTOCOL = 24,       /* neither TCP nor UDP */
  CR_DEFAULT_DENY = 25,   /* well-formed, and no rule allows it */
  CR_INBOUND = 26,        /* to the cell, and of no flow that the cell opened */
  CR_REASONS = 27,
};

/* Slots of the per-CPU counter map: one per reason, then what the decision map could not take. */
enum cr_counter {
  CR_COUNTER_SUPPRESSED = CR_REASONS,
  CR_COUNTERS = CR_REASONS + 1,
};

struct cr_count {
  cr_u64 packets;
  cr_u64 bytes; /* as on the wire, Ethernet header included */
};

/* The cell's constants. A frozen map that no program can write: the verifier treats its content as immediate values. */
struct cr_config {
  cr_u8 cell_mac[6];
  cr_u8 gateway_mac[6];
  cr_u8 cell_address[4]; /* network byte order, hence bytes */
  cr_u32 allow_mark;     /* what nftables lets pass; drawn per boot, for rules that allow */
};

/* One denied attempt: packets that agree in these four. */
struct cr_decision_key {
  cr_u8 address[4]; /* the far end; 0.0.0.0 unless the IPv4 header was read */
  cr_u16 port;      /* destination port, host byte order; 0 unless TCP's or UDP's was read */
  cr_u8 protocol;   /* of the IPv4 header; 0 unless it was read */
  cr_u8 reason;
};

struct cr_decision {
  cr_u64 count;
  cr_u64 first_ns; /* CLOCK_BOOTTIME */
  cr_u64 last_ns;
};

/* Of one cell. What does not fit is counted as suppressed: seen + suppressed = counted, and nothing can be lost. */
#define CR_MAX_DECISIONS 1024

/* Value 0 of the state map. */
struct cr_control {
  cr_u32 state;
  cr_u32 reserved;
};

#endif /* CELLRUN_EGRESS_ABI_H */
