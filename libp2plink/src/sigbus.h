/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that goes away under its reader.
 *
 * Whoever may write a region's file may punch a hole into it; no seal that leaves it writable forbids that.  On tmpfs
 * the hole is filled at the next touch.  On huge pages it is filled if there is a huge page left, and whoever punched
 * the hole can see to it that there is none: then the kernel sends SIGBUS to the next one that touches the place.  That
 * must not be the end of a switch, nor of a VNF whose peer has done it.
 *
 * So regions are watched: a SIGBUS inside one puts anonymous zero pages in the place of the whole region, for this
 * process only, and marks it torn; the touch is repeated and goes on.  The control thread finds out by
 * p2p_sigbus_torn() and lets the region go.  All other SIGBUS go to whoever handled them before.
 *
 * Any thread.  The table is read by the signal handler: plain atomics, nothing allocated.
 */
#ifndef P2P_SIGBUS_H
#define P2P_SIGBUS_H 1

#include <stdbool.h>
#include <stddef.h>

/* Installs the handler, once per process.  With 'polite', only if nobody else handles SIGBUS: for libraries inside
 * other people's programs. */
void p2p_sigbus_install(bool polite);

/* Returns a number for the other calls, or 0: the table is full, and nobody watches. */
int p2p_sigbus_watch(void *base, size_t size);
void p2p_sigbus_forget(int watch);       /* Before the mapping goes.  0 is allowed. */
bool p2p_sigbus_torn(int watch);

#endif /* sigbus.h */
