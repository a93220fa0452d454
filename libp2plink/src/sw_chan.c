/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a link region: made, brought into both VNFs, used by one or both directions, taken out of both, wiped.
 *
 * With the switch's mutex held.  A VNF maps and unmaps by itself when its 'want' word says so; what differs between
 * processes and guests is only how the memory gets there: over the VNF's own socket, or by the agent's plugging a
 * device. Each end goes its own way and has its own time limits: a VNF or a VM that does not answer delays nobody but
 * itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "sw.h"

static struct p2p_switch *chan_sw(const struct sw_chan *c)
{
    return c->end[0].port ? c->end[0].port->sw : c->end[1].port ? c->end[1].port->sw : NULL;
}

static void fail(struct sw_chan *c, int error, const char *what, const struct sw_end *e)
{
    if (!c->error) {
        c->error = error;
        for (int i = 0; i < 2; i++) {
            if (c->end[i].port) {
                sw_port_error(c->end[i].port, "link %u (%s, %s): %s on the side of %s: %s", c->id, c->end[0].name,
                              c->end[1].name, what, e->name, strerror(-error));
            }
        }
    }
}

/* A direction of traffic leads through it. */
static bool in_use(const struct sw_chan *c)
{
    for (unsigned side = 0; side < 2; side++) {
        if (c->end[side].port && c->end[side].port->out == c) {
            return true;
        }
    }
    return false;
}

static void set_want(struct sw_chan *c, unsigned side, enum p2p_want what)
{
    struct p2p_swport *port = c->end[side].port;
    struct p2p_switch_page *sw = port->region->sw;
    unsigned k = c->end[side].slot;

    uint64_t want = p2p_want(c->id, side, what);
    p2p_store(&port->ledger->want[k], want);
    p2p_store(&sw->want_generation[k], c->region.hdr.generation);
    p2p_store_release(&sw->want[k], want);
    sw_port_poke(port);
}

static void ask_agent(struct p2p_switch *sw, struct sw_chan *c, struct sw_end *e, enum p2p_msg_type type)
{
    if (!sw->agent) {
        return;
    }
    e->plug_seq = sw_conn_seq(sw);
    e->plug_sent = true;
    struct p2p_region r = c->region;
    if (type == P2P_MSG_UNPLUG) {
        r.fd = -1;
    }
    sw_conn_send_region(sw->agent, e->plug_seq, type, e->name, &r);
}

/* Brings the region to one VNF. */
static void begin_map(struct p2p_switch *sw, struct sw_chan *c, unsigned side)
{
    struct sw_end *e = &c->end[side];
    struct p2p_swport *port = e->port;

    e->state = SW_END_MAPPING;
    e->deadline_ms = p2p_now_ms() + sw->cfg.plug_ms;
    if (port->conn) {
        e->pid = port->conn->pid;
        sw_conn_send_region(port->conn, 0, P2P_MSG_REGION, port->name, &c->region);
    } else {
        e->guest = true;
        if (port->claimed) {
            ask_agent(sw, c, e, P2P_MSG_PLUG);
        } else {
            e->deadline_ms = UINT64_MAX; /* A person takes the time that a person takes. */
            if (!port->said_by_hand) {
                port->said_by_hand = true;
                char text[4096];
                sw_port_plug_commands(port, text, sizeof text);
                p2p_log(&sw->log, P2P_LOG_WARN, "port %s: no VM is known for it (external_ids:p2plink-qmp), so its "
                        "links must be plugged by hand; 'p2plinkctl commands %s' prints how, now:\n%s", port->name,
                        port->name, text);
            }
        }
    }
    set_want(c, side, P2P_WANT_MAP);
}

static int free_slot(const struct p2p_swport *p)
{
    for (int k = 0; k < (int)P2P_MAX_LINKS; k++) {
        if (!p->slot[k]) {
            return k;
        }
    }
    return -1;
}

