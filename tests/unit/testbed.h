/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A switch in this process: the library's switch side with a forwarding loop around it, for tests of the library.
 *
 * A "PMD" thread polls all queues of all ports and forwards each packet to the port that the test has said; a control
 * thread runs the switch.  Everything else, the VNFs too, is the real library over real sockets and memfds.
 */
#ifndef TESTBED_H
#define TESTBED_H 1

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <p2plink/layout.h>
#include <p2plink/switch.h>
#include <p2plink/vnf.h>

#define TESTBED_PORTS 4

struct testbed_port {
    struct p2p_swport *port;
    atomic_int forward_to;              /* Index, or -1: drop. */
    _Atomic uint64_t rx, tx, tx_dropped; /* What the switch has seen. */
};

struct testbed {
    struct p2p_switch *sw;
    struct p2p_switch_config cfg;
    char dir[64], socket[96];
    struct testbed_port port[TESTBED_PORTS];
    atomic_int n_ports;
    unsigned flush_every;               /* Output batches are flushed each so many polls; 1: always. */
    atomic_bool auto_confirm;
    atomic_uint lose_one;               /* The switch loses so many packets: does the test notice? */
    atomic_bool stop, pause;            /* 'pause': the PMD does nothing. */
    pthread_mutex_t lock;               /* Held while ports are used, and while they come and go. */
    pthread_t control, pmd;
};

/* Fills in 'tb->cfg' with defaults for tests; change it before testbed_start(). */
void testbed_init(struct testbed *tb);
void testbed_start(struct testbed *tb);
int testbed_add_port(struct testbed *tb, const char *name, unsigned n_queues, uint32_t mtu);
/* Takes a port away, and puts one (back) in its place, while everything runs. */
void testbed_remove_port(struct testbed *tb, int port);
void testbed_put_port(struct testbed *tb, int port, const char *name, unsigned n_queues, uint32_t mtu);
void testbed_reconfigure(struct testbed *tb, int port, unsigned n_queues, uint32_t mtu);
/* The switch ends in good order, and another one begins with the same ports. */
void testbed_restart(struct testbed *tb);
void testbed_stop(struct testbed *tb);
void testbed_clean(struct testbed *tb); /* Removes the files of a switch that was somewhere else. */
void testbed_forward(struct testbed *tb, int from, int to); /* The normal way. */
struct p2p_port *testbed_vnf(struct testbed *tb, const char *name); /* Attaches, or ends the test. */
/* Waits until 'port' sends in state 'state'.  False: it has not come to that in 10 s. */
bool testbed_wait_state(struct testbed *tb, int port, enum p2p_link_state state);
/* Waits until a VNF is there, or not. */
bool testbed_wait_attached(struct testbed *tb, int port, bool attached);
/* Waits until 'port' has let go of its channel, as a sender. */
bool testbed_wait_unlinked(struct testbed *tb, int port);
void testbed_sleep_ms(unsigned ms);
uint64_t testbed_now_ms(void);

#endif
