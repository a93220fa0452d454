/* SPDX-License-Identifier: Apache-2.0 */
/* The forwarder's command line and control thread, see forward.h. */
#include "forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define TICK_MS 100u

static bool forward_step(void *aux, unsigned worker)
{
    struct forward_worker *w = &((struct forward *)aux)->worker[worker];
    bool progress = false;

    for (unsigned i = 0; i < w->n_lanes; i++) {
        progress |= forward_lane_step(w->lane[i]);
    }
    return progress;
}

/*
 * Set-up.
 */

static bool make_lane(struct forward *f, unsigned side, unsigned queue)
{
    struct forward_lane *l = &f->lane[side][queue];

    if (l->from) {
        return true;
    }
    l->burst = (unsigned)f->options.common.burst;
    l->retry = f->options.retry;
    l->pkts = calloc(l->burst, sizeof *l->pkts);
    l->bufs = calloc(l->burst, sizeof *l->bufs);
    l->aside = l->retry ? malloc((size_t)l->burst * FORWARD_FRAME_MAX) : NULL;
    if (!l->pkts || !l->bufs || (l->retry && !l->aside)) {
        complain("out of memory for bursts of %u packets; use a smaller --burst", l->burst);
        return false;
    }
    l->from = f->port[side];
    l->to = f->port[!side];
    return true;
}

/* Who does what: no queue may have two threads, so the transmit queue decides.  Data threads are paused. */
static bool assign_queues(struct forward *f)
{
    for (unsigned i = 0; i < f->workers.n; i++) {
        f->worker[i].n_lanes = 0;
    }
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        for (unsigned q = 0; q < f->info[side].n_rxq && f->info[!side].n_txq; q++) {
            struct forward_lane *l = &f->lane[side][q];
            struct forward_worker *w;

            if (!make_lane(f, side, q)) {
                return false;
            }
            l->rxq = (uint16_t)q;
            l->txq = (uint16_t)(q % f->info[!side].n_txq);
            l->max_frame = f->info[!side].mtu + P2P_FRAME_OVERHEAD;
            w = &f->worker[l->txq % f->workers.n];
            w->lane[w->n_lanes++] = l;
        }
    }
    return true;
}

static bool set_up(struct forward *f)
{
    const struct common_options *common = &f->options.common;
    int cpu, error;

    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        p2p_port_get_info(f->port[side], &f->info[side]);
    }
    workers_init(&f->workers, forward_step, f, (unsigned)common->threads, (enum idle)common->idle, &common->cpus);
    if (!assign_queues(f)) {
        return false;
    }
    error = workers_start(&f->workers, &cpu);
    if (error && cpu >= 0) {
        complain("--cpu: cannot run on CPU %d: %s", cpu, strerror(-error));
    } else if (error) {
        complain("cannot make data threads: %s", strerror(-error));
    }
    return !error;
}

static void tear_down(struct forward *f)
{
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            free(f->lane[side][q].pkts);
            free(f->lane[side][q].bufs);
            free(f->lane[side][q].aside);
        }
    }
}

/*
 * Commands and ticks.
 */

static const char *cmd_report(void *f_, const char *args, struct json *answer)
{
    struct forward *f = f_;

    if (*args) {
        return "report: it takes no value";
    }
    workers_pause(&f->workers);
    json_object(answer, "report");
    forward_report_json(f, answer);
    json_object_end(answer);
    workers_resume(&f->workers);
    return NULL;
}

static const char *cmd_reset(void *f_, const char *args, struct json *answer)
{
    struct forward *f = f_;

    (void)answer;
    if (*args) {
        return "reset: it takes no value";
    }
    workers_pause(&f->workers);
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            memset(&f->lane[side][q].stats, 0, sizeof f->lane[side][q].stats);
        }
    }
    f->reset_at = clock_ns();
    f->progress_count = 0;
    workers_resume(&f->workers);
    return NULL;
}

