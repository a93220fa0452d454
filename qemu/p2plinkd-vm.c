/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-vm.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "openvswitch/vlog.h"
#include "p2plinkd-device.h"
#include "p2plinkd-qmp.h"
#include "p2plinkd-region.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd_vm);

/* What fits into a root port's prefetchable window unless QEMU's pref64-reserve says otherwise: SeaBIOS's choice. */
#define FITS_DEFAULT (UINT64_C(2) << 20)

static const struct qmp_callbacks callbacks;

static void ask_window(struct vm *);

const char *vm_state_name(enum vm_state state)
{
    switch (state) {
    case VM_ABSENT: return "absent";
    case VM_TROUBLE: return "trouble";
    case VM_SYNCING: return "syncing";
    case VM_READY: return "ready";
    }
    return "?";
}

struct vm_device *vm_find(const struct vm *vm, const struct vm_region *region)
{
    char *id = region_to_id(region);
    struct vm_device *d = shash_find_data(&vm->devices, id);
    free(id);
    return d;
}

struct vm_device *vm_find_port(const struct vm *vm, const char *port)
{
    struct vm_device *found = NULL;
    struct shash_node *node;

    SHASH_FOR_EACH (node, &vm->devices) {
        struct vm_device *d = node->data;
        if (!d->region.link_id && !strcmp(d->region.port, port) && (!found || d->wanted)) {
            found = d;
        }
    }
    return found;
}

void vm_set_trouble(struct vm *vm, const char *fmt, ...)
{
    va_list args;

    free(vm->trouble);
    va_start(args, fmt);
    vm->trouble = xvasprintf(fmt, args);
    va_end(args);
}

/*
 * What does the VM have?  Asked each time a connection is made.
 */

static void sync_failed(struct vm *vm, const char *command, const struct qmp_reply *reply)
{
    if (reply->error == -EREMOTEIO) {
        vm_set_trouble(vm, "VM %s: '%s' refused: %s; p2plinkd needs QEMU 6.0 or later", vm->path, command, reply->text);
        VLOG_WARN("%s", vm->trouble);
        vm->state = VM_TROUBLE;
    }
}

/* Collects names of ours from a qom-list answer into 'names', and ids of root ports if 'ports'. */
static void collect(const struct json *value, struct sset *names, struct sset *ports)
{
    if (value->type != JSON_ARRAY) {
        return;
    }
    const struct json_array *list = json_array(value);
    for (size_t i = 0; i < list->n; i++) {
        if (list->elems[i]->type != JSON_OBJECT) {
            continue;
        }
        const struct json *name = shash_find_data(json_object(list->elems[i]), "name");
        const struct json *type = shash_find_data(json_object(list->elems[i]), "type");
        if (!name || name->type != JSON_STRING || !type || type->type != JSON_STRING) {
            continue;
        }
        if (!strncmp(json_string(name), ID_PREFIX, strlen(ID_PREFIX))) {
            sset_add(names, json_string(name));
        } else if (ports && (!strcmp(json_string(type), "child<pcie-root-port>")
                             || !strcmp(json_string(type), "child<ioh3420>")
                             || !strcmp(json_string(type), "child<xio3130-downstream>"))
                   && strlen(json_string(name)) < sizeof ((struct vm_device *)0)->bus) {
            sset_add(ports, json_string(name));
        }
    }
}

/* The lists are complete: bring our picture of the VM in line, and undo what is half done. */
static void synced(struct vm *vm)
{
    struct shash_node *node;
    const char *id;

    /* What we have on record, but the VM has not. */
    SHASH_FOR_EACH_SAFE (node, &vm->devices) {
        struct vm_device *d = node->data;
        d->has_object = sset_contains(&vm->found_objects, d->id);
        if (sset_contains(&vm->found_devices, d->id)) {
            device_set_state(d, VM_DEV_PLUGGED);
        } else if (!d->has_object) {
            device_destroy(d, -ENODEV, 0, "the VM has been restarted");
        }
    }
    /* What the VM has, but we have not on record: plugged by a former p2plinkd. */
    SSET_FOR_EACH (id, &vm->found_devices) {
        struct vm_region region;
        if (!shash_find(&vm->devices, id) && region_from_id(id, &region)) {
            struct vm_device *d = device_create(vm, id, &region);
            d->has_object = true;
            d->fd = region_find_fd(qmp_pid(vm->qmp), region.generation, region.link_id);
            if (d->fd >= 0) {
                struct stat st;
                d->region.size = fstat(d->fd, &st) ? 0 : st.st_size;
            }
            device_set_state(d, VM_DEV_PLUGGED);
            char *what = region_describe(&region);
            VLOG_INFO("VM %s has %s plugged (%s)", vm->path, what, id);
            free(what);
        }
    }
    vm->state = VM_READY;
    vm_set_trouble(vm, "%s", "");

    SSET_FOR_EACH (id, &vm->found_objects) {
        struct vm_region region;
        if (!sset_contains(&vm->found_devices, id) && region_from_id(id, &region)) {
            struct vm_device *d = shash_find_data(&vm->devices, id);
            VLOG_INFO("VM %s: removing memory without a device, %s", vm->path, id);
            if (d) {
                d->wanted = false;
                device_remove_object(d);
            } else {
                qmp_execute(vm->qmp, "object-del", qmp_args("id", id), -1, qmp_ignore, NULL);
            }
        }
    }
    SHASH_FOR_EACH (node, &vm->devices) {
        struct vm_device *d = node->data;
        if (d->state == VM_DEV_PLUGGED && !d->wanted) {
            device_unplug(d);
        }
    }
    vm->incarnation++;
}

