/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without a virtual machine: a directory that looks like sysfs with ivshmem devices in it, and an agent that
 * "plugs" what the switch sends it by putting it there.  VNFs that attach with P2P_ATTACH_PCI and this 'sysfs' run the
 * library's guest code, on memory instead of a BAR.
 */
#ifndef FAKEPCI_H
#define FAKEPCI_H 1

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <p2plink/common.h>
#include <p2plink/control.h>
#include <p2plink/vnf.h>

#define FAKE_SLOTS 8

struct fake_vm {
    char sysfs[64];
    int fd[FAKE_SLOTS];           /* -1: nothing there. */
    uint64_t generation[FAKE_SLOTS];
};
void fake_vm_init(struct fake_vm *vm);
void fake_vm_destroy(struct fake_vm *vm);
int fake_vm_plug(struct fake_vm *vm, int fd, uint64_t generation); /* Takes 'fd' over; returns the slot. */
void fake_vm_unplug(struct fake_vm *vm, uint64_t generation);
bool fake_vm_has(const struct fake_vm *vm, uint64_t generation);
unsigned fake_vm_devices(const struct fake_vm *vm);
int fake_vm_open(struct fake_vm *vm, const char *name, unsigned wait_ms, struct p2p_port **portp,
                 struct p2p_error *err);

/* An agent with a VM for each port that it is told of; does what it is asked for until told otherwise. */
#define AGENT_VMS 4
struct fake_agent {
    const char *path;
    int sock;
    bool running;
    atomic_bool stop;
    atomic_bool mute;             /* Does not answer PLUG and UNPLUG, nor do them. */
    atomic_bool refuse;           /* Answers them with an error. */
    atomic_uint plugs, unplugs, replugs, ports_gone, claims_done;
    pthread_t thread;
    pthread_mutex_t mutex;
    struct {
        char name[P2P_NAME_MAX];
        struct fake_vm vm;
        uint64_t generation;      /* Of the port region that is plugged. */
        uint32_t claim_seq;
    } port[AGENT_VMS];
    unsigned n_ports;
};
void fake_agent_init(struct fake_agent *a, const char *path);
void fake_agent_add(struct fake_agent *a, const char *port); /* Before it is started. */
void fake_agent_start(struct fake_agent *a); /* Connects; also again, with the VMs as they are. */
void fake_agent_stop(struct fake_agent *a);  /* Its connection breaks; the VMs stay. */
void fake_agent_destroy(struct fake_agent *a);
struct fake_vm *fake_agent_vm(struct fake_agent *a, const char *port);

#endif
