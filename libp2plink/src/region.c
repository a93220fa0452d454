/* SPDX-License-Identifier: Apache-2.0 */
#include "region.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "atomics.h"
#include "sigbus.h"

#define HUGE_PAGE (UINT64_C(2) << 20)

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

/* Descriptors per ring, and the least that a ring's data area holds: a few bursts of the longest frames, and enough
 * small ones for every descriptor. */
#define N_DESC 1024u
#define DATA_MIN_STANDARD (UINT64_C(384) << 10)
#define DATA_MIN_JUMBO (UINT64_C(960) << 10)
#define DATA_MAX (UINT64_C(64) << 20)

static uint64_t round_up_pow2(uint64_t x)
{
    uint64_t p = 1;
    while (p < x) {
        p <<= 1;
    }
    return p;
}

/* Lays the region out: the smallest power of two in which every ring has its least; what is left goes to the data
 * areas. */
static void lay_out(struct p2p_region_header *h)
{
    unsigned n_rings = h->n_queues[0] + h->n_queues[1];
    uint64_t fixed = P2P_PAGE;
    uint64_t per_ring = sizeof(struct p2p_ring_ctl) + N_DESC * sizeof(struct p2p_desc);
    uint64_t data_min = h->mtu > 2000 ? DATA_MIN_JUMBO : DATA_MIN_STANDARD;

    if (!h->link_id) {
        h->switch_page_off = P2P_PAGE;
        h->vnf_page_off = 2 * P2P_PAGE;
        fixed = 3 * P2P_PAGE;
    }
    h->size = round_up_pow2(fixed + n_rings * (per_ring + data_min));
    if (h->size < HUGE_PAGE) {
        h->size = HUGE_PAGE;
    }

    uint64_t data = (h->size - fixed - n_rings * per_ring) / n_rings;
    data = data / P2P_CACHE_LINE * P2P_CACHE_LINE;
    data = data < DATA_MAX ? data : DATA_MAX;

    uint64_t off = fixed;
    for (unsigned i = 0; i < n_rings; i++) {
        struct p2p_ring_geometry *g = &h->ring[i];
        g->ctl_off = off;
        off += sizeof(struct p2p_ring_ctl);
        g->desc_off = off;
        off += N_DESC * sizeof(struct p2p_desc);
        g->n_desc = N_DESC;
        g->data_size = (uint32_t)data;
    }
    for (unsigned i = 0; i < n_rings; i++) {
        h->ring[i].data_off = off;
        off += data;
    }
}

/* Prefers memory of 'node' for the mapping, before any page of it is there.  A wish, not a must. */
static void prefer_node(void *base, size_t size, int node)
{
    unsigned long mask[16] = { 0 };

    if (node < 0 || (size_t)node >= sizeof mask * 8) {
        return;
    }
    mask[(unsigned)node / (8 * sizeof mask[0])] = 1ul << ((unsigned)node % (8 * sizeof mask[0]));
    (void)syscall(SYS_mbind, base, size, MPOL_PREFERRED, mask, sizeof mask * 8, 0);
}

/* Makes a memfd of 'size' bytes whose memory is really there, and maps it. */
static int make_memory(struct p2p_region *r, const char *name, size_t size, bool huge, int node)
{
    int error;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
    if (fd < 0) {
        return -errno;
    }
    void *base = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) < 0) {
        goto fail;
    }
    base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (huge ? MAP_NORESERVE : 0), fd, 0);
    if (base == MAP_FAILED) {
        goto fail;
    }
    prefer_node(base, size, node);
    /* Allocates every page, so that a full machine shows itself here and not as SIGBUS in somebody's data path. */
    if (fallocate(fd, 0, 0, (off_t)size) < 0) {
        goto fail;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        goto fail;
    }
    r->base = base;
    r->size = size;
    r->fd = fd;
    r->huge = huge;
    r->watch = p2p_sigbus_watch(base, size);
    return 0;

fail:
    error = -errno;
    if (base != MAP_FAILED) {
        munmap(base, size);
    }
    close(fd);
    return error;
}

