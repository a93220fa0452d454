/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link detector against an oracle, on random tables.
 *
 *   prop_detector [--seed N] [--sequences N] [--only N] [--progress] [--verbose]
 *
 * A sequence is a small switch (3 ports, 4 tables, packets with 2 header fields of 2 bits) whose rules and groups are
 * changed at random, with commits after random numbers of changes; now and then memory is scarce.  After each commit:
 *
 *   1. the oracle sends *every* packet of each watched port through the real rules (with their real matches and
 *      actions, not what the detector was told of them), trying every rule wherever several of the same priority match.
 *      A yes must be true for each.  A no where yes would have been true must be for one of the reasons that
 *      docs/detector.md lists for that, and is counted;
 *   2. the answers must be those that a plain search through all rules gives, reason and blamed rule included;
 *   3. the callback must have been called for exactly the ports whose output has changed.
 *
 * The same seed gives the same sequences on every machine; sequence i does not depend on how many there are.  A failure
 * prints what to repeat it with, and the sequence.  Exit status 0: all held.
 */
#include <p2plink/detector.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../../libp2plink/src/detector_private.h"

#define ANY P2P_DET_ANY
#define N_PORTS 3u          /* 1, 2, 3. */
#define N_TABLES 4u
#define N_FIELDS 2u
#define N_VALUES 4u         /* Of a field. */
#define MAX_RULES 14u
#define N_GROUPS 3u         /* Numbers; they may be there or not. */
#define MAX_STEPS 16u       /* Tables that a packet passes before the switch gives it up: more than there are. */
#define N_REASONS (P2P_DET_NOT_WATCHED + 1)

/* Random numbers (splitmix64). */

static uint64_t random_state;

static uint64_t next_random(void)
{
    uint64_t x = random_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)((next_random() >> 32) * n >> 32);
}

static bool percent(uint32_t p)
{
    return below(100) < p;
}

/* The real switch. */

struct packet {
    uint32_t in_port;
    uint8_t field[N_FIELDS];
};

enum action_type { OUTPUT, GROUP, SET_FIELD, CONTROLLER, NOTE };

struct action {
    enum action_type type;
    uint32_t arg;       /* Port, group number, or field. */
    uint8_t value;
};

struct rule {
    bool installed;

    uint8_t table;
    int32_t priority;
    uint32_t in_port;               /* Or ANY. */
    uint8_t value[N_FIELDS], mask[N_FIELDS];

    struct action apply[2];
    unsigned n_apply;
    bool clear;
    struct action write[2];
    unsigned n_write;
    int next_table;                 /* Or -1. */

    struct p2p_det_rule det;        /* What the detector is told. */
};

struct group {
    bool exists;
    unsigned n_buckets;             /* Of a group of type "all": each gets a copy. */
    struct action bucket[2][2];
    unsigned n_actions[2];
    uint32_t told_port;             /* What the detector knows, or ANY. */
};

/* One sequence's state. */
static struct rule rules[MAX_RULES];
static struct group groups[N_GROUPS];
static struct p2p_detector *det;
static bool watched[N_PORTS + 1];                   /* By port. */
static struct p2p_det_answer committed[N_PORTS + 1];
static bool verbose;

/* Counts, for the summary. */
static uint64_t n_commits, n_answers, n_yes, n_true_yes, n_calls, n_oom, no[N_REASONS], wrong_no[N_REASONS];

/* Why a no may be wrong, see docs/detector.md. */
static const bool may_be_wrong[N_REASONS] = {
    [P2P_DET_PARTIAL] = true,
    [P2P_DET_OVERLAP] = true,
    [P2P_DET_OPAQUE] = true,
    [P2P_DET_GROUP] = true,
    [P2P_DET_SELF] = true,
};

static uint64_t seed = 1, sequence;

static void say(const char *fmt, ...) P2P_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    if (verbose) {
        va_list args;
        va_start(args, fmt);
        vprintf(fmt, args);
        va_end(args);
    }
}

static bool failed;

static void fail(const char *fmt, ...) P2P_PRINTF(1, 2);
static void fail(const char *fmt, ...)
{
    if (!failed) {
        va_list args;
        failed = true;
        fflush(stdout);
        fprintf(stderr, "prop_detector: --seed %" PRIu64 " --only %" PRIu64 ": ", seed, sequence);
        va_start(args, fmt);
        vfprintf(stderr, fmt, args);
        va_end(args);
        fputc('\n', stderr);
    }
}

