/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packet ring by itself: both ends on one piece of memory, honest and not.
 *
 * P2P_SEED=number repeats a randomised test.
 *
 * time-limit: 300
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "region.h"
#include "ring.h"

#define MAX_LEN 9022u

/* A ring of any size, in ordinary memory. */
struct rig {
    struct p2p_region region;
    struct p2p_ring_ctl *ctl;
    struct p2p_desc *desc;
    struct p2p_prod prod;
    struct p2p_cons cons;
    uint64_t bytes_in, bytes_out, bad;
};

static void rig_up(struct rig *g, uint32_t n_desc, uint32_t data_size, uint32_t first)
{
    size_t size = sizeof *g->ctl + n_desc * sizeof(struct p2p_desc) + data_size;

    memset(g, 0, sizeof *g);
    g->region.base = aligned_alloc(128, (size + 127) / 128 * 128);
    g->region.size = size;
    memset(g->region.base, 0xee, size);
    g->region.hdr.mtu = MAX_LEN - P2P_FRAME_OVERHEAD;
    g->region.hdr.ring[0] = (struct p2p_ring_geometry) {
        .ctl_off = 0, .desc_off = sizeof *g->ctl, .data_off = sizeof *g->ctl + n_desc * sizeof(struct p2p_desc),
        .n_desc = n_desc, .data_size = data_size,
    };
    g->ctl = p2p_region_at(&g->region, 0);
    g->desc = p2p_region_at(&g->region, g->region.hdr.ring[0].desc_off);
    memset(g->ctl, 0, sizeof *g->ctl);
    g->ctl->head = g->ctl->tail = g->ctl->freed = first;
    assert_int_equal(p2p_prod_init(&g->prod, &g->region, 0), 0);
    p2p_cons_init(&g->cons, &g->region, 0);
}

static void rig_down(struct rig *g)
{
    p2p_prod_uninit(&g->prod);
    free(g->region.base);
}

static uint64_t rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static uint64_t seed_of(const char *test)
{
    const char *given = getenv("P2P_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : p2p_random64();

    printf("# %s: P2P_SEED=0x%llx\n", test, (unsigned long long)seed);
    return seed ? seed : 1;
}

/* Packet number 'seq' of 'len' bytes: its content follows from both. */
static void write_packet(uint8_t *mem, uint64_t seq, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        mem[i] = (uint8_t)(seq * 31 + i + (i >> 8));
    }
}

static bool is_packet(const void *mem_, uint64_t seq, uint32_t len)
{
    const uint8_t *mem = mem_;

    for (uint32_t i = 0; i < len; i++) {
        if (mem[i] != (uint8_t)(seq * 31 + i + (i >> 8))) {
            return false;
        }
    }
    return true;
}

static bool put(struct rig *g, uint64_t seq, uint32_t len)
{
    static _Thread_local uint8_t mem[MAX_LEN + 64];

    write_packet(mem, seq, len <= MAX_LEN ? len : MAX_LEN);
    return p2p_prod_burst(&g->prod, &(struct p2p_buf) { mem, len, (uint32_t)seq }, 1, &g->bytes_in) == 1;
}

/* Takes one packet, which must be number 'seq'; returns where it lies. */
static uint32_t take(struct rig *g, uint64_t seq, uint32_t len)
{
    struct p2p_pkt pkt = { .data = NULL };

    assert_int_equal(p2p_cons_take(&g->cons, p2p_cons_head(&g->cons), &pkt, 1, &g->bytes_out, &g->bad), 1);
    assert_int_equal(pkt.len, len);
    assert_int_equal(pkt.hash, (uint32_t)seq);
    assert_true(is_packet(pkt.data, seq, len));
    return (uint32_t)((const uint8_t *)pkt.data - g->cons.data);
}

static unsigned waiting(struct rig *g)
{
    return p2p_cons_head(&g->cons) - g->cons.next;
}

static void fills_and_drains_in_order(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 16, 16 * 64, 0);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 16; i++) {
            assert_true(put(&g, i, 64));
        }
        assert_false(put(&g, 99, 64)); /* No descriptor left, and no byte. */
        assert_int_equal(waiting(&g), 16);
        for (unsigned i = 0; i < 16; i++) {
            take(&g, i, 64);
        }
        assert_int_equal(waiting(&g), 0);
        p2p_cons_release(&g.cons);
    }
    assert_int_equal(g.bytes_in, 5 * 16 * 64);
    assert_int_equal(g.bytes_out, g.bytes_in);
    rig_down(&g);
}