int p2p_region_create(struct p2p_region *r, const struct p2p_region_spec *spec, const struct p2p_logger *log,
                      struct p2p_error *err)
{
    struct p2p_region_header h = {
        .magic = spec->link_id ? P2P_LINK_MAGIC : P2P_PORT_MAGIC,
        .version = P2P_LAYOUT_VERSION,
        .version_min = P2P_LAYOUT_VERSION_MIN,
        .generation = p2p_unique64(),
        .link_id = spec->link_id,
        .mtu = spec->mtu,
        .n_queues = { spec->n_queues[0], spec->n_queues[1] },
        .numa_node = spec->numa_node,
    };
    memcpy(h.mac, spec->mac, sizeof h.mac);
    for (int i = 0; i < 2; i++) {
        p2p_copy_name(h.name[i], sizeof h.name[i], spec->name[i] ? spec->name[i] : "");
    }
    lay_out(&h);

    *r = (struct p2p_region) P2P_REGION_INIT;
    char memfd_name[160];
    snprintf(memfd_name, sizeof memfd_name, "p2plink:%s%s%s", h.name[0], spec->link_id ? "-" : "", h.name[1]);
    int error = -ENOMEM;
    if (spec->huge) {
        error = make_memory(r, memfd_name, h.size, true, spec->numa_node);
        if (error) {
            p2p_log(log, P2P_LOG_WARN, "no huge pages for %s (%llu kB: %s); using tmpfs memory instead, which is "
                    "slower: "
                    "raise vm.nr_hugepages", memfd_name, (unsigned long long)h.size >> 10, strerror(-error));
        }
    }
    if (error) {
        error = make_memory(r, memfd_name, h.size, false, spec->numa_node);
    }
    if (error) {
        return p2p_fail(err, error, "cannot make shared memory %s of %llu kB: %s", memfd_name,
                        (unsigned long long)h.size >> 10, strerror(-error));
    }

    /* The magic last: who finds it, finds the rest. */
    uint64_t magic = h.magic;
    r->hdr = h;
    h.magic = 0;
    memcpy(r->base, &h, sizeof h);
    for (unsigned i = 0; i < h.n_queues[0] + h.n_queues[1]; i++) {
        struct p2p_ring_ctl *ctl = p2p_region_at(r, h.ring[i].ctl_off);
        ctl->head = ctl->tail = ctl->freed = spec->first_index;
    }
    p2p_store_release(&((struct p2p_region_header *)r->base)->magic, magic);
    return 0;
}

static bool fits(uint64_t off, uint64_t len, uint64_t size)
{
    return off % P2P_CACHE_LINE == 0 && off >= P2P_PAGE && len <= size && off <= size - len;
}

int p2p_region_check(const struct p2p_region_header *h, size_t size, uint64_t magic, uint64_t generation,
                     struct p2p_error *err)
{
    if (h->magic != magic) {
        return p2p_fail(err, -EPROTO, "magic is %016llx, not %016llx: this is not a p2plink %s region",
                        (unsigned long long)h->magic, (unsigned long long)magic,
                        magic == P2P_LINK_MAGIC ? "link" : "port");
    }
    if (h->version_min > P2P_LAYOUT_VERSION) {
        return p2p_fail(err, -EPROTO, "layout version %u needs a library that knows version %u, this one (%s) knows "
                        "%u: "
                        "upgrade libp2plink here", h->version, h->version_min, p2p_version(), P2P_LAYOUT_VERSION);
    }
    if (h->version < P2P_LAYOUT_VERSION_MIN) {
        return p2p_fail(err, -EPROTO, "layout version %u is too old, this library (%s) knows %u and later: upgrade the "
                        "switch", h->version, p2p_version(), P2P_LAYOUT_VERSION_MIN);
    }
    if (h->features) {
        return p2p_fail(err, -EPROTO, "features %llx are needed and not known here: upgrade libp2plink here",
                        (unsigned long long)h->features);
    }
    if (h->size != size || (h->size & (h->size - 1))) {
        return p2p_fail(err, -EPROTO, "header says %llu bytes, the memory has %zu", (unsigned long long)h->size, size);
    }
    if (!h->generation || (generation && h->generation != generation)) {
        return p2p_fail(err, -EPROTO, "generation is %llx, expected %llx: the region has been replaced",
                        (unsigned long long)h->generation, (unsigned long long)generation);
    }
    bool link = magic == P2P_LINK_MAGIC;
    if (link ? !h->link_id : h->link_id) {
        return p2p_fail(err, -EPROTO, "link id %u in a %s region", h->link_id, link ? "link" : "port");
    }
    if (h->mtu < P2P_MTU_MIN || h->mtu > P2P_MTU_MAX) {
        return p2p_fail(err, -EPROTO, "MTU %u is not between %u and %u", h->mtu, P2P_MTU_MIN, P2P_MTU_MAX);
    }
    for (int i = 0; i < 2; i++) {
        if (!h->n_queues[i] || h->n_queues[i] > P2P_MAX_QUEUES) {
            return p2p_fail(err, -EPROTO, "%u queues, not 1 to %u", h->n_queues[i], P2P_MAX_QUEUES);
        }
        if (memchr(h->name[i], 0, sizeof h->name[i]) == NULL) {
            return p2p_fail(err, -EPROTO, "a port name without end");
        }
    }
    if (!link && (!fits(h->switch_page_off, P2P_PAGE, size) || !fits(h->vnf_page_off, P2P_PAGE, size))) {
        return p2p_fail(err, -EPROTO, "control pages at %llx and %llx lie outside the region",
                        (unsigned long long)h->switch_page_off, (unsigned long long)h->vnf_page_off);
    }
    for (unsigned i = 0; i < h->n_queues[0] + h->n_queues[1]; i++) {
        const struct p2p_ring_geometry *g = &h->ring[i];
        if (g->n_desc < 2 || g->n_desc > 1u << 20 || (g->n_desc & (g->n_desc - 1))
            || g->data_size < h->mtu + P2P_FRAME_OVERHEAD || g->data_size > DATA_MAX
            || !fits(g->ctl_off, sizeof(struct p2p_ring_ctl), size)
            || !fits(g->desc_off, (uint64_t)g->n_desc * sizeof(struct p2p_desc), size)
            || !fits(g->data_off, g->data_size, size)) {
            return p2p_fail(err, -EPROTO, "ring %u (%u descriptors, %u bytes) lies outside the region", i, g->n_desc,
                            g->data_size);
        }
    }
    return 0;
}

