/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in shared memory: the layout of port regions and link regions.
 *
 * This header is the whole shared-memory ABI of p2plink and nothing else: no function that touches memory, no private
 * state.  docs/shared-memory.md tells the same in words.  Everything is little-endian, of fixed width, and addressed
 * by offsets from the start of the region; no pointer ever enters shared memory.
 *
 * A region starts with one page that its maker (vswitchd) fills in once, `struct p2p_region_header`.  Then:
 *
 *   port region:  | header | switch page | VNF page | rings: VNF to switch [0..n) | rings: switch to VNF [n..2n) |
 *   link region:  | header | rings: side 0 to side 1 [0..n0) | rings: side 1 to side 0 [0..n1)                   |
 *
 * "Written by" below is what the protocol asks for.  It is not what memory protection enforces: a VNF can write all of
 * its own port region and all of its links' regions.  So nobody believes anything that a stranger could have written:
 * vswitchd keeps private copies of all it wrote, and copies, then checks, all it reads.
 */
#ifndef P2PLINK_LAYOUT_H
#define P2PLINK_LAYOUT_H 1

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define P2P_PORT_MAGIC UINT64_C(0x54524f504c503250) /* "P2PLPORT" */
#define P2P_LINK_MAGIC UINT64_C(0x4b4e494c4c503250) /* "P2PLLINK" */

/* The layout that this header describes, and the oldest one that a library of this version still understands.  A region
 * says the same of itself: which layout it has, and the oldest library (by layout version) that may use it. */
#define P2P_LAYOUT_VERSION 1u
#define P2P_LAYOUT_VERSION_MIN 1u

#define P2P_CACHE_LINE 64u
#define P2P_PAGE 4096u
#define P2P_MAX_QUEUES 16u  /* Queues of a port, each way. */
#define P2P_MAX_LINKS 4u    /* Link regions that one port has mapped, or is mapping or unmapping, at a time. */
#define P2P_NAME_MAX 64u    /* Port name with its terminating zero. */
#define P2P_MTU_MIN 68u
#define P2P_MTU_MAX 9000u
#define P2P_FRAME_OVERHEAD 22u /* Ethernet header and two VLAN tags; MTU + this is the longest frame. */
#define P2P_FRAME_MIN 14u      /* An Ethernet header. */

/* Where a ring lies.  All offsets are from the start of the region and multiples of a cache line.  'n_desc' is a power
 * of two. */
struct p2p_ring_geometry {
    uint64_t ctl_off;   /* struct p2p_ring_ctl. */
    uint64_t desc_off;  /* n_desc times struct p2p_desc. */
    uint64_t data_off;  /* data_size bytes of packet data. */
    uint32_t n_desc;
    uint32_t data_size;
};
static_assert(sizeof(struct p2p_ring_geometry) == 32, "ABI");

/* The first page of a region.  Written once, by the maker, before anybody else sees it; 'magic' last. */
struct p2p_region_header {
    uint64_t magic;
    uint32_t version;     /* Layout version of this region. */
    uint32_t version_min; /* Oldest layout version whose library may use it. */
    uint64_t features;    /* P2P_FEATURE_*.  A reader refuses a region that needs a feature it does not know. */
    uint64_t size;        /* Of the whole region, bytes, a power of two. */
    uint64_t generation;  /* Never 0, never used again by the same host. */
    uint32_t link_id;     /* Link region: its id, never 0.  Port region: 0. */
    uint32_t mtu;         /* L3 MTU, bytes. */
    uint32_t n_queues[2]; /* Port region: [0] VNF to switch, [1] switch to VNF.  Link region: [0] queues of side 0's
                           * sender, [1] of side 1's. */
    uint8_t mac[6];       /* Port region: the port's address. */
    uint16_t pad;
    int32_t numa_node;    /* Where the memory was asked for, or -1. */
    char name[2][P2P_NAME_MAX]; /* Port region: [0] the port.  Link region: the ports of side 0 and side 1. */
    uint64_t switch_page_off;   /* Port region only. */
    uint64_t vnf_page_off;      /* Port region only. */
    struct p2p_ring_geometry ring[2 * P2P_MAX_QUEUES]; /* n_queues[0] of them, then n_queues[1]. */
};
static_assert(sizeof(struct p2p_region_header) <= P2P_PAGE, "ABI");

/* A packet in a ring.  Written by the producer before it moves 'head' over it; copied, then checked, by the consumer.
 * */
struct p2p_desc {
    uint32_t off;   /* Of the first byte, from the ring's data_off. */
    uint32_t len;   /* Bytes. */
    uint32_t flags; /* P2P_DESC_*. */
    uint32_t hash;  /* Symmetric or not, the sender's RSS hash, valid with P2P_DESC_HASH. */
};
static_assert(sizeof(struct p2p_desc) == 16, "ABI");

#define P2P_DESC_HASH UINT32_C(0x1)
/* The checksum of this IPv4 or IPv6 packet's TCP or UDP is not there yet.  Only in a direct ring, and only if its
 * consumer says P2P_TAKES_CSUM: the packet comes straight from its sender's memory, and perhaps goes no further. */
