/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two VNFs, a switch, and links that come and go under traffic: nothing lost, doubled or reordered, every packet
 * counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "testbed.h"

struct frame {
    uint8_t eth[14];
    uint16_t queue;
    uint64_t seq;
    uint8_t fill[];
} __attribute__((packed));

struct receiver;
static uint64_t received(struct receiver *r);

struct sender {
    struct p2p_port *port;
    unsigned n_queues;
    unsigned max_len;
    uint64_t seed;
    unsigned pause_ms;               /* Rests so long now and then. */
    unsigned window;
    struct receiver *peer;
    _Atomic uint64_t sent[P2P_MAX_QUEUES];
    _Atomic uint64_t bytes;
    atomic_bool stop;
    pthread_t thread;
};

struct receiver {
    struct p2p_port *port;
    unsigned n_queues;               /* Its own. */
    uint64_t next[P2P_MAX_QUEUES];   /* By the sender's queue. */
    _Atomic uint64_t got, bytes, missing, backward, wrong_queue, corrupt;
    bool hold_packets;               /* Several bursts before a release. */
    atomic_bool stop;
    pthread_t thread;
};

static uint64_t received(struct receiver *r)
{
    return atomic_load(&r->got);
}

static uint64_t rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static uint64_t total_sent(struct sender *s)
{
    uint64_t sum = 0;
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        sum += atomic_load(&s->sent[q]);
    }
    return sum;
}

static void *sender_main(void *s_)
{
    struct sender *s = s_;
    uint8_t mem[32][9100];
    struct p2p_buf bufs[32];
    uint64_t seed = s->seed;

    while (!atomic_load(&s->stop)) {
        for (unsigned q = 0; q < s->n_queues; q++) {
            unsigned n = 1 + rnd(&seed) % 32;
            if (s->window && total_sent(s) + n > received(s->peer) + s->window) {
                sched_yield();
                continue;
            }
            uint64_t seq = atomic_load(&s->sent[q]);
            for (unsigned i = 0; i < n; i++) {
                unsigned len = sizeof(struct frame) + rnd(&seed) % (s->max_len - sizeof(struct frame) + 1);
                struct frame *f = (struct frame *)mem[i];
                f->queue = (uint16_t)q;
                f->seq = seq + i;
                memset(f->fill, (int)(f->seq & 0xff), len - sizeof *f);
                bufs[i] = (struct p2p_buf) { f, len, 0 };
            }
            unsigned sent = p2p_tx_burst(s->port, q, bufs, n);
            for (unsigned i = 0; i < sent; i++) {
                atomic_fetch_add(&s->bytes, bufs[i].len);
            }
            atomic_store(&s->sent[q], seq + sent);
            if (sent < n) {
                sched_yield();
            }
        }
        if (s->pause_ms && rnd(&seed) % 64 == 0) {
            nanosleep(&(struct timespec) { .tv_nsec = s->pause_ms * 1000000L }, NULL);
        }
    }
    return NULL;
}

static void *receiver_main(void *r_)
{
    struct receiver *r = r_;
    struct p2p_pkt pkts[32];
    unsigned rounds = 0;

    while (!atomic_load(&r->stop)) {
        unsigned work = 0;
        for (unsigned q = 0; q < r->n_queues; q++) {
            unsigned n = p2p_rx_burst(r->port, q, pkts, 1 + rounds++ % 32);
            for (unsigned i = 0; i < n; i++) {
                const struct frame *f = pkts[i].data;
                unsigned from = f->queue % P2P_MAX_QUEUES;
                atomic_fetch_add(&r->bytes, pkts[i].len);
                if (f->seq > r->next[from]) {
                    atomic_fetch_add(&r->missing, f->seq - r->next[from]);
                } else if (f->seq < r->next[from]) {
                    atomic_fetch_add(&r->backward, 1); /* Doubled or reordered. */
                }
                if (from % r->n_queues != q) {
                    atomic_fetch_add(&r->wrong_queue, 1);
                }
                for (unsigned k = 0; k < pkts[i].len - sizeof *f; k += 61) {
                    if (f->fill[k] != (uint8_t)f->seq) {
                        atomic_fetch_add(&r->corrupt, 1);
                        break;
                    }
                }
                r->next[from] = f->seq + 1;
            }
            if (!r->hold_packets || rounds % 4 == 0 || !n) {
                p2p_rx_release(r->port, q);
            }
            atomic_fetch_add(&r->got, n);
            work += n;
        }
        if (!work) {
            sched_yield();
        }
    }
    for (unsigned q = 0; q < r->n_queues; q++) {
        p2p_rx_release(r->port, q);
    }
    return NULL;
}

