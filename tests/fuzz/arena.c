/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"
#include <string.h>
#include <unistd.h>

#define BURST 32
#define NS_PER_PACKET 2 /* As sw_stats.c has it. */

struct arena arena;

/* What of a port's counters has been seen, and what is the most that can be true. */
static struct account {
    struct p2p_swport_stats last;
    uint64_t since_ns;
    unsigned looks; /* Times that the switch may have looked at the VNF's words. */
} account[N_PLAYERS];

static void remove_dir(void)
{
    static const char *const suffix[] = { "", ".lock", ".ledger" };

    for (int i = 0; i < 3; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s%s", arena.socket, suffix[i]);
        unlink(path);
    }
    rmdir(arena.dir);
}

void arena_init(struct p2p_switch_config *cfg)
{
    fuzz_make_dir(arena.dir, sizeof arena.dir);
    snprintf(arena.socket, sizeof arena.socket, "%s/sock", arena.dir);
    atexit(remove_dir);
    p2p_switch_config_init(cfg);
    cfg->socket = arena.socket;
    cfg->use_hugepages = false;
    cfg->log = fuzz_log;
}

void arena_short_limits(struct p2p_switch_config *cfg)
{
    cfg->linger_ms = 50;
    cfg->drain_ms = 30;
    cfg->answer_ms = 20;
    cfg->plug_ms = 40;
    cfg->heartbeat_ms = 60;
    cfg->retry_ms = 5;
    cfg->hold_max_ms = 10;
}

void arena_forgive(int i)
{
    account[i] = (struct account) { .since_ns = fuzz_now_ns() };
}

void arena_run(unsigned times)
{
    while (times--) {
        p2p_switch_run(arena.sw, 0);
        for (int i = 0; i < N_PLAYERS; i++) {
            account[i].looks += 4; /* More than it ever does in one go. */
            player_listen(&arena.player[i]);
        }
    }
}

static void check_stats(int i)
{
    struct account *a = &account[i];
    struct p2p_swport_stats s;
    const unsigned n = P2P_MAX_QUEUES;
    uint64_t slack = (uint64_t)(a->looks + 2) * n * 1024;

    p2p_swport_get_stats(arena.port[i], &s);
    for (int k = 0; k < N_PLAYERS; k++) {
        account[k].looks++;
    }
    CHECK(s.out_packets >= a->last.out_packets && s.out_bytes >= a->last.out_bytes);
    CHECK(s.in_packets >= a->last.in_packets && s.in_bytes >= a->last.in_bytes);
    CHECK(s.in_dropped >= a->last.in_dropped && s.rx_bad >= a->last.rx_bad && s.tx_refused >= a->last.tx_refused);
    uint64_t most = (fuzz_now_ns() - a->since_ns) / NS_PER_PACKET * n + slack;
    CHECK(s.out_packets <= most && s.in_packets <= most);
    CHECK(s.out_bytes <= (s.out_packets + slack) * (P2P_MTU_MAX + P2P_FRAME_OVERHEAD));
    CHECK(s.in_dropped <= s.in_packets);
    a->last = s;
}

/* What the switch's own notes of a ring towards the VNF may say. */
static void check_rings(int i)
{
    const struct sw_region *r = arena.port[i]->region;

    for (unsigned q = 0; q < r->n_queues; q++) {
        const struct p2p_prod *p = &r->tx[q].ring;
        CHECK(p->cursor <= p->data_size && p->head - p->freed <= p->mask + 1);
        for (uint32_t k = p->freed; k != p->head; k++) {
            CHECK(p->pos[k & p->mask] <= p->data_size - P2P_FRAME_MIN);
        }
    }
}

static void check_info(int i)
{
    struct p2p_swport_info info;
    char text[4096];

    p2p_swport_get_info(arena.port[i], &info);
    CHECK(info.ring_used <= P2P_MAX_QUEUES * 1024);
    CHECK(strnlen(info.last_error, sizeof info.last_error) < sizeof info.last_error);
    CHECK(strnlen(info.peer, sizeof info.peer) < sizeof info.peer);
    CHECK(info.n_queues && info.n_queues <= P2P_MAX_QUEUES);
    (void)p2p_swport_plug_commands(arena.port[i], text, sizeof text);
    for (int k = 0; k < N_PLAYERS; k++) {
        account[k].looks++;
    }
}

void arena_check(int i)
{
    check_stats(i);
    check_info(i);
    check_rings(i);
}

/* A PMD polls, and forwards to the other player's port, or nowhere. */
static void poll_port(int i, struct input *in)
{
    static uint8_t copy[BURST][P2P_MTU_MAX + P2P_FRAME_OVERHEAD];
    struct p2p_pkt pkts[BURST];
    struct p2p_buf bufs[BURST];
    uint8_t how = in8(in);
    unsigned queue = in_below(in, arena.port[i]->cfg.n_queues + 1), budget = 1 + how % BURST;
    unsigned n = p2p_swport_rx_begin(arena.port[i], queue, pkts, budget, how & 0x80);

    CHECK(n <= budget);
    for (unsigned k = 0; k < n; k++) {
        const struct p2p_region *r = &arena.port[i]->region->region;
        const uint8_t *at = pkts[k].data;
        CHECK(pkts[k].len >= P2P_FRAME_MIN && pkts[k].len <= arena.port[i]->cfg.mtu + P2P_FRAME_OVERHEAD);
        CHECK(at >= r->base + 3 * P2P_PAGE && at + pkts[k].len <= r->base + r->size);
        memcpy(copy[k], at, pkts[k].len);
        bufs[k] = (struct p2p_buf) { copy[k], pkts[k].len, pkts[k].hash };
    }
    p2p_swport_rx_end(arena.port[i], queue);
    (void)p2p_swport_rx_wants_flush(arena.port[i], queue);
    if (how & 0x40) {
        CHECK(p2p_swport_tx_burst(arena.port[!i], queue, bufs, n) <= n);
    }
}

