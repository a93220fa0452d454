/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters of direct traffic.
 *
 * The sender counts what it puts into direct rings, per queue, in its own port region.  vswitchd takes over the growth
 * since the last look and adds it to sums of its own: one sum for the sender's port, one for the receiver's, always the
 * same growth for both.  Thus nothing is counted twice, nothing goes backwards, and a VNF's restart loses nothing.
 *
 * The words come from a VNF that may lie.  What is believed is bounded by what a ring could have carried: no packets
 * without a channel, no more of them than memory could move, no fewer or more bytes than frames of legal size have.
 * The bounds hold for the growth since the last look and, so that many small lies get no further than a big one, for
 * all since the VNF came.
 *
 * With the switch's mutex held.
 */
#include <string.h>
#include "sw.h"

/* More than any memory moves: 2 ns per packet and queue. */
#define MIN_NS_PER_PACKET 2u
/* Growth of counters that people look at: more than anybody offers between two looks, too little for sums to wrap. */
#define MOST_REFUSED (UINT64_C(1) << 40)

/* From now on, growth counts. */
void sw_stats_rebase(struct p2p_swport *port)
{
    struct p2p_vnf_page *vnf = port->region->vnf;

    port->base_ns = port->first_ns = p2p_now_ns();
    port->refused_base = port->epochs_base = 0;
    for (unsigned q = 0; q < port->region->n_queues; q++) {
        port->ledger->base[q].packets = p2p_load(&vnf->txq[q].direct_packets);
        port->ledger->base[q].bytes = p2p_load(&vnf->txq[q].direct_bytes);
        port->first[q] = port->ledger->base[q];
        port->late[q] = 0;
        port->refused_base += p2p_load(&vnf->txq[q].refused);
        port->epochs_base += p2p_load(&vnf->txq[q].epochs);
    }
}

static void sync_people_counters(struct p2p_swport *port)
{
    struct p2p_vnf_page *vnf = port->region->vnf;
    uint64_t refused = 0, epochs = 0, polls = 0;

    for (unsigned q = 0; q < port->region->n_queues; q++) {
        refused += p2p_load(&vnf->txq[q].refused);
        epochs += p2p_load(&vnf->txq[q].epochs);
        polls += p2p_load(&vnf->rxq[q].polls);
    }
    if (refused - port->refused_base < MOST_REFUSED) {
        port->refused_sum += refused - port->refused_base;
    }
    if (epochs - port->epochs_base < MOST_REFUSED) {
        port->epochs_sum += epochs - port->epochs_base;
    }
    port->refused_base = refused;
    port->epochs_base = epochs;
    if (polls != port->polls) {
        port->polls = polls;
        port->polls_changed_ms = p2p_now_ms();
    }
}

/* 'port's VNF has been adopted: all that it has counted since the ledger was last written counts. */
void sw_stats_adopt(struct p2p_swport *port)
{
    port->base_ns = port->first_ns = 0;
    port->refused_base = port->epochs_base = 0;
    for (unsigned q = 0; q < port->region->n_queues; q++) {
        port->first[q] = port->ledger->base[q];
        port->late[q] = 0;
    }
}

/* After a restart, the receiver of 'port' has not come back, and mode has been set to NORMAL: the sender's count stands
 * alone. */
void sw_stats_orphan(struct p2p_swport *port)
{
    for (unsigned q = 0; q < port->region->n_queues; q++) {
        port->late[q] = UINT32_MAX;
    }
    sw_stats_sync(port);
    sw_stats_over(port);
}

/* The direction of 'port' is over.  One burst may still be on its way, in each queue. */
void sw_stats_over(struct p2p_swport *port)
{
    for (unsigned q = 0; q < port->region->n_queues; q++) {
        port->late[q] = port->region->region.hdr.ring[q].n_desc;
    }
}

/* Can a sender have counted up to 'now' in queue 'q', by time 'now_ns'?  'after' is its packet counter as read after
 * the other two: a burst may come between. */
