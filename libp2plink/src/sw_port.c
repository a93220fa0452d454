/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of the switch, and the VNFs that come to them and go.
 *
 * A VNF is there when its session word is: it draws a new one at each start, and the switch, once everything of the
 * former VNF is over, empties the rings, clears its words, and repeats the session.  The same for processes and guests.
 * A process is gone when its socket breaks; a guest's VNF when its heartbeat stands still or its session changes.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "sock.h"
#include "rcu.h"
#include "sw.h"

struct p2p_swport *sw_port_find(struct p2p_switch *sw, const char *name)
{
    struct p2p_swport *p = sw->ports;
    while (p && strcmp(p->name, name)) {
        p = p->next;
    }
    return p;
}

void sw_port_error(struct p2p_swport *port, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(port->last_error, sizeof port->last_error, fmt, args);
    va_end(args);
    p2p_log(&port->sw->log, P2P_LOG_WARN, "port %s: %s", port->name, port->last_error);
    sw_changed(port->sw);
}

void sw_port_poke(struct p2p_swport *port)
{
    if (port->conn) {
        struct p2p_msg m;
        p2p_msg_init(&m, P2P_MSG_POKE, 0);
        (void)p2p_msg_send(port->conn->fd, &m, -1); /* It looks by itself too, only later. */
    }
}

/* Where the VNF's next bursts shall go. */
void sw_port_set_mode(struct p2p_swport *port, uint32_t link_id, bool direct)
{
    /* The ledger first: a successor repeats what it says there. */
    uint64_t mode = p2p_mode(link_id, ++port->mode_seq, direct);
    p2p_store_release(&port->ledger->mode, mode);
    p2p_store_release(&port->region->sw->mode, mode);
}

void sw_port_set_rx(struct p2p_swport *port, uint32_t link_id, enum p2p_rx_state state)
{
    uint64_t word = p2p_rx_link(link_id, ++port->rx_seq, state);
    p2p_store_release(&port->ledger->rx_link, word);
    p2p_store_release(&port->region->sw->rx_link, word);
    sw_port_poke(port);
}

/*
 * Regions.
 */

static void free_region(struct p2p_swport *port, struct sw_region *r)
{
    bool left = sw_region_left(r);

    for (unsigned q = 0; q < r->n_queues; q++) {
        p2p_prod_uninit(&r->tx[q].ring);
    }
    /* Nobody enters it any more.  Its VNF may be in the middle of a burst: what it has received must not turn into
     * zeros under its eyes. */
    p2p_store_release(&((struct p2p_region_header *)r->region.base)->magic, 0);
    if (r->by_socket && !left && !sw_former_ended(r->pid)) {
        sw_former_keep(port->sw, port->name, &r->region);
    } else {
        if (r->by_socket) {
            p2p_region_punch(&r->region);
        }
        p2p_region_unmap(&r->region);
    }
    free(r);
}

/* Its VNF has said good-bye, and reads nothing any more, nor from its links. */
bool sw_region_left(const struct sw_region *r)
{
    return !p2p_load_acquire(&r->vnf->session);
}

/* A process gets it. */
static void hand_over(struct sw_region *r, const struct sw_conn *conn)
{
    r->by_socket = true;
    r->pid = conn->pid;
}

/* Makes ring ends on a mapped port region, which it takes over, also on failure. */
struct sw_region *sw_region_wrap(struct p2p_swport *port, struct p2p_region *region, struct p2p_error *err)
{
    struct sw_region *r = aligned_alloc(128, (sizeof *r + 127) / 128 * 128);
    if (!r) {
        p2p_fail(err, -ENOMEM, "out of memory");
        p2p_region_unmap(region);
        return NULL;
    }
    memset(r, 0, sizeof *r);
    r->region = *region;
    r->n_queues = region->hdr.n_queues[0];
    r->sw = p2p_region_at(region, region->hdr.switch_page_off);
    r->vnf = p2p_region_at(region, region->hdr.vnf_page_off);
    for (unsigned q = 0; q < r->n_queues; q++) {
        p2p_cons_init(&r->rx[q].ring, region, q);
        r->rx[q].gate_epoch = &port->ledger->gate_epoch[q];
        atomic_flag_clear(&r->tx[q].lock);
        if (p2p_prod_init(&r->tx[q].ring, region, r->n_queues + q)) {
            p2p_fail(err, -ENOMEM, "out of memory");
            free_region(port, r);
            return NULL;
        }
    }
    return r;
}

