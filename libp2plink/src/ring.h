/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single-producer single-consumer packet ring: the hot path of everything.
 *
 * A ring is three things in shared memory: control words (struct p2p_ring_ctl), an array of descriptors, and a data
 * area.  The producer copies each packet into the data area, at a place of its own choosing, writes a descriptor, and
 * after the burst moves 'head' over it with a release store.  The consumer reads 'head' with an acquire load, copies
 * and checks descriptors, looks at packets in place, and moves 'tail' and 'freed' when it is done.
 *
 * Properties:
 *  - Indices are free-running 32-bit numbers; n_desc divides 2^32, so nothing special happens at the wrap.
 *  - Packets are packed densely, each at a cache-line boundary: a burst of small frames touches neighbouring lines,
 * which
 *    hardware prefetchers like, and not one line in each 2 KiB, which all fall into a few cache sets.  A packet never
 *    wraps around the end of the area.  An empty ring starts again at the area's start, so that a lightly loaded one
 *    stays in the same few lines.
 *  - Where packets lie is known to the producer from its private 'pos' array, never read back from shared memory: a
 *    consumer that writes into descriptors harms only itself.
 *  - Each side keeps its own index privately and caches the other's.  What it reads of the other's is checked: an index
 *    that no honest peer could have is ignored and counted.
 *
 * Who may call what: producer functions, one thread at a time; consumer functions, one thread at a time; both at once.
 */
#ifndef P2P_RING_H
#define P2P_RING_H 1

#include <string.h>
#include <p2plink/common.h>
#include <p2plink/layout.h>
#include "atomics.h"

struct p2p_prod {
    struct p2p_ring_ctl *ctl;
    struct p2p_desc *desc;
    uint8_t *data;
    uint32_t *pos;      /* By index modulo n_desc: where the packet starts.  Private memory. */
    uint32_t mask;      /* n_desc - 1. */
    uint32_t data_size;
    uint32_t head;      /* Published. */
    uint32_t freed;     /* As last seen. */
    uint32_t cursor;    /* Where the next packet goes, if there is room. */
    uint32_t max_len;
    bool wc;            /* The mapping is write-combining. */
    uint64_t bad_index; /* Times that the consumer's index was impossible. */
};

struct p2p_cons {
    struct p2p_ring_ctl *ctl;
    const struct p2p_desc *desc;
    const uint8_t *data;
    uint32_t mask;
    uint32_t data_size;
    uint32_t next;      /* What lies before it has been handed out. */
    uint32_t max_len;
    bool wc;
    uint64_t bad_index; /* Times that the producer's index was impossible. */
    uint32_t extra;     /* Packets that P2P_DESC_TSO stands for, beyond those handed out; for who counts. */
};

/* How far ahead the producer asks for the ownership of lines that it is going to write. */
#define P2P_PREFETCH_BYTES 1024u

/* From how many packets on, as far as the producer knows, it looks how far the consumer has come: one line per so many
 * packets, so that a lightly loaded ring is seen to be empty before it has walked through all of its area. */
#define P2P_REFRESH_PACKETS 64u

static inline uint32_t p2p_prod_used(const struct p2p_prod *p, uint32_t head) { return head - p->freed; }

/* Looks how far the consumer has come. */
static inline void p2p_prod_refresh(struct p2p_prod *p, uint32_t head)
{
    uint32_t freed = p2p_load_acquire(&p->ctl->freed);

    if (p2p_likely((uint32_t)(freed - p->freed) <= (uint32_t)(head - p->freed))) {
        p->freed = freed;
    } else {
        p->bad_index++;
    }
}

/* Finds 'need' bytes in a row for the packet with index 'head' and returns their offset, or UINT32_MAX. */
static inline uint32_t p2p_prod_place(struct p2p_prod *p, uint32_t head, uint32_t need)
{
    uint32_t used = head - p->freed;

    if (p2p_unlikely(used > p->mask)) {
        return UINT32_MAX;
    }
    if (!used) {
        p->cursor = 0;
        return need <= p->data_size ? 0 : UINT32_MAX;
    }

    uint32_t oldest = p->pos[p->freed & p->mask];
    if (p->cursor > oldest) {
        if (need <= p->data_size - p->cursor) {
            return p->cursor;
        }
        return need <= oldest ? 0 : UINT32_MAX;
    }
    return need <= oldest - p->cursor ? p->cursor : UINT32_MAX;
}

