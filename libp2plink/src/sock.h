/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of p2plink/control.h over a SOCK_SEQPACKET unix socket, with file descriptors.  Control path. */
#ifndef P2P_SOCK_H
#define P2P_SOCK_H 1

#include <p2plink/common.h>
#include <p2plink/control.h>

/* Fills in what all messages have, and zeros the rest. */
void p2p_msg_init(struct p2p_msg *m, enum p2p_msg_type type, uint32_t seq);

/* Sends 'm', with 'fd' unless it is negative.  Does not block: -EAGAIN if the peer does not read.  'fd' stays the
 * caller's. */
int p2p_msg_send(int sock, const struct p2p_msg *m, int fd);

/* Receives one message without blocking.  '*fd' becomes a descriptor of the caller's, or -1.  -EAGAIN: nothing there;
 * -ECONNRESET: the peer is gone; -EPROTO: not a p2plink message (it has been thrown away).  Texts in '*m' are
 * terminated. */
int p2p_msg_recv(int sock, struct p2p_msg *m, int *fd);

/* Closes a descriptor that a stranger has sent.  That may take for ever if the file is not memory (the stranger's own
 * file system may have to agree), so then it happens on a thread of its own. */
void p2p_close_foreign(int fd);

/* Connects, non-blocking from then on, with close-on-exec.  Returns a descriptor or a negative errno. */
int p2p_sock_connect(const char *path);

#endif /* sock.h */
