/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-ctl.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "openvswitch/dynamic-string.h"
#include "openvswitch/json.h"
#include "openvswitch/poll-loop.h"
#include "p2plinkd-agent.h"
#include "p2plinkd-ovsdb.h"
#include "p2plinkd-switch.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

/* How long the operator's command may take before it is answered with how far it is.  A guest may take the time that
 * vm_unplug_timeout_ms gives it. */
#define WAIT_MARGIN_MS 5000

/* An operator's command that is under way. */
struct pending {
    struct ovs_list node;
    struct unixctl_conn *conn;
    char *port;
    bool in;
    bool json;
    long long started, deadline;
};

static struct agent *agent;
static const struct watcher *watcher;
static struct ovs_list pending = OVS_LIST_INITIALIZER(&pending);

/*
 * JSON.
 */

static struct json *hex_json(uint64_t x)
{
    return json_string_create_nocopy(xasprintf("%"PRIx64, x));
}

static struct json *port_json(const struct agent_port *p)
{
    struct json *o = json_object_create();
    const struct vm_device *d = agent_port_device(p);

    json_object_put_string(o, "name", p->name);
    json_object_put_string(o, "state", agent_port_state(agent, p));
    json_object_put_string(o, "vm", p->vm ? p->vm->path : "");
    json_object_put_string(o, "qmp", p->qmp);
    json_object_put_string(o, "vm-uuid", p->vm_uuid);
    json_object_put_string(o, "iface-id", p->iface_id);
    json_object_put(o, "in-ovsdb", json_boolean_create(p->in_ovsdb));
    json_object_put(o, "in-switch", json_boolean_create(p->in_switch));
    json_object_put_string(o, "by-hand", p->hand == AGENT_HAND_IN ? "in" : p->hand == AGENT_HAND_OUT ? "out" : "");
    json_object_put(o, "plugged", json_boolean_create(d != NULL));
    json_object_put_string(o, "device", d ? d->id : "");
    json_object_put(o, "generation", hex_json(p->claim == AGENT_CLAIMED ? p->generation : 0));
    json_object_put_string(o, "error", p->error);
    return o;
}

static struct json *device_json(const struct vm_device *d)
{
    struct json *o = json_object_create();
    struct json *users = json_array_create_empty();
    const char *user;

    json_object_put_string(o, "id", d->id);
    json_object_put_string(o, "kind", d->region.link_id ? "link" : "port");
    json_object_put_string(o, "port", d->region.port);
    json_object_put(o, "link", json_integer_create(d->region.link_id));
    json_object_put(o, "generation", hex_json(d->region.generation));
    json_object_put(o, "size", json_integer_create(d->region.size));
    json_object_put_string(o, "state", vm_device_state_name(d->state));
    json_object_put(o, "late", json_boolean_create(d->late));
    json_object_put(o, "plug-ms", json_real_create(d->plug_ms));
    json_object_put(o, "since-ms", json_integer_create(d->since));
    SSET_FOR_EACH (user, &d->users) {
        json_array_add(users, json_string_create(user));
    }
    json_object_put(o, "users", users);
    return o;
}

/* Sorted, so that output can be compared. */
static const struct agent_port **sorted_ports(size_t *n)
{
    struct shash ports = SHASH_INITIALIZER(&ports);
    const struct agent_port *p;

    HMAP_FOR_EACH (p, node, agent_ports(agent)) {
        shash_add(&ports, p->name, p);
    }
    const struct shash_node **nodes = shash_sort(&ports);
    *n = shash_count(&ports);
    const struct agent_port **sorted = xcalloc(*n + 1, sizeof *sorted);
    for (size_t i = 0; i < *n; i++) {
        sorted[i] = nodes[i]->data;
    }
    free(nodes);
    shash_destroy(&ports);
    return sorted;
}

static struct json *vm_json(const struct vm *vm)
{
    struct json *o = json_object_create();
    struct json *devices = json_array_create_empty();

    json_object_put_string(o, "qmp", vm->path);
    json_object_put_string(o, "state", vm_state_name(vm->state));
    json_object_put_string(o, "qemu", vm_qemu_version(vm));
    json_object_put_string(o, "machine", vm->machine);
    json_object_put_string(o, "trouble", vm->trouble);
    const struct shash_node **nodes = shash_sort(&vm->devices);
    for (size_t i = 0; i < shash_count(&vm->devices); i++) {
        json_array_add(devices, device_json(nodes[i]->data));
    }
    free(nodes);
    json_object_put(o, "devices", devices);
    return o;
}

/* Everything, or what belongs to 'port'. */
static struct json *all_json(const struct agent_port *port, bool with_vms)
{
    struct json *o = json_object_create();
    struct json *list = json_array_create_empty();
    size_t n;

    const struct agent_port **ports = sorted_ports(&n);
    for (size_t i = 0; i < n; i++) {
        if (!port || port == ports[i]) {
            json_array_add(list, port_json(ports[i]));
        }
    }
    free(ports);
    json_object_put(o, "ports", list);
    if (!with_vms) {
        return o;
    }

