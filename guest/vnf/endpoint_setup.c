/* SPDX-License-Identifier: Apache-2.0 */
/* Making and unmaking what an endpoint's data threads use, see endpoint.h.  Control thread. */
#include "endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Who does what: no queue may have two threads.  Data threads are paused. */
void endpoint_assign_queues(struct endpoint *ep)
{
    unsigned n = ep->workers.n;

    for (unsigned i = 0; i < n; i++) {
        ep->worker[i].n_rxq = ep->worker[i].n_lanes = 0;
    }
    for (unsigned q = 0; ep->options.receive && q < ep->info.n_rxq; q++) {
        struct endpoint_worker *w = &ep->worker[q % n];
        w->rxq[w->n_rxq++] = (uint16_t)q;
    }
    for (unsigned i = 0; i < ep->n_lanes && ep->info.n_txq; i++) {
        unsigned queue = i % ep->info.n_txq;
        struct endpoint_worker *w = &ep->worker[queue % n];
        w->lane[w->n_lanes].lane = &ep->lanes[i];
        w->lane[w->n_lanes++].queue = (uint16_t)queue;
    }
}

static bool make_lanes(struct endpoint *ep)
{
    const struct endpoint_options *o = &ep->options;
    unsigned n = o->queues ? (unsigned)o->queues : ep->info.n_txq;

    if (n > ep->info.n_txq) {
        complain("--queues %u: port '%s' has %u; give fewer, or set options:n_rxq of its Interface", n, o->port,
                 ep->info.n_txq);
        return false;
    }
    n = n < o->flows ? n : (unsigned)o->flows;
    ep->lanes = calloc(n, sizeof *ep->lanes);
    for (unsigned i = 0; ep->lanes && i < n; i++) {
        if (lane_init(&ep->lanes[i], &ep->settings, &o->params, i, n, (unsigned)o->flows, mix64(o->seed + i))) {
            break;
        }
        ep->n_lanes++;
    }
    if (ep->n_lanes < n) {
        complain("out of memory for %u queues of %llu flows; use fewer --flows", n, (unsigned long long)o->flows);
        return false;
    }
    return true;
}

bool endpoint_size_fits(const struct endpoint *ep, const struct sizes *s, char *why, size_t len)
{
    if (sizes_longest(s) <= ep->settings.max_frame) {
        return true;
    }
    snprintf(why, len,
             "size %s: port '%s' has MTU %u and carries frames of at most %u bytes; use a smaller size, or 'max'",
             s->text, ep->options.port, ep->info.mtu, ep->settings.max_frame);
    return false;
}

static bool make_workers(struct endpoint *ep)
{
    const struct endpoint_options *o = &ep->options;
    unsigned queues = ep->info.n_txq > ep->info.n_rxq ? ep->info.n_txq : ep->info.n_rxq;
    unsigned n = (unsigned)o->common.threads;

    if (n > queues && queues) {
        complain("--threads %u: more than port '%s' has queues; %u used", n, o->port, queues);
        n = queues;
    }
    ep->worker = aligned_alloc(_Alignof(struct endpoint_worker), n * sizeof *ep->worker);
    if (!ep->worker) {
        complain("out of memory for %u threads", n);
        return false;
    }
    memset(ep->worker, 0, n * sizeof *ep->worker);
    workers_init(&ep->workers, endpoint_step, ep, n, (enum idle)o->common.idle, &o->common.cpus);
    track_init(&ep->tracker, (uint32_t)o->window, o->from == FROM_FIRST, n > 1);
    for (unsigned i = 0; i < n; i++) {
        ep->worker[i].latency.relative = ep->relative;
        ep->worker[i].pkts = calloc(ep->settings.burst, sizeof *ep->worker[i].pkts);
        if (!ep->worker[i].pkts) {
            complain("out of memory for bursts of %u packets", ep->settings.burst);
            return false;
        }
    }
    return true;
}

static bool start_workers(struct endpoint *ep)
{
    int cpu;
    int error = workers_start(&ep->workers, &cpu);

    if (error && cpu >= 0) {
        complain("--cpu: cannot run on CPU %d: %s", cpu, strerror(-error));
    } else if (error) {
        complain("cannot make data threads: %s", strerror(-error));
    }
    return !error;
}

bool endpoint_set_up(struct endpoint *ep)
{
    const struct endpoint_options *o = &ep->options;
    char why[512];

    p2p_port_get_info(ep->port, &ep->info);
    ep->relative = o->latency == LATENCY_RELATIVE || (o->latency == LATENCY_AUTO && ep->info.in_guest);
    ep->settings = (struct lane_settings) {
        .sizes = o->sizes,
        .max_frame = ep->info.mtu + PKT_ETHERNET,
        .mark_percent = (unsigned)o->mark_percent,
        .burst = (unsigned)o->common.burst,
        .retry = o->retry,
    };
    if (o->send && !endpoint_size_fits(ep, &o->sizes, why, sizeof why)) {
        complain("--%s", why);
        return false;
    }
    if ((o->send && !make_lanes(ep)) || !make_workers(ep)) {
        return false;
    }
    endpoint_assign_queues(ep);
    return start_workers(ep);
}

void endpoint_tear_down(struct endpoint *ep)
{
    for (unsigned i = 0; i < ep->n_lanes; i++) {
        lane_destroy(&ep->lanes[i]);
    }
    free(ep->lanes);
    for (unsigned i = 0; ep->worker && i < ep->workers.n; i++) {
        latency_destroy(&ep->worker[i].latency);
        free(ep->worker[i].pkts);
    }
    free(ep->worker);
    track_destroy(&ep->tracker);
}
