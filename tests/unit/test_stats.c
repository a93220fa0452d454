/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters: what VNFs say is counted once, on both sides, over their restarts; what cannot be true is not believed.
 *
 * time-limit: 300
 */
#include "fixture.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "atomics.h"
#include "rawclient.h"
#include "ring.h"

#define N_DESC 1024u
#define MAX_FRAME (1500u + P2P_FRAME_OVERHEAD)

static struct raw_vnf a; /* The liar. */
static struct p2p_port *b;

static int setup(void **state)
{
    fixture_setup(state);
    a = (struct raw_vnf) { .sock = -1, .region = P2P_REGION_INIT, .link = P2P_REGION_INIT };
    return 0;
}

static int teardown(void **state)
{
    raw_vnf_detach(&a);
    return fixture_teardown(state);
}

static void assert_says(const char *text, const char *word)
{
    if (!strstr(text, word)) {
        fail_msg("\"%s\" does not say \"%s\"", text, word);
    }
}

/* "a", played by the test, sends to "b" directly. */
static void direct_pair(void)
{
    fixture_start(2);
    raw_vnf_attach(&a, fx.tb.socket, "a");
    b = vnf_open("b");
    target(0, 1);
    wait_for((raw_vnf_obey(&a, 2), info_of(0).state == P2P_LINK_DIRECT));
    raw_vnf_obey(&a, 5);
}

static void end_link(void)
{
    target(0, -1);
    wait_for((raw_vnf_obey(&a, 2), info_of(0).state == P2P_LINK_NORMAL && !info_of(0).link_id));
}

static void say(uint64_t packets, uint64_t bytes)
{
    p2p_store_release(&a.vnf->txq[0].direct_packets, packets);
    p2p_store_release(&a.vnf->txq[0].direct_bytes, bytes);
}

static void say_more(uint64_t packets, uint64_t bytes)
{
    say(a.vnf->txq[0].direct_packets + packets, a.vnf->txq[0].direct_bytes + bytes);
}

static void assert_counted(uint64_t packets, uint64_t bytes)
{
    struct p2p_swport_stats out = stats_of(0), in = stats_of(1);

    assert_int_equal(out.out_packets, packets);
    assert_int_equal(out.out_bytes, bytes);
    assert_int_equal(in.in_packets, packets);
    assert_int_equal(in.in_bytes, bytes);
    assert_int_equal(out.in_packets + in.out_packets, 0);
}

static void assert_not_believed(void)
{
    assert_says(info_of(0).last_error, "cannot be true");
}

static void honest_counters(void **state)
{
    (void)state;

    direct_pair();
    assert_counted(0, 0);
    say_more(10, 640);
    assert_counted(10, 640);
    assert_counted(10, 640);
    testbed_sleep_ms(10);
    say_more(100000, 100000 * 100);
    assert_counted(100010, 640 + 100000 * 100);
    say_more(N_DESC, N_DESC * MAX_FRAME); /* A ringful at once. */
    assert_counted(100010 + N_DESC, 640 + 100000 * 100 + N_DESC * MAX_FRAME);
    assert_string_equal(info_of(0).last_error, "");
    end_link();
    assert_counted(100010 + N_DESC, 640 + 100000 * 100 + N_DESC * MAX_FRAME);
    assert_string_equal(info_of(0).last_error, "");
}

/* The two words are not read at the same time. */
static void a_burst_between_the_two_words(void **state)
{
    (void)state;

    direct_pair();
    say_more(32, 0);
    assert_counted(32, 0);
    say_more(0, 32 * 1000);
    assert_counted(32, 32000);
    say_more(0, 32 * 1000);
    assert_counted(32, 64000);
    say_more(32, 0);
    assert_counted(64, 64000);
    assert_string_equal(info_of(0).last_error, "");
}

static void counters_that_go_backwards(void **state)
{
    (void)state;

    direct_pair();
    say(1000, 64000);
    assert_counted(1000, 64000);
    say(999, 64000);
    assert_counted(1000, 64000);
    assert_not_believed();
    say(1000, 63000);
    assert_counted(1000, 64000);
    say(0, 0);
    assert_counted(1000, 64000);
    say(UINT64_MAX / 2, 0);
    assert_counted(1000, 64000);
    say(0, UINT64_MAX / 2);
    assert_counted(1000, 64000);
    say(0, 0);
    assert_counted(1000, 64000);
    say(10, 640); /* From where it is now, it counts again. */
    assert_counted(1010, 64640);
}

