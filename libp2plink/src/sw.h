/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's side, inside: who owns what.
 *
 *   p2p_switch    one; its mutex guards all that is not said to be a data thread's.
 *   p2p_swport    a port, from create to destroy.  As a *sender* it is one direction of traffic: target, state,
 * channel.
 *                 As a *receiver* it remembers whose channel ends here.
 *   sw_region     the port region with both ends of its normal rings.  Replaced as a whole; data threads find it by
 *                 port->region inside an RCU read-side section.
 *   sw_chan       a link region with its two ends: from making to wiping.  Shared by the two directions of a pair.
 *   sw_conn       a connection on the unix socket: a VNF's, or the agent's.
 *   sw_former     a region that is over, until nobody honest can still be reading it.
 *
 *   sw_ledger     what is remembered over a restart, a page per port (sw_ledger.h).
 *
 * Files: sw_data.c is the hot path; sw_switch.c the main loop; sw_conn.c the socket; sw_port.c ports and VNFs that come
 * and go; sw_adopt.c VNFs and links from before a restart; sw_link.c the state machine of a direction; sw_chan.c the
 * life of a link region; sw_former.c memory that processes may have kept; sw_stats.c counters.
 *
 * The VNFs can write all of their regions at any time.  Nothing here reads back what it wrote there: every word has its
 * private copy.
 */
#ifndef P2P_SW_H
#define P2P_SW_H 1

#include <pthread.h>
#include <stdatomic.h>
#include <p2plink/control.h>
#include <p2plink/layout.h>
#include <p2plink/switch.h>
#include "region.h"
#include "ring.h"
#include "sw_ledger.h"
#include "util.h"

#define SW_LINE __attribute__((aligned(128)))

/* VNF to switch: polled by one PMD at a time. */
struct sw_rxq {
    struct p2p_cons ring;
    uint32_t *gate_epoch; /* The epoch that the receiver's gate carries; 0: none, or its gates have been cleared.  In
                           * the ledger. */
    bool wants_flush;
    uint64_t hold_seen;   /* Ticket of the last hold that the queue's PMD has come upon. */
    uint64_t bad;         /* Descriptors refused. */
} SW_LINE;

/* Switch to VNF: fed by any number of threads. */
struct sw_txq {
    struct p2p_prod ring;
    atomic_flag lock;
} SW_LINE;

struct sw_region {
    struct p2p_region region;
    struct p2p_switch_page *sw;
    struct p2p_vnf_page *vnf;
    unsigned n_queues;
    bool by_socket;              /* A process has it: who writes there without a connection is not let in. */
    uint32_t pid;                /* That process, as the kernel says; 0: not known. */
    bool rx_ready;               /* The VNF's rings may be taken from. */
    bool tx_ready;               /* There is a VNF to put packets for. */
    bool gate_awaited;           /* Adopted; 'gate_to' may be yet to come, and cuts hold until then. */
    struct sw_region *gate_to;   /* RCU: where the gates of what this VNF sends are published. */
    struct sw_rxq rx[P2P_MAX_QUEUES];
    struct sw_txq tx[P2P_MAX_QUEUES];
};

/* How far the receiver of a direction is with its channel. */
enum sw_rx_stage {
    SW_RX_OFF,       /* It knows nothing of it. */
    SW_RX_STARTING,  /* Told to serve it; no answer yet. */
    SW_RX_ON,
    SW_RX_DRAINING,  /* Told to empty it and let go. */
    SW_RX_DROPPING,  /* Told to let go. */
};

struct p2p_swport {
    struct p2p_switch *sw;
    struct p2p_swport *next;
    char name[P2P_NAME_MAX];
    struct p2p_swport_config cfg;   /* .name is not used. */
    struct sw_ledger_port *ledger;  /* Its page. */

    struct sw_region *region;       /* RCU. */
    _Atomic uint64_t hold_until;    /* CLOCK_MONOTONIC ns; 0: not held. */
    _Atomic uint64_t hold_ticket;
    uint64_t hold_told;             /* Ticket of the last hold that was said to have been seen by all queues. */
    _Atomic uint64_t holds_expired;
    uint64_t holds;

    /* The VNF. */
    struct sw_conn *conn;           /* A process. */
    bool claimed;                   /* The agent has a VM for this port. */
    bool used;                      /* Somebody has had this region: the next one gets a fresh one. */
    bool attached;
    bool in_guest;
    bool link_up;
    uint64_t session;               /* The VNF's, accepted; 0: none. */
    uint64_t heartbeat, heartbeat_ms;
    struct sw_conn *waiting;        /* Wants to attach as soon as the former VNF's links are over. */
    uint32_t waiting_seq;
    bool said_by_hand;
    uint32_t replug_seq;            /* Of the REPLUG that the agent has not answered yet; 0: none. */