static void full_by_descriptors_with_room_for_data(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 4, 1 << 16, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(put(&g, i, 60));
    }
    assert_false(put(&g, 4, 60));
    take(&g, 0, 60);
    p2p_cons_release(&g.cons);
    assert_true(put(&g, 4, 60));
    assert_false(put(&g, 5, 60));
    rig_down(&g);
}

static void full_by_data_with_descriptors_left(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 64, 4096, 0);
    assert_true(put(&g, 0, 2000));
    assert_true(put(&g, 1, 2048));
    assert_false(put(&g, 2, 14));  /* 2048 + 2048: not a line left. */
    take(&g, 0, 2000);
    assert_false(put(&g, 2, 14));  /* Taken, but still looked at. */
    p2p_cons_release(&g.cons);
    assert_false(put(&g, 2, 2049)); /* One line more than the hole. */
    assert_true(put(&g, 2, 2048));  /* It fits exactly, and the area is full again. */
    assert_false(put(&g, 3, 14));
    take(&g, 1, 2048);
    take(&g, 2, 2048);
    rig_down(&g);
}

static void all_sizes_pass(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 8, 32768, 7);
    for (uint32_t len = P2P_FRAME_MIN; len <= MAX_LEN; len++) {
        assert_true(put(&g, len, len));
        take(&g, len, len);
        p2p_cons_release(&g.cons);
    }
    rig_down(&g);
}

/* Lengths that no frame has end the burst where they stand. */
static void impossible_lengths_are_not_accepted(void **state)
{
    struct rig g;
    uint8_t mem[64] = { 0 };
    uint64_t bytes = 0;
    (void)state;

    rig_up(&g, 8, 65536, 0);
    const uint32_t bad[] = { 0, P2P_FRAME_MIN - 1, MAX_LEN + 1, UINT32_MAX, UINT32_MAX - 62 };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct p2p_buf bufs[3] = { { mem, 60, 0 }, { mem, bad[i], 0 }, { mem, 60, 0 } };
        assert_int_equal(p2p_prod_burst(&g.prod, bufs, 3, &bytes), 1);
        assert_int_equal(bytes, 60 * (i + 1));
    }
    assert_int_equal(waiting(&g), 5);
    assert_int_equal(p2p_prod_burst(&g.prod, NULL, 0, &bytes), 0);
    rig_down(&g);
}

/* No packet goes around the end of the data area: one that does not fit there begins at its start. */
static void packets_do_not_wrap_around_the_end(void **state)
{
    struct rig g;
    unsigned turns = 0;
    uint32_t last = 0;
    (void)state;

    rig_up(&g, 64, 4096, 0);
    assert_true(put(&g, 0, 900));
    for (uint64_t seq = 1; seq < 500; seq++) { /* One stays in the ring: it is never empty. */
        uint32_t len = 700 + (uint32_t)(seq * 37 % 200);
        assert_true(put(&g, seq, len));
        uint32_t off = take(&g, seq - 1, seq == 1 ? 900 : 700 + (uint32_t)((seq - 1) * 37 % 200));
        assert_int_equal(off % P2P_CACHE_LINE, 0);
        turns += off < last;
        last = off;
        p2p_cons_release(&g.cons);
    }
    assert_true(turns > 50);
    rig_down(&g);
}

/* When the producer looks, which is when it finds no room. */
static void a_ring_found_empty_starts_again_at_the_beginning(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 64, 8192, 0);
    for (uint64_t seq = 0; seq < 200; seq++) {
        assert_true(put(&g, seq, 1000));
        assert_int_equal(take(&g, seq, 1000), seq % 8 * 1024);
        p2p_cons_release(&g.cons);
    }
    /* A frame that does not fit behind the others, nor before them, fits once they are gone. */
    assert_true(put(&g, 1, 4000));
    assert_true(put(&g, 2, 4000));
    take(&g, 1, 4000);
    take(&g, 2, 4000);
    assert_false(put(&g, 3, 8192));
    p2p_cons_release(&g.cons);
    assert_true(put(&g, 3, 8192));
    assert_int_equal(take(&g, 3, 8192), 0);
    rig_down(&g);
}