static void sleep_us(unsigned us)
{
    nanosleep(&(struct timespec) { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L }, NULL);
}

struct scenario {
    unsigned queues_a, queues_b;
    uint32_t mtu;
    unsigned flips;
    unsigned flush_every;
    uint32_t first_index;
    unsigned pause_ms;
    bool hold_packets;
    unsigned linger_ms;
    bool idle_pmd;      /* The PMD rests now and then: backlogs on the normal way. */
    unsigned window;    /* At most so many packets under way: the switch never has to drop. 0: as many as go. */
    unsigned lose;      /* Packets that the switch loses on purpose. */
};

/* Story: traffic from a to b; the link is made and ended 'flips' times at random moments; at the end all that was sent
 * has arrived, in order, and the counters say the same. */
static void run(const struct scenario *sc)
{
    struct testbed tb;
    testbed_init(&tb);
    tb.flush_every = sc->flush_every;
    tb.cfg.first_index = sc->first_index;
    tb.cfg.linger_ms = sc->linger_ms;
    testbed_start(&tb);
    int a = testbed_add_port(&tb, "a", sc->queues_a, sc->mtu);
    int b = testbed_add_port(&tb, "b", sc->queues_b, sc->mtu);
    testbed_forward(&tb, a, b);

    uint64_t seed = 12345 + sc->flips;
    struct sender s = {
        .port = testbed_vnf(&tb, "a"), .n_queues = sc->queues_a, .max_len = sc->mtu + P2P_FRAME_OVERHEAD, .seed = seed,
        .pause_ms = sc->pause_ms, .window = sc->window,
    };
    struct receiver r = { .port = testbed_vnf(&tb, "b"), .n_queues = sc->queues_b, .hold_packets = sc->hold_packets };
    s.peer = &r;
    atomic_store(&tb.lose_one, sc->lose);
    pthread_create(&r.thread, NULL, receiver_main, &r);
    pthread_create(&s.thread, NULL, sender_main, &s);

    unsigned direct_seen = 0;
    for (unsigned i = 0; i < sc->flips; i++) {
        p2p_swport_set_target(tb.port[a].port, tb.port[b].port, NULL);
        if (i % 3 != 2) {
            assert_true(testbed_wait_state(&tb, a, P2P_LINK_DIRECT));
            direct_seen++;
        }
        sleep_us((unsigned)(rnd(&seed) % 3000));
        if (sc->idle_pmd) {
            atomic_store(&tb.pause, rnd(&seed) % 2);
        }
        p2p_swport_set_target(tb.port[a].port, NULL, "test");
        sleep_us((unsigned)(rnd(&seed) % 3000));
    }
    atomic_store(&tb.pause, false);
    p2p_swport_set_target(tb.port[a].port, tb.port[b].port, NULL);
    assert_true(testbed_wait_state(&tb, a, P2P_LINK_DIRECT));
    sleep_us(20000);
    atomic_store(&s.stop, true);
    pthread_join(s.thread, NULL);

    uint64_t sent = total_sent(&s);
    uint64_t dropped = 0;
    for (int i = 0; i < 5000; i++) {
        dropped = atomic_load(&tb.port[b].tx_dropped);
        if (atomic_load(&r.got) + dropped >= sent) {
            break;
        }
        sleep_us(1000);
    }
    struct p2p_swport_stats out, in;
    struct p2p_port_stats va, vb;
    p2p_swport_get_stats(tb.port[a].port, &out);
    p2p_swport_get_stats(tb.port[b].port, &in);
    p2p_port_get_stats(s.port, &va);
    p2p_port_get_stats(r.port, &vb);
    printf("# sent %llu (direct %llu, epochs %llu), received %llu, dropped by the switch %llu\n", (unsigned long
           long)sent,
           (unsigned long long)va.tx_direct_packets, (unsigned long long)va.tx_epochs,
           (unsigned long long)atomic_load(&r.got), (unsigned long long)dropped);

    /* The switch drops when b's ring is full, as with vhost-user; it counts, and so do we. */
    assert_int_equal(sent, atomic_load(&r.got) + dropped + sc->lose);
    assert_int_equal(atomic_load(&r.backward), 0);
    if (sc->window) {
        assert_int_equal(dropped, 0);
        assert_int_equal(atomic_load(&r.missing), sc->lose);
    }
    if (sc->lose) {
        goto out; /* That it was noticed is all. */
    }
    if (!dropped) {
        assert_int_equal(atomic_load(&s.bytes), atomic_load(&r.bytes));
    }
    assert_int_equal(atomic_load(&r.wrong_queue), 0);
    assert_int_equal(atomic_load(&r.corrupt), 0);
    assert_int_equal(out.out_packets, va.tx_direct_packets);
    assert_int_equal(out.out_bytes, va.tx_direct_bytes);
    assert_int_equal(in.in_packets, va.tx_direct_packets);
    assert_int_equal(in.in_dropped, 0);
    assert_int_equal(vb.rx_direct_packets, va.tx_direct_packets);
    assert_int_equal(atomic_load(&tb.port[a].rx) + out.out_packets, sent);
    assert_int_equal(atomic_load(&tb.port[b].tx) + in.in_packets, atomic_load(&r.got));
    assert_true(va.tx_epochs >= 1 && direct_seen);

out:
    atomic_store(&r.stop, true);
    pthread_join(r.thread, NULL);
    p2p_port_close(s.port);
    p2p_port_close(r.port);
    testbed_stop(&tb);
}

