/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM: its monitor connection, the p2plink devices that it has, and the state machine that plugs and unplugs them.
 *
 * A device is a memory backend (object) and an ivshmem-plain PCI device over it, both with the same id (p2plinkd-id.h).
 * A link region is plugged once into a VM even if both of its ports are there: "users" are the ports that it serves.
 *
 * Called by p2plinkd-agent.c from p2plinkd's only thread; nothing here blocks, and VMs do not wait for each other.
 */
#ifndef P2PLINKD_VM_H
#define P2PLINKD_VM_H 1

#include <stdbool.h>
#include <stdint.h>
#include "openvswitch/hmap.h"
#include "openvswitch/list.h"
#include "openvswitch/shash.h"
#include "p2plinkd-id.h"
#include "sset.h"

struct vm;

/* How long a guest may take to let go of a device before those who wait are told so, ms. */
extern unsigned vm_unplug_timeout_ms;

enum vm_device_state {
    VM_DEV_QUEUED,     /* To be plugged, after others. */
    VM_DEV_PLUGGING,   /* QEMU is being asked. */
    VM_DEV_PLUGGED,
    VM_DEV_UNPLUGGING, /* The guest has been asked to let go. */
    VM_DEV_REMOVING,   /* The guest has let go; the memory backend is being removed. */
    VM_DEV_UNKNOWN,    /* The connection was lost: what QEMU has is not known. */
};
const char *vm_device_state_name(enum vm_device_state);

struct vm_device {
    char *id;
    struct vm_region region;      /* 'port' is "" for link regions; 'size' 0: not known. */
    struct sset users;            /* Link regions: names of ports. */
    enum vm_device_state state;
    bool wanted;                  /* Stays, or goes. */
    bool late;                    /* Unplugging: the guest has exceeded its time. */
    double plug_ms;               /* From the request to QEMU's consent; 0: plugged by a former p2plinkd. */
    long long since;              /* Wall clock, ms: the present state's beginning. */
    int fd;                       /* The region, or -1: not known. */
    long long retire_at;          /* For the agent: nobody needs it any more, and it goes at this time_msec(); 0. */

    /* Private to p2plinkd-device.c. */
    struct vm *vm;
    int64_t fdset;                /* QEMU's number for it, or -1. */
    bool has_object;
    size_t root_port;             /* How many root ports have been tried: first those that it fits into. */
    char bus[64];
    bool tight;                   /* That root port may not have room for it. */
    char *refusal;                /* Why a root port did not take it, or NULL. */
    long long started_us;
    long long deadline;           /* Next attempt to unplug, or to remove the object. */
    long long unplug_since;       /* time_msec() */
    unsigned attempts;
    struct ovs_list plug_waiters, unplug_waiters; /* struct waiter */
};

enum vm_state {
    VM_ABSENT,   /* Nobody listens on its monitor socket. */
    VM_TROUBLE,  /* Somebody does, but it does not work; it is tried again. */
    VM_SYNCING,  /* It is being asked what it has. */
    VM_READY,
};
const char *vm_state_name(enum vm_state);

struct vm {
    struct hmap_node node;        /* The agent's, by 'path'. */
    char *path;                   /* Of the monitor socket. */
    enum vm_state state;
    struct shash devices;         /* struct vm_device, by id. */
    char *machine;                /* QEMU's name of its machine type, or "". */
    char *trouble;                /* The last one, for people, or "". */
    unsigned incarnation;         /* Changes when the VM is gone, or comes back. */
    unsigned resets;              /* How often the guest was seen to reboot. */

    /* Private to p2plinkd-vm.c and p2plinkd-device.c. */
    struct qmp *qmp;
    bool said_down;
    struct vm_device *plugging;   /* One at a time: they would race for slots. */
    struct sset found_objects, found_devices;
    struct vm_root_port *root_ports; /* Sorted by id. */
    size_t n_root_ports;
    size_t next_root_port;        /* Syncing: the one that is being asked. */
};

/* The end of vm_plug() or vm_unplug(): 'error' 0 or a negative errno, with 'text' for people.  It must not call
 * functions of this file. */
typedef void vm_done_func(void *aux, int error, const char *text);

struct vm *vm_create(const char *path);
/* Answers those who wait with an error.  The VM keeps its devices. */
void vm_destroy(struct vm *);
void vm_run(struct vm *);
void vm_wait(struct vm *);
void vm_hurry(struct vm *); /* There is reason to believe that it is there now. */
const char *vm_qemu_version(const struct vm *);

/* Plugs a region.  Takes over 'fd'.  Already plugged: fine.  'done' (which may be NULL) is called later or at once. */
void vm_plug(struct vm *, const struct vm_region *, int fd, vm_done_func *done, void *aux);
/* Unplugs 'device'; 'done' (or NULL) is called when it is gone, or when the guest has not let go in time: it is tried
 * on until it does. */
void vm_unplug(struct vm *, struct vm_device *, vm_done_func *done, void *aux);

/* The device of a region, or NULL.  'region->size' does not count. */
struct vm_device *vm_find(const struct vm *, const struct vm_region *);
/* Any device of 'port's region, the wanted ones first, or NULL. */
struct vm_device *vm_find_port(const struct vm *, const char *port);

#endif /* p2plinkd-vm.h */