static void what_is_received_may_still_be_looked_at(void **state)
{
    struct rig g;
    struct p2p_pkt pkts[4];
    (void)state;

    rig_up(&g, 4, 4 * 1024, 100);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(put(&g, i, 1000));
    }
    assert_false(p2p_prod_drained(&g.prod));
    assert_int_equal(p2p_cons_take(&g.cons, p2p_cons_head(&g.cons), pkts, 4, &g.bytes_out, &g.bad), 4);
    assert_false(p2p_prod_drained(&g.prod));
    p2p_cons_received(&g.cons);
    assert_int_equal(g.ctl->tail, 104);
    assert_int_equal(g.ctl->freed, 100);
    assert_true(p2p_prod_drained(&g.prod)); /* Received is received ... */
    assert_false(put(&g, 4, 14));           /* ... but its place is not free, */
    for (unsigned i = 0; i < 4; i++) {
        assert_true(is_packet(pkts[i].data, i, 1000)); /* and nobody has written there. */
    }
    p2p_cons_release(&g.cons);
    assert_int_equal(g.ctl->freed, 104);
    assert_true(put(&g, 4, 1000));
    rig_down(&g);
}

static void indices_wrap(void **state)
{
    struct rig g;
    (void)state;

    for (uint32_t first = UINT32_MAX - 20; first >= UINT32_MAX - 20 || first < 3; first++) {
        rig_up(&g, 8, 8 * 128, first);
        for (uint64_t seq = 0; seq < 64; seq += 8) {
            for (unsigned i = 0; i < 8; i++) {
                assert_true(put(&g, seq + i, 100));
            }
            assert_false(put(&g, 0, 100));
            for (unsigned i = 0; i < 8; i++) {
                take(&g, seq + i, 100);
            }
            p2p_cons_release(&g.cons);
            assert_true(p2p_prod_drained(&g.prod));
        }
        assert_int_equal(g.ctl->head, (uint32_t)(first + 64));
        assert_int_equal(g.prod.bad_index + g.cons.bad_index, 0);
        rig_down(&g);
    }
}

static void restarted_producer_goes_on_at_its_index(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 8, 4096, 0);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(put(&g, i, 500));
    }
    g.ctl->head = g.ctl->tail = g.ctl->freed = 4000000000u; /* As the switch does when another VNF comes. */
    p2p_prod_restart(&g.prod, 4000000000u);
    p2p_cons_init(&g.cons, &g.region, 0);
    assert_int_equal(waiting(&g), 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(put(&g, i, 500));
    }
    assert_false(put(&g, 8, 500));
    assert_int_equal(take(&g, 0, 500), 0);
    rig_down(&g);
}

/* A consumer that claims to have freed what it was never given, or takes back what it has freed. */
static void bad_consumer_index_is_ignored(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 8, 4096, 50);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(put(&g, i, 400));
    }
    const uint32_t bad[] = { 59, 50 + 4096, 49, 0, UINT32_MAX, 50 + (1u << 31) };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        p2p_store(&g.ctl->freed, bad[i]);
        assert_false(put(&g, 8, 400));
        assert_int_equal(g.prod.bad_index, i + 1);
    }
    /* Honest again. */
    p2p_store(&g.ctl->freed, 52);
    assert_true(put(&g, 8, 400));
    assert_true(put(&g, 9, 400));
    p2p_store(&g.ctl->freed, 51); /* Backwards. */
    assert_false(put(&g, 10, 400));
    assert_int_equal(g.prod.bad_index, sizeof bad / sizeof bad[0] + 1);
    p2p_store(&g.ctl->freed, 60); /* All: the most that can be. */
    assert_true(put(&g, 10, 400));
    rig_down(&g);
}

/* A producer whose index is beyond what the ring holds, or goes backwards. */
static void bad_producer_index_is_ignored(void **state)
{
    struct rig g;
    (void)state;

    rig_up(&g, 8, 4096, 50);
    assert_true(put(&g, 0, 400));
    take(&g, 0, 400);
    const uint32_t bad[] = { 60, 50, 0, 51 + (1u << 31), UINT32_MAX };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        p2p_store(&g.ctl->head, bad[i]);
        assert_int_equal(waiting(&g), 0);
        assert_true(g.cons.bad_index > i);
    }
    p2p_store(&g.ctl->head, 59); /* A ringful: the most that can be.  What is in it is another matter. */
    assert_int_equal(waiting(&g), 8);
    rig_down(&g);
}

