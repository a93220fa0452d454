/* SPDX-License-Identifier: Apache-2.0 */
/* Which numbers of a stream have come, see track.h. */
#include "track.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void track_init(struct tracker *t, uint32_t window, bool from_first, bool shared)
{
    memset(t, 0, sizeof *t);
    t->window = TRACK_WINDOW_MIN;
    while (t->window < window && t->window < TRACK_WINDOW_MAX) {
        t->window <<= 1;
    }
    t->from_first = from_first;
    t->shared = shared;
}

void track_destroy(struct tracker *t)
{
    struct track_stream *s, *next;

    for (s = atomic_load(&t->streams); s; s = next) {
        next = s->next_stream;
        free(s->bits);
        free(s);
    }
    for (unsigned i = 0; i < PKT_SOURCES * PKT_KINDS; i++) {
        free(atomic_load(&t->flows[i]));
    }
}

/* Finds or makes the stream.  Of two threads that make the same one, one throws its own away. */
static struct track_stream *stream_get(struct tracker *t, const struct pkt_id *id)
{
    _Atomic(_Atomic(struct track_stream *) *) *pagep = &t->flows[id->source * PKT_KINDS + id->kind];
    _Atomic(struct track_stream *) *page = atomic_load_explicit(pagep, memory_order_acquire);
    struct track_stream *s, *found = NULL;

    if (!page) {
        _Atomic(struct track_stream *) *fresh = calloc(PKT_FLOWS, sizeof *fresh);
        if (!fresh) {
            return NULL;
        }
        if (atomic_compare_exchange_strong(pagep, &page, fresh)) {
            page = fresh;
        } else {
            free(fresh);
        }
    }
    s = atomic_load_explicit(&page[id->flow], memory_order_acquire);
    if (s) {
        return s;
    }
    s = calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    atomic_flag_clear(&s->busy);
    s->source = id->source;
    s->flow = id->flow;
    s->kind = id->kind;
    s->queue = UINT16_MAX;
    s->first = s->origin = s->floor = s->next = t->from_first ? id->seq : 0;
    if (!atomic_compare_exchange_strong(&page[id->flow], &found, s)) {
        free(s);
        return found;
    }
    s->next_stream = atomic_load(&t->streams);
    while (!atomic_compare_exchange_weak(&t->streams, &s->next_stream, s)) {
        continue;
    }
    return s;
}

static inline uint64_t bit_of(uint64_t seq)
{
    return UINT64_C(1) << (seq & 63);
}

static inline uint64_t *word_of(const struct track_stream *s, uint32_t window, uint64_t seq)
{
    return &s->bits[(seq & (window - 1)) >> 6];
}

static inline bool has_come(const struct track_stream *s, uint32_t window, uint64_t seq)
{
    return *word_of(s, window, seq) & bit_of(seq);
}

static inline void set_come(const struct track_stream *s, uint32_t window, uint64_t seq)
{
    *word_of(s, window, seq) |= bit_of(seq);
}

/* Clears the bits of [from, to), at most 'window' of them. */
static void clear_range(const struct track_stream *s, uint32_t window, uint64_t from, uint64_t to)
{
    while (from < to) {
        if (!(from & 63) && to - from >= 64) {
            *word_of(s, window, from) = 0;
            from += 64;
        } else {
            *word_of(s, window, from) &= ~bit_of(from);
            from++;
        }
    }
}

static void give_up(struct track_stream *s, uint64_t low, uint64_t high)
{
    if (!s->given_up) {
        s->given_up = true;
        s->given_up_low = low;
        s->given_up_high = high;
    } else {
        s->given_up_low = low < s->given_up_low ? low : s->given_up_low;
        s->given_up_high = high > s->given_up_high ? high : s->given_up_high;
    }
}

/* Moves 'floor' up over what has come. */
static void raise_floor(struct track_stream *s, uint32_t window)
{
    while (s->floor < s->next) {
        uint64_t missing = ~*word_of(s, window, s->floor) >> (s->floor & 63);
        uint64_t come = missing ? (uint64_t)__builtin_ctzll(missing) : 64 - (s->floor & 63);

        if (!come) {
            return;
        }
        /* Bits at and above 'next' are stale. */
        s->floor = come < s->next - s->floor ? s->floor + come : s->next;
    }
}

