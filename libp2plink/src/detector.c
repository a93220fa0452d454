/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The detector (see p2plink/detector.h for what it answers, docs/detector.md for why it is right).
 *
 * Who calls it: vswitchd, through ovs-patch/, with ofproto_mutex held; one detector per bridge.  No threads of its own.
 * What it owns: the watched ports, the groups, and the heads of its hash tables.  Rules are the caller's.
 *
 * How it is built:
 *
 *   - A *bucket* is the set of rules of one table with one in_port, or with none.  Which rule decides what becomes of
 *     port A's packets in table t depends on nothing but the first two rules of two buckets, (t, A) and (t, any).  A
 *     bucket is a heap, and a heap is its root: buckets (t, any) lie in an array; of the others, the roots themselves
 *     are chained in a hash table.  So adding a rule takes no memory and cannot fail.
 *
 *   - A watched port remembers its last way: which tables (a *visit* each), which groups (a *use* each).  A change that
 *     could alter the way puts the port on the list of dirty ones, and p2p_detector_commit() follows their way anew:
 *
 *       change at the top of (t, A):    port A, if it visits t, and unless (t, any) holds something of higher priority;
 *       change at the top of (t, any):  all ports that visit t, but for those whose own bucket (t, A) holds something
 *                                       of higher priority.  Each table keeps its visits in a heap, that of lowest own
 *                                       priority first, so the others are not even looked at;
 *       change of a group:              all ports that use it, by a hash table.
 *
 *     A visit's idea of its port's own priority may be out of date, but only while (t, any) holds something of higher
 *     priority, and then any change at the top of (t, any) is at a higher priority than it, whatever it is.
 *
 *   - Where there is no memory to remember a way, the port just stays dirty: its way is followed at every commit.  The
 *     answers are the same.
 */
#include <p2plink/detector.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "detector_heap.h"
#include "detector_map.h"
#include "detector_private.h"

#if UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(struct p2p_det_rule) == 64, "docs/detector.md states the memory per rule");
#endif

/* OVS gives up a packet after 64 resubmits that do not go forward; stay well below. */
#define MAX_BACKWARD 32u

/* A way ends at the second output, so it asks for two groups at most. */
#define MAX_USES 2u

#define INITIAL_VISITS 4u

struct watch;

/* A watched port's way leads through a table. */
struct visit {
    struct p2p_det_node node;       /* In visits[table].  Key: ~(priority at the top of the port's own bucket). */
    struct watch *watch;
    uint8_t table;
};

/* A watched port's way leads through a group. */
struct use {
    struct p2p_det_link chain;      /* In 'uses', if 'linked'. */
    struct watch *watch;
    uint32_t group_id;
    bool linked;
};

struct watch {
    struct p2p_det_link chain;      /* In 'watches'. */
    struct watch *prev, *next;      /* In 'dirty', if is_dirty. */
    struct watch *next_changed;     /* During a commit. */
    uint32_t port;
    bool is_dirty;
    struct p2p_det_answer answer;

    uint64_t visited[P2P_DET_N_TABLES / 64];  /* Bit t: table t is on the way. */
    struct visit *visits;
    uint16_t n_visits, visits_size;
    struct use uses[MAX_USES];
};

struct group {
    struct p2p_det_link chain;      /* In 'groups'. */
    uint32_t id;
    uint32_t port;                  /* Never P2P_DET_ANY: such groups are not kept. */
};

struct p2p_detector {
    struct p2p_det_link *any[P2P_DET_N_TABLES];     /* Buckets (t, any), a chain of one or none each. */
    struct p2p_det_map buckets;                     /* All other buckets, by table and in_port. */
    struct p2p_det_node *visits[P2P_DET_N_TABLES];  /* Heaps of 'struct visit'. */
    struct p2p_det_map watches;                     /* By port. */
    struct p2p_det_map groups;                      /* By group number. */
    struct p2p_det_map uses;                        /* By group number. */
    struct watch *dirty;
    uint64_t n_evaluations;
};

void *(*p2p_det_alloc)(size_t size) = malloc;

/* Buckets. */

static struct p2p_det_rule *rule_of(const struct p2p_det_node *node)
{
    return node ? P2P_DET_CONTAINER(node, struct p2p_det_rule, node) : NULL;
}