    list = json_array_create_empty();
    const struct vm *vm;
    HMAP_FOR_EACH (vm, node, agent_vms(agent)) {
        if (!port || port->vm == vm) {
            json_array_add(list, vm_json(vm));
        }
    }
    json_object_put(o, "vms", list);

    const struct swconn *sw = agent_switch(agent);
    struct json *end = json_object_create();
    json_object_put_string(end, "socket", swconn_path(sw));
    json_object_put(end, "connected", json_boolean_create(swconn_is_up(sw)));
    json_object_put_string(end, "trouble", swconn_trouble(sw));
    json_object_put(o, "vswitchd", end);
    end = json_object_create();
    json_object_put_string(end, "remote", watcher_remote(watcher));
    json_object_put(end, "connected", json_boolean_create(watcher_is_connected(watcher)));
    json_object_put(o, "ovsdb", end);
    return o;
}

static void reply_json(struct unixctl_conn *conn, struct json *json)
{
    char *text = json_to_string(json, JSSF_PRETTY | JSSF_SORT);
    json_destroy(json);
    char *line = xasprintf("%s\n", text);
    free(text);
    unixctl_command_reply(conn, line);
    free(line);
}

/*
 * Text.
 */

static void put_port(struct ds *s, const struct agent_port *p)
{
    const char *vm = p->vm ? p->vm->path : p->qmp[0] ? p->qmp : "-";

    ds_put_format(s, "%-16s %-22s %s\n", p->name, agent_port_state(agent, p), vm);
}

static void put_device(struct ds *s, const struct vm_device *d)
{
    const char *user;

    if (d->region.link_id) {
        ds_put_format(s, "    link %"PRIu32, d->region.link_id);
    } else {
        ds_put_format(s, "    port %s", d->region.port);
    }
    ds_put_format(s, ": %s%s, %s", vm_device_state_name(d->state), d->late ? " (the guest does not let go)" : "",
                  d->id);
    if (d->region.size) {
        ds_put_format(s, ", %"PRIu64" kB", d->region.size >> 10);
    }
    if (d->plug_ms > 0) {
        ds_put_format(s, ", plugged in %.1f ms", d->plug_ms);
    }
    if (!sset_is_empty(&d->users)) {
        ds_put_cstr(s, ", used by");
        SSET_FOR_EACH (user, &d->users) {
            ds_put_format(s, " %s", user);
        }
    }
    ds_put_char(s, '\n');
}

static void put_all(struct ds *s, const struct agent_port *port)
{
    const struct swconn *sw = agent_switch(agent);
    const struct vm *vm;
    size_t n;

    if (!port) {
        ds_put_format(s, "vswitchd %s: %s\n", swconn_path(sw), swconn_is_up(sw) ? "connected" : swconn_trouble(sw));
        ds_put_format(s, "ovsdb %s: %s\n", watcher_remote(watcher),
                      watcher_is_connected(watcher) ? "connected" : "not connected");
    }
    HMAP_FOR_EACH (vm, node, agent_vms(agent)) {
        if (port && port->vm != vm) {
            continue;
        }
        ds_put_format(s, "VM %s: %s", vm->path, vm_state_name(vm->state));
        if (vm->state == VM_READY) {
            ds_put_format(s, ", QEMU %s, %s", vm_qemu_version(vm), vm->machine);
        }
        ds_put_char(s, '\n');
        if (vm->trouble[0]) {
            ds_put_format(s, "    trouble: %s\n", vm->trouble);
        }
        const struct shash_node **nodes = shash_sort(&vm->devices);
        for (size_t i = 0; i < shash_count(&vm->devices); i++) {
            put_device(s, nodes[i]->data);
        }
        free(nodes);
    }
    const struct agent_port **ports = sorted_ports(&n);
    for (size_t i = 0; i < n; i++) {
        const struct agent_port *p = ports[i];
        if (port && port != p) {
            continue;
        }
        ds_put_format(s, "port %s: %s", p->name, agent_port_state(agent, p));
        if (p->vm) {
            ds_put_format(s, ", VM %s", p->vm->path);
        }
        if (p->vm_uuid[0]) {
            ds_put_format(s, ", vm-uuid %s", p->vm_uuid);
        }
        if (p->iface_id[0]) {
            ds_put_format(s, ", iface-id %s", p->iface_id);
        }
        ds_put_char(s, '\n');
        if (p->error[0]) {
            ds_put_format(s, "    error: %s\n", p->error);
        }
    }
    free(ports);
}

/*
 * Commands.
 */

/* A command's arguments, without its name. */
struct args {
    bool json;
    int n;
    const char *arg[3];
};

/* 'argv' is the caller's and stays as it is. */
static struct args parse_args(int argc, const char *argv[])
{
    struct args a = { .n = 0 };

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            a.json = true;
        } else if (a.n < (int)ARRAY_SIZE(a.arg)) {
            a.arg[a.n++] = argv[i];
        }
    }
    return a;
}

