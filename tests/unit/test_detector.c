/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link detector, told as stories: what stands in the flow tables, what it answers, and what that has cost.
 * (prop_detector.c tries random tables against an oracle.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <p2plink/detector.h>
#include "../../libp2plink/src/detector_heap.h"
#include "../../libp2plink/src/detector_private.h"

enum { A = 1, B = 2, C = 3 };
#define ANY P2P_DET_ANY

static struct p2p_detector *det;

/* The calls of the last commit. */
static struct {
    unsigned n;
    uint32_t port[16];
    uint32_t out_port[16];
} calls;

/* Rules, as a switch would keep them.  They live until the end of a test. */
#define N_POOL 2048
static struct p2p_det_rule pool[N_POOL];
static unsigned n_pool;

static int set_up(void **state)
{
    (void)state;
    n_pool = 0;
    det = p2p_detector_create();
    return det ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    p2p_det_alloc = malloc;
    p2p_detector_destroy(det);
    return 0;
}

static void note_call(void *aux, uint32_t port, const struct p2p_det_answer *answer)
{
    struct p2p_det_answer a;

    assert_ptr_equal(aux, &calls);
    /* All answers are up to date by now, so it does not matter whether one asks or is told. */
    p2p_detector_answer(det, port, &a);
    assert_int_equal(a.reason, answer->reason);
    assert_int_equal(a.out_port, answer->out_port);
    if (calls.n < 16) {
        calls.port[calls.n] = port;
        calls.out_port[calls.n] = answer->out_port;
    }
    calls.n++;
}

static void commit(void)
{
    calls.n = 0;
    p2p_detector_commit(det, note_call, &calls);
}

static void watch(uint32_t port)
{
    assert_int_equal(p2p_detector_watch(det, port), 0);
}

/* A rule that does nothing yet. */
static struct p2p_det_rule *rule(uint8_t table, int32_t priority, uint32_t in_port)
{
    struct p2p_det_rule *r = &pool[n_pool++];

    assert_true(n_pool <= N_POOL);
    *r = (struct p2p_det_rule) { .table = table, .priority = priority, .in_port = in_port };
    r->effect.next_table = P2P_DET_NO_TABLE;
    return r;
}

static struct p2p_det_rule *partial(struct p2p_det_rule *r)
{
    r->partial = true;
    return r;
}

static struct p2p_det_rule *opaque(struct p2p_det_rule *r)
{
    r->effect.opaque = true;
    return r;
}

static struct p2p_det_rule *output(struct p2p_det_rule *r, uint32_t port)
{
    r->effect.apply = P2P_DET_OUT_PORT;
    r->effect.apply_id = port;
    return r;
}

static struct p2p_det_rule *group(struct p2p_det_rule *r, uint32_t group_id)
{
    r->effect.apply = P2P_DET_OUT_GROUP;
    r->effect.apply_id = group_id;
    return r;
}

static struct p2p_det_rule *clear(struct p2p_det_rule *r)
{
    r->effect.clear_set = true;
    return r;
}

static struct p2p_det_rule *write_output(struct p2p_det_rule *r, uint32_t port)
{
    r->effect.write = P2P_DET_OUT_PORT;
    r->effect.write_id = port;
    return r;
}

static struct p2p_det_rule *write_group(struct p2p_det_rule *r, uint32_t group_id)
{
    r->effect.write = P2P_DET_OUT_GROUP;
    r->effect.write_id = group_id;
    return r;
}

static struct p2p_det_rule *go(struct p2p_det_rule *r, uint16_t table)
{
    r->effect.next_table = table;
    return r;
}

static struct p2p_det_rule *add(struct p2p_det_rule *r)
{
    p2p_detector_add(det, r);
    return r;
}

/* A removed rule's memory goes back to whom it came from: nobody may look at it again. */
static void drop(struct p2p_det_rule *r)
{
    p2p_detector_remove(det, r);
    memset(r, 0xa5, sizeof *r);
}

static struct p2p_det_answer answer(uint32_t port)
{
    struct p2p_det_answer a;
    p2p_detector_answer(det, port, &a);
    return a;
}

#define expect_link(PORT, OUT) expect_link_(PORT, OUT, __LINE__)
static void expect_link_(uint32_t port, uint32_t out, int line)
{
    struct p2p_det_answer a = answer(port);
    if (a.reason != P2P_DET_LINKED || a.out_port != out) {
        fail_msg("line %d: port %u: expected a link to %u, got '%s', output %u", line, port, out,
                 p2p_det_reason_name(a.reason), a.out_port);
    }
}

#define expect_no(PORT, REASON, RULE) expect_no_(PORT, REASON, RULE, __LINE__)
static void expect_no_(uint32_t port, enum p2p_det_reason reason, const struct p2p_det_rule *r, int line)
{
    struct p2p_det_answer a = answer(port);
    if (a.reason != reason || a.out_port != ANY) {
        fail_msg("line %d: port %u: expected '%s', got '%s', output %u", line, port, p2p_det_reason_name(reason),
                 p2p_det_reason_name(a.reason), a.out_port);
    }
    if (a.rule != r || (r && a.table != r->table)) {
        fail_msg("line %d: port %u: another rule is blamed, of table %u", line, port, a.table);
    }
}

/* Which rule decides. */

static void one_rule_makes_a_link(void **state)
{
    (void)state;
    watch(A);
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
    assert_int_equal(calls.n, 0);

    struct p2p_det_rule *r = add(output(rule(0, 100, A), B));
    commit();
    expect_link(A, B);
    assert_ptr_equal(answer(A).rule, r);
    assert_int_equal(calls.n, 1);
    assert_int_equal(calls.port[0], A);
    assert_int_equal(calls.out_port[0], B);

    drop(r);
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
    assert_int_equal(calls.n, 1);
    assert_int_equal(calls.out_port[0], ANY);
}

static void another_ports_rule_does_not_matter(void **state)
{
    (void)state;
    watch(A);
    add(output(rule(0, 100, C), B));
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
}

static void a_rule_without_in_port_is_for_all(void **state)
{
    (void)state;
    watch(A);
    watch(B);
    watch(C);
    struct p2p_det_rule *r = add(output(rule(0, 100, ANY), B));
    commit();
    expect_link(A, B);
    expect_no(B, P2P_DET_SELF, r);
    expect_link(C, B);
    assert_int_equal(calls.n, 2);
}

static void the_highest_priority_decides(void **state)
{
    (void)state;
    watch(A);
    add(output(rule(0, 100, A), B));
    struct p2p_det_rule *high = add(output(rule(0, 101, ANY), C));
    commit();
    expect_link(A, C);
    drop(high);
    commit();
    expect_link(A, B);
}

static void priorities_are_signed_and_may_exceed_16_bits(void **state)
{
    (void)state;
    watch(A);
    commit();
    add(output(rule(0, INT32_MIN, ANY), B));
    commit();
    expect_link(A, B);
    struct p2p_det_rule *zero = add(output(rule(0, 0, A), C));
    commit();
    expect_link(A, C);
    struct p2p_det_rule *hidden = add(partial(rule(0, 180002, ANY)));
    commit();
    expect_no(A, P2P_DET_PARTIAL, hidden);
    struct p2p_det_rule *max = add(output(rule(0, INT32_MAX, A), B));
    commit();
    expect_link(A, B);
    drop(max);
    drop(hidden);
    drop(zero);
    commit();
    expect_link(A, B);
    add(output(rule(0, INT32_MIN, A), B));
    commit();
    assert_int_equal(answer(A).reason, P2P_DET_OVERLAP);
}

static void a_partial_rule_above_ends_the_link_and_one_below_does_not(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(output(rule(0, 100, A), B));
    add(partial(rule(0, 99, A)));
    add(partial(rule(0, 99, ANY)));
    commit();
    expect_link(A, B);
    assert_ptr_equal(answer(A).rule, r);

    struct p2p_det_rule *firewall = add(partial(rule(0, 200, A)));
    commit();
    expect_no(A, P2P_DET_PARTIAL, firewall);
    drop(firewall);
    firewall = add(partial(rule(0, 200, ANY)));
    commit();
    expect_no(A, P2P_DET_PARTIAL, firewall);
    drop(firewall);
    commit();
    expect_link(A, B);
}

static void rules_of_one_priority_that_overlap_decide_nothing(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(output(rule(0, 100, A), B));
    commit();
    expect_link(A, B);

    /* Partly, or in another bucket, or both: which of the two applies is not defined.  The one that matches all is
     * shown, since it is what makes the overlap certain. */
    struct p2p_det_rule *twin = add(partial(rule(0, 100, A)));
    commit();
    expect_no(A, P2P_DET_OVERLAP, r);
    drop(twin);
    commit();
    expect_link(A, B);
    twin = add(partial(rule(0, 100, ANY)));
    commit();
    expect_no(A, P2P_DET_OVERLAP, r);
    drop(twin);
    commit();
    expect_link(A, B);
    twin = add(output(rule(0, 100, ANY), B));
    commit();
    expect_no(A, P2P_DET_OVERLAP, r);

    /* With a third one above, they do not matter. */
    struct p2p_det_rule *above = add(output(rule(0, 101, A), C));
    commit();
    expect_link(A, C);
    drop(above);
    commit();
    assert_int_equal(answer(A).reason, P2P_DET_OVERLAP);

    drop(r);
    commit();
    expect_link(A, B);
}

static void partial_rules_of_one_priority_need_not_overlap(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r1 = add(partial(rule(0, 100, A)));
    struct p2p_det_rule *r2 = add(partial(rule(0, 100, A)));
    commit();
    struct p2p_det_answer a = answer(A);
    assert_int_equal(a.reason, P2P_DET_PARTIAL);
    assert_true(a.rule == r1 || a.rule == r2);
    struct p2p_det_rule *own = add(output(rule(0, 100, A), B));
    commit();
    expect_no(A, P2P_DET_OVERLAP, own);
    drop(own);

    struct p2p_det_rule *all = add(output(rule(0, 100, ANY), B));
    commit();
    expect_no(A, P2P_DET_OVERLAP, all);
}

/* What a rule does. */

static void a_rule_that_does_something_else_is_no_link(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(opaque(output(rule(0, 100, A), B)));
    commit();
    expect_no(A, P2P_DET_OPAQUE, r);
}

static void what_makes_no_sense_is_taken_for_something_else(void **state)
{
    (void)state;
    watch(A);
    for (int i = 0; i < 5; i++) {
        struct p2p_det_rule *r = output(rule(0, 100, A), B);
        switch (i) {
        case 0: r->effect.apply = 3; break;
        case 1: r->effect.apply_id = ANY; break;
        case 2: r->effect.write = 77; break;
        case 3: write_output(r, ANY)->effect.apply = P2P_DET_OUT_NONE; break;
        case 4: go(r, P2P_DET_N_TABLES); break;
        }
        add(r);
        commit();
        expect_no(A, P2P_DET_OPAQUE, r);
        drop(r);
    }
}

static void a_rule_without_output_drops(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(rule(0, 100, A));
    commit();
    expect_no(A, P2P_DET_NO_OUTPUT, r);
}

static void output_to_where_it_came_from_is_no_link(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(output(rule(0, 100, A), A));
    commit();
    expect_no(A, P2P_DET_SELF, r);
    drop(r);

    /* A switch would drop the first and do the second.  We do not guess. */
    r = add(write_output(output(rule(0, 100, A), A), B));
    commit();
    expect_no(A, P2P_DET_SELF, r);
    drop(r);
    r = add(write_output(output(rule(0, 100, A), B), A));
    commit();
    expect_no(A, P2P_DET_SELF, r);
    drop(r);

    assert_int_equal(p2p_detector_group_set(det, 7, A), 0);
    r = add(write_group(rule(0, 100, A), 7));
    commit();
    expect_no(A, P2P_DET_SELF, r);
}

static void two_outputs_are_no_link(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *first = add(go(output(rule(0, 100, A), B), 1));
    struct p2p_det_rule *second = add(output(rule(1, 100, A), C));
    commit();
    expect_no(A, P2P_DET_MANY_OUTPUTS, second);
    drop(second);

    /* Twice to one port is twice, too. */
    second = add(output(rule(1, 100, ANY), B));
    commit();
    expect_no(A, P2P_DET_MANY_OUTPUTS, second);
    drop(second);
    second = add(write_output(rule(1, 100, A), B));
    commit();
    expect_no(A, P2P_DET_MANY_OUTPUTS, second);
    drop(second);

    drop(first);
    first = add(write_output(output(rule(0, 100, A), B), C));
    commit();
    expect_no(A, P2P_DET_MANY_OUTPUTS, first);
}

/* Several tables. */

static void gotos_are_followed(void **state)
{
    (void)state;
    watch(A);
    add(go(rule(0, 1, ANY), 3));
    add(go(rule(3, 1, A), 200));
    struct p2p_det_rule *last = add(output(rule(200, 1, ANY), B));
    commit();
    expect_link(A, B);
    assert_int_equal(answer(A).table, 200);
    assert_ptr_equal(answer(A).rule, last);

    struct p2p_det_rule *stop = add(partial(rule(3, 2, ANY)));
    commit();
    expect_no(A, P2P_DET_PARTIAL, stop);
    drop(stop);
    drop(last);
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
    assert_int_equal(answer(A).table, 200);
}

static void output_may_come_before_a_goto(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *out = add(go(output(rule(0, 1, A), B), 1));
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL); /* Nothing in table 1: the controller may get a copy. */
    add(rule(1, 1, ANY));
    commit();
    expect_link(A, B);
    assert_ptr_equal(answer(A).rule, out);
    assert_int_equal(answer(A).table, 0);
    struct p2p_det_rule *r = add(partial(rule(1, 2, ANY)));
    commit();
    expect_no(A, P2P_DET_PARTIAL, r);
}

