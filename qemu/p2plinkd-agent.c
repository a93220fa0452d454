/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-agent-private.h"
#include <string.h>
#include "hash.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "p2plinkd-region.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd_agent);

/* A device that nobody needs any more stays this long: a guest that has just been told to let go of it, or given a
 * newer one, must have done so before the memory disappears under it. */
#define RETIRE_MS 1000
/* Link regions of a port that leaves a VM are unplugged when vswitchd says so, but not later than this. */
#define LEAVE_LINKS_MS 5000

/*
 * Ports and VMs.
 */

struct agent_port *agent_find_port(const struct agent *a, const char *name)
{
    struct agent_port *p;

    HMAP_FOR_EACH_WITH_HASH (p, node, hash_string(name, 0), &a->ports) {
        if (!strcmp(p->name, name)) {
            return p;
        }
    }
    return NULL;
}

struct agent_port *agent_get_port(struct agent *a, const char *name)
{
    struct agent_port *p = agent_find_port(a, name);

    if (!p) {
        p = xzalloc(sizeof *p);
        p->name = xstrdup(name);
        p->qmp = xstrdup("");
        p->vm_uuid = xstrdup("");
        p->iface_id = xstrdup("");
        p->error = xstrdup("");
        hmap_insert(&a->ports, &p->node, hash_string(name, 0));
    }
    return p;
}

struct vm_region agent_port_region(const struct agent_port *p)
{
    struct vm_region r = { .generation = p->generation };

    ovs_strlcpy(r.port, p->name, sizeof r.port);
    return r;
}

void agent_set_string(char **field, const char *value)
{
    if (strcmp(*field, value)) {
        free(*field);
        *field = xstrdup(value);
    }
}

void agent_port_unclaimed(struct agent_port *p)
{
    p->claim = AGENT_UNCLAIMED;
    p->claim_seq = 0;
    p->listed = false;
    p->retry_at = 0;
    p->backoff_ms = 0;
}

static void port_destroy(struct agent *a, struct agent_port *p)
{
    agent_forget_job(p);
    hmap_remove(&a->ports, &p->node);
    free(p->name);
    free(p->qmp);
    free(p->vm_uuid);
    free(p->iface_id);
    free(p->hand_qmp);
    free(p->error);
    free(p);
}

static struct vm *find_vm(const struct agent *a, const char *path)
{
    struct vm *vm;

    HMAP_FOR_EACH_WITH_HASH (vm, node, hash_string(path, 0), &a->vms) {
        if (!strcmp(vm->path, path)) {
            return vm;
        }
    }
    return NULL;
}

static struct vm *get_vm(struct agent *a, const char *path)
{
    struct vm *vm = find_vm(a, path);

    if (!vm) {
        vm = vm_create(path);
        hmap_insert(&a->vms, &vm->node, hash_string(path, 0));
    }
    return vm;
}

/* The monitor socket of the VM that should have the port, or "". */
static const char *wanted_qmp(const struct agent_port *p)
{
    switch (p->hand) {
    case AGENT_HAND_IN:
        return p->hand_qmp;
    case AGENT_HAND_OUT:
        return "";
    case AGENT_HAND_OFF:
    default:
        return p->in_ovsdb ? p->qmp : "";
    }
}

const struct vm_device *agent_port_device(const struct agent_port *p)
{
    if (!p->vm || p->claim != AGENT_CLAIMED) {
        return NULL;
    }
    struct vm_region r = agent_port_region(p);
    const struct vm_device *d = vm_find(p->vm, &r);
    return d && d->state == VM_DEV_PLUGGED && d->wanted ? d : NULL;
}

/* Something of 'p' is in 'vm': its region, or a link region that it uses. */
static bool vm_has_port(const struct vm *vm, const struct agent_port *p)
{
    struct shash_node *node;

    SHASH_FOR_EACH (node, &vm->devices) {
        const struct vm_device *d = node->data;
        if (d->region.link_id ? sset_contains(&d->users, p->name) : !strcmp(d->region.port, p->name)) {
            return true;
        }
    }
    return false;
}

bool agent_port_is_out(const struct agent *a, const struct agent_port *p)
{
    struct vm *vm;

    HMAP_FOR_EACH (vm, node, &a->vms) {
        if (vm_has_port(vm, p)) {
            return false;
        }
    }
    return !p->vm;
}

