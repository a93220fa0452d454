/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's half of the control protocol: what the switch's words ask for, and our answers.
 *
 * Called by the port's control thread, over and over.  Level-triggered: each call compares what is wanted with what has
 * been done.  An answer that somebody relies on (mode_ack, rx_link_ack, UNMAPPED) is stored only after a grace period,
 * so that it speaks for all data threads, whether they call or not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "rcu.h"
#include "vnf.h"

static struct vnf_chan *find_chan(struct vnf_map *map, uint32_t link_id)
{
    for (unsigned k = 0; link_id && k < P2P_MAX_LINKS; k++) {
        if (map->chan[k] && map->chan[k]->link_id == link_id) {
            return map->chan[k];
        }
    }
    return NULL;
}

/* Says to the peer what our application can deal with. */
static void say_takes(struct p2p_port *port, struct vnf_chan *c)
{
    uint32_t takes = p2p_load(&port->takes);

    for (unsigned i = 0; i < c->n_rx; i++) {
        if (p2p_load(&c->rx[i].ctl->takes) != takes) {
            p2p_store(&c->rx[i].ctl->takes, takes);
        }
    }
}

/* Makes a channel of a mapped link region, which it takes over, also on failure. */
static int make_chan(struct p2p_port *port, struct vnf_map *map, struct p2p_region *region, unsigned side,
                     struct vnf_chan **chanp, struct p2p_error *err)
{
    const struct p2p_region_header *h = &region->hdr;
    struct vnf_chan *c = NULL;
    int error = 0;

    if (strcmp(h->name[side], port->name) || h->n_queues[side] != map->n_txq) {
        error = p2p_fail(err, -EPROTO, "link %u is for port %s with %u queues, this is %s with %u", h->link_id,
                         h->name[side], h->n_queues[side], port->name, map->n_txq);
        goto fail;
    }
    if (h->mtu != map->region.hdr.mtu) {
        /* The peer could have written that: the application relies on the MTU that it was told. */
        error = p2p_fail(err, -EPROTO, "link %u has MTU %u, port %s has %u", h->link_id, h->mtu, port->name,
                         map->region.hdr.mtu);
        goto fail;
    }
    c = aligned_alloc(128, (sizeof *c + 127) / 128 * 128);
    if (!c) {
        error = p2p_fail(err, -ENOMEM, "out of memory for link %u", h->link_id);
        goto fail;
    }
    memset(c, 0, sizeof *c);
    c->region = *region;
    c->link_id = h->link_id;
    c->serial = p2p_unique64();
    c->side = side;
    c->n_tx = h->n_queues[side];
    c->n_rx = h->n_queues[!side];
    for (unsigned i = 0; i < c->n_tx && !error; i++) {
        error = p2p_prod_init(&c->tx[i], region, (side ? h->n_queues[0] : 0) + i);
    }
    for (unsigned i = 0; i < c->n_rx; i++) {
        p2p_cons_init(&c->rx[i], region, (side ? 0 : h->n_queues[0]) + i);
    }
    say_takes(port, c);
    if (error) {
        p2p_fail(err, error, "out of memory for link %u", h->link_id);
        goto fail;
    }
    *chanp = c;
    return 0;

fail:
    for (unsigned i = 0; c && i < c->n_tx; i++) {
        p2p_prod_uninit(&c->tx[i]);
    }
    free(c);
    p2p_region_unmap(region);
    return error;
}

/* Frees a channel that data threads no longer see (after a grace period). */
void vnf_chan_free(struct p2p_port *port, struct vnf_chan *c, bool blank)
{
    for (unsigned i = 0; i < c->n_tx; i++) {
        p2p_prod_uninit(&c->tx[i]);
    }
    vnf_bury(port, &c->region, blank);
    free(c);
}

/* Takes 'c' (or, with NULL, whatever is there) from under the data threads' eyes. */
static void hide_chan(struct vnf_map *map, struct vnf_chan *c)
{
    bool hidden = false;

    if (map->tx_chan && (!c || map->tx_chan == c)) {
        p2p_rcu_set(map->tx_chan, NULL);
        hidden = true;
    }
    if (map->rx_chan && (!c || map->rx_chan == c)) {
        p2p_rcu_set(map->rx_chan, NULL);
        hidden = true;
    }
    if (hidden) {
        p2p_rcu_wait();
    }
}

/* The sender has left: an honest one, which has said so before we were asked to drain, puts nothing more into the
 * channel, and what another one goes on to put there is not received.  Else it could keep others off us. */
static void chan_begin_end(struct vnf_chan *c)
{
    if (!c->ending) {
        for (unsigned i = 0; i < c->n_rx; i++) {
            c->last[i] = p2p_load_acquire(&c->rx[i].ctl->head);
        }
        p2p_store_release(&c->ending, true);
    }
}

/* Received, and not looked at any more. */
static bool chan_drained(const struct vnf_chan *c)
{
    for (unsigned i = 0; i < c->n_rx; i++) {
        if ((int32_t)(p2p_load_acquire(&c->rx[i].ctl->freed) - c->last[i]) < 0) {
            return false;
        }
    }
    return true;
}