#define P2P_DESC_CSUM UINT32_C(0x2)
/* A TCP packet of up to P2P_TSO_MAX bytes that stands for several, as TCP segmentation would make of it; with
 * P2P_DESC_CSUM.  Only if the consumer says P2P_TAKES_TSO.  The flags have the payload of a segment in their upper
 * half, and the length of the headers, which is even, in bits 8 to 15. */
#define P2P_DESC_TSO UINT32_C(0x4)
#define P2P_TSO_MAX (65535u + P2P_FRAME_OVERHEAD)
static inline uint32_t p2p_desc_tso(uint32_t payload, uint32_t headers)
{
    return payload << 16 | (headers / 2 & 0xff) << 8 | P2P_DESC_TSO | P2P_DESC_CSUM;
}
static inline uint32_t p2p_desc_tso_payload(uint32_t flags) { return flags >> 16; }
static inline uint32_t p2p_desc_tso_headers(uint32_t flags) { return (flags >> 8 & 0xff) * 2; }

/* What the consumer of a direct ring can deal with; 0: plain packets only. */
#define P2P_TAKES_CSUM UINT32_C(0x1)
#define P2P_TAKES_TSO UINT32_C(0x2)

/* Single-producer single-consumer ring.  Indices run freely over 32 bits and may wrap: 'n_desc' divides 2^32, so that
 * index modulo n_desc stays right across the wrap and (head - tail) is always the number of packets in the ring.
 * Producer's and consumer's words are two cache lines apart, since processors fetch lines in pairs. */
struct p2p_ring_ctl {
    /* Written by the producer. */
    uint32_t head;      /* Where it writes next. */
    uint32_t pad0;
    uint64_t start;     /* Direct rings: the sender's copy of its 'start' word, for the receiver. */
    uint8_t pad1[48];
    uint32_t wake;      /* Not 0: the consumer sleeps on this word (futex).  Set by it, which is rare, so that the line
                         * stays with the producer; cleared by the producer, who then wakes it. */
    uint8_t pad3[60];
    /* Written by the consumer. */
    uint32_t tail;      /* Where it reads next: what lies before it has been received. */
    uint32_t freed;     /* What lies before it may be overwritten.  tail - freed packets are still being looked at. */
    uint32_t takes;     /* P2P_TAKES_*. */
    uint8_t pad2[116];
};
static_assert(sizeof(struct p2p_ring_ctl) == 256, "ABI");

/*
 * Control words.
 *
 * The control protocol between vswitchd and a VNF is level-triggered: each side writes words that say what it wants or
 * what it has, each word is 64 bits and written whole, and the other side may look at any time, as often as it likes.
 * There is no message that could be lost, and a side that comes back after a pause or a restart just looks.
 */

/* 'mode', written by vswitchd into the sender's port region: where the sender's next bursts shall go.
 * 'seq' changes at each store, so that an acknowledgement names one store. */
static inline uint64_t p2p_mode(uint32_t link_id, uint32_t seq, bool direct)
{
    return (uint64_t)link_id << 32 | (uint32_t)(seq << 1) | direct;
}
static inline uint32_t p2p_mode_link(uint64_t m) { return m >> 32; }
static inline bool p2p_mode_direct(uint64_t m) { return m & 1; }

/* 'start' = {epoch, cut} and 'gate' = {epoch, b_cut}.  Epoch 0 means never. */
static inline uint64_t p2p_epoch_word(uint32_t epoch, uint32_t index) { return (uint64_t)epoch << 32 | index; }
static inline uint32_t p2p_word_epoch(uint64_t w) { return w >> 32; }
static inline uint32_t p2p_word_index(uint64_t w) { return (uint32_t)w; }

/* 'rx_link', written by vswitchd into the receiver's port region: which link to receive from. */
enum p2p_rx_state {
    P2P_RX_NONE = 0,   /* No link. */
    P2P_RX_ACTIVE = 1, /* Serve that link's direct rings beside the normal ones. */
    P2P_RX_DRAIN = 2,  /* The sender has left it for good: serve it until it is empty, then let it go. */
    P2P_RX_DROP = 3,   /* Let it go now, empty or not. */
};
static inline uint64_t p2p_rx_link(uint32_t link_id, uint32_t seq, enum p2p_rx_state state)
{
    return (uint64_t)link_id << 32 | (uint32_t)(seq << 2) | (uint32_t)state;
}
static inline uint32_t p2p_rx_link_id(uint64_t w) { return w >> 32; }
static inline enum p2p_rx_state p2p_rx_link_state(uint64_t w) { return (enum p2p_rx_state)(w & 3); }

/* 'want', written by vswitchd: what to do with a link region. */
enum p2p_want {
    P2P_WANT_NONE = 0,
    P2P_WANT_MAP = 1,   /* Find it, check it, map it, say so. */
    P2P_WANT_UNMAP = 2, /* Unmap it, say so. */
};
static inline uint64_t p2p_want(uint32_t link_id, unsigned side, enum p2p_want want)
{
    return (uint64_t)link_id << 32 | side << 8 | (uint32_t)want;
}
static inline uint32_t p2p_want_link(uint64_t w) { return w >> 32; }
static inline unsigned p2p_want_side(uint64_t w) { return w >> 8 & 1; }
static inline enum p2p_want p2p_want_what(uint64_t w) { return (enum p2p_want)(w & 0xff); }