static void hostile_descriptors_are_skipped(void **state)
{
    struct rig g;
    struct p2p_pkt pkts[32];
    const uint32_t size = 16384;
    (void)state;

    rig_up(&g, 32, size, UINT32_MAX - 8);
    const struct p2p_desc bad[] = {
        { .off = 0, .len = 0 },
        { .off = 0, .len = P2P_FRAME_MIN - 1 },
        { .off = 0, .len = MAX_LEN + 1 },
        { .off = 0, .len = UINT32_MAX },
        { .off = size, .len = 64 },
        { .off = size - 63, .len = 64 },
        { .off = size - MAX_LEN + 1, .len = MAX_LEN },
        { .off = UINT32_MAX, .len = 64 },
        { .off = UINT32_MAX - 63, .len = 64 },    /* off + len is 0 in 32 bits. */
        { .off = UINT32_MAX - 63, .len = 128 },   /* off + len is 64. */
        { .off = 0x80000000u, .len = 0x80000000u },
        { .off = 64, .len = UINT32_MAX - 63 },
    };
    const struct p2p_desc good[] = {
        { .off = 0, .len = P2P_FRAME_MIN },
        { .off = size - 64, .len = 64 },
        { .off = size - MAX_LEN, .len = MAX_LEN, .hash = 7, .flags = P2P_DESC_HASH },
        { .off = 1, .len = 100, .hash = 8, .flags = ~P2P_DESC_HASH }, /* Unaligned; unknown flags. */
    };
    const unsigned n_bad = sizeof bad / sizeof bad[0], n_good = sizeof good / sizeof good[0];
    uint32_t head = g.cons.next;
    for (unsigned i = 0; i < n_bad; i++) {
        g.desc[head++ % 32] = bad[i];
        if (i < n_good) {
            g.desc[head++ % 32] = good[i];
        }
    }
    p2p_store_release(&g.ctl->head, head);

    unsigned n = p2p_cons_take(&g.cons, p2p_cons_head(&g.cons), pkts, 32, &g.bytes_out, &g.bad);
    assert_int_equal(n, n_good);
    assert_int_equal(g.bad, n_bad);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal((const uint8_t *)pkts[i].data - g.cons.data, good[i].off);
        assert_int_equal(pkts[i].len, good[i].len);
        bytes += good[i].len;
    }
    assert_int_equal(g.bytes_out, bytes);
    assert_int_equal(pkts[2].hash, 7);
    assert_int_equal(pkts[3].hash, 0);
    assert_int_equal(waiting(&g), 0);
    rig_down(&g);
}

/* A ring as long as can be, full of descriptors that are refused: each call looks at some of them only. */
static void many_bad_descriptors(void **state)
{
    enum { N = 1 << 20 };
    struct rig g;
    struct p2p_pkt pkts[32];
    (void)state;

    rig_up(&g, N, 1 << 20, 0);
    for (uint32_t i = 0; i < N; i++) {
        g.desc[i] = (struct p2p_desc) { .len = i == N - 1 ? 64 : 1 };
    }
    p2p_store_release(&g.ctl->head, N);
    unsigned calls = 0, got = 0;
    for (; waiting(&g); calls++) {
        uint32_t before = g.cons.next;
        got += p2p_cons_take(&g.cons, p2p_cons_head(&g.cons), pkts, 32, &g.bytes_out, &g.bad);
        assert_in_range(g.cons.next - before, 1, 32 + P2P_BAD_MAX);
    }
    assert_int_equal(got, 1); /* None is passed over. */
    assert_int_equal(g.bad, N - 1);
    assert_in_range(calls, N / (32 + P2P_BAD_MAX), N / P2P_BAD_MAX);
    rig_down(&g);
}

/* A data area that is smaller than the longest frame must not be believed to hold one. */
static void frame_longer_than_the_data_area(void **state)
{
    struct rig g;
    struct p2p_pkt pkt;
    (void)state;

    rig_up(&g, 8, 1024, 0);
    assert_false(put(&g, 0, 1025));
    assert_true(put(&g, 0, 1024));
    take(&g, 0, 1024);
    g.desc[1] = (struct p2p_desc) { .off = 0, .len = 2000 };
    g.ctl->head = 2;
    assert_int_equal(p2p_cons_take(&g.cons, p2p_cons_head(&g.cons), &pkt, 1, &g.bytes_out, &g.bad), 0);
    assert_int_equal(g.bad, 1);
    rig_down(&g);
}

/* A consumer that scribbles over descriptors and control words: the producer writes inside its data area all the same
 * (the sanitizer would say), and the words lead it nowhere. */