    /* As a sender. */
    struct p2p_swport *target;      /* What the switch wants; NULL: nothing. */
    char why[256];
    uint64_t ticket;                /* Changes with the target. */
    enum p2p_link_state state;
    struct p2p_swport *to;          /* Whom the channel leads to, from PROVISIONING until its end. */
    struct sw_chan *out;
    enum sw_rx_stage stage;
    bool ending;                    /* Stage goes to OFF, whatever happens. */
    bool adopted;                   /* Direct since before a restart, and not confirmed since. */
    bool confirmed;
    uint32_t mode_seq;
    uint64_t deadline_ms;           /* Of the state. */
    uint64_t stage_deadline_ms;
    uint64_t linger_until_ms;
    uint64_t retry_at_ms;

    /* As a receiver. */
    struct p2p_swport *rx_from;
    uint32_t rx_seq;
    uint64_t polls, polls_changed_ms;

    struct sw_chan *slot[P2P_MAX_LINKS];

    /* Counters, see sw_stats.c. */
    uint64_t base_ns;
    struct sw_counts first[P2P_MAX_QUEUES]; /* The VNF's words when it came, and what was not believed since. */
    uint64_t first_ns;
    uint32_t late[P2P_MAX_QUEUES];          /* Packets that may still be counted although the direction is over. */
    uint64_t refused_base, refused_sum, epochs_base, epochs_sum, bad_sum;
    char last_error[256];
};

/* One VNF's end of a link region. */
enum sw_end_state {
    SW_END_AWAITED,                 /* Its VNF, which has it, has not come back yet. */
    SW_END_MAPPING,
    SW_END_MAPPED,
    SW_END_UNMAPPING,
    SW_END_UNPLUGGING,
    SW_END_GONE,
};

struct sw_end {
    struct p2p_swport *port;        /* NULL when the port is gone. */
    char name[P2P_NAME_MAX];
    unsigned slot;
    enum sw_end_state state;
    uint64_t deadline_ms;
    uint32_t pid;                   /* Of the process; 0: not known. */
    bool unmapped;                  /* The VNF has said that it has let go, or good-bye. */
    bool unplugged;                 /* The agent has said that the device is gone. */
    bool guest;                     /* Has a device for it (or may have). */
    bool plug_sent;
    uint32_t plug_seq;              /* Of the question to the agent that is not answered yet; 0: none. */
};

struct sw_chan {
    struct sw_chan *next;
    uint32_t id;
    struct p2p_region region;
    struct sw_end end[2];           /* By side. */
    bool closing;
    bool forced;                    /* A VNF or VM has not let it go in time. */
    uint64_t idle_since_ms;         /* 0: in use. */
    int error;                      /* Why it cannot be used, negative errno. */
};

/* A region that a client says it has had since before our restart. */
struct sw_offer {
    uint32_t link_id;               /* 0: the port region. */
    uint64_t generation, size;
    int fd;                         /* -1: none. */
    char name[P2P_NAME_MAX];
};

#define SW_MAX_OFFERS 64

struct sw_conn {
    struct sw_conn *next;
    int fd;
    struct sw_offer *offers;        /* Until they are used. */
    unsigned n_offers;
    uint32_t role;                  /* 0 before HELLO. */
    uint32_t pid, uid;              /* The client's, as the kernel says. */
    struct p2p_swport *port;        /* A VNF's. */
    bool dead;
};

struct p2p_switch {
    struct p2p_switch_config cfg;
    char *socket_path;
    pthread_mutex_t mutex;
    int listen_fd, epoll_fd, wake_fd, lock_fd;
    struct p2p_logger log;
    struct p2p_swport *ports;
    struct sw_chan *chans;
    struct sw_former *formers;      /* Newest first. */
    unsigned former_ms;             /* How long they are kept at most. */
    struct sw_conn *conns, *agent;
    uint32_t next_link_id, next_seq;
    uint64_t heartbeat_ms;
    struct sw_ledger ledger;
    bool restoring;                 /* Flow tables are being restored: adopted links stay. */
    bool busy;                      /* Something waits for a VNF's word: look often. */
    bool said_full;                 /* A line about a connection that could not be accepted has been logged. */
    uint64_t accept_again_ms;       /* No connections are accepted until then; 0: they are. */
};

