/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-device.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "p2plinkd-qmp.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd_device);

/* A guest that was not ready for an unplug request (it was booting, say) does not remember it: ask again. */
#define UNPLUG_RETRY_MS 1000
#define UNPLUG_RETRY_LATE_MS 10000
/* A device's memory is let go some moments after QEMU has said that the device is deleted. */
#define REMOVE_RETRY_MS 5
#define REMOVE_ATTEMPTS 200

unsigned vm_unplug_timeout_ms = 10000;

struct waiter {
    struct ovs_list node;
    vm_done_func *done;
    void *aux;
};

static void try_bus(struct vm_device *);

const char *vm_device_state_name(enum vm_device_state state)
{
    switch (state) {
    case VM_DEV_QUEUED: return "queued";
    case VM_DEV_PLUGGING: return "plugging";
    case VM_DEV_PLUGGED: return "plugged";
    case VM_DEV_UNPLUGGING: return "unplugging";
    case VM_DEV_REMOVING: return "removing";
    case VM_DEV_UNKNOWN: return "unknown";
    }
    return "?";
}

void device_set_state(struct vm_device *d, enum vm_device_state state)
{
    d->state = state;
    d->since = time_wall_msec();
}

struct vm_device *device_create(struct vm *vm, const char *id, const struct vm_region *region)
{
    struct vm_device *d = xzalloc(sizeof *d);

    d->id = xstrdup(id);
    d->region = *region;
    if (region->link_id) {
        d->region.port[0] = '\0';
    }
    sset_init(&d->users);
    d->vm = vm;
    d->fd = -1;
    d->fdset = -1;
    d->wanted = true;
    ovs_list_init(&d->plug_waiters);
    ovs_list_init(&d->unplug_waiters);
    shash_add_assert(&vm->devices, d->id, d);
    return d;
}

static void wait_for(struct ovs_list *waiters, vm_done_func *done, void *aux)
{
    if (done) {
        struct waiter *w = xmalloc(sizeof *w);
        w->done = done;
        w->aux = aux;
        ovs_list_push_back(waiters, &w->node);
    }
}

static void answer(struct ovs_list *waiters_, int error, const char *text)
{
    struct ovs_list waiters;

    ovs_list_move(&waiters, waiters_);
    ovs_list_init(waiters_);
    while (!ovs_list_is_empty(&waiters)) {
        struct waiter *w = CONTAINER_OF(ovs_list_pop_front(&waiters), struct waiter, node);
        w->done(w->aux, error, error ? text : NULL);
        free(w);
    }
}

void device_destroy(struct vm_device *d, int plug_error, int unplug_error, const char *text)
{
    struct vm *vm = d->vm;

    shash_find_and_delete_assert(&vm->devices, d->id);
    if (vm->plugging == d) {
        vm->plugging = NULL;
    }
    answer(&d->plug_waiters, plug_error, text);
    answer(&d->unplug_waiters, unplug_error, text);
    if (d->fd >= 0) {
        close(d->fd);
    }
    sset_destroy(&d->users);
    free(d->refusal);
    free(d->id);
    free(d);
}

/*
 * Plugging: add-fd, object-add, device_add, remove-fd.
 */

void vm_remove_fdset(struct vm *vm, int64_t fdset)
{
    struct json *args = json_object_create();
    json_object_put(args, "fdset-id", json_integer_create(fdset));
    qmp_execute(vm->qmp, "remove-fd", args, -1, qmp_ignore, NULL);
}

/* What a person can do about QEMU's refusal. */
static const char *remedy(const char *text)
{
    if (strstr(text, "no slot") || strstr(text, "not available")) {
        return "; unplug something, or give the VM more slots (q35: pcie-root-port devices)";
    } else if (strstr(text, "does not support hotplugging")) {
        return "; this VM's machine cannot hot-plug: use pc (i440fx), or q35 with pcie-root-port devices";
    } else if (strstr(text, "ermission denied") || strstr(text, "can't open backing store")) {
        return "; QEMU may not open the shared memory: check its sandbox, SELinux or AppArmor rules for /proc/self/fd";
    } else if (strstr(text, "not a valid device model name")) {
        return "; this QEMU was built without ivshmem";
    }
    return "; see QEMU's log";
}

