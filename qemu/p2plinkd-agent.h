/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent proper: brings together what OVSDB says (which VM owns which port), what vswitchd wants (which regions
 * belong where) and what the VMs have.
 *
 * It is level-triggered: agent_run() compares what is with what should be, for every port and every VM, and takes the
 * next step; nothing depends on having seen each event.  So p2plinkd can be started, stopped and killed at any time,
 * and so can vswitchd, ovsdb-server and the VMs.
 *
 * One thread.  p2plinkd.c calls agent_run() and agent_wait(); p2plinkd-ovsdb.c tells of Interface rows; p2plinkd-ctl.c
 * looks at ports and VMs and acts for the operator.
 */
#ifndef P2PLINKD_AGENT_H
#define P2PLINKD_AGENT_H 1

#include <stdbool.h>
#include <stdint.h>
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "p2plinkd-vm.h"

struct agent;
struct swconn;

/* What an Interface row of type dpdkr says about its VM.  Strings are "" if the row does not say. */
struct agent_iface {
    const char *name;
    const char *qmp;       /* external_ids:p2plink-qmp */
    const char *vm_uuid;   /* external_ids:vm-uuid */
    const char *iface_id;  /* external_ids:iface-id */
};

enum agent_claim {
    AGENT_UNCLAIMED,
    AGENT_ASKED,     /* CLAIM sent. */
    AGENT_CLAIMED,
    AGENT_REFUSED,   /* vswitchd said no; asked again at 'retry_at'. */
};

enum agent_hand {
    AGENT_HAND_OFF,  /* As OVSDB says. */
    AGENT_HAND_IN,   /* The operator has named a VM. */
    AGENT_HAND_OUT,  /* The operator has taken it out. */
};

struct agent_port {
    struct hmap_node node;      /* By 'name'. */
    char *name;

    /* OVSDB. */
    char *qmp, *vm_uuid, *iface_id;
    bool in_ovsdb;

    /* The operator. */
    enum agent_hand hand;
    char *hand_qmp;

    /* vswitchd. */
    bool in_switch;
    bool left_switch;           /* It has said that the port is gone. */
    enum agent_claim claim;
    bool listed;                /* It has named all link regions since CLAIM. */
    uint64_t generation;        /* Of the port region, once claimed. */

    /* The VM. */
    struct vm *vm;              /* Where the port is, or is being brought, or taken out of; NULL. */
    bool leaving;               /* It is being taken out of 'vm'. */
    bool ejected;               /* The guest has unplugged it by itself: not before it reboots. */
    char *error;                /* The last one, for people, or "". */

    /* Private to p2plinkd-agent.c. */
    uint32_t claim_seq;
    long long retry_at;
    unsigned backoff_ms;
    unsigned incarnation;       /* Of 'vm', when last looked at. */
    unsigned resets;
    bool seen_plugged;          /* Its region was in 'vm'. */
    struct plug_job *job;       /* The port region is being plugged. */
    long long leave_at;         /* Leaving: the guest has had time to let go of its mappings; later, 'leave_links'. */
    bool leave_links;           /* Leaving: do not wait any longer for vswitchd to take back link regions. */
    bool marked;
};

/* Where a port is on its way, in one or two words for people. */
const char *agent_port_state(const struct agent *, const struct agent_port *);

struct agent *agent_create(const char *switch_socket);
void agent_destroy(struct agent *); /* VMs keep their devices. */
void agent_run(struct agent *);
void agent_wait(struct agent *);

/* OVSDB's present contents: between begin and end, each Interface of type dpdkr. */
void agent_ifaces_begin(struct agent *);
void agent_iface(struct agent *, const struct agent_iface *);
void agent_ifaces_end(struct agent *);

/* The operator's hand on port 'name': into the VM whose monitor socket is 'qmp' (NULL: the one that OVSDB names), or
 * out.  Returns NULL, or why it cannot be done (to be freed). */
char *agent_hand_in(struct agent *, const char *name, const char *qmp);
char *agent_hand_out(struct agent *, const char *name);

const struct hmap *agent_ports(const struct agent *);  /* struct agent_port */
const struct hmap *agent_vms(const struct agent *);    /* struct vm */
const struct swconn *agent_switch(const struct agent *);
struct agent_port *agent_find_port(const struct agent *, const char *name);
/* The device of the port's present region, plugged into its VM, or NULL. */
const struct vm_device *agent_port_device(const struct agent_port *);
/* Nothing of the port is in any VM. */
bool agent_port_is_out(const struct agent *, const struct agent_port *);

#endif /* p2plinkd-agent.h */