static struct sw_region *make_region(struct p2p_swport *port, const struct p2p_swport_config *cfg,
                                     struct p2p_error *err)
{
    struct p2p_region_spec spec = {
        .n_queues = { cfg->n_queues, cfg->n_queues },
        .mtu = cfg->mtu,
        .numa_node = cfg->numa_node,
        .name = { port->name, NULL },
        .huge = port->sw->cfg.use_hugepages,
        .first_index = port->sw->cfg.first_index,
    };
    memcpy(spec.mac, cfg->mac, sizeof spec.mac);
    struct p2p_region region;
    if (p2p_region_create(&region, &spec, &port->sw->log, err)) {
        return NULL;
    }
    return sw_region_wrap(port, &region, err);
}

/* Puts 'r' into the place of the port's region, which is freed after a grace period. */
void sw_port_put_region(struct p2p_swport *port, struct sw_region *r)
{
    struct sw_region *old = port->region;

    p2p_rcu_set(port->region, r);
    port->used = false;
    port->session = 0;
    if (r) {
        p2p_store(&r->sw->link_up, port->link_up);
    }
    if (old) {
        p2p_rcu_wait();
        for (unsigned q = 0; q < old->n_queues; q++) {
            port->bad_sum += old->rx[q].bad;
        }
        free_region(port, old);
    }
}

/* Nothing of a former VNF is going on. */
static bool quiet(const struct p2p_swport *port)
{
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        if (port->slot[k]) {
            return false;
        }
    }
    return !port->to && !port->rx_from;
}

/*
 * VNFs.
 */

/* Empties the rings, clears our words, and lets the VNF of 'session' begin. */
static void accept_vnf(struct p2p_swport *port, uint64_t session, uint64_t now)
{
    struct sw_region *r = port->region;

    p2p_store(&r->rx_ready, false);
    p2p_store(&r->tx_ready, false);
    p2p_rcu_wait(); /* No PMD is in these rings any more. */

    uint32_t index = port->sw->cfg.first_index;
    for (unsigned q = 0; q < r->n_queues; q++) {
        struct p2p_ring_ctl *a = r->rx[q].ring.ctl, *b = r->tx[q].ring.ctl;
        a->head = a->tail = a->freed = index;
        b->head = b->tail = b->freed = index;
        r->rx[q].ring.next = index;
        p2p_store(r->rx[q].gate_epoch, 0);
        p2p_store(&r->rx[q].wants_flush, false);
        p2p_prod_restart(&r->tx[q].ring, index);
    }
    struct p2p_switch_page *sw = r->sw;
    p2p_store(&sw->mode, 0);
    p2p_store(&sw->rx_link, 0);
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        p2p_store(&sw->gate[q], 0);
    }
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        p2p_store(&sw->want[k], 0);
    }
    port->ledger->mode = port->ledger->rx_link = 0;
    memset(port->ledger->want, 0, sizeof port->ledger->want);
    sw_stats_rebase(port);

    p2p_store_release(&r->rx_ready, true);
    p2p_store_release(&r->tx_ready, true);
    p2p_store_release(&sw->session, session);
    port->session = session;
    p2p_store(&port->ledger->generation, r->region.hdr.generation);
    p2p_store_release(&port->ledger->session, session);
    port->heartbeat_ms = now;
    port->retry_at_ms = 0;
    for (struct p2p_swport *p = port->sw->ports; p; p = p->next) {
        if (p->target == port) {
            p->retry_at_ms = 0; /* What failed, failed with another VNF. */
        }
    }
    port->used = true;
    port->attached = true;
    port->in_guest = !port->conn;
    sw_port_poke(port);
    p2p_log(&port->sw->log, P2P_LOG_INFO, "port %s: VNF attached (%s)", port->name,
            port->in_guest ? "in a guest" : "process");
    sw_changed(port->sw);
}

