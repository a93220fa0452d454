/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread of an endpoint, see endpoint.h: sets it up, serves commands, watches for the end of sending and
 * for changes of the port, and takes it down.
 */
#include "endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 100u
#define TICK_SENDING_MS 10u

/*
 * Sending.  Data threads are paused.
 */

void endpoint_pace(struct endpoint *ep)
{
    uint64_t now = clock_ns();

    for (unsigned i = 0; i < ep->n_lanes; i++) {
        lane_pace(&ep->lanes[i], (double)ep->options.rate / ep->n_lanes, now);
    }
}

void endpoint_send_begin(struct endpoint *ep, uint64_t count)
{
    uint64_t budget = LANE_UNLIMITED;

    for (unsigned i = 0; i < ep->n_lanes; i++) {
        struct lane *l = &ep->lanes[i];

        if (count) {
            budget = count / ep->n_lanes + (i < count % ep->n_lanes);
            /* What was made before and has not been accepted is part of it. */
            budget = lane_pending(l) < budget ? budget - lane_pending(l) : 0;
        }
        l->budget = budget;
        l->done_at = 0;
    }
    for (unsigned i = 0; i < ep->workers.n; i++) {
        atomic_store_explicit(&ep->worker[i].lanes_done, 0, memory_order_relaxed);
    }
    ep->sending = true;
    ep->send_began_at = clock_ns();
    endpoint_pace(ep);
    ep->control.tick_ms = TICK_SENDING_MS;
}

static bool all_lanes_done(const struct endpoint *ep)
{
    for (unsigned i = 0; i < ep->n_lanes; i++) {
        if (!lane_done(&ep->lanes[i])) {
            return false;
        }
    }
    return true;
}

void endpoint_send_end(struct endpoint *ep)
{
    uint64_t end = clock_ns();

    if (!ep->sending) {
        return;
    }
    if (all_lanes_done(ep)) {
        end = ep->send_began_at;
        for (unsigned i = 0; i < ep->n_lanes; i++) {
            end = ep->lanes[i].done_at > end ? ep->lanes[i].done_at : end;
        }
    }
    ep->sent_for += (double)(end - ep->send_began_at) / NS_PER_S;
    ep->sending = false;
    ep->control.tick_ms = TICK_MS;
}

/*
 * Ticks.
 */

static void follow_port(struct endpoint *ep)
{
    struct p2p_port_info info;

    p2p_port_get_info(ep->port, &info);
    if (info.mtu == ep->info.mtu && info.n_txq == ep->info.n_txq && info.n_rxq == ep->info.n_rxq) {
        return;
    }
    workers_pause(&ep->workers);
    ep->info = info;
    ep->settings.max_frame = info.mtu + PKT_ETHERNET;
    endpoint_assign_queues(ep);
    workers_resume(&ep->workers);
    complain("port '%s' has changed: MTU %u, %u+%u queues", info.name, info.mtu, info.n_txq, info.n_rxq);
}

static bool sending_is_over(const struct endpoint *ep, uint64_t now)
{
    double duration = ep->options.common.duration;
    unsigned done = 0;

    for (unsigned i = 0; i < ep->workers.n; i++) {
        done += atomic_load_explicit(&ep->worker[i].lanes_done, memory_order_relaxed);
    }
    return done == ep->n_lanes || (duration > 0 && (double)(now - ep->send_began_at) >= duration * NS_PER_S);
}

static void tell_sent(struct endpoint *ep)
{
    struct json j;

    if (ep->options.common.control && control_event_begin(&j, "sent")) {
        endpoint_sent_json(ep, &j);
        control_event_end(&j);
    }
}

static uint64_t packets_seen(const struct endpoint *ep)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < ep->workers.n; i++) {
        seen += atomic_load_explicit(&ep->worker[i].seen, memory_order_relaxed);
    }
    return seen;
}

/* Without --control: whether the program has done what it was started for. */
static bool run_is_over(struct endpoint *ep, uint64_t now, bool sending_ended)
{
    const struct endpoint_options *o = &ep->options;
    bool time_up = o->common.duration > 0 && (double)(now - ep->run_started_at) >= o->common.duration * NS_PER_S;

    if (o->expect && packets_seen(ep) >= o->expect) {
        return true;
    }
    if (ep->linger_until) {
        return now >= ep->linger_until;
    }
    if (o->send && ((sending_ended && o->ends_with_sending) || time_up)) {
        ep->linger_until = now + (uint64_t)(o->linger * NS_PER_S);
        return false;
    }
    return time_up;
}

