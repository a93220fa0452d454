/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two VNFs that behave, in the same switch as the harness's players, linked one way and connected through the switch
 * the other way.  Whatever the players do, these must not notice.
 *
 * They are the real library with its control threads; data is sent and polled in the harness's thread.
 */
#ifndef HONEST_H
#define HONEST_H 1

#include <p2plink/switch.h>

/* Attaches them, on ports "good0" and "good1", and waits until they are linked. */
void honest_start(struct p2p_switch *sw);
/* Sends both ways and checks that all arrives, in order, unharmed, and that the counters say so. */
void honest_check(void);

#endif /* honest.h */