const char *agent_port_state(const struct agent *a, const struct agent_port *p)
{
    if (p->leaving) {
        return "being unplugged";
    } else if (p->hand == AGENT_HAND_OUT) {
        return "out by hand";
    } else if (!p->vm) {
        return "no VM";
    } else if (p->ejected) {
        return "ejected by the guest";
    } else if (p->vm->state != VM_READY) {
        return "waiting for the VM";
    } else if (!swconn_is_up(a->sw)) {
        return vm_find_port(p->vm, p->name) ? "plugged, vswitchd away" : "waiting for vswitchd";
    } else if (!p->in_switch) {
        return "unknown to vswitchd";
    } else if (p->claim == AGENT_REFUSED) {
        return "refused by vswitchd";
    } else if (p->claim != AGENT_CLAIMED) {
        return "claiming";
    } else if (agent_port_device(p)) {
        return "plugged";
    }
    return p->error[0] ? "failed" : "plugging";
}

/*
 * OVSDB.
 */

void agent_ifaces_begin(struct agent *a)
{
    struct agent_port *p;

    HMAP_FOR_EACH (p, node, &a->ports) {
        p->marked = false;
    }
}

void agent_iface(struct agent *a, const struct agent_iface *iface)
{
    if (!iface->name[0] || strlen(iface->name) >= P2P_NAME_MAX) {
        return; /* No such port can be in vswitchd. */
    }
    struct agent_port *p = agent_get_port(a, iface->name);
    bool changed = !p->in_ovsdb || strcmp(p->qmp, iface->qmp);

    p->marked = true;
    p->in_ovsdb = true;
    agent_set_string(&p->qmp, iface->qmp);
    agent_set_string(&p->vm_uuid, iface->vm_uuid);
    agent_set_string(&p->iface_id, iface->iface_id);
    if (changed) {
        if (p->qmp[0]) {
            VLOG_INFO("port %s belongs to VM %s%s%s", p->name, p->qmp, p->vm_uuid[0] ? ", uuid " : "", p->vm_uuid);
            struct vm *vm = find_vm(a, p->qmp);
            if (vm) {
                vm_hurry(vm);
            }
        } else {
            VLOG_INFO("port %s belongs to no known VM (external_ids:p2plink-qmp is not set)", p->name);
        }
    }
}

void agent_ifaces_end(struct agent *a)
{
    struct agent_port *p;

    a->ovsdb_known = true;
    HMAP_FOR_EACH (p, node, &a->ports) {
        if (!p->marked) {
            p->in_ovsdb = false;
            agent_set_string(&p->qmp, "");
        }
    }
}

/*
 * What is, and what should be.
 */

static void release(struct agent *a, struct agent_port *p)
{
    if (p->claim == AGENT_CLAIMED || p->claim == AGENT_ASKED) {
        const struct swconn_region r = { .generation = p->generation, .fd = -1 };
        swconn_ask(a->sw, P2P_MSG_RELEASE, p->name, &r);
    }
    agent_port_unclaimed(p);
}

/* Takes 'p' out of its VM: vswitchd tells the guest to let go, then the devices are unplugged. */
static void leave(struct agent *a, struct agent_port *p)
{
    struct vm *vm = p->vm;
    struct shash_node *node;

    if (!p->leaving) {
        p->leaving = true;
        p->leave_links = false;
        p->leave_at = time_msec() + RETIRE_MS;
        p->ejected = false;
        release(a, p);
        poll_immediate_wake();
        return;
    }
    if (!vm_has_port(vm, p) && !p->job) {
        VLOG_INFO("port %s is out of VM %s", p->name, vm->path);
        p->vm = NULL;
        p->leaving = false;
        p->seen_plugged = false;
        return;
    }

    long long now = time_msec();
    if (now < p->leave_at || vm->state != VM_READY) {
        return;
    }
    SHASH_FOR_EACH_SAFE (node, &vm->devices) {
        struct vm_device *d = node->data;
        if (!d->region.link_id && !strcmp(d->region.port, p->name)) {
            if (d->wanted) {
                vm_unplug(vm, d, NULL, NULL);
            }
        } else if (p->leave_links) {
            sset_find_and_delete(&d->users, p->name); /* retire() does the rest. */
        }
    }
    p->leave_at = p->leave_links ? LLONG_MAX : now + LEAVE_LINKS_MS;
    p->leave_links = true;
}

static struct swconn_region device_region(const struct vm_device *d)
{
    return (struct swconn_region) {
        .link_id = d->region.link_id, .generation = d->region.generation, .size = d->region.size, .fd = d->fd,
    };
}

/* Claims 'p' for its VM, with what that VM has of it: its port region, and the link regions, which a restarted vswitchd
 * may want to go on with. */
static void claim(struct agent *a, struct agent_port *p)
{
    const struct vm_device *d = vm_find_port(p->vm, p->name);
    struct swconn_region r = { .fd = -1 };
    struct shash_node *node;

    if (d && d->wanted && d->state == VM_DEV_PLUGGED) {
        r = device_region(d);
        SHASH_FOR_EACH (node, &p->vm->devices) {
            struct p2p_region_header h;
            const struct vm_device *l = node->data;
            if (l->region.link_id && l->wanted && l->state == VM_DEV_PLUGGED && l->fd >= 0
                && region_read_header(l->fd, &h) && (!strcmp(h.name[0], p->name) || !strcmp(h.name[1], p->name))) {
                const struct swconn_region offer = device_region(l);
                swconn_ask(a->sw, P2P_MSG_OFFER, p->name, &offer);
            }
        }
    }
    p->listed = false;
    p->claim_seq = swconn_ask(a->sw, P2P_MSG_CLAIM, p->name, &r);
    p->claim = AGENT_ASKED;
}