static void one_queue(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 1500, .flips = 200, .flush_every = 1,
                             .linger_ms = 1000, .window = 300 });
}

static void indices_wrap(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 300, .flips = 60, .flush_every = 1, .linger_ms = 1000,
                             .first_index = UINT32_MAX - 2000, .window = 300 });
}

static void packets_wait_in_output_batches(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 1500, .flips = 100, .flush_every = 50,
                             .linger_ms = 1000, .window = 300 });
}

static void more_queues_at_the_sender(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 4, .queues_b = 2, .mtu = 1500, .flips = 100, .flush_every = 1,
                             .linger_ms = 1000, .window = 300 });
}

static void more_queues_at_the_receiver(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 2, .queues_b = 3, .mtu = 1500, .flips = 100, .flush_every = 3,
                             .linger_ms = 1000 });
}

static void jumbo_frames_held_by_the_application(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 9000, .flips = 60, .flush_every = 1,
                             .linger_ms = 1000, .hold_packets = true, .window = 60 });
}

static void no_linger_new_channel_each_time(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 1500, .flips = 60, .flush_every = 1,
                             .linger_ms = 0, .window = 300 });
}

static void idle_sender(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 1500, .flips = 60, .flush_every = 1,
                             .linger_ms = 1000,
                             .pause_ms = 5, .window = 300 });
}

static void slow_switch(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 1500, .flips = 100, .flush_every = 7,
                             .linger_ms = 1000,
                             .idle_pmd = true, .window = 300 });
}

static void overload(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 2, .queues_b = 2, .mtu = 1500, .flips = 100, .flush_every = 5,
                             .linger_ms = 100 });
}

/* The proof that the above would notice: a switch that loses one packet. */
static void one_lost_packet_is_noticed(void **state)
{
    (void)state;
    run(&(struct scenario) { .queues_a = 1, .queues_b = 1, .mtu = 1500, .flips = 5, .flush_every = 1, .linger_ms = 1000,
                             .window = 300, .lose = 1 });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_queue),
        cmocka_unit_test(indices_wrap),
        cmocka_unit_test(packets_wait_in_output_batches),
        cmocka_unit_test(more_queues_at_the_sender),
        cmocka_unit_test(more_queues_at_the_receiver),
        cmocka_unit_test(jumbo_frames_held_by_the_application),
        cmocka_unit_test(no_linger_new_channel_each_time),
        cmocka_unit_test(idle_sender),
        cmocka_unit_test(slow_switch),
        cmocka_unit_test(overload),
        cmocka_unit_test(one_lost_packet_is_noticed),
    };
    return cmocka_run_group_tests_name("switchover", tests, NULL, NULL);
}
