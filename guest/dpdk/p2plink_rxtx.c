/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot path of the DPDK driver: mbufs to rings and back, one copy each.
 *
 * Called by the application's data threads, one per queue and direction.  Nothing here blocks or locks; mbufs come from
 * and go to their pools in bulk.  Which way a packet takes is decided per transmit burst by vnf_tx_begin(), and does
 * not show.
 */
#include <rte_memcpy.h>
#include <rte_prefetch.h>
#include "p2plink_dev.h"

/* Offloads that are work; that there is an RSS hash is not. */
#define TX_WORK (RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG \
                 | RTE_MBUF_F_TX_VLAN | RTE_MBUF_F_TX_QINQ | RTE_MBUF_F_TX_TUNNEL_MASK)

/*
 * Receive.
 */

/* Sees to it that 'n' empty mbufs are at hand, if the pool has as many.  Returns how many there are. */
static inline unsigned stash(struct p2plink_rxq *q, unsigned n)
{
    n = RTE_MIN(n, P2PLINK_STASH);
    if (unlikely(q->n_stash < n)) {
        unsigned want = P2PLINK_STASH - q->n_stash;
        if (rte_mempool_get_bulk(q->pool, (void **)&q->stash[q->n_stash], want) == 0
            || (want = n - q->n_stash, rte_mempool_get_bulk(q->pool, (void **)&q->stash[q->n_stash], want) == 0)) {
            q->n_stash += want;
        } else {
            q->count->no_mbuf++;
        }
    }
    return q->n_stash;
}

static inline struct rte_mbuf *take_mbuf(struct p2plink_rxq *q)
{
    struct rte_mbuf *m = q->stash[--q->n_stash];

    *p2plink_rearm(m) = q->rearm;
    m->ol_flags = 0;
    m->packet_type = 0;
    return m;
}

/* A frame that is longer than an mbuf's room; there are enough in the stash. */
static __rte_noinline struct rte_mbuf *rx_chain(struct p2plink_rxq *q, const uint8_t *data, uint32_t len)
{
    struct rte_mbuf *first = take_mbuf(q), *m = first;

    first->pkt_len = len;
    for (uint16_t n = 1;; n++) {
        uint32_t part = RTE_MIN(len, q->room);
        m->data_len = (uint16_t)part;
        rte_memcpy(rte_pktmbuf_mtod(m, void *), data, part);
        data += part;
        len -= part;
        if (!len) {
            first->nb_segs = n;
            return first;
        }
        m->next = take_mbuf(q);
        m = m->next;
    }
}

/* What few packets need. */
static __rte_noinline void rx_extra(struct p2plink_rxq *q, struct rte_mbuf *m, uint32_t flags)
{
    if (flags & P2P_DESC_TSO && p2p_desc_tso_payload(flags)) {
        q->count->carried_tso++;
        m->ol_flags |= RTE_MBUF_F_RX_LRO;
        m->tso_segsz = (uint16_t)p2p_desc_tso_payload(flags);
    }
    if (flags & P2P_DESC_CSUM) {
        q->count->carried_csum++;
        if (q->want_csum) {
            m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
        } else {
            p2plink_rx_csum(m);
        }
    }
    if (q->strip_vlan) {
        (void)rte_vlan_strip(m);
    }
}

/* Looks at the port's queues that are ours, one after the other, until one has packets. */
static inline bool rx_take(struct p2plink_rxq *q, unsigned n)
{
    uint16_t n_queues = __atomic_load_n(&q->dev->n_rxq, __ATOMIC_RELAXED);

    for (uint16_t i = q->id; i < n_queues || i == q->id; i += q->step) {
        q->n = (uint16_t)vnf_rx_burst(q->port, q->cur, q->pkt, q->flags, n);
        q->next = 0;
        if (q->n) {
            return true;
        }
        q->cur += q->step;
        if (q->cur >= n_queues) {
            q->cur = q->id;
        }
    }
    return false;
}

/* Gives back what has been copied, and goes on with the next queue. */
static inline void rx_done(struct p2plink_rxq *q)
{
    p2p_rx_release(q->port, q->cur);
    q->cur += q->step;
    if (q->cur >= __atomic_load_n(&q->dev->n_rxq, __ATOMIC_RELAXED)) {
        q->cur = q->id;
    }
}