static bool may_claim(const struct agent *a, const struct agent_port *p)
{
    return (p->claim == AGENT_UNCLAIMED || p->claim == AGENT_REFUSED) && p->in_switch && !p->ejected
           && swconn_is_up(a->sw);
}

/* Its region could not be plugged. */
static bool may_start_over(const struct agent_port *p)
{
    return p->claim == AGENT_CLAIMED && p->error[0] && !p->job;
}

/* 'p' belongs into p->vm, and that VM can be talked to. */
static void settle(struct agent *a, struct agent_port *p)
{
    struct vm *vm = p->vm;
    bool same_vm = p->incarnation == vm->incarnation;

    if (!same_vm || p->resets != vm->resets) {
        p->incarnation = vm->incarnation;
        p->resets = vm->resets;
        p->ejected = false;
    }
    if (p->claim == AGENT_CLAIMED && p->seen_plugged && !agent_port_device(p)) {
        struct vm_region r = agent_port_region(p);
        if (!vm_find(vm, &r)) {
            /* The VM has been restarted, or somebody has unplugged it. */
            p->ejected = same_vm;
            p->seen_plugged = false;
            VLOG_WARN("port %s is not in VM %s any more", p->name, vm->path);
            release(a, p);
        }
    }
    if (may_start_over(p) && time_msec() >= p->retry_at) {
        unsigned backoff = p->backoff_ms;
        release(a, p);
        p->backoff_ms = backoff;
    }
    if (may_claim(a, p) && time_msec() >= p->retry_at) {
        claim(a, p);
    }
}

static void port_run(struct agent *a, struct agent_port *p)
{
    const char *qmp = wanted_qmp(p);

    if (p->vm && (strcmp(p->vm->path, qmp) || p->left_switch)) {
        leave(a, p);
    } else if (p->leaving) {
        p->leaving = false; /* A change of mind. */
    }
    if (!p->vm && qmp[0] && !p->left_switch && !p->leaving) {
        p->vm = get_vm(a, qmp);
        p->incarnation = p->vm->incarnation;
        p->resets = p->vm->resets;
        p->ejected = false;
    }
    if (p->vm && !p->leaving) {
        if (p->vm->state == VM_READY) {
            settle(a, p);
        } else if (p->vm->state == VM_ABSENT && (p->claim == AGENT_CLAIMED || p->claim == AGENT_ASKED)) {
            VLOG_INFO("port %s: its VM %s is gone", p->name, p->vm->path);
            p->seen_plugged = false;
            release(a, p);
        }
    }
}

/* Is 'd' of 'vm' needed?  In doubt it is. */
static bool is_needed(const struct agent *a, const struct vm *vm, const struct vm_device *d)
{
    const struct agent_port *p;

    if (!a->ovsdb_known || !sset_is_empty(&d->users)) {
        return true;
    }
    if (!d->region.link_id) {
        p = agent_find_port(a, d->region.port);
        if (!p || strcmp(wanted_qmp(p), vm->path)) {
            return false;
        }
        return p->claim != AGENT_CLAIMED || d->region.generation == p->generation;
    }
    /* A link region that vswitchd has not named.  Has it named all that it knows in this VM? */
    if (!swconn_is_up(a->sw) || a->settle_at != LLONG_MAX) {
        return true;
    }
    HMAP_FOR_EACH (p, node, &a->ports) {
        if (p->in_switch && !strcmp(wanted_qmp(p), vm->path) && p->claim != AGENT_REFUSED && !p->ejected
            && !p->listed) {
            return true;
        }
    }
    return false;
}

/* Unplugs what nobody needs any more. */
static void retire(struct agent *a, struct vm *vm)
{
    struct shash_node *node;

    if (vm->state != VM_READY) {
        return;
    }
    SHASH_FOR_EACH_SAFE (node, &vm->devices) {
        struct vm_device *d = node->data;
        if (d->state != VM_DEV_PLUGGED || !d->wanted || is_needed(a, vm, d)) {
            d->retire_at = 0;
        } else if (!d->retire_at) {
            d->retire_at = time_msec() + RETIRE_MS;
        } else if (time_msec() >= d->retire_at) {
            VLOG_INFO("VM %s: nobody needs %s any more", vm->path, d->id);
            d->retire_at = 0;
            vm_unplug(vm, d, NULL, NULL);
        }
    }
}