/* The oracle. */

/* It has one of each, the last that was written. */
struct action_set {
    bool has_output, has_group;
    uint32_t output, group;
    bool sets[N_FIELDS];
    uint8_t value[N_FIELDS];
};

struct run {
    struct packet packet;       /* As it is now. */
    struct packet original;
    struct action_set set;
    unsigned n_steps;
    unsigned n_outputs;
    uint32_t out_port;          /* Of the last output. */
    bool spoilt;                /* Output changed, sent to the controller, given up. */
};

/* The port by which all packets seen so far have left, 0 if there was none yet. */
static uint32_t common_port;

static void real_output(struct run *run, const struct packet *packet, uint32_t port)
{
    if (port == packet->in_port) {
        return; /* Switches drop it. */
    }
    run->n_outputs++;
    run->out_port = port;
    if (memcmp(packet->field, run->original.field, sizeof packet->field)) {
        run->spoilt = true;
    }
}

/* Returns false if the rest of the list is not to be executed. */
static bool real_action(struct run *run, struct packet *packet, const struct action *a)
{
    switch (a->type) {
    case OUTPUT:
        real_output(run, packet, a->arg);
        break;
    case GROUP:
        if (!groups[a->arg].exists) {
            return false;
        }
        for (unsigned i = 0; i < groups[a->arg].n_buckets; i++) {
            struct packet copy = *packet;
            for (unsigned j = 0; j < groups[a->arg].n_actions[i]; j++) {
                real_action(run, &copy, &groups[a->arg].bucket[i][j]);
            }
        }
        break;
    case SET_FIELD:
        packet->field[a->arg] = a->value;
        break;
    case CONTROLLER:
        run->spoilt = true;
        break;
    case NOTE:
        break;
    }
    return true;
}

/* At the end of the pipeline.  Returns whether the packet has left by the common port, unchanged, and nothing else has
 * happened to it. */
static bool real_end(struct run *run)
{
    struct action_set *set = &run->set;

    if (set->has_output || set->has_group) {
        for (unsigned f = 0; f < N_FIELDS; f++) {
            if (set->sets[f]) {
                run->packet.field[f] = set->value[f];
            }
        }
        struct action a = { .type = set->has_group ? GROUP : OUTPUT, .arg = set->has_group ? set->group : set->output };
        real_action(run, &run->packet, &a);
    }

    if (run->spoilt || run->n_outputs != 1) {
        return false;
    }
    if (!common_port) {
        common_port = run->out_port;
    }
    return run->out_port == common_port;
}

static bool real_table(const struct run *before, uint8_t table);

static bool real_rule(const struct run *before, const struct rule *r)
{
    struct run run = *before;

    for (unsigned i = 0; i < r->n_apply; i++) {
        if (!real_action(&run, &run.packet, &r->apply[i])) {
            return real_end(&run);
        }
    }
    if (r->clear) {
        memset(&run.set, 0, sizeof run.set);
    }
    for (unsigned i = 0; i < r->n_write; i++) {
        const struct action *a = &r->write[i];
        if (a->type == OUTPUT) {
            run.set.has_output = true;
            run.set.output = a->arg;
        } else if (a->type == GROUP) {
            run.set.has_group = true;
            run.set.group = a->arg;
        } else {
            run.set.sets[a->arg] = true;
            run.set.value[a->arg] = a->value;
        }
    }
    return r->next_table < 0 ? real_end(&run) : real_table(&run, (uint8_t)r->next_table);
}

static bool real_match(const struct rule *r, uint8_t table, const struct packet *p)
{
    if (!r->installed || r->table != table || (r->in_port != ANY && r->in_port != p->in_port)) {
        return false;
    }
    for (unsigned f = 0; f < N_FIELDS; f++) {
        if ((p->field[f] ^ r->value[f]) & r->mask[f]) {
            return false;
        }
    }
    return true;
}

