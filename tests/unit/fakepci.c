/* SPDX-License-Identifier: Apache-2.0 */
#include "fakepci.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "rawclient.h"
#include "sock.h"
#include "testbed.h"

/*
 * VMs.
 */

static void device_dir(const struct fake_vm *vm, int slot, char *dir, size_t size)
{
    snprintf(dir, size, "%s/bus/pci/devices/0000:00:%02x.0", vm->sysfs, slot + 5);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f) {
        abort();
    }
    fputs(text, f);
    fclose(f);
}

/* Configuration space: as the agent has it, only a port region's device has the multi-function bit. */
static void write_config(const char *dir, int fd)
{
    char path[256];
    uint8_t config[64] = { 0 };
    uint64_t magic = 0;

    if (pread(fd, &magic, sizeof magic, 0) == sizeof magic && magic == P2P_PORT_MAGIC) {
        config[P2P_PCI_HEADER_TYPE] = P2P_PCI_PORT_BIT;
    }
    snprintf(path, sizeof path, "%s/config", dir);
    FILE *f = fopen(path, "w");
    if (!f || fwrite(config, sizeof config, 1, f) != 1) {
        abort();
    }
    fclose(f);
}

void fake_vm_init(struct fake_vm *vm)
{
    char dir[128];

    strcpy(vm->sysfs, "/tmp/p2plink-sysfs-XXXXXX");
    if (!mkdtemp(vm->sysfs)) {
        abort();
    }
    const char *const parts[] = { "bus", "bus/pci", "bus/pci/devices" };
    for (unsigned i = 0; i < 3; i++) {
        snprintf(dir, sizeof dir, "%s/%s", vm->sysfs, parts[i]);
        mkdir(dir, 0700);
    }
    for (int i = 0; i < FAKE_SLOTS; i++) {
        vm->fd[i] = -1;
        vm->generation[i] = 0;
    }
    /* Another kind of device, that is none of ours. */
    snprintf(dir, sizeof dir, "%s/bus/pci/devices/0000:00:01.0", vm->sysfs);
    mkdir(dir, 0700);
    write_file(dir, "vendor", "0x8086\n");
    write_file(dir, "device", "0x7010\n");
}

static void remove_device(struct fake_vm *vm, int slot)
{
    const char *const files[] = { "vendor", "device", "enable", "config", "resource2_wc" };
    char dir[128], path[192];

    device_dir(vm, slot, dir, sizeof dir);
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
    close(vm->fd[slot]);
    vm->fd[slot] = -1;
    vm->generation[slot] = 0;
}

int fake_vm_plug(struct fake_vm *vm, int fd, uint64_t generation)
{
    char dir[128], path[192], target[64];

    for (int i = 0; i < FAKE_SLOTS; i++) {
        if (vm->fd[i] >= 0) {
            continue;
        }
        vm->fd[i] = fd;
        vm->generation[i] = generation;
        device_dir(vm, i, dir, sizeof dir);
        mkdir(dir, 0700);
        snprintf(path, sizeof path, "%s/resource2_wc", dir);
        snprintf(target, sizeof target, "/proc/%d/fd/%d", (int)getpid(), fd);
        if (symlink(target, path)) {
            abort();
        }
        write_config(dir, fd);
        write_file(dir, "enable", "0\n");
        write_file(dir, "device", "0x1110\n");
        write_file(dir, "vendor", "0x1af4\n"); /* Last: it is there now. */
        return i;
    }
    abort();
}

void fake_vm_unplug(struct fake_vm *vm, uint64_t generation)
{
    for (int i = 0; i < FAKE_SLOTS; i++) {
        if (vm->fd[i] >= 0 && vm->generation[i] == generation) {
            remove_device(vm, i);
        }
    }
}

bool fake_vm_has(const struct fake_vm *vm, uint64_t generation)
{
    for (int i = 0; i < FAKE_SLOTS; i++) {
        if (vm->fd[i] >= 0 && vm->generation[i] == generation) {
            return true;
        }
    }
    return false;
}

unsigned fake_vm_devices(const struct fake_vm *vm)
{
    unsigned n = 0;
    for (int i = 0; i < FAKE_SLOTS; i++) {
        n += vm->fd[i] >= 0;
    }
    return n;
}

void fake_vm_destroy(struct fake_vm *vm)
{
    const char *const parts[] = {
        "bus/pci/devices/0000:00:01.0/vendor", "bus/pci/devices/0000:00:01.0/device", "bus/pci/devices/0000:00:01.0",
        "bus/pci/devices", "bus/pci", "bus", "",
    };
    char path[128];

    for (int i = 0; i < FAKE_SLOTS; i++) {
        if (vm->fd[i] >= 0) {
            remove_device(vm, i);
        }
    }
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", vm->sysfs, parts[i]);
        (void)remove(path);
    }
}

static void quiet(void *aux, enum p2p_log_level level, const char *message)
{
    (void)aux;
    if (getenv("TESTBED_LOG") && level <= (enum p2p_log_level)atoi(getenv("TESTBED_LOG"))) {
        fprintf(stderr, "# guest: %s\n", message);
    }
}

int fake_vm_open(struct fake_vm *vm, const char *name, unsigned wait_ms, struct p2p_port **portp, struct p2p_error *err)
{
    struct p2p_port_config cfg = {
        .name = name, .attach = P2P_ATTACH_PCI, .sysfs = vm->sysfs, .wait_ms = wait_ms, .log = quiet,
    };
    return p2p_port_open(&cfg, portp, err);
}

