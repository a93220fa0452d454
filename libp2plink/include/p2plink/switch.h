/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's side: ports that VNFs attach to, normal rings for the data path, and links.
 *
 * A virtual switch (OVS, through ovs-patch/) makes one `struct p2p_switch`, a `struct p2p_swport` for each of its
 * ports, polls and feeds them from its data-path threads, and says with p2p_swport_set_target() that all of a port's
 * traffic goes to another port.  The library does the rest: it makes link regions, gets them into the VNFs, moves the
 * traffic over and back, counts it.
 *
 * Threads:
 *  - one control thread of the switch's calls p2p_switch_run() over and over;
 *  - "any thread" calls take a mutex for a short time;
 *  - data-path calls (p2p_swport_rx_*, p2p_swport_tx_burst) take no mutex but the private lock of one transmit queue,
 *    never block, and are RCU readers (liburcu "bp": threads need not register).
 * Callbacks may come from any of these threads, with the switch's mutex held: they must not call back.
 */
#ifndef P2PLINK_SWITCH_H
#define P2PLINK_SWITCH_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/common.h>

#ifdef __cplusplus
extern "C" {
#endif

struct p2p_switch;
struct p2p_swport;

/* State of one direction of traffic: what a port sends. */
enum p2p_link_state {
    P2P_LINK_NORMAL,       /* Through the switch. */
    P2P_LINK_PROVISIONING, /* The link region is being made and brought into both VNFs. */
    P2P_LINK_SWITCHING,    /* Both have it; waiting for the confirmation and for the sender to hear of it. */
    P2P_LINK_DIRECT,       /* Mode DIRECT, both ends mapped. */
    P2P_LINK_REVERTING,    /* Mode NORMAL; waiting for the sender's answer, counters not final yet. */
};
P2P_EXPORT const char *p2p_link_state_name(enum p2p_link_state state);

struct p2p_switch_config {
    const char *socket;     /* Path to listen on; a stale socket there is replaced. */
    unsigned socket_mode;   /* File mode of the socket; 0: 0600. */
    bool use_hugepages;     /* Try huge pages first. */
    unsigned hold_max_ms;   /* Longest time that a sender's normal ring is held after a revert; 0: never hold. */
    unsigned linger_ms;     /* How long an unused link region is kept for a link that may come back. */
    unsigned drain_ms;      /* How long a receiver may take to empty a link that is over. */
    unsigned answer_ms;     /* How long a sender's control thread may take to answer before its link is ended by force.
                             * */
    unsigned plug_ms;       /* How long a VNF (and the agent) may take to map a link region. */
    unsigned heartbeat_ms;  /* A guest whose heartbeat stands still for so long is taken for dead. */
    unsigned retry_ms;      /* After a link could not be made: how long until the next attempt. */
    unsigned max_links;     /* Most link regions at a time. */
    uint32_t first_index;   /* Where ring indices begin: 0, but for tests of their wrap. */

    p2p_log_func *log;
    /* Something that people or the switch's main thread may want to know has changed: a link's state, a port's VNF.
     * Only wake somebody up. */
    void (*changed)(void *aux);
    void *aux;
};
P2P_EXPORT void p2p_switch_config_init(struct p2p_switch_config *cfg); /* Defaults. */

/* The library does not keep 'cfg'.  -EADDRINUSE: another switch listens there. */
P2P_EXPORT int p2p_switch_create(const struct p2p_switch_config *cfg, struct p2p_switch **swp, struct p2p_error *err);
/* All ports must have been destroyed, and no thread may be in p2p_switch_run(). */
P2P_EXPORT void p2p_switch_destroy(struct p2p_switch *sw);

/* Does what there is to do: sockets, VNFs' words, links, time limits.  Blocks for at most 'timeout_ms' (less when work
 * is due), or until p2p_switch_wake().  One thread. */
P2P_EXPORT void p2p_switch_run(struct p2p_switch *sw, unsigned timeout_ms);
P2P_EXPORT void p2p_switch_wake(struct p2p_switch *sw); /* Any thread, async-signal-safe. */

/*
 * Ports.
 */

struct p2p_swport_config {
    const char *name;    /* Less than P2P_NAME_MAX bytes. */
    unsigned n_queues;   /* 1 .. P2P_MAX_QUEUES, each way. */
    uint32_t mtu;        /* P2P_MTU_MIN .. P2P_MTU_MAX. */
    uint8_t mac[6];
    int numa_node;       /* -1: wherever. */
};

/* Makes a port that VNFs can attach to.  -EEXIST: the name is taken; -EINVAL; -ENOMEM and such.  Any thread. */
P2P_EXPORT int p2p_swport_create(struct p2p_switch *sw, const struct p2p_swport_config *cfg, struct p2p_swport **portp,
                                 struct p2p_error *err);
/* Ends the port's links, tells its VNF, frees its region after a grace period.  No data-path call on 'port' may be
 * running or follow.  Any thread; does not wait for VNFs. */
P2P_EXPORT void p2p_swport_destroy(struct p2p_swport *port);
/* Changes queues, MTU, address, NUMA node.  If any of them differs from before, the VNF gets a new region (and its
 * links end first).  No data-path call on 'port' may be running.  Any thread. */
P2P_EXPORT int p2p_swport_reconfigure(struct p2p_swport *port, const struct p2p_swport_config *cfg,
                                      struct p2p_error *err);
/* Tells the VNF whether the port is up in the switch. */
P2P_EXPORT void p2p_swport_set_link_up(struct p2p_swport *port, bool up);

/* Counters of the normal path, for the switch's netdev to keep: the library only remembers them over a restart of the
 * switch, which is why they lie in its memory.  A port that is made anew, not restarted, begins with zeros.  All words
 * are
 * 64 bits; whoever adds to one from several threads does so atomically. */
struct p2p_queue_counters {
    uint64_t packets, bytes;
    uint64_t pad[6];
};
struct p2p_swport_counters {
    struct p2p_queue_counters rx[16], tx[16]; /* P2P_MAX_QUEUES. */
    uint64_t rx_dropped[2], tx_dropped[2];    /* As the netdev sees fit. */
};
/* Valid until p2p_swport_destroy(). */
P2P_EXPORT struct p2p_swport_counters *p2p_swport_counters(struct p2p_swport *port);

/* While the switch restores its flow tables after a restart ('restoring'), links from before that it has adopted stay
 * as they are; when it is over, those that no p2p_swport_set_target() confirms are ended.  Any thread. */
P2P_EXPORT void p2p_switch_set_restoring(struct p2p_switch *sw, bool restoring);

/*
 * Data path.
 */

/* Takes up to 'n' packets that the VNF sent on its queue 'queue', and opens an RCU read-side section (also when it
 * returns 0) that p2p_swport_rx_end() closes; meanwhile '*pkts' may be copied from.  Lengths are checked: between
 * P2P_FRAME_MIN and MTU + overhead.  Contents are the VNF's and may change while they are read.
 *
 * 'flushed' says that all packets returned by earlier calls for this queue have been sent or dropped for good.  When
 * the queue needs that to be true before it can go on, p2p_swport_rx_wants_flush() says so, and the switch must flush
 * its output batches before its next call.  One thread per queue at a time. */
P2P_EXPORT unsigned p2p_swport_rx_begin(struct p2p_swport *port, unsigned queue, struct p2p_pkt *pkts, unsigned n,
                                        bool flushed);
P2P_EXPORT void p2p_swport_rx_end(struct p2p_swport *port, unsigned queue);
P2P_EXPORT bool p2p_swport_rx_wants_flush(const struct p2p_swport *port, unsigned queue);

/* Puts packets into the VNF's receive queue ('queue' modulo the number of queues) and returns how many went in; the
 * others found no room, or no VNF: they are the caller's to count as dropped.  As with p2p_tx_burst(), a packet of
 * impossible length ends the burst: the caller sorts those out before.  Any number of threads. */
P2P_EXPORT unsigned p2p_swport_tx_burst(struct p2p_swport *port, unsigned queue, const struct p2p_buf *bufs,
                                        unsigned n);

/*
 * Links.  Each direction is decided and moved by itself.
 */

/* Says that all that 'from' sends goes to 'to', unchanged, and nothing else happens to it; or, with 'to' NULL, that
 * this is not, or no longer, so, because of 'why' (a short phrase for people).  When it returns, no burst that begins
 * later enters a channel to anybody but 'to', and if a link was ended, 'from's normal ring is held until
 * p2p_swport_unhold() or a time limit.  Any thread; short. */
P2P_EXPORT void p2p_swport_set_target(struct p2p_swport *from, struct p2p_swport *to, const char *why);

/* A link whose both ends are ready waits for the switch to confirm it (by its own translation).  If 'from' is such a
 * link, stores the receiver and a ticket, and returns true.  p2p_swport_confirm() with that ticket moves the traffic,
 * or with 'ok' false ends the link (until its target is set anew); it returns false, and does nothing, if the target
 * has been set since.  Any thread.  'changed' is called when a link begins to wait. */
P2P_EXPORT bool p2p_swport_wants_confirm(struct p2p_swport *from, struct p2p_swport **to, uint64_t *ticket);
P2P_EXPORT bool p2p_swport_confirm(struct p2p_swport *from, uint64_t ticket, bool ok, const char *why);

/* If 'from' is held, and each of its queues has been polled since, returns true and stores the ticket of the hold: what
 * was taken from the queues before the hold has been processed, upcalls and all, and a revalidation that begins now
 * leaves nothing of the old tables behind.  'changed' is called when that has become so.  p2p_swport_unhold() ends that
 * hold, unless a newer one has begun.  Any thread. */
P2P_EXPORT bool p2p_swport_held(struct p2p_swport *from, uint64_t *ticket);
P2P_EXPORT void p2p_swport_unhold(struct p2p_swport *from, uint64_t ticket);

/*
 * Statistics.  All counters run from the creation of the port, never go backwards, and are exact when traffic rests.
 */

struct p2p_swport_stats {
    uint64_t out_packets, out_bytes; /* Sent by this port's VNF on direct channels (all it ever had). */
    uint64_t in_packets, in_bytes;   /* Sent to this port's VNF on direct channels. */
    uint64_t tx_refused;             /* The VNF's transmits that found a ring full, on both ways. */
    uint64_t rx_bad;                 /* Descriptors of the VNF that were refused by the switch. */
    uint64_t in_dropped;             /* Of 'in_packets', those the receiver left in the channel when the link was over.
                                      * */
};
/* Reads the VNFs' counters that bear on 'port', checks them, and stores the sums.  Any thread. */
P2P_EXPORT void p2p_swport_get_stats(struct p2p_swport *port, struct p2p_swport_stats *stats);

struct p2p_swport_info {
    char name[64];
    bool attached;            /* A VNF is there. */
    bool in_guest;            /* In a VM that the agent (or a person) plugged the port into. */
    uint32_t pid;             /* Of a process VNF, as the kernel says; else 0. */
    uint32_t n_queues, mtu;
    uint64_t region_size, generation;
    char memory[16];          /* "hugepages" or "tmpfs". */
    enum p2p_link_state state; /* Of what it sends. */
    char peer[64];            /* Where it sends to, or "" */
    char rx_peer[64];         /* Whose channel ends here, or "". */
    uint32_t link_id, rx_link_id; /* Of the region behind them, or 0. */
    uint64_t link_size;
    uint64_t switchovers;     /* Epochs begun by its data threads. */
    uint64_t rx_polls;        /* The VNF's receive bursts: changes while it polls. */
    long long rx_idle_ms;     /* Since that was last seen to change; -1: never. */
    uint32_t ring_used;       /* Packets in its direct rings (as receiver). */
    uint64_t holds, holds_expired;
    char last_error[256];     /* "" if none. */
    char why[256];            /* Why it has no target. */
};
P2P_EXPORT void p2p_swport_get_info(struct p2p_swport *port, struct p2p_swport_info *info);

/* Writes the QMP commands that plug 'port's region, and its links' regions, into a VM by hand; returns the length that
 * the whole text has (as snprintf() does). */
P2P_EXPORT int p2p_swport_plug_commands(struct p2p_swport *port, char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* p2plink/switch.h */