static void only_tables_on_the_way_matter(void **state)
{
    (void)state;
    watch(A);
    add(go(rule(0, 1, A), 2));
    add(output(rule(2, 1, A), B));
    add(partial(opaque(rule(1, 9, A))));
    add(partial(opaque(rule(3, 9, ANY))));
    commit();
    expect_link(A, B);
}

static void loops_end(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *self = add(go(rule(0, 1, A), 0));
    commit();
    expect_no(A, P2P_DET_LOOP, self);
    drop(self);

    add(go(rule(0, 1, A), 5));
    add(go(rule(5, 1, A), 4));
    struct p2p_det_rule *back = add(go(output(rule(4, 1, A), B), 5));
    commit();
    expect_no(A, P2P_DET_LOOP, back);
    drop(back);

    add(output(rule(4, 1, A), B));
    commit();
    expect_link(A, B); /* Backwards once is no loop. */
}

static void all_tables_in_a_row_are_a_way(void **state)
{
    (void)state;
    watch(A);
    for (unsigned t = 0; t < 255; t++) {
        add(go(rule((uint8_t)t, 1, t % 2 ? A : ANY), (uint16_t)(t + 1)));
    }
    struct p2p_det_rule *last = add(output(rule(255, 1, A), B));
    commit();
    expect_link(A, B);

    struct p2p_det_rule *stop = add(opaque(rule(128, 2, A)));
    commit();
    expect_no(A, P2P_DET_OPAQUE, stop);
    drop(stop);
    commit();
    expect_link(A, B);
    drop(last);
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
}

