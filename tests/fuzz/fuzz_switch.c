/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch against hostile VNFs.
 *
 * A real switch; two ports with players that attach through the socket and then write what the input says wherever it
 * says in their port regions and in the link region between them, while the switch polls, feeds, links, counts.
 * Beside them an honest pair, which must not notice.  The switch stays from input to input; its ports do not.
 */
#include "arena.h"
#include "honest.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct p2p_switch_config cfg;
    struct p2p_error err;

    (void)argc;
    (void)argv;
    arena_init(&cfg);
    CHECK(!p2p_switch_create(&cfg, &arena.sw, &err));
    honest_start(arena.sw); /* With time enough: these answer in real time. */
    arena_short_limits(&arena.sw->cfg);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };

    arena_begin(&in);
    for (int k = 0; k < 300 && in.left; k++) {
        arena_step(&in);
    }
    for (int i = 0; i < N_PLAYERS; i++) {
        arena_check(i);
    }
    honest_check();
    arena_end();
    for (int k = 0; k < 100 && arena.sw->conns->next->next; k++) {
        arena_run(1); /* It takes in some connections at a time. */
    }
    CHECK(arena.sw->conns && arena.sw->conns->next && !arena.sw->conns->next->next); /* The honest two. */
    CHECK(arena.sw->chans && !arena.sw->chans->next);
    honest_check();
    return 0;
}
