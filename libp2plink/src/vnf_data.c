/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's hot path: transmit and receive bursts, and the switchover as seen from the two VNFs.
 *
 * Runs on the application's data threads, each burst inside an RCU read-side section.  docs/protocol.md names the
 * steps.
 */
#include "rcu.h"
#include "vnf.h"

/*
 * Transmit.
 */

/* The direct ring for this burst, or NULL for the normal one.  Begins an epoch if the direct ring was not in use. */
static inline struct p2p_prod *tx_direct(struct vnf_map *map, struct vnf_txq *t, unsigned queue,
                                         struct vnf_txq_stats *stats)
{
    uint64_t mode = p2p_load_acquire(&map->sw->mode);
    if (!p2p_mode_direct(mode)) {
        return NULL;
    }
    struct vnf_chan *chan = p2p_rcu_get(map->tx_chan);
    if (p2p_unlikely(!chan || chan->link_id != p2p_mode_link(mode) || queue >= chan->n_tx)) {
        return NULL; /* The control thread is not that far yet, or no longer. */
    }

    struct p2p_prod *d = &chan->tx[queue];
    if (p2p_likely(t->using_link == chan->link_id)) {
        return d;
    }
    /* An epoch begins only on an empty ring: what lies in it belongs before what we have sent to the normal ring since,
     * and the receiver could not tell. */
    if (!p2p_prod_drained(d)) {
        return NULL;
    }
    uint32_t epoch = t->epoch + 1;
    epoch += !epoch; /* 0 means never. */
    uint64_t start = p2p_epoch_word(epoch, t->normal.head);
    p2p_store_release(&d->ctl->start, start);            /* For the receiver: before any packet of the epoch. */
    p2p_store_release(&map->vnf->txq[queue].start, start); /* For the switch: before any later normal packet. */
    t->epoch = epoch;
    t->using_link = chan->link_id;
    p2p_store(&map->vnf->txq[queue].epochs, map->vnf->txq[queue].epochs + 1);
    p2p_store(&stats->epochs, stats->epochs + 1);
    return d;
}

bool vnf_tx_begin(struct p2p_port *port, unsigned queue, struct vnf_tx *tx)
{
    p2p_rcu_lock();
    struct vnf_map *map = p2p_rcu_get(port->map);
    if (p2p_unlikely(!map || queue >= map->n_txq)) {
        *tx = (struct vnf_tx) { .ring = NULL };
        return false;
    }
    struct vnf_txq *t = &map->tx[queue];
    struct p2p_prod *d = tx_direct(map, t, queue, &port->txs[queue]);
    if (!d) {
        t->using_link = 0;
    }
    *tx = (struct vnf_tx) { .ring = d ? d : &t->normal, .words = &map->vnf->txq[queue], .direct = d != NULL };
    return true;
}

void vnf_tx_end(struct p2p_port *port, unsigned queue, const struct vnf_tx *tx, unsigned sent, uint64_t bytes,
                unsigned refused)
{
    struct vnf_txq_stats *stats = &port->txs[queue < P2P_MAX_QUEUES ? queue : 0];
    struct p2p_vnf_txq *words = tx->words;

    if (tx->direct) {
        p2p_store(&words->direct_packets, words->direct_packets + sent);
        p2p_store(&words->direct_bytes, words->direct_bytes + bytes);
        p2p_store(&stats->direct_packets, stats->direct_packets + sent);
        p2p_store(&stats->direct_bytes, stats->direct_bytes + bytes);
    }
    if (p2p_unlikely(refused && words)) {
        p2p_store(&words->refused, words->refused + refused);
    }
    p2p_rcu_unlock();

    p2p_store(&stats->packets, stats->packets + sent);
    p2p_store(&stats->bytes, stats->bytes + bytes);
    if (p2p_unlikely(refused)) {
        p2p_store(&stats->refused, stats->refused + refused);
    }
}

unsigned p2p_tx_burst(struct p2p_port *port, unsigned queue, const struct p2p_buf *bufs, unsigned n)
{
    struct vnf_tx tx;
    uint64_t bytes = 0;
    unsigned sent = 0;

    if (p2p_likely(vnf_tx_begin(port, queue, &tx))) {
        sent = p2p_prod_burst(tx.ring, bufs, n, &bytes);
    }
    vnf_tx_end(port, queue, &tx, sent, bytes, n - sent);
    return sent;
}

/*
 * Receive.
 */

static void add_seg(struct vnf_rxq *rq, struct p2p_cons *ring, uint32_t upto, bool direct)
{
    if (ring->next != upto || !direct) {
        rq->seg[rq->n_segs++] = (struct vnf_seg) { ring, upto, direct };
    }
}

/* Looks at all rings once and decides what to serve, in which order, until the next look.
 *
 * The order of the loads is the protocol: the normal ring's head, then for each direct ring its head, then its start,
 * then its gate.  If a normal packet that the sender sent after its last direct one is seen, so is that direct one; and
 * a direct packet is seen only with the start of its epoch. */