static bool plausible(const struct p2p_swport *port, unsigned q, const struct sw_counts *now, uint64_t after,
                      uint64_t now_ns)
{
    uint64_t n_desc = port->region->region.hdr.ring[q].n_desc;
    uint64_t max_frame = port->region->region.hdr.mtu + P2P_FRAME_OVERHEAD;
    uint64_t grown = now->packets - port->ledger->base[q].packets;
    uint64_t packets = now->packets - port->first[q].packets;
    uint64_t bytes = now->bytes - port->first[q].bytes;
    uint64_t more = after - now->packets;

    if (!port->to && grown > port->late[q]) {
        return false;
    }
    return grown <= (now_ns - port->base_ns) / MIN_NS_PER_PACKET + n_desc
           && packets <= (now_ns - port->first_ns) / MIN_NS_PER_PACKET + n_desc
           && more <= UINT32_MAX
           && now->bytes - port->ledger->base[q].bytes <= bytes
           && bytes / max_frame <= packets + more + n_desc
           && packets <= (bytes + n_desc * max_frame) / P2P_FRAME_MIN;
}

/* Takes over what 'port's VNF has counted since the last time. */
void sw_stats_sync(struct p2p_swport *port)
{
    struct sw_region *r = port->region;
    if (!r || !port->session) {
        return; /* Nobody has been let in: nothing that is in there counts. */
    }
    if (!port->to && p2p_mode_direct(port->ledger->mode)) {
        return; /* After a restart, its receiver has not come back yet, and both must count the same. */
    }
    sync_people_counters(port);

    uint64_t before = p2p_now_ns();
    for (unsigned q = 0; q < r->n_queues; q++) {
        const struct p2p_vnf_txq *words = &r->vnf->txq[q];
        struct sw_counts *base = &port->ledger->base[q];
        struct sw_counts now = { .packets = p2p_load_acquire(&words->direct_packets) };
        now.bytes = p2p_load_acquire(&words->direct_bytes);
        uint64_t after = p2p_load_acquire(&words->direct_packets);
        struct sw_counts grown = { now.packets - base->packets, now.bytes - base->bytes };

        if (!grown.packets && !grown.bytes) {
            continue;
        }
        if (plausible(port, q, &now, after, p2p_now_ns())) {
            port->ledger->out_sum.packets += grown.packets;
            port->ledger->out_sum.bytes += grown.bytes;
            if (port->to) {
                port->to->ledger->in_sum.packets += grown.packets;
                port->to->ledger->in_sum.bytes += grown.bytes;
            } else {
                /* The rest of a burst that was on its way when its receiver ceased to be. */
                port->late[q] -= (uint32_t)grown.packets;
            }
        } else {
            static const char text[] = "its counters cannot be true and are not believed";
            if (strcmp(port->last_error, text)) {
                sw_port_error(port, "%s", text);
            }
            /* As if it had not been. */
            port->first[q].packets += grown.packets;
            port->first[q].bytes += grown.bytes;
            port->late[q] = 0;
        }
        *base = now;
    }
    port->base_ns = before;
}

/* Packets that lie in the direct rings that side 'from_side' sends on; never more than the rings hold. */
uint32_t sw_stats_left(const struct sw_chan *chan, unsigned from_side)
{
    const struct p2p_region_header *h = &chan->region.hdr;
    unsigned first = from_side ? h->n_queues[0] : 0;
    uint32_t left = 0;

    for (unsigned i = 0; i < h->n_queues[from_side]; i++) {
        const struct p2p_ring_geometry *g = &h->ring[first + i];
        const struct p2p_ring_ctl *ctl = p2p_region_at(&chan->region, g->ctl_off);
        uint32_t used = p2p_load(&ctl->head) - p2p_load(&ctl->tail);
        left += used <= g->n_desc ? used : g->n_desc;
    }
    return left;
}

