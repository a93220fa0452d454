/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a VNF in a guest gets at its regions: ivshmem-plain devices, found in sysfs by PCI id and header magic.
 *
 * Control thread (and p2p_port_open() before that thread is there).  The kernel's uevents tell when a device comes; a
 * slow look around makes up for lost ones.  Needs the right to map a device's BAR: root.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vnf.h"

#define RESCAN_MS 50

static unsigned read_hex(const char *dir, const char *file)
{
    char path[512], text[32] = "";
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? (unsigned)strtoul(text, NULL, 16) : 0;
}

/* Does the host say that it carries a port region? */
static bool is_port_device(const char *dir)
{
    char path[512];
    uint8_t type = 0;

    snprintf(path, sizeof path, "%s/config", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = pread(fd, &type, 1, P2P_PCI_HEADER_TYPE);
    close(fd);
    return n == 1 && type & P2P_PCI_PORT_BIT;
}

/* Lets the device answer to memory accesses: nothing else does for a device without a driver. */
static void enable(const char *dir)
{
    char path[512];
    snprintf(path, sizeof path, "%s/enable", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        char state = '0';
        if (read(fd, &state, 1) == 1 && state == '0') {
            ssize_t n = pwrite(fd, "1", 1, 0);
            (void)n;
        }
        close(fd);
    }
}

/* Opens the BAR behind 'dir' and reads its header.  Returns a descriptor or a negative errno. */
static int open_bar(const char *dir, struct p2p_region_header *h, size_t *size)
{
    char path[512];
    struct stat st;

    snprintf(path, sizeof path, "%s/resource%d_wc", dir, P2P_PCI_BAR);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        snprintf(path, sizeof path, "%s/resource%d", dir, P2P_PCI_BAR);
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    if (fd < 0) {
        return -errno;
    }
    enable(dir);
    void *page = MAP_FAILED;
    if (fstat(fd, &st) < 0 || st.st_size < P2P_PAGE
        || (page = mmap(NULL, P2P_PAGE, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED) {
        close(fd);
        return -ENXIO;
    }
    memcpy(h, page, sizeof *h);
    munmap(page, P2P_PAGE);
    *size = (size_t)st.st_size;
    return fd;
}

/* Looks through all ivshmem devices for the region that is asked for: of a port by name (the newest generation, if
 * several answer), or of a link by id and generation.  Maps it.  -EAGAIN: not there (yet). */
static int find(struct p2p_port *port, uint64_t magic, uint32_t link_id, uint64_t generation, struct p2p_region *region,
                struct p2p_error *err)
{
    char root[384];
    int best_fd = -1, error = -EAGAIN;
    size_t best_size = 0;
    uint64_t best_generation = 0;

    snprintf(root, sizeof root, "%s/bus/pci/devices", port->sysfs);
    DIR *d = opendir(root);
    if (!d) {
        return p2p_fail(err, -errno, "%s: %s", root, strerror(errno));
    }
    for (struct dirent *e; (e = readdir(d));) {
        char dir[384 + 64];
        struct p2p_region_header h;
        size_t size;

        if (e->d_name[0] == '.' || strlen(e->d_name) > 60) {
            continue;
        }
        snprintf(dir, sizeof dir, "%s/%.60s", root, e->d_name);
        if (read_hex(dir, "vendor") != P2P_PCI_VENDOR || read_hex(dir, "device") != P2P_PCI_DEVICE
            || is_port_device(dir) != (magic == P2P_PORT_MAGIC)) {
            continue;
        }
        int fd = open_bar(dir, &h, &size);
        if (fd < 0) {
            if (fd == -EACCES || fd == -EPERM) {
                error = p2p_fail(err, fd, "%s: %s: run as root", dir, strerror(-fd));
            }
            continue;
        }
        h.name[0][sizeof h.name[0] - 1] = '\0';
        bool match = h.magic == magic && h.generation > best_generation
                     && (link_id ? h.link_id == link_id && h.generation == generation : !strcmp(h.name[0], port->name));
        if (match) {
            if (best_fd >= 0) {
                close(best_fd);
            }
            best_fd = fd;
            best_size = size;
            best_generation = h.generation;
        } else {
            close(fd);
        }
    }
    closedir(d);
    if (best_fd < 0) {
        return error;
    }
    error = p2p_region_map(region, best_fd, best_size, magic, best_generation, err);
    if (error) {
        close(best_fd);
        return error;
    }
    region->wc = true;
    return 0;
}

int vnf_pci_port_name(const char *dir, char name[P2P_NAME_MAX])
{
    struct p2p_region_header h;
    size_t size;

    if (!is_port_device(dir)) {
        return -ENODEV;
    }
    int fd = open_bar(dir, &h, &size);
    if (fd < 0) {
        return fd;
    }
    close(fd);
    if (h.magic != P2P_PORT_MAGIC || !memchr(h.name[0], '\0', sizeof h.name[0])) {
        return -ENODEV;
    }
    memcpy(name, h.name[0], sizeof h.name[0]);
    return 0;
}

static void open_uevents(struct p2p_port *port)
{
    struct sockaddr_nl nl = { .nl_family = AF_NETLINK, .nl_groups = 1 };
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&nl, sizeof nl) < 0) {
        close(fd);
        fd = -1;
    }
    port->uevent_fd = fd; /* Without it we look around by the clock only. */
}

/* Reads away what the kernel said.  True if a PCI device came or went, or messages were lost. */
static bool devices_changed(struct p2p_port *port)
{
    bool changed = false;
    char buf[4096];

    for (;;) {
        ssize_t n = recv(port->uevent_fd, buf, sizeof buf - 1, MSG_DONTWAIT);
        if (n <= 0) {
            return changed || (n < 0 && errno == ENOBUFS);
        }
        buf[n] = '\0';
        changed |= strstr(buf, "/pci") != NULL;
    }
}

int vnf_pci_open(struct p2p_port *port, struct p2p_error *err)
{
    if (port->uevent_fd < 0) {
        open_uevents(port);
    }
    struct p2p_region region = P2P_REGION_INIT;
    int error = find(port, P2P_PORT_MAGIC, 0, 0, &region, err);
    if (error == -EAGAIN) {
        return p2p_fail(err, -ENOENT, "no ivshmem device carries port %s: has p2plinkd (or you) plugged it into this "
                        "VM?",
                        port->name);
    }
    if (!error) {
        error = vnf_map_publish(port, &region, err);
    }
    if (!error) {
        p2p_store(&port->registered, true);
    }
    return error;
}

int vnf_pci_link(struct p2p_port *port, uint32_t link_id, uint64_t generation, struct p2p_region *region,
                 struct p2p_error *err)
{
    /* A look costs a walk through sysfs: only when something has come, or now and then. */
    if (!(port->uevent_fd >= 0 && devices_changed(port)) && p2p_now_ms() < port->retry_at_ms) {
        return -EAGAIN;
    }
    int error = find(port, P2P_LINK_MAGIC, link_id, generation, region, err);
    port->retry_at_ms = error == -EAGAIN ? p2p_now_ms() + RESCAN_MS : 0;
    return error;
}

void vnf_pci_run(struct p2p_port *port)
{
    struct vnf_map *map = port->map;

    if (map && p2p_load_acquire(&map->sw->session) != map->session) {
        p2p_log(&port->log, P2P_LOG_WARN, "the switch has let us go; attaching again");
        vnf_map_retire(port);
        p2p_store(&port->registered, false);
        port->retry_at_ms = 0;
    }
    if (!port->map && p2p_now_ms() >= port->retry_at_ms) {
        struct p2p_error err = { "" };
        int error = vnf_pci_open(port, &err);
        if (!error) {
            p2p_log(&port->log, P2P_LOG_INFO, "attached again");
            port->said_away = false;
        } else if (!port->said_away) {
            p2p_log(&port->log, P2P_LOG_INFO, "not attached: %s", err.text);
            port->said_away = true;
        }
        port->retry_at_ms = error ? p2p_now_ms() + RESCAN_MS : 0;
    }
}

void vnf_pci_close(struct p2p_port *port)
{
    if (port->uevent_fd >= 0) {
        close(port->uevent_fd);
        port->uevent_fd = -1;
    }
}
