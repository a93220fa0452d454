/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of frame size specifications, see sizes.h. */
#include "sizes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "packet.h"

/* Small ones, large ones, the edges, and anything between. */
#define MIXED "64,64-128,128-512,512-1514,max"

/* Returns what follows, or NULL. */
static const char *parse_one(const char *p, uint32_t *size)
{
    char *end;
    unsigned long v;

    if (!strncmp(p, "max", 3)) {
        *size = UINT32_MAX;
        return p + 3;
    }
    if (*p < '0' || *p > '9') {
        return NULL;
    }
    v = strtoul(p, &end, 10);
    if (v < PKT_MIN || v > PKT_MAX) {
        return NULL;
    }
    *size = (uint32_t)v;
    return end;
}

int sizes_parse(struct sizes *s, const char *text)
{
    const char *p = strcmp(text, "mixed") ? text : MIXED;
    struct sizes new = {.n = 0};

    for (;;) {
        uint32_t low, high;

        if (new.n == SIZES_MAX_RANGES) {
            return -EINVAL;
        }
        p = parse_one(p, &low);
        if (!p) {
            return -EINVAL;
        }
        high = low;
        if (*p == '-') {
            p = parse_one(p + 1, &high);
        }
        if (!p || high < low) {
            return -EINVAL;
        }
        new.range[new.n].low = low;
        new.range[new.n++].high = high;
        if (!*p) {
            break;
        }
        if (*p++ != ',') {
            return -EINVAL;
        }
    }
    snprintf(new.text, sizeof new.text, "%s", text);
    *s = new;
    return 0;
}

uint32_t sizes_longest(const struct sizes *s)
{
    uint32_t longest = 0;

    for (unsigned i = 0; i < s->n; i++) {
        uint32_t high = s->range[i].high == UINT32_MAX ? s->range[i].low : s->range[i].high;
        if (high != UINT32_MAX && high > longest) {
            longest = high;
        }
    }
    return longest;
}