static void more_than_memory_could_move(void **state)
{
    uint64_t begin, packets = 0;
    (void)state;

    begin = p2p_now_ns();
    direct_pair();
    say_more(UINT64_C(1) << 40, UINT64_C(64) << 40);
    assert_counted(0, 0);
    assert_not_believed();
    say_more(UINT64_MAX / 2, 64);
    assert_counted(0, 0);

    /* In small portions it gets no further. */
    for (uint64_t until = testbed_now_ms() + 300; testbed_now_ms() < until;) {
        say_more(N_DESC, N_DESC * 64);
        packets = stats_of(0).out_packets;
        assert_true(packets <= (p2p_now_ns() - begin) / 2 + N_DESC);
        say_more(N_DESC - 1, N_DESC * 64);
        (void)stats_of(1);
    }
    assert_int_equal(stats_of(1).in_packets, stats_of(0).out_packets);
}

static void bytes_that_no_frames_have(void **state)
{
    uint64_t slack = (uint64_t)N_DESC * MAX_FRAME;
    (void)state;

    direct_pair();
    const uint64_t bad[] = {
        0, 1000000 * (P2P_FRAME_MIN - 4), 1000000 * (uint64_t)(MAX_FRAME + 10), UINT64_C(1) << 40,
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)stats_of(0);
        testbed_sleep_ms(5); /* A million packets take 2 ms. */
        say_more(1000000, bad[i]);
        assert_counted(0, 0);
        assert_not_believed();
    }
    testbed_sleep_ms(5);
    say_more(1000000, 1000000 * (uint64_t)MAX_FRAME);
    assert_counted(1000000, 1000000 * (uint64_t)MAX_FRAME);
    /* Bytes without packets: no more than lie between two looks, however often. */
    for (unsigned i = 0; i < 100; i++) {
        say_more(0, slack / 2);
        assert_true(stats_of(0).out_bytes <= 1000000 * (uint64_t)MAX_FRAME + slack + MAX_FRAME);
    }
    assert_int_equal(stats_of(0).out_packets, 1000000);
}

static void growth_without_a_link(void **state)
{
    (void)state;

    fixture_start(2);
    raw_vnf_attach(&a, fx.tb.socket, "a");
    b = vnf_open("b");
    say_more(10, 640);
    assert_counted(0, 0);
    assert_not_believed();
    target(0, 1);
    wait_for((raw_vnf_obey(&a, 2), info_of(0).state == P2P_LINK_DIRECT));
    say_more(10, 640);
    assert_counted(10, 640);
    end_link();
    /* A burst that was on its way when the link ended: the sender's alone, and once. */
    say_more(100, 6400);
    assert_int_equal(stats_of(0).out_packets, 110);
    assert_int_equal(stats_of(1).in_packets, 10);
    say_more(N_DESC - 100, 64 * (N_DESC - 100));
    assert_int_equal(stats_of(0).out_packets, 10 + N_DESC);
    for (unsigned i = 0; i < 10; i++) {
        say_more(1, 64);
        assert_int_equal(stats_of(0).out_packets, 10 + N_DESC);
    }
    assert_not_believed();
    assert_int_equal(stats_of(1).in_packets, 10);
}

static void other_counters_of_a_liar(void **state)
{
    (void)state;

    direct_pair();
    p2p_store(&a.vnf->txq[0].refused, 5);
    p2p_store(&a.vnf->txq[0].epochs, 3);
    assert_int_equal(stats_of(0).tx_refused, 5);
    assert_int_equal(info_of(0).switchovers, 3);
    p2p_store(&a.vnf->txq[0].refused, 1); /* Backwards: ignored, and on from there. */
    p2p_store(&a.vnf->txq[0].epochs, 0);
    assert_int_equal(stats_of(0).tx_refused, 5);
    assert_int_equal(info_of(0).switchovers, 3);
    p2p_store(&a.vnf->txq[0].refused, 2);
    assert_int_equal(stats_of(0).tx_refused, 6);
    /* Queues that the port does not have do not count. */
    p2p_store(&a.vnf->txq[1].direct_packets, 100);
    p2p_store(&a.vnf->txq[1].refused, 100);
    p2p_store(&a.vnf->txq[15].direct_bytes, 100);
    assert_counted(0, 0);
    assert_int_equal(stats_of(0).tx_refused, 6);
}