/* OVS gives up a packet after 64 resubmits that do not go forward. */
static void too_many_steps_backwards_are_no_link(void **state)
{
    (void)state;
    watch(A);
    add(go(rule(0, 1, A), 200));
    for (unsigned t = 200; t > 168; t--) {
        add(go(rule((uint8_t)t, 1, A), (uint16_t)(t - 1)));
    }
    struct p2p_det_rule *last = add(output(rule(168, 1, A), B));
    commit();
    expect_link(A, B);

    drop(last);
    struct p2p_det_rule *r = add(go(rule(168, 1, A), 167));
    add(output(rule(167, 1, A), B));
    commit();
    expect_no(A, P2P_DET_LOOP, r);
}

/* The action set. */

static void a_written_output_comes_at_the_end(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *w = add(write_output(rule(0, 1, A), B));
    commit();
    expect_link(A, B);
    drop(w);

    w = add(go(write_output(rule(0, 1, A), B), 1));
    struct p2p_det_rule *end = add(rule(1, 1, A));
    commit();
    expect_link(A, B);
    assert_ptr_equal(answer(A).rule, w);
    drop(end);

    end = add(write_output(rule(1, 1, A), C)); /* Replaces it. */
    commit();
    expect_link(A, C);
    assert_ptr_equal(answer(A).rule, end);
    drop(end);

    end = add(clear(rule(1, 1, A)));
    commit();
    expect_no(A, P2P_DET_NO_OUTPUT, end);
    drop(end);

    end = add(clear(write_output(rule(1, 1, A), C))); /* Clears first, then writes. */
    commit();
    expect_link(A, C);
    drop(end);

    end = add(clear(output(rule(1, 1, A), C))); /* What is applied is not in the set. */
    commit();
    expect_link(A, C);
}