static void look(struct vnf_map *map, struct vnf_rxq *rq, struct vnf_chan **chanp, unsigned queue)
{
    struct { uint32_t cut, upto; unsigned i; } wait[P2P_MAX_QUEUES];
    unsigned n_wait = 0;

    rq->n_segs = rq->cur = 0;

    uint32_t n = p2p_cons_head(&rq->normal);
    struct vnf_chan *chan = p2p_rcu_get(map->rx_chan);
    *chanp = chan;
    rq->chan_serial = chan ? chan->serial : 0;
    for (unsigned i = queue; chan && i < chan->n_rx; i += map->n_rxq) {
        struct p2p_cons *d = &chan->rx[i];
        uint32_t upto = p2p_cons_head(d);
        if (p2p_unlikely(p2p_load_acquire(&chan->ending)) && (int32_t)(upto - chan->last[i]) > 0) {
            upto = (int32_t)(chan->last[i] - d->next) > 0 ? chan->last[i] : d->next;
        }
        uint64_t start = p2p_load_acquire(&d->ctl->start);
        uint64_t gate = p2p_load_acquire(&map->sw->gate[i]);
        uint32_t epoch = p2p_word_epoch(start);

        if (!epoch || epoch != p2p_word_epoch(gate)) {
            continue; /* Shut: what was sent before that epoch may not all be in the normal ring yet. */
        }
        if (p2p_unlikely(chan->passed[i] != epoch)) {
            uint32_t cut = p2p_word_index(gate);
            if ((int32_t)(cut - rq->normal.next) > 0) {
                if ((int32_t)(cut - n) > 0) {
                    continue; /* The gate is newer than our look at the normal ring: as good as shut. */
                }
                unsigned j = n_wait++;
                for (; j && (int32_t)(wait[j - 1].cut - cut) > 0; j--) {
                    wait[j] = wait[j - 1];
                }
                wait[j].cut = cut;
                wait[j].upto = upto;
                wait[j].i = i;
                continue;
            }
            chan->passed[i] = epoch; /* Compared once: for ever, it would come back after 2^31 packets. */
        }
        add_seg(rq, d, upto, true);
    }
    for (unsigned j = 0; j < n_wait; j++) {
        add_seg(rq, &rq->normal, wait[j].cut, false);
        add_seg(rq, &chan->rx[wait[j].i], wait[j].upto, true);
    }
    add_seg(rq, &rq->normal, n, false);
}

unsigned vnf_rx_burst(struct p2p_port *port, unsigned queue, struct p2p_pkt *pkts, uint32_t *flags, unsigned n)
{
    struct vnf_rxq_stats *stats = &port->rxs[queue < P2P_MAX_QUEUES ? queue : 0];
    uint64_t normal_bytes = 0, direct_bytes = 0, bad = stats->bad;
    unsigned direct = 0, got = 0, extra = 0;

    p2p_rcu_lock();
    struct vnf_map *map = p2p_rcu_get(port->map);
    if (p2p_likely(map && queue < map->n_rxq)) {
        struct vnf_rxq *rq = &map->rx[queue];
        struct p2p_vnf_rxq *words = &map->vnf->rxq[queue];
        struct vnf_chan *chan = p2p_rcu_get(map->rx_chan);

        p2p_store(&words->polls, words->polls + 1);
        if (rq->cur == rq->n_segs || rq->chan_serial != (chan ? chan->serial : 0)) {
            look(map, rq, &chan, queue);
        }
        while (got < n && rq->cur < rq->n_segs) {
            struct vnf_seg *s = &rq->seg[rq->cur];
            if (s->direct) {
                unsigned k = p2p_cons_take_flags(s->ring, s->upto, pkts + got, flags ? flags + got : NULL, n - got,
                                                 &direct_bytes, &stats->bad);
                /* What the receiver has not taken when a link is over, counts as dropped. */
                p2p_cons_received(s->ring);
                got += k;
                direct += k + s->ring->extra;
                extra += s->ring->extra;
                s->ring->extra = 0;
            } else {
                got += p2p_cons_take_flags(s->ring, s->upto, pkts + got, flags ? flags + got : NULL, n - got,
                                           &normal_bytes, &stats->bad);
            }
            if (s->ring->next == s->upto) {
                rq->cur++;
            } else if (p2p_unlikely(got < n)) {
                break; /* Many were bad: the rest next time. */
            }
        }
        if (direct) {
            p2p_store(&words->direct_packets, words->direct_packets + direct);
            p2p_store(&words->direct_bytes, words->direct_bytes + direct_bytes);
        }
        if (p2p_unlikely(stats->bad != bad)) {
            p2p_store(&words->bad_descs, words->bad_descs + (stats->bad - bad));
        }
        if (got) {
            p2p_store(&stats->held, 1);
        }
    }
    p2p_rcu_unlock();

    if (got) {
        p2p_store(&stats->packets, stats->packets + got + extra);
        p2p_store(&stats->bytes, stats->bytes + normal_bytes + direct_bytes);
        p2p_store(&stats->direct_packets, stats->direct_packets + direct);
        p2p_store(&stats->direct_bytes, stats->direct_bytes + direct_bytes);
    }
    return got;
}

unsigned p2p_rx_burst(struct p2p_port *port, unsigned queue, struct p2p_pkt *pkts, unsigned n)
{
    return vnf_rx_burst(port, queue, pkts, NULL, n);
}

void p2p_rx_release(struct p2p_port *port, unsigned queue)
{
    p2p_rcu_lock();
    struct vnf_map *map = p2p_rcu_get(port->map);
    if (p2p_likely(map && queue < map->n_rxq)) {
        struct vnf_chan *chan = p2p_rcu_get(map->rx_chan);

        p2p_cons_release(&map->rx[queue].normal);
        for (unsigned i = queue; chan && i < chan->n_rx; i += map->n_rxq) {
            p2p_cons_release(&chan->rx[i]);
        }
    }
    p2p_rcu_unlock();

    struct vnf_rxq_stats *stats = &port->rxs[queue < P2P_MAX_QUEUES ? queue : 0];
    if (stats->held) {
        p2p_store(&stats->held, 0);
        p2p_store_release(&stats->releases, stats->releases + 1);
    }
}