int p2p_region_map(struct p2p_region *r, int fd, size_t size, uint64_t magic, uint64_t generation,
                   struct p2p_error *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return p2p_fail(err, -errno, "fstat: %s", strerror(errno));
    }
    if (size < 4 * P2P_PAGE || st.st_size < 0 || (uint64_t)st.st_size < size) {
        return p2p_fail(err, -EPROTO, "memory of %lld bytes is too small for a region of %zu",
                        (long long)st.st_size, size);
    }
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return p2p_fail(err, -errno, "mmap of %zu bytes: %s", size, strerror(errno));
    }

    struct p2p_region_header hdr;
    uint64_t seen = p2p_load_acquire(&((struct p2p_region_header *)base)->magic);
    memcpy(&hdr, base, sizeof hdr);
    hdr.magic = seen;
    int error = p2p_region_check(&hdr, size, magic, generation, err);
    if (error) {
        munmap(base, size);
        return error;
    }
    struct statfs fs;
    *r = (struct p2p_region) {
        .base = base, .size = size, .fd = fd, .hdr = hdr, .watch = p2p_sigbus_watch(base, size),
        .huge = fstatfs(fd, &fs) == 0 && (unsigned long)fs.f_type == HUGETLBFS_MAGIC,
    };
    return 0;
}

bool p2p_region_torn(const struct p2p_region *r)
{
    return p2p_sigbus_torn(r->watch);
}

/* The mapping is about to go, or to be replaced. */
static void forget(struct p2p_region *r)
{
    p2p_sigbus_forget(r->watch);
    r->watch = 0;
}

void p2p_region_blank(struct p2p_region *r)
{
    forget(r);
    if (r->base) {
        mmap(r->base, r->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    }
    if (r->fd >= 0) {
        close(r->fd);
        r->fd = -1;
    }
}

void p2p_region_wipe(struct p2p_region *r)
{
    if (r->huge && r->base) {
        /* A hole would be filled at the next touch, and if there is no huge page left then, that is a SIGBUS in whoever
         * touches it: a slow VNF, or QEMU.  The memory is free when the last of them lets go. */
        memset(r->base, 0, r->size);
    } else {
        p2p_region_punch(r);
    }
}

void p2p_region_punch(struct p2p_region *r)
{
    if (r->fd >= 0) {
        (void)fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)r->size);
    }
}

void p2p_region_unmap(struct p2p_region *r)
{
    forget(r);
    if (r->base) {
        munmap(r->base, r->size);
        r->base = NULL;
    }
    if (r->fd >= 0) {
        close(r->fd);
        r->fd = -1;
    }
}
