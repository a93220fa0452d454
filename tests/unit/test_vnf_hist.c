/* SPDX-License-Identifier: Apache-2.0 */
/* The latency histogram and its relative mode: guest/vnf/hist.c, latency.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vnf/hist.h"
#include "vnf/latency.h"

static struct hist h;

/* 'got' is 'want', but for the width of a bucket. */
static void assert_near(uint64_t got, uint64_t want)
{
    uint64_t slack = want / 32 + 1;

    if (got + slack < want || got > want + slack) {
        fail_msg("%llu is not near %llu", (unsigned long long)got, (unsigned long long)want);
    }
}

static void test_buckets_tile_all_values(void **state)
{
    (void)state;
    assert_true(hist_low(0) == 0);
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        uint64_t low = hist_low(i), high = hist_high(i);

        assert_true(low <= high);
        assert_int_equal(hist_index(low), i);
        assert_int_equal(hist_index(high), i);
        assert_true(high - low <= low >> HIST_SUB_BITS);
        if (i + 1 < HIST_BUCKETS) {
            assert_true(hist_low(i + 1) == high + 1);
        }
    }
    assert_true(hist_high(HIST_BUCKETS - 1) == UINT64_MAX);
}

static void test_empty(void **state)
{
    (void)state;
    hist_clear(&h);
    assert_int_equal(hist_percentile(&h, 50), 0);
    assert_true(hist_mean(&h) == 0);
}

static void test_one_value(void **state)
{
    (void)state;
    hist_clear(&h);
    hist_add(&h, 123456789);
    assert_int_equal(hist_percentile(&h, 0), 123456789);
    assert_int_equal(hist_percentile(&h, 50), 123456789);
    assert_int_equal(hist_percentile(&h, 100), 123456789);
    assert_int_equal(h.min, 123456789);
    assert_int_equal(h.max, 123456789);
}

static void test_percentiles(void **state)
{
    (void)state;
    hist_clear(&h);
    for (uint64_t v = 1; v <= 100000; v++) {
        hist_add(&h, v);
    }
    assert_near(hist_percentile(&h, 50), 50000);
    assert_near(hist_percentile(&h, 90), 90000);
    assert_near(hist_percentile(&h, 99), 99000);
    assert_near(hist_percentile(&h, 99.9), 99900);
    assert_int_equal(hist_percentile(&h, 100), 100000);
    assert_true(hist_mean(&h) == 50000.5);
}

/* A percentile is never below the true one: nobody shall be told better than it was. */
static void test_small_values_are_exact(void **state)
{
    (void)state;
    hist_clear(&h);
    for (uint64_t v = 0; v < 100; v++) {
        hist_add(&h, v);
    }
    for (unsigned p = 1; p <= 100; p++) {
        assert_int_equal(hist_percentile(&h, p), p - 1);
    }
}

static void test_merge_and_shift(void **state)
{
    static struct hist other;

    (void)state;
    hist_clear(&h);
    hist_clear(&other);
    hist_add(&h, 10);
    hist_add(&other, 20);
    hist_add(&other, 30);
    hist_merge(&h, &other, 0);
    assert_int_equal(h.count, 3);
    assert_int_equal(hist_percentile(&h, 50), 20);
    hist_merge(&h, &other, 1000000);
    assert_int_equal(h.count, 5);
    assert_int_equal(h.max, 1000030);
    assert_int_equal(h.min, 10);
    hist_shift(&h, 5);
    assert_int_equal(h.min, 15);
    assert_int_equal(h.max, 1000035);
    assert_int_equal(hist_percentile(&h, 40), 25);
    assert_true(hist_mean(&h) == (10 + 20 + 30 + 1000020 + 1000030) / 5.0 + 5);
}

static void test_absolute(void **state)
{
    struct latency *l = calloc(1, sizeof *l);

    (void)state;
    latency_add(l, 1, 1000);
    latency_add(l, 1, -5);
    hist_clear(&h);
    assert_int_equal(latency_merge(&l, 1, -1, &h), 1);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.min, 0);
    assert_int_equal(h.max, 1000);
    latency_destroy(l);
    free(l);
}

/* The clocks are an hour apart, and the shortest one does not come first. */
static void test_relative(void **state)
{
    const int64_t hour = INT64_C(3600) * 1000000000;
    struct latency *l[2] = {calloc(1, sizeof **l), calloc(1, sizeof **l)};

    (void)state;
    for (int i = 0; i < 2; i++) {
        l[i]->relative = true;
    }
    latency_add(l[0], 1, -hour + 5000);
    latency_add(l[0], 1, -hour + 1000);
    latency_add(l[0], 1, -hour + 9000);
    latency_add(l[1], 1, -hour + 400); /* Another thread has seen a shorter one. */
    latency_add(l[1], 2, hour + 77);   /* Another source, another clock. */
    latency_add(l[1], 2, hour + 177);

    hist_clear(&h);
    latency_merge(l, 2, 1, &h);
    assert_int_equal(h.count, 4);
    assert_int_equal(h.min, 0);
    assert_int_equal(h.max, 8600);
    assert_near(hist_percentile(&h, 50), 600);
    assert_near(hist_percentile(&h, 75), 4600);

    hist_clear(&h);
    latency_merge(l, 2, 2, &h);
    assert_int_equal(h.count, 2);
    assert_int_equal(h.max, 100);

    hist_clear(&h);
    latency_merge(l, 2, -1, &h);
    assert_int_equal(h.count, 6);
    for (int i = 0; i < 2; i++) {
        latency_destroy(l[i]);
        free(l[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_tile_all_values),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_one_value),
        cmocka_unit_test(test_percentiles),
        cmocka_unit_test(test_small_values_are_exact),
        cmocka_unit_test(test_merge_and_shift),
        cmocka_unit_test(test_absolute),
        cmocka_unit_test(test_relative),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