/* The region between 'a' and 'b': the one they have, or a new one.  -EAGAIN: soon; others: see 'err'. */
int sw_chan_get(struct p2p_swport *a, struct p2p_swport *b, struct sw_chan **chanp, struct p2p_error *err)
{
    struct p2p_switch *sw = a->sw;
    unsigned n = 0;

    for (struct sw_chan *c = sw->chans; c; c = c->next) {
        n++;
        if ((c->end[0].port == a && c->end[1].port == b) || (c->end[0].port == b && c->end[1].port == a)) {
            if (!c->closing && !c->error) {
                c->idle_since_ms = 0;
                *chanp = c;
                return 0;
            }
            return p2p_fail(err, -EAGAIN, "the former link region of %s and %s is still being taken away", a->name,
                            b->name);
        }
    }
    if (n >= sw->cfg.max_links) {
        return p2p_fail(err, -ENOSPC, "%u link regions are in use, which is the limit (p2plink-max-links)", n);
    }
    int slot_a = free_slot(a), slot_b = free_slot(b);
    if (slot_a < 0 || slot_b < 0) {
        return p2p_fail(err, -ENOSPC, "port %s has %u link regions, which is the limit", slot_a < 0 ? a->name : b->name,
                        P2P_MAX_LINKS);
    }

    struct sw_chan *c = calloc(1, sizeof *c);
    if (!c) {
        return p2p_fail(err, -ENOMEM, "out of memory");
    }
    c->id = sw->next_link_id++;
    sw->next_link_id += !sw->next_link_id;
    struct p2p_region_spec spec = {
        .link_id = c->id,
        .n_queues = { a->cfg.n_queues, b->cfg.n_queues },
        .mtu = a->cfg.mtu,
        .numa_node = b->cfg.numa_node, /* Receivers read every line; senders only write. */
        .name = { a->name, b->name },
        .huge = sw->cfg.use_hugepages,
        .first_index = sw->cfg.first_index,
    };
    int error = p2p_region_create(&c->region, &spec, &sw->log, err);
    if (error) {
        free(c);
        return error;
    }
    struct p2p_swport *ports[2] = { a, b };
    int slots[2] = { slot_a, slot_b };
    for (unsigned side = 0; side < 2; side++) {
        struct sw_end *e = &c->end[side];
        e->port = ports[side];
        e->slot = (unsigned)slots[side];
        p2p_copy_name(e->name, sizeof e->name, ports[side]->name);
        ports[side]->slot[e->slot] = c;
    }
    c->next = sw->chans;
    sw->chans = c;
    for (unsigned side = 0; side < 2; side++) {
        begin_map(sw, c, side);
    }
    *chanp = c;
    return 0;
}

/* The VNF has let go, or cannot any more.  A guest's device goes next. */
static void unmapped(struct p2p_switch *sw, struct sw_chan *c, unsigned side, uint64_t now)
{
    struct sw_end *e = &c->end[side];

    if (e->port) {
        e->unmapped |= sw_region_left(e->port->region);
        p2p_store(&e->port->ledger->want[e->slot], 0);
        p2p_store_release(&e->port->region->sw->want[e->slot], 0);
        e->port->slot[e->slot] = NULL;
    }
    if (e->guest && e->plug_sent && sw->agent) {
        e->state = SW_END_UNPLUGGING;
        e->deadline_ms = now + sw->cfg.plug_ms;
        ask_agent(sw, c, e, P2P_MSG_UNPLUG);
    } else {
        e->state = SW_END_GONE;
    }
}

static void end_run(struct p2p_switch *sw, struct sw_chan *c, unsigned side, uint64_t now)
{
    struct sw_end *e = &c->end[side];
    uint64_t have = e->port ? p2p_load_acquire(&e->port->region->vnf->have[e->slot]) : 0;
    bool mine = have && p2p_have_link(have) == c->id;

    switch (e->state) {
    case SW_END_AWAITED:
        if (c->closing || c->error || now >= e->deadline_ms) {
            c->error = c->error ? c->error : -ETIMEDOUT;
            e->state = SW_END_GONE;
        }
        break;
    case SW_END_MAPPING:
        sw->busy = true;
        if (mine && p2p_have_what(have) == P2P_HAVE_MAPPED) {
            e->state = SW_END_MAPPED;
        } else if (mine && p2p_have_what(have) == P2P_HAVE_FAILED) {
            fail(c, p2p_have_error(have) ? -p2p_have_error(have) : -EIO, "mapping failed", e);
        } else if (now >= e->deadline_ms) {
            fail(c, -ETIMEDOUT, e->guest ? "the guest has not mapped its device" : "the VNF has not mapped it", e);
        }
        if (c->closing || c->error) {
            set_want(c, side, P2P_WANT_UNMAP);
            e->state = SW_END_UNMAPPING;
            e->deadline_ms = now + sw->cfg.answer_ms;
        }
        break;
    case SW_END_MAPPED:
        if (mine && p2p_have_what(have) == P2P_HAVE_FAILED) {
            fail(c, p2p_have_error(have) ? -p2p_have_error(have) : -EIO, "its memory is lost", e);
        }
        if (c->closing) {
            set_want(c, side, P2P_WANT_UNMAP);
            e->state = SW_END_UNMAPPING;
            e->deadline_ms = now + sw->cfg.answer_ms;
        }
        break;
    case SW_END_UNMAPPING:
        sw->busy = true;
        if ((mine && p2p_have_what(have) == P2P_HAVE_UNMAPPED) || !e->port || !e->port->attached
            || now >= e->deadline_ms) {
            if (now >= e->deadline_ms && e->port) {
                c->forced = true;
                sw_port_error(e->port, "link %u: the VNF has not unmapped it within %u ms; taken away anyway", c->id,
                              sw->cfg.answer_ms);
            } else {
                e->unmapped = mine && p2p_have_what(have) == P2P_HAVE_UNMAPPED;
            }
            unmapped(sw, c, side, now);
        }
        break;
    case SW_END_UNPLUGGING:
        if (now >= e->deadline_ms) {
            c->forced = true;
            if (e->port) {
                sw_port_error(e->port, "link %u: the VM has not let its device go within %u ms", c->id,
                              sw->cfg.plug_ms);
            }
            e->state = SW_END_GONE;
        }
        break;
    case SW_END_GONE:
    default:
        break;
    }
}