static void a_group_in_the_set_goes_before_an_output(void **state)
{
    (void)state;
    watch(A);
    assert_int_equal(p2p_detector_group_set(det, 7, C), 0);
    struct p2p_det_rule *w = add(go(write_output(rule(0, 1, A), B), 1));
    struct p2p_det_rule *end = add(write_group(rule(1, 1, A), 7));
    commit();
    expect_link(A, C);
    assert_ptr_equal(answer(A).rule, end);

    drop(w);
    drop(end);
    add(go(write_group(rule(0, 1, A), 7), 1)); /* Written first or last. */
    end = add(write_output(rule(1, 1, A), B));
    commit();
    expect_link(A, C);

    drop(end);
    end = add(clear(write_output(rule(1, 1, A), B)));
    commit();
    expect_link(A, B);

    drop(end);
    add(write_group(rule(1, 1, A), 8)); /* A later group replaces an earlier one, even if it is not there. */
    commit();
    assert_int_equal(answer(A).reason, P2P_DET_GROUP);
}

/* Groups. */

static void a_group_is_its_one_port(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(group(rule(0, 1, A), 7));
    commit();
    expect_no(A, P2P_DET_GROUP, r);

    assert_int_equal(p2p_detector_group_set(det, 7, B), 0);
    expect_no(A, P2P_DET_GROUP, NULL); /* Not before the commit, and it might not be that rule any more. */
    commit();
    expect_link(A, B);
    assert_int_equal(p2p_detector_group_set(det, 7, C), 0);
    commit();
    expect_link(A, C);
    assert_int_equal(calls.n, 1);
    assert_int_equal(p2p_detector_group_set(det, 7, ANY), 0); /* Two buckets, say. */
    commit();
    expect_no(A, P2P_DET_GROUP, r);
    assert_int_equal(p2p_detector_group_set(det, 7, B), 0);
    commit();
    expect_link(A, B);
    p2p_detector_group_remove(det, 7);
    p2p_detector_group_remove(det, 7);
    commit();
    expect_no(A, P2P_DET_GROUP, r);
}

static void only_groups_on_the_way_matter(void **state)
{
    (void)state;
    watch(A);
    add(go(write_group(rule(0, 1, A), 1), 1));
    add(clear(output(rule(1, 1, A), B)));
    commit();
    expect_link(A, B); /* Group 1 is not there, but was cleared away before anybody asked. */

    uint64_t n = p2p_detector_n_evaluations(det);
    assert_int_equal(p2p_detector_group_set(det, 1, C), 0);
    assert_int_equal(p2p_detector_group_set(det, 2, C), 0);
    commit();
    assert_int_equal(p2p_detector_n_evaluations(det), n);
}

