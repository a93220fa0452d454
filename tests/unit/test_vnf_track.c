/* SPDX-License-Identifier: Apache-2.0 */
/* The sink's verdicts, guest/vnf/track.c: lost, doubled, reordered and late, each exact, also at the window's edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vnf/clock.h"
#include "vnf/track.h"

#define W 64u

static struct tracker tracker;

static void start(uint32_t window, bool from_first)
{
    track_init(&tracker, window, from_first, false);
}

static void arrive(uint64_t seq)
{
    struct pkt_id id = {.source = 1, .flow = 2, .seq = seq};

    assert_int_equal(track_packet(&tracker, &id, 64, 0, false), 0);
}

static void arrive_range(uint64_t from, uint64_t to) /* Both inclusive. */
{
    for (uint64_t seq = from; seq <= to; seq++) {
        arrive(seq);
    }
}

static struct track_counts counts(void)
{
    struct track_counts c;

    track_stream_counts(track_first(&tracker), &c);
    assert_true(c.received == c.unique + c.doubled + c.late);
    return c;
}

#define ASSERT_COUNTS(UNIQUE, LOST, DOUBLED, REORDERED, LATE)                                                         \
    do {                                                                                                              \
        struct track_counts c_ = counts();                                                                            \
        assert_int_equal(c_.unique, UNIQUE);                                                                          \
        assert_int_equal(c_.lost, LOST);                                                                              \
        assert_int_equal(c_.doubled, DOUBLED);                                                                        \
        assert_int_equal(c_.reordered, REORDERED);                                                                    \
        assert_int_equal(c_.late, LATE);                                                                              \
    } while (0)

static void test_in_order(void **state)
{
    (void)state;
    start(W, false);
    arrive_range(0, 999);
    ASSERT_COUNTS(1000, 0, 0, 0, 0);
    assert_int_equal(counts().bytes, 64000);
    track_destroy(&tracker);
}

static void test_one_lost(void **state)
{
    (void)state;
    start(W, false);
    arrive_range(0, 4);
    arrive_range(6, 10);
    ASSERT_COUNTS(10, 1, 0, 0, 0);
    arrive_range(11, 10 * W); /* Long gone out of the window, and still one. */
    ASSERT_COUNTS(10 * W, 1, 0, 0, 0);
    track_destroy(&tracker);
}

static void test_first_ones_lost(void **state)
{
    (void)state;
    start(W, false);
    arrive(3);
    ASSERT_COUNTS(1, 3, 0, 0, 0);
    arrive_range(0, 2);
    ASSERT_COUNTS(4, 0, 0, 3, 0);
    track_destroy(&tracker);
}

static void test_from_first(void **state)
{
    (void)state;
    start(W, true);
    arrive_range(1000, 1010);
    ASSERT_COUNTS(11, 0, 0, 0, 0);
    arrive(999); /* Was never awaited. */
    ASSERT_COUNTS(11, 0, 0, 0, 1);
    arrive(1005);
    ASSERT_COUNTS(11, 0, 1, 0, 1);
    track_destroy(&tracker);
}

static void test_doubled(void **state)
{
    (void)state;
    start(W, false);
    arrive(0);
    arrive(0);
    ASSERT_COUNTS(1, 0, 1, 0, 0);
    arrive_range(1, 100 * W);
    arrive(5); /* However old: nothing has been given up, so it must have come before. */
    ASSERT_COUNTS(100 * W + 1, 0, 2, 0, 0);
    arrive(100 * W);
    ASSERT_COUNTS(100 * W + 1, 0, 3, 0, 0);
    track_destroy(&tracker);
}

static void test_doubled_behind_a_hole(void **state)
{
    (void)state;
    start(W, false);
    arrive_range(0, 9);
    arrive_range(11, 20);
    arrive(15);
    arrive(20);
    arrive(3);
    ASSERT_COUNTS(20, 1, 3, 0, 0);
    arrive(10);
    arrive(10);
    ASSERT_COUNTS(21, 0, 4, 1, 0);
    track_destroy(&tracker);
}

