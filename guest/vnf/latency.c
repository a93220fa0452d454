/* SPDX-License-Identifier: Apache-2.0 */
/* Latencies per source, see latency.h. */
#include "latency.h"

#include <stdlib.h>

static struct latency_source *source_get(struct latency *l, uint16_t source, int64_t diff)
{
    struct latency_source *s = l->source[source];

    if (!s) {
        s = calloc(1, sizeof *s);
        if (s) {
            s->base = diff;
            l->source[source] = s;
        }
    }
    return s;
}

void latency_add(struct latency *l, uint16_t source, int64_t diff)
{
    struct latency_source *s = source_get(l, source, diff);

    if (!s) {
        l->not_measured++;
        return;
    }
    if (l->relative) {
        if (diff < s->base) {
            hist_shift(&s->hist, (uint64_t)(s->base - diff));
            s->base = diff;
        }
        diff -= s->base;
    } else if (diff < 0) {
        s->skewed++;
        diff = 0;
    }
    hist_add(&s->hist, (uint64_t)diff);
}

void latency_reset(struct latency *l)
{
    for (unsigned i = 0; i < PKT_SOURCES; i++) {
        if (l->source[i]) {
            hist_clear(&l->source[i]->hist);
            l->source[i]->skewed = 0;
        }
    }
}

void latency_destroy(struct latency *l)
{
    for (unsigned i = 0; i < PKT_SOURCES; i++) {
        free(l->source[i]);
    }
}

static uint64_t merge_source(struct latency *const *l, unsigned n, unsigned source, struct hist *out)
{
    bool any = false;
    int64_t base = 0;
    uint64_t skewed = 0;

    for (unsigned i = 0; i < n; i++) {
        const struct latency_source *s = l[i]->source[source];
        if (s && (!any || s->base < base)) {
            base = s->base;
            any = true;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        const struct latency_source *s = l[i]->source[source];
        if (s) {
            hist_merge(out, &s->hist, l[i]->relative ? (uint64_t)(s->base - base) : 0);
            skewed += s->skewed;
        }
    }
    return skewed;
}

uint64_t latency_merge(struct latency *const *l, unsigned n, int source, struct hist *out)
{
    uint64_t skewed = 0;

    for (unsigned i = 0; i < PKT_SOURCES; i++) {
        if (source < 0 || i == (unsigned)source) {
            skewed += merge_source(l, n, i, out);
        }
    }
    return skewed;
}