static bool run_want(struct p2p_port *port, struct vnf_map *map, unsigned k, bool *answered)
{
    uint64_t want = p2p_load_acquire(&map->sw->want[k]);
    if (want == map->want_done[k]) {
        return false;
    }

    uint32_t link_id = p2p_want_link(want);
    struct vnf_chan *c = map->chan[k];
    struct p2p_error err = { "" };
    uint64_t have = 0;

    if (c && (p2p_want_what(want) != P2P_WANT_MAP || c->link_id != link_id)) {
        hide_chan(map, c);
        map->chan[k] = NULL;
        vnf_chan_free(port, c, true);
        c = NULL;
    }
    switch (p2p_want_what(want)) {
    case P2P_WANT_MAP:
        if (!c) {
            uint64_t generation = p2p_load_acquire(&map->sw->want_generation[k]);
            struct p2p_region region = P2P_REGION_INIT;
            int error = (port->pci ? vnf_pci_link : vnf_socket_link)(port, link_id, generation, &region, &err);
            if (error == -EAGAIN) {
                return true; /* Not there yet. */
            }
            if (!error) {
                error = make_chan(port, map, &region, p2p_want_side(want), &map->chan[k], &err);
            }
            if (error) {
                p2p_log(&port->log, P2P_LOG_WARN, "link %u: %s", link_id, err.text);
                have = p2p_have(link_id, -error, P2P_HAVE_FAILED);
                break;
            }
            p2p_log(&port->log, P2P_LOG_INFO, "link %u mapped", link_id);
        }
        have = p2p_have(link_id, 0, P2P_HAVE_MAPPED);
        break;
    case P2P_WANT_UNMAP:
        p2p_log(&port->log, P2P_LOG_INFO, "link %u unmapped", link_id);
        have = p2p_have(link_id, 0, P2P_HAVE_UNMAPPED);
        break;
    case P2P_WANT_NONE:
    default:
        break;
    }
    map->want_done[k] = want;
    p2p_store_release(&map->vnf->have[k], have);
    *answered = true;
    return false;
}

static void run_mode(struct vnf_map *map, bool *answered)
{
    uint64_t mode = p2p_load_acquire(&map->sw->mode);
    if (mode == map->mode_done) {
        return;
    }
    struct vnf_chan *c = find_chan(map, p2p_mode_link(mode));
    if (c != map->tx_chan) {
        p2p_rcu_set(map->tx_chan, c);
    }
    /* From here on no data thread is in a burst that began before this mode was there to be read. */
    p2p_rcu_wait();
    map->mode_done = mode;
    p2p_store_release(&map->vnf->mode_ack, mode);
    *answered = true;
}

static bool run_rx_link(struct vnf_map *map, bool *answered)
{
    uint64_t word = p2p_load_acquire(&map->sw->rx_link);
    if (word == map->rx_link_done) {
        return false;
    }
    switch (p2p_rx_link_state(word)) {
    case P2P_RX_ACTIVE: {
        struct vnf_chan *c = find_chan(map, p2p_rx_link_id(word));
        if (!c) {
            return true;
        }
        p2p_store_release(&c->ending, false);
        if (c != map->rx_chan) {
            bool replaced = map->rx_chan != NULL;
            p2p_rcu_set(map->rx_chan, c);
            if (replaced) {
                p2p_rcu_wait(); /* The former one may be unmapped next. */
            }
        }
        break;
    }
    case P2P_RX_DRAIN:
        if (map->rx_chan) {
            chan_begin_end(map->rx_chan);
            if (!chan_drained(map->rx_chan)) {
                return true;
            }
        }
        /* Fall through. */
    case P2P_RX_DROP:
    case P2P_RX_NONE:
    default:
        if (map->rx_chan) {
            p2p_rcu_set(map->rx_chan, NULL);
            p2p_rcu_wait();
        }
        break;
    }
    map->rx_link_done = word;
    p2p_store_release(&map->vnf->rx_link_ack, word);
    *answered = true;
    return false;
}

/* The peer has made holes into a link region, and there was no memory left to fill them: what we send takes the normal
 * way from the next burst on. */
static void drop_torn(struct p2p_port *port, struct vnf_map *map, unsigned k, bool *answered)
{
    struct vnf_chan *c = map->chan[k];

    p2p_log(&port->log, P2P_LOG_WARN, "link %u: the peer has taken memory out of it; not used any more", c->link_id);
    hide_chan(map, c);
    map->chan[k] = NULL;
    p2p_store_release(&map->vnf->have[k], p2p_have(c->link_id, EFAULT, P2P_HAVE_FAILED));
    vnf_chan_free(port, c, true);
    *answered = true;
}

void vnf_set_takes(struct p2p_port *port, uint32_t takes)
{
    p2p_store(&port->takes, takes);
}

bool vnf_words_run(struct p2p_port *port)
{
    struct vnf_map *map = port->map;
    bool pending = false, answered = false;

    if (!map) {
        return false;
    }
    p2p_store(&map->vnf->heartbeat, map->vnf->heartbeat + 1);

    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        if (map->chan[k] && p2p_region_torn(&map->chan[k]->region)) {
            drop_torn(port, map, k, &answered);
        }
        if (map->chan[k]) {
            say_takes(port, map->chan[k]);
        }
        pending |= run_want(port, map, k, &answered);
    }
    run_mode(map, &answered);
    pending |= run_rx_link(map, &answered);
    if (answered) {
        vnf_socket_poke(port);
    }
    return pending;
}
