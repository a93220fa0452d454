/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data threads of the forwarder, see forward.h: the hot path, and nothing else.  A lane belongs to one thread.
 */
#include "forward.h"

#include <string.h>

#include "clock.h"

/* Packets held in place keep a link that is to end from ending.  After so long they are copied out of the ring. */
#define HOLD_NS (2 * NS_PER_MS)

static bool receive(struct forward_lane *l)
{
    unsigned n = p2p_rx_burst(l->from, l->rxq, l->pkts, l->burst);

    for (unsigned i = 0; i < n; i++) {
        l->bufs[i].data = l->pkts[i].data;
        l->bufs[i].len = l->pkts[i].len;
        l->bufs[i].hash = l->pkts[i].hash;
        l->stats.received_bytes += l->pkts[i].len;
    }
    l->stats.received += n;
    l->first = 0;
    l->n = n;
    l->in_place = n > 0;
    return n > 0;
}

static void release(struct forward_lane *l)
{
    if (l->in_place) {
        p2p_rx_release(l->from, l->rxq);
        l->in_place = false;
    }
    l->first = l->n = 0;
    l->held_since = 0;
}

/* Returns how many were accepted. */
static unsigned offer(struct forward_lane *l)
{
    unsigned sent = p2p_tx_burst(l->to, l->txq, l->bufs + l->first, l->n - l->first);

    for (unsigned i = l->first; i < l->first + sent; i++) {
        l->stats.forwarded_bytes += l->bufs[i].len;
    }
    l->stats.forwarded += sent;
    l->first += sent;
    return sent;
}

static void set_aside(struct forward_lane *l)
{
    uint8_t *p = l->aside;

    for (unsigned i = l->first; i < l->n; i++) {
        memcpy(p, l->bufs[i].data, l->bufs[i].len);
        l->bufs[i].data = p;
        p += FORWARD_FRAME_MAX;
        l->stats.set_aside++;
    }
    p2p_rx_release(l->from, l->rxq);
    l->in_place = false;
}

/* The other port has refused packet 'first'. */
static void refused(struct forward_lane *l)
{
    if (!l->retry) {
        l->stats.dropped += l->n - l->first;
        release(l);
        return;
    }
    l->stats.retries++;
    if (l->in_place) {
        uint64_t now = clock_ns();

        if (!l->held_since) {
            l->held_since = now;
        } else if (now - l->held_since > HOLD_NS) {
            set_aside(l);
        }
    }
}

bool forward_lane_step(struct forward_lane *l)
{
    bool progress = false;

    if (l->first == l->n) {
        if (!receive(l)) {
            return false;
        }
        progress = true;
    }
    for (;;) {
        progress |= offer(l) > 0;
        if (l->first == l->n) {
            release(l);
            return progress;
        }
        if (l->bufs[l->first].len <= l->max_frame) {
            refused(l);
            return progress;
        }
        l->stats.too_long++; /* It would be refused for ever. */
        l->first++;
        if (l->first == l->n) {
            release(l);
            return true;
        }
    }
}