/* Makes the map cover up to 'seq', which is not below 'next'. */
static void make_room(struct track_stream *s, uint32_t window, uint64_t seq)
{
    uint64_t floor = seq - window + 1;

    if (seq - s->floor < window) {
        return;
    }
    if (floor > s->next) {
        give_up(s, s->next, floor - 1); /* Beyond all that has come. */
    }
    while (s->floor < s->next && s->floor < floor) {
        if (!has_come(s, window, s->floor)) {
            give_up(s, s->floor, s->floor);
        }
        s->floor++;
    }
    if (s->floor < floor) {
        s->floor = floor;
    }
    raise_floor(s, window);
}

/* 'seq' is the largest number so far, or fills or repeats below it. */
static int note(struct track_stream *s, uint32_t window, uint64_t seq)
{
    struct track_counts *c = &s->counts;

    if (seq == s->next && s->floor == s->next) {
        s->floor = ++s->next;
        c->unique++;
        return 0;
    }
    if (seq < s->floor) {
        if (seq < s->first || (s->given_up && seq >= s->given_up_low && seq <= s->given_up_high)) {
            c->late++;
        } else {
            c->doubled++;
        }
        return 0;
    }
    if (!s->bits) {
        s->bits = calloc(window / 64, sizeof *s->bits);
        if (!s->bits) {
            return -ENOMEM;
        }
    }
    if (seq >= s->next) {
        uint64_t gap = seq - s->next;

        c->max_gap = gap > c->max_gap ? gap : c->max_gap;
        make_room(s, window, seq);
        clear_range(s, window, s->next > s->floor ? s->next : s->floor, seq);
        set_come(s, window, seq);
        s->next = seq + 1;
        c->unique++;
    } else if (has_come(s, window, seq)) {
        c->doubled++;
        return 0;
    } else {
        set_come(s, window, seq);
        c->unique++;
        c->reordered++;
    }
    if (seq == s->floor) {
        raise_floor(s, window);
    }
    return 0;
}

int track_packet(struct tracker *t, const struct pkt_id *id, uint32_t len, unsigned queue, bool corrupted)
{
    struct track_stream *s = stream_get(t, id);
    int error;

    if (!s) {
        return -ENOMEM;
    }
    if (t->shared) {
        while (atomic_flag_test_and_set_explicit(&s->busy, memory_order_acquire)) {
            continue;
        }
    }
    error = note(s, t->window, id->seq);
    if (!error) {
        s->counts.received++;
        s->counts.bytes += len;
        s->counts.corrupted += corrupted;
        s->counts.queue_changes += s->queue != queue && s->queue != UINT16_MAX;
        s->queue = (uint16_t)queue;
    }
    if (t->shared) {
        atomic_flag_clear_explicit(&s->busy, memory_order_release);
    }
    return error;
}

void track_reset(struct tracker *t)
{
    for (struct track_stream *s = atomic_load(&t->streams); s; s = s->next_stream) {
        memset(&s->counts, 0, sizeof s->counts);
        if (s->floor < s->next) {
            give_up(s, s->floor, s->next - 1);
        }
        s->floor = s->origin = s->next;
    }
}

void track_stream_counts(const struct track_stream *s, struct track_counts *out)
{
    *out = s->counts;
    out->lost = s->next - s->origin - s->counts.unique;
}

void track_counts_add(struct track_counts *sum, const struct track_counts *c)
{
    sum->received += c->received;
    sum->bytes += c->bytes;
    sum->unique += c->unique;
    sum->lost += c->lost;
    sum->doubled += c->doubled;
    sum->reordered += c->reordered;
    sum->late += c->late;
    sum->corrupted += c->corrupted;
    sum->queue_changes += c->queue_changes;
    sum->max_gap = c->max_gap > sum->max_gap ? c->max_gap : sum->max_gap;
}

bool track_counts_clean(const struct track_counts *c)
{
    return !c->lost && !c->doubled && !c->reordered && !c->late && !c->corrupted;
}
