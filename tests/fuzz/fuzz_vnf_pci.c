/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's side in a guest: any devices, with any content.
 *
 * A directory that looks like sysfs; the input plugs memory into it, unplugs it, and rewrites what lies in it: port
 * regions, link regions, things that want to pass for one.  A link region's device must never be taken for a port's.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "puppet.h"
#include "vnf.h"

#define SLOTS 4

static char sysfs[72];
static int slot_fd[SLOTS];
static bool slot_is_port[SLOTS];
static uint64_t slot_inode[SLOTS];

static void path_of(int slot, const char *file, char *path, size_t size)
{
    snprintf(path, size, "%s/bus/pci/devices/0000:00:%02x.0%s%s", sysfs, slot, *file ? "/" : "", file);
}

static void write_file(int slot, const char *name, const void *data, size_t size)
{
    char path[160];

    path_of(slot, name, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

static void remove_sysfs(void)
{
    static const char *const files[] = { "vendor", "device", "enable", "config", "resource2", "" };
    static const char *const dirs[] = { "/bus/pci/devices", "/bus/pci", "/bus", "" };
    char path[160];

    for (int s = 0; s < SLOTS; s++) {
        for (int i = 0; i < 6; i++) {
            path_of(s, files[i], path, sizeof path);
            (void)remove(path);
        }
    }
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s%s", sysfs, dirs[i]);
        rmdir(path);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const dirs[] = { "/bus", "/bus/pci", "/bus/pci/devices" };
    char path[160];

    (void)argc;
    (void)argv;
    puppet_init();
    fuzz_make_dir(sysfs, sizeof sysfs);
    atexit(remove_sysfs);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s%s", sysfs, dirs[i]);
        CHECK(!mkdir(path, 0700));
    }
    for (int s = 0; s < SLOTS; s++) {
        path_of(s, "", path, sizeof path);
        CHECK(!mkdir(path, 0700));
        write_file(s, "vendor", "0x1af4\n", 7);
        write_file(s, "enable", "0\n", 2);
        slot_fd[s] = -1;
    }
    return 0;
}

static void unplug(int slot)
{
    char path[160];

    if (slot_fd[slot] >= 0) {
        path_of(slot, "device", path, sizeof path);
        unlink(path);
        path_of(slot, "resource2", path, sizeof path);
        unlink(path);
        close(slot_fd[slot]);
        slot_fd[slot] = -1;
    }
}

/* Takes over 'fd'. */
static void plug(int slot, int fd, bool as_port)
{
    char path[160], target[40];
    uint8_t config[64] = { 0 };
    struct stat st;

    unplug(slot);
    CHECK(fd >= 0 && !fstat(fd, &st));
    slot_fd[slot] = fd;
    slot_is_port[slot] = as_port;
    slot_inode[slot] = st.st_ino;
    config[P2P_PCI_HEADER_TYPE] = as_port ? P2P_PCI_PORT_BIT : 0;
    write_file(slot, "config", config, sizeof config);
    path_of(slot, "resource2", path, sizeof path);
    snprintf(target, sizeof target, "/proc/self/fd/%d", fd);
    CHECK(!symlink(target, path));
    write_file(slot, "device", "0x1110\n", 7);
}

/* What the port has mapped must be of a device that the host has plugged for that. */
static void check_kind(const struct p2p_region *r, bool port)
{
    struct stat st;

    CHECK(!fstat(r->fd, &st));
    for (int s = 0; s < SLOTS; s++) {
        CHECK(slot_fd[s] < 0 || slot_inode[s] != st.st_ino || slot_is_port[s] == port);
    }
}

static int some_memory(struct input *in)
{
    static const uint64_t sizes[] = { 0, 100, 4096, 65536, 2 << 20, 3 << 20 };
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    CHECK(fd >= 0 && !ftruncate(fd, (off_t)sizes[in8(in) % 6]));
    return fd;
}

static uint64_t *word_of(struct puppet_region *p, struct input *in)
{
    uint8_t where = in8(in);

    if (!p->r.base) {
        return NULL;
    }
    if (where & 1) {
        return in_header(in, p->r.base);
    }
    if (where & 2 && p == &puppet.port) {
        return (uint64_t *)puppet.sw + in8(in) % (sizeof *puppet.sw / 8);
    }
    const struct p2p_ring_geometry *g = &p->r.hdr.ring[in8(in) % (p->n_tx + p->n_rx)];
    return (uint64_t *)p2p_region_at(&p->r, where & 4 ? g->ctl_off : g->desc_off) + in8(in) % 32;
}

/* A peer that plays the switch in what it has made look like a port region. */
static void on_turn(struct puppet *p)
{
    for (unsigned k = 0; k < PUPPET_LINKS; k++) {
        const struct p2p_region_header *h = (void *)p->link[k].r.base;
        if (h && h->magic == P2P_PORT_MAGIC) {
            struct p2p_switch_page *sw = p2p_region_at(&p->link[k].r, P2P_PAGE);
            struct p2p_vnf_page *vnf = p2p_region_at(&p->link[k].r, 2 * P2P_PAGE);
            p2p_store_release(&sw->session, p2p_load_acquire(&vnf->session));
        }
    }
}

static struct puppet_region *region(uint8_t k)
{
    return k % 3 ? &puppet.link[k % 3 - 1] : &puppet.port;
}

static void step(struct input *in)
{
    uint8_t op = in8(in), k = op >> 6;
    struct puppet_region *r = region(k);
    uint64_t *word;

    switch (op % 12) {
    case 0:
        puppet_make_port();
        plug(in8(in) % SLOTS, dup(puppet.port.r.fd), true);
        break;
    case 1:
        puppet_make_link(k & 1);
        plug(in8(in) % SLOTS, dup(puppet.link[k & 1].r.fd), false);
        puppet_want(k & 1, k & 1, P2P_WANT_MAP);
        break;
    case 2: /* The peer makes a port region of it. */
        if (r != &puppet.port && r->r.base && puppet.port.r.base) {
            struct p2p_region_header h = puppet.port.r.hdr;
            h.generation += in8(in);
            h.size = r->r.size;
            memcpy(r->r.base, &h, sizeof h);
        }
        break;
    case 3:
        plug(in8(in) % SLOTS, some_memory(in), in8(in) & 1);
        break;
    case 4:
        unplug(in8(in) % SLOTS);
        break;
    case 5:
    case 6:
        word = word_of(r, in);
        if (word) {
            p2p_store(word, in_word(in, *word));
        }
        break;
    case 7:
        puppet_mode(k & 1, in8(in) & 1);
        puppet_rx(k & 1, (enum p2p_rx_state)(in8(in) % 4));
        break;
    case 8:
        puppet_want(in8(in) % P2P_MAX_LINKS, k & 1, (enum p2p_want)(in8(in) % 3));
        break;
    case 9:
        puppet.silent = in8(in) % 8 == 0;
        if (puppet.sw && k & 1) {
            p2p_store(&puppet.sw->session, 0); /* The switch lets go of the VNF. */
        }
        break;
    case 10: { /* Changing while it is looked for. */
        struct scribble s[2];
        unsigned n = 0;
        for (int i = 0; i < 2; i++) {
            word = word_of(region(in8(in)), in);
            if (word) {
                s[n].at = word;
                s[n++].value = in_word(in, *word);
            }
        }
        scribble_begin(s, in8(in) % 4 ? 0 : n);
        if (puppet.vnf_port) {
            puppet_control(4);
        }
        scribble_end();
        break;
    }
    default:
        if (puppet.vnf_port) {
            puppet_control(1 + in_below(in, 60));
        }
        break;
    }
}

static void use(void)
{
    static const uint8_t packet[60];
    struct p2p_buf buf = { packet, sizeof packet, 0 };
    struct p2p_pkt pkts[8];
    const struct vnf_map *map = puppet.vnf_port->map;

    if (map) {
        check_kind(&map->region, true);
    }
    for (unsigned k = 0; map && k < P2P_MAX_LINKS; k++) {
        if (map->chan[k]) {
            check_kind(&map->chan[k]->region, false);
        }
    }
    (void)p2p_tx_burst(puppet.vnf_port, 0, &buf, 1);
    unsigned n = p2p_rx_burst(puppet.vnf_port, 0, pkts, 8);
    for (unsigned i = 0; i < n; i++) {
        (void)((const volatile uint8_t *)pkts[i].data)[pkts[i].len - 1];
    }
    p2p_rx_release(puppet.vnf_port, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct p2p_port_config cfg = { .name = PUPPET_NAME, .attach = P2P_ATTACH_PCI, .sysfs = sysfs, .log = fuzz_log };
    struct p2p_error err;
    int fds = fuzz_count_fds();

    puppet_begin(1, 1, 1500);
    puppet.on_turn = on_turn;
    for (int i = in_below(&in, 4); i; i--) {
        step(&in);
    }
    puppet_make_port();
    plug(0, dup(puppet.port.r.fd), true);
    if (p2p_port_open(&cfg, &puppet.vnf_port, &err) == 0) {
        for (int i = 0; i < 100 && in.left; i++) {
            step(&in);
            use();
        }
        puppet_close();
    }
    puppet_end();
    for (int s = 0; s < SLOTS; s++) {
        unplug(s);
    }
    CHECK(fuzz_wait_fds(fds));
    return 0;
}
