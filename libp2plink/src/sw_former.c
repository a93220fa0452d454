/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions that are over, but that a process may still have mapped.
 *
 * With the switch's mutex held.  What an honest VNF is about to read must not turn into zeros under its eyes; a
 * dishonest one could keep what it has mapped for as long as it lives, and have a new region as often as it likes.  So
 * a region that has not surely been let go waits here, and is emptied when a minute has passed, or when SW_FORMER_MAX
 * others of the same port have come after it: an honest VNF that has been given two new port regions and all the link
 * regions that a port can have, twice, is not still in the middle of a burst on the ones before.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "sw.h"

struct sw_former {
    struct sw_former *next;
    char name[P2P_NAME_MAX];  /* Of the port. */
    struct p2p_region region; /* Not mapped any more: the descriptor is all. */
    uint64_t until_ms;
};

bool sw_former_ended(uint32_t pid)
{
    return pid && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* Takes '*fp' out of the list, and the memory from whoever still has it. */
static void empty(struct sw_former **fp)
{
    struct sw_former *f = *fp;

    *fp = f->next;
    p2p_region_punch(&f->region);
    p2p_region_unmap(&f->region);
    free(f);
}

void sw_former_keep(struct p2p_switch *sw, const char *name, struct p2p_region *region)
{
    struct sw_former *f = calloc(1, sizeof *f);
    unsigned n = 0;

    if (!f) {
        p2p_region_unmap(region);
        return;
    }
    p2p_copy_name(f->name, sizeof f->name, name);
    f->region = (struct p2p_region) { .fd = region->fd, .size = region->size };
    region->fd = -1;
    p2p_region_unmap(region);
    f->until_ms = p2p_now_ms() + sw->former_ms;
    f->next = sw->formers;
    sw->formers = f;
    for (struct sw_former **fp = &sw->formers; *fp;) {
        n += !strcmp((*fp)->name, name);
        if (n > SW_FORMER_MAX) {
            empty(fp); /* There is one of this port at most. */
            return;
        }
        fp = &(*fp)->next;
    }
}

void sw_former_run(struct p2p_switch *sw, uint64_t now)
{
    for (struct sw_former **fp = &sw->formers; *fp;) {
        if (now >= (*fp)->until_ms) {
            empty(fp);
        } else {
            fp = &(*fp)->next;
        }
    }
}

void sw_former_free(struct p2p_switch *sw)
{
    while (sw->formers) {
        struct sw_former *f = sw->formers;
        sw->formers = f->next;
        p2p_region_unmap(&f->region); /* VNFs live on without a switch, and read what they have. */
        free(f);
    }
}