/*
 * The agent.
 */

static void claim(struct fake_agent *a, unsigned i)
{
    struct p2p_msg m;

    p2p_msg_init(&m, P2P_MSG_CLAIM, a->port[i].claim_seq = 1000 + i);
    p2p_copy_name(m.name, sizeof m.name, a->port[i].name);
    m.generation = a->port[i].generation;
    (void)p2p_msg_send(a->sock, &m, -1);
}

static void answer(struct fake_agent *a, uint32_t seq, int error)
{
    struct p2p_msg m;

    p2p_msg_init(&m, error ? P2P_MSG_ERROR : P2P_MSG_OK, seq);
    m.error = error;
    p2p_copy_name(m.text, sizeof m.text, error ? "the VM says no" : "");
    (void)p2p_msg_send(a->sock, &m, -1);
}

/* Takes over 'fd' unless it is negative. */
static void obey(struct fake_agent *a, const struct p2p_msg *m, int fd)
{
    unsigned i = 0;

    while (i < a->n_ports && strcmp(a->port[i].name, m->name)) {
        i++;
    }
    struct fake_vm *vm = i < a->n_ports ? &a->port[i].vm : NULL;
    bool plugs = m->type == P2P_MSG_PLUG || m->type == P2P_MSG_UNPLUG || m->type == P2P_MSG_REPLUG;

    if (plugs && atomic_load(&a->refuse)) {
        answer(a, m->seq, -EIO);
    } else if (plugs && atomic_load(&a->mute)) {
        /* Nothing. */
    } else if (m->type == P2P_MSG_PORT) {
        atomic_fetch_add(&a->ports_gone, m->error != 0);
        if (!m->error && vm) {
            claim(a, i);
        }
    } else if (m->type == P2P_MSG_OK) {
        atomic_fetch_add(&a->claims_done, m->seq >= 1000);
    } else if (vm && (m->type == P2P_MSG_REGION || m->type == P2P_MSG_REPLUG)) {
        if (a->port[i].generation && a->port[i].generation != m->generation) {
            fake_vm_unplug(vm, a->port[i].generation);
        }
        a->port[i].generation = m->generation;
        if (!fake_vm_has(vm, m->generation) && fd >= 0) {
            fake_vm_plug(vm, fd, m->generation);
            fd = -1;
        }
        if (m->type == P2P_MSG_REPLUG) {
            atomic_fetch_add(&a->replugs, 1);
            answer(a, m->seq, 0);
        }
    } else if (vm && m->type == P2P_MSG_PLUG) {
        if (!fake_vm_has(vm, m->generation) && fd >= 0) {
            fake_vm_plug(vm, fd, m->generation);
            fd = -1;
        }
        atomic_fetch_add(&a->plugs, 1);
        answer(a, m->seq, 0);
    } else if (vm && m->type == P2P_MSG_UNPLUG) {
        fake_vm_unplug(vm, m->generation);
        atomic_fetch_add(&a->unplugs, 1);
        answer(a, m->seq, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void *agent_main(void *a_)
{
    struct fake_agent *a = a_;

    while (!atomic_load(&a->stop)) {
        struct pollfd pfd = { .fd = a->sock, .events = POLLIN };
        struct p2p_msg m;
        int fd;

        (void)poll(&pfd, 1, 5);
        int error = p2p_msg_recv(a->sock, &m, &fd);
        if (!error) {
            pthread_mutex_lock(&a->mutex);
            obey(a, &m, fd);
            pthread_mutex_unlock(&a->mutex);
        } else if (error != -EAGAIN) {
            break;
        }
    }
    return NULL;
}

void fake_agent_init(struct fake_agent *a, const char *path)
{
    memset(a, 0, sizeof *a);
    a->path = path;
    a->sock = -1;
    pthread_mutex_init(&a->mutex, NULL);
}

void fake_agent_add(struct fake_agent *a, const char *port)
{
    unsigned i = a->n_ports++;

    p2p_copy_name(a->port[i].name, sizeof a->port[i].name, port);
    fake_vm_init(&a->port[i].vm);
}

void fake_agent_start(struct fake_agent *a)
{
    atomic_store(&a->stop, false);
    atomic_store(&a->claims_done, 0);
    a->sock = raw_hello(a->path, P2P_ROLE_AGENT);
    a->running = true;
    pthread_create(&a->thread, NULL, agent_main, a);
}

void fake_agent_stop(struct fake_agent *a)
{
    if (a->running) {
        atomic_store(&a->stop, true);
        pthread_join(a->thread, NULL);
        close(a->sock);
        a->running = false;
    }
}

void fake_agent_destroy(struct fake_agent *a)
{
    fake_agent_stop(a);
    for (unsigned i = 0; i < a->n_ports; i++) {
        fake_vm_destroy(&a->port[i].vm);
    }
    pthread_mutex_destroy(&a->mutex);
}

struct fake_vm *fake_agent_vm(struct fake_agent *a, const char *port)
{
    for (unsigned i = 0; i < a->n_ports; i++) {
        if (!strcmp(a->port[i].name, port)) {
            return &a->port[i].vm;
        }
    }
    abort();
}
