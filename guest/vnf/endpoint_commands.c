/* SPDX-License-Identifier: Apache-2.0 */
/* The line commands of an endpoint (--control), see endpoint.h.  Control thread. */
#include "endpoint.h"

#include <string.h>

static const char *cmd_start(void *ep_, const char *args, struct json *answer)
{
    struct endpoint *ep = ep_;
    uint64_t count = ep->options.count;

    if (!ep->options.send) {
        return "this end does not send; run it with --send";
    }
    if (*args && !parse_number(args, 1, UINT64_MAX - 1, &count)) {
        return "start: give a number of packets, or nothing";
    }
    if (ep->sending) {
        return "it is sending already; stop it first";
    }
    workers_pause(&ep->workers);
    endpoint_send_begin(ep, count);
    workers_resume(&ep->workers);
    json_uint(answer, "count", count);
    return NULL;
}

static const char *cmd_stop(void *ep_, const char *args, struct json *answer)
{
    struct endpoint *ep = ep_;

    if (*args) {
        return "stop: it takes no value";
    }
    workers_pause(&ep->workers);
    endpoint_send_end(ep);
    endpoint_sent_json(ep, answer);
    workers_resume(&ep->workers);
    return NULL;
}

static const char *cmd_rate(void *ep_, const char *args, struct json *answer)
{
    struct endpoint *ep = ep_;
    uint64_t rate;

    if (!parse_number(args, 0, UINT64_C(1000000000), &rate)) {
        return "rate: give packets per second, from 0 (as fast as possible) to 1000000000";
    }
    workers_pause(&ep->workers);
    ep->options.rate = rate;
    endpoint_pace(ep);
    workers_resume(&ep->workers);
    json_uint(answer, "rate", rate);
    return NULL;
}

static const char *cmd_mark_percent(void *ep_, const char *args, struct json *answer)
{
    struct endpoint *ep = ep_;
    uint64_t percent;

    if (!parse_number(args, 0, 100, &percent)) {
        return "mark-percent: give a number from 0 to 100";
    }
    workers_pause(&ep->workers);
    ep->settings.mark_percent = (unsigned)percent;
    workers_resume(&ep->workers);
    json_uint(answer, "mark_percent", percent);
    return NULL;
}

static const char *cmd_size(void *ep_, const char *args, struct json *answer)
{
    static char why[512];
    struct endpoint *ep = ep_;
    struct sizes sizes;

    if (sizes_parse(&sizes, args)) {
        return "size: give " SIZES_SYNTAX;
    }
    if (!endpoint_size_fits(ep, &sizes, why, sizeof why)) {
        return why;
    }
    workers_pause(&ep->workers);
    ep->settings.sizes = sizes;
    workers_resume(&ep->workers);
    json_string(answer, "size", sizes.text);
    return NULL;
}

static const char *cmd_report(void *ep_, const char *args, struct json *answer)
{
    struct endpoint *ep = ep_;

    if (*args && strcmp(args, "flows")) {
        return "report: give flows, for each flow, or nothing";
    }
    workers_pause(&ep->workers);
    json_object(answer, "report");
    endpoint_report_json(ep, *args || ep->options.per_flow, answer);
    json_object_end(answer);
    workers_resume(&ep->workers);
    return NULL;
}

static const char *cmd_reset(void *ep_, const char *args, struct json *answer)
{
    struct endpoint *ep = ep_;

    (void)answer;
    if (*args) {
        return "reset: it takes no value";
    }
    workers_pause(&ep->workers);
    track_reset(&ep->tracker);
    for (unsigned i = 0; i < ep->n_lanes; i++) {
        memset(&ep->lanes[i].stats, 0, sizeof ep->lanes[i].stats);
    }
    for (unsigned i = 0; i < ep->workers.n; i++) {
        struct endpoint_worker *w = &ep->worker[i];

        latency_reset(&w->latency);
        w->packets = w->bytes = w->bad_headers = w->foreign = w->not_tracked = 0;
        w->first_at = w->last_at = 0;
        w->first_bad[0] = '\0';
        atomic_store_explicit(&w->seen, 0, memory_order_relaxed);
    }
    ep->sent_for = 0;
    ep->started_at = ep->send_began_at = clock_ns();
    ep->progress_tx = ep->progress_rx = 0;
    workers_resume(&ep->workers);
    return NULL;
}

const struct control_command endpoint_commands[] = {
    {"start", "[COUNT]", "begin to send: COUNT packets, or --count, or without end", cmd_start},
    {"stop", "", "stop sending; receiving goes on", cmd_stop},
    {"rate", "PPS", "packets per second; 0: as fast as possible", cmd_rate},
    {"mark-percent", "P", "so many of 100 packets are marked", cmd_mark_percent},
    {"size", "SIZES", SIZES_SYNTAX, cmd_size},
    {"report", "[flows]", "all counters", cmd_report},
    {"reset", "", "counters back to 0; packets go on being numbered", cmd_reset},
    {NULL, NULL, NULL, NULL},
};
