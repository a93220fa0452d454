/* SPDX-License-Identifier: Apache-2.0 */
/* What an endpoint tells of its traffic, as text and as JSON, see endpoint.h.  Control thread, data threads paused. */
#include "endpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port_report.h"

/* Without --per-flow, so many of the flows with errors are listed. */
#define MAX_BAD_FLOWS 32u

static void sum_lanes(const struct endpoint *ep, struct endpoint_totals *t)
{
    for (unsigned i = 0; i < ep->n_lanes; i++) {
        const struct lane_stats *st = &ep->lanes[i].stats;

        t->tx.accepted += st->accepted;
        t->tx.refused += st->refused;
        t->tx.bytes += st->bytes;
        t->tx.too_long += st->too_long;
        t->tx_pending += lane_pending(&ep->lanes[i]);
        for (unsigned k = 0; k < PKT_KINDS; k++) {
            t->tx.kind[k] += st->kind[k];
        }
    }
}

static void sum_workers(const struct endpoint *ep, struct endpoint_totals *t)
{
    uint64_t first = UINT64_MAX, last = 0;

    for (unsigned i = 0; i < ep->workers.n; i++) {
        const struct endpoint_worker *w = &ep->worker[i];

        t->rx.received += w->packets;
        t->rx.bytes += w->bytes;
        t->bad_headers += w->bad_headers;
        t->foreign += w->foreign;
        t->not_tracked += w->not_tracked;
        if (w->first_at && w->first_at < first) {
            first = w->first_at;
        }
        if (w->last_at > last) {
            last = w->last_at;
        }
        if (!*t->first_bad) {
            t->first_bad = w->first_bad;
        }
    }
    t->rx_seconds = last > first ? (double)(last - first) / NS_PER_S : 0;
}

void endpoint_totals(const struct endpoint *ep, uint64_t now, struct endpoint_totals *t)
{
    memset(t, 0, sizeof *t);
    t->first_bad = "";
    sum_lanes(ep, t);
    t->tx_seconds = ep->sent_for + (ep->sending ? (double)(now - ep->send_began_at) / NS_PER_S : 0);
    for (const struct track_stream *s = track_first(&ep->tracker); s; s = s->next_stream) {
        struct track_counts c;

        track_stream_counts(s, &c);
        track_counts_add(&t->kind[s->kind], &c);
        t->streams++;
    }
    for (unsigned k = 0; k < PKT_KINDS; k++) {
        track_counts_add(&t->rx, &t->kind[k]);
    }
    t->rx.received = t->rx.bytes = 0; /* All of them, tracked or not: */
    sum_workers(ep, t);
    t->rx.corrupted += t->bad_headers;
}