/* Whichever of the matching rules of highest priority is taken, does it end well? */
static bool real_table(const struct run *before, uint8_t table)
{
    struct run run = *before;
    bool found = false;
    int32_t priority = 0;

    if (run.n_steps++ > MAX_STEPS) {
        return false;
    }
    for (unsigned i = 0; i < MAX_RULES; i++) {
        if (real_match(&rules[i], table, &run.packet) && (!found || rules[i].priority > priority)) {
            found = true;
            priority = rules[i].priority;
        }
    }
    for (unsigned i = 0; found && i < MAX_RULES; i++) {
        if (rules[i].installed && rules[i].priority == priority && real_match(&rules[i], table, &run.packet)
            && !real_rule(&run, &rules[i])) {
            return false;
        }
    }
    return found; /* A table miss may go to the controller. */
}

/* By which port every packet that enters by 'port' leaves, or ANY. */
static uint32_t truth(uint32_t port)
{
    common_port = 0;
    for (unsigned x = 0; x < N_VALUES * N_VALUES; x++) {
        struct run run;
        memset(&run, 0, sizeof run);
        run.original = (struct packet) { port, { (uint8_t)(x % N_VALUES), (uint8_t)(x / N_VALUES) } };
        run.packet = run.original;
        if (!real_table(&run, 0)) {
            return ANY;
        }
    }
    return common_port;
}

/* What the detector is told. */

/* The one port that a group outputs to, or ANY. */
static uint32_t group_port(const struct group *g)
{
    return g->n_buckets == 1 && g->n_actions[0] == 1 && g->bucket[0][0].type == OUTPUT ? g->bucket[0][0].arg : ANY;
}

static void tell_action(struct p2p_det_effect *e, const struct action *a, uint8_t *out, uint32_t *id)
{
    switch (a->type) {
    case OUTPUT:
        *out = P2P_DET_OUT_PORT;
        *id = a->arg;
        break;
    case GROUP:
        *out = P2P_DET_OUT_GROUP;
        *id = a->arg;
        break;
    case SET_FIELD:
    case CONTROLLER:
    case NOTE:
        e->opaque = true;
        break;
    }
}

static void tell_rule(struct rule *r)
{
    struct p2p_det_effect *e = &r->det.effect;

    memset(&r->det, 0, sizeof r->det);
    r->det.table = r->table;
    r->det.priority = r->priority;
    r->det.in_port = r->in_port;
    for (unsigned f = 0; f < N_FIELDS; f++) {
        r->det.partial |= r->mask[f] != 0;
    }
    e->clear_set = r->clear;
    e->next_table = r->next_table < 0 ? P2P_DET_NO_TABLE : (uint16_t)r->next_table;
    e->opaque = r->n_apply > 1 || r->n_write > 1;
    if (r->n_apply) {
        tell_action(e, &r->apply[0], &e->apply, &e->apply_id);
    }
    if (r->n_write) {
        tell_action(e, &r->write[0], &e->write, &e->write_id);
    }
}

/* The plain search: what the detector's documentation says, one line after the other, without any memory of before. */

struct verdict {
    enum p2p_det_reason reason;
    uint32_t out_port;
    uint8_t table;
    const struct rule *rule;    /* One of several, if reason is P2P_DET_PARTIAL or P2P_DET_OVERLAP. */
};

static bool can_match(const struct rule *r, uint8_t table, uint32_t port)
{
    return r->installed && r->table == table && (r->in_port == port || r->in_port == ANY);
}

/* Which port 'out', 'id' means, or ANY. */
static uint32_t search_port(uint8_t out, uint32_t id)
{
    return out == P2P_DET_OUT_PORT ? id : groups[id].told_port;
}

static struct verdict search(uint32_t port)
{
    const struct rule *set_output = NULL, *set_group = NULL, *out_rule = NULL;
    bool seen[N_TABLES] = { false };
    uint32_t out_port = ANY;
    uint8_t table = 0;

