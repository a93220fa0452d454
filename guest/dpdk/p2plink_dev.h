/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DPDK driver, inside: who owns what.
 *
 *   p2plink_dev   a port.  Lives from probe to close; made and changed by whoever calls ethdev's control functions,
 *                 which is one thread at a time; what may change while queues run is written by the interrupt thread,
 *                 whole.
 *   p2plink_rxq, p2plink_txq   a queue that has been set up.  Its data thread's.
 *   counters      of a queue, in the device: they outlive the queue.  Written by the queue's data thread only.
 *
 * The driver is a program on libp2plink's inner functions (vnf.h, ring.h) and has the library linked into it: packets
 * are copied straight from mbufs into rings, and from rings into mbufs.
 *
 * Files: p2plink_rxtx.c is the hot path; p2plink_offload.c what packets need that ask for more than being copied;
 * p2plink_ethdev.c the control path; p2plink_stats.c counters; p2plink_probe.c how a device is found.
 */
#ifndef P2PLINK_DEV_H
#define P2PLINK_DEV_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ethdev_driver.h>
#include <rte_mbuf.h>
#include "vnf.h"

#define P2PLINK_BURST 32u           /* Packets that are taken from a ring at a time. */
#define P2PLINK_STASH 64u           /* Empty mbufs that a receive queue has at hand. */
#define P2PLINK_OVERHEAD P2P_FRAME_OVERHEAD
#define P2PLINK_HEADERS_MAX 192u    /* Of a packet that is segmented. */
#define P2PLINK_SEGMENTS_MAX 256u   /* Of one packet. */
#define P2PLINK_MACS_MAX 16u

struct p2plink_dev;

struct p2plink_rx_counters {
    uint64_t packets, bytes;
    uint64_t too_long;      /* Longer than the MTU that the application has set, or than a buffer without scatter. */
    uint64_t no_mbuf;       /* Times that there was none; the packets wait in the ring. */
    uint64_t carried_csum;  /* Came with a checksum still to be computed. */
    uint64_t carried_tso;   /* Came as one, and stand for several. */
} __rte_cache_aligned;

struct p2plink_tx_counters {
    uint64_t packets, bytes;
    uint64_t bad;           /* Impossible lengths or offloads; thrown away. */
    uint64_t carried_csum;  /* Went without computing a checksum. */
    uint64_t carried_tso;   /* Went without being segmented. */
    uint64_t sw_csum;       /* Checksums of TCP and UDP that were computed here. */
    uint64_t sw_segments;   /* Made of packets with TSO. */
} __rte_cache_aligned;

struct p2plink_rxq {
    struct p2p_port *port;
    struct p2plink_rx_counters *count;
    struct rte_mempool *pool;
    uint64_t rearm;         /* An mbuf's fields at rearm_data. */
    uint32_t max_len;
    uint32_t max_tso;       /* Of packets that stand for several; 0: none are wanted. */
    uint16_t room;          /* Bytes of a frame in one mbuf. */
    uint16_t id, step;      /* Serves the port's queues id, id + step, ... */
    uint16_t cur;           /* The one whose packets are being looked at, or the next to look at. */
    bool running, scatter, want_hash, want_csum, strip_vlan, deferred;
    uint16_t n_desc;        /* As the application asked. */
    struct p2plink_dev *dev;

    uint16_t n_stash;
    uint16_t n, next;       /* Packets taken from queue 'cur', and the next of them. */
    struct p2p_pkt pkt[P2PLINK_BURST];
    uint32_t flags[P2PLINK_BURST];
    struct rte_mbuf *stash[P2PLINK_STASH];
} __rte_cache_aligned;

struct p2plink_txq {
    struct p2p_port *port;
    struct p2plink_tx_counters *count;
    uint16_t id;
    uint16_t n_desc;        /* As the application asked. */
    bool running, deferred;
} __rte_cache_aligned;

/* Counters as they were when they were reset. */
struct p2plink_base {
    struct p2plink_rx_counters rx[P2P_MAX_QUEUES];
    struct p2plink_tx_counters tx[P2P_MAX_QUEUES];
    struct p2p_port_stats lib;
};

struct p2plink_dev {
    struct p2p_port *port;
    char name[P2P_NAME_MAX];
    uint16_t n_rxq, n_txq;  /* The port's, which the switch may change at any time. */
    uint32_t mtu;           /* The port's. */
    bool started;
    bool intr_registered;
    struct rte_intr_handle *intr;
    bool rx_intr;           /* Receive interrupts are set up. */
    struct rte_ether_addr macs[P2PLINK_MACS_MAX];
    struct p2plink_rx_counters rx[P2P_MAX_QUEUES];
    struct p2plink_tx_counters tx[P2P_MAX_QUEUES];
    struct p2plink_base base;
};

/* Four fields of an mbuf that are set by one store: data_off, refcnt, nb_segs, port. */
static inline uint64_t *p2plink_rearm(struct rte_mbuf *m)
{
    return (uint64_t *)((char *)m + offsetof(struct rte_mbuf, rearm_data));
}

extern int p2plink_logtype;
#define P2PLINK_LOG(LEVEL, ...) rte_log(RTE_LOG_##LEVEL, p2plink_logtype, "p2plink: " __VA_ARGS__)

/* p2plink_rxtx.c */
uint16_t p2plink_rx_burst(void *rxq, struct rte_mbuf **pkts, uint16_t n);
uint16_t p2plink_tx_burst(void *txq, struct rte_mbuf **pkts, uint16_t n);

/* p2plink_offload.c */

/* What a transmit burst is at. */
struct p2plink_tx {
    struct vnf_tx vnf;
    uint32_t head;
    uint64_t bytes;
    uint32_t extra;         /* Packets that others stand for. */
    uint32_t takes;         /* P2P_TAKES_*, ... */
    bool takes_known;       /* ... if it has been asked for. */
};
/* Puts a packet that asks for offloads into the ring.  Returns how many packets that were, 0 if there is no room for
 * all of it, or -EINVAL if what it asks for is impossible. */
int p2plink_tx_offload(struct p2plink_txq *q, struct p2plink_tx *tx, struct rte_mbuf *m);
/* Copies 'len' bytes of 'm' from offset 'off' on. */
void p2plink_copy_out(const struct rte_mbuf *m, uint32_t off, uint32_t len, uint8_t *to);
/* Computes the checksum of the TCP or UDP packet in 'm', if it is one, and stores it. */
void p2plink_rx_csum(struct rte_mbuf *m);
uint16_t p2plink_tx_prepare(void *txq, struct rte_mbuf **pkts, uint16_t n);

/* p2plink_ethdev.c */
extern const struct eth_dev_ops p2plink_ops;
/* Begins and ends following the port's state. */
int p2plink_watch(struct rte_eth_dev *eth);
void p2plink_unwatch(struct rte_eth_dev *eth);

/* p2plink_stats.c */
int p2plink_stats_get(struct rte_eth_dev *eth, struct rte_eth_stats *stats);
int p2plink_stats_reset(struct rte_eth_dev *eth);
int p2plink_xstats_get(struct rte_eth_dev *eth, struct rte_eth_xstat *stats, unsigned n);
int p2plink_xstats_get_names(struct rte_eth_dev *eth, struct rte_eth_xstat_name *names, unsigned n);

#endif /* p2plink_dev.h */