static double per_second(uint64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void json_counts(struct json *j, const struct track_counts *c)
{
    json_uint(j, "received", c->received);
    json_uint(j, "bytes", c->bytes);
    json_uint(j, "unique", c->unique);
    json_uint(j, "lost", c->lost);
    json_uint(j, "doubled", c->doubled);
    json_uint(j, "reordered", c->reordered);
    json_uint(j, "late", c->late);
    json_uint(j, "corrupted", c->corrupted);
    json_uint(j, "queue_changes", c->queue_changes);
    json_uint(j, "max_gap", c->max_gap);
}

static void json_tx(const struct endpoint *ep, const struct endpoint_totals *t, struct json *j)
{
    json_object(j, "tx");
    json_bool(j, "enabled", ep->options.send);
    json_bool(j, "sending", ep->sending);
    json_uint(j, "id", ep->options.id);
    json_uint(j, "queues", ep->n_lanes);
    json_uint(j, "flows", ep->options.flows);
    json_uint(j, "rate", ep->options.rate);
    json_string(j, "size", ep->settings.sizes.text);
    json_uint(j, "mark_percent", ep->settings.mark_percent);
    json_uint(j, "seed", ep->options.seed);
    json_uint(j, "offered", t->tx.accepted + t->tx.refused);
    json_uint(j, "accepted", t->tx.accepted);
    json_uint(j, "refused", t->tx.refused);
    json_uint(j, "bytes", t->tx.bytes);
    json_uint(j, "pending", t->tx_pending);
    json_uint(j, "too_long", t->tx.too_long);
    json_real(j, "seconds", t->tx_seconds);
    json_real(j, "pps", per_second(t->tx.accepted, t->tx_seconds));
    json_object(j, "by_kind");
    for (unsigned k = 0; k < PKT_KINDS; k++) {
        json_object(j, pkt_kind_name(k));
        json_uint(j, "sent", t->tx.kind[k]);
        json_object_end(j);
    }
    json_object_end(j);
    json_object_end(j);
}

static void json_flows(const struct endpoint *ep, bool all, struct json *j)
{
    uint64_t listed = 0, omitted = 0;

    json_array(j, all ? "flows" : "bad_flows");
    for (const struct track_stream *s = track_first(&ep->tracker); s; s = s->next_stream) {
        struct track_counts c;

        track_stream_counts(s, &c);
        if (!all && track_counts_clean(&c) && !c.queue_changes) {
            continue;
        }
        if (!all && listed == MAX_BAD_FLOWS) {
            omitted++;
            continue;
        }
        listed++;
        json_object(j, NULL);
        json_uint(j, "source", s->source);
        json_uint(j, "flow", s->flow);
        json_string(j, "kind", pkt_kind_name(s->kind));
        json_uint(j, "first", s->first);
        json_uint(j, "next", s->next);
        json_uint(j, "queue", s->queue);
        json_counts(j, &c);
        json_object_end(j);
    }
    json_array_end(j);
    json_uint(j, "flows_omitted", omitted);
}

/* NULL: out of memory. */
static struct hist *merge_latency(const struct endpoint *ep, int source, uint64_t *skewed)
{
    struct latency *l[WORKERS_MAX];
    struct hist *h = calloc(1, sizeof *h);

    for (unsigned i = 0; i < ep->workers.n; i++) {
        l[i] = &ep->worker[i].latency;
    }
    if (h) {
        *skewed = latency_merge(l, ep->workers.n, source, h);
    }
    return h;
}

static void json_latency(const struct endpoint *ep, int source, struct json *j)
{
    uint64_t skewed = 0;
    struct hist *h = merge_latency(ep, source, &skewed);

    if (!h) {
        return;
    }
    json_object(j, "latency_ns");
    json_string(j, "latency_base", ep->relative ? "min" : "absolute");
    json_uint(j, "count", h->count);
    json_uint(j, "min", h->count ? h->min : 0);
    json_real(j, "mean", hist_mean(h));
    json_uint(j, "p50", hist_percentile(h, 50));
    json_uint(j, "p90", hist_percentile(h, 90));
    json_uint(j, "p99", hist_percentile(h, 99));
    json_uint(j, "p99.9", hist_percentile(h, 99.9));
    json_uint(j, "max", h->count ? h->max : 0);
    json_uint(j, "skewed", skewed);
    json_object_end(j);
    free(h);
}

static void json_sources(const struct endpoint *ep, struct json *j)
{
    struct track_counts *sum = calloc(PKT_SOURCES, sizeof *sum);

    if (!sum) {
        return;
    }
    for (const struct track_stream *s = track_first(&ep->tracker); s; s = s->next_stream) {
        struct track_counts c;

        track_stream_counts(s, &c);
        track_counts_add(&sum[s->source], &c);
    }
    json_array(j, "sources");
    for (unsigned i = 0; i < PKT_SOURCES; i++) {
        if (sum[i].received || sum[i].lost) {
            json_object(j, NULL);
            json_uint(j, "id", i);
            json_counts(j, &sum[i]);
            json_latency(ep, (int)i, j);
            json_object_end(j);
        }
    }
    json_array_end(j);
    free(sum);
}

static void json_rx(const struct endpoint *ep, const struct endpoint_totals *t, bool all_flows, struct json *j)
{
    json_object(j, "rx");
    json_bool(j, "enabled", ep->options.receive);
    json_counts(j, &t->rx);
    json_uint(j, "bad_headers", t->bad_headers);
    json_uint(j, "foreign", t->foreign);
    json_uint(j, "not_tracked", t->not_tracked);
    json_uint(j, "streams", t->streams);
    json_real(j, "seconds", t->rx_seconds);
    json_real(j, "pps", per_second(t->rx.received, t->rx_seconds));
    json_string(j, "first_bad", t->first_bad);
    json_object(j, "by_kind");
    for (unsigned k = 0; k < PKT_KINDS; k++) {
        json_object(j, pkt_kind_name(k));
        json_counts(j, &t->kind[k]);
        json_object_end(j);
    }
    json_object_end(j);
    json_sources(ep, j);
    json_flows(ep, all_flows, j);
    json_object_end(j);
}

void endpoint_report_json(const struct endpoint *ep, bool all_flows, struct json *j)
{
    uint64_t now = clock_ns();
    struct endpoint_totals t;

    endpoint_totals(ep, now, &t);
    json_string(j, "program", program_name);
    json_string(j, "version", p2p_version());
    json_real(j, "seconds", (double)(now - ep->started_at) / NS_PER_S);
    port_report_json(ep->port, j);
    json_tx(ep, &t, j);
    json_rx(ep, &t, all_flows, j);
    json_latency(ep, -1, j);
}

void endpoint_sent_json(const struct endpoint *ep, struct json *j)
{
    struct endpoint_totals t;

    endpoint_totals(ep, clock_ns(), &t);
    json_uint(j, "offered", t.tx.accepted + t.tx.refused);
    json_uint(j, "accepted", t.tx.accepted);
    json_uint(j, "refused", t.tx.refused);
    json_uint(j, "pending", t.tx_pending);
    json_real(j, "seconds", t.tx_seconds);
}

static void text_flows(const struct endpoint *ep, bool all)
{
    unsigned listed = 0;

    for (const struct track_stream *s = track_first(&ep->tracker); s; s = s->next_stream) {
        struct track_counts c;

        track_stream_counts(s, &c);
        if (!all && (track_counts_clean(&c) || listed++ >= MAX_BAD_FLOWS)) {
            continue;
        }
        printf("flow       source %u flow %u %s: received %" PRIu64 ", lost %" PRIu64 ", doubled %" PRIu64
               ", reordered %" PRIu64 ", late %" PRIu64 ", corrupted %" PRIu64 "\n",
               s->source, s->flow, pkt_kind_name(s->kind), c.received, c.lost, c.doubled, c.reordered, c.late,
               c.corrupted);
    }
    if (listed > MAX_BAD_FLOWS) {
        printf("flow       ... and %u more with errors (--per-flow lists all)\n", listed - MAX_BAD_FLOWS);
    }
}

static void text_latency(const struct endpoint *ep)
{
    uint64_t skewed = 0;
    struct hist *h = merge_latency(ep, -1, &skewed);

    if (h && h->count) {
        printf("latency    (%s) p50 %.1f us, p90 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f us\n",
               ep->relative ? "above the shortest seen" : "absolute", (double)hist_percentile(h, 50) / 1e3,
               (double)hist_percentile(h, 90) / 1e3, (double)hist_percentile(h, 99) / 1e3,
               (double)hist_percentile(h, 99.9) / 1e3, (double)h->max / 1e3);
        if (skewed) {
            printf("latency    %" PRIu64 " packets came before they were sent: clocks differ, use --latency relative\n",
                   skewed);
        }
    }
    free(h);
}

static void text_port(const struct endpoint *ep)
{
    struct p2p_port_info info;
    struct p2p_port_stats st;

    p2p_port_get_info(ep->port, &info);
    p2p_port_get_stats(ep->port, &st);
    printf("port       %s: %u+%u queues, MTU %u, %s%s%s%s\n", info.name, info.n_txq, info.n_rxq, info.mtu,
           info.attached ? "attached" : "not attached", info.link_up ? "" : ", link down",
           info.tx_direct ? ", sends directly" : "", info.rx_direct ? ", receives directly" : "");
    printf("port       sent %" PRIu64 " (direct %" PRIu64 "), received %" PRIu64 " (direct %" PRIu64
           "), epochs %" PRIu64 "\n",
           st.tx_packets, st.tx_direct_packets, st.rx_packets, st.rx_direct_packets, st.tx_epochs);
}

void endpoint_report_text(const struct endpoint *ep)
{
    struct endpoint_totals t;

    endpoint_totals(ep, clock_ns(), &t);
    text_port(ep);
    if (ep->options.send) {
        printf("sent       %" PRIu64 " packets (%" PRIu64 " bytes, %.0f/s), %" PRIu64 " marked; offered %" PRIu64
               ", refused %" PRIu64 ", pending %" PRIu64 "; seed %" PRIu64 "\n",
               t.tx.accepted, t.tx.bytes, per_second(t.tx.accepted, t.tx_seconds), t.tx.kind[1],
               t.tx.accepted + t.tx.refused, t.tx.refused, t.tx_pending, ep->options.seed);
    }
    if (ep->options.receive) {
        printf("received   %" PRIu64 " packets (%" PRIu64 " bytes, %.0f/s) in %" PRIu64 " streams\n", t.rx.received,
               t.rx.bytes, per_second(t.rx.received, t.rx_seconds), t.streams);
        printf("of these   lost %" PRIu64 ", doubled %" PRIu64 ", reordered %" PRIu64 ", late %" PRIu64
               ", corrupted %" PRIu64 ", foreign %" PRIu64 "\n",
               t.rx.lost, t.rx.doubled, t.rx.reordered, t.rx.late, t.rx.corrupted, t.foreign);
        for (unsigned k = 0; k < PKT_KINDS; k++) {
            if (t.kind[k].received || t.kind[k].lost) {
                printf("kind       %s: received %" PRIu64 ", lost %" PRIu64 ", doubled %" PRIu64 ", reordered %" PRIu64
                       "\n",
                       pkt_kind_name(k), t.kind[k].received, t.kind[k].lost, t.kind[k].doubled, t.kind[k].reordered);
            }
        }
        if (*t.first_bad) {
            printf("corrupted  the first: %s\n", t.first_bad);
        }
        text_flows(ep, ep->options.per_flow);
        text_latency(ep);
    }
}

void endpoint_progress(struct endpoint *ep)
{
    uint64_t now = clock_ns();
    struct endpoint_totals t;
    double seconds = (double)(now - ep->progress_last) / NS_PER_S;

    endpoint_totals(ep, now, &t);
    fprintf(stderr, "%s: %.0f s:", program_name, (double)(now - ep->run_started_at) / NS_PER_S);
    if (ep->options.send) {
        fprintf(stderr, " sent %" PRIu64 " (%.0f/s), refused %" PRIu64 ";", t.tx.accepted,
                per_second(t.tx.accepted - ep->progress_tx, seconds), t.tx.refused);
    }
    if (ep->options.receive) {
        fprintf(stderr, " received %" PRIu64 " (%.0f/s), lost %" PRIu64 ", doubled %" PRIu64 ", reordered %" PRIu64
                ", corrupted %" PRIu64 ";",
                t.rx.received, per_second(t.rx.received - ep->progress_rx, seconds), t.rx.lost, t.rx.doubled,
                t.rx.reordered + t.rx.late, t.rx.corrupted);
    }
    fputc('\n', stderr);
    ep->progress_last = now;
    ep->progress_tx = t.tx.accepted;
    ep->progress_rx = t.rx.received;
}
