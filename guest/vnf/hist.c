/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of a histogram while nobody adds to it, see hist.h. */
#include "hist.h"

#include <string.h>

#define SUB (1u << HIST_SUB_BITS)

void hist_clear(struct hist *h)
{
    memset(h, 0, sizeof *h);
}

uint64_t hist_low(unsigned i)
{
    unsigned shift = i < 2 * SUB ? 0 : i / SUB - 1;

    return shift ? (uint64_t)(i - (shift << HIST_SUB_BITS)) << shift : i;
}

uint64_t hist_high(unsigned i)
{
    return i + 1 < HIST_BUCKETS ? hist_low(i + 1) - 1 : UINT64_MAX;
}

void hist_merge(struct hist *dst, const struct hist *src, uint64_t shift)
{
    if (!src->count) {
        return;
    }
    if (!dst->count || src->min + shift < dst->min) {
        dst->min = src->min + shift;
    }
    if (!dst->count || src->max + shift > dst->max) {
        dst->max = src->max + shift;
    }
    dst->count += src->count;
    dst->sum += src->sum + (double)src->count * (double)shift;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        if (src->bucket[i]) {
            uint64_t low = hist_low(i);
            uint64_t middle = low + (hist_high(i) - low) / 2;
            dst->bucket[shift ? hist_index(middle + shift) : i] += src->bucket[i];
        }
    }
}

void hist_shift(struct hist *h, uint64_t shift)
{
    struct hist old = *h;

    hist_clear(h);
    hist_merge(h, &old, shift);
}

uint64_t hist_percentile(const struct hist *h, double percent)
{
    double exact = percent * (double)h->count / 100;
    uint64_t rank = (uint64_t)exact, seen = 0;

    if (!h->count) {
        return 0;
    }
    rank += exact - (double)rank > 1e-9 * exact; /* Rounded up, but not for a rounding error. */
    rank = rank < 1 ? 1 : rank > h->count ? h->count : rank;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= rank) {
            uint64_t high = hist_high(i);
            return high > h->max ? h->max : high < h->min ? h->min : high;
        }
    }
    return h->max;
}

double hist_mean(const struct hist *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}