static void feed_port(int i, struct input *in)
{
    static const uint8_t packet[P2P_MTU_MAX + P2P_FRAME_OVERHEAD];
    struct p2p_buf bufs[BURST];
    unsigned n = in_below(in, BURST + 1);

    for (unsigned k = 0; k < n; k++) {
        bufs[k] = (struct p2p_buf) { packet, P2P_FRAME_MIN + in8(in) * 6, k };
    }
    CHECK(p2p_swport_tx_burst(arena.port[i], in8(in), bufs, n) <= n);
}

static void set_target(int i, struct input *in)
{
    uint8_t what = in8(in);
    p2p_swport_set_target(arena.port[i], what % 4 == 0 ? NULL : arena.port[!i], what % 4 ? NULL : "fuzz");
}

static void confirm(int i, struct input *in)
{
    struct p2p_swport *to;
    uint64_t ticket;

    if (p2p_swport_wants_confirm(arena.port[i], &to, &ticket)) {
        CHECK(to == arena.port[!i]);
        (void)p2p_swport_confirm(arena.port[i], ticket, in8(in) % 8, "fuzz");
    }
    if (p2p_swport_held(arena.port[i], &ticket)) {
        p2p_swport_unhold(arena.port[i], ticket);
    }
}

void arena_make_port(int i, struct input *in)
{
    static const struct { unsigned n_queues, mtu; } shape[] = { { 1, 1500 }, { 2, 1500 }, { 3, 300 }, { 1, 9000 } };
    uint8_t k = in8(in);
    struct p2p_swport_config cfg = {
        .name = arena.player[i].name, .n_queues = shape[k % 4].n_queues, .mtu = shape[k % 4].mtu, .numa_node = -1,
    };
    struct p2p_error err;

    if (arena.port[i]) {
        CHECK(!p2p_swport_reconfigure(arena.port[i], &cfg, &err));
    } else {
        CHECK(!p2p_swport_create(arena.sw, &cfg, &arena.port[i], &err));
        arena_forgive(i);
    }
}

static void write_word(int i, struct input *in)
{
    uint64_t *word = player_word(&arena.player[i], in);
    if (word) {
        p2p_store(word, in_word(in, *word));
    }
}

/* One thing that the switch does, with words changing meanwhile. */
static void scribbled(int i, struct input *in)
{
    struct scribble s[SCRIBBLES_MAX];
    unsigned n = 0;

    for (unsigned k = 1 + in_below(in, 4); k; k--) {
        uint64_t *word = player_word(&arena.player[in8(in) % N_PLAYERS], in);
        if (word) {
            s[n].at = word;
            s[n++].value = in_word(in, *word);
        }
    }
    scribble_begin(s, n);
    for (unsigned k = 1 + in_below(in, 4); k; k--) {
        arena_run(1 + in_below(in, 3));
        poll_port(i, in);
        feed_port(i, in);
        confirm(i, in);
        arena_check(i);
    }
    scribble_end();
}

void arena_step(struct input *in)
{
    uint8_t op = in8(in);
    int i = op >> 7;

    switch (op % 24) {
    case 0: case 1: case 2: case 3: case 4: case 5:
        write_word(i, in);
        break;
    case 6:
        arena_run(1 + in_below(in, 4));
        break;
    case 7:
        fuzz_pass_ms(in8(in));
        arena_run(1);
        break;
    case 8:
        poll_port(i, in);
        break;
    case 9:
        feed_port(i, in);
        break;
    case 10:
        set_target(i, in);
        break;
    case 11:
        confirm(i, in);
        break;
    case 12:
        check_stats(i);
        break;
    case 13:
        check_info(i);
        break;
    case 14: case 15:
        player_behave(&arena.player[i]);
        break;
    case 16: /* All is well for a while: gets far into the state machine. */
        for (int k = 0; k < 6; k++) {
            player_behave(&arena.player[0]);
            player_behave(&arena.player[1]);
            arena_run(1);
            confirm(0, in);
            confirm(1, in);
        }
        break;
    case 17:
        if (in8(in) & 1) {
            player_send(&arena.player[i], in8(in), 60 + in8(in));
        } else {
            player_forge(&arena.player[i], in);
            poll_port(i, in);
        }
        break;
    case 18:
        player_send_direct(&arena.player[i], in8(in), 60 + in8(in), in8(in) & 1);
        break;
    case 19:
        player_introduce(&arena.player[i]);
        break;
    case 20:
        player_attach(&arena.player[i]);
        break;
    case 21:
        if (in8(in) % 8 == 0) {
            player_hang_up(&arena.player[i]);
        }
        break;
    case 22:
        if (in8(in) % 4 == 0) {
            arena_make_port(i, in);
        }
        break;
    case 23:
        if (in8(in) % 8 == 0) {
            scribbled(i, in);
        }
        break;
    }
}

void arena_begin(struct input *in)
{
    for (int i = 0; i < N_PLAYERS; i++) {
        player_init(&arena.player[i], arena.sw, i ? "bad1" : "bad0");
        arena_make_port(i, in);
        player_attach(&arena.player[i]);
    }
    arena_run(2); /* They are accepted, and answered. */
}

void arena_end(void)
{
    for (int i = 0; i < N_PLAYERS; i++) {
        p2p_swport_destroy(arena.port[i]);
        arena.port[i] = NULL;
        player_free(&arena.player[i]);
    }
    arena_run(2);
}