/* The device could not be plugged. */
static void plug_failed(struct vm_device *d, const char *step, const struct qmp_reply *reply)
{
    struct vm *vm = d->vm;
    char *what = region_describe(&d->region);
    char *text = reply->error == -EREMOTEIO
                 ? xasprintf("VM %s: %s of %s (%s) refused: %s%s", vm->path, step, what, d->id, reply->text,
                             remedy(reply->text))
                 : xasprintf("VM %s: %s of %s (%s): %s", vm->path, step, what, d->id, reply->text);

    VLOG(strcmp(text, vm->trouble) ? VLL_WARN : VLL_DBG, "%s", text);
    vm_set_trouble(vm, "%s", text);
    if (d->fdset >= 0) {
        vm_remove_fdset(vm, d->fdset);
        d->fdset = -1;
    }
    vm->plugging = NULL;
    if (reply->error != -EREMOTEIO) {
        /* The connection is lost: vm_down() follows. */
        answer(&d->plug_waiters, reply->error, text);
        d->wanted = false;
        device_set_state(d, VM_DEV_UNKNOWN);
    } else if (d->has_object) {
        answer(&d->plug_waiters, reply->error, text);
        d->wanted = false;
        device_remove_object(d);
    } else {
        device_destroy(d, reply->error, 0, text);
    }
    free(text);
    free(what);
    vm_plug_next(vm);
}

static void device_added(void *d_, const struct qmp_reply *reply)
{
    struct vm_device *d = d_;
    struct vm *vm = d->vm;

    if (reply->error == -EREMOTEIO && d->bus[0]) {
        /* Somebody has taken that root port meanwhile, or it does not fit: maybe another one does. */
        VLOG_INFO("VM %s: %s does not go into %s: %s", vm->path, d->id, d->bus, reply->text);
        free(d->refusal);
        d->refusal = xstrdup(reply->text);
        try_bus(d);
        return;
    }
    if (reply->error) {
        plug_failed(d, "device_add", reply);
        return;
    }
    vm_remove_fdset(vm, d->fdset);
    d->fdset = -1;
    d->plug_ms = (time_usec() - d->started_us) / 1000.0;
    device_set_state(d, VM_DEV_PLUGGED);

    char *what = region_describe(&d->region);
    VLOG_INFO("VM %s: plugged %s, %"PRIu64" kB, as %s%s%s in %.1f ms", vm->path, what, d->region.size >> 10, d->id,
              d->bus[0] ? " in " : "", d->bus, d->plug_ms);
    free(what);
    if (d->tight) {
        vm_set_trouble(vm, "VM %s: %s has %"PRIu64" kB, but the guest may have reserved less for root port %s: if it "
                    "finds no room, give QEMU '-global pcie-root-port.pref64-reserve=%"PRIu64"M'", vm->path, d->id,
                    d->region.size >> 10, d->bus, d->region.size >> 19);
        VLOG_WARN("%s", vm->trouble);
    }

    vm->plugging = NULL;
    answer(&d->plug_waiters, 0, NULL);
    if (!d->wanted) {
        device_unplug(d);
    }
    vm_plug_next(vm);
}

static void add_device(struct vm_device *d)
{
    struct json *args = qmp_args("driver", "ivshmem-plain");
    json_object_put_string(args, "id", d->id);
    json_object_put_string(args, "memdev", d->id);
    if (!d->region.link_id) {
        json_object_put(args, "multifunction", json_boolean_create(true)); /* See P2P_PCI_PORT_BIT. */
    }
    if (d->bus[0]) {
        json_object_put_string(args, "bus", d->bus);
    }
    qmp_execute(d->vm->qmp, "device_add", args, -1, device_added, d);
}

/* Is the root port free? */
static void bus_listed(void *d_, const struct qmp_reply *reply)
{
    struct vm_device *d = d_;

    if (reply->error && reply->error != -EREMOTEIO) {
        plug_failed(d, "search for a bus", reply);
        return;
    }
    bool taken = reply->error;
    if (!taken && reply->value->type == JSON_ARRAY) {
        const struct json_array *list = json_array(reply->value);
        for (size_t i = 0; i < list->n; i++) {
            const struct json *e = list->elems[i];
            const struct json *name = e->type == JSON_OBJECT ? shash_find_data(json_object(e), "name") : NULL;
            taken |= name && name->type == JSON_STRING && !strncmp(json_string(name), "child[", 6);
        }
    }
    if (taken) {
        try_bus(d);
    } else {
        add_device(d);
    }
}