uint32_t sw_stats_withdraw(struct sw_chan *chan, unsigned from_side)
{
    const struct p2p_region_header *h = &chan->region.hdr;
    unsigned first = from_side ? h->n_queues[0] : 0;
    uint32_t left = 0;

    for (unsigned i = 0; i < h->n_queues[from_side]; i++) {
        const struct p2p_ring_geometry *g = &h->ring[first + i];
        struct p2p_ring_ctl *ctl = p2p_region_at(&chan->region, g->ctl_off);
        uint32_t head = __atomic_exchange_n(&ctl->head, p2p_load(&ctl->tail), __ATOMIC_SEQ_CST);
        uint32_t used = head - p2p_load(&ctl->tail); /* Read after that: some may have been received until then. */
        if ((int32_t)used > 0) { /* (A sender that was in the middle of a burst may have put them back.) */
            left += used <= g->n_desc ? used : g->n_desc;
        }
    }
    return left;
}

void p2p_swport_get_stats(struct p2p_swport *port, struct p2p_swport_stats *stats)
{
    struct p2p_switch *sw = port->sw;

    pthread_mutex_lock(&sw->mutex);
    sw_stats_sync(port);
    if (port->rx_from) {
        sw_stats_sync(port->rx_from);
    }
    uint64_t bad = port->bad_sum;
    for (unsigned q = 0; port->region && q < port->region->n_queues; q++) {
        bad += p2p_load(&port->region->rx[q].bad);
    }
    *stats = (struct p2p_swport_stats) {
        .out_packets = port->ledger->out_sum.packets,
        .out_bytes = port->ledger->out_sum.bytes,
        .in_packets = port->ledger->in_sum.packets,
        .in_bytes = port->ledger->in_sum.bytes,
        .tx_refused = port->refused_sum,
        .rx_bad = bad,
        .in_dropped = port->ledger->in_dropped,
    };
    pthread_mutex_unlock(&sw->mutex);
}

void p2p_swport_get_info(struct p2p_swport *port, struct p2p_swport_info *info)
{
    struct p2p_switch *sw = port->sw;

    memset(info, 0, sizeof *info);
    pthread_mutex_lock(&sw->mutex);
    sw_stats_sync(port);
    p2p_copy_name(info->name, sizeof info->name, port->name);
    info->attached = port->attached;
    info->in_guest = port->in_guest;
    info->pid = port->conn ? port->conn->pid : 0;
    info->n_queues = port->cfg.n_queues;
    info->mtu = port->cfg.mtu;
    if (port->region) {
        info->region_size = port->region->region.size;
        info->generation = port->region->region.hdr.generation;
        p2p_copy_name(info->memory, sizeof info->memory, port->region->region.huge ? "hugepages" : "tmpfs");
    }
    info->state = port->state;
    if (port->to) {
        p2p_copy_name(info->peer, sizeof info->peer, port->to->name);
        info->link_id = port->out->id;
        info->link_size = port->out->region.size;
    } else if (port->target) {
        p2p_copy_name(info->peer, sizeof info->peer, port->target->name);
    }
    if (port->rx_from) {
        struct sw_chan *c = port->rx_from->out;
        p2p_copy_name(info->rx_peer, sizeof info->rx_peer, port->rx_from->name);
        info->rx_link_id = c->id;
        info->ring_used = sw_stats_left(c, sw_chan_side(c, port->rx_from));
    }
    info->switchovers = port->epochs_sum;
    info->rx_polls = port->polls;
    info->rx_idle_ms = port->polls_changed_ms ? (long long)(p2p_now_ms() - port->polls_changed_ms) : -1;
    info->holds = port->holds;
    info->holds_expired = atomic_load(&port->holds_expired);
    p2p_copy_name(info->last_error, sizeof info->last_error, port->last_error);
    p2p_copy_name(info->why, sizeof info->why, port->why);
    pthread_mutex_unlock(&sw->mutex);
}
