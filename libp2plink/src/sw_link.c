/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of traffic, from a sender to a receiver: the state machine that moves it onto a channel and back.
 *
 *   NORMAL --target--> PROVISIONING --both mapped, receiver serves--> SWITCHING --confirmed, sender told--> DIRECT
 *      ^                                                                                                     |
 *      +------------------ sender answers (or time limit) ------------------ REVERTING <--target gone---------+
 *
 * Back in NORMAL the channel stays for a while ('linger'), still served by the receiver, so that a link that flaps only
 * needs a mode store.  Then the direction ends: the receiver drains it and lets go ('stage' goes to OFF), and when
 * neither direction uses the link region any more, sw_chan.c takes it away.
 *
 * p2p_swport_set_target() does at once, from whatever thread, the one thing that cannot wait: the store of mode NORMAL.
 * The rest happens in sw_dir_run(), called by p2p_switch_run() for each port over and over.  With the switch's mutex
 * held.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "rcu.h"
#include "sw.h"

const char *p2p_link_state_name(enum p2p_link_state state)
{
    switch (state) {
    case P2P_LINK_NORMAL: return "normal";
    case P2P_LINK_PROVISIONING: return "provisioning";
    case P2P_LINK_SWITCHING: return "switching";
    case P2P_LINK_DIRECT: return "direct";
    case P2P_LINK_REVERTING: return "reverting";
    }
    return "?";
}

static void set_state(struct p2p_swport *from, enum p2p_link_state state)
{
    if (from->state != state) {
        p2p_log(&from->sw->log, P2P_LOG_DEBUG, "%s -> %s: %s, was %s", from->name, from->to ? from->to->name : "-",
                p2p_link_state_name(state), p2p_link_state_name(from->state));
        from->state = state;
        sw_changed(from->sw);
    }
}

/* Where the traffic shall go: as the switch says, or, while it cannot say yet, where it has gone since before a
 * restart. */
static struct p2p_swport *goal(const struct p2p_swport *from)
{
    return from->target || !from->adopted || !from->sw->restoring ? from->target : from->to;
}

/* Is this direction wanted, and can it be? */
static bool wanted(const struct p2p_swport *from)
{
    const struct p2p_swport *to = goal(from);

    return to && to != from && from->attached && to->attached && from->cfg.mtu == to->cfg.mtu;
}

/* The receiver is told to serve this channel.  Its gates are cleared first: one left by a former sender could carry the
 * number of an epoch that is yet to come.  A sender that used the same channel before, and has sent nothing since, goes
 * on in its epoch: the PMDs open that gate again. */
static void open_rx(struct p2p_swport *from)
{
    struct p2p_swport *to = from->to;
    struct sw_region *r = to->region;

    /* First, and in the ledger: should we die half-way, our successor opens the gates. */
    for (unsigned q = 0; q < from->region->n_queues; q++) {
        p2p_store(from->region->rx[q].gate_epoch, 0);
    }
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        p2p_store(&r->sw->gate[q], 0);
    }
    sw_port_set_rx(to, from->out->id, P2P_RX_ACTIVE);
    p2p_rcu_set(from->region->gate_to, r);
    from->stage = SW_RX_STARTING;
}

/* The receiver has let go, or is no more.  From here on, nothing of this direction is left but its counters. */
static void close_rx(struct p2p_swport *from)
{
    struct p2p_swport *to = from->to;

    if (from->region->gate_to) {
        p2p_rcu_set(from->region->gate_to, NULL);
        p2p_rcu_wait(); /* No PMD publishes a gate of ours after this. */
    }
    sw_stats_over(from);
    if (to && to->rx_from == from) {
        to->rx_from = NULL;
        if (from->stage != SW_RX_OFF) {
            sw_port_set_rx(to, 0, P2P_RX_NONE);
        }
    }
    from->stage = SW_RX_OFF;
    from->to = NULL;
    from->out = NULL;
    from->ending = false;
    from->confirmed = false;
    from->adopted = false;
    sw_changed(from->sw);
}