/* A burst is: p2p_prod_begin(), for each packet p2p_prod_reserve(), copying, p2p_prod_fill() and the next index, then
 * p2p_prod_publish().  Until that, nothing has happened that anybody sees. */

/* Returns the index of the burst's first packet. */
static inline uint32_t p2p_prod_begin(struct p2p_prod *p)
{
    if (p2p_prod_used(p, p->head) >= P2P_REFRESH_PACKETS) {
        p2p_prod_refresh(p, p->head); /* Perhaps it is empty, and we can begin anew at the start of the area. */
    }
    return p->head;
}

/* Where the 'len' bytes of the packet with index 'head' go, or NULL if there is no room. */
static inline uint8_t *p2p_prod_reserve(struct p2p_prod *p, uint32_t head, uint32_t len)
{
    uint32_t need = (len + P2P_CACHE_LINE - 1) & ~(P2P_CACHE_LINE - 1);
    uint32_t off = p2p_prod_place(p, head, need);

    if (p2p_unlikely(off == UINT32_MAX)) {
        p2p_prod_refresh(p, head);
        off = p2p_prod_place(p, head, need);
        if (off == UINT32_MAX) {
            return NULL;
        }
    }
    p->pos[head & p->mask] = off;
    p->cursor = off + need;
    __builtin_prefetch(p->data + off + P2P_PREFETCH_BYTES, 1);
    return p->data + off;
}

/* Describes the packet with index 'head', which has been copied to 'at'. */
static inline void p2p_prod_fill(struct p2p_prod *p, uint32_t head, const uint8_t *at, uint32_t len, uint32_t flags,
                                 uint32_t hash)
{
    p->desc[head & p->mask] = (struct p2p_desc) {
        .off = (uint32_t)(at - p->data), .len = len, .flags = flags | (hash ? P2P_DESC_HASH : 0), .hash = hash,
    };
}

void p2p_ring_wake(struct p2p_ring_ctl *ctl); /* ring.c. */

