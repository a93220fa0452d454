/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What most tests of switch and VNFs need: a switch, VNFs with traffic, child processes; all of it gone again after the
 * test, however it ends.
 */
#ifndef FIXTURE_H
#define FIXTURE_H 1

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "child.h"
#include "testbed.h"

#define N_PEERS 4

/* A VNF in this process with a thread that sends numbered frames on all of its queues, and takes and checks what comes:
 * child.h's frames, in order by sender and queue. */
struct peer {
    struct p2p_port *port;
    uint32_t id;
    atomic_bool stop, mute, deaf;      /* Does not send; does not receive. */
    atomic_bool hoard;                 /* Takes, but does not release. */
    _Atomic uint64_t sent, got, missing, backward, odd;
    pthread_t thread;
    bool running;
    struct { uint32_t id; uint64_t next; } from[P2P_MAX_QUEUES];
};

struct fixture {
    struct testbed tb;
    struct peer peer[N_PEERS];
    struct p2p_port *vnf[N_PEERS];     /* Without a thread. */
    pid_t child[N_PEERS];
    bool started;
};
extern struct fixture fx;

int fixture_setup(void **state);       /* 'fx.tb' with short time limits, not started. */
int fixture_teardown(void **state);
/* Ports "a", "b", ... of one queue and MTU 1500; a and b are forwarded to each other. */
void fixture_start(unsigned n_ports);

struct peer *peer_start(const char *name, bool mute);
void peer_stop(struct peer *p);        /* Closes its port, too. */
void peer_wait_got(struct peer *p, uint64_t more); /* Until it has received 'more' than now. */
void peer_wait_sent(struct peer *p, uint64_t more);
/* Opens a port; the fixture closes it. */
struct p2p_port *vnf_open(const char *name);
void vnf_close(struct p2p_port *port);
int vnf_try(const char *name, unsigned wait_ms, struct p2p_port **portp, struct p2p_error *err);
/* Sends one frame with this number; false: refused. */
bool vnf_send(struct p2p_port *port, uint64_t seq);
/* Waits for one frame and returns its number.  Does not release. */
uint64_t vnf_expect(struct p2p_port *port);

pid_t child_add(const char *port);     /* child_vnf(), killed by the fixture. */
void child_remove(pid_t pid);

void link_up(int from, int to);        /* Sets the target, and waits for DIRECT. */
void target(int from, int to);         /* 'to' -1: none. */
struct p2p_swport_info info_of(int port);
struct p2p_swport_stats stats_of(int port);
unsigned open_fds(void);
unsigned mapped_regions(void);         /* Of p2plink, in this process. */
#define wait_for(COND) do { \
        uint64_t until_ = testbed_now_ms() + 10000; \
        while (!(COND)) { \
            if (testbed_now_ms() >= until_) { \
                fail_msg("waited too long for: %s", #COND); \
            } \
            testbed_sleep_ms(1); \
        } \
    } while (0)

#endif