void sw_chan_run(struct sw_chan *c, uint64_t now)
{
    struct p2p_switch *sw = chan_sw(c);

    if (!sw) {
        return; /* Both ports are gone; sw_chan_reap() has the rest. */
    }
    if (p2p_region_torn(&c->region)) {
        fail(c, -EFAULT, "its memory is lost", &c->end[0]);
    }
    bool used = in_use(c);
    bool awaited = c->end[0].state == SW_END_AWAITED || c->end[1].state == SW_END_AWAITED;
    if (used || awaited) {
        c->idle_since_ms = 0;
    } else if (!c->idle_since_ms) {
        c->idle_since_ms = now;
    } else if (now - c->idle_since_ms >= sw->cfg.linger_ms) {
        c->closing = true;
    }
    if (!used && (c->error || (!awaited && (!c->end[0].port || !c->end[1].port || !c->end[0].port->attached
                                            || !c->end[1].port->attached)))) {
        c->closing = true;
    }
    for (unsigned side = 0; side < 2; side++) {
        end_run(sw, c, side, now);
    }
}

/* Nobody honest reads at that end any more. */
static bool let_go(const struct sw_end *e)
{
    return e->guest ? e->unplugged : e->unmapped || sw_former_ended(e->pid);
}

/* Gives the region up, so that the memory is free although somebody may have kept a mapping. */
static void give_up(struct p2p_switch *sw, struct sw_chan *c)
{
    const struct sw_end *keeper = NULL;
    bool in_guest = false;

    for (unsigned side = 0; side < 2; side++) {
        if (!let_go(&c->end[side])) {
            keeper = &c->end[side];
            in_guest |= keeper->guest;
        }
    }
    if (c->forced) {
        p2p_region_wipe(&c->region); /* Whoever has it reads zeros from now on. */
    }
    if (!keeper) {
        p2p_region_punch(&c->region);
    } else if (!in_guest) {
        sw_former_keep(sw, keeper->name, &c->region);
        return;
    }
    /* (A VM that keeps a device keeps a slot, of which it has not many; and if no huge page were left to fill the hole,
     * it would freeze.) */
    p2p_region_unmap(&c->region);
}

/* Frees what is over. */
void sw_chan_reap(struct p2p_switch *sw)
{
    for (struct sw_chan **cp = &sw->chans; *cp;) {
        struct sw_chan *c = *cp;
        bool over = c->end[0].state == SW_END_GONE && c->end[1].state == SW_END_GONE && !in_use(c);
        bool orphan = !c->end[0].port && !c->end[1].port;
        if (orphan) {
            /* Devices may still be in VMs: ask for their removal, without waiting. */
            for (unsigned side = 0; side < 2; side++) {
                struct sw_end *e = &c->end[side];
                if (e->guest && e->plug_sent && e->state != SW_END_GONE && e->state != SW_END_UNPLUGGING) {
                    ask_agent(sw, c, e, P2P_MSG_UNPLUG);
                }
            }
        }
        if (over || orphan) {
            *cp = c->next;
            give_up(sw, c);
            free(c);
        } else {
            cp = &c->next;
        }
    }
}