/* The ring is filled up to 'head'. */
static inline void p2p_prod_publish(struct p2p_prod *p, uint32_t head)
{
    p2p_wc_fence(p->wc);
    p2p_store(&p->head, head);
    p2p_store_release(&p->ctl->head, head);
    p2p_wc_fence(p->wc); /* Or it stays in this processor's buffers for as long as nothing pushes it out. */
    /* No fence in between: who goes to sleep sees to that, see vnf_sleep.c.  A guest cannot wake anybody outside. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (p2p_unlikely(!p->wc && p2p_load(&p->ctl->wake))) {
        p2p_ring_wake(p->ctl);
    }
}

/* Puts as many of 'bufs' as fit into the ring, publishes them, adds their bytes to '*bytes', and returns how many. */
static inline unsigned p2p_prod_burst(struct p2p_prod *p, const struct p2p_buf *bufs, unsigned n, uint64_t *bytes)
{
    uint32_t head = p2p_prod_begin(p);
    unsigned i;

    for (i = 0; i < n; i++) {
        uint32_t len = bufs[i].len;
        if (p2p_unlikely(len < P2P_FRAME_MIN || len > p->max_len)) {
            break;
        }
        uint8_t *to = p2p_prod_reserve(p, head, len);
        if (p2p_unlikely(!to)) {
            break;
        }
        memcpy(to, bufs[i].data, len);
        p2p_prod_fill(p, head, to, len, 0, bufs[i].hash);
        head++;
        *bytes += len;
    }
    if (i) {
        p2p_prod_publish(p, head);
    }
    return i;
}

/* Has the consumer received everything?  Says yes only when it is so (of an honest consumer). */
static inline bool p2p_prod_drained(const struct p2p_prod *p)
{
    return p2p_load_acquire(&p->ctl->tail) == p->head;
}

/* The producer's index, or what had been handed out if that index is impossible. */
static inline uint32_t p2p_cons_head(struct p2p_cons *c)
{
    uint32_t head = p2p_load_acquire(&c->ctl->head);

    if (p2p_unlikely((uint32_t)(head - c->next) > c->mask + 1)) {
        c->bad_index++;
        return c->next;
    }
    return head;
}

/* Descriptors that one call looks at beyond the packets that it was asked for: a hostile producer should not keep its
 * consumer busy with what is out of bounds. */
#define P2P_BAD_MAX 256u

/* How many packets 'len' bytes with 'flags' stand for. */
static inline uint32_t p2p_desc_segments(uint32_t flags, uint32_t len)
{
    uint32_t payload = p2p_desc_tso_payload(flags), headers = p2p_desc_tso_headers(flags);

    return !(flags & P2P_DESC_TSO) || !payload || len <= headers ? 1 : (len - headers + payload - 1) / payload;
}

/* Hands out packets up to index 'upto', at most 'n', adds their bytes, and returns how many.  Descriptors that are out
 * of bounds are skipped and counted in '*bad'; with too many of those, it ends early.  If 'flags' is not NULL, stores
 * the descriptors' flags there: then P2P_DESC_TSO is known, and such a packet counts as those that it stands for. */
static inline unsigned p2p_cons_take_flags(struct p2p_cons *c, uint32_t upto, struct p2p_pkt *pkts, uint32_t *flags,
                                           unsigned n, uint64_t *bytes, uint64_t *bad)
{
    uint32_t next = c->next, end = upto;
    unsigned i = 0;

    if (end - next > P2P_BAD_MAX && end - next - P2P_BAD_MAX > n) {
        end = next + n + P2P_BAD_MAX;
    }
    while (i < n && next != end) {
        const struct p2p_desc *shared = &c->desc[next & c->mask];
        uint32_t off = p2p_load(&shared->off);
        uint32_t len = p2p_load(&shared->len);
        uint32_t desc_flags = p2p_load(&shared->flags);
        uint32_t hash = p2p_load(&shared->hash);

        next++;
        uint32_t max_len = flags && p2p_unlikely(desc_flags & P2P_DESC_TSO) ? P2P_TSO_MAX : c->max_len;
        if (p2p_unlikely(len < P2P_FRAME_MIN || len > max_len || len > c->data_size || off > c->data_size - len)) {
            p2p_store(bad, *bad + 1);
            continue;
        }
        pkts[i].data = c->data + off;
        pkts[i].len = len;
        pkts[i].hash = desc_flags & P2P_DESC_HASH ? hash : 0;
        if (flags) {
            flags[i] = desc_flags;
            if (p2p_unlikely(desc_flags & P2P_DESC_TSO)) {
                uint32_t extra = p2p_desc_segments(desc_flags, len) - 1;
                c->extra += extra;
                *bytes += (uint64_t)extra * p2p_desc_tso_headers(desc_flags);
            }
        }
        __builtin_prefetch(pkts[i].data);
        *bytes += len;
        i++;
    }
    c->next = next;
    return i;
}

static inline unsigned p2p_cons_take(struct p2p_cons *c, uint32_t upto, struct p2p_pkt *pkts, unsigned n,
                                     uint64_t *bytes, uint64_t *bad)
{
    return p2p_cons_take_flags(c, upto, pkts, NULL, n, bytes, bad);
}

/* Says that all that was handed out has been received, though it is still being looked at. */
static inline void p2p_cons_received(struct p2p_cons *c)
{
    p2p_wc_fence(c->wc);
    p2p_store_release(&c->ctl->tail, c->next);
}

/* Gives back all that was handed out. */
static inline void p2p_cons_release(struct p2p_cons *c)
{
    if (p2p_load(&c->ctl->freed) != c->next) {
        p2p_wc_fence(c->wc);
        p2p_store_release(&c->ctl->tail, c->next);
        p2p_store_release(&c->ctl->freed, c->next);
        p2p_wc_fence(c->wc);
    }
}

/* Ring set-up, ring.c. */
struct p2p_region;
int p2p_prod_init(struct p2p_prod *p, const struct p2p_region *r, unsigned ring);
void p2p_prod_uninit(struct p2p_prod *p);
void p2p_prod_restart(struct p2p_prod *p, uint32_t index); /* Empty, going on at 'index'. */
void p2p_cons_init(struct p2p_cons *c, const struct p2p_region *r, unsigned ring);

#endif /* ring.h */