/* The next root port to try, or NULL: those that have room for the region come first. */
static const struct vm_root_port *next_root_port(struct vm_device *d)
{
    const struct vm *vm = d->vm;

    for (; d->root_port < 2 * vm->n_root_ports; d->root_port++) {
        const struct vm_root_port *rp = &vm->root_ports[d->root_port % vm->n_root_ports];
        if ((rp->fits >= d->region.size) == (d->root_port < vm->n_root_ports)) {
            d->root_port++;
            return rp;
        }
    }
    return NULL;
}

/* Goes on to the next root port. */
static void try_bus(struct vm_device *d)
{
    const struct vm_root_port *rp = next_root_port(d);
    struct vm *vm = d->vm;

    if (!rp) {
        char *text = d->refusal
                     ? xstrdup(d->refusal)
                     : vm->n_root_ports
                     ? xasprintf("no slot: all of the VM's %"PRIuSIZE" PCIe root ports are taken", vm->n_root_ports)
                     : xasprintf("no slot: machine type '%s' has no PCIe root port with an id", vm->machine);
        const struct qmp_reply reply = { .error = -EREMOTEIO, .class = "", .text = text };
        plug_failed(d, "device_add", &reply);
        free(text);
        return;
    }
    ovs_strlcpy(d->bus, rp->id, sizeof d->bus);
    d->tight = rp->fits < d->region.size;
    char *path = xasprintf("/machine/peripheral/%s/%s", d->bus, d->bus);
    qmp_execute(vm->qmp, "qom-list", qmp_args("path", path), -1, bus_listed, d);
    free(path);
}

static void object_added(void *d_, const struct qmp_reply *reply)
{
    struct vm_device *d = d_;
    struct vm *vm = d->vm;

    if (reply->error) {
        plug_failed(d, "object-add", reply);
        return;
    }
    d->has_object = true;
    d->root_port = 0;
    d->bus[0] = '\0';
    d->tight = false;
    free(d->refusal);
    d->refusal = NULL;
    /* i440fx hot-plugs into its root bus, which QEMU finds by itself; PCIe has a place for one device in each root
     * port. */
    if (!strncmp(vm->machine, "pc-i440fx", 9)) {
        add_device(d);
    } else {
        try_bus(d);
    }
}

static void fd_added(void *d_, const struct qmp_reply *reply)
{
    struct vm_device *d = d_;

    if (reply->error) {
        plug_failed(d, "add-fd", reply);
        return;
    }
    const struct json *fd = NULL, *fdset = NULL;
    if (reply->value->type == JSON_OBJECT) {
        fd = shash_find_data(json_object(reply->value), "fd");
        fdset = shash_find_data(json_object(reply->value), "fdset-id");
    }
    if (!fd || fd->type != JSON_INTEGER || !fdset || fdset->type != JSON_INTEGER) {
        const struct qmp_reply bad = { .error = -EREMOTEIO, .class = "", .text = "no descriptor in the answer" };
        plug_failed(d, "add-fd", &bad);
        return;
    }
    d->fdset = json_integer(fdset);

    /* The backend opens the memfd anew by the number that QEMU has for it (not by /dev/fdset, which files for memory
     * backends cannot be). */
    struct json *args = qmp_args("qom-type", "memory-backend-file");
    json_object_put_string(args, "id", d->id);
    json_object_put_format(args, "mem-path", "/proc/self/fd/%"PRId64, json_integer(fd));
    json_object_put(args, "size", json_integer_create(d->region.size));
    json_object_put(args, "share", json_boolean_create(true));
    qmp_execute(d->vm->qmp, "object-add", args, -1, object_added, d);
}