static void ctl_list(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    if (parse_args(argc, argv).json) {
        reply_json(conn, all_json(NULL, false));
        return;
    }

    struct ds s = DS_EMPTY_INITIALIZER;
    size_t n;
    const struct agent_port **ports = sorted_ports(&n);
    for (size_t i = 0; i < n; i++) {
        put_port(&s, ports[i]);
    }
    free(ports);
    unixctl_command_reply(conn, ds_cstr(&s));
    ds_destroy(&s);
}

static void reply_no_port(struct unixctl_conn *conn, const char *name)
{
    char *text = xasprintf("there is no port %s of type dpdkr, neither in OVSDB nor in vswitchd", name);
    unixctl_command_reply_error(conn, text);
    free(text);
}

static void ctl_show(struct unixctl_conn *conn, int argc, const char *argv[], void *aux OVS_UNUSED)
{
    struct args a = parse_args(argc, argv);
    const struct agent_port *port = a.n ? agent_find_port(agent, a.arg[0]) : NULL;

    if (a.n && !port) {
        reply_no_port(conn, a.arg[0]);
    } else if (a.json) {
        reply_json(conn, all_json(port, true));
    } else {
        struct ds s = DS_EMPTY_INITIALIZER;
        put_all(&s, port);
        unixctl_command_reply(conn, ds_cstr(&s));
        ds_destroy(&s);
    }
}

/* The command is carried out; the answer comes when it is done. */
static void wait_until_done(struct unixctl_conn *conn, const char *port, bool in, bool json)
{
    struct pending *w = xzalloc(sizeof *w);

    w->conn = conn;
    w->port = xstrdup(port);
    w->in = in;
    w->json = json;
    w->started = time_msec();
    w->deadline = w->started + vm_unplug_timeout_ms + WAIT_MARGIN_MS;
    ovs_list_push_back(&pending, &w->node);
}

static void ctl_plug(struct unixctl_conn *conn, int argc, const char *argv[], void *aux)
{
    bool in = aux != NULL;
    struct args a = parse_args(argc, argv);

    if (a.n < 1 || a.n > (in ? 2 : 1)) {
        unixctl_command_reply_error(conn, in ? "arguments: [--json] PORT [QMP]" : "arguments: [--json] PORT");
        return;
    }
    char *why = in ? agent_hand_in(agent, a.arg[0], a.n > 1 ? a.arg[1] : NULL) : agent_hand_out(agent, a.arg[0]);
    if (why) {
        unixctl_command_reply_error(conn, why);
        free(why);
    } else {
        wait_until_done(conn, a.arg[0], in, a.json);
    }
}

static void pending_end(struct pending *w, const struct agent_port *p, const char *error)
{
    if (error) {
        unixctl_command_reply_error(w->conn, error);
    } else if (w->json) {
        reply_json(w->conn, p ? port_json(p) : json_object_create());
    } else {
        struct ds s = DS_EMPTY_INITIALIZER;
        if (w->in) {
            ds_put_format(&s, "port %s is plugged into %s\n", w->port, p->vm->path);
        } else {
            ds_put_format(&s, "port %s is out\n", w->port);
        }
        unixctl_command_reply(w->conn, ds_cstr(&s));
        ds_destroy(&s);
    }
    ovs_list_remove(&w->node);
    free(w->port);
    free(w);
}

void ctl_run(void)
{
    struct pending *w;

    LIST_FOR_EACH_SAFE (w, node, &pending) {
        const struct agent_port *p = agent_find_port(agent, w->port);
        bool done = w->in ? p && !p->leaving && agent_port_device(p) : !p || agent_port_is_out(agent, p);

        if (done) {
            pending_end(w, p, NULL);
        } else if (w->in && !p) {
            pending_end(w, NULL, "the port is gone");
        } else if (w->in && p->error[0]) {
            pending_end(w, p, p->error);
        } else if (time_msec() >= w->deadline) {
            char *text = xasprintf("not done after %lld ms, p2plinkd goes on trying: port %s is \"%s\"%s%s",
                                   time_msec() - w->started, w->port, agent_port_state(agent, p),
                                   p->vm && p->vm->trouble[0] ? ": " : "", p->vm ? p->vm->trouble : "");
            pending_end(w, p, text);
            free(text);
        }
    }
}

void ctl_wait(void)
{
    struct pending *w;

    LIST_FOR_EACH (w, node, &pending) {
        poll_timer_wait_until(w->deadline);
    }
}

void ctl_exit(void)
{
    struct pending *w;

    LIST_FOR_EACH_SAFE (w, node, &pending) {
        pending_end(w, NULL, "p2plinkd is exiting");
    }
}

void ctl_init(struct agent *agent_, const struct watcher *watcher_)
{
    agent = agent_;
    watcher = watcher_;
    unixctl_command_register("p2plinkd/list", "[--json]", 0, 1, ctl_list, NULL);
    unixctl_command_register("p2plinkd/show", "[--json] [PORT]", 0, 2, ctl_show, NULL);
    unixctl_command_register("p2plinkd/plug", "[--json] PORT [QMP]", 1, 3, ctl_plug, &pending);
    unixctl_command_register("p2plinkd/unplug", "[--json] PORT", 1, 2, ctl_plug, NULL);
}