static void two_groups_on_one_way_are_both_heard_of(void **state)
{
    (void)state;
    watch(A);
    assert_int_equal(p2p_detector_group_set(det, 1, B), 0);
    assert_int_equal(p2p_detector_group_set(det, 2, B), 0);
    add(go(group(rule(0, 1, A), 1), 1));
    struct p2p_det_rule *second = add(group(rule(1, 1, A), 2));
    commit();
    expect_no(A, P2P_DET_MANY_OUTPUTS, second);
    p2p_detector_group_remove(det, 2);
    commit();
    expect_no(A, P2P_DET_GROUP, second);
    p2p_detector_group_remove(det, 1);
    commit();
    assert_int_equal(answer(A).table, 0);
    assert_int_equal(p2p_detector_group_set(det, 1, B), 0);
    drop(second);
    second = add(write_group(rule(1, 1, A), 1)); /* The same one twice. */
    commit();
    expect_no(A, P2P_DET_MANY_OUTPUTS, second);
    drop(second);
    add(rule(1, 1, A));
    commit();
    expect_link(A, B);
}

/* Watching, and being called. */

static void ports_are_watched_or_not(void **state)
{
    (void)state;
    add(output(rule(0, 1, ANY), B));
    commit();
    expect_no(A, P2P_DET_NOT_WATCHED, NULL);

    watch(A);
    assert_int_equal(p2p_detector_watch(det, A), -EEXIST);
    assert_int_equal(p2p_detector_watch(det, ANY), -EINVAL);
    expect_no(A, P2P_DET_NOT_WATCHED, NULL); /* Until the next commit. */
    commit();
    expect_link(A, B);
    assert_int_equal(calls.n, 1);

    p2p_detector_unwatch(det, A);
    p2p_detector_unwatch(det, A);
    expect_no(A, P2P_DET_NOT_WATCHED, NULL);
    commit();
    assert_int_equal(calls.n, 0);

    watch(A); /* It begins anew, as not linked. */
    commit();
    assert_int_equal(calls.n, 1);
    expect_link(A, B);

    /* A port may go while it has something to be told, and while others have. */
    watch(B);
    watch(C);
    p2p_detector_unwatch(det, B);
    add(output(rule(0, 2, ANY), C));
    p2p_detector_unwatch(det, A);
    commit();
    assert_int_equal(calls.n, 0);
    assert_int_equal(answer(C).reason, P2P_DET_SELF);
}

static void the_caller_is_told_what_has_changed_and_nothing_else(void **state)
{
    (void)state;
    watch(A);
    watch(B);
    watch(C);
    struct p2p_det_rule *ab = add(output(rule(0, 1, A), B));
    struct p2p_det_rule *bc = add(output(rule(0, 1, B), C));
    commit();
    assert_int_equal(calls.n, 2);

    /* Another rule to the same end. */
    drop(ab);
    ab = add(output(rule(0, 5, A), B));
    commit();
    assert_int_equal(calls.n, 0);
    expect_link(A, B);

    /* Done and undone between two commits; and one reason for another. */
    drop(bc);
    bc = add(output(rule(0, 1, B), C));
    add(opaque(rule(0, 1, C)));
    commit();
    assert_int_equal(calls.n, 0);

    /* Linked elsewhere. */
    drop(bc);
    add(output(rule(0, 1, B), A));
    commit();
    assert_int_equal(calls.n, 1);
    assert_int_equal(calls.port[0], B);
    assert_int_equal(calls.out_port[0], A);

    /* Nobody need listen. */
    drop(ab);
    p2p_detector_commit(det, NULL, NULL);
    expect_no(A, P2P_DET_NO_RULE, NULL);
}

static void an_answer_outlives_its_rule(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = add(output(rule(0, 1, A), B));
    commit();
    drop(r);
    struct p2p_det_answer a = answer(A);
    assert_int_equal(a.reason, P2P_DET_LINKED); /* As of the last commit... */
    assert_int_equal(a.out_port, B);
    assert_null(a.rule); /* ...but nothing points to what is gone. */
}

static void a_rule_that_is_not_there_can_be_removed(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *r = output(rule(0, 1, A), B);
    p2p_detector_remove(det, r);
    add(r);
    p2p_detector_remove(det, r);
    p2p_detector_remove(det, r);
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
    add(r);
    commit();
    expect_link(A, B);
}

static void rules_survive_the_detector(void **state)
{
    (void)state;
    struct p2p_det_rule *r = add(output(rule(0, 1, A), B));
    add(output(rule(0, 2, A), B));
    watch(A);
    assert_int_equal(p2p_detector_group_set(det, 7, B), 0);
    struct p2p_det_rule copy = *r;
    p2p_detector_destroy(det);
    assert_memory_equal(r, &copy, sizeof copy);

    det = p2p_detector_create();
    assert_non_null(det);
    add(r); /* And can be given to another one. */
    watch(A);
    commit();
    expect_link(A, B);
    p2p_detector_destroy(NULL);
}

static void every_reason_has_a_name(void **state)
{
    (void)state;
    for (int i = P2P_DET_LINKED; i <= P2P_DET_NOT_WATCHED; i++) {
        assert_string_not_equal(p2p_det_reason_name(i), "unknown");
    }
    assert_string_equal(p2p_det_reason_name(P2P_DET_NOT_WATCHED + 1), "unknown");
}

