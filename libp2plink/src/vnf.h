/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's side, inside: who owns what.
 *
 *   p2p_port      what the application has.  Lives from open to close.
 *   vnf_map       the attached port region.  Replaced as a whole when the switch gives the port a new region.
 *   vnf_chan      a mapped link region.
 *
 * Data threads find the map by port->map, and the channels by map->tx_chan and map->rx_chan, inside an RCU read-side
 * section; the control thread, which alone makes and ends these objects, publishes them with p2p_rcu_set() and
 * frees them after a grace period.  It never waits for an application that does not call: packets that were handed out
 * in place keep the *addresses* of a region reserved (struct vnf_grave), not the region.
 *
 * Files: vnf_data.c is the hot path; vnf_port.c opens, closes and runs the control thread; vnf_words.c is the control
 * protocol (words in the port region); vnf_socket.c and vnf_pci.c are the two ways of getting at memory.
 */
#ifndef P2P_VNF_H
#define P2P_VNF_H 1

#include <pthread.h>
#include <stdatomic.h>
#include <p2plink/control.h>
#include <p2plink/layout.h>
#include <p2plink/vnf.h>
#include "region.h"
#include "ring.h"
#include "util.h"

#define VNF_LINE __attribute__((aligned(128)))

/* A mapped link region, seen from one side. */
struct vnf_chan {
    struct p2p_region region;
    uint32_t link_id;
    uint64_t serial;                      /* Of this mapping: never 0, never twice in a process. */
    unsigned side;                        /* Ours. */
    unsigned n_tx, n_rx;                  /* Our queues in it; the peer's. */
    struct p2p_prod tx[P2P_MAX_QUEUES];   /* By our transmit queue. */
    struct p2p_cons rx[P2P_MAX_QUEUES];   /* By the peer's transmit queue. */
    uint32_t passed[P2P_MAX_QUEUES];      /* Epoch whose b_cut our normal ring has passed.  Its rx thread's. */
    bool ending;                          /* No more than 'last' is to be received.  The control thread's. */
    uint32_t last[P2P_MAX_QUEUES];        /* The heads of 'rx' when that began. */
};

struct vnf_txq {
    struct p2p_prod normal;
    uint32_t using_link;    /* Link whose direct ring the last burst used; 0: none. */
    uint32_t epoch;         /* Last epoch begun. */
} VNF_LINE;

/* A stretch of a ring to be served before the next one. */
struct vnf_seg {
    struct p2p_cons *ring;
    uint32_t upto;
    bool direct;
};

/* What one receive burst after another works off: taken at one moment, in the order that the protocol asks for. */
struct vnf_rxq {
    struct p2p_cons normal;
    struct vnf_seg seg[2 * P2P_MAX_QUEUES + 1];
    unsigned n_segs, cur;
    uint64_t chan_serial;         /* Of the channel that the segments were made with; 0: none. */
} VNF_LINE;

struct vnf_map {
    struct p2p_region region;
    struct p2p_switch_page *sw;
    struct p2p_vnf_page *vnf;
    unsigned n_txq, n_rxq;
    uint32_t max_frame;
    uint64_t session;
    struct vnf_chan *tx_chan;     /* RCU. */
    struct vnf_chan *rx_chan;     /* RCU. */

    /* The control thread's. */
    struct vnf_chan *chan[P2P_MAX_LINKS];
    uint64_t want_done[P2P_MAX_LINKS];  /* The want word that has been answered for good. */
    uint64_t mode_done, rx_link_done;

    struct vnf_txq tx[P2P_MAX_QUEUES];
    struct vnf_rxq rx[P2P_MAX_QUEUES];
};

/* A queue's part of what outlives maps: counters, and what the application still holds. */
struct vnf_txq_stats {
    uint64_t packets, bytes, direct_packets, direct_bytes, refused, epochs;
} VNF_LINE;
struct vnf_rxq_stats {
    uint64_t packets, bytes, direct_packets, direct_bytes, bad;
    uint32_t held;      /* 1: the application has packets in place. */
    uint32_t releases;  /* Changes when it gives them back. */
} VNF_LINE;

/* A region that is no longer used but whose addresses an application may still look at. */
struct vnf_grave {
    struct p2p_region region;
    uint32_t releases[P2P_MAX_QUEUES];
    uint32_t waiting;   /* Bit per receive queue. */
    struct vnf_grave *next;
};

struct p2p_port {
    struct vnf_map *map;  /* RCU; NULL while there is none. */
    struct vnf_txq_stats txs[P2P_MAX_QUEUES];
    struct vnf_rxq_stats rxs[P2P_MAX_QUEUES];

