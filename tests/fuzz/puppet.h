/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A switch, and the peer at the other end of a link, as a harness plays them against the VNF's side of the library.
 *
 * The library's port is a real one (p2p_port_open()), but its control thread is run by the harness, in its own thread
 * and when it likes (puppet_control()), and whenever the library waits, the puppet has its turn.  The puppet has real
 * ends of all rings.
 */
#ifndef PUPPET_H
#define PUPPET_H 1

#include <p2plink/control.h>
#include <p2plink/vnf.h>
#include "fuzz.h"
#include "region.h"
#include "ring.h"

#define PUPPET_LINKS 2
#define PUPPET_NAME "vnf"

struct puppet_region {
    struct p2p_region r;                    /* r.base NULL: none. */
    struct p2p_prod tx[P2P_MAX_QUEUES];     /* Towards the VNF, */
    struct p2p_cons rx[P2P_MAX_QUEUES];     /* and from it. */
    unsigned n_tx, n_rx;
    unsigned side;                          /* Link regions: the VNF's. */
};

struct puppet {
    char dir[72], path[80];
    int listen;
    int sock;                               /* -1: not connected. */
    struct puppet_region port;
    struct puppet_region link[PUPPET_LINKS];
    struct p2p_switch_page *sw;
    struct p2p_vnf_page *vnf;
    uint32_t next_link_id;
    uint32_t seq;                           /* For words that carry a number. */
    unsigned n_queues, n_peer_queues, mtu;

    /* What the puppet does when a message from the VNF comes; NULL: answers as a good switch does. */
    void (*on_msg)(struct puppet *, const struct p2p_msg *, int fd);
    /* At each turn; NULL: nothing more than taking in messages and repeating the session. */
    void (*on_turn)(struct puppet *);
    bool silent;                            /* Does not repeat the session. */

    struct p2p_port *vnf_port;              /* The library's. */
};

extern struct puppet puppet;

/* Once per process: a socket in a folder of its own, frozen time, turns. */
void puppet_init(void);
/* For each input. */
void puppet_begin(unsigned n_queues, unsigned n_peer_queues, unsigned mtu);
void puppet_end(void);

/* Opens the library's port.  Returns p2p_port_open()'s result. */
int puppet_open(void);
void puppet_close(void);
/* Lets the library's control thread run until it has waited 'turns' times. */
void puppet_control(unsigned turns);

void puppet_make_port(void);                /* A fresh port region; the former one is forgotten. */
void puppet_make_link(unsigned k);
void puppet_send(enum p2p_msg_type type, uint32_t seq, const struct puppet_region *r, int fd);
void puppet_answer(const struct p2p_msg *m); /* As a good switch does. */
void puppet_hang_up(void);

/* Words as a good switch stores them. */
void puppet_want(unsigned slot, unsigned k, enum p2p_want what);
void puppet_mode(unsigned k, bool direct);
void puppet_rx(unsigned k, enum p2p_rx_state state);
void puppet_open_gates(unsigned k);         /* For what the peer has begun on link 'k'. */
void puppet_start_epoch(unsigned k, unsigned queue, uint32_t epoch); /* As a good peer does. */

#endif /* puppet.h */