static bool tick(void *ep_)
{
    struct endpoint *ep = ep_;
    const struct common_options *common = &ep->options.common;
    uint64_t now = clock_ns();
    bool ended = false;

    follow_port(ep);
    if (ep->sending && sending_is_over(ep, now)) {
        workers_pause(&ep->workers);
        endpoint_send_end(ep);
        tell_sent(ep);
        workers_resume(&ep->workers);
        ended = true;
    }
    if (!common->quiet && !common->json && !common->control && now >= ep->progress_at) {
        ep->progress_at = now + NS_PER_S;
        workers_pause(&ep->workers);
        endpoint_progress(ep);
        workers_resume(&ep->workers);
    }
    return common->control || !run_is_over(ep, now, ended);
}

static void tell_ready(struct endpoint *ep)
{
    struct json j;

    if (!ep->options.common.control || !control_event_begin(&j, "ready")) {
        return;
    }
    json_string(&j, "program", program_name);
    json_string(&j, "version", p2p_version());
    json_string(&j, "port", ep->options.port);
    json_uint(&j, "id", ep->options.id);
    json_uint(&j, "seed", ep->options.seed);
    json_bool(&j, "send", ep->options.send);
    json_bool(&j, "receive", ep->options.receive);
    json_uint(&j, "mtu", ep->info.mtu);
    json_uint(&j, "n_txq", ep->info.n_txq);
    json_uint(&j, "n_rxq", ep->info.n_rxq);
    json_bool(&j, "in_guest", ep->info.in_guest);
    control_event_end(&j);
}

static void last_report(struct endpoint *ep)
{
    struct json j;

    if (!ep->options.common.json && !ep->options.common.control) {
        endpoint_report_text(ep);
        return;
    }
    if (control_event_begin(&j, "exit")) {
        json_object(&j, "report");
        endpoint_report_json(ep, ep->options.per_flow, &j);
        json_object_end(&j);
        control_event_end(&j);
    }
}

static int verdict(const struct endpoint *ep)
{
    struct endpoint_totals t;

    if (!ep->options.check) {
        return EXIT_OK;
    }
    endpoint_totals(ep, clock_ns(), &t);
    if (!track_counts_clean(&t.rx) || t.not_tracked) {
        complain("--check: packets were lost, doubled, reordered or corrupted");
        return EXIT_CHECK;
    }
    if (ep->options.expect && t.rx.received != ep->options.expect) {
        complain("--check: %llu packets were expected, %llu have come", (unsigned long long)ep->options.expect,
                 (unsigned long long)t.rx.received);
        return EXIT_CHECK;
    }
    return EXIT_OK;
}

static void run(struct endpoint *ep)
{
    control_open(&ep->control);
    ep->started_at = ep->run_started_at = ep->progress_last = clock_ns();
    ep->progress_at = ep->started_at + NS_PER_S;
    if (ep->options.send && !ep->options.common.control) {
        endpoint_send_begin(ep, ep->options.count);
    }
    tell_ready(ep);
    workers_resume(&ep->workers);
    control_run(&ep->control);
    workers_pause(&ep->workers);
    endpoint_send_end(ep);
    last_report(ep);
    control_close(&ep->control);
}

int endpoint_main(struct endpoint_options *o, int argc, char **argv, const char *summary)
{
    static struct endpoint ep;
    int status = EXIT_RUNTIME;

    endpoint_options_parse(o, argc, argv, summary);
    ep.options = *o;
    ep.control = (struct control) {
        .options = &ep.options.common,
        .commands = endpoint_commands,
        .aux = &ep,
        .tick = tick,
        .tick_ms = TICK_MS,
    };
    signals_init();
    ep.port = attach_port(&ep.options.common, ep.options.port);
    if (!ep.port) {
        return EXIT_RUNTIME;
    }
    if (endpoint_set_up(&ep)) {
        run(&ep);
        status = verdict(&ep);
    }
    if (ep.worker) {
        workers_stop(&ep.workers);
    }
    p2p_port_close(ep.port);
    endpoint_tear_down(&ep);
    return status;
}
