/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A switch with two ports and a hostile player on each: what the harnesses of the switch's side have in common.
 *
 * The input decides, step by step, what the players write and what the switch does.  What the switch takes must lie in
 * bounds; what it believes of the players' counters is bounded by what rings could have carried in the time.
 */
#ifndef ARENA_H
#define ARENA_H 1

#include "player.h"

#define N_PLAYERS 2

struct arena {
    struct p2p_switch *sw;
    struct p2p_swport *port[N_PLAYERS];
    struct player player[N_PLAYERS];
    char dir[72], socket[80];
};
extern struct arena arena;

/* A folder for the switch's socket, and a configuration with short time limits. */
void arena_init(struct p2p_switch_config *cfg);
void arena_short_limits(struct p2p_switch_config *cfg);

/* For each input: ports, players that attach; and all of it away again. */
void arena_begin(struct input *in);
void arena_end(void);

void arena_make_port(int i, struct input *in); /* Or reconfigures it. */
void arena_run(unsigned times);                /* The switch's control thread, and the players' ears. */
void arena_forgive(int i);                     /* The port's counters may have begun anew. */
void arena_check(int i);                       /* Statistics and information. */
void arena_step(struct input *in);

#endif /* arena.h */
