/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's hot path: normal rings, and the switchover as seen from the PMD that polls a sender.
 *
 * Runs on the switch's data threads, inside RCU read-side sections.  docs/protocol.md names the steps.
 */
#include <sched.h>
#include "rcu.h"
#include "sw.h"

static inline bool held(struct p2p_swport *port, struct sw_rxq *q)
{
    uint64_t until = atomic_load_explicit(&port->hold_until, memory_order_acquire);

    if (p2p_likely(!until)) {
        return false;
    }
    if (p2p_now_ns() < until) {
        /* What this thread took before the hold, it has done with by now. */
        p2p_store_release(&q->hold_seen, atomic_load_explicit(&port->hold_ticket, memory_order_relaxed));
        return true;
    }
    if (atomic_compare_exchange_strong(&port->hold_until, &until, 0)) {
        atomic_fetch_add(&port->holds_expired, 1);
    }
    return false;
}

/* How far the normal ring may be taken from, given that it is filled up to 'head'.  Opens the gate if it is time. */
static inline uint32_t rx_limit(struct sw_region *r, struct sw_rxq *q, unsigned queue, uint32_t head, bool flushed)
{
    uint64_t start = p2p_load_acquire(&r->vnf->txq[queue].start);
    uint32_t epoch = p2p_word_epoch(start);

    p2p_store(&q->wants_flush, false);
    if (p2p_likely(epoch == p2p_load(q->gate_epoch) || !epoch)) {
        return head;
    }
    bool awaited = p2p_load_acquire(&r->gate_awaited); /* Before 'gate_to': it is cleared after that is set. */
    struct sw_region *to = p2p_rcu_get(r->gate_to);
    if (!to && !awaited) {
        return head; /* Nobody is told to look at the direct ring.  When somebody is, its gate is opened. */
    }
    /* The sender has begun an epoch: what it sent before must be in the receiver's ring, all of it, before the receiver
     * may look at the direct ring. */
    uint32_t cut = p2p_word_index(start);
    if ((int32_t)(cut - q->ring.next) > 0) {
        return (int32_t)(cut - head) > 0 ? head : cut;
    }
    /* (A 'cut' behind us is a lie, or garbage; it counts as reached.) */
    if (!to) {
        return q->ring.next; /* After a restart: whose gate it is will turn out. */
    }
    if (!flushed) {
        p2p_store(&q->wants_flush, true);
        return q->ring.next;
    }
    /* Our packets went into that ring before we came here; others' may be in it too, which does no harm. */
    uint32_t b_cut = p2p_load_acquire(&to->tx[queue % to->n_queues].ring.head);
    p2p_store_release(&to->sw->gate[queue], p2p_epoch_word(epoch, b_cut));
    p2p_store(q->gate_epoch, epoch);
    return head;
}

unsigned p2p_swport_rx_begin(struct p2p_swport *port, unsigned queue, struct p2p_pkt *pkts, unsigned n, bool flushed)
{
    p2p_rcu_lock();
    struct sw_region *r = p2p_rcu_get(port->region);
    if (p2p_unlikely(!r || queue >= r->n_queues || !p2p_load_acquire(&r->rx_ready))) {
        return 0;
    }
    struct sw_rxq *q = &r->rx[queue];
    uint32_t head = p2p_cons_head(&q->ring);

    /* Asked after 'head' was read: who sees mode NORMAL and sends, is seen here after the hold was set. */
    if (p2p_unlikely(held(port, q))) {
        return 0;
    }
    uint32_t limit = rx_limit(r, q, queue, head, flushed);
    if (limit == q->ring.next) {
        return 0;
    }
    uint64_t bytes = 0;
    return p2p_cons_take(&q->ring, limit, pkts, n, &bytes, &q->bad);
}

void p2p_swport_rx_end(struct p2p_swport *port, unsigned queue)
{
    struct sw_region *r = p2p_rcu_get(port->region);
    if (p2p_likely(r && queue < r->n_queues && p2p_load_acquire(&r->rx_ready))) {
        p2p_cons_release(&r->rx[queue].ring);
    }
    p2p_rcu_unlock();
}

bool p2p_swport_rx_wants_flush(const struct p2p_swport *port, unsigned queue)
{
    bool wants = false;

    p2p_rcu_lock();
    const struct sw_region *r = p2p_rcu_get(port->region);
    if (p2p_likely(r && queue < r->n_queues)) {
        wants = p2p_load(&r->rx[queue].wants_flush);
    }
    p2p_rcu_unlock();
    return wants;
}

/* A lock for a few hundred nanoseconds.  Gives the processor away when its holder seems to have lost it. */
static inline void txq_lock(struct sw_txq *q)
{
    unsigned spins = 0;

    while (atomic_flag_test_and_set_explicit(&q->lock, memory_order_acquire)) {
        if (++spins % 256) {
            p2p_cpu_relax();
        } else {
            sched_yield();
        }
    }
}

unsigned p2p_swport_tx_burst(struct p2p_swport *port, unsigned queue, const struct p2p_buf *bufs, unsigned n)
{
    unsigned sent = 0;

    p2p_rcu_lock();
    struct sw_region *r = p2p_rcu_get(port->region);
    if (p2p_likely(r && p2p_load_acquire(&r->tx_ready))) {
        struct sw_txq *q = &r->tx[queue % r->n_queues];
        uint64_t bytes = 0;

        txq_lock(q);
        sent = p2p_prod_burst(&q->ring, bufs, n, &bytes);
        atomic_flag_clear_explicit(&q->lock, memory_order_release);
    }
    p2p_rcu_unlock();
    return sent;
}
