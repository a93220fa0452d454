/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latencies of received packets, per source.
 *
 * Where sender and receiver share a clock, a latency is the difference of the two times.  Between guests it is not:
 * there the smallest difference seen from a source stands for "no time at all", and all others are relative to it.
 *
 * A data thread owns its `struct latency`; the control thread merges them while data threads are paused.
 */
#ifndef VNF_LATENCY_H
#define VNF_LATENCY_H 1

#include <stdbool.h>
#include <stdint.h>

#include "hist.h"
#include "packet.h"

struct latency_source {
    int64_t base;        /* Relative: smallest difference so far. */
    uint64_t skewed;     /* Absolute: differences below zero, counted as 0. */
    struct hist hist;
};

struct latency {
    bool relative;
    uint64_t not_measured; /* For want of memory. */
    struct latency_source *source[PKT_SOURCES];
};

/* 'diff' is what pkt_age() says. */
void latency_add(struct latency *l, uint16_t source, int64_t diff);
void latency_reset(struct latency *l);   /* Keeps bases. */
void latency_destroy(struct latency *l);

/* Adds one source's (or with 'source' < 0 all sources') latencies of 'n' threads to '*out'; returns how many were
 * skewed. */
uint64_t latency_merge(struct latency *const *l, unsigned n, int source, struct hist *out);

#endif /* latency.h */
