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
  CR_NOT_ENFORCING = 0,   /* state is UNSET, or a map was not filled: the filter was not armed */
  CR_KILLED = 1,          /* state is KILLED: teardown, or the proof of the filter failed */
  CR_KILL_SWITCH = 2,     /* the node's kill switch is engaged */
  CR_VLAN = 3,            /* any VLAN tag, in metadata or in the frame, VID 0 included */
  CR_TRUNCATED = 4,       /* a header does not fit into the frame */
  CR_SOURCE_MAC = 5,      /* not the cell's own */
  CR_ARP = 6,
  CR_IPV6 = 7,
  CR_ETHERTYPE = 8,       /* neither IPv4 nor one of the above */
  CR_GROUP_MAC = 9,       /* multicast or broadcast at layer 2 */
  CR_DESTINATION_MAC = 10, /* not the gateway's */
  CR_MALFORMED = 11,      /* IPv4 header that contradicts itself or the frame */
  CR_IP_OPTIONS = 12,
  CR_TTL = 13,            /* would expire at the router */
  CR_FRAGMENT = 14,       /* first or later */
  CR_SOURCE_ADDRESS = 15, /* not the cell's own */
  CR_ICMP = 16,
  CR_PROTOCOL = 17,       /* neither TCP nor UDP */
  /* From the deny map, which is asked before the allow map: no rule opens these. */
  CR_BROADCAST = 18,      /* 255.255.255.255 */
  CR_MULTICAST = 19,      /* 224.0.0.0/4 */
  CR_RESERVED = 20,       /* 240.0.0.0/4 */
  CR_THIS_NETWORK = 21,   /* 0.0.0.0/8 */
  CR_LOOPBACK = 22,       /* 127.0.0.0/8 */
  CR_METADATA = 23,       /* 169.254.169.254 and its like */
  CR_LINK_LOCAL = 24,     /* 169.254.0.0/16 */
  CR_CELL_NETWORK = 25,   /* 100.64.0.0/10: the other cells */
  CR_ROUTER = 26,         /* the cell's gateway */
  CR_HOST = 27,           /* an address of the host */
  CR_PRIVATE = 28,        /* RFC 1918 and the like, without a grant */
  /* From the allow map on. */
  CR_DEFAULT_DENY = 29,   /* well-formed, and no rule allows it */
  CR_EXPIRED = 30,        /* the rule that allows it has expired */
  CR_TCP_STATE = 31,      /* TCP of no flow, and no SYN that would open one */
  CR_LEASE = 32,          /* the daemon has not renewed the cell's lease */
  CR_RATE = 33,           /* above bytesPerSecond */
  CR_QUOTA = 34,          /* the job has used up its quota; from then on for good */
  CR_FLOW_TABLE = 35,     /* the flow table takes no more */
  /* What is sent to the cell. */
  CR_INBOUND_FRAME = 36,    /* not a plain IPv4 frame from the gateway to the cell */
  CR_INBOUND_HEADER = 37,   /* IPv4, TCP or UDP header in disorder, a fragment, or not the cell's address */
  CR_INBOUND_ICMP = 38,
  CR_INBOUND_PROTOCOL = 39, /* neither TCP nor UDP */
  CR_INBOUND = 40,          /* of no flow that the cell opened */
  CR_REASONS = 41,
};

/* What else a packet may be counted as. Only the first is a decision of its own: it opens a flow. */
enum cr_pass {
  CR_ALLOWED = CR_REASONS,         /* from the cell, opened a flow */
  CR_ESTABLISHED = CR_REASONS + 1, /* from the cell, of an open flow */
  CR_REPLY = CR_REASONS + 2,       /* to the cell, of an open flow */
  CR_VERDICTS = CR_REASONS + 3,
};

/* Slot of the per-CPU counter map: one per verdict. */
struct cr_count {
  cr_u64 packets;
  cr_u64 bytes;      /* as on the wire, Ethernet header included */
  cr_u64 suppressed; /* of the packets: neither in the decision table nor in the ring */
  cr_u64 lost;       /* of the packets: were to go to the ring, which was full */
};

#define CR_UNLIMITED 0xffffffffffffffffull
#define CR_NEVER 0xffffffffffffffffull /* of a time: does not come */

/* The cell's constants. A frozen map that no program can write: the verifier treats its content as immediate values. */
struct cr_config {
  cr_u8 cell_mac[6];
  cr_u8 gateway_mac[6];
  cr_u8 cell_address[4]; /* network byte order, hence bytes */
  cr_u32 allow_mark;     /* what nftables lets pass; drawn per boot */
  cr_u32 opens;          /* what the policy has that opens anything: the verifier leaves out the code of what it has not */
  cr_u64 max_bytes; /* of both directions, Ethernet header included; CR_UNLIMITED: no limit, as in the next ones */
  cr_u64 max_packets;
  cr_u64 max_connections; /* flows opened */
  cr_u64 bytes_per_second;
};

#define CR_OPENS_RULES 1u /* entries in the allow map */
#define CR_OPENS_NAMES 2u /* names, so there may be entries in the named map */

