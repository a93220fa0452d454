/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches OVSDB's Interface table for rows of type dpdkr, and tells the agent which VM owns each of them.  Only reads.
 *
 * One thread; p2plinkd.c calls it.
 */
#ifndef P2PLINKD_OVSDB_H
#define P2PLINKD_OVSDB_H 1

#include <stdbool.h>

struct agent;
struct watcher;

struct watcher *watcher_create(const char *remote);
void watcher_destroy(struct watcher *);
void watcher_run(struct watcher *, struct agent *);
void watcher_wait(struct watcher *);
const char *watcher_remote(const struct watcher *);
bool watcher_is_connected(const struct watcher *);

#endif /* p2plinkd-ovsdb.h */