/* The VNF is gone, or let go. */
void sw_port_detach(struct p2p_swport *port, const char *why)
{
    if (!port->attached) {
        return;
    }
    uint64_t now = p2p_now_ms();

    p2p_log(&port->sw->log, P2P_LOG_INFO, "port %s: VNF detached: %s", port->name, why);
    port->attached = false;
    p2p_store(&port->ledger->session, 0);
    p2p_store(&port->region->tx_ready, false);       /* Nobody is there to receive. */
    p2p_store_release(&port->region->sw->session, 0); /* If it lives after all, it has to come anew. */
    sw_dir_sender_gone(port, now);
    sw_chan_vnf_gone(port);
    sw_stats_sync(port);
    sw_changed(port->sw);
}

static void watch_session(struct p2p_swport *port, uint64_t now)
{
    uint64_t session = p2p_load_acquire(&port->region->vnf->session);

    if (session != port->session) {
        if (port->attached) {
            sw_port_detach(port, session ? "it has started anew" : "it has left");
            port->session = 0;
        }
        bool welcome = session && (port->conn || !port->region->by_socket);
        if (welcome && quiet(port)) {
            accept_vnf(port, session, now);
        } else {
            port->sw->busy |= welcome;
        }
    } else if (port->attached && port->in_guest) {
        uint64_t beat = p2p_load(&port->region->vnf->heartbeat);
        if (beat != port->heartbeat) {
            port->heartbeat = beat;
            port->heartbeat_ms = now;
        } else if (now - port->heartbeat_ms >= port->sw->cfg.heartbeat_ms) {
            sw_port_detach(port, "its heartbeat has stopped");
            /* The same session, should it wake up, must be drawn anew. */
        }
    }
}

/* Gives the port a fresh region if its present one has been in somebody's hands. */
static int freshen(struct p2p_swport *port, struct p2p_error *err)
{
    if (!port->used && p2p_load(&port->region->vnf->session) == 0) {
        return 0;
    }
    struct sw_region *r = make_region(port, &port->cfg, err);
    if (!r) {
        return -ENOMEM;
    }
    sw_stats_sync(port);
    sw_port_put_region(port, r);
    return 0;
}

/* Answers a VNF that wants to attach, as soon as the former one's links are over. */
static void run_waiting(struct p2p_swport *port)
{
    struct sw_conn *conn = port->waiting;
    struct p2p_error err = { "" };

    port->sw->busy = true;
    if (port->attached || !quiet(port)) {
        return;
    }
    port->waiting = NULL;
    if (freshen(port, &err)) {
        conn->port = NULL; /* It may try again. */
        sw_conn_send_error(conn, port->waiting_seq, -ENOMEM, "port %s: %s", port->name, err.text);
        return;
    }
    port->conn = conn;
    conn->port = port;
    sw_conn_send_region(conn, port->waiting_seq, P2P_MSG_REGION, port->name, &port->region->region);
    hand_over(port->region, conn);
    port->used = true;
}

/* Its VNF has made holes into the region, and there was no memory left to fill them. */
static void end_torn(struct p2p_swport *port)
{
    static const char text[] = "its VNF has taken memory out of the port's region";

    if (port->conn && !port->conn->dead) {
        sw_port_error(port, "%s", text);
        port->conn->dead = true; /* Whoever comes next gets a fresh one. */
    } else if (!port->conn && port->attached) {
        sw_port_error(port, "%s", text);
        sw_port_detach(port, text);
    }
}

void sw_port_run(struct p2p_swport *port, uint64_t now)
{
    if (p2p_region_torn(&port->region->region)) {
        end_torn(port);
    }
    if (port->waiting) {
        run_waiting(port);
    }
    watch_session(port, now);
    if (port->conn && !port->attached) {
        port->sw->busy = true; /* It is about to introduce itself. */
    }
    uint64_t polls = 0;
    for (unsigned q = 0; q < port->region->n_queues; q++) {
        polls += p2p_load(&port->region->vnf->rxq[q].polls);
    }
    if (polls != port->polls) {
        port->polls = polls;
        port->polls_changed_ms = now;
    }
}

/* Ends all links of 'port' at once. */
static void cut_off(struct p2p_swport *port, const char *why)
{
    sw_port_detach(port, why);
    sw_dir_abort(port);
    if (port->rx_from) {
        sw_dir_abort(port->rx_from);
    }
    sw_chan_port_gone(port);
}

