/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink's memory of which packets have come: tells lost from doubled from reordered.
 *
 * A stream is the packets of one source, flow and kind; each stream has its own numbers, 0, 1, 2, ...  For each stream:
 *
 *   - all numbers below 'floor' have come, or have been given up;
 *   - 'next' is one more than the largest number that has come;
 *   - a bit map says which numbers in [floor, next) have come.  It covers at most 'window' numbers: when 'next' runs
 *     ahead further, 'floor' follows, and holes that fall below it are given up (they are lost, unless a straggler
 *     turns up).
 *
 * Each arriving number is exactly one of
 *   in order    next itself, or beyond it (which makes holes);
 *   reordered   fills a hole: something sent later has overtaken it;
 *   doubled     has come before;
 *   late        below 'floor', among numbers that were given up or never awaited: one of the two above, unknown which.
 * Below 'floor' a number that lies outside all that was given up is known to be doubled, however old it is.  So as
 * long as 'late' is 0, the others are exact.  Lost is what lies below 'next' and has not come.
 *
 * Threads: data threads call track_packet() at the same time if the tracker is 'shared' (each stream then has a lock
 * that is contended only if a stream changes its queue); everything else wants the data threads paused.
 */
#ifndef VNF_TRACK_H
#define VNF_TRACK_H 1

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "packet.h"

#define TRACK_WINDOW_MIN 64u
#define TRACK_WINDOW_MAX (1u << 24)
#define TRACK_WINDOW_DEFAULT (1u << 16)

struct track_counts {
    uint64_t received;      /* in order + reordered + doubled + late. */
    uint64_t bytes;         /* Of those. */
    uint64_t unique;        /* in order + reordered. */
    uint64_t lost;
    uint64_t doubled;
    uint64_t reordered;
    uint64_t late;
    uint64_t corrupted;     /* Of 'received', those whose pattern was wrong. */
    uint64_t queue_changes; /* Came on another queue than the packet before. */
    uint64_t max_gap;       /* Longest run of numbers that was missing at once. */
};

struct track_stream {
    struct track_stream *next_stream; /* In the tracker's list. */
    atomic_flag busy;
    bool given_up;                    /* [given_up_low, given_up_high] is valid. */
    uint16_t source, flow;
    uint8_t kind;
    uint16_t queue;
    uint64_t first;                   /* Numbers below were never awaited. */
    uint64_t origin;                  /* Where counting began: 'first', or 'next' at the last reset. */
    uint64_t floor, next;
    uint64_t *bits;                   /* NULL until there is a hole. */
    uint64_t given_up_low, given_up_high;
    struct track_counts counts;       /* All but 'lost'. */
};

struct tracker {
    uint32_t window;                  /* A power of two. */
    bool from_first;                  /* A stream begins with what comes first, not with 0. */
    bool shared;
    _Atomic(struct track_stream *) streams;
    _Atomic(_Atomic(struct track_stream *) *) flows[PKT_SOURCES * PKT_KINDS]; /* Each PKT_FLOWS pointers. */
};

/* 'window' is rounded up to a power of two. */
void track_init(struct tracker *t, uint32_t window, bool from_first, bool shared);
void track_destroy(struct tracker *t);

/* Notes the arrival of a packet of 'len' bytes on receive queue 'queue'.  -ENOMEM: it could not be noted. */
int track_packet(struct tracker *t, const struct pkt_id *id, uint32_t len, unsigned queue, bool corrupted);

/* Counts begin anew; the numbers awaited do not.  Holes are given up without being counted as lost. */
void track_reset(struct tracker *t);

void track_stream_counts(const struct track_stream *s, struct track_counts *out);
void track_counts_add(struct track_counts *sum, const struct track_counts *c);
bool track_counts_clean(const struct track_counts *c);

/* All streams, in no particular order. */
static inline const struct track_stream *track_first(const struct tracker *t)
{
    return atomic_load_explicit(&t->streams, memory_order_acquire);
}

#endif /* track.h */