static struct p2p_det_node *root_of(struct p2p_det_link *link)
{
    return link ? P2P_DET_CONTAINER(link, struct p2p_det_node, chain) : NULL;
}

static uint32_t bucket_hash(uint8_t table, uint32_t in_port)
{
    return p2p_det_hash((uint64_t)table << 32 | in_port);
}

static uint32_t hash_of_bucket(const struct p2p_det_link *link)
{
    const struct p2p_det_rule *rule = rule_of(P2P_DET_CONTAINER(link, struct p2p_det_node, chain));
    return bucket_hash(rule->table, rule->in_port);
}

/* Where the pointer to the bucket's root is, or shall be. */
static struct p2p_det_link **find_bucket(struct p2p_detector *d, uint8_t table, uint32_t in_port)
{
    if (in_port == P2P_DET_ANY) {
        return &d->any[table];
    }

    struct p2p_det_link **slot = p2p_det_map_head(&d->buckets, bucket_hash(table, in_port));
    for (; *slot; slot = &(*slot)->next) {
        const struct p2p_det_rule *rule = rule_of(root_of(*slot));
        if (rule->table == table && rule->in_port == in_port) {
            break;
        }
    }
    return slot;
}

/* Watched ports. */

static uint32_t hash_of_watch(const struct p2p_det_link *link)
{
    return p2p_det_hash(P2P_DET_CONTAINER(link, struct watch, chain)->port);
}

static struct watch *find_watch(const struct p2p_detector *d, uint32_t port)
{
    for (struct p2p_det_link *link = *p2p_det_map_head(&d->watches, p2p_det_hash(port)); link; link = link->next) {
        struct watch *w = P2P_DET_CONTAINER(link, struct watch, chain);
        if (w->port == port) {
            return w;
        }
    }
    return NULL;
}

static bool does_visit(const struct watch *w, uint8_t table)
{
    return w->visited[table / 64] >> table % 64 & 1;
}

static void mark_dirty(struct p2p_detector *d, struct watch *w)
{
    if (!w->is_dirty) {
        w->is_dirty = true;
        w->prev = NULL;
        w->next = d->dirty;
        if (d->dirty) {
            d->dirty->prev = w;
        }
        d->dirty = w;
    }
}

static void mark_clean(struct p2p_detector *d, struct watch *w)
{
    if (w->is_dirty) {
        w->is_dirty = false;
        if (w->prev) {
            w->prev->next = w->next;
        } else {
            d->dirty = w->next;
        }
        if (w->next) {
            w->next->prev = w->prev;
        }
    }
}

/* Groups. */

static uint32_t hash_of_group(const struct p2p_det_link *link)
{
    return p2p_det_hash(P2P_DET_CONTAINER(link, struct group, chain)->id);
}

static uint32_t hash_of_use(const struct p2p_det_link *link)
{
    return p2p_det_hash(P2P_DET_CONTAINER(link, struct use, chain)->group_id);
}

static struct group *find_group(const struct p2p_detector *d, uint32_t group_id)
{
    for (struct p2p_det_link *link = *p2p_det_map_head(&d->groups, p2p_det_hash(group_id)); link; link = link->next) {
        struct group *g = P2P_DET_CONTAINER(link, struct group, chain);
        if (g->id == group_id) {
            return g;
        }
    }
    return NULL;
}

static void mark_group_users_dirty(struct p2p_detector *d, uint32_t group_id)
{
    for (struct p2p_det_link *link = *p2p_det_map_head(&d->uses, p2p_det_hash(group_id)); link; link = link->next) {
        struct use *use = P2P_DET_CONTAINER(link, struct use, chain);
        if (use->group_id == group_id) {
            mark_dirty(d, use->watch);
        }
    }
}

/* Following a way. */

/* An entry of the action set.  It is not looked at before the end: until then it can be replaced. */
struct set_entry {
    const struct p2p_det_rule *rule;  /* That wrote it, or NULL if there is none. */
    uint32_t id;
};

struct way {
    uint32_t port;                    /* Whose. */
    uint16_t n_tables;
    uint8_t tables[P2P_DET_N_TABLES];
    int32_t keys[P2P_DET_N_TABLES];   /* For 'struct visit'. */
    uint64_t visited[P2P_DET_N_TABLES / 64];
    uint16_t n_groups;
    uint32_t groups[MAX_USES];