/* A process wants the port; with 'offer', the one that had it before our restart. */
void sw_port_attach(struct p2p_swport *port, struct sw_conn *conn, uint32_t seq, const struct sw_offer *offer)
{
    if (port->conn || port->waiting) {
        uint32_t pid = port->conn ? port->conn->pid : port->waiting->pid;
        sw_conn_send_error(conn, seq, -EBUSY, "port %s is taken by the process with pid %u: end that one first, or use "
                           "another port", port->name, pid);
    } else if (port->claimed || (port->attached && port->in_guest)) {
        sw_conn_send_error(conn, seq, -EBUSY, "port %s is plugged into a VM: remove external_ids:p2plink-qmp from the "
                           "Interface first, or use another port", port->name);
    } else if (offer && sw_adopt_port(port, conn, offer)) {
        port->conn = conn;
        conn->port = port;
        hand_over(port->region, conn);
        sw_conn_send_region(conn, seq, P2P_MSG_REGION, port->name, &port->region->region);
        sw_adopt_links(port, conn);
    } else {
        port->waiting = conn;
        port->waiting_seq = seq;
        conn->port = port;
        run_waiting(port);
    }
}

/* The agent has a VM for the port; with a generation in 'offer', a VM that has a region of it already. */
void sw_port_claim(struct p2p_swport *port, struct sw_conn *conn, uint32_t seq, const struct sw_offer *offer)
{
    uint64_t generation = offer->generation;
    struct p2p_error err = { "" };
    bool adopted;

    if (port->conn || port->waiting) {
        sw_conn_send_error(conn, seq, -EBUSY, "port %s is taken by the process with pid %u", port->name,
                           port->conn ? port->conn->pid : port->waiting->pid);
        return;
    }
    adopted = offer->fd >= 0 && generation != port->region->region.hdr.generation && sw_adopt_port(port, conn, offer);
    if (generation != port->region->region.hdr.generation) {
        sw_port_detach(port, "a new VM is there");
        sw_dir_abort(port);
        if (port->rx_from) {
            sw_dir_abort(port->rx_from);
        }
        sw_chan_port_gone(port);
        if (freshen(port, &err)) {
            sw_conn_send_error(conn, seq, -ENOMEM, "port %s: %s", port->name, err.text);
            return;
        }
    }
    port->claimed = true;
    port->used = true;
    port->replug_seq = 0;
    sw_conn_send_region(conn, seq, P2P_MSG_REGION, port->name, &port->region->region);
    if (adopted) {
        sw_adopt_links(port, conn);
    }
    sw_chan_agent_came(port);
    sw_conn_send_ok(conn, seq);
    sw_changed(port->sw);
}

/* The agent has answered a REPLUG. */
bool sw_port_answer(struct p2p_switch *sw, const struct p2p_msg *m)
{
    for (struct p2p_swport *p = sw->ports; m->seq && p; p = p->next) {
        if (p->replug_seq == m->seq) {
            p->replug_seq = 0;
            if (m->type == P2P_MSG_ERROR) {
                sw_port_error(p, "cannot plug the new port region: %s", m->text);
            }
            return true;
        }
    }
    return false;
}

/* The VM is gone, or its devices are about to be: whoever is in the old region finds it blank. */
void sw_port_unclaim(struct p2p_swport *port)
{
    struct p2p_error err = { "" };

    port->replug_seq = 0;
    if (port->claimed) {
        port->claimed = false;
        cut_off(port, "its VM is gone");
        if (freshen(port, &err)) {
            sw_port_error(port, "no fresh region: %s", err.text);
        }
        sw_changed(port->sw);
    }
}

/*
 * What the switch calls.
 */

static int check_config(const struct p2p_swport_config *cfg, struct p2p_error *err)
{
    if (!cfg->n_queues || cfg->n_queues > P2P_MAX_QUEUES) {
        return p2p_fail(err, -EINVAL, "%u queues: must be 1 to %u", cfg->n_queues, P2P_MAX_QUEUES);
    }
    if (cfg->mtu < P2P_MTU_MIN || cfg->mtu > P2P_MTU_MAX) {
        return p2p_fail(err, -EINVAL, "MTU %u: must be %u to %u", cfg->mtu, P2P_MTU_MIN, P2P_MTU_MAX);
    }
    return 0;
}

