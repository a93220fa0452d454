/* SPDX-License-Identifier: Apache-2.0 */
/* Setting up the two ends of a ring on a mapped region.  Control path; the rest is in ring.h. */
#include "ring.h"
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "region.h"

static uint32_t max_frame(const struct p2p_region *r)
{
    return r->hdr.mtu + P2P_FRAME_OVERHEAD;
}

/* Takes over the ring where it stands, which must be empty: indices go on from the shared ones.  -ENOMEM. */
int p2p_prod_init(struct p2p_prod *p, const struct p2p_region *r, unsigned ring)
{
    const struct p2p_ring_geometry *g = &r->hdr.ring[ring];

    *p = (struct p2p_prod) {
        .ctl = p2p_region_at(r, g->ctl_off),
        .desc = p2p_region_at(r, g->desc_off),
        .data = p2p_region_at(r, g->data_off),
        .pos = calloc(g->n_desc, sizeof *p->pos),
        .mask = g->n_desc - 1,
        .data_size = g->data_size,
        .max_len = max_frame(r),
        .wc = r->wc,
    };
    if (!p->pos) {
        return -ENOMEM;
    }
    p->head = p->freed = p2p_load_acquire(&p->ctl->head);
    return 0;
}

/* The one system call of a data path: its receiver has nothing else to do than to wait for it.  One sleeps there; who
 * puts a thousand threads there does not get them woken at our expense. */
void p2p_ring_wake(struct p2p_ring_ctl *ctl)
{
    if (__atomic_exchange_n(&ctl->wake, 0, __ATOMIC_SEQ_CST)) {
        syscall(SYS_futex, &ctl->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

void p2p_prod_uninit(struct p2p_prod *p)
{
    free(p->pos);
    p->pos = NULL;
}

void p2p_prod_restart(struct p2p_prod *p, uint32_t index)
{
    p2p_store(&p->head, index);
    p->freed = index;
    p->cursor = 0;
}

void p2p_cons_init(struct p2p_cons *c, const struct p2p_region *r, unsigned ring)
{
    const struct p2p_ring_geometry *g = &r->hdr.ring[ring];

    *c = (struct p2p_cons) {
        .ctl = p2p_region_at(r, g->ctl_off),
        .desc = p2p_region_at(r, g->desc_off),
        .data = p2p_region_at(r, g->data_off),
        .mask = g->n_desc - 1,
        .data_size = g->data_size,
        .max_len = max_frame(r),
        .wc = r->wc,
    };
    c->next = p2p_load_acquire(&c->ctl->tail);
}