    const struct p2p_det_rule *out_rule;  /* The rule that output, or NULL. */
    uint32_t out_port;
    struct p2p_det_answer answer;
};

/* Returns false, for callers to return. */
static bool end_way(struct way *way, enum p2p_det_reason reason, uint8_t table, const struct p2p_det_rule *rule)
{
    way->answer.reason = reason;
    way->answer.out_port = reason == P2P_DET_LINKED ? way->out_port : P2P_DET_ANY;
    way->answer.table = table;
    way->answer.rule = rule;
    return false;
}

/* Returns the one rule of 'table' that all the port's packets meet, or ends the way and returns NULL. */
static const struct p2p_det_rule *decide(struct p2p_detector *d, struct way *way, uint8_t table)
{
    const struct p2p_det_node *own = root_of(*find_bucket(d, table, way->port));
    const struct p2p_det_node *any = root_of(d->any[table]);

    way->tables[way->n_tables] = table;
    way->keys[way->n_tables] = own ? ~own->key : INT32_MAX;
    way->n_tables++;
    way->visited[table / 64] |= UINT64_C(1) << table % 64;

    if (!own && !any) {
        end_way(way, P2P_DET_NO_RULE, table, NULL);
        return NULL;
    }

    /* At the highest priority, a rule that matches everything goes before one that is partial, in a heap and here: if
     * that first one is partial, so are all others there, and they need not overlap. */
    bool both = own && any && own->key == any->key;
    const struct p2p_det_node *first;
    if (both) {
        first = any->minor > own->minor ? any : own;
    } else {
        first = !any || (own && own->key > any->key) ? own : any;
    }

    const struct p2p_det_rule *rule = rule_of(first);
    if (rule->partial) {
        end_way(way, P2P_DET_PARTIAL, table, rule);
        return NULL;
    }
    if (both || p2p_det_heap_is_tied(first)) {
        end_way(way, P2P_DET_OVERLAP, table, rule);
        return NULL;
    }
    return rule;
}

/* Outputs to port or group 'id', or ends the way and returns false. */
static bool output(const struct p2p_detector *d, struct way *way, const struct p2p_det_rule *rule, uint8_t out,
                   uint32_t id)
{
    uint32_t port = id;

    if (out == P2P_DET_OUT_GROUP) {
        if (!way->n_groups || way->groups[0] != id) {
            way->groups[way->n_groups++] = id;
        }
        const struct group *g = find_group(d, id);
        if (!g) {
            return end_way(way, P2P_DET_GROUP, rule->table, rule);
        }
        port = g->port;
    }
    /* A switch drops this one, so that another output could still be the only one.  Whoever writes such rules may have
     * meant something else. */
    if (port == way->port) {
        return end_way(way, P2P_DET_SELF, rule->table, rule);
    }
    if (way->out_rule) {
        return end_way(way, P2P_DET_MANY_OUTPUTS, rule->table, rule);
    }
    way->out_rule = rule;
    way->out_port = port;
    return true;
}

/* Whether the caller has said something that makes no sense.  Then nothing is known about the rule. */
static bool is_opaque(const struct p2p_det_effect *e)
{
    return e->opaque
           || e->apply > P2P_DET_OUT_GROUP || (e->apply == P2P_DET_OUT_PORT && e->apply_id == P2P_DET_ANY)
           || e->write > P2P_DET_OUT_GROUP || (e->write == P2P_DET_OUT_PORT && e->write_id == P2P_DET_ANY)
           || (e->next_table >= P2P_DET_N_TABLES && e->next_table != P2P_DET_NO_TABLE);
}

