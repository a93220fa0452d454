/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p2plinkd's unixctl commands, which p2plinkctl sends:
 *
 *   p2plinkd/list [--json]                 ports, a line each
 *   p2plinkd/show [--json] [PORT]          ports, VMs and devices
 *   p2plinkd/plug [--json] PORT [QMP]      plug a port's region into a VM; answers when it is done
 *   p2plinkd/unplug [--json] PORT          take a port out of its VM, and leave it out; answers when it is done
 *
 * One thread; p2plinkd.c calls it.
 */
#ifndef P2PLINKD_CTL_H
#define P2PLINKD_CTL_H 1

struct agent;
struct watcher;

void ctl_init(struct agent *, const struct watcher *);
void ctl_run(void);   /* Answers those who wait. */
void ctl_wait(void);
void ctl_exit(void);  /* Answers them with an error. */

#endif /* p2plinkd-ctl.h */
