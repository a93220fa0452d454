/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent inside: what p2plinkd-agent.c (what is, and what should be) and p2plinkd-requests.c (vswitchd's messages)
 * share.  Only these two files include this header.
 */
#ifndef P2PLINKD_AGENT_PRIVATE_H
#define P2PLINKD_AGENT_PRIVATE_H 1

#include "p2plinkd-agent.h"
#include "p2plinkd-switch.h"

/* Between attempts at what vswitchd or a VM has refused. */
#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 8000

struct agent {
    struct swconn *sw;
    long long settle_at;        /* After the connection was made; LLONG_MAX: has passed. */
    struct hmap ports;          /* struct agent_port */
    struct hmap vms;            /* struct vm */
    bool ovsdb_known;           /* OVSDB has told its contents at least once. */
};

/* p2plinkd-agent.c */
struct agent_port *agent_get_port(struct agent *, const char *name); /* Makes it if need be. */
struct vm_region agent_port_region(const struct agent_port *);
void agent_set_string(char **field, const char *value);
/* vswitchd does not know of a VM for this port. */
void agent_port_unclaimed(struct agent_port *);

/* p2plinkd-requests.c */
extern const struct swconn_callbacks agent_switch_callbacks;
void agent_forget_job(struct agent_port *); /* Its outcome does not matter any more. */

#endif /* p2plinkd-agent-private.h */
