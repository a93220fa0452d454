/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane makes the packets of some flows and offers them, in order, on one transmit queue.
 *
 * A packet gets its number when it is made.  If it is refused it keeps the number and is offered again; or, without
 * retry, it is unmade: the number goes to a later packet.  Either way the numbers that were accepted have no holes.
 *
 * A lane belongs to one data thread; lane_init(), lane_pace() and whatever else changes the settings are called while
 * that thread is paused.
 */
#ifndef VNF_LANE_H
#define VNF_LANE_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/vnf.h>

#include "clock.h"
#include "packet.h"
#include "sizes.h"

#define LANE_UNLIMITED UINT64_MAX
#define LANE_BURST_MAX 256u

/* Settings that all lanes of an endpoint share; changed only while data threads are paused. */
struct lane_settings {
    struct sizes sizes;
    uint32_t max_frame;      /* The port's longest frame. */
    unsigned mark_percent;
    unsigned burst;
    bool retry;
};

struct lane_stats {
    uint64_t accepted, refused; /* Together: offered. */
    uint64_t bytes;             /* Accepted. */
    uint64_t kind[PKT_KINDS];   /* Accepted. */
    uint64_t too_long;          /* Unmade because the port's MTU has shrunk below them. */
};

struct lane_flow {
    struct pkt_template template;
    uint64_t seq[PKT_KINDS];    /* Of the next packet. */
};

struct lane_slot {
    struct lane_flow *flow;
    uint8_t *frame;
    uint8_t kind;
};

struct lane {
    const struct lane_settings *settings;
    struct prng prng;
    struct lane_flow *flows;
    unsigned n_flows, next_flow;

    uint8_t *memory;
    struct lane_slot *slots;
    struct p2p_buf *bufs;
    unsigned first, n;          /* Made and not yet accepted: [first, n). */

    uint64_t budget;            /* Packets still to be made, or LANE_UNLIMITED. */
    double interval;            /* Nanoseconds between packets; 0: as fast as possible. */
    double due;                 /* When the next one may be made. */
    uint64_t done_at;           /* When the last of 'budget' was accepted. */

    struct lane_stats stats;
};

/* Flows are 'first_flow', 'first_flow' + 'stride', ... below 'n_flows'.  -ENOMEM. */
int lane_init(struct lane *l, const struct lane_settings *settings, const struct pkt_params *params,
              unsigned first_flow, unsigned stride, unsigned n_flows, uint64_t seed);
void lane_destroy(struct lane *l);

/* From now on 'rate' packets a second; 0: no limit. */
void lane_pace(struct lane *l, double rate, uint64_t now);

/* Makes and offers one burst.  Returns how many packets were accepted. */
unsigned lane_send(struct lane *l, struct p2p_port *port, unsigned queue);

/* Made and not accepted yet. */
static inline unsigned lane_pending(const struct lane *l)
{
    return l->n - l->first;
}

/* All that was to be sent has been accepted. */
static inline bool lane_done(const struct lane *l)
{
    return !l->budget && l->first == l->n;
}

#endif /* lane.h */