int p2p_swport_create(struct p2p_switch *sw, const struct p2p_swport_config *cfg, struct p2p_swport **portp,
                      struct p2p_error *err)
{
    *portp = NULL;
    if (!cfg->name || !*cfg->name || strlen(cfg->name) >= P2P_NAME_MAX) {
        return p2p_fail(err, -EINVAL, "port name \"%s\" must have 1 to %u characters", cfg->name ? cfg->name : "",
                        P2P_NAME_MAX - 1);
    }
    int error = check_config(cfg, err);
    if (error) {
        return error;
    }
    struct p2p_swport *port = calloc(1, sizeof *port);
    if (!port) {
        return p2p_fail(err, -ENOMEM, "out of memory");
    }
    port->sw = sw;
    p2p_copy_name(port->name, sizeof port->name, cfg->name);
    port->cfg = *cfg;
    port->cfg.name = NULL;
    port->link_up = true;

    pthread_mutex_lock(&sw->mutex);
    if (sw_port_find(sw, cfg->name)) {
        error = p2p_fail(err, -EEXIST, "there is a port %s already", cfg->name);
    } else {
        port->ledger = sw_ledger_get(&sw->ledger, cfg->name);
        struct sw_region *r = port->ledger ? make_region(port, &port->cfg, err) : NULL;
        error = r ? 0 : -ENOMEM;
        if (r) {
            sw_port_put_region(port, r);
            port->next = sw->ports;
            sw->ports = port;
            if (sw->agent) {
                sw_conn_send_port(sw->agent, port, 0);
            }
        }
    }
    pthread_mutex_unlock(&sw->mutex);
    if (error) {
        free(port);
        return error;
    }
    p2p_switch_wake(sw);
    *portp = port;
    return 0;
}

static void tell_detached(struct p2p_swport *port, const char *why)
{
    if (port->waiting) {
        sw_conn_send_error(port->waiting, port->waiting_seq, -ENOENT, "port %s: %s", port->name, why);
        port->waiting->port = NULL;
        port->waiting = NULL;
    }
    if (port->conn) {
        struct p2p_msg m;
        p2p_msg_init(&m, P2P_MSG_DETACH, 0);
        p2p_copy_name(m.name, sizeof m.name, port->name);
        p2p_copy_name(m.text, sizeof m.text, why);
        (void)p2p_msg_send(port->conn->fd, &m, -1);
        port->conn->port = NULL;
        port->conn = NULL;
    }
}

void p2p_swport_destroy(struct p2p_swport *port)
{
    if (!port) {
        return;
    }
    struct p2p_switch *sw = port->sw;

    pthread_mutex_lock(&sw->mutex);
    for (struct p2p_swport *p = sw->ports; p; p = p->next) {
        if (p->target == port) {
            p->target = NULL;
            p->ticket++;
            p2p_copy_name(p->why, sizeof p->why, "the receiving port is gone");
        }
    }
    cut_off(port, "the port is gone from the switch");
    tell_detached(port, "the port is gone from the switch");
    if (sw->agent) {
        sw_conn_send_port(sw->agent, port, -ENOENT);
    }
    for (struct p2p_swport **pp = &sw->ports; *pp; pp = &(*pp)->next) {
        if (*pp == port) {
            *pp = port->next;
            break;
        }
    }
    sw_port_put_region(port, NULL);
    sw_ledger_put(&sw->ledger, port->ledger);
    pthread_mutex_unlock(&sw->mutex);
    p2p_switch_wake(sw);
    free(port);
}

