/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data threads of an endpoint, see endpoint.h: the hot path, and nothing else.  Each thread has its own queues, and
 * touches nobody else's state but the streams of the tracker.
 */
#include "endpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Keeps what is needed to find out why; once per thread. */
static __attribute__((noinline, cold)) void note_corrupted(struct endpoint_worker *w, const struct p2p_pkt *pkt,
                                                           const struct pkt_id *id, uint32_t bad)
{
    const uint8_t *p = pkt->data;
    uint32_t from = id ? bad & ~7u : 42;
    char hex[49] = "";

    if (w->first_bad[0]) {
        return;
    }
    for (uint32_t i = 0; i < 22 && from + i < pkt->len; i++) {
        snprintf(hex + 2 * i, sizeof hex - 2 * i, "%02x", p[from + i]);
    }
    if (id) {
        snprintf(w->first_bad, sizeof w->first_bad,
                 "payload of source %u flow %u %s seq %" PRIu64 " length %u is wrong from byte %u; from %u on: %s",
                 id->source, id->flow, pkt_kind_name(id->kind), id->seq, pkt->len, bad, from, hex);
    } else {
        snprintf(w->first_bad, sizeof w->first_bad, "check of a packet of length %u does not hold; from %u on: %s",
                 pkt->len, from, hex);
    }
}

static inline void receive_one(struct endpoint *ep, struct endpoint_worker *w, const struct p2p_pkt *pkt,
                               unsigned queue, uint64_t now)
{
    struct pkt_id id;
    uint32_t bad = 0;
    enum pkt_verdict verdict = pkt_parse(pkt->data, pkt->len, &id, &bad);

    if (verdict == PKT_FOREIGN) {
        w->foreign++;
        return;
    }
    w->packets++;
    w->bytes += pkt->len;
    if (verdict == PKT_BAD_HEADER) {
        w->bad_headers++;
        note_corrupted(w, pkt, NULL, 0);
        return;
    }
    if (verdict == PKT_BAD_PAYLOAD) {
        note_corrupted(w, pkt, &id, bad);
    }
    if (track_packet(&ep->tracker, &id, pkt->len, queue, verdict != PKT_GOOD)) {
        w->not_tracked++;
    }
    latency_add(&w->latency, id.source, pkt_age(&id, now));
}

static bool receive(struct endpoint *ep, struct endpoint_worker *w, unsigned queue)
{
    unsigned n = p2p_rx_burst(ep->port, queue, w->pkts, ep->settings.burst);
    uint64_t now;

    if (!n) {
        return false;
    }
    now = clock_ns();
    for (unsigned i = 0; i < n; i++) {
        receive_one(ep, w, &w->pkts[i], queue, now);
    }
    p2p_rx_release(ep->port, queue);
    if (!w->first_at) {
        w->first_at = now;
    }
    w->last_at = now;
    atomic_store_explicit(&w->seen, w->packets, memory_order_relaxed);
    return true;
}

bool endpoint_step(void *aux, unsigned worker)
{
    struct endpoint *ep = aux;
    struct endpoint_worker *w = &ep->worker[worker];
    bool progress = false;

    for (unsigned i = 0; i < w->n_rxq; i++) {
        progress |= receive(ep, w, w->rxq[i]);
    }
    if (ep->sending) {
        unsigned done = 0;

        for (unsigned i = 0; i < w->n_lanes; i++) {
            struct lane *l = w->lane[i].lane;
            progress |= lane_send(l, ep->port, w->lane[i].queue) > 0;
            done += lane_done(l);
        }
        atomic_store_explicit(&w->lanes_done, done, memory_order_relaxed);
    }
    return progress;
}