    for (;;) {
        const struct rule *best = NULL;
        unsigned n = 0;

        seen[table] = true;
        for (unsigned i = 0; i < MAX_RULES; i++) {
            const struct rule *r = &rules[i];
            if (can_match(r, table, port)) {
                if (!best || r->priority > best->priority) {
                    best = r;
                    n = 1;
                } else if (r->priority == best->priority) {
                    n++;
                    best = r->det.partial ? best : r;
                }
            }
        }
        if (!best) {
            return (struct verdict) { P2P_DET_NO_RULE, ANY, table, NULL };
        }
        if (best->det.partial) {
            return (struct verdict) { P2P_DET_PARTIAL, ANY, table, best };
        }
        if (n > 1) {
            return (struct verdict) { P2P_DET_OVERLAP, ANY, table, best };
        }

        const struct p2p_det_effect *e = &best->det.effect;
        const struct rule *out[2] = { NULL, NULL };
        uint32_t to[2] = { ANY, ANY };
        bool last = e->next_table == P2P_DET_NO_TABLE;

        if (e->opaque) {
            return (struct verdict) { P2P_DET_OPAQUE, ANY, table, best };
        }
        if (e->apply) {
            out[0] = best;
            to[0] = search_port(e->apply, e->apply_id);
        }
        if (e->clear_set) {
            set_output = set_group = NULL;
        }
        if (e->write == P2P_DET_OUT_PORT) {
            set_output = best;
        } else if (e->write == P2P_DET_OUT_GROUP) {
            set_group = best;
        }
        if (last && (set_group || set_output)) {
            out[1] = set_group ? set_group : set_output;
            to[1] = search_port(out[1]->det.effect.write, out[1]->det.effect.write_id);
        }
        for (int i = 0; i < 2; i++) {
            if (!out[i]) {
                continue;
            }
            if (to[i] == ANY) {
                return (struct verdict) { P2P_DET_GROUP, ANY, out[i]->table, out[i] };
            }
            if (to[i] == port) {
                return (struct verdict) { P2P_DET_SELF, ANY, out[i]->table, out[i] };
            }
            if (out_rule) {
                return (struct verdict) { P2P_DET_MANY_OUTPUTS, ANY, out[i]->table, out[i] };
            }
            out_rule = out[i];
            out_port = to[i];
        }
        if (last) {
            return out_rule ? (struct verdict) { P2P_DET_LINKED, out_port, out_rule->table, out_rule }
                            : (struct verdict) { P2P_DET_NO_OUTPUT, ANY, table, best };
        }
        if (seen[e->next_table]) {
            return (struct verdict) { P2P_DET_LOOP, ANY, table, best };
        }
        table = (uint8_t)e->next_table;
    }
}

/* Random changes. */

/* What kind of controller this sequence has. */
static struct {
    unsigned partial, opaque, go, any, n_priorities, scarce;
} habit;

static void choose_habits(void)
{
    static const unsigned some[] = { 0, 5, 20, 50, 90 };
    habit.partial = some[below(5)];
    habit.opaque = some[below(4)];
    habit.go = some[below(5)];
    habit.any = some[1 + below(3)];
    habit.n_priorities = 1 + below(6);
    habit.scarce = percent(10) ? 10 + below(90) : 0;
}

static void *scarce_alloc(size_t size)
{
    if (habit.scarce && percent(habit.scarce)) {
        n_oom++;
        return NULL;
    }
    return malloc(size);
}

static struct action random_output(void)
{
    if (percent(30)) {
        return (struct action) { .type = GROUP, .arg = below(N_GROUPS) };
    }
    return (struct action) { .type = OUTPUT, .arg = 1 + below(N_PORTS) };
}

static struct action random_action(void)
{
    if (percent(habit.opaque)) {
        struct action a = { .type = SET_FIELD + below(3), .arg = below(N_FIELDS), .value = (uint8_t)below(N_VALUES) };
        return a;
    }
    return random_output();
}

static void random_effect(struct rule *r)
{
    r->n_apply = percent(60) ? 1 + percent(habit.opaque / 2) : 0;
    for (unsigned i = 0; i < r->n_apply; i++) {
        r->apply[i] = random_action();
    }
    r->clear = percent(15);
    r->n_write = percent(r->n_apply ? 10 : 60) ? 1 + percent(habit.opaque / 2) : 0;
    for (unsigned i = 0; i < r->n_write; i++) {
        r->write[i] = random_action();
        if (r->write[i].type > SET_FIELD) {
            r->write[i].type = SET_FIELD; /* Others are not allowed in a set. */
        }
    }
    r->next_table = -1;
    if (percent(habit.go)) {
        r->next_table = (int)(percent(90) && r->table + 1 < (int)N_TABLES
                              ? r->table + 1 + below(N_TABLES - r->table - 1u) : below(N_TABLES));
        if (percent(50)) {
            r->n_apply = 0;
        }
    }
}