static void bad_descriptors_are_counted(void **state)
{
    (void)state;

    fixture_start(2);
    raw_vnf_attach(&a, fx.tb.socket, "a");
    const struct p2p_ring_geometry *g = &a.region.hdr.ring[0];
    struct p2p_ring_ctl *ctl = p2p_region_at(&a.region, g->ctl_off);
    struct p2p_desc *desc = p2p_region_at(&a.region, g->desc_off);
    for (uint32_t i = 0; i < 20; i++) {
        desc[i] = (struct p2p_desc) { .off = UINT32_MAX - 10, .len = 60 + i % 2 * 20000 };
    }
    p2p_store_release(&ctl->head, 20);
    wait_for(stats_of(0).rx_bad == 20);
    assert_int_equal(atomic_load(&fx.tb.port[0].rx), 0);
    testbed_reconfigure(&fx.tb, 0, 2, 1500);
    assert_int_equal(stats_of(0).rx_bad, 20);
}

/*
 * Real VNFs.
 */

static void send_n(struct p2p_port *port, unsigned n)
{
    static uint64_t seq;
    for (unsigned i = 0; i < n; i++) {
        wait_for(vnf_send(port, ++seq));
    }
}

static void take_n(struct p2p_port *port, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        (void)vnf_expect(port);
    }
    p2p_rx_release(port, 0);
}

static void counters_over_restarts_of_the_vnfs(void **state)
{
    const uint64_t len = sizeof(struct child_frame);
    uint64_t sum = 0;
    (void)state;

    fixture_start(2);
    struct p2p_port *va = vnf_open("a"), *vb = vnf_open("b");
    for (unsigned i = 0; i < 8; i++) {
        link_up(0, 1);
        send_n(va, 10 + i);
        sum += 10 + i;
        take_n(vb, 10 + i);
        assert_counted(sum, sum * len);
        switch (i % 4) {
        case 0: /* The sender. */
            vnf_close(va);
            assert_true(testbed_wait_attached(&fx.tb, 0, false));
            va = vnf_open("a");
            break;
        case 1: /* The receiver. */
            vnf_close(vb);
            assert_true(testbed_wait_attached(&fx.tb, 1, false));
            vb = vnf_open("b");
            break;
        case 2: /* Its region. */
            testbed_reconfigure(&fx.tb, 0, 1 + i % 3, 1500);
            assert_counted(sum, sum * len);
            break;
        case 3:
            testbed_reconfigure(&fx.tb, 1, 1, 1400);
            assert_counted(sum, sum * len);
            testbed_reconfigure(&fx.tb, 1, 1, 1500);
            break;
        }
        assert_counted(sum, sum * len);
        assert_true(testbed_wait_attached(&fx.tb, 0, true) && testbed_wait_attached(&fx.tb, 1, true));
        assert_null(strstr(info_of(0).last_error, "cannot be true"));
        assert_counted(sum, sum * len);
    }
    assert_int_equal(stats_of(1).in_dropped, 0);
}

struct monitor {
    atomic_bool stop;
    _Atomic unsigned backwards;
    pthread_t thread;
};

static void *monitor_main(void *m_)
{
    struct monitor *m = m_;
    struct p2p_swport_stats last[2] = { 0 };

    while (!atomic_load(&m->stop)) {
        for (int i = 0; i < 2; i++) {
            struct p2p_swport_stats s = stats_of(i);
            const uint64_t *now = (const uint64_t *)&s, *was = (const uint64_t *)&last[i];
            for (unsigned k = 0; k < sizeof s / 8; k++) {
                if (now[k] < was[k]) {
                    atomic_fetch_add(&m->backwards, 1);
                }
            }
            last[i] = s;
        }
        sched_yield();
    }
    return NULL;
}

/* While VNFs are killed and links flap under full load, no counter ever goes backwards; at rest, what is sent, received
 * and dropped is the same. */
static void never_backwards(void **state)
{
    struct monitor m = { 0 };
    struct p2p_port_stats vnf;
    (void)state;

    fixture_start(2);
    struct peer *pb = peer_start("b", true);
    pthread_create(&m.thread, NULL, monitor_main, &m);
    for (unsigned i = 0; i < 12; i++) {
        pid_t pid = child_add("a");
        assert_true(testbed_wait_attached(&fx.tb, 0, true));
        for (unsigned k = 0; k < 3; k++) {
            link_up(0, 1);
            testbed_sleep_ms(5);
            if (k < 2) {
                target(0, -1);
                testbed_sleep_ms(i);
            }
        }
        child_remove(pid);
        assert_true(testbed_wait_attached(&fx.tb, 0, false));
        assert_true(testbed_wait_unlinked(&fx.tb, 0));
    }
    testbed_sleep_ms(50);
    atomic_store(&m.stop, true);
    pthread_join(m.thread, NULL);
    assert_int_equal(atomic_load(&m.backwards), 0);
    struct p2p_swport_stats out = stats_of(0), in = stats_of(1);
    p2p_port_get_stats(pb->port, &vnf);
    print_message("# direct: %llu sent, %llu received, %llu dropped\n", (unsigned long long)out.out_packets,
                  (unsigned long long)vnf.rx_direct_packets, (unsigned long long)in.in_dropped);
    assert_int_equal(out.out_packets, in.in_packets);
    /* A VNF that is killed between its ring and its counter has sent a burst that nobody knows of. */
    assert_true(vnf.rx_direct_packets + in.in_dropped >= in.in_packets);
    assert_true(vnf.rx_direct_packets + in.in_dropped <= in.in_packets + 12 * 8);
    assert_int_equal(atomic_load(&pb->backward), 0);
}