/* What it costs. */

static uint64_t cost_of_commit(void)
{
    uint64_t n = p2p_detector_n_evaluations(det);
    commit();
    return p2p_detector_n_evaluations(det) - n;
}

static void changes_below_the_deciding_rule_cost_nothing(void **state)
{
    (void)state;
    for (uint32_t port = 1; port <= 100; port++) {
        watch(port);
        add(output(rule(0, 100, port), port + 1));
    }
    assert_int_equal(cost_of_commit(), 100);

    /* In the port's own bucket, and in everybody's: also when it is the first one there. */
    struct p2p_det_rule *own = add(partial(rule(0, 99, 7)));
    struct p2p_det_rule *any = add(partial(rule(0, 99, ANY)));
    struct p2p_det_rule *twin = add(rule(0, 99, ANY));
    assert_int_equal(cost_of_commit(), 0);
    drop(own);
    drop(any);
    drop(twin);
    assert_int_equal(cost_of_commit(), 0);

    /* In tables where nobody comes. */
    add(output(rule(1, 100, ANY), 1));
    add(output(rule(1, 100, 7), 1));
    assert_int_equal(cost_of_commit(), 0);

    /* Above one port's deciding rule, but below the others'. */
    drop(&pool[6]);
    pool[6] = *output(rule(0, 50, 7), 8);
    add(&pool[6]);
    assert_int_equal(cost_of_commit(), 1);
    any = add(partial(rule(0, 60, ANY)));
    assert_int_equal(cost_of_commit(), 1);
    expect_no(7, P2P_DET_PARTIAL, any);
    expect_link(8, 9);

    /* The port's own bucket, while something above it decides. */
    own = add(output(rule(0, 59, 7), 9));
    assert_int_equal(cost_of_commit(), 0);
    drop(own);
    assert_int_equal(cost_of_commit(), 0);
    add(output(rule(0, 40, ANY), 9));
    drop(any);
    assert_int_equal(cost_of_commit(), 1);
    expect_link(7, 8);
}

static void a_priority_learned_behind_the_detectors_back_is_not_forgotten(void **state)
{
    (void)state;
    watch(A);
    struct p2p_det_rule *own = add(output(rule(0, 20, A), B));
    struct p2p_det_rule *top = add(partial(rule(0, 100, ANY)));
    commit();
    drop(own); /* Below what decides: nobody looks. */
    own = add(output(rule(0, 10, A), C));
    assert_int_equal(cost_of_commit(), 0);
    struct p2p_det_rule *mid = add(output(rule(0, 15, ANY), B));
    assert_int_equal(cost_of_commit(), 0);
    drop(top);
    commit();
    expect_link(A, B); /* By the rule of priority 15, which a port that still believed in 20 would have missed. */
    assert_ptr_equal(answer(A).rule, mid);
}

static void many_changes_between_two_commits_are_looked_at_once(void **state)
{
    (void)state;
    for (uint32_t port = 1; port <= 50; port++) {
        watch(port);
    }
    commit();
    for (int i = 0; i < 1000; i++) {
        add(output(rule(0, i, ANY), 1000 + (uint32_t)i));
    }
    assert_int_equal(cost_of_commit(), 50);
    assert_int_equal(calls.n, 50);
    expect_link(50, 1999);
}

static uint64_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((random_state >> 33) % n);
}

static void shuffle(uint32_t *order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = random_below(i);
        uint32_t x = order[i - 1];
        order[i - 1] = order[j];
        order[j] = x;
    }
}

static void a_million_rules_of_one_priority_are_no_burden(void **state)
{
    enum { N = 1000000 };
    struct p2p_det_rule *rules = calloc(N, sizeof *rules);
    uint32_t *order = calloc(N, sizeof *order);

    (void)state;
    assert_non_null(rules);
    assert_non_null(order);
    watch(A);
    for (uint32_t i = 0; i < N; i++) {
        rules[i] = *output(rule(0, 100, ANY), B);
        n_pool--;
        rules[i].partial = i % 2;
        add(&rules[i]);
    }
    commit();
    assert_int_equal(answer(A).reason, P2P_DET_OVERLAP);
    uint64_t n = p2p_detector_n_evaluations(det);

    shuffle(order, N);
    for (uint32_t i = 0; i < N - 1; i++) {
        p2p_detector_remove(det, &rules[order[i]]);
        commit();
    }
    assert_int_equal(answer(A).reason, order[N - 1] % 2 ? P2P_DET_PARTIAL : P2P_DET_LINKED);
    assert_ptr_equal(answer(A).rule, &rules[order[N - 1]]);
    /* It is enough to look again when the one that was shown goes.  In random order, that is rare. */
    assert_true(p2p_detector_n_evaluations(det) - n < 1000);
    p2p_detector_remove(det, &rules[order[N - 1]]);
    commit();
    expect_no(A, P2P_DET_NO_RULE, NULL);
    free(order);
    free(rules);
}