static bool vm_in_use(const struct agent *a, const struct vm *vm)
{
    const struct agent_port *p;

    HMAP_FOR_EACH (p, node, &a->ports) {
        if (p->vm == vm || !strcmp(wanted_qmp(p), vm->path)) {
            return true;
        }
    }
    return !shash_is_empty(&vm->devices) && vm->state != VM_ABSENT;
}

void agent_run(struct agent *a)
{
    struct agent_port *p;
    struct vm *vm;

    swconn_run(a->sw);
    if (time_msec() >= a->settle_at) {
        a->settle_at = LLONG_MAX;
    }
    HMAP_FOR_EACH (vm, node, &a->vms) {
        vm_run(vm);
    }
    HMAP_FOR_EACH_SAFE (p, node, &a->ports) {
        port_run(a, p);
        if (!p->in_ovsdb && !p->in_switch && p->hand == AGENT_HAND_OFF && !p->vm) {
            port_destroy(a, p);
        }
    }
    HMAP_FOR_EACH_SAFE (vm, node, &a->vms) {
        retire(a, vm);
        if (!vm_in_use(a, vm)) {
            hmap_remove(&a->vms, &vm->node);
            vm_destroy(vm);
        }
    }
}

void agent_wait(struct agent *a)
{
    struct shash_node *node;
    struct agent_port *p;
    struct vm *vm;

    swconn_wait(a->sw);
    HMAP_FOR_EACH (p, node, &a->ports) {
        if (!p->vm || p->vm->state != VM_READY) {
            continue; /* The VM's coming wakes us up. */
        } else if (p->leaving) {
            poll_timer_wait_until(p->leave_at);
        } else if (may_claim(a, p) || may_start_over(p)) {
            poll_timer_wait_until(p->retry_at);
        }
    }
    HMAP_FOR_EACH (vm, node, &a->vms) {
        vm_wait(vm);
        SHASH_FOR_EACH (node, &vm->devices) {
            const struct vm_device *d = node->data;
            if (d->retire_at) {
                poll_timer_wait_until(d->retire_at);
            }
        }
    }
    if (swconn_is_up(a->sw) && a->settle_at != LLONG_MAX) {
        poll_timer_wait_until(a->settle_at);
    }
}

/*
 * The operator.
 */

char *agent_hand_in(struct agent *a, const char *name, const char *qmp)
{
    struct agent_port *p = agent_find_port(a, name);

    if (!p) {
        return xasprintf("there is no port %s of type dpdkr: ovs-vsctl add-port BRIDGE %s -- set Interface %s "
                         "type=dpdkr", name, name, name);
    }
    if (qmp) {
        free(p->hand_qmp);
        p->hand_qmp = xstrdup(qmp);
        p->hand = AGENT_HAND_IN;
    } else if (p->in_ovsdb && p->qmp[0]) {
        p->hand = AGENT_HAND_OFF;
    } else {
        return xasprintf("no VM is known for port %s: name its QMP socket, here or with 'ovs-vsctl set Interface %s "
                         "external_ids:p2plink-qmp=PATH'", name, name);
    }
    p->ejected = false;
    p->retry_at = 0;
    agent_set_string(&p->error, "");
    struct vm *vm = find_vm(a, wanted_qmp(p));
    if (vm) {
        vm_hurry(vm);
    }
    poll_immediate_wake();
    return NULL;
}

char *agent_hand_out(struct agent *a, const char *name)
{
    struct agent_port *p = agent_find_port(a, name);

    if (!p) {
        return xasprintf("there is no port %s", name);
    }
    p->hand = AGENT_HAND_OUT;
    poll_immediate_wake();
    return NULL;
}

/*
 * Beginning and end.
 */

struct agent *agent_create(const char *switch_socket)
{
    struct agent *a = xzalloc(sizeof *a);

    hmap_init(&a->ports);
    hmap_init(&a->vms);
    a->sw = swconn_create(switch_socket, &agent_switch_callbacks, a);
    return a;
}

void agent_destroy(struct agent *a)
{
    struct agent_port *p;
    struct vm *vm;

    if (!a) {
        return;
    }
    HMAP_FOR_EACH_POP (vm, node, &a->vms) {
        vm_destroy(vm);
    }
    HMAP_FOR_EACH_SAFE (p, node, &a->ports) {
        port_destroy(a, p);
    }
    hmap_destroy(&a->ports);
    hmap_destroy(&a->vms);
    swconn_destroy(a->sw);
    free(a);
}

const struct hmap *agent_ports(const struct agent *a)
{
    return &a->ports;
}

const struct hmap *agent_vms(const struct agent *a)
{
    return &a->vms;
}

const struct swconn *agent_switch(const struct agent *a)
{
    return a->sw;
}
