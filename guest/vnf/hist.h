/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A histogram of 64-bit values that is linear within each power of two (as in HdrHistogram): any value is kept to
 * within 1/64 of itself, in constant time and space.
 *
 * Owned by one thread at a time.
 */
#ifndef VNF_HIST_H
#define VNF_HIST_H 1

#include <stdint.h>

#define HIST_SUB_BITS 6
#define HIST_BUCKETS ((64 - HIST_SUB_BITS + 1) << HIST_SUB_BITS)

struct hist {
    uint64_t count;
    uint64_t min, max;   /* Valid if count != 0. */
    double sum;
    uint64_t bucket[HIST_BUCKETS];
};

static inline unsigned hist_index(uint64_t v)
{
    unsigned shift;

    if (v < UINT64_C(1) << HIST_SUB_BITS) {
        return (unsigned)v;
    }
    shift = 63 - (unsigned)__builtin_clzll(v) - HIST_SUB_BITS;
    return (shift << HIST_SUB_BITS) + (unsigned)(v >> shift);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
    if (!h->count++) {
        h->min = h->max = v;
    } else if (v < h->min) {
        h->min = v;
    } else if (v > h->max) {
        h->max = v;
    }
    h->sum += (double)v;
    h->bucket[hist_index(v)]++;
}

void hist_clear(struct hist *h);

/* The smallest and the largest value that bucket 'i' counts. */
uint64_t hist_low(unsigned i);
uint64_t hist_high(unsigned i);

/* Adds all of 'src', each value raised by 'shift', to 'dst'.  A shift other than 0 costs up to another 1/64. */
void hist_merge(struct hist *dst, const struct hist *src, uint64_t shift);

/* Raises all values by 'shift'. */
void hist_shift(struct hist *h, uint64_t shift);

/* The value that 'percent' (0 .. 100) of all values do not exceed, rounded up to its bucket's end but never beyond the
 * largest value; 0 if there is none. */
uint64_t hist_percentile(const struct hist *h, double percent);
double hist_mean(const struct hist *h);

#endif /* hist.h */