/* sw_port.c */
void sw_port_run(struct p2p_swport *port, uint64_t now);
void sw_port_detach(struct p2p_swport *port, const char *why);
void sw_port_attach(struct p2p_swport *port, struct sw_conn *conn, uint32_t seq, const struct sw_offer *offer);
void sw_port_claim(struct p2p_swport *port, struct sw_conn *conn, uint32_t seq, const struct sw_offer *offer);
struct sw_region *sw_region_wrap(struct p2p_swport *port, struct p2p_region *region, struct p2p_error *err);
void sw_port_put_region(struct p2p_swport *port, struct sw_region *r);
bool sw_region_left(const struct sw_region *r);
void sw_port_unclaim(struct p2p_swport *port);
bool sw_port_answer(struct p2p_switch *sw, const struct p2p_msg *m); /* False: it answers something else. */
struct p2p_swport *sw_port_find(struct p2p_switch *sw, const char *name);
void sw_port_set_mode(struct p2p_swport *port, uint32_t link_id, bool direct);
void sw_port_set_rx(struct p2p_swport *port, uint32_t link_id, enum p2p_rx_state state);
int sw_port_plug_commands(const struct p2p_swport *port, char *text, size_t size);
void sw_port_poke(struct p2p_swport *port);
void sw_port_error(struct p2p_swport *port, const char *fmt, ...) P2P_PRINTF(2, 3);

/* sw_adopt.c */
bool sw_adopt_port(struct p2p_swport *port, struct sw_conn *conn, const struct sw_offer *offer);
void sw_adopt_links(struct p2p_swport *port, struct sw_conn *conn);

/* sw_link.c */
void sw_dir_run(struct p2p_swport *from, uint64_t now);
void sw_dir_sender_gone(struct p2p_swport *from, uint64_t now);
void sw_dir_abort(struct p2p_swport *from); /* At once, without anybody's answer. */
void sw_dir_adopt(struct p2p_swport *from, struct p2p_swport *to, struct sw_chan *chan);

/* sw_chan.c */
int sw_chan_get(struct p2p_swport *a, struct p2p_swport *b, struct sw_chan **chanp, struct p2p_error *err);
void sw_chan_run(struct sw_chan *chan, uint64_t now);
void sw_chan_reap(struct p2p_switch *sw);
void sw_chan_answer(struct p2p_switch *sw, const struct p2p_msg *m);
void sw_chan_vnf_gone(struct p2p_swport *port);
void sw_chan_port_gone(struct p2p_swport *port);
void sw_chan_agent_came(struct p2p_swport *port);
struct sw_chan *sw_chan_adopt(struct p2p_switch *sw, const struct sw_offer *offer, struct p2p_error *err);
static inline unsigned sw_chan_side(const struct sw_chan *c, const struct p2p_swport *p) { return c->end[1].port == p; }
static inline bool sw_chan_ready(const struct sw_chan *c)
{
    return !c->closing && !c->error && c->end[0].state == SW_END_MAPPED && c->end[1].state == SW_END_MAPPED;
}

/* sw_former.c */
#define SW_FORMER_MAX (2 * (1 + P2P_MAX_LINKS)) /* Of one port. */
#define SW_FORMER_MS 60000u
bool sw_former_ended(uint32_t pid); /* Has that process surely ended? */
/* Takes over 'region', which a VNF of port 'name' may still have mapped. */
void sw_former_keep(struct p2p_switch *sw, const char *name, struct p2p_region *region);
void sw_former_run(struct p2p_switch *sw, uint64_t now);
void sw_former_free(struct p2p_switch *sw);

/* sw_stats.c */
void sw_stats_rebase(struct p2p_swport *port);
void sw_stats_adopt(struct p2p_swport *port);
void sw_stats_orphan(struct p2p_swport *port);
void sw_stats_sync(struct p2p_swport *port);
void sw_stats_over(struct p2p_swport *port);
uint32_t sw_stats_left(const struct sw_chan *chan, unsigned from_side);
/* The same, and the receiver, if it should be alive after all, does not find them any more.  The channel is of no use
 * after that. */
uint32_t sw_stats_withdraw(struct sw_chan *chan, unsigned from_side);

/* sw_conn.c */
void sw_conn_accept(struct p2p_switch *sw);
void sw_conn_run(struct p2p_switch *sw, uint64_t now);
void sw_conn_input(struct p2p_switch *sw, struct sw_conn *conn);
void sw_conn_drop(struct p2p_switch *sw, struct sw_conn *conn);
void sw_conn_reap(struct p2p_switch *sw);
const struct sw_offer *sw_conn_offer(const struct sw_conn *conn, const char *name, uint32_t link_id);
void sw_conn_send_region(struct sw_conn *conn, uint32_t seq, enum p2p_msg_type type, const char *name,
                         const struct p2p_region *r);
void sw_conn_send_error(struct sw_conn *conn, uint32_t seq, int error, const char *fmt, ...) P2P_PRINTF(4, 5);
void sw_conn_send_port(struct sw_conn *conn, const struct p2p_swport *port, int error);
void sw_conn_send_ok(struct sw_conn *conn, uint32_t seq);
uint32_t sw_conn_seq(struct p2p_switch *sw);

void sw_changed(struct p2p_switch *sw);

#endif /* sw.h */