static void random_match(struct rule *r)
{
    static const int32_t odd[] = { INT32_MIN, INT32_MAX, -1, 65536 };

    r->table = (uint8_t)(percent(50) ? 0 : below(N_TABLES));
    r->priority = percent(3) ? odd[below(4)] : (int32_t)below(habit.n_priorities);
    r->in_port = percent(habit.any) ? ANY : 1 + below(N_PORTS);
    bool is_partial = percent(habit.partial);
    for (unsigned f = 0; f < N_FIELDS; f++) {
        r->mask[f] = is_partial ? (uint8_t)below(N_VALUES) : 0;
        r->value[f] = (uint8_t)below(N_VALUES) & r->mask[f];
    }
}

static void say_actions(const struct action *a, unsigned n)
{
    static const char *const names[] = { "output:", "group:", "set_field:", "controller:", "note:" };
    for (unsigned i = 0; i < n; i++) {
        say(" %s%u", names[a[i].type], a[i].arg);
        if (a[i].type == SET_FIELD) {
            say("=%u", a[i].value);
        }
    }
}

static void say_rule(const char *what, const struct rule *r)
{
    say("%s rule %d: table=%u priority=%d in_port=%d match", what, (int)(r - rules), r->table, r->priority,
        (int)r->in_port);
    for (unsigned f = 0; f < N_FIELDS; f++) {
        say(" %u/%u", r->value[f], r->mask[f]);
    }
    say(" apply");
    say_actions(r->apply, r->n_apply);
    say("%s write", r->clear ? " clear" : "");
    say_actions(r->write, r->n_write);
    say(" goto %d\n", r->next_table);
}

static void add_rule(struct rule *r)
{
    tell_rule(r);
    p2p_detector_add(det, &r->det);
    r->installed = true;
    say_rule("add", r);
}

static void remove_rule(struct rule *r)
{
    say_rule("remove", r);
    p2p_detector_remove(det, &r->det);
    memset(&r->det, 0xa5, sizeof r->det); /* Nobody may look at it again. */
    r->installed = false;
}

static void change_rule(void)
{
    struct rule *r = &rules[below(MAX_RULES)];

    if (!r->installed) {
        random_match(r);
        random_effect(r);
        add_rule(r);
    } else if (percent(50)) {
        remove_rule(r);
    } else {
        /* Modify: the same match with other actions, in the same memory or in new one. */
        p2p_detector_remove(det, &r->det);
        r->installed = false;
        random_effect(r);
        for (unsigned i = 0; i < MAX_RULES && percent(50); i++) {
            if (!rules[i].installed) {
                rules[i] = *r;
                memset(&r->det, 0xa5, sizeof r->det);
                r = &rules[i];
                break;
            }
        }
        add_rule(r);
    }
}

static void change_group(void)
{
    uint32_t id = below(N_GROUPS);
    struct group *g = &groups[id];

    if (g->exists && percent(30)) {
        say("remove group %u\n", id);
        g->exists = false;
        g->told_port = ANY;
        p2p_detector_group_remove(det, id);
        return;
    }

    bool known = g->told_port != ANY;
    g->exists = true;
    g->n_buckets = percent(70) ? 1 : 2 * percent(50);
    say("group %u:", id);
    for (unsigned i = 0; i < g->n_buckets; i++) {
        g->n_actions[i] = 1 + percent(10);
        for (unsigned j = 0; j < g->n_actions[i]; j++) {
            g->bucket[i][j] = percent(90) ? (struct action) { .type = OUTPUT, .arg = 1 + below(N_PORTS) }
                                          : (struct action) { .type = SET_FIELD, .arg = below(N_FIELDS),
                                                              .value = (uint8_t)below(N_VALUES) };
        }
        say(" bucket");
        say_actions(g->bucket[i], g->n_actions[i]);
    }
    g->told_port = group_port(g);
    int error = p2p_detector_group_set(det, id, g->told_port);
    say(" -> %d\n", error);
    if (error) {
        if (error != -ENOMEM || !habit.scarce || known || g->told_port == ANY) {
            fail("group_set: %d", error);
        }
        g->told_port = ANY;
    }
}

