/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sending half of the sample VNFs, guest/vnf/lane.c, against a real port that a real switch empties or does not:
 * the numbers that are accepted have no holes, whatever was refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "testbed.h"
#include "vnf/lane.h"
#include "vnf/track.h"

#define MTU 1500u
#define BURST 32u

static struct testbed tb;
static struct p2p_port *a, *b;
static struct lane lane;
static struct lane_settings settings;
static struct tracker tracker;
static uint64_t n_bad;

static int set_up(void **state)
{
    static const struct pkt_params params = {.source = 1, .mark_port = PKT_PORT_MARKED};

    (void)state;
    testbed_init(&tb);
    testbed_start(&tb);
    testbed_add_port(&tb, "a", 1, MTU);
    testbed_add_port(&tb, "b", 1, MTU);
    testbed_forward(&tb, 0, 1);
    a = testbed_vnf(&tb, "a");
    b = testbed_vnf(&tb, "b");

    memset(&settings, 0, sizeof settings);
    sizes_parse(&settings.sizes, "mixed");
    settings.max_frame = MTU + PKT_ETHERNET;
    settings.mark_percent = 30;
    settings.burst = BURST;
    settings.retry = true;
    if (lane_init(&lane, &settings, &params, 0, 1, 3, 12345)) {
        return -1;
    }
    lane.budget = LANE_UNLIMITED;
    track_init(&tracker, TRACK_WINDOW_DEFAULT, false, false);
    n_bad = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    track_destroy(&tracker);
    lane_destroy(&lane);
    p2p_port_close(a);
    p2p_port_close(b);
    testbed_stop(&tb);
    return 0;
}

/* Takes what has come, and waits for more until nothing has come for a while. */
static void receive_all(void)
{
    for (int idle = 0; idle < 200;) {
        struct p2p_pkt pkts[BURST];
        unsigned n = p2p_rx_burst(b, 0, pkts, BURST);

        for (unsigned i = 0; i < n; i++) {
            struct pkt_id id;
            uint32_t bad;

            if (pkt_parse(pkts[i].data, pkts[i].len, &id, &bad) != PKT_GOOD
                || track_packet(&tracker, &id, pkts[i].len, 0, false)) {
                n_bad++;
            }
        }
        p2p_rx_release(b, 0);
        idle = n ? 0 : idle + 1;
        if (!n) {
            usleep(1000);
        }
    }
}

static struct track_counts totals(void)
{
    struct track_counts sum = {0};

    for (const struct track_stream *s = track_first(&tracker); s; s = s->next_stream) {
        struct track_counts c;

        track_stream_counts(s, &c);
        track_counts_add(&sum, &c);
    }
    return sum;
}

/* Sends until the ring is full and, the switch being paused, stays full. */
static void fill(void)
{
    atomic_store(&tb.pause, true);
    usleep(20000);
    for (int i = 0; i < 100000 && !lane.stats.refused; i++) {
        lane_send(&lane, a, 0);
    }
    assert_true(lane.stats.refused > 0);
}

static void assert_nothing_missing(void)
{
    struct track_counts c = totals();

    assert_int_equal(n_bad, 0);
    assert_true(track_counts_clean(&c));
    assert_true(c.received == lane.stats.accepted);
    assert_true(c.bytes == lane.stats.bytes);
    assert_true(lane.stats.kind[0] + lane.stats.kind[1] == lane.stats.accepted);
}

static void test_refused_packets_keep_their_numbers(void **state)
{
    unsigned pending;

    (void)state;
    fill();
    pending = lane_pending(&lane);
    assert_true(pending > 0);
    assert_int_equal(lane_send(&lane, a, 0), 0); /* Still full. */
    assert_int_equal(lane_pending(&lane), pending);

    atomic_store(&tb.pause, false);
    receive_all();
    for (int i = 0; i < 100 && lane_pending(&lane); i++) {
        lane_send(&lane, a, 0);
    }
    receive_all();
    assert_int_equal(lane_pending(&lane), 0);
    assert_nothing_missing();
}

static void test_without_retry_numbers_are_used_again(void **state)
{
    (void)state;
    settings.retry = false;
    fill();
    assert_int_equal(lane_pending(&lane), 0);
    for (int i = 0; i < 50; i++) {
        lane_send(&lane, a, 0);
    }
    atomic_store(&tb.pause, false);
    receive_all();
    for (int i = 0; i < 10; i++) {
        lane_send(&lane, a, 0);
    }
    receive_all();
    assert_nothing_missing();
}

static void test_budget_is_kept(void **state)
{
    (void)state;
    lane.budget = 101;
    for (int i = 0; i < 1000 && !lane_done(&lane); i++) {
        lane_send(&lane, a, 0);
    }
    assert_true(lane_done(&lane));
    assert_int_equal(lane_send(&lane, a, 0), 0);
    receive_all();
    assert_int_equal(lane.stats.accepted, 101);
    assert_nothing_missing();
}

static void test_budget_without_retry(void **state)
{
    (void)state;
    settings.retry = false;
    lane.budget = 1000000;
    fill();
    assert_true(lane.budget + lane.stats.accepted == 1000000);
}

static void test_rate_is_kept(void **state)
{
    uint64_t begin = clock_ns(), end;
    double expected;

    (void)state;
    lane_pace(&lane, 20000, begin);
    do {
        lane_send(&lane, a, 0);
        end = clock_ns();
    } while (end - begin < 200 * NS_PER_MS);
    expected = 20000 * (double)(end - begin) / NS_PER_S;
    assert_true((double)lane.stats.accepted <= expected + 1);
    assert_true(lane.stats.accepted > 0); /* How close it comes is the machine's business. */
}

/* The port's MTU has become smaller than a packet that was made: it must not stand in the way for ever. */
static void test_too_long_is_unmade(void **state)
{
    (void)state;
    sizes_parse(&settings.sizes, "max");
    settings.max_frame = MTU + PKT_ETHERNET + 100; /* The port refuses that. */
    assert_int_equal(lane_send(&lane, a, 0), 0);
    assert_int_equal(lane_pending(&lane), BURST);
    settings.max_frame = MTU + PKT_ETHERNET;
    assert_int_equal(lane_send(&lane, a, 0), 0);
    assert_int_equal(lane.stats.too_long, 1);
    assert_int_equal(lane_send(&lane, a, 0), BURST);
    receive_all();
    assert_nothing_missing();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refused_packets_keep_their_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_retry_numbers_are_used_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_budget_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_budget_without_retry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rate_is_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_long_is_unmade, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
