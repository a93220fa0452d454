/* SPDX-License-Identifier: Apache-2.0 */
#include "death.h"
#include <sys/mman.h>
#include "fuzz.h"

static void detach(void *base, size_t size, int fd)
{
    if (base && fd >= 0) {
        CHECK(mmap(base, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == base);
    }
}

void death_begin(struct p2p_switch *sw)
{
    for (struct p2p_swport *p = sw->ports; p; p = p->next) {
        detach(p->region->region.base, p->region->region.size, p->region->region.fd);
    }
    for (struct sw_chan *c = sw->chans; c; c = c->next) {
        detach(c->region.base, c->region.size, c->region.fd);
    }
    detach(sw->ledger.base, (size_t)sw->ledger.n_pages * P2P_PAGE, sw->ledger.fd);
    fuzz_no_holes = true;
}

void death_over(void)
{
    fuzz_no_holes = false;
}