static const struct control_command commands[] = {
    {"report", "", "all counters", cmd_report},
    {"reset", "", "counters back to 0", cmd_reset},
    {NULL, NULL, NULL, NULL},
};

/* False: it cannot go on. */
static bool follow_ports(struct forward *f)
{
    bool changed = false, well;

    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        const struct p2p_port_info *old = &f->info[side];
        struct p2p_port_info info;

        p2p_port_get_info(f->port[side], &info);
        if (info.mtu != old->mtu || info.n_txq != old->n_txq || info.n_rxq != old->n_rxq) {
            complain("port '%s' has changed: MTU %u, %u+%u queues", info.name, info.mtu, info.n_txq, info.n_rxq);
            changed = true;
        }
    }
    if (!changed) {
        return true;
    }
    workers_pause(&f->workers);
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        p2p_port_get_info(f->port[side], &f->info[side]);
    }
    well = assign_queues(f);
    workers_resume(&f->workers);
    return well;
}

static bool tick(void *f_)
{
    struct forward *f = f_;
    const struct common_options *common = &f->options.common;
    uint64_t now = clock_ns();

    if (!follow_ports(f)) {
        return false;
    }
    if (!common->quiet && !common->json && !common->control && now >= f->progress_at) {
        f->progress_at = now + NS_PER_S;
        workers_pause(&f->workers);
        forward_progress(f);
        workers_resume(&f->workers);
    }
    return !(common->duration > 0 && (double)(now - f->started_at) >= common->duration * NS_PER_S);
}

static void tell_ready(const struct forward *f)
{
    struct json j;

    if (!f->options.common.control || !control_event_begin(&j, "ready")) {
        return;
    }
    json_string(&j, "program", program_name);
    json_string(&j, "version", p2p_version());
    json_array(&j, "ports");
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        json_string(&j, NULL, f->options.name[side]);
    }
    json_array_end(&j);
    json_bool(&j, "in_guest", f->info[0].in_guest);
    control_event_end(&j);
}

static void last_report(const struct forward *f)
{
    struct json j;

    if (!f->options.common.json && !f->options.common.control) {
        forward_report_text(f);
    } else if (control_event_begin(&j, "exit")) {
        json_object(&j, "report");
        forward_report_json(f, &j);
        json_object_end(&j);
        control_event_end(&j);
    }
}

static void run(struct forward *f)
{
    control_open(&f->control);
    f->started_at = f->reset_at = f->progress_last = clock_ns();
    f->progress_at = f->started_at + NS_PER_S;
    tell_ready(f);
    workers_resume(&f->workers);
    control_run(&f->control);
    workers_pause(&f->workers);
    last_report(f);
    control_close(&f->control);
}

static int verdict(const struct forward *f)
{
    for (unsigned side = 0; side < FORWARD_PORTS && f->options.check; side++) {
        struct forward_stats sum;
        uint64_t pending;

        forward_sum(f, side, &sum, &pending);
        if (sum.dropped || sum.too_long || pending) {
            complain("--check: not all packets from '%s' were forwarded", f->options.name[side]);
            return EXIT_CHECK;
        }
    }
    return EXIT_OK;
}

int forward_main(const struct forward_options *o)
{
    static struct forward f;
    int status = EXIT_RUNTIME;

    f.options = *o;
    f.control = (struct control) {
        .options = &f.options.common,
        .commands = commands,
        .aux = &f,
        .tick = tick,
        .tick_ms = TICK_MS,
    };
    signals_init();
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        f.port[side] = attach_port(&f.options.common, f.options.name[side]);
        if (!f.port[side]) {
            goto out;
        }
    }
    if (set_up(&f)) {
        run(&f);
        status = verdict(&f);
    }
    workers_stop(&f.workers);
out:
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        if (f.port[side]) {
            p2p_port_close(f.port[side]);
        }
    }
    tear_down(&f);
    return status;
}
