/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An endpoint of a chain: one port, on which it sends numbered packets, judges those that it receives, or
 * both.  p2p-source and p2p-sink are endpoints with different defaults.
 *
 * Files: endpoint_options.c (command line), endpoint_setup.c (making it), endpoint.c (its life), endpoint_commands.c
 * (line commands), endpoint_loop.c (data threads: the hot path), endpoint_report.c (what is told to people and
 * programs).
 *
 * What data threads use is changed only while they are paused; the few atomics are what the control thread watches
 * without pausing them.
 */
#ifndef VNF_ENDPOINT_H
#define VNF_ENDPOINT_H 1

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <p2plink/layout.h>
#include <p2plink/vnf.h>

#include "common.h"
#include "control.h"
#include "lane.h"
#include "latency.h"
#include "track.h"
#include "workers.h"

enum latency_mode {
    LATENCY_AUTO,     /* Relative in guests, absolute in processes. */
    LATENCY_ABSOLUTE,
    LATENCY_RELATIVE,
};

enum number_from {
    FROM_ZERO,        /* What is missing before the first packet that comes is lost. */
    FROM_FIRST,       /* It is not. */
};

struct endpoint_options {
    struct common_options common;
    const char *port;
    bool send, receive;
    bool ends_with_sending;   /* p2p-source: the end of sending is the end. */

    uint64_t queues;          /* Transmit queues; 0: all. */
    uint64_t rate;            /* Packets per second over all queues; 0: no limit. */
    uint64_t count;           /* 0: no limit. */
    uint64_t flows;
    uint64_t id;
    uint64_t seed;
    uint64_t mark_percent, mark_port;
    struct sizes sizes;
    bool retry;
    bool routed;
    struct pkt_params params; /* Destination addresses. */

    uint64_t expect;          /* End when so many have been received; 0: never. */
    uint64_t window;
    int from;                 /* enum number_from. */
    int latency;              /* enum latency_mode. */
    double linger;            /* Go on receiving so long after sending has ended; negative: not given. */
    bool check;
    bool per_flow;
};

/* What a data thread has of its own. */
struct endpoint_worker {
    unsigned n_rxq;
    uint16_t rxq[P2P_MAX_QUEUES];
    unsigned n_lanes;
    struct {
        struct lane *lane;
        uint16_t queue;
    } lane[P2P_MAX_QUEUES];
    struct p2p_pkt *pkts;
    struct latency latency;

    /* Received. */
    uint64_t packets, bytes;     /* All of ours. */
    uint64_t bad_headers;        /* Of these, those that could not be attributed. */
    uint64_t foreign;
    uint64_t not_tracked;        /* For want of memory. */
    uint64_t first_at, last_at;  /* When the first and the last burst came. */
    char first_bad[192];         /* Tells of the first corrupted packet, or "". */

    _Alignas(128) atomic_uint_fast64_t seen; /* Copy of 'packets' for the control thread. */
    atomic_uint lanes_done;                  /* Of 'n_lanes', those that have sent their share. */
    char pad[128];
};

struct endpoint {
    struct endpoint_options options;
    struct p2p_port *port;
    struct p2p_port_info info;       /* As the data threads know it. */
    struct lane_settings settings;
    struct tracker tracker;
    struct workers workers;
    struct control control;
    struct endpoint_worker *worker;  /* One per data thread. */
    struct lane *lanes;
    unsigned n_lanes;
    bool relative;                   /* Latencies. */
    bool sending;

    /* Control thread only. */
    uint64_t started_at;             /* Or reset. */
    uint64_t run_started_at;
    uint64_t send_began_at;          /* If sending. */
    double sent_for;                 /* Seconds, of former sendings. */
    uint64_t linger_until;           /* 0: not lingering. */
    uint64_t progress_at;
    uint64_t progress_tx, progress_rx, progress_last;
    bool paused;
};

/* endpoint_options.c */
void endpoint_options_init(struct endpoint_options *o); /* To what they are unless told otherwise. */
void endpoint_options_parse(struct endpoint_options *o, int argc, char **argv, const char *summary);

/* endpoint_setup.c; data threads are paused, or there are none yet. */
bool endpoint_set_up(struct endpoint *ep);       /* False: it has said why. */
void endpoint_tear_down(struct endpoint *ep);    /* Whatever endpoint_set_up() has said. */
void endpoint_assign_queues(struct endpoint *ep);
bool endpoint_size_fits(const struct endpoint *ep, const struct sizes *s, char *why, size_t len);

/* endpoint_commands.c */
extern const struct control_command endpoint_commands[];

/* endpoint_loop.c */
workers_step_func endpoint_step;

/* endpoint_report.c; data threads are paused. */
struct endpoint_totals {
    struct lane_stats tx;
    uint64_t tx_pending;
    struct track_counts rx;              /* 'received', 'bytes', 'corrupted': bad headers too. */
    struct track_counts kind[PKT_KINDS];
    uint64_t streams, bad_headers, foreign, not_tracked;
    double tx_seconds, rx_seconds;
    const char *first_bad;
};
void endpoint_totals(const struct endpoint *ep, uint64_t now, struct endpoint_totals *t);
void endpoint_report_json(const struct endpoint *ep, bool all_flows, struct json *j);
void endpoint_sent_json(const struct endpoint *ep, struct json *j); /* In short: what has been sent. */
void endpoint_report_text(const struct endpoint *ep);
void endpoint_progress(struct endpoint *ep);

/* endpoint.c; data threads are paused. */
void endpoint_send_begin(struct endpoint *ep, uint64_t count); /* 'count' packets, or 0: without end. */
void endpoint_send_end(struct endpoint *ep);
void endpoint_pace(struct endpoint *ep);                       /* options.rate has changed. */

/* Runs an endpoint with the defaults in '*o' and returns the program's exit status. */
int endpoint_main(struct endpoint_options *o, int argc, char **argv, const char *summary);

#endif /* endpoint.h */
