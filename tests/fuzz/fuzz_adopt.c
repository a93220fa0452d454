/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A switch that comes back, against what VNFs offer it from before.
 *
 * Two players as in fuzz_switch.c; the switch dies now and then (what it knows afterwards is the ledger, as it was at
 * that moment), and the players offer it their regions, with whatever they have written into them, or other memory in
 * their place.  Time is frozen but for what the input lets pass.
 */
#include "arena.h"
#include "death.h"

static struct p2p_switch_config cfg;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_freeze_time();
    arena_init(&cfg);
    arena_short_limits(&cfg);
    return 0;
}

static void start(void)
{
    struct p2p_error err;

    CHECK(!p2p_switch_create(&cfg, &arena.sw, &err));
    for (int i = 0; i < N_PLAYERS; i++) {
        arena.player[i].sw = arena.sw;
    }
}

static void restart(struct input *in)
{
    struct p2p_swport_config pc[N_PLAYERS];

    death_begin(arena.sw);
    for (int i = 0; i < N_PLAYERS; i++) {
        pc[i] = arena.port[i]->cfg;
        p2p_swport_destroy(arena.port[i]);
    }
    p2p_switch_destroy(arena.sw);
    death_over();

    start();
    p2p_switch_set_restoring(arena.sw, in8(in) & 1);
    for (int i = 0; i < N_PLAYERS; i++) {
        struct p2p_error err;
        arena.port[i] = NULL;
        if (in8(in) % 8) { /* As it was, */
            pc[i].name = arena.player[i].name;
            CHECK(!p2p_swport_create(arena.sw, &pc[i], &arena.port[i], &err));
        } else { /* or configured differently meanwhile. */
            arena_make_port(i, in);
        }
        arena_forgive(i);
    }
}

static void step(struct input *in)
{
    uint8_t op = in8(in);

    switch (op % 8) {
    case 0:
        restart(in);
        break;
    case 1:
    case 2:
        player_come_back(&arena.player[op >> 7], in);
        arena_run(2);
        break;
    case 3:
        p2p_switch_set_restoring(arena.sw, op >> 7);
        arena_run(1);
        break;
    default:
        arena_step(in);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    int fds = fuzz_count_fds();

    start();
    arena_begin(&in);
    for (int k = 0; k < 200 && in.left; k++) {
        step(&in);
    }
    for (int i = 0; i < N_PLAYERS; i++) {
        arena_check(i);
    }
    arena_end();
    for (int k = 0; k < 100 && arena.sw->conns; k++) {
        arena_run(1);
    }
    CHECK(!arena.sw->conns && !arena.sw->chans);
    p2p_switch_destroy(arena.sw);
    CHECK(fuzz_wait_fds(fds));
    return 0;
}
