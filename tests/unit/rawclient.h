/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of the switch's socket, by hand: a client that says what a test wants it to, and a VNF that does only
 * what it is told.  For tests of how the switch takes clients and VNFs that are slow, wrong, or hostile.
 *
 * One thread.  Functions that get something else than what they wait for end the test.
 */
#ifndef RAWCLIENT_H
#define RAWCLIENT_H 1

#include <stdbool.h>
#include <p2plink/control.h>
#include <p2plink/layout.h>
#include "region.h"

#define RAW_PATIENCE_MS 10000

int raw_connect(const char *path);
int raw_hello(const char *path, enum p2p_role role); /* Connects, and gets its HELLO answered. */
/* Sends a message of 'type' with 'name' (or NULL); returns its sequence number. */
uint32_t raw_send(int sock, enum p2p_msg_type type, const char *name, uint64_t generation);
void raw_answer(int sock, uint32_t seq, int error, const char *text); /* OK, or ERROR. */
/* Waits for a message.  False: the time is over.  A connection that is closed ends the test. */
bool raw_recv(int sock, struct p2p_msg *m, int *fd, unsigned ms);
/* Waits for a message of 'type', and throws away others.  'fd' may be NULL. */
void raw_expect(int sock, enum p2p_msg_type type, struct p2p_msg *m, int *fd);
/* Waits for ERROR with 'error' and a text with 'word' in it. */
void raw_expect_error(int sock, uint32_t seq, int error, const char *word);
bool raw_closed(int sock); /* Waits until the switch has closed the connection. */

/* A VNF of which the test plays the control thread. */
struct raw_vnf {
    int sock;                       /* -1: in a guest. */
    struct p2p_region region;
    struct p2p_switch_page *sw;
    struct p2p_vnf_page *vnf;
    struct p2p_region link;         /* The last one offered, see raw_vnf_take_link(). */
};

void raw_vnf_attach(struct raw_vnf *v, const char *path, const char *name);
/* Enters the region behind 'fd', which it takes over; waits until the switch has accepted it. */
void raw_vnf_enter(struct raw_vnf *v, int fd, uint64_t size);
uint64_t raw_vnf_wait_want(struct raw_vnf *v, unsigned slot, enum p2p_want what);
uint64_t raw_vnf_wait_rx(struct raw_vnf *v, enum p2p_rx_state rx_state);
uint64_t raw_vnf_wait_mode(struct raw_vnf *v, bool direct);
void raw_vnf_have(struct raw_vnf *v, unsigned slot, uint64_t have);
/* Answers everything that is asked for, as it should be, for 'ms'. */
void raw_vnf_obey(struct raw_vnf *v, unsigned ms);
/* Maps the link region that the switch has sent or is about to send. */
void raw_vnf_take_link(struct raw_vnf *v);
void raw_vnf_detach(struct raw_vnf *v);

#endif
