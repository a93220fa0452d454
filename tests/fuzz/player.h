/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VNF as a harness plays it: attaches through the real socket, and then does as the input says, well or badly.
 *
 * Everything in the harness's thread.  The player maps memory for itself, so that what it does to it is its own.
 */
#ifndef PLAYER_H
#define PLAYER_H 1

#include <p2plink/control.h>
#include <p2plink/switch.h>
#include "fuzz.h"
#include "region.h"
#include "ring.h"
#include "sw.h"

struct player_map {
    uint8_t *base;      /* NULL: none. */
    size_t size;
    int fd;             /* Kept, for a switch that comes back. */
    struct p2p_region_header hdr;
};

struct player {
    struct p2p_switch *sw;
    char name[8];
    int sock;                           /* -1: none. */
    struct player_map port;
    struct player_map link[P2P_MAX_LINKS];
    struct p2p_switch_page *switch_page;
    struct p2p_vnf_page *vnf_page;
    uint64_t session;
    unsigned n_adopted;                 /* Times that a switch has let it stay where it was. */
};

void player_init(struct player *p, struct p2p_switch *sw, const char *name);
/* Connects and asks for the port.  What comes of it, player_listen() takes in. */
void player_attach(struct player *p);
/* The same with what it has from a former switch: offers it, or something like it. */
void player_come_back(struct player *p, struct input *in);
void player_listen(struct player *p);
void player_hang_up(struct player *p);
void player_free(struct player *p);     /* Its mappings too. */

/* Draws a session. */
void player_introduce(struct player *p);
/* Answers all words as a good VNF does, and empties its receive rings. */
void player_behave(struct player *p);
/* Sends a packet of 'len' bytes on the normal ring, properly as far as the ring's indices allow that; or one that the
 * input describes. */
void player_send(struct player *p, unsigned queue, uint32_t len);
void player_forge(struct player *p, struct input *in);
/* Does the same in the direct ring of 'queue' of the first link, and counts it if 'count'. */
void player_send_direct(struct player *p, unsigned queue, uint32_t len, bool count);
/* Chooses a word of what it has mapped, mostly one that somebody reads; NULL if it has nothing. */
uint64_t *player_word(struct player *p, struct input *in);

#endif /* player.h */