static void consumer_that_scribbles(void **state)
{
    struct rig g;
    uint64_t seed = seed_of("consumer_that_scribbles");
    (void)state;

    rig_up(&g, 16, 8192, 0);
    for (unsigned i = 0; i < 200000; i++) {
        put(&g, i, P2P_FRAME_MIN + (uint32_t)(rnd(&seed) % (MAX_LEN - P2P_FRAME_MIN)));
        g.desc[rnd(&seed) % 16] = (struct p2p_desc) { (uint32_t)rnd(&seed), (uint32_t)rnd(&seed), 0, 0 };
        p2p_store(&g.ctl->tail, (uint32_t)rnd(&seed));
        p2p_store(&g.ctl->freed, (uint32_t)(rnd(&seed) % 3 ? g.prod.freed + rnd(&seed) % 20 : rnd(&seed)));
        assert_true(g.prod.head - g.prod.freed <= 16);
        assert_true(g.prod.cursor <= g.prod.data_size);
    }
    rig_down(&g);
}

/*
 * Randomised.
 */

/* One thread, all interleavings of puts, takes and releases that come up: against a plain queue. */
static void random_operations_against_a_model(void **state)
{
    uint64_t seed = seed_of("random_operations_against_a_model");
    (void)state;

    for (unsigned run = 0; run < 40; run++) {
        struct rig g;
        uint32_t n_desc = 2u << rnd(&seed) % 8;
        uint32_t data_size = 1024 + (uint32_t)(rnd(&seed) % 400) * 64;
        uint32_t max = P2P_FRAME_MIN + (uint32_t)(rnd(&seed) % (data_size / 2 < MAX_LEN ? data_size / 2 : MAX_LEN));
        struct { uint32_t len, off; } model[4096];
        uint64_t in = 0, out = 0, freed = 0; /* Packet numbers. */

        max = max > MAX_LEN ? MAX_LEN : max;
        rig_up(&g, n_desc, data_size, (uint32_t)rnd(&seed));
        for (unsigned i = 0; i < 5000; i++) {
            unsigned what = rnd(&seed) % 16;
            if (what < 8) {
                uint32_t len = P2P_FRAME_MIN + (uint32_t)(rnd(&seed) % (max - P2P_FRAME_MIN + 1));
                if (put(&g, in, len)) {
                    assert_true(in - freed < n_desc);
                    uint32_t off = g.prod.pos[(g.prod.head - 1) & g.prod.mask];
                    assert_true(off % 64 == 0 && off + len <= data_size);
                    for (uint64_t k = freed; k < in; k++) { /* It lies on nothing that is alive. */
                        uint32_t a = model[k % 4096].off, b = a + model[k % 4096].len;
                        assert_true(off >= b || off + len <= a);
                    }
                    model[in % 4096].len = len;
                    model[in % 4096].off = off;
                    in++;
                } else {
                    assert_true(in != freed); /* An empty ring takes any frame of up to half its area. */
                }
            } else if (what < 15) {
                if (out < in) {
                    assert_int_equal(take(&g, out, model[out % 4096].len), model[out % 4096].off);
                    out++;
                    if (what == 14) {
                        p2p_cons_received(&g.cons);
                    }
                } else {
                    assert_int_equal(waiting(&g), 0);
                }
            } else {
                for (uint64_t k = freed; k < out; k++) {
                    assert_true(is_packet(g.cons.data + model[k % 4096].off, k, model[k % 4096].len));
                }
                p2p_cons_release(&g.cons);
                freed = out;
            }
        }
        assert_int_equal(g.prod.bad_index + g.cons.bad_index + g.bad, 0);
        rig_down(&g);
    }
}

struct stress {
    struct rig g;
    uint64_t seed;
    uint64_t n;
    uint32_t max;
    _Atomic uint64_t errors;
};

static uint32_t stress_len(const struct stress *s, uint64_t seq)
{
    uint64_t x = s->seed + seq * 0x9e3779b97f4a7c15u;
    rnd(&x);
    return P2P_FRAME_MIN + (uint32_t)(rnd(&x) % (s->max - P2P_FRAME_MIN + 1));
}