/* Each rule's heap position is visible only through which one decides: take away what decides, and the next must. */
static void rules_come_up_in_order_of_priority(void **state)
{
    enum { N = 50000 };
    struct p2p_det_rule *rules = calloc(N, sizeof *rules);
    uint32_t *order = calloc(N, sizeof *order);

    (void)state;
    assert_non_null(rules);
    assert_non_null(order);
    watch(A);
    for (int pattern = 0; pattern < 3; pattern++) {
        shuffle(order, N);
        for (uint32_t i = 0; i < N; i++) {
            uint32_t priority = pattern == 0 ? i : pattern == 1 ? N - 1 - i : order[i];
            rules[priority] = *output(rule(0, (int32_t)priority, priority % 3 ? A : ANY), 10 + priority);
            n_pool--;
            add(&rules[priority]);
        }
        /* From the middle, at random; then from the top. */
        shuffle(order, N);
        for (uint32_t i = 0; i < N / 2; i++) {
            p2p_detector_remove(det, &rules[order[i]]);
        }
        for (uint32_t i = N; i > 0; i--) {
            if (rules[i - 1].node.present) {
                commit();
                expect_link(A, 10 + i - 1);
                p2p_detector_remove(det, &rules[i - 1]);
            }
        }
        commit();
        expect_no(A, P2P_DET_NO_RULE, NULL);
    }
    free(order);
    free(rules);
}

/* Checks the subtree of 'n', and returns its size. */
static unsigned check_heap(const struct p2p_det_node *n, const struct p2p_det_node *up)
{
    if (!n) {
        return 0;
    }
    unsigned left_rank = n->left ? n->left->rank : 0;
    unsigned right_rank = n->right ? n->right->rank : 0;
    assert_true(n->present);
    assert_true(left_rank >= right_rank);
    assert_int_equal(n->rank, right_rank + 1);
    if (up) {
        assert_ptr_equal(n->up, up);
        assert_true(n->key < up->key || (n->key == up->key && n->minor <= up->minor));
    }
    return 1 + check_heap(n->left, n) + check_heap(n->right, n);
}

static void a_heap_stays_a_leftist_heap(void **state)
{
    enum { N = 400 };
    static struct p2p_det_node nodes[N];
    struct p2p_det_node *root = NULL;
    unsigned n = 0;

    (void)state;
    memset(nodes, 0, sizeof nodes);
    for (unsigned i = 0; i < 20000; i++) {
        struct p2p_det_node *node = &nodes[random_below(i / 2000 % 2 ? N : N / 20)];
        if (node->present) {
            root = p2p_det_heap_remove(root, node);
            n--;
        } else {
            node->key = (int32_t)random_below(20);
            node->minor = (uint8_t)random_below(2);
            root = p2p_det_heap_insert(root, node);
            n++;
        }
        assert_int_equal(check_heap(root, NULL), n);
        unsigned n_top = 0;
        for (unsigned j = 0; j < N; j++) {
            n_top += nodes[j].present && nodes[j].key == root->key;
        }
        assert_true(!root || p2p_det_heap_is_tied(root) == (n_top > 1));
    }
}

/* Rules that come in ascending order make a heap as deep as it is large.  To take away the deepest one is no more work
 * for that; if it were, this would take minutes. */
static void a_deep_heap_is_no_burden(void **state)
{
    enum { N = 400000 };
    struct p2p_det_node *nodes = calloc(N, sizeof *nodes);
    struct p2p_det_node *root = NULL;

    (void)state;
    assert_non_null(nodes);
    for (int i = 0; i < N; i++) {
        nodes[i].key = i;
        root = p2p_det_heap_insert(root, &nodes[i]);
    }
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(root, &nodes[N - 1]);
        root = p2p_det_heap_remove(root, &nodes[i]);
    }
    assert_null(root);
    free(nodes);
}

static void tables_of_buckets_and_ports_grow_and_shrink(void **state)
{
    enum { N = 60000 };
    struct p2p_det_rule *rules = calloc(N, sizeof *rules);

    (void)state;
    assert_non_null(rules);
    for (uint32_t i = 0; i < N; i++) {
        watch(i + 1);
        rules[i] = *output(rule(0, 1, i + 1), i + 2);
        n_pool--;
        add(&rules[i]);
        assert_int_equal(p2p_detector_group_set(det, i, i), 0);
    }
    commit();
    assert_int_equal(calls.n, N);
    for (uint32_t i = 0; i < N; i++) {
        expect_link(i + 1, i + 2);
    }
    for (uint32_t i = 0; i < N; i += 2) {
        p2p_detector_remove(det, &rules[i]);
        p2p_detector_unwatch(det, i + 2);
        p2p_detector_group_remove(det, i + 1);
    }
    commit();
    assert_int_equal(calls.n, N / 2);
    for (uint32_t i = 0; i < N; i += 2) {
        expect_no(i + 1, P2P_DET_NO_RULE, NULL);
        expect_no(i + 2, P2P_DET_NOT_WATCHED, NULL);
        p2p_detector_remove(det, &rules[i + 1]);
        p2p_detector_unwatch(det, i + 1);
        p2p_detector_group_remove(det, i);
    }
    watch(1);
    commit();
    expect_no(1, P2P_DET_NO_RULE, NULL);
    free(rules);
}