    /* Control. */
    char name[P2P_NAME_MAX];
    struct p2p_logger log;
    bool pci;
    char *socket_path, *sysfs;
    pthread_t thread;
    bool thread_running;
    atomic_bool stop;
    int wake_fd;                /* eventfd. */
    int event_fd;               /* eventfd: for the application. */
    uint32_t takes;             /* P2P_TAKES_*. */
    int sock;                   /* -1: not connected. */
    int uevent_fd;              /* -1: none. */
    bool registered;            /* The ATTACH has been answered on this connection. */
    bool said_away;             /* A line about the lost switch has been logged. */
    uint64_t retry_at_ms;
    struct vnf_grave *graves;

    /* Link regions that came through the socket, until a 'want' word asks for them. */
    struct vnf_offer {
        uint32_t link_id;
        uint64_t generation, size;
        int fd;
    } offer[P2P_MAX_LINKS];

    /* Receive queues whose application sleeps; vnf_sleep.c. */
    struct vnf_sleep {
        pthread_mutex_t mutex;      /* Of 'armed' and 'fd'. */
        uint32_t armed;             /* Bit per queue. */
        int fd[P2P_MAX_QUEUES];     /* The application's. */
        uint32_t kick;              /* Futex: the sleeper shall look anew. */
        pthread_t thread;
        bool running;
    } sleep;

    /* For p2p_port_get_info(). */
    pthread_mutex_t info_mutex;
    struct p2p_port_info info;
};

/* vnf_data.c, for those who put packets into the ring by themselves (the DPDK driver): what p2p_tx_burst() and
 * p2p_rx_burst() do around that. */
struct vnf_tx {
    struct p2p_prod *ring;      /* NULL: nobody is attached. */
    struct p2p_vnf_txq *words;
    bool direct;
};
/* Begins a burst: chooses its ring.  Returns false if there is none.  vnf_tx_end() follows in both cases, soon: in
 * between is an RCU read-side section. */
bool vnf_tx_begin(struct p2p_port *port, unsigned queue, struct vnf_tx *tx);
void vnf_tx_end(struct p2p_port *port, unsigned queue, const struct vnf_tx *tx, unsigned sent, uint64_t bytes,
                unsigned refused);
/* p2p_rx_burst() that also tells the descriptors' flags, unless 'flags' is NULL. */
unsigned vnf_rx_burst(struct p2p_port *port, unsigned queue, struct p2p_pkt *pkts, uint32_t *flags, unsigned n);
/* Tells those who send to 'port' directly what its application can deal with: P2P_TAKES_*.  The control thread passes
 * it on; packets that are on their way may still be of the former kind. */
void vnf_set_takes(struct p2p_port *port, uint32_t takes);

/* vnf_port.c */
/* Introduces us in a port region, waits until the switch has accepted us, and puts the region in the place of the
 * former one.  Takes over 'region', also on failure. */
int vnf_map_publish(struct p2p_port *port, struct p2p_region *region, struct p2p_error *err);
/* Leaves the port region and all link regions. */
void vnf_map_retire(struct p2p_port *port);
/* Lets a region go that no data thread reads any more.  If the application may still hold packets of it, its addresses
 * stay reserved until they are released; 'blank' says that the memory itself has to go at once. */
void vnf_bury(struct p2p_port *port, struct p2p_region *region, bool blank);

/* vnf_words.c: looks at all control words once and does what they ask.  Returns true if something is still to be done
 * that only time brings on (a ring to drain, a device to appear). */
bool vnf_words_run(struct p2p_port *port);
void vnf_chan_free(struct p2p_port *port, struct vnf_chan *chan, bool blank);

/* vnf_sleep.c */
void vnf_sleep_run(struct p2p_port *port);   /* Makes the sleeper if it is needed. */
void vnf_sleep_kick(struct p2p_port *port);  /* Makes it look anew. */
void vnf_sleep_close(struct p2p_port *port); /* After 'stop' has been set. */

/* vnf_socket.c */
int vnf_socket_open(struct p2p_port *port, struct p2p_error *err);
void vnf_socket_run(struct p2p_port *port);
void vnf_socket_poke(struct p2p_port *port);
int vnf_socket_link(struct p2p_port *port, uint32_t link_id, uint64_t generation, struct p2p_region *region,
                    struct p2p_error *err);
void vnf_socket_close(struct p2p_port *port);

/* vnf_pci.c */
int vnf_pci_open(struct p2p_port *port, struct p2p_error *err);
void vnf_pci_run(struct p2p_port *port);
int vnf_pci_link(struct p2p_port *port, uint32_t link_id, uint64_t generation, struct p2p_region *region,
                 struct p2p_error *err);
void vnf_pci_close(struct p2p_port *port);
/* Of which port is the device whose folder in sysfs is 'dir'?  -ENODEV: of none. */
int vnf_pci_port_name(const char *dir, char name[P2P_NAME_MAX]);

#endif /* vnf.h */
