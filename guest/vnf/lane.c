/* SPDX-License-Identifier: Apache-2.0 */
/* Making and offering packets, see lane.h.  The sending half of the hot path. */
#include "lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* After an interruption a paced lane catches up with at most so much of what it missed. */
#define CATCH_UP_NS (10.0 * (double)NS_PER_MS)

/* Slots are an odd number of cache lines apart, so that they spread over the sets of the cache. */
#define SLOT_LINES ((PKT_MAX + 63) / 64 | 1u)

int lane_init(struct lane *l, const struct lane_settings *settings, const struct pkt_params *params,
              unsigned first_flow, unsigned stride, unsigned n_flows, uint64_t seed)
{
    memset(l, 0, sizeof *l);
    l->settings = settings;
    l->prng.state = seed;
    l->n_flows = first_flow < n_flows ? (n_flows - first_flow + stride - 1) / stride : 0;
    l->flows = calloc(l->n_flows, sizeof *l->flows);
    l->memory = aligned_alloc(64, (size_t)settings->burst * SLOT_LINES * 64);
    l->slots = calloc(settings->burst, sizeof *l->slots);
    l->bufs = calloc(settings->burst, sizeof *l->bufs);
    if (!l->flows || !l->memory || !l->slots || !l->bufs) {
        lane_destroy(l);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < l->n_flows; i++) {
        pkt_template_init(&l->flows[i].template, params, (uint16_t)(first_flow + i * stride));
    }
    for (unsigned i = 0; i < settings->burst; i++) {
        l->slots[i].frame = l->memory + (size_t)i * SLOT_LINES * 64;
        l->bufs[i].data = l->slots[i].frame;
    }
    return 0;
}

void lane_destroy(struct lane *l)
{
    free(l->flows);
    free(l->memory);
    free(l->slots);
    free(l->bufs);
    memset(l, 0, sizeof *l);
}

void lane_pace(struct lane *l, double rate, uint64_t now)
{
    l->interval = rate > 0 ? (double)NS_PER_S / rate : 0;
    l->due = (double)now;
}

/* How many packets may be made now. */
static unsigned allowance(struct lane *l, uint64_t now)
{
    unsigned n = l->settings->burst;

    if (l->budget < n) {
        n = (unsigned)l->budget;
    }
    if (l->interval > 0) {
        double behind = (double)now - l->due;
        double due;

        if (behind < 0) {
            return 0;
        }
        if (behind > CATCH_UP_NS && behind > l->interval) {
            l->due = (double)now - (CATCH_UP_NS > l->interval ? CATCH_UP_NS : l->interval);
            behind = (double)now - l->due;
        }
        due = behind / l->interval + 1;
        if (due < n) {
            n = (unsigned)due;
        }
        l->due += n * l->interval;
    }
    return n;
}

static void make(struct lane *l, unsigned n, uint64_t now)
{
    const struct lane_settings *cfg = l->settings;

    for (unsigned i = 0; i < n; i++) {
        struct lane_flow *flow = &l->flows[l->next_flow];
        unsigned kind = cfg->mark_percent && prng_below(&l->prng, 100) < cfg->mark_percent;
        uint32_t len = sizes_draw(&cfg->sizes, &l->prng, cfg->max_frame);

        if (++l->next_flow == l->n_flows) {
            l->next_flow = 0;
        }
        l->slots[i].flow = flow;
        l->slots[i].kind = (uint8_t)kind;
        l->bufs[i].len = len;
        l->bufs[i].hash = flow->template.hash;
        pkt_build(l->slots[i].frame, &flow->template, len, kind, flow->seq[kind]++, now);
    }
    l->first = 0;
    l->n = n;
    if (l->budget != LANE_UNLIMITED) {
        l->budget -= n;
    }
}

/* Takes back all that is pending, newest first, so that its numbers are free again. */
static void unmake(struct lane *l)
{
    while (l->n > l->first) {
        const struct lane_slot *slot = &l->slots[--l->n];
        slot->flow->seq[slot->kind]--;
        if (l->budget != LANE_UNLIMITED) {
            l->budget++;
        }
    }
}

unsigned lane_send(struct lane *l, struct p2p_port *port, unsigned queue)
{
    struct lane_stats *st = &l->stats;
    unsigned accepted;

    if (l->first == l->n) {
        uint64_t now;
        unsigned n;

        if (!l->budget) {
            return 0;
        }
        now = clock_ns();
        n = allowance(l, now);
        if (!n) {
            return 0;
        }
        make(l, n, now);
    }
    accepted = p2p_tx_burst(port, queue, l->bufs + l->first, l->n - l->first);
    for (unsigned i = l->first; i < l->first + accepted; i++) {
        st->bytes += l->bufs[i].len;
        st->kind[l->slots[i].kind]++;
    }
    l->first += accepted;
    st->accepted += accepted;
    if (l->first < l->n) {
        st->refused += l->n - l->first;
        if (l->bufs[l->first].len > l->settings->max_frame) {
            st->too_long++;
            unmake(l);
        } else if (!l->settings->retry) {
            unmake(l);
        }
    } else if (!l->budget) {
        l->done_at = clock_ns();
    }
    return accepted;
}
