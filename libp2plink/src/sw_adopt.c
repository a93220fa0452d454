/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VNFs and links from before a restart of the switch.
 *
 * A VNF that finds a new switch behind the socket offers what it has: its port region and its link regions (a guest's
 * are offered by the agent).  The offers are not believed; the ledger is.  A port region is adopted if it is the one
 * that the ledger names, sealed, and of the right shape; then all words of ours are stored again from the ledger, and
 * the rings go on where they stand.  Whatever does not fit is refused, and the VNF begins anew with a fresh region.
 *
 * With the switch's mutex held.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sw.h"

/* Can nobody shrink it under us? */
static bool sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK);
}

/* Takes up the switch-to-VNF ring where it stands: what lies in it still has to be known by place. */
static bool resume_prod(struct p2p_prod *p)
{
    uint32_t head = p2p_load_acquire(&p->ctl->head);
    uint32_t freed = p2p_load_acquire(&p->ctl->freed);

    if ((uint32_t)(head - freed) > p->mask + 1) {
        return false;
    }
    p2p_prod_restart(p, head);
    p->freed = freed;
    for (uint32_t i = freed; i != head; i++) {
        const struct p2p_desc *d = &p->desc[i & p->mask];
        uint32_t off = p2p_load(&d->off), len = p2p_load(&d->len);
        if (len > p->max_len || len > p->data_size || off > p->data_size - len || off % P2P_CACHE_LINE) {
            return false;
        }
        p->pos[i & p->mask] = off;
        p->cursor = off + (len + P2P_CACHE_LINE - 1) / P2P_CACHE_LINE * P2P_CACHE_LINE;
    }
    return p->cursor <= p->data_size;
}

static bool resume_rings(struct sw_region *r)
{
    for (unsigned q = 0; q < r->n_queues; q++) {
        uint32_t used = p2p_load_acquire(&r->rx[q].ring.ctl->head) - r->rx[q].ring.next;
        if (used > r->rx[q].ring.mask + 1 || !resume_prod(&r->tx[q].ring)) {
            return false;
        }
    }
    return true;
}

/* Takes over the port region that 'offer' holds.  False: it is not what the ledger says, the VNF must begin anew. */
bool sw_adopt_port(struct p2p_swport *port, struct sw_conn *conn, const struct sw_offer *offer)
{
    struct p2p_switch *sw = port->sw;
    struct sw_ledger_port *ledger = port->ledger;
    struct p2p_region region = P2P_REGION_INIT;
    struct p2p_error err = { "" };

    if (port->used || port->attached || !ledger->session || ledger->generation != offer->generation
        || !sealed(offer->fd)) {
        return false;
    }
    int fd = fcntl(offer->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0 || p2p_region_map(&region, fd, offer->size, P2P_PORT_MAGIC, offer->generation, &err)) {
        if (fd >= 0) {
            close(fd);
        }
        p2p_log(&sw->log, P2P_LOG_WARN, "port %s: what its VNF has cannot be adopted: %s", port->name, err.text);
        return false;
    }
    const struct p2p_region_header *h = &region.hdr;
    if (strcmp(h->name[0], port->name) || h->n_queues[0] != port->cfg.n_queues || h->n_queues[1] != port->cfg.n_queues
        || h->mtu != port->cfg.mtu || memcmp(h->mac, port->cfg.mac, sizeof h->mac)) {
        p2p_region_unmap(&region);
        return false; /* Configured differently now. */
    }
    struct sw_region *r = sw_region_wrap(port, &region, &err);
    if (!r) {
        return false;
    }
    if (p2p_load_acquire(&r->vnf->session) != ledger->session || !resume_rings(r)) {
        for (unsigned q = 0; q < r->n_queues; q++) {
            p2p_prod_uninit(&r->tx[q].ring);
        }
        p2p_region_unmap(&r->region);
        free(r);
        return false;
    }

    p2p_store(&r->sw->mode, ledger->mode);
    p2p_store(&r->sw->rx_link, ledger->rx_link);
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        p2p_store(&r->sw->want[k], ledger->want[k]);
    }
    /* Numbers that go on from the ledger's, so that no old acknowledgement fits a new word. */
    port->mode_seq = (uint32_t)ledger->mode >> 1;
    port->rx_seq = (uint32_t)ledger->rx_link >> 2;
    r->gate_awaited = true;
    sw_port_put_region(port, r);
    port->session = ledger->session;
    port->used = true;
    port->attached = true;
    port->in_guest = conn == sw->agent;
    port->heartbeat_ms = p2p_now_ms();
    sw_stats_adopt(port);
    p2p_store_release(&r->rx_ready, true);
    p2p_store_release(&r->tx_ready, true);
    p2p_store_release(&r->sw->session, port->session);
    p2p_log(&sw->log, P2P_LOG_INFO, "port %s: its VNF has been adopted", port->name);
    sw_changed(sw);
    return true;
}

/* Takes over the link regions that an adopted VNF has, as far as they have been offered; what has not, is ended. */
void sw_adopt_links(struct p2p_swport *port, struct sw_conn *conn)
{
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        uint64_t want = port->ledger->want[k];
        uint32_t link_id = p2p_want_link(want);
        unsigned side = p2p_want_side(want);
        struct p2p_error err = { "" };

        if (p2p_want_what(want) == P2P_WANT_NONE) {
            continue;
        }
        const struct sw_offer *offer = sw_conn_offer(conn, port->name, link_id);
        struct sw_chan *c = offer && sealed(offer->fd) ? sw_chan_adopt(port->sw, offer, &err) : NULL;
        if (!c || strcmp(c->end[side].name, port->name) || c->end[side].state != SW_END_AWAITED) {
            p2p_store(&port->ledger->want[k], p2p_want(link_id, side, P2P_WANT_UNMAP));
            p2p_store_release(&port->region->sw->want[k], port->ledger->want[k]);
            continue;
        }
        struct sw_end *e = &c->end[side];
        e->port = port;
        e->slot = k;
        e->guest = port->in_guest;
        e->pid = e->guest ? 0 : conn->pid;
        e->plug_sent = port->in_guest;
        e->state = p2p_want_what(want) == P2P_WANT_MAP ? SW_END_MAPPING : SW_END_UNMAPPING;
        e->deadline_ms = p2p_now_ms() + port->sw->cfg.plug_ms;
        c->closing |= p2p_want_what(want) == P2P_WANT_UNMAP;
        port->slot[k] = c;

        struct p2p_swport *peer = c->end[!side].port;
        if (peer) {
            sw_dir_adopt(port, peer, c);
            sw_dir_adopt(peer, port, c);
        }
    }
}