static void fdsets_listed(void *vm_, const struct qmp_reply *reply)
{
    struct vm *vm = vm_;

    if (reply->error && reply->error != -EREMOTEIO) {
        return;
    }
    /* Descriptors that a former p2plinkd passed and did not take back. */
    if (!reply->error && reply->value->type == JSON_ARRAY) {
        const struct json_array *sets = json_array(reply->value);
        for (size_t i = 0; i < sets->n; i++) {
            const struct json *set = sets->elems[i];
            const struct json *number = set->type == JSON_OBJECT ? shash_find_data(json_object(set), "fdset-id") : NULL;
            const struct json *fds = number ? shash_find_data(json_object(set), "fds") : NULL;
            if (!fds || fds->type != JSON_ARRAY || number->type != JSON_INTEGER || !json_array(fds)->n) {
                continue;
            }
            const struct json *fd = json_array(fds)->elems[0];
            const struct json *opaque = fd->type == JSON_OBJECT ? shash_find_data(json_object(fd), "opaque") : NULL;
            if (opaque && opaque->type == JSON_STRING && !strncmp(json_string(opaque), ID_PREFIX, strlen(ID_PREFIX))) {
                vm_remove_fdset(vm, json_integer(number));
            }
        }
    }
    synced(vm);
}

static void free_root_ports(struct vm *vm)
{
    for (size_t i = 0; i < vm->n_root_ports; i++) {
        free(vm->root_ports[i].id);
    }
    free(vm->root_ports);
    vm->root_ports = NULL;
    vm->n_root_ports = 0;
}

static void window_told(void *vm_, const struct qmp_reply *reply)
{
    struct vm *vm = vm_;

    if (reply->error && reply->error != -EREMOTEIO) {
        return;
    }
    /* Not set is -1 as an unsigned number, which does not fit here. */
    if (!reply->error && reply->value->type == JSON_INTEGER && json_integer(reply->value) > 0) {
        /* A BAR lies at a multiple of its size, the window does not. */
        vm->root_ports[vm->next_root_port].fits = MAX(FITS_DEFAULT, (uint64_t)json_integer(reply->value) / 2);
    }
    vm->next_root_port++;
    ask_window(vm);
}

/* Asks each root port in turn how much address space it has reserved. */
static void ask_window(struct vm *vm)
{
    if (vm->next_root_port >= vm->n_root_ports) {
        qmp_execute(vm->qmp, "query-fdsets", NULL, -1, fdsets_listed, vm);
        return;
    }
    char *path = xasprintf("/machine/peripheral/%s", vm->root_ports[vm->next_root_port].id);
    struct json *args = qmp_args("path", path);
    json_object_put_string(args, "property", "pref64-reserve");
    free(path);
    qmp_execute(vm->qmp, "qom-get", args, -1, window_told, vm);
}

static void peripherals_listed(void *vm_, const struct qmp_reply *reply)
{
    struct vm *vm = vm_;

    if (reply->error) {
        sync_failed(vm, "qom-list /machine/peripheral", reply);
        return;
    }
    struct sset ports = SSET_INITIALIZER(&ports);
    sset_clear(&vm->found_devices);
    collect(reply->value, &vm->found_devices, &ports);

    free_root_ports(vm);
    vm->root_ports = xcalloc(sset_count(&ports) + 1, sizeof *vm->root_ports);
    const char **sorted = sset_sort(&ports);
    for (size_t i = 0; sorted[i]; i++) {
        struct vm_root_port *rp = &vm->root_ports[vm->n_root_ports++];
        rp->id = xstrdup(sorted[i]);
        rp->fits = FITS_DEFAULT;
    }
    free(sorted);
    sset_destroy(&ports);
    vm->next_root_port = 0;
    ask_window(vm);
}

static void objects_listed(void *vm_, const struct qmp_reply *reply)
{
    struct vm *vm = vm_;

    if (reply->error) {
        sync_failed(vm, "qom-list /objects", reply);
        return;
    }
    sset_clear(&vm->found_objects);
    collect(reply->value, &vm->found_objects, NULL);
    qmp_execute(vm->qmp, "qom-list", qmp_args("path", "/machine/peripheral"), -1, peripherals_listed, vm);
}

