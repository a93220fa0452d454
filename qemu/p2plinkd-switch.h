/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to vswitchd: a unix socket that carries the messages of p2plink/control.h, in the agent's role.  Made
 * again whenever it is lost.
 *
 * Called by p2plinkd-agent.c from p2plinkd's only thread; nothing here blocks.
 */
#ifndef P2PLINKD_SWITCH_H
#define P2PLINKD_SWITCH_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/control.h>

struct swconn;

/* Called from swconn_run(). */
struct swconn_callbacks {
    void (*up)(void *aux);
    void (*down)(void *aux);
    /* A message after HELLO.  'fd' becomes the callee's; -1: none. */
    void (*message)(void *aux, const struct p2p_msg *, int fd);
};

struct swconn *swconn_create(const char *path, const struct swconn_callbacks *, void *aux);
void swconn_destroy(struct swconn *);
void swconn_run(struct swconn *);
void swconn_wait(struct swconn *);

bool swconn_is_up(const struct swconn *);
/* Changes with each connection: an answer belongs to the connection that asked. */
unsigned swconn_session(const struct swconn *);
const char *swconn_path(const struct swconn *);
/* Why it is not up, or "". */
const char *swconn_trouble(const struct swconn *);

/* A region that a message is about; all zeros: none. */
struct swconn_region {
    uint32_t link_id;
    uint64_t generation;
    uint64_t size;
    int fd;         /* Stays the caller's; -1: none. */
};
/* Queues a question about port 'name' and returns its number, never 0; 0 when the connection is down. */
uint32_t swconn_ask(struct swconn *, enum p2p_msg_type, const char *name, const struct swconn_region *);
/* Queues the answer to question 'seq' of that session: OK, or ERROR with 'error' (negative errno) and 'text'. */
void swconn_answer(struct swconn *, unsigned session, uint32_t seq, const char *name, int error, const char *text);

#endif /* p2plinkd-switch.h */