static void *stress_producer(void *s_)
{
    struct stress *s = s_;
    uint8_t *mem = malloc(32 * MAX_LEN);
    uint64_t seed = s->seed, seq = 0;

    while (seq < s->n && !atomic_load(&s->errors)) {
        struct p2p_buf bufs[32];
        unsigned n = 1 + (unsigned)(rnd(&seed) % 32);
        n = n < s->n - seq ? n : (unsigned)(s->n - seq);
        for (unsigned i = 0; i < n; i++) {
            uint32_t len = stress_len(s, seq + i);
            write_packet(mem + i * MAX_LEN, seq + i, len);
            bufs[i] = (struct p2p_buf) { mem + i * MAX_LEN, len, (uint32_t)(seq + i) };
        }
        unsigned sent = p2p_prod_burst(&s->g.prod, bufs, n, &s->g.bytes_in);
        seq += sent;
        if (sent < n) {
            sched_yield();
        }
    }
    free(mem);
    return NULL;
}

/* Two threads; every byte of every packet is looked at, some long after it was taken. */
static void stress(uint64_t seed, uint32_t n_desc, uint32_t data_size, uint32_t max, uint64_t n)
{
    struct stress *s = calloc(1, sizeof *s);
    struct p2p_pkt pkts[256];
    uint64_t out = 0;
    unsigned held = 0;
    pthread_t thread;

    s->seed = seed;
    s->n = n;
    s->max = max;
    rig_up(&s->g, n_desc, data_size, UINT32_MAX - (uint32_t)(n / 2)); /* It wraps half-way. */
    pthread_create(&thread, NULL, stress_producer, s);
    while (out < n && !atomic_load(&s->errors)) {
        unsigned want = 1 + (unsigned)(rnd(&seed) % 32);
        unsigned got = p2p_cons_take(&s->g.cons, p2p_cons_head(&s->g.cons), pkts + held, want, &s->g.bytes_out,
                                     &s->g.bad);
        held += got;
        p2p_cons_received(&s->g.cons);
        if (!got || held > 256 - 32 || rnd(&seed) % 4 == 0) {
            for (unsigned i = 0; i < held; i++) {
                uint64_t seq = out + i;
                if (pkts[i].len != stress_len(s, seq) || pkts[i].hash != (uint32_t)seq
                    || !is_packet(pkts[i].data, seq, pkts[i].len)) {
                    print_error("packet %llu: %u bytes, hash %u, expected %u and %u, or its content is wrong\n",
                                (unsigned long long)seq, pkts[i].len, pkts[i].hash, stress_len(s, seq), (uint32_t)seq);
                    atomic_fetch_add(&s->errors, 1);
                    break;
                }
            }
            p2p_cons_release(&s->g.cons);
            out += held;
            held = 0;
        }
        if (!got) {
            sched_yield();
        }
    }
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&s->errors), 0);
    assert_int_equal(s->g.bytes_in, s->g.bytes_out);
    assert_int_equal(s->g.prod.bad_index + s->g.cons.bad_index + s->g.bad, 0);
    rig_down(&s->g);
    free(s);
}

static void random_producer_and_consumer(void **state)
{
    uint64_t seed = seed_of("random_producer_and_consumer");
    (void)state;

    stress(seed, 1024, 384 << 10, 1522, 100000);
    stress(seed, 1024, 960 << 10, MAX_LEN, 20000);
    stress(seed, 2, 2 * 64, 60, 50000);
    stress(seed, 64, 4096, 1000, 100000);
    stress(seed, 16, 32768, MAX_LEN, 20000);
}

int main(void)
{
    cmocka_set_test_filter(getenv("P2P_TEST")); /* NULL: all. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_and_drains_in_order),
        cmocka_unit_test(full_by_descriptors_with_room_for_data),
        cmocka_unit_test(full_by_data_with_descriptors_left),
        cmocka_unit_test(all_sizes_pass),
        cmocka_unit_test(impossible_lengths_are_not_accepted),
        cmocka_unit_test(packets_do_not_wrap_around_the_end),
        cmocka_unit_test(a_ring_found_empty_starts_again_at_the_beginning),
        cmocka_unit_test(what_is_received_may_still_be_looked_at),
        cmocka_unit_test(indices_wrap),
        cmocka_unit_test(restarted_producer_goes_on_at_its_index),
        cmocka_unit_test(bad_consumer_index_is_ignored),
        cmocka_unit_test(bad_producer_index_is_ignored),
        cmocka_unit_test(hostile_descriptors_are_skipped),
        cmocka_unit_test(many_bad_descriptors),
        cmocka_unit_test(frame_longer_than_the_data_area),
        cmocka_unit_test(consumer_that_scribbles),
        cmocka_unit_test(random_operations_against_a_model),
        cmocka_unit_test(random_producer_and_consumer),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