static void what_the_receiver_leaves_is_dropped(void **state)
{
    (void)state;

    fixture_start(2);
    struct p2p_port *va = vnf_open("a"), *vb = vnf_open("b");
    uint64_t sent = 0, taken = 0;
    for (unsigned i = 0; i < 5; i++) {
        link_up(0, 1);
        send_n(va, 30);
        sent += 30;
        take_n(vb, 1 + i * 5);
        taken += 1 + i * 5;
        assert_int_equal(info_of(1).ring_used, 30 - 1 - i * 5);
        if (i == 4) { /* It dies, with all that is in there. */
            vnf_close(vb);
        } else {
            target(0, -1);
        }
        assert_true(testbed_wait_unlinked(&fx.tb, 0));
        assert_int_equal(stats_of(1).in_packets, sent);
        assert_int_equal(stats_of(1).in_dropped, sent - taken);
    }
    assert_int_equal(stats_of(0).in_dropped, 0);
}

/* A receiver that writes into the link region: it may be said to have dropped much, but never more than was sent. */
static void receiver_that_lies_about_what_it_left(void **state)
{
    (void)state;

    fixture_start(2);
    b = vnf_open("b");
    for (unsigned i = 0; i < 3; i++) {
        raw_vnf_attach(&a, fx.tb.socket, "a"); /* The receiver, this time. */
        target(1, 0);
        uint64_t want = raw_vnf_wait_want(&a, 0, P2P_WANT_MAP);
        raw_vnf_take_link(&a);
        wait_for((raw_vnf_obey(&a, 2), info_of(1).state == P2P_LINK_DIRECT));
        send_n(b, 7);
        unsigned ring = p2p_want_side(want) ? 0 : 1; /* What the other side sends. */
        struct p2p_ring_ctl *ctl = p2p_region_at(&a.link, a.link.hdr.ring[ring].ctl_off);
        p2p_store(&ctl->tail, ctl->head - (i ? 1000000 : 1000));
        assert_true(info_of(0).ring_used <= N_DESC);
        close(a.sock); /* It goes without having emptied the channel. */
        a.sock = -1;
        assert_true(testbed_wait_unlinked(&fx.tb, 1));
        struct p2p_swport_stats s = stats_of(0);
        assert_int_equal(s.in_packets, 7 * (i + 1));
        assert_int_equal(s.in_dropped, s.in_packets);
        target(1, -1);
        raw_vnf_detach(&a);
        assert_true(testbed_wait_attached(&fx.tb, 0, false));
    }
}

static void polls_are_seen(void **state)
{
    struct p2p_pkt pkt;
    (void)state;

    fixture_start(2);
    struct p2p_port *va = vnf_open("a");
    testbed_sleep_ms(20);
    assert_int_equal(info_of(0).rx_polls, 0);
    assert_int_equal(info_of(0).rx_idle_ms, -1);
    (void)p2p_rx_burst(va, 0, &pkt, 1);
    wait_for(info_of(0).rx_polls == 1);
    testbed_sleep_ms(50);
    long long idle = info_of(0).rx_idle_ms;
    assert_true(idle >= 30 && idle < 5000);
    (void)p2p_rx_burst(va, 0, &pkt, 1);
    wait_for(info_of(0).rx_idle_ms < idle);
}

int main(int argc, char **argv)
{
    child_main(argc, argv);
    cmocka_set_test_filter(getenv("P2P_TEST")); /* NULL: all. */
#define T(NAME) cmocka_unit_test_setup_teardown(NAME, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(honest_counters),
        T(a_burst_between_the_two_words),
        T(counters_that_go_backwards),
        T(more_than_memory_could_move),
        T(bytes_that_no_frames_have),
        T(growth_without_a_link),
        T(other_counters_of_a_liar),
        T(bad_descriptors_are_counted),
        T(counters_over_restarts_of_the_vnfs),
        T(never_backwards),
        T(what_the_receiver_leaves_is_dropped),
        T(receiver_that_lies_about_what_it_left),
        T(polls_are_seen),
    };
    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
