/* SPDX-License-Identifier: Apache-2.0 */
/* How a switch dies without a word: everything that it does from now on, to memory that others see, it does to
 * copies. */
#ifndef DEATH_H
#define DEATH_H 1

#include "sw.h"

/* Destroy its ports and then it afterwards; then call death_over(). */
void death_begin(struct p2p_switch *sw);
void death_over(void);

#endif /* death.h */