/* Follows the way of way->port to its end. */
static void follow(struct p2p_detector *d, struct way *way)
{
    struct set_entry set_port = { NULL, 0 };
    struct set_entry set_group = { NULL, 0 };
    const struct p2p_det_rule *rule;
    unsigned n_backward = 0;
    uint8_t table = 0;

    for (;;) {
        rule = decide(d, way, table);
        if (!rule) {
            return;
        }

        const struct p2p_det_effect *e = &rule->effect;
        if (is_opaque(e)) {
            end_way(way, P2P_DET_OPAQUE, table, rule);
            return;
        }
        if (e->apply != P2P_DET_OUT_NONE && !output(d, way, rule, e->apply, e->apply_id)) {
            return;
        }
        if (e->clear_set) {
            set_port.rule = set_group.rule = NULL;
        }
        if (e->write == P2P_DET_OUT_PORT) {
            set_port = (struct set_entry) { rule, e->write_id };
        } else if (e->write == P2P_DET_OUT_GROUP) {
            set_group = (struct set_entry) { rule, e->write_id };
        }

        if (e->next_table == P2P_DET_NO_TABLE) {
            break;
        }
        uint8_t next = (uint8_t)e->next_table;
        n_backward += next <= table;
        if (way->visited[next / 64] >> next % 64 & 1 || n_backward > MAX_BACKWARD) {
            end_way(way, P2P_DET_LOOP, table, rule);
            return;
        }
        table = next;
    }

    /* The action set: with a group in it the output is ignored (OpenFlow 1.3, 5.10), also, in OVS, if it was written
     * later. */
    if (set_group.rule) {
        if (!output(d, way, set_group.rule, P2P_DET_OUT_GROUP, set_group.id)) {
            return;
        }
    } else if (set_port.rule) {
        if (!output(d, way, set_port.rule, P2P_DET_OUT_PORT, set_port.id)) {
            return;
        }
    }

    if (way->out_rule) {
        end_way(way, P2P_DET_LINKED, way->out_rule->table, way->out_rule);
    } else {
        end_way(way, P2P_DET_NO_OUTPUT, table, rule);
    }
}

/* Remembering a way. */

static void unlink_visit(struct p2p_detector *d, struct visit *v)
{
    if (v->node.present) {
        d->visits[v->table] = p2p_det_heap_remove(d->visits[v->table], &v->node);
    }
}

static void unlink_use(struct p2p_detector *d, struct use *use)
{
    if (use->linked) {
        p2p_det_map_remove(&d->uses, &use->chain);
        use->linked = false;
    }
}

static void forget_visits(struct p2p_detector *d, struct watch *w)
{
    for (unsigned i = 0; i < w->n_visits; i++) {
        unlink_visit(d, &w->visits[i]);
    }
    w->n_visits = 0;
}

/* Makes room for 'n' visits, forgetting those that there are.  Returns false if there is no memory. */
static bool make_room(struct p2p_detector *d, struct watch *w, unsigned n)
{
    unsigned size = w->visits_size ? w->visits_size : INITIAL_VISITS;
    while (size < n) {
        size *= 2;
    }

    forget_visits(d, w);
    struct visit *visits = p2p_det_alloc(size * sizeof *visits);
    if (!visits) {
        return false;
    }
    free(w->visits);
    w->visits = visits;
    w->visits_size = (uint16_t)size;
    return true;
}

/* Makes the visits and uses of 'w' those of 'way'.  What has not changed is left in place.  Returns false if there is
 * no memory. */
static bool remember(struct p2p_detector *d, struct watch *w, const struct way *way)
{
    for (unsigned i = 0; i < MAX_USES; i++) {
        struct use *use = &w->uses[i];
        if (i < way->n_groups && use->linked && use->group_id == way->groups[i]) {
            continue;
        }
        unlink_use(d, use);
        if (i < way->n_groups) {
            use->watch = w;
            use->group_id = way->groups[i];
            use->linked = true;
            p2p_det_map_insert(&d->uses, &use->chain);
        }
    }

    memcpy(w->visited, way->visited, sizeof w->visited);
    if (way->n_tables > w->visits_size && !make_room(d, w, way->n_tables)) {
        return false;
    }
    for (unsigned i = 0; i < way->n_tables; i++) {
        struct visit *v = &w->visits[i];
        if (i < w->n_visits) {
            if (v->node.present && v->table == way->tables[i] && v->node.key == way->keys[i]) {
                continue;
            }
            unlink_visit(d, v);
        }
        *v = (struct visit) { .watch = w, .table = way->tables[i], .node.key = way->keys[i] };
        d->visits[v->table] = p2p_det_heap_insert(d->visits[v->table], &v->node);
    }
    for (unsigned i = way->n_tables; i < w->n_visits; i++) {
        unlink_visit(d, &w->visits[i]);
    }
    w->n_visits = way->n_tables;
    return true;
}

