/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: what a restarted switch must know and cannot ask anybody for.
 *
 * A file beside the socket, mapped by the switch alone, with a page per port: the counters of the port, and the
 * switch's own copies of the words that it has written for the port's VNF.  The kernel keeps it when the process dies,
 * however it dies; nobody but the switch can write it, so that adoption (sw_adopt.c) need not believe what lies in a
 * VNF's memory. Stores go straight to the page: there is nothing to flush.  If the file cannot be had, ordinary memory
 * does: then nothing is known after a restart, and VNFs begin anew.
 */
#ifndef P2P_SW_LEDGER_H
#define P2P_SW_LEDGER_H 1

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <p2plink/layout.h>
#include <p2plink/switch.h>
#include "util.h"

struct sw_counts {
    uint64_t packets, bytes;
};

struct sw_ledger_port {
    char name[P2P_NAME_MAX];       /* "": the page is free. */
    uint64_t generation;           /* Of the port region; 0: none that could be adopted. */
    uint64_t session;              /* The VNF's, accepted; 0: none. */
    uint64_t mode, rx_link;        /* As last stored for the VNF. */
    uint64_t want[P2P_MAX_LINKS];
    uint32_t gate_epoch[P2P_MAX_QUEUES]; /* As last published for what the VNF's queue sends. */

    /* Direct traffic, see sw_stats.c. */
    struct sw_counts base[P2P_MAX_QUEUES];
    struct sw_counts out_sum, in_sum;
    uint64_t in_dropped;

    struct p2p_swport_counters counters; /* The normal path's: the switch's data path writes them. */
};
static_assert(sizeof(struct sw_ledger_port) <= P2P_PAGE, "a page per port");

struct sw_ledger {
    int fd;
    uint8_t *base;
    unsigned n_pages;              /* One header page, then ports. */
};

/* Opens (or makes) the ledger at 'path'.  Never fails: without a file it works in memory, and says so on 'log'. */
void sw_ledger_open(struct sw_ledger *l, const char *path, const struct p2p_logger *log);
void sw_ledger_close(struct sw_ledger *l);

/* The page of port 'name': the one from before a restart, or an empty one.  Never NULL unless memory is out. */
struct sw_ledger_port *sw_ledger_get(struct sw_ledger *l, const char *name);
/* The port is gone for good. */
void sw_ledger_put(struct sw_ledger *l, struct sw_ledger_port *p);

#endif /* sw_ledger.h */