uint16_t p2plink_rx_burst(void *rxq, struct rte_mbuf **pkts, uint16_t n)
{
    struct p2plink_rxq *q = rxq;
    uint64_t bytes = 0;
    uint16_t got = 0;

    if (unlikely(!q->running)) {
        return 0;
    }
    while (got < n) {
        if (q->next == q->n) {
            unsigned want = RTE_MIN((unsigned)(n - got), P2PLINK_BURST);
            unsigned have = stash(q, want);
            /* Not more than there are mbufs for: the others may wait in the ring as well. */
            if (!have || !rx_take(q, RTE_MIN(want, have))) {
                break;
            }
        }
        while (q->next < q->n && got < n) {
            const struct p2p_pkt *p = &q->pkt[q->next];
            uint32_t flags = q->flags[q->next];
            uint32_t len = p->len;
            struct rte_mbuf *m;

            uint32_t max_len = unlikely(flags & P2P_DESC_TSO) ? q->max_tso : q->max_len;
            if (unlikely(len > max_len || (len > q->room && !q->scatter))) {
                q->count->too_long++;
                q->next++;
                continue;
            }
            if (likely(len <= q->room)) {
                if (unlikely(!stash(q, 1))) {
                    goto out;
                }
                m = take_mbuf(q);
                m->pkt_len = len;
                m->data_len = (uint16_t)len;
                rte_memcpy(rte_pktmbuf_mtod(m, void *), p->data, len);
            } else {
                unsigned segs = (len + q->room - 1) / q->room;
                if (unlikely(stash(q, segs) < segs)) {
                    goto out;
                }
                m = rx_chain(q, p->data, len);
            }
            if (q->want_hash && p->hash) {
                m->hash.rss = p->hash;
                m->ol_flags = RTE_MBUF_F_RX_RSS_HASH;
            }
            if (unlikely((flags & (P2P_DESC_CSUM | P2P_DESC_TSO)) || q->strip_vlan)) {
                rx_extra(q, m, flags);
            }
            pkts[got++] = m;
            bytes += len;
            q->next++;
        }
        if (q->next == q->n) {
            rx_done(q);
        }
    }
out:
    q->count->packets += got;
    q->count->bytes += bytes;
    return got;
}

/*
 * Transmit.
 */

/* Puts a packet into the ring as it is.  As p2plink_tx_offload(). */
static inline int tx_plain(struct p2plink_tx *tx, struct rte_mbuf *m)
{
    struct p2p_prod *ring = tx->vnf.ring;
    uint32_t len = m->pkt_len;

    if (unlikely(len < P2P_FRAME_MIN || len > ring->max_len)) {
        return -EINVAL;
    }
    uint8_t *to = p2p_prod_reserve(ring, tx->head, len);
    if (unlikely(!to)) {
        return 0;
    }
    if (likely(m->nb_segs == 1)) {
        rte_memcpy(to, rte_pktmbuf_mtod(m, void *), len);
    } else {
        p2plink_copy_out(m, 0, len, to);
    }
    p2p_prod_fill(ring, tx->head, to, len, 0, m->ol_flags & RTE_MBUF_F_RX_RSS_HASH ? m->hash.rss : 0);
    tx->head++;
    tx->bytes += len;
    return 1;
}

uint16_t p2plink_tx_burst(void *txq, struct rte_mbuf **pkts, uint16_t n)
{
    struct p2plink_txq *q = txq;
    struct p2plink_tx tx = { .bytes = 0 };
    unsigned bad = 0;
    uint16_t i = 0;
    uint32_t begin = 0;

    if (unlikely(!q->running)) {
        return 0;
    }
    if (likely(vnf_tx_begin(q->port, q->id, &tx.vnf))) {
        tx.head = begin = p2p_prod_begin(tx.vnf.ring);
        for (; i < n; i++) {
            struct rte_mbuf *m = pkts[i];

            if (likely(i + 4 < n)) {
                rte_prefetch0(rte_pktmbuf_mtod(pkts[i + 4], void *));
            }
            int put = likely(!(m->ol_flags & TX_WORK)) ? tx_plain(&tx, m) : p2plink_tx_offload(q, &tx, m);
            if (unlikely(put <= 0)) {
                if (!put) {
                    break;
                }
                bad++; /* Goes away with those that were sent: offered again, it would fail again. */
            }
        }
        if (tx.head != begin) {
            p2p_prod_publish(tx.vnf.ring, tx.head);
        }
    }
    vnf_tx_end(q->port, q->id, &tx.vnf, tx.head - begin + tx.extra, tx.bytes, n - i);
    rte_pktmbuf_free_bulk(pkts, i);
    q->count->packets += tx.head - begin + tx.extra;
    q->count->bytes += tx.bytes;
    q->count->bad += bad;
    return i;
}