static void test_reordered(void **state)
{
    (void)state;
    start(W, false);
    arrive(1);
    arrive(0);
    ASSERT_COUNTS(2, 0, 0, 1, 0);
    arrive(4);
    arrive(3);
    arrive(2);
    ASSERT_COUNTS(5, 0, 0, 3, 0);
    arrive_range(5, 9);
    ASSERT_COUNTS(10, 0, 0, 3, 0);
    track_destroy(&tracker);
}

/* The last number that the window holds, and the first that it does not. */
static void test_window_edges(void **state)
{
    (void)state;
    start(W, false);
    arrive_range(1, W - 1); /* 0 is missing; the window is [0, W). */
    arrive(0);
    ASSERT_COUNTS(W, 0, 0, 1, 0);
    track_destroy(&tracker);

    start(W, false);
    arrive_range(1, W); /* One more: 0 is given up. */
    arrive(0);
    ASSERT_COUNTS(W, 1, 0, 0, 1);
    arrive(1); /* Not among what was given up. */
    ASSERT_COUNTS(W, 1, 1, 0, 1);
    track_destroy(&tracker);
}

static void test_jumps(void **state)
{
    (void)state;
    for (uint64_t jump = W - 2; jump <= 3 * W; jump++) {
        start(W, false);
        arrive(0);
        arrive(jump);
        ASSERT_COUNTS(2, jump - 1, 0, 0, 0);
        arrive(jump);
        arrive(0);
        ASSERT_COUNTS(2, jump - 1, 2, 0, 0);
        arrive(jump - 1);
        ASSERT_COUNTS(3, jump - 2, 2, 1, 0);
        arrive(jump + 1);
        ASSERT_COUNTS(4, jump - 2, 2, 1, 0);
        if (jump > W + 1) {
            arrive(1); /* Given up. */
            ASSERT_COUNTS(4, jump - 2, 2, 1, 1);
        }
        track_destroy(&tracker);
    }
}

static void test_max_gap(void **state)
{
    (void)state;
    start(W, false);
    arrive(0);
    arrive(5);
    arrive(7);
    assert_int_equal(counts().max_gap, 4);
    track_destroy(&tracker);
}

/* The bit map is used around and around; stale bits must not show. */
static void test_map_wraps(void **state)
{
    uint64_t seq = 0, lost = 0;

    (void)state;
    start(W, false);
    for (int round = 0; round < 1000; round++) {
        arrive_range(seq, seq + 6);
        seq += 8; /* Loses one in eight, and swaps two. */
        lost++;
        arrive(seq + 1);
        arrive(seq);
        seq += 2;
    }
    ASSERT_COUNTS(9000, lost, 0, 1000, 0);
    track_destroy(&tracker);
}

static void test_largest_numbers(void **state)
{
    (void)state;
    start(W, true);
    arrive(PKT_SEQ_MAX - 2);
    arrive(PKT_SEQ_MAX);
    arrive(PKT_SEQ_MAX - 1);
    ASSERT_COUNTS(3, 0, 0, 1, 0);
    track_destroy(&tracker);
}

static void test_reset(void **state)
{
    (void)state;
    start(W, false);
    arrive_range(0, 4);
    arrive_range(6, 9);
    arrive(9);
    track_reset(&tracker);
    ASSERT_COUNTS(0, 0, 0, 0, 0);
    arrive(10);
    arrive(12);
    ASSERT_COUNTS(2, 1, 0, 0, 0);
    arrive(5); /* Was missing when counting began anew. */
    ASSERT_COUNTS(2, 1, 0, 0, 1);
    arrive(2);
    ASSERT_COUNTS(2, 1, 1, 0, 1);
    track_destroy(&tracker);
}