/* The agent has answered. */
void sw_chan_answer(struct p2p_switch *sw, const struct p2p_msg *m)
{
    for (struct sw_chan *c = sw->chans; c; c = c->next) {
        for (unsigned side = 0; side < 2; side++) {
            struct sw_end *e = &c->end[side];
            if (!e->plug_seq || e->plug_seq != m->seq) {
                continue;
            }
            e->plug_seq = 0;
            if (e->state == SW_END_UNPLUGGING) {
                if (m->type == P2P_MSG_ERROR && e->port) {
                    sw_port_error(e->port, "link %u: cannot unplug: %s", c->id, m->text);
                }
                e->unplugged = m->type == P2P_MSG_OK;
                e->state = SW_END_GONE;
            } else if (m->type == P2P_MSG_ERROR) {
                if (e->port) {
                    sw_port_error(e->port, "link %u: cannot plug: %s", c->id, m->text);
                }
                c->error = c->error ? c->error : m->error ? m->error : -EIO;
            }
            return;
        }
    }
}

/* 'port's VNF is no more: what it had mapped, it has not now. */
void sw_chan_vnf_gone(struct p2p_swport *port)
{
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        struct sw_chan *c = port->slot[k];
        if (c) {
            c->error = c->error ? c->error : -EPIPE;
        }
    }
}

/* 'port' itself is being destroyed, or its region replaced. */
void sw_chan_port_gone(struct p2p_swport *port)
{
    for (struct sw_chan *c = port->sw->chans; c; c = c->next) {
        for (unsigned side = 0; side < 2; side++) {
            struct sw_end *e = &c->end[side];
            if (e->port == port) {
                if (e->state < SW_END_UNPLUGGING) {
                    unmapped(port->sw, c, side, p2p_now_ms());
                }
                e->port = NULL;
                c->closing = true;
            }
        }
    }
}

/* A VM is there (again) for 'port': what it should have is asked for anew.  What it is not asked for, it may let go. */
void sw_chan_agent_came(struct p2p_swport *port)
{
    for (struct sw_chan *c = port->sw->chans; c; c = c->next) {
        for (unsigned side = 0; side < 2; side++) {
            struct sw_end *e = &c->end[side];
            if (e->port == port && e->guest && e->state <= SW_END_MAPPED && !c->closing && !c->error) {
                if (e->state == SW_END_MAPPING) {
                    e->deadline_ms = p2p_now_ms() + port->sw->cfg.plug_ms;
                }
                ask_agent(port->sw, c, e, P2P_MSG_PLUG);
            } else if (e->port == port && e->state == SW_END_UNPLUGGING) {
                ask_agent(port->sw, c, e, P2P_MSG_UNPLUG); /* Whom we asked is gone. */
            }
        }
    }
}

static bool same_file(int a, int b)
{
    struct stat sa, sb;
    return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* A link region from before our restart: finds it, if the VNF at its other end has come already, or takes it over.  Its
 * ends are AWAITED until their VNFs come. */
struct sw_chan *sw_chan_adopt(struct p2p_switch *sw, const struct sw_offer *offer, struct p2p_error *err)
{
    for (struct sw_chan *c = sw->chans; c; c = c->next) {
        if (c->id == offer->link_id) {
            /* One of the two could have brought memory of its own. */
            return same_file(c->region.fd, offer->fd) ? c : NULL;
        }
    }
    struct sw_chan *c = calloc(1, sizeof *c);
    if (!c) {
        p2p_fail(err, -ENOMEM, "out of memory");
        return NULL;
    }
    int fd = fcntl(offer->fd, F_DUPFD_CLOEXEC, 0);
    int error = fd < 0 ? -errno
                : p2p_region_map(&c->region, fd, offer->size, P2P_LINK_MAGIC, offer->generation, err);
    if (error || c->region.hdr.link_id != offer->link_id) {
        if (!error) {
            p2p_region_unmap(&c->region);
        } else if (fd >= 0) {
            close(fd);
        }
        free(c);
        return NULL;
    }
    c->id = offer->link_id;
    for (unsigned side = 0; side < 2; side++) {
        struct sw_end *e = &c->end[side];
        p2p_copy_name(e->name, sizeof e->name, c->region.hdr.name[side]);
        e->state = SW_END_AWAITED;
        e->deadline_ms = p2p_now_ms() + sw->cfg.plug_ms;
    }
    c->next = sw->chans;
    sw->chans = c;
    return c;
}