static void change_watch(void)
{
    uint32_t port = 1 + below(N_PORTS);

    if (watched[port]) {
        say("unwatch %u\n", port);
        if (p2p_detector_watch(det, port) != -EEXIST && !failed) {
            fail("watched twice");
        }
        p2p_detector_unwatch(det, port);
        watched[port] = false;
    } else {
        int error = p2p_detector_watch(det, port);
        say("watch %u -> %d\n", port, error);
        if (error && (error != -ENOMEM || !habit.scarce)) {
            fail("watch: %d", error);
        }
        watched[port] = !error;
    }
    committed[port] = (struct p2p_det_answer) { .reason = P2P_DET_NOT_WATCHED, .out_port = ANY };
}

/* Checks. */

static struct {
    unsigned n;
    uint32_t out_port;
} called[N_PORTS + 1];

static void note_call(void *aux, uint32_t port, const struct p2p_det_answer *answer)
{
    (void)aux;
    n_calls++;
    if (port < 1 || port > N_PORTS) {
        fail("called for port %u", port);
        return;
    }
    called[port].n++;
    called[port].out_port = answer->out_port;
}

/* Between commits, answers are those of the last one. */
static void check_unchanged(uint32_t port)
{
    struct p2p_det_answer a;

    p2p_detector_answer(det, port, &a);
    if (a.reason != committed[port].reason || a.out_port != committed[port].out_port) {
        fail("port %u: the answer has changed without a commit", port);
    }
    if (a.rule && a.rule != committed[port].rule) {
        fail("port %u: another rule is blamed without a commit", port);
    }
}

static void check_port(uint32_t port)
{
    struct verdict v = search(port);
    struct p2p_det_answer a;

    p2p_detector_answer(det, port, &a);
    say("port %u: %s, output %d\n", port, p2p_det_reason_name(a.reason), (int)a.out_port);
    if (!watched[port]) {
        if (a.reason != P2P_DET_NOT_WATCHED || a.out_port != ANY || called[port].n) {
            fail("port %u is not watched, but has the answer '%s'", port, p2p_det_reason_name(a.reason));
        }
        return;
    }
    n_answers++;

    /* 1. */
    uint32_t out_port = truth(port);
    n_true_yes += out_port != ANY;
    if (a.reason == P2P_DET_LINKED) {
        n_yes++;
        if (a.out_port == ANY || a.out_port == port || a.out_port != out_port) {
            fail("port %u: WRONG YES, output %u instead of %d", port, a.out_port, (int)out_port);
        }
    } else {
        no[a.reason]++;
        if (a.out_port != ANY) {
            fail("port %u: no, with output %u", port, a.out_port);
        }
        if (out_port != ANY) {
            wrong_no[a.reason]++;
            if (!may_be_wrong[a.reason]) {
                fail("port %u: '%s' is wrong without a documented reason, output %u", port,
                     p2p_det_reason_name(a.reason), out_port);
            }
        }
    }

    /* 2. */
    if (a.reason != v.reason || a.out_port != v.out_port || a.table != v.table) {
        fail("port %u: '%s' in table %u, output %d, but a search says '%s' in table %u, output %d", port,
             p2p_det_reason_name(a.reason), a.table, (int)a.out_port, p2p_det_reason_name(v.reason), v.table,
             (int)v.out_port);
    }
    if (!a.rule && habit.scarce) {
        /* Its way could not be remembered. */
    } else if (v.reason == P2P_DET_PARTIAL || v.reason == P2P_DET_OVERLAP) {
        bool found = false;
        for (unsigned i = 0; i < MAX_RULES; i++) {
            found |= a.rule == &rules[i].det && can_match(&rules[i], v.table, port)
                     && rules[i].priority == v.rule->priority && rules[i].det.partial == v.rule->det.partial;
        }
        if (!found) {
            fail("port %u: '%s', but the wrong rule is blamed", port, p2p_det_reason_name(a.reason));
        }
    } else if (a.rule != (v.rule ? &v.rule->det : NULL)) {
        fail("port %u: '%s', but the wrong rule is blamed", port, p2p_det_reason_name(a.reason));
    }

    /* 3. */
    if (called[port].n != (a.out_port != committed[port].out_port)
        || (called[port].n && called[port].out_port != a.out_port)) {
        fail("port %u: called %u times, output %d before and %d now", port, called[port].n,
             (int)committed[port].out_port, (int)a.out_port);
    }
    committed[port] = a;
}

