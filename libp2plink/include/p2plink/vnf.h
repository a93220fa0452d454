/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's side of a p2plink port: attach, send and receive bursts.
 *
 * The same calls work in a process on the host, which reaches its port through vswitchd's unix socket, and in a guest,
 * which finds its port's ivshmem device in sysfs.  Which way a packet takes, through the switch or straight to the
 * peer, is the library's business: nothing here shows it, except the statistics.
 *
 * Threads: a port's control thread belongs to the library.  For each queue and direction, at most one thread at a time
 * may be in p2p_tx_burst(), or in p2p_rx_burst() / p2p_rx_release(); different queues and directions are independent.
 * Data-path calls never block and never allocate; the only system call that one makes is to wake a receiver that sleeps
 * (p2p_rx_arm()).  They are RCU readers (liburcu, "bp" flavour: threads need not register).
 */
#ifndef P2PLINK_VNF_H
#define P2PLINK_VNF_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/common.h>

#ifdef __cplusplus
extern "C" {
#endif

struct p2p_port;

enum p2p_attach {
    P2P_ATTACH_AUTO,   /* The socket if it is there, else PCI. */
    P2P_ATTACH_SOCKET, /* vswitchd's unix socket: VNFs on the host. */
    P2P_ATTACH_PCI,    /* ivshmem devices in sysfs: VNFs in guests.  Needs root. */
};

struct p2p_port_config {
    const char *name;        /* The port's name in OVS, such as "dpdkr1". */
    enum p2p_attach attach;
    const char *socket;      /* NULL: p2p_default_socket(). */
    const char *sysfs;       /* NULL: "/sys". */
    unsigned wait_ms;        /* How long p2p_port_open() waits for the port to be there; 0: do not wait. */
    p2p_log_func *log;       /* NULL: warnings and errors go to stderr. */
    void *log_aux;
};

struct p2p_port_info {
    char name[64];
    uint8_t mac[6];
    uint16_t n_txq, n_rxq;
    uint32_t mtu;
    bool in_guest;      /* Attached through PCI. */
    bool attached;      /* false while the switch is away; direct traffic may still flow. */
    bool link_up;
    bool tx_direct;     /* Told to send on a direct channel. */
    bool rx_direct;     /* Told to receive from one. */
    uint32_t tx_link_id, rx_link_id; /* 0: none. */
};

/* Since p2p_port_open(), over all queues.  Each counter is exact, and never goes backwards. */
struct p2p_port_stats {
    uint64_t tx_packets, tx_bytes;               /* All that was accepted for transmission. */
    uint64_t rx_packets, rx_bytes;               /* All that was handed to the application. */
    uint64_t tx_direct_packets, tx_direct_bytes; /* Part of the above. */
    uint64_t rx_direct_packets, rx_direct_bytes;
    uint64_t tx_refused;    /* Offered but not accepted: the ring was full, or nobody is attached. */
    uint64_t rx_bad;        /* Descriptors refused: out of bounds. */
    uint64_t tx_epochs;     /* Switchovers to direct that this side's data threads began. */
};

/* Attaches to the port 'cfg->name' and makes its control thread.  On success stores the port, to be closed with
 * p2p_port_close(), in '*portp'.  Errors: -ENOENT no such port; -EBUSY another VNF has it; -EPROTO what answers or what
 * lies in memory is not a p2plink this library can talk to; -ETIMEDOUT; -EACCES; -EINVAL; others from the system.
 * May block for 'cfg->wait_ms' and some milliseconds. */
P2P_EXPORT int p2p_port_open(const struct p2p_port_config *cfg, struct p2p_port **portp, struct p2p_error *err);

/* Detaches, after giving the switch up to 100 ms to take what was sent.  No data-path call on 'port' may be running or
 * follow.  Packets received in place become invalid. */
P2P_EXPORT void p2p_port_close(struct p2p_port *port);

/* Any thread. */
P2P_EXPORT void p2p_port_get_info(const struct p2p_port *port, struct p2p_port_info *info);
P2P_EXPORT void p2p_port_get_stats(const struct p2p_port *port, struct p2p_port_stats *stats);

/* A file descriptor that becomes readable when p2p_port_get_info() may have something new to tell: an eventfd, to be
 * read (8 bytes; it does not block) before asking.  The library's own: not to be closed. */
P2P_EXPORT int p2p_port_event_fd(const struct p2p_port *port);

/* Sends up to 'n' packets on transmit queue 'queue', in order, and returns how many were accepted; those are copied and
 * the caller may reuse its memory.  Fewer than 'n' means that the ring is full (or nobody is attached): the rest stays
 * with the caller, who may try again or drop.  A packet of impossible length ends the burst: it is never accepted. */
P2P_EXPORT unsigned p2p_tx_burst(struct p2p_port *port, unsigned queue, const struct p2p_buf *bufs, unsigned n);

/* Receives up to 'n' packets from receive queue 'queue', in place and in order, and returns their number.  They are
 * valid until p2p_rx_release().  Several bursts may be taken before one release. */
P2P_EXPORT unsigned p2p_rx_burst(struct p2p_port *port, unsigned queue, struct p2p_pkt *pkts, unsigned n);

/* Gives back all packets that p2p_rx_burst() has handed out for 'queue'.  Until then their place in the ring is not
 * free, and a link that ends has to wait for it, up to a time limit, after which they read as zeros. */
P2P_EXPORT void p2p_rx_release(struct p2p_port *port, unsigned queue);

/* Asks to be told, once, when there may be something to receive on 'queue': then, or at once if there is already, 8
 * bytes are written to the eventfd 'fd', which must stay open until that, or until p2p_rx_disarm().  For VNFs that
 * sleep when they have nothing to do: receive until there is nothing, release, arm, wait for 'fd' to become readable,
 * read it, and receive again; it may become readable for nothing.  Whoever sends pays with a system call for the first
 * packet.
 *
 * -ENOTSUP in a guest, which nobody outside can wake, and on kernels before 5.16.  A packet from a peer in a guest may
 * take 10 ms to be told of. */
P2P_EXPORT int p2p_rx_arm(struct p2p_port *port, unsigned queue, int fd);
P2P_EXPORT void p2p_rx_disarm(struct p2p_port *port, unsigned queue);

#ifdef __cplusplus
}
#endif

#endif /* p2plink/vnf.h */