static void machine_told(void *vm_, const struct qmp_reply *reply)
{
    struct vm *vm = vm_;

    if (reply->error) {
        sync_failed(vm, "qom-get /machine type", reply);
        return;
    }
    free(vm->machine);
    vm->machine = xstrdup(reply->value->type == JSON_STRING ? json_string(reply->value) : "");
    qmp_execute(vm->qmp, "qom-list", qmp_args("path", "/objects"), -1, objects_listed, vm);
}

static void vm_up(void *vm_)
{
    struct vm *vm = vm_;

    VLOG_INFO("VM %s: connected, QEMU %s", vm->path, qmp_version(vm->qmp));
    vm->said_down = false;
    vm->state = VM_SYNCING;
    struct json *args = qmp_args("path", "/machine");
    json_object_put_string(args, "property", "type");
    qmp_execute(vm->qmp, "qom-get", args, -1, machine_told, vm);
}

static void vm_down(void *vm_, bool gone, const char *why)
{
    struct vm *vm = vm_;
    struct shash_node *node;

    if (!vm->said_down || (gone && vm->state != VM_ABSENT)) {
        VLOG(gone ? VLL_INFO : VLL_WARN, "VM %s: %s", vm->path, why);
        vm->said_down = true;
    }
    vm_set_trouble(vm, "%s", why);

    bool was_ready = vm->state == VM_READY;
    vm->state = gone ? VM_ABSENT : VM_TROUBLE;
    vm->plugging = NULL;
    SHASH_FOR_EACH_SAFE (node, &vm->devices) {
        struct vm_device *d = node->data;
        if (gone) {
            device_destroy(d, -ENODEV, 0, "the VM is gone");
        } else {
            device_lost(d, why);
        }
    }
    if (gone || was_ready) {
        vm->incarnation++;
    }
}

static void vm_event(void *vm_, const char *name, const struct json *data)
{
    struct vm *vm = vm_;
    const struct json *id = data && data->type == JSON_OBJECT ? shash_find_data(json_object(data), "device") : NULL;
    struct vm_device *d = id && id->type == JSON_STRING ? shash_find_data(&vm->devices, json_string(id)) : NULL;

    if (!strcmp(name, "DEVICE_DELETED")) {
        if (d && vm->state == VM_READY) {
            device_deleted(d);
        }
    } else if (!strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") || !strcmp(name, "MEM_UNPLUG_ERROR")) {
        if (d) {
            VLOG_WARN("VM %s: the guest has refused to let go of %s; trying again", vm->path, d->id);
        }
    } else if (!strcmp(name, "RESET")) {
        vm->resets++;
    }
}

static const struct qmp_callbacks callbacks = {
    .up = vm_up,
    .down = vm_down,
    .event = vm_event,
};

struct vm *vm_create(const char *path)
{
    struct vm *vm = xzalloc(sizeof *vm);

    vm->path = xstrdup(path);
    vm->state = VM_ABSENT;
    vm->machine = xstrdup("");
    vm->trouble = xstrdup("");
    shash_init(&vm->devices);
    sset_init(&vm->found_objects);
    sset_init(&vm->found_devices);
    vm->qmp = qmp_create(path, &callbacks, vm);
    return vm;
}

void vm_destroy(struct vm *vm)
{
    struct shash_node *node;

    if (!vm) {
        return;
    }
    qmp_destroy(vm->qmp);
    SHASH_FOR_EACH_SAFE (node, &vm->devices) {
        device_destroy(node->data, -ECANCELED, -ECANCELED, "p2plinkd lets go of this VM");
    }
    shash_destroy(&vm->devices);
    sset_destroy(&vm->found_objects);
    sset_destroy(&vm->found_devices);
    free_root_ports(vm);
    free(vm->machine);
    free(vm->trouble);
    free(vm->path);
    free(vm);
}

void vm_hurry(struct vm *vm)
{
    qmp_hurry(vm->qmp);
}

const char *vm_qemu_version(const struct vm *vm)
{
    return vm->state == VM_READY ? qmp_version(vm->qmp) : "";
}

void vm_run(struct vm *vm)
{
    struct shash_node *node;

    qmp_run(vm->qmp);
    if (vm->state == VM_READY) {
        SHASH_FOR_EACH_SAFE (node, &vm->devices) {
            device_run(node->data);
        }
        vm_plug_next(vm);
    }
}

void vm_wait(struct vm *vm)
{
    struct shash_node *node;

    qmp_wait(vm->qmp);
    if (vm->state == VM_READY) {
        SHASH_FOR_EACH (node, &vm->devices) {
            device_wait(node->data);
        }
    }
}