/* Deny map (LPM trie, frozen): where no cell may send, whatever a rule says. The longest prefix decides. */
struct cr_deny_key {
  cr_u32 prefix_length;
  cr_u8 address[4];
};
struct cr_deny {
  cr_u32 reason; /* CR_REASONS: not denied here. 0.0.0.0/0 is always present, so a miss means an unfilled map */
};
/* Of the gateway, where a policy names hosts: CR_ROUTER but for one port, on which the allow map holds the resolver. */
#define CR_ROUTER_BUT_DNS 0x100
#define CR_DNS_PORT 53

/* Allow map (LPM trie, frozen): protocol and port exactly, then the longest prefix of the address. */
#define CR_ALLOW_EXACT_BITS 32 /* of the key, in front of the address */
struct cr_allow_key {
  cr_u32 prefix_length; /* CR_ALLOW_EXACT_BITS + that of the address */
  cr_u8 protocol;
  cr_u8 zero;
  cr_u8 port[2]; /* network byte order */
  cr_u8 address[4];
};
struct cr_allow {
  cr_u64 expires_ns; /* CLOCK_BOOTTIME */
  cr_u32 rule;       /* index in the jobspec */
  cr_u32 reserved;
};

#define CR_RULE_RESOLVER 0xffffffffu /* of the two entries that open the resolver */

/*
 * Named map (hash), the one set that changes: addresses that names of the policy have, written by the daemon before the
 * cell hears of them. It opens what the allow map would, until the answer's time is over; a flow then lives as long as
 * its rule does.
 */
struct cr_named_key {
  cr_u8 protocol;
  cr_u8 zero;
  cr_u8 port[2]; /* network byte order */
  cr_u8 address[4];
};
struct cr_named {
  cr_u64 expires_ns;      /* CLOCK_BOOTTIME: opens no flow from then on */
  cr_u64 rule_expires_ns; /* of the rule that names it */
  cr_u32 rule;
  cr_u32 reserved;
};
#define CR_MAX_NAMED 4096

/* Flow table (LRU hash of the cell's own): what the cell opened, seen from its side. */
struct cr_flow_key {
  cr_u8 address[4]; /* the far end */
  cr_u16 port;      /* of the far end; ports in host byte order */
  cr_u16 cell_port;
  cr_u8 protocol;
  cr_u8 zero[3];
};
struct cr_flow {
  cr_u64 expires_ns; /* of the rule that allowed it */
  cr_u64 last_ns;    /* when its last packet passed */
  cr_u64 idle_ns;    /* it ends this long after its last packet */
  cr_u32 epoch;      /* cr_node.epoch when it was opened; of another epoch it is void */
  cr_u32 rule;
};
#define CR_MAX_FLOWS 4096
#define CR_IDLE_TCP_NS (600ull * 1000000000)
#define CR_IDLE_UDP_NS (60ull * 1000000000)
#define CR_IDLE_CLOSING_NS (10ull * 1000000000) /* TCP after a FIN or RST of either side */

/* Value 0 of the usage map, which the programs alone write. */
struct cr_usage {
  cr_u64 bytes, packets, connections; /* passed; never above the limits */
  cr_u64 exhausted;                   /* 1 from the first packet on that the quota stopped */
  cr_u64 paid_until_ns;               /* bytesPerSecond: until when the bytes that passed use up the line */
  cr_u64 sample_ns;                   /* earliest time of the next sample, at the steady rate; moves with each one */
};
#define CR_RATE_BURST_NS 1000000000ull /* how far ahead of the clock bytes may be */
#define CR_RATE_ATTEMPTS 4             /* to book a packet beside other CPUs; then it is dropped */

/* Value 0 of the node's map, one for all cells. */
struct cr_node {
  cr_u32 kill_switch; /* anything but 0: engaged */
  cr_u32 epoch;       /* grows when the switch is engaged: no flow from before is ever continued */
};

/* Value 0 of the lease map, written by the daemon: until when (CLOCK_BOOTTIME, ns) rules hold. */
typedef cr_u64 cr_lease;

/* One decision: packets that agree in these four. */
struct cr_decision_key {
  cr_u8 address[4]; /* the far end; 0.0.0.0 unless the IPv4 header was read */
  cr_u16 port;      /* of the far end, host byte order; 0 unless TCP's or UDP's was read */
  cr_u8 protocol;   /* of the IPv4 header; 0 unless it was read */
  cr_u8 reason; /* cr_reason, or CR_ALLOWED */
};

struct cr_decision {
  cr_u64 count;
  cr_u64 first_ns; /* CLOCK_BOOTTIME */
  cr_u64 last_ns;
};

/*
 * Of one cell. A table that never evicts, so the first ones keep an exact count each. Once it is full, a packet of another
 * decision becomes a sample in the cell's ring while the rate allows it; otherwise it is counted as suppressed. Of each
 * verdict up to CR_ALLOWED holds: packets = sum of its decisions + samples + suppressed + lost.
 */
#define CR_MAX_DECISIONS 1024

struct cr_sample {
  struct cr_decision_key what;
  cr_u64 at_ns; /* CLOCK_BOOTTIME */
};
#define CR_SAMPLE_RING_BYTES 65536                 /* 24 bytes a sample: a minute and more at the steady rate */
#define CR_SAMPLE_INTERVAL_NS (1000000000ull / 32) /* of the steady rate */
#define CR_SAMPLE_BURST_NS 2000000000ull           /* of that rate, after a quiet time */

/* Value 0 of the state map. */
struct cr_control {
  cr_u32 state;
  cr_u32 reserved;
};

#endif /* CELLRUN_EGRESS_ABI_H */