static void count_dropped(struct p2p_swport *from)
{
    uint64_t left = sw_stats_withdraw(from->out, sw_chan_side(from->out, from));
    uint64_t most = from->to->ledger->in_sum.packets - from->to->ledger->in_dropped;

    left = left < most ? left : most; /* The ring's indices are the VNFs' to write. */
    if (left) {
        from->to->ledger->in_dropped += left;
        sw_port_error(from->to, "%llu packets of %s were left in the channel when it ended: the receiver did not take "
                      "them",
                      (unsigned long long)left, from->name);
    }
}

/* The sender is back on its normal ring, or gone: the counters are final. */
static void settle(struct p2p_swport *from, uint64_t now)
{
    sw_stats_sync(from);
    from->confirmed = false;
    from->linger_until_ms = now + from->sw->cfg.linger_ms;
    set_state(from, P2P_LINK_NORMAL);
}

static void begin_revert(struct p2p_swport *from, bool hold)
{
    if (hold && from->sw->cfg.hold_max_ms) {
        atomic_fetch_add(&from->hold_ticket, 1);
        from->holds++;
        atomic_store(&from->hold_until, p2p_now_ns() + (uint64_t)from->sw->cfg.hold_max_ms * 1000000u);
    }
    sw_port_set_mode(from, from->out->id, false);
    from->confirmed = false;
    from->adopted = false;
    from->deadline_ms = p2p_now_ms() + from->sw->cfg.answer_ms;
    set_state(from, P2P_LINK_REVERTING);
    sw_port_poke(from);
}

/* Is it held, and has each of its queues been polled since? */
static bool hold_seen(const struct p2p_swport *from)
{
    uint64_t ticket = atomic_load(&from->hold_ticket);
    bool seen = atomic_load(&from->hold_until) != 0;

    for (unsigned q = 0; seen && q < from->region->n_queues; q++) {
        seen = p2p_load_acquire(&from->region->rx[q].hold_seen) == ticket;
    }
    return seen;
}

/* Data threads come upon a hold without telling anybody, and the switch must not wait for something else to happen. */
static void run_hold(struct p2p_swport *from)
{
    uint64_t ticket = atomic_load(&from->hold_ticket);

    if (from->hold_told != ticket && atomic_load(&from->hold_until)) {
        from->sw->busy = true;
        if (hold_seen(from)) {
            from->hold_told = ticket;
            sw_changed(from->sw);
        }
    }
}

/* Could not be made: says why, and lets it rest. */
static void give_up(struct p2p_swport *from, uint64_t now)
{
    from->retry_at_ms = now + from->sw->cfg.retry_ms;
    from->ending = true;
    set_state(from, P2P_LINK_NORMAL);
}

static void begin(struct p2p_swport *from, uint64_t now)
{
    struct p2p_swport *to = from->target;
    struct p2p_error err = { "" };

    if (to->rx_from && to->rx_from != from) {
        struct p2p_swport *other = to->rx_from;
        if (other->state == P2P_LINK_NORMAL) {
            other->ending = true; /* Lingers only; we need its place. */
        }
        return;
    }
    struct sw_chan *c;
    int error = sw_chan_get(from, to, &c, &err);
    if (error == -EAGAIN) {
        from->sw->busy = true;
        return;
    }
    if (error) {
        sw_port_error(from, "%s", err.text);
        from->retry_at_ms = now + from->sw->cfg.retry_ms;
        return;
    }
    from->to = to;
    from->out = c;
    to->rx_from = from;
    from->stage = SW_RX_OFF;
    from->ending = false;
    set_state(from, P2P_LINK_PROVISIONING);
}