void vm_plug_next(struct vm *vm)
{
    struct shash_node *node;

    /* When the connection has just broken down, vm_down() follows and sorts things out. */
    if (vm->plugging || vm->state != VM_READY || !qmp_is_up(vm->qmp)) {
        return;
    }
    SHASH_FOR_EACH (node, &vm->devices) {
        struct vm_device *d = node->data;
        if (d->state == VM_DEV_QUEUED) {
            vm->plugging = d;
            device_set_state(d, VM_DEV_PLUGGING);
            struct json *args = qmp_args("opaque", d->id);
            qmp_execute(vm->qmp, "add-fd", args, fcntl(d->fd, F_DUPFD_CLOEXEC, 0), fd_added, d);
            return;
        }
    }
}

void vm_plug(struct vm *vm, const struct vm_region *region, int fd, vm_done_func *done, void *aux)
{
    struct vm_device *d = vm_find(vm, region);

    if (vm->state != VM_READY) {
        char *text = xasprintf("VM %s is not there (%s)", vm->path, vm->trouble[0] ? vm->trouble
                               : vm_state_name(vm->state));
        close(fd);
        if (done) {
            done(aux, -ENODEV, text);
        }
        free(text);
        return;
    }
    if (!d) {
        char *id = region_to_id(region);
        d = device_create(vm, id, region);
        free(id);
        device_set_state(d, VM_DEV_QUEUED);
    }
    d->region.size = region->size;
    if (d->fd >= 0) {
        close(d->fd);
    }
    d->fd = fd;
    if (d->state == VM_DEV_PLUGGED && d->wanted) {
        if (done) {
            done(aux, 0, NULL);
        }
        return;
    }
    /* Queued or being plugged: wait for it.  On its way out: it comes back when it has gone. */
    d->wanted = true;
    if (d->state == VM_DEV_QUEUED && !d->started_us) {
        d->started_us = time_usec();
    }
    wait_for(&d->plug_waiters, done, aux);
    vm_plug_next(vm);
}

/*
 * Unplugging: device_del, DEVICE_DELETED, object-del.
 */

/* The device and its memory are out of the VM. */
static void device_gone(struct vm_device *d)
{
    struct vm *vm = d->vm;

    if (d->wanted && !ovs_list_is_empty(&d->plug_waiters)) {
        /* Somebody wants it back. */
        answer(&d->unplug_waiters, 0, NULL);
        d->has_object = false;
        d->unplug_since = 0;
        d->started_us = time_usec();
        device_set_state(d, VM_DEV_QUEUED);
    } else {
        device_destroy(d, -ENODEV, 0, "the device was unplugged");
    }
    vm_plug_next(vm);
}

static void object_removed(void *d_, const struct qmp_reply *reply)
{
    struct vm_device *d = d_;
    struct vm *vm = d->vm;

    if (reply->error && reply->error != -EREMOTEIO) {
        device_set_state(d, VM_DEV_UNKNOWN);
        return;
    }
    if (reply->error && strstr(reply->text, "in use") && ++d->attempts < REMOVE_ATTEMPTS) {
        d->deadline = time_msec() + REMOVE_RETRY_MS;
        return;
    }
    if (reply->error && !strstr(reply->text, "not found")) {
        VLOG_WARN("VM %s: the device %s is out, but its memory stays: %s", vm->path, d->id, reply->text);
    }

    char *what = region_describe(&d->region);
    if (d->unplug_since) {
        VLOG_INFO("VM %s: unplugged %s (%s) in %lld ms", vm->path, what, d->id, time_msec() - d->unplug_since);
    }
    free(what);
    device_gone(d);
}

void device_remove_object(struct vm_device *d)
{
    device_set_state(d, VM_DEV_REMOVING);
    d->attempts = 0;
    d->deadline = LLONG_MAX;
    qmp_execute(d->vm->qmp, "object-del", qmp_args("id", d->id), -1, object_removed, d);
}

void device_deleted(struct vm_device *d)
{
    if (d->state != VM_DEV_REMOVING) {
        if (d->state != VM_DEV_UNPLUGGING) {
            VLOG_WARN("VM %s: %s (%s) has been unplugged by somebody else", d->vm->path, d->id,
                      vm_device_state_name(d->state));
            d->wanted = false;
        }
        if (d->vm->plugging == d) {
            /* device_add's answer comes before the event, so this is not one of ours. */
            return;
        }
        device_remove_object(d);
    }
}