/* Out of memory. */

static unsigned n_allocs_left;

static void *scarce_alloc(size_t size)
{
    if (!n_allocs_left) {
        return NULL;
    }
    n_allocs_left--;
    return malloc(size);
}

static void out_of_memory_at_the_start(void **state)
{
    (void)state;
    p2p_det_alloc = scarce_alloc;
    for (unsigned n = 0;; n++) {
        n_allocs_left = n;
        struct p2p_detector *d = p2p_detector_create();
        if (d) {
            p2p_detector_destroy(d);
            assert_true(n > 1);
            break;
        }
    }
}

static void out_of_memory_later_costs_time_but_no_answer(void **state)
{
    (void)state;
    watch(A);
    watch(B);
    commit();
    p2p_det_alloc = scarce_alloc;
    n_allocs_left = 0;

    assert_int_equal(p2p_detector_watch(det, C), -ENOMEM);
    expect_no(C, P2P_DET_NOT_WATCHED, NULL);
    assert_int_equal(p2p_detector_group_set(det, 7, C), -ENOMEM);

    /* Many buckets, and a way longer than there is room to remember. */
    for (uint32_t port = 1; port <= 500; port++) {
        add(output(rule(9, 1, port), port == A ? B : port == B ? A : C));
    }
    for (uint8_t t = 0; t < 9; t++) {
        add(go(rule(t, 1, ANY), t + 1));
    }
    commit();
    expect_link(A, B);
    expect_link(B, A);

    struct p2p_det_rule *stop = add(partial(rule(4, 2, A)));
    assert_int_equal(cost_of_commit(), 2); /* Both are followed again, though only one needs to be. */
    assert_int_equal(answer(A).reason, P2P_DET_PARTIAL);
    expect_link(B, A);
    drop(stop);
    commit();
    expect_link(A, B);

    /* A group that is not known is one that is not there. */
    add(group(rule(0, 9, A), 7));
    commit();
    assert_int_equal(answer(A).reason, P2P_DET_GROUP);

    /* Memory is back, and so is the cost. */
    n_allocs_left = UINT32_MAX;
    assert_int_equal(p2p_detector_group_set(det, 7, C), 0);
    commit();
    expect_link(A, C);
    assert_int_equal(cost_of_commit(), 0);
    assert_int_equal(p2p_detector_group_set(det, 7, B), 0);
    assert_int_equal(cost_of_commit(), 1);
}

int main(void)
{
#define STORY(NAME) cmocka_unit_test_setup_teardown(NAME, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        STORY(one_rule_makes_a_link),
        STORY(another_ports_rule_does_not_matter),
        STORY(a_rule_without_in_port_is_for_all),
        STORY(the_highest_priority_decides),
        STORY(priorities_are_signed_and_may_exceed_16_bits),
        STORY(a_partial_rule_above_ends_the_link_and_one_below_does_not),
        STORY(rules_of_one_priority_that_overlap_decide_nothing),
        STORY(partial_rules_of_one_priority_need_not_overlap),
        STORY(a_rule_that_does_something_else_is_no_link),
        STORY(what_makes_no_sense_is_taken_for_something_else),
        STORY(a_rule_without_output_drops),
        STORY(output_to_where_it_came_from_is_no_link),
        STORY(two_outputs_are_no_link),
        STORY(gotos_are_followed),
        STORY(output_may_come_before_a_goto),
        STORY(only_tables_on_the_way_matter),
        STORY(loops_end),
        STORY(all_tables_in_a_row_are_a_way),
        STORY(too_many_steps_backwards_are_no_link),
        STORY(a_written_output_comes_at_the_end),
        STORY(a_group_in_the_set_goes_before_an_output),
        STORY(a_group_is_its_one_port),
        STORY(only_groups_on_the_way_matter),
        STORY(two_groups_on_one_way_are_both_heard_of),
        STORY(ports_are_watched_or_not),
        STORY(the_caller_is_told_what_has_changed_and_nothing_else),
        STORY(an_answer_outlives_its_rule),
        STORY(a_rule_that_is_not_there_can_be_removed),
        STORY(rules_survive_the_detector),
        STORY(every_reason_has_a_name),
        STORY(changes_below_the_deciding_rule_cost_nothing),
        STORY(a_priority_learned_behind_the_detectors_back_is_not_forgotten),
        STORY(many_changes_between_two_commits_are_looked_at_once),
        STORY(a_million_rules_of_one_priority_are_no_burden),
        STORY(rules_come_up_in_order_of_priority),
        STORY(a_heap_stays_a_leftist_heap),
        STORY(a_deep_heap_is_no_burden),
        STORY(tables_of_buckets_and_ports_grow_and_shrink),
        STORY(out_of_memory_at_the_start),
        STORY(out_of_memory_later_costs_time_but_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