/* Takes a direction in NORMAL that still has a channel one step further to its end. */
static void run_ending(struct p2p_swport *from, uint64_t now)
{
    struct p2p_switch *sw = from->sw;
    struct p2p_swport *to = from->to;
    bool answered = to->attached && p2p_load_acquire(&to->region->vnf->rx_link_ack) == to->ledger->rx_link;

    sw->busy = true;
    switch (from->stage) {
    case SW_RX_OFF:
        close_rx(from);
        break;
    case SW_RX_STARTING:
    case SW_RX_ON:
        if (!to->attached) {
            count_dropped(from);
            close_rx(from);
            break;
        }
        sw_port_set_rx(to, from->out->id, P2P_RX_DRAIN);
        from->stage = SW_RX_DRAINING;
        from->stage_deadline_ms = now + sw->cfg.drain_ms;
        break;
    case SW_RX_DRAINING:
        if (answered) {
            if (from->out->error) { /* The sender had not answered: what it has put there since is not received. */
                sw_stats_sync(from);
                count_dropped(from);
            }
            close_rx(from);
        } else if (!to->attached) {
            count_dropped(from);
            close_rx(from);
        } else if (atomic_load(&from->hold_until)) {
            from->stage_deadline_ms = now + sw->cfg.drain_ms; /* A held ring may have a gate to open yet. */
        } else if (now >= from->stage_deadline_ms) {
            sw_port_set_rx(to, from->out->id, P2P_RX_DROP);
            from->stage = SW_RX_DROPPING;
            from->stage_deadline_ms = now + sw->cfg.answer_ms;
        }
        break;
    case SW_RX_DROPPING:
        if (answered || !to->attached || now >= from->stage_deadline_ms) {
            /* What is left in the channel counts as dropped, and must not be received after all: next time there is a
             * new one. */
            if (!answered || sw_stats_left(from->out, sw_chan_side(from->out, from))) {
                from->out->error = from->out->error ? from->out->error : -ETIMEDOUT;
            }
            count_dropped(from);
            close_rx(from);
        }
        break;
    }
}

/* 'from' has been direct since before a restart, but its receiver has not come back.  Waits as long as the link region
 * does. */
static void run_orphan(struct p2p_swport *from)
{
    uint32_t link_id = p2p_mode_link(from->ledger->mode);

    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        if (from->slot[k] && from->slot[k]->id == link_id && !from->slot[k]->error && !from->slot[k]->closing) {
            return;
        }
    }
    sw_port_set_mode(from, link_id, false);
    sw_port_poke(from);
    sw_stats_orphan(from);
}

/* After a restart: does a channel of 'from' still wait for the VNF at its other end? */
static bool awaits_peer(const struct p2p_swport *from)
{
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        const struct sw_chan *c = from->slot[k];
        if (c && !c->error && !c->closing
            && (c->end[0].state == SW_END_AWAITED || c->end[1].state == SW_END_AWAITED)) {
            return true;
        }
    }
    return false;
}