static void commit(void)
{
    say("commit\n");
    memset(called, 0, sizeof called);
    p2p_detector_commit(det, note_call, NULL);
    n_commits++;
    for (uint32_t port = 1; port <= N_PORTS; port++) {
        check_port(port);
    }
}

static void run_sequence(void)
{
    random_state = seed * UINT64_C(0x9e3779b97f4a7c15) ^ (sequence + 1) * UINT64_C(0xd1342543de82ef95);
    choose_habits();
    memset(rules, 0, sizeof rules);
    memset(groups, 0, sizeof groups);
    for (unsigned i = 0; i < N_GROUPS; i++) {
        groups[i].told_port = ANY;
    }

    do {
        det = p2p_detector_create();
    } while (!det && percent(99));
    if (!det) {
        return;
    }
    for (uint32_t port = 1; port <= N_PORTS; port++) {
        watched[port] = percent(80) && !p2p_detector_watch(det, port);
        committed[port] = (struct p2p_det_answer) { .reason = P2P_DET_NOT_WATCHED, .out_port = ANY };
    }

    unsigned n_changes = 5 + below(40);
    unsigned commit_percent = 5 + below(80);
    for (unsigned i = 0; i < n_changes && !failed; i++) {
        uint32_t x = below(100);
        if (x < 82) {
            change_rule();
        } else if (x < 96) {
            change_group();
        } else {
            change_watch();
        }
        check_unchanged(1 + below(N_PORTS));
        if (percent(commit_percent)) {
            commit();
        }
    }
    if (!failed) {
        commit();
        uint64_t n = p2p_detector_n_evaluations(det);
        commit();
        if (!habit.scarce && p2p_detector_n_evaluations(det) != n) {
            fail("a commit without changes has followed a port's way again");
        }
    }
    p2p_detector_destroy(det);
}

int main(int argc, char *argv[])
{
    static const struct option options[] = {
        { "seed", required_argument, NULL, 's' },
        { "sequences", required_argument, NULL, 'n' },
        { "only", required_argument, NULL, 'o' },
        { "progress", no_argument, NULL, 'p' },
        { "verbose", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    uint64_t n_sequences = 100000, first = 0;
    bool progress = false;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            n_sequences = strtoull(optarg, NULL, 0);
            break;
        case 'o':
            first = strtoull(optarg, NULL, 0);
            n_sequences = 1;
            break;
        case 'p':
            progress = true;
            break;
        case 'v':
            verbose = true;
            break;
        default:
            fprintf(stderr, "usage: %s [--seed N] [--sequences N] [--only N] [--progress] [--verbose]\n", argv[0]);
            return 2;
        }
    }

    p2p_det_alloc = scarce_alloc;
    for (sequence = first; sequence < first + n_sequences && !failed; sequence++) {
        run_sequence();
        if (failed && !verbose) {
            failed = false;
            verbose = true;
            run_sequence();
            failed = true;
            break;
        }
        if (progress && (sequence + 1) % 10000 == 0) {
            fprintf(stderr, "\r%" PRIu64 " sequences", sequence + 1);
        }
    }
    if (progress) {
        fputc('\n', stderr);
    }

    printf("seed %" PRIu64 ": %" PRIu64 " sequences, %" PRIu64 " commits, %" PRIu64 " calls, %" PRIu64
           " failed allocations\n", seed, sequence - first, n_commits, n_calls, n_oom);
    printf("%" PRIu64 " answers, %" PRIu64 " of them yes, where %" PRIu64 " could have been\n", n_answers, n_yes,
           n_true_yes);
    for (unsigned i = 0; i < N_REASONS; i++) {
        if (no[i]) {
            printf("%12" PRIu64 " no: %s (%" PRIu64 " would have been yes)\n", no[i], p2p_det_reason_name(i),
                   wrong_no[i]);
        }
    }
    puts(failed ? "FAILED" : "no wrong yes, no undocumented no");
    return failed;
}