static void test_streams_are_apart(void **state)
{
    struct pkt_id id = {.source = 1};
    unsigned n = 0;

    (void)state;
    start(W, false);
    for (id.flow = 0; id.flow < 3; id.flow++) {
        for (id.kind = 0; id.kind < PKT_KINDS; id.kind++) {
            for (id.source = 1; id.source <= PKT_SOURCES - 1; id.source += PKT_SOURCES - 2) {
                id.seq = 0;
                assert_int_equal(track_packet(&tracker, &id, 64, 0, false), 0);
                id.seq = 1;
                assert_int_equal(track_packet(&tracker, &id, 64, 0, id.kind == 1), 0);
            }
        }
    }
    for (const struct track_stream *s = track_first(&tracker); s; s = s->next_stream) {
        struct track_counts c;

        track_stream_counts(s, &c);
        assert_int_equal(c.unique, 2);
        assert_int_equal(c.corrupted, s->kind);
        assert_int_equal(track_counts_clean(&c), !s->kind);
        n++;
    }
    assert_int_equal(n, 12);
    track_destroy(&tracker);
}

static void test_queue_changes(void **state)
{
    struct pkt_id id = {.source = 1};

    (void)state;
    start(W, false);
    for (id.seq = 0; id.seq < 10; id.seq++) {
        assert_int_equal(track_packet(&tracker, &id, 64, id.seq < 5 ? 3 : 1, false), 0);
    }
    assert_int_equal(counts().queue_changes, 1);
    track_destroy(&tracker);
}

/* Against the definition: a list of all that has come, and of what the window had to give up. */
#define N_ORACLE 4000u

static void random_run(uint64_t seed)
{
    static bool come[2 * N_ORACLE];
    struct prng r = {.state = seed};
    struct track_counts want = {0};
    uint64_t next = 0, floor = 0, up_low = UINT64_MAX, up_high = 0;

    memset(come, 0, sizeof come);
    start(W, false);
    for (unsigned i = 0; i < N_ORACLE / 4; i++) {
        uint64_t seq;

        switch (prng_below(&r, 8)) {
        case 0: /* Something old, or near. */
            seq = next - (next ? prng_below(&r, next < 2 * W ? (uint32_t)next : 2 * W) : 0);
            break;
        case 1: /* Far ahead, at times beyond the window. */
            seq = next + prng_below(&r, prng_below(&r, 20) ? 5 : 2 * W);
            break;
        default:
            seq = next;
            break;
        }
        if (seq >= sizeof come) {
            break;
        }
        if (seq >= next || (seq >= floor && !come[seq])) {
            want.unique++;
            want.reordered += seq < next;
        } else if (come[seq] && (seq >= floor || seq < up_low || seq > up_high)) {
            want.doubled++;
        } else {
            want.late++;
        }
        if (seq >= next || seq >= floor) {
            come[seq] = true;
        }
        next = seq >= next ? seq + 1 : next;
        while (next - floor > W) {
            if (!come[floor]) {
                up_low = floor < up_low ? floor : up_low;
                up_high = floor;
            }
            floor++;
        }
        while (floor < next && come[floor]) {
            floor++;
        }
        arrive(seq);
        want.lost = next - want.unique;
        struct track_counts got = counts();
        if (got.unique != want.unique || got.lost != want.lost || got.doubled != want.doubled
            || got.reordered != want.reordered || got.late != want.late) {
            fail_msg("seed %llu, step %u, seq %llu", (unsigned long long)seed, i, (unsigned long long)seq);
        }
    }
    track_destroy(&tracker);
}

static void test_random_against_definition(void **state)
{
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : clock_ns();

    (void)state;
    print_message("# SEED=%llu\n", (unsigned long long)seed);
    for (int i = 0; i < 300; i++) {
        random_run(seed + (uint64_t)i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_one_lost),
        cmocka_unit_test(test_first_ones_lost),
        cmocka_unit_test(test_from_first),
        cmocka_unit_test(test_doubled),
        cmocka_unit_test(test_doubled_behind_a_hole),
        cmocka_unit_test(test_reordered),
        cmocka_unit_test(test_window_edges),
        cmocka_unit_test(test_jumps),
        cmocka_unit_test(test_max_gap),
        cmocka_unit_test(test_map_wraps),
        cmocka_unit_test(test_largest_numbers),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_streams_are_apart),
        cmocka_unit_test(test_queue_changes),
        cmocka_unit_test(test_random_against_definition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
