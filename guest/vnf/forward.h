/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forwarder: what one port receives, the other one sends, both ways.
 *
 * Files: p2p-forward.c (command line), forward.c (control thread), forward_loop.c (data threads: the hot path),
 * forward_report.c (what is told to people and programs).
 */
#ifndef VNF_FORWARD_H
#define VNF_FORWARD_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/layout.h>
#include <p2plink/vnf.h>

#include "common.h"
#include "control.h"
#include "workers.h"

#define FORWARD_FRAME_MAX (P2P_MTU_MAX + P2P_FRAME_OVERHEAD)

struct forward_stats {
    uint64_t received, received_bytes;
    uint64_t forwarded, forwarded_bytes;
    uint64_t dropped;     /* Refused by the other port; only without --retry. */
    uint64_t too_long;    /* Longer than the other port's MTU allows. */
    uint64_t retries;     /* Times that packets were offered again. */
    uint64_t set_aside;   /* Packets copied because the other port refused them for long. */
};

/* One receive queue of one port.  Its packets stay in place, in the receive ring, until the other port has taken
 * them. */
struct forward_lane {
    struct p2p_port *from, *to;
    uint16_t rxq, txq;
    uint32_t max_frame;   /* Of 'to'. */
    bool retry;
    unsigned burst;

    struct p2p_pkt *pkts;
    struct p2p_buf *bufs;
    unsigned first, n;    /* Received and not yet sent: [first, n). */
    bool in_place;        /* They lie in the ring, which has to be released. */
    uint64_t held_since;  /* Time of the first refusal, or 0. */
    uint8_t *aside;       /* Room for 'burst' packets. */

    struct forward_stats stats;
};

#define FORWARD_PORTS 2u

struct forward_options {
    struct common_options common;
    const char *ports;
    char name[FORWARD_PORTS][P2P_NAME_MAX];
    bool retry;
    bool check;
};

struct forward_worker {
    unsigned n_lanes;
    struct forward_lane *lane[FORWARD_PORTS * P2P_MAX_QUEUES];
    char pad[128];
};

struct forward {
    struct forward_options options;
    struct p2p_port *port[FORWARD_PORTS];
    struct p2p_port_info info[FORWARD_PORTS];    /* As the data threads know it. */
    struct workers workers;
    struct control control;
    struct forward_worker worker[WORKERS_MAX];
    /* By receiving port and queue; from == NULL: not made yet. */
    struct forward_lane lane[FORWARD_PORTS][P2P_MAX_QUEUES];

    /* Control thread only. */
    uint64_t started_at, reset_at, progress_at, progress_last, progress_count;
};

/* forward_loop.c.  Does one round of a lane. */
bool forward_lane_step(struct forward_lane *l);

/* forward_report.c; data threads are paused. */
void forward_sum(const struct forward *f, unsigned side, struct forward_stats *sum, uint64_t *pending);
void forward_report_json(const struct forward *f, struct json *j);
void forward_report_text(const struct forward *f);
void forward_progress(struct forward *f);

/* Runs the forwarder and returns the program's exit status. */
int forward_main(const struct forward_options *o);

#endif /* forward.h */