int p2p_swport_reconfigure(struct p2p_swport *port, const struct p2p_swport_config *cfg, struct p2p_error *err)
{
    struct p2p_switch *sw = port->sw;
    int error = check_config(cfg, err);
    if (error) {
        return error;
    }

    pthread_mutex_lock(&sw->mutex);
    if (cfg->n_queues != port->cfg.n_queues || cfg->mtu != port->cfg.mtu || cfg->numa_node != port->cfg.numa_node
        || memcmp(cfg->mac, port->cfg.mac, sizeof cfg->mac)) {
        struct sw_region *r = make_region(port, cfg, err);
        if (r) {
            cut_off(port, "the port has been reconfigured");
            port->cfg = *cfg;
            port->cfg.name = NULL;
            sw_port_put_region(port, r);
            if (port->conn) {
                sw_conn_send_region(port->conn, 0, P2P_MSG_REGION, port->name, &r->region);
                hand_over(r, port->conn);
                port->used = true;
            } else if (port->claimed && sw->agent) {
                port->replug_seq = sw_conn_seq(sw);
                sw_conn_send_region(sw->agent, port->replug_seq, P2P_MSG_REPLUG, port->name, &r->region);
                port->used = true;
            }
        } else {
            error = -ENOMEM;
        }
    }
    pthread_mutex_unlock(&sw->mutex);
    p2p_switch_wake(sw);
    return error;
}

struct p2p_swport_counters *p2p_swport_counters(struct p2p_swport *port)
{
    return &port->ledger->counters;
}

void p2p_swport_set_link_up(struct p2p_swport *port, bool up)
{
    pthread_mutex_lock(&port->sw->mutex);
    port->link_up = up;
    p2p_store(&port->region->sw->link_up, up);
    sw_port_poke(port);
    pthread_mutex_unlock(&port->sw->mutex);
}

/* The names are those that the agent gives, so that it knows what a person has plugged: see docs/control-protocol.md.
 * */
static void plug_id(char *id, size_t size, const struct p2p_region *r)
{
    const struct p2p_region_header *h = &r->hdr;
    int n;

    if (h->link_id) {
        snprintf(id, size, "p2plink-link-%llx-%x", (unsigned long long)h->generation, h->link_id);
        return;
    }
    n = snprintf(id, size, "p2plink-port-%llx-", (unsigned long long)h->generation);
    for (const char *p = h->name[0]; *p && (size_t)n + 4 < size; p++) {
        bool plain = isalnum((unsigned char)*p) || *p == '-' || *p == '.';
        n += snprintf(id + n, size - (size_t)n, plain ? "%c" : "_%02X", (unsigned char)*p);
    }
}

static int plug_text(char *text, size_t size, const char *kind, const char *name, const struct p2p_region *r)
{
    char id[64 + 3 * P2P_NAME_MAX];

    plug_id(id, sizeof id, r);
    return snprintf(text, size,
                    "# port %s: %s region\n"
                    "{\"execute\":\"object-add\",\"arguments\":{\"qom-type\":\"memory-backend-file\",\"id\":\"%s\","
                    "\"mem-path\":\"/proc/%d/fd/%d\",\"size\":%zu,\"share\":true}}\n"
                    "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"ivshmem-plain\",\"id\":\"%s\","
                    "\"memdev\":\"%s\"%s}}\n",
                    name, kind, id, (int)getpid(), r->fd, r->size, id, id,
                    p2p_region_is_link(r) ? "" : ",\"multifunction\":true");
}

int sw_port_plug_commands(const struct p2p_swport *port, char *text, size_t size)
{
    size_t used = 0;
    const struct p2p_region *regions[1 + P2P_MAX_LINKS] = { &port->region->region };

    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        regions[1 + k] = port->slot[k] ? &port->slot[k]->region : NULL;
    }
    for (unsigned i = 0; i < 1 + P2P_MAX_LINKS; i++) {
        if (regions[i]) {
            used += (size_t)plug_text(used < size ? text + used : NULL, used < size ? size - used : 0,
                                      i ? "link" : "port", port->name, regions[i]);
        }
    }
    return (int)used;
}

int p2p_swport_plug_commands(struct p2p_swport *port, char *text, size_t size)
{
    struct p2p_error err;

    pthread_mutex_lock(&port->sw->mutex);
    if (port->region->by_socket && !port->conn && !port->waiting && !port->attached && quiet(port)) {
        (void)freshen(port, &err); /* A VM must not get what a process had. */
    }
    int n = sw_port_plug_commands(port, text, size);
    pthread_mutex_unlock(&port->sw->mutex);
    return n;
}