void sw_dir_run(struct p2p_swport *from, uint64_t now)
{
    struct p2p_switch *sw = from->sw;

    run_hold(from);
    if (p2p_load(&from->region->gate_awaited) && (from->to || !awaits_peer(from))) {
        p2p_store_release(&from->region->gate_awaited, false); /* After 'gate_to', if there is one. */
    }
    struct p2p_swport *to = from->to;
    bool want = wanted(from) && (!to || goal(from) == to) && (!to || !from->out->error);

    if (from->stage == SW_RX_STARTING && to->attached
        && p2p_load_acquire(&to->region->vnf->rx_link_ack) == to->ledger->rx_link) {
        from->stage = SW_RX_ON;
    }
    switch (from->state) {
    case P2P_LINK_NORMAL:
        if (!to) {
            if (from->attached && p2p_mode_direct(from->ledger->mode)) {
                run_orphan(from);
            } else if (want && now >= from->retry_at_ms) {
                begin(from, now);
            }
        } else if (want && !from->ending && sw_chan_ready(from->out) && now >= from->retry_at_ms) {
            set_state(from, from->stage == SW_RX_ON ? P2P_LINK_SWITCHING : P2P_LINK_PROVISIONING);
        } else if (from->ending || !from->attached || !to->attached || from->out->error
                   || (from->target && from->target != to) || now >= from->linger_until_ms) {
            from->ending = true;
            run_ending(from, now);
        }
        break;

    case P2P_LINK_PROVISIONING:
        sw->busy = true;
        if (!want) {
            if (from->out->error) {
                give_up(from, now);
            } else {
                from->linger_until_ms = now + sw->cfg.linger_ms;
                from->ending = from->stage == SW_RX_OFF;
                set_state(from, P2P_LINK_NORMAL);
            }
        } else if (from->stage == SW_RX_OFF && sw_chan_ready(from->out)) {
            open_rx(from);
            from->stage_deadline_ms = now + sw->cfg.answer_ms;
        } else if (from->stage == SW_RX_ON) {
            set_state(from, P2P_LINK_SWITCHING);
        } else if (from->stage == SW_RX_STARTING && now >= from->stage_deadline_ms) {
            sw_port_error(from, "%s has not begun to serve the channel within %u ms", to->name, sw->cfg.answer_ms);
            give_up(from, now);
        }
        break;

    case P2P_LINK_SWITCHING:
        if (!from->confirmed) {
            if (!want) {
                from->linger_until_ms = now + sw->cfg.linger_ms;
                set_state(from, P2P_LINK_NORMAL);
            }
        } else if (!want) {
            begin_revert(from, false);
        } else if (p2p_load_acquire(&from->region->vnf->mode_ack) == from->ledger->mode) {
            from->last_error[0] = '\0';
            set_state(from, P2P_LINK_DIRECT);
        } else {
            sw->busy = true;
            if (now >= from->deadline_ms) {
                sw_port_error(from, "the VNF has not answered within %u ms", sw->cfg.answer_ms);
                from->retry_at_ms = now + sw->cfg.retry_ms;
                begin_revert(from, false);
            }
        }
        break;

    case P2P_LINK_DIRECT:
        if (!want) {
            begin_revert(from, false);
        }
        break;

    case P2P_LINK_REVERTING:
        sw->busy = true;
        if (p2p_load_acquire(&from->region->vnf->mode_ack) == from->ledger->mode) {
            settle(from, now);
        } else if (now >= from->deadline_ms) {
            sw_port_error(from, "the VNF has not answered within %u ms; its link is ended by force", sw->cfg.answer_ms);
            from->retry_at_ms = now + sw->cfg.retry_ms;
            settle(from, now);
            from->ending = true;
            from->out->error = from->out->error ? from->out->error : -ETIMEDOUT;
        }
        break;
    }
}

/* 'from's VNF is no more: nothing more comes, the counters are final, what lies in the channel is the receiver's. */
void sw_dir_sender_gone(struct p2p_swport *from, uint64_t now)
{
    if (from->to) {
        sw_port_set_mode(from, from->out->id, false);
        settle(from, now);
        from->ending = true;
    }
}

/* Both VNFs of a channel from before a restart are back: takes the direction up where the ledger says it stood. */
void sw_dir_adopt(struct p2p_swport *from, struct p2p_swport *to, struct sw_chan *chan)
{
    uint64_t now = p2p_now_ms();
    uint64_t rx = to->ledger->rx_link;
    bool direct = p2p_mode_direct(from->ledger->mode) && p2p_mode_link(from->ledger->mode) == chan->id;

    if (from->to || to->rx_from || p2p_rx_link_id(rx) != chan->id || p2p_rx_link_state(rx) == P2P_RX_NONE) {
        if (direct && !from->to) {
            sw_port_set_mode(from, chan->id, false);
        }
        return;
    }
    from->to = to;
    from->out = chan;
    to->rx_from = from;
    p2p_rcu_set(from->region->gate_to, to->region);
    from->stage = p2p_rx_link_state(rx) == P2P_RX_ACTIVE ? SW_RX_STARTING
                  : p2p_rx_link_state(rx) == P2P_RX_DRAIN ? SW_RX_DRAINING : SW_RX_DROPPING;
    from->ending = from->stage != SW_RX_STARTING;
    from->stage_deadline_ms = now + from->sw->cfg.drain_ms;
    from->linger_until_ms = now + from->sw->cfg.linger_ms;
    if (direct && !from->ending) {
        from->confirmed = from->adopted = true;
        set_state(from, P2P_LINK_DIRECT);
        p2p_log(&from->sw->log, P2P_LOG_INFO, "link %u from %s to %s has been adopted", chan->id, from->name, to->name);
    } else if (p2p_load_acquire(&from->region->vnf->mode_ack) != from->ledger->mode) {
        from->deadline_ms = now + from->sw->cfg.answer_ms;
        set_state(from, P2P_LINK_REVERTING);
    }
}