/* Changes of rules. */

/* The two rules of highest priority have changed in the bucket of 'table' and 'in_port'; none of them, before or after,
 * had a priority above 'priority'. */
static void top_changed(struct p2p_detector *d, uint8_t table, uint32_t in_port, int32_t priority)
{
    if (in_port != P2P_DET_ANY) {
        const struct p2p_det_node *any = root_of(d->any[table]);
        struct watch *w = find_watch(d, in_port);
        if (w && does_visit(w, table) && !(any && any->key > priority)) {
            mark_dirty(d, w);
        }
        return;
    }

    /* What is taken out here, remember() puts in again: however many changes a commit sums up, a port is met once. */
    while (d->visits[table] && ~d->visits[table]->key <= priority) {
        struct visit *v = P2P_DET_CONTAINER(d->visits[table], struct visit, node);
        mark_dirty(d, v->watch);
        unlink_visit(d, v);
    }
}

static void change(struct p2p_detector *d, struct p2p_det_rule *rule, bool add)
{
    struct p2p_det_link **slot = find_bucket(d, rule->table, rule->in_port);
    struct p2p_det_link *next = *slot ? (*slot)->next : NULL;
    struct p2p_det_node *old = root_of(*slot);
    int32_t old_priority = old ? old->key : INT32_MIN;
    bool old_tied = old && p2p_det_heap_is_tied(old);

    struct p2p_det_node *new = add ? p2p_det_heap_insert(old, &rule->node) : p2p_det_heap_remove(old, &rule->node);
    if (new) {
        new->chain.next = next;
    }
    *slot = new ? &new->chain : next;

    int32_t new_priority = new ? new->key : INT32_MIN;
    bool new_tied = new && p2p_det_heap_is_tied(new);
    if (new != old || new_tied != old_tied) {
        top_changed(d, rule->table, rule->in_port, old_priority > new_priority ? old_priority : new_priority);
    }
    if (rule->in_port != P2P_DET_ANY && !new != !old) {
        p2p_det_map_count(&d->buckets, new ? 1 : -1);
    }
}

void p2p_detector_add(struct p2p_detector *d, struct p2p_det_rule *rule)
{
    rule->node.key = rule->priority;
    rule->node.minor = !rule->partial;
    change(d, rule, true);
}

void p2p_detector_remove(struct p2p_detector *d, struct p2p_det_rule *rule)
{
    if (rule->node.present) {
        change(d, rule, false);
    }
}

/* Changes of groups. */

int p2p_detector_group_set(struct p2p_detector *d, uint32_t group_id, uint32_t port)
{
    if (port == P2P_DET_ANY) {
        p2p_detector_group_remove(d, group_id);
        return 0;
    }

    struct group *g = find_group(d, group_id);
    if (g && g->port == port) {
        return 0;
    }
    if (!g) {
        g = p2p_det_alloc(sizeof *g);
        if (!g) {
            return -ENOMEM;
        }
        g->id = group_id;
        p2p_det_map_insert(&d->groups, &g->chain);
    }
    g->port = port;
    mark_group_users_dirty(d, group_id);
    return 0;
}

void p2p_detector_group_remove(struct p2p_detector *d, uint32_t group_id)
{
    struct group *g = find_group(d, group_id);
    if (g) {
        p2p_det_map_remove(&d->groups, &g->chain);
        free(g);
        mark_group_users_dirty(d, group_id);
    }
}

/* Watching. */

int p2p_detector_watch(struct p2p_detector *d, uint32_t port)
{
    if (port == P2P_DET_ANY) {
        return -EINVAL;
    }
    if (find_watch(d, port)) {
        return -EEXIST;
    }

    struct watch *w = p2p_det_alloc(sizeof *w);
    if (!w) {
        return -ENOMEM;
    }
    *w = (struct watch) { .port = port, .answer = { .reason = P2P_DET_NOT_WATCHED, .out_port = P2P_DET_ANY } };
    p2p_det_map_insert(&d->watches, &w->chain);
    mark_dirty(d, w);
    return 0;
}

void p2p_detector_unwatch(struct p2p_detector *d, uint32_t port)
{
    struct watch *w = find_watch(d, port);
    if (w) {
        forget_visits(d, w);
        for (unsigned i = 0; i < MAX_USES; i++) {
            unlink_use(d, &w->uses[i]);
        }
        mark_clean(d, w);
        p2p_det_map_remove(&d->watches, &w->chain);
        free(w->visits);
        free(w);
    }
}