/* 'have', written by the VNF: the answer. */
enum p2p_have {
    P2P_HAVE_NONE = 0,
    P2P_HAVE_MAPPED = 1,
    P2P_HAVE_UNMAPPED = 2,
    P2P_HAVE_FAILED = 3, /* With a positive errno. */
};
static inline uint64_t p2p_have(uint32_t link_id, int error, enum p2p_have have)
{
    return (uint64_t)link_id << 32 | ((uint32_t)error & 0xffff) << 8 | (uint32_t)have;
}
static inline uint32_t p2p_have_link(uint64_t w) { return w >> 32; }
static inline int p2p_have_error(uint64_t w) { return w >> 8 & 0xffff; }
static inline enum p2p_have p2p_have_what(uint64_t w) { return (enum p2p_have)(w & 0xff); }

/* Second page of a port region: written by vswitchd, read by the VNF. */
struct p2p_switch_page {
    /* Read by the VNF's data threads at each burst; changes only with links. */
    uint64_t mode;
    uint64_t rx_link;
    uint8_t pad0[48];
    uint64_t gate[P2P_MAX_QUEUES]; /* By the *sender's* queue.  Written by the PMD that polls that queue. */
    /* Read by the VNF's control thread. */
    uint64_t session;   /* Copy of the VNF's session word: the rings are empty and yours. */
    uint64_t heartbeat; /* Changes while vswitchd lives. */
    uint64_t link_up;   /* 1: the port is up in the switch. */
    uint64_t pad1[5];
    uint64_t want[P2P_MAX_LINKS];
    uint64_t want_generation[P2P_MAX_LINKS]; /* Of the region that want[i] means; stored before it. */
};
static_assert(sizeof(struct p2p_switch_page) == 320, "ABI");
static_assert(sizeof(struct p2p_switch_page) <= P2P_PAGE, "ABI");

/* What one transmit queue of a VNF says.  'start' lies apart from the counters: the PMD reads it at each poll, and must
 * not take the counters' line away from a sender that is busy on a direct ring. */
struct p2p_vnf_txq {
    uint64_t start;
    uint8_t pad0[56];
    uint64_t direct_packets; /* Put into direct rings since the region was made. */
    uint64_t direct_bytes;
    uint64_t refused;        /* Transmits that found the ring full: the packet stayed with the application. */
    uint64_t pad1;
    uint64_t epochs;         /* Direct epochs begun. */
    uint8_t pad2[24];
};
static_assert(sizeof(struct p2p_vnf_txq) == 128, "ABI");

struct p2p_vnf_rxq {
    uint64_t polls;          /* Receive bursts, empty ones included: changes while the application polls. */
    uint64_t direct_packets; /* Taken from direct rings. */
    uint64_t direct_bytes;
    uint64_t bad_descs;      /* Descriptors refused. */
    uint64_t pad[4];
};
static_assert(sizeof(struct p2p_vnf_rxq) == 64, "ABI");

/* Third page of a port region: written by the VNF, read by vswitchd. */
struct p2p_vnf_page {
    uint64_t session;     /* Drawn anew at each attach, never 0; 0: nobody.  Stored last. */
    uint64_t heartbeat;   /* Changes while the VNF's control thread lives. */
    uint32_t version;     /* Layout version of its library. */
    uint32_t pid;         /* For people. */
    uint64_t mode_ack;    /* The mode word that no data thread is older than: after a grace period. */
    uint64_t rx_link_ack; /* The rx_link word that has been carried out. */
    uint64_t pad0[3];
    uint64_t have[P2P_MAX_LINKS];
    uint64_t pad1[4];
    struct p2p_vnf_txq txq[P2P_MAX_QUEUES];
    struct p2p_vnf_rxq rxq[P2P_MAX_QUEUES];
};
static_assert(sizeof(struct p2p_vnf_page) == 128 + P2P_MAX_QUEUES * 192, "ABI");
static_assert(sizeof(struct p2p_vnf_page) <= P2P_PAGE, "ABI");

/* The PCI identity of the ivshmem device that carries a region into a guest, and the BAR that it is. */
#define P2P_PCI_VENDOR 0x1af4u
#define P2P_PCI_DEVICE 0x1110u
#define P2P_PCI_BAR 2
/* In the header type of its configuration space, the device of a port region has the multi-function bit (QEMU's
 * multifunction=on), that of a link region has not.  All that lies in a link region, its header too, can be written by
 * the peer, who must not be able to pass it off as a port region; this bit is the host's alone. */
#define P2P_PCI_HEADER_TYPE 0x0e
#define P2P_PCI_PORT_BIT 0x80u

#ifdef __cplusplus
}
#endif

#endif /* p2plink/layout.h */