/* One of the two ports is being destroyed or gets a new region: the direction is over now. */
void sw_dir_abort(struct p2p_swport *from)
{
    if (from->to) {
        sw_port_set_mode(from, from->out->id, false);
        sw_port_poke(from);
        sw_stats_sync(from);
        count_dropped(from);
        close_rx(from);
        set_state(from, P2P_LINK_NORMAL);
    }
}

/*
 * What the switch asks for.
 */

void p2p_swport_set_target(struct p2p_swport *from, struct p2p_swport *to, const char *why)
{
    struct p2p_switch *sw = from->sw;

    pthread_mutex_lock(&sw->mutex);
    p2p_copy_name(from->why, sizeof from->why, to || !why ? "" : why);
    if (from->target != to) {
        from->target = to;
        from->ticket++;
        bool direct = from->state == P2P_LINK_DIRECT || (from->state == P2P_LINK_SWITCHING && from->confirmed);
        /* (An adopted link has no target yet; getting the one that it had is what it waits for.) */
        if (direct && !(from->adopted && to == from->to)) {
            begin_revert(from, true);
        }
        p2p_switch_wake(sw);
    }
    pthread_mutex_unlock(&sw->mutex);
}

static bool awaits_confirm(const struct p2p_swport *from)
{
    return (from->state == P2P_LINK_SWITCHING && !from->confirmed) || (from->state == P2P_LINK_DIRECT && from->adopted);
}

bool p2p_swport_wants_confirm(struct p2p_swport *from, struct p2p_swport **to, uint64_t *ticket)
{
    pthread_mutex_lock(&from->sw->mutex);
    bool wants = awaits_confirm(from) && from->target && from->target == from->to;
    if (wants) {
        *to = from->to;
        *ticket = from->ticket;
    }
    pthread_mutex_unlock(&from->sw->mutex);
    return wants;
}

bool p2p_swport_confirm(struct p2p_swport *from, uint64_t ticket, bool ok, const char *why)
{
    struct p2p_switch *sw = from->sw;
    bool done = false;

    pthread_mutex_lock(&sw->mutex);
    if (from->ticket == ticket && awaits_confirm(from) && wanted(from) && from->target == from->to
        && !from->out->error) {
        done = true;
        if (ok && from->adopted) {
            from->adopted = false; /* It goes on as it has. */
        } else if (ok) {
            sw_stats_sync(from);
            from->confirmed = true;
            from->deadline_ms = p2p_now_ms() + sw->cfg.answer_ms;
            sw_port_set_mode(from, from->out->id, true);
            sw_port_poke(from);
        } else {
            p2p_copy_name(from->why, sizeof from->why, why ? why : "not confirmed by translation");
            from->target = NULL;
            from->ticket++;
            if (from->state == P2P_LINK_DIRECT) {
                begin_revert(from, true);
            }
        }
        p2p_switch_wake(sw);
    }
    pthread_mutex_unlock(&sw->mutex);
    return done;
}

void p2p_switch_set_restoring(struct p2p_switch *sw, bool restoring)
{
    pthread_mutex_lock(&sw->mutex);
    sw->restoring = restoring;
    pthread_mutex_unlock(&sw->mutex);
    p2p_switch_wake(sw);
}

bool p2p_swport_held(struct p2p_swport *from, uint64_t *ticket)
{
    pthread_mutex_lock(&from->sw->mutex);
    bool is = hold_seen(from);
    *ticket = atomic_load(&from->hold_ticket);
    pthread_mutex_unlock(&from->sw->mutex);
    return is;
}

void p2p_swport_unhold(struct p2p_swport *from, uint64_t ticket)
{
    pthread_mutex_lock(&from->sw->mutex);
    if (atomic_load(&from->hold_ticket) == ticket) {
        atomic_store(&from->hold_until, 0);
    }
    pthread_mutex_unlock(&from->sw->mutex);
}