/* Answers. */

void p2p_detector_commit(struct p2p_detector *d, p2p_det_changed_func *cb, void *aux)
{
    struct watch *changed = NULL;
    struct watch *next;

    for (struct watch *w = d->dirty; w; w = next) {
        struct way way;

        way.port = w->port;
        way.n_tables = 0;
        memset(way.visited, 0, sizeof way.visited);
        way.n_groups = 0;
        way.out_rule = NULL;
        follow(d, &way);
        d->n_evaluations++;

        next = w->next;
        if (way.answer.out_port != w->answer.out_port) {
            w->next_changed = changed;
            changed = w;
        }
        w->answer = way.answer;
        w->answer.serial = d->n_evaluations;
        if (remember(d, w, &way)) {
            mark_clean(d, w);
        }
    }

    for (struct watch *w = changed; w && cb; w = w->next_changed) {
        cb(aux, w->port, &w->answer);
    }
}

void p2p_detector_answer(const struct p2p_detector *d, uint32_t port, struct p2p_det_answer *answer)
{
    const struct watch *w = find_watch(d, port);
    if (!w) {
        *answer = (struct p2p_det_answer) { .reason = P2P_DET_NOT_WATCHED, .out_port = P2P_DET_ANY };
        return;
    }
    *answer = w->answer;
    if (w->is_dirty) {
        answer->rule = NULL; /* It may be gone. */
    }
}

const char *p2p_det_reason_name(enum p2p_det_reason reason)
{
    switch (reason) {
    case P2P_DET_LINKED:
        return "linked";
    case P2P_DET_NO_RULE:
        return "no rule matches";
    case P2P_DET_PARTIAL:
        return "rule matches only part of the traffic";
    case P2P_DET_OVERLAP:
        return "several rules of the same priority match";
    case P2P_DET_OPAQUE:
        return "rule does something besides output";
    case P2P_DET_GROUP:
        return "group is missing or is not one plain output";
    case P2P_DET_NO_OUTPUT:
        return "traffic is dropped";
    case P2P_DET_MANY_OUTPUTS:
        return "more than one output";
    case P2P_DET_SELF:
        return "output to the port it came from";
    case P2P_DET_LOOP:
        return "tables lead back to one another";
    case P2P_DET_NOT_WATCHED:
        return "port is not watched";
    }
    return "unknown";
}

/* Life and death. */

struct p2p_detector *p2p_detector_create(void)
{
    struct p2p_detector *d = p2p_det_alloc(sizeof *d);
    if (!d) {
        return NULL;
    }
    memset(d, 0, sizeof *d);
    if (p2p_det_map_init(&d->buckets, hash_of_bucket) || p2p_det_map_init(&d->watches, hash_of_watch)
        || p2p_det_map_init(&d->groups, hash_of_group) || p2p_det_map_init(&d->uses, hash_of_use)) {
        p2p_detector_destroy(d);
        return NULL;
    }
    return d;
}

void p2p_detector_destroy(struct p2p_detector *d)
{
    if (!d) {
        return;
    }
    for (uint32_t i = 0; d->watches.heads && i <= d->watches.mask; i++) {
        struct p2p_det_link *next;
        for (struct p2p_det_link *link = d->watches.heads[i]; link; link = next) {
            struct watch *w = P2P_DET_CONTAINER(link, struct watch, chain);
            next = link->next;
            free(w->visits);
            free(w);
        }
    }
    for (uint32_t i = 0; d->groups.heads && i <= d->groups.mask; i++) {
        struct p2p_det_link *next;
        for (struct p2p_det_link *link = d->groups.heads[i]; link; link = next) {
            next = link->next;
            free(P2P_DET_CONTAINER(link, struct group, chain));
        }
    }
    p2p_det_map_destroy(&d->buckets);
    p2p_det_map_destroy(&d->watches);
    p2p_det_map_destroy(&d->groups);
    p2p_det_map_destroy(&d->uses);
    free(d);
}

uint64_t p2p_detector_n_evaluations(const struct p2p_detector *d)
{
    return d->n_evaluations;
}