static void unplug_asked(void *d_, const struct qmp_reply *reply)
{
    struct vm_device *d = d_;

    if (d->state != VM_DEV_UNPLUGGING || !reply->error) {
        return;
    }
    if (reply->error != -EREMOTEIO) {
        device_set_state(d, VM_DEV_UNKNOWN);
    } else if (!strcmp(reply->class, "DeviceNotFound")) {
        device_remove_object(d);
    } else if (!strstr(reply->text, "already in the process of unplug")) {
        char *what = region_describe(&d->region);
        vm_set_trouble(d->vm, "VM %s: device_del of %s (%s) refused: %s", d->vm->path, what, d->id, reply->text);
        free(what);
        VLOG_WARN("%s", d->vm->trouble);
        answer(&d->unplug_waiters, reply->error, d->vm->trouble);
    }
}

static void unplug_ask(struct vm_device *d)
{
    d->attempts++;
    d->deadline = time_msec() + (d->late ? UNPLUG_RETRY_LATE_MS : UNPLUG_RETRY_MS);
    qmp_execute(d->vm->qmp, "device_del", qmp_args("id", d->id), -1, unplug_asked, d);
}

void device_unplug(struct vm_device *d)
{
    device_set_state(d, VM_DEV_UNPLUGGING);
    d->unplug_since = time_msec();
    d->attempts = 0;
    d->late = false;
    unplug_ask(d);
}

void vm_unplug(struct vm *vm, struct vm_device *d, vm_done_func *done, void *aux)
{
    d->wanted = false;
    sset_clear(&d->users);
    switch (d->state) {
    case VM_DEV_QUEUED:
        device_destroy(d, -ECANCELED, 0, "it was unplugged before it was plugged");
        if (done) {
            done(aux, 0, NULL);
        }
        break;

    case VM_DEV_PLUGGED:
        wait_for(&d->unplug_waiters, done, aux);
        device_unplug(d);
        break;

    case VM_DEV_UNKNOWN:
        if (vm->state == VM_ABSENT) {
            device_destroy(d, -ENODEV, 0, "the VM is gone");
            if (done) {
                done(aux, 0, NULL);
            }
            break;
        }
        /* When the VM has told what it has, it goes. */
        /* fall through */
    case VM_DEV_PLUGGING:
    case VM_DEV_UNPLUGGING:
    case VM_DEV_REMOVING:
        answer(&d->plug_waiters, -ECANCELED, "it is being unplugged");
        wait_for(&d->unplug_waiters, done, aux);
        break;
    }
}

void device_run(struct vm_device *d)
{
    struct vm *vm = d->vm;
    long long now = time_msec();

    if (d->state == VM_DEV_REMOVING && now >= d->deadline) {
        d->deadline = LLONG_MAX;
        qmp_execute(vm->qmp, "object-del", qmp_args("id", d->id), -1, object_removed, d);
    } else if (d->state == VM_DEV_UNPLUGGING) {
        if (!d->late && now - d->unplug_since >= vm_unplug_timeout_ms) {
            d->late = true;
            char *what = region_describe(&d->region);
            vm_set_trouble(vm, "VM %s: the guest has not let go of %s (%s) for %u ms: it is booting or hung, or has no "
                        "PCI hot-plug; still trying", vm->path, what, d->id, vm_unplug_timeout_ms);
            free(what);
            VLOG_WARN("%s", vm->trouble);
            answer(&d->unplug_waiters, -ETIMEDOUT, vm->trouble);
        }
        if (now >= d->deadline) {
            unplug_ask(d);
        }
    }
}

void device_wait(const struct vm_device *d)
{
    if (d->state == VM_DEV_UNPLUGGING) {
        poll_timer_wait_until(MIN(d->deadline, d->late ? LLONG_MAX : d->unplug_since + vm_unplug_timeout_ms));
    } else if (d->state == VM_DEV_REMOVING && d->deadline != LLONG_MAX) {
        poll_timer_wait_until(d->deadline);
    }
}

void device_lost(struct vm_device *d, const char *why)
{
    if (d->state != VM_DEV_UNKNOWN) {
        if (d->state != VM_DEV_PLUGGED) {
            answer(&d->plug_waiters, -ECONNRESET, why);
            d->wanted = false;
        }
        device_set_state(d, VM_DEV_UNKNOWN);
    }
}
