/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frame sizes a sender uses: a list of sizes and ranges, of which each packet takes one at random.
 * Parsed by the control thread, drawn from by data threads.
 */
#ifndef VNF_SIZES_H
#define VNF_SIZES_H 1

#include <stdint.h>

#include "clock.h"

#define SIZES_MAX_RANGES 16
#define SIZES_SYNTAX "64, 64-1518, 64,512,max, or mixed (max: the longest frame of the port)"

struct sizes {
    unsigned n;
    struct {
        uint32_t low, high;  /* Bytes, both inclusive; UINT32_MAX: the longest frame that the port carries. */
    } range[SIZES_MAX_RANGES];
    char text[128];          /* As it was given. */
};

/* Frame bytes without FCS.  -EINVAL: not a specification, see SIZES_SYNTAX; '*s' is unchanged. */
int sizes_parse(struct sizes *s, const char *text);

/* The longest frame asked for by number, or 0. */
uint32_t sizes_longest(const struct sizes *s);

/* A size of at most 'max' bytes. */
static inline uint32_t sizes_draw(const struct sizes *s, struct prng *r, uint32_t max)
{
    unsigned i = s->n > 1 ? prng_below(r, s->n) : 0;
    uint32_t low = s->range[i].low < max ? s->range[i].low : max;
    uint32_t high = s->range[i].high < max ? s->range[i].high : max;

    return low < high ? low + prng_below(r, high - low + 1) : low;
}

#endif /* sizes.h */
