/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Region headers: whatever p2p_region_check() lets pass must be safe to work with.
 *
 * The input writes over a good header; what passes is judged anew here, in wider numbers, and its rings are used, on
 * a heap block of exactly the region's size, with the pages that nobody may touch right behind it.  The same through
 * p2p_region_map(), on a memfd whose size and content are the input's, also with the header changing meanwhile.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fuzz.h"
#include "region.h"
#include "ring.h"
#include "sigbus.h"

#define SIZE_MAX_FUZZ (UINT64_C(1) << 20)

/* A small region of a good shape. */
static void make_header(struct p2p_region_header *h, struct input *in)
{
    bool link = in8(in) & 1;
    unsigned n_rings;

    memset(h, 0, sizeof *h);
    h->magic = link ? P2P_LINK_MAGIC : P2P_PORT_MAGIC;
    h->version = P2P_LAYOUT_VERSION;
    h->version_min = P2P_LAYOUT_VERSION_MIN;
    h->generation = 1;
    h->link_id = link;
    h->mtu = 100;
    h->n_queues[0] = 1 + in_below(in, 3);
    h->n_queues[1] = 1 + in_below(in, 3);
    h->size = UINT64_C(16384) << in_below(in, 3);
    strcpy(h->name[0], "a");
    strcpy(h->name[1], link ? "b" : "");
    uint64_t off = P2P_PAGE;
    if (!link) {
        h->switch_page_off = P2P_PAGE;
        h->vnf_page_off = 2 * P2P_PAGE;
        off = 3 * P2P_PAGE;
        h->size += 8192 << in_below(in, 2);
        while (h->size & (h->size - 1)) {
            h->size += h->size & -h->size;
        }
    }
    n_rings = h->n_queues[0] + h->n_queues[1];
    uint64_t share = (h->size - off) / n_rings / P2P_CACHE_LINE * P2P_CACHE_LINE;
    for (unsigned i = 0; i < n_rings; i++, off += share) {
        struct p2p_ring_geometry *g = &h->ring[i];
        g->ctl_off = off;
        g->desc_off = off + sizeof(struct p2p_ring_ctl);
        g->n_desc = 4;
        g->data_off = g->desc_off + g->n_desc * sizeof(struct p2p_desc);
        g->data_size = (uint32_t)(off + share - g->data_off);
    }
}

static void rewrite(struct p2p_region_header *h, struct input *in)
{
    unsigned n_rings = h->n_queues[0] + h->n_queues[1];
    size_t used = (size_t)((uint8_t *)&h->ring[n_rings < 2 * P2P_MAX_QUEUES ? n_rings : 2 * P2P_MAX_QUEUES]
                           - (uint8_t *)h);
    unsigned n = in_below(in, 5);

    for (unsigned i = 0; i < n; i++) {
        size_t off = in16(in) % used;
        if (in8(in) % 2) {
            uint64_t word;
            off = off / 8 * 8;
            memcpy(&word, (uint8_t *)h + off, sizeof word);
            word = in_word(in, word);
            memcpy((uint8_t *)h + off, &word, sizeof word);
        } else {
            uint32_t word;
            off = off / 4 * 4;
            memcpy(&word, (uint8_t *)h + off, sizeof word);
            word = (uint32_t)in_word(in, word);
            memcpy((uint8_t *)h + off, &word, sizeof word);
        }
    }
}

/* At the edge of what can be true, or beyond it. */
static void forge(struct p2p_region_header *h, struct input *in)
{
    struct p2p_ring_geometry *g = &h->ring[in8(in) % 6];
    uint64_t *off = in8(in) & 1 ? &g->ctl_off : in8(in) & 1 ? &g->desc_off : &g->data_off;
    uint64_t len = off == &g->ctl_off ? sizeof(struct p2p_ring_ctl)
                   : off == &g->desc_off ? g->n_desc * sizeof(struct p2p_desc) : g->data_size;

    switch (in8(in) % 8) {
    case 0: *off = h->size - len; break;
    case 1: *off = (h->size - len) / P2P_CACHE_LINE * P2P_CACHE_LINE + P2P_CACHE_LINE; break;
    case 2: *off = 0 - (uint64_t)P2P_CACHE_LINE * in8(in); break;
    case 3: *off = P2P_PAGE - P2P_CACHE_LINE * (in8(in) % 4); break;
    case 4: memset(h->name[in8(in) & 1], 'x', sizeof h->name[0]); break;
    case 5: g->n_desc = 1u << in8(in) % 32; break;
    case 6: g->data_size = h->mtu + in8(in) % 64; break;
    case 7: g->data_size = (uint32_t)(h->size - g->data_off) + in8(in) % 2; break;
    }
}

static void check_inside(uint64_t off, uint64_t len, size_t size)
{
    unsigned __int128 end = (unsigned __int128)off + len;
    CHECK(off % P2P_CACHE_LINE == 0 && off >= P2P_PAGE && end <= size);
}

/* What region_check() has promised. */
static void judge(const struct p2p_region_header *h, size_t size)
{
    unsigned n = h->n_queues[0] + h->n_queues[1];

    CHECK(n >= 2 && n <= 2 * P2P_MAX_QUEUES && h->n_queues[0] <= P2P_MAX_QUEUES && h->n_queues[1] <= P2P_MAX_QUEUES);
    CHECK(h->mtu >= P2P_MTU_MIN && h->mtu <= P2P_MTU_MAX);
    CHECK(h->size == size && (size & (size - 1)) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(strnlen(h->name[i], sizeof h->name[i]) < sizeof h->name[i]);
    }
    if (h->magic == P2P_PORT_MAGIC) {
        check_inside(h->switch_page_off, sizeof(struct p2p_switch_page), size);
        check_inside(h->vnf_page_off, sizeof(struct p2p_vnf_page), size);
    } else {
        CHECK(h->magic == P2P_LINK_MAGIC && h->link_id);
    }
    for (unsigned i = 0; i < n; i++) {
        const struct p2p_ring_geometry *g = &h->ring[i];
        CHECK(g->n_desc && (g->n_desc & (g->n_desc - 1)) == 0);
        CHECK(g->data_size >= h->mtu + P2P_FRAME_OVERHEAD);
        check_inside(g->ctl_off, sizeof(struct p2p_ring_ctl), size);
        check_inside(g->desc_off, (uint64_t)g->n_desc * sizeof(struct p2p_desc), size);
        check_inside(g->data_off, g->data_size, size);
    }
}

/* Puts packets through each ring.  Rings may overlap: then what comes out is nonsense, but stays inside. */
static void work(struct p2p_region *r)
{
    static const uint8_t packet[P2P_MTU_MAX + P2P_FRAME_OVERHEAD];

    for (unsigned i = 0; i < r->hdr.n_queues[0] + r->hdr.n_queues[1]; i++) {
        struct p2p_prod prod;
        struct p2p_cons cons;
        uint64_t bytes = 0, bad = 0;

        CHECK(!p2p_prod_init(&prod, r, i));
        p2p_cons_init(&cons, r, i);
        for (unsigned k = 0; k < 12; k++) {
            struct p2p_buf bufs[2] = { { packet, P2P_FRAME_MIN + k, 0 }, { packet, prod.max_len, 7 } };
            struct p2p_pkt pkts[4];
            (void)p2p_prod_burst(&prod, bufs, 2, &bytes);
            unsigned n = p2p_cons_take(&cons, p2p_cons_head(&cons), pkts, 4, &bytes, &bad);
            for (unsigned j = 0; j < n; j++) {
                const uint8_t *at = pkts[j].data;
                CHECK(at >= r->base + P2P_PAGE && at + pkts[j].len <= r->base + r->size);
            }
            p2p_cons_release(&cons);
        }
        p2p_prod_uninit(&prod);
    }
}

static struct input *mapped_input;

/* Between p2p_region_map()'s mapping and its look at the header. */
static void mapped(void *base, size_t size)
{
    struct input *in = mapped_input;

    if (size >= 2 * P2P_PAGE && in8(in) % 4 == 0) {
        struct scribble s[2];
        for (int i = 0; i < 2; i++) {
            s[i].at = in_header(in, base);
            s[i].value = in_word(in, *s[i].at);
        }
        scribble_begin(s, 2);
    }
}

static void map(struct p2p_region_header *h, struct input *in)
{
    struct p2p_error err;
    uint64_t announced = in8(in) % 4 ? h->size : in_word(in, h->size);
    uint64_t really = in8(in) % 4 ? announced : in_word(in, announced);
    if (really > SIZE_MAX_FUZZ) {
        return;
    }
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0 && !ftruncate(fd, (off_t)really));
    if (really >= sizeof *h) {
        CHECK(pwrite(fd, h, sizeof *h, 0) == sizeof *h);
    }
    struct p2p_region r = P2P_REGION_INIT;
    mapped_input = in;
    fuzz_mapped = mapped;
    int error = p2p_region_map(&r, fd, announced, in8(in) & 1 ? P2P_LINK_MAGIC : P2P_PORT_MAGIC, in8(in) & 1, &err);
    fuzz_mapped = NULL;
    scribble_end();
    if (error) {
        CHECK(!r.base && err.text[0]);
        close(fd);
        return;
    }
    judge(&r.hdr, r.size);
    work(&r);
    uint8_t end = in8(in);
    if (end & 1) {
        p2p_region_wipe(&r);
        CHECK(r.base[r.size - 1] == 0);
    }
    if (end & 2) { /* The memory is gone, as if somebody had punched it away and there were none left. */
        CHECK(!p2p_region_torn(&r) && !ftruncate(fd, 0));
        CHECK(((volatile uint8_t *)r.base)[r.size - 1] == 0);
        CHECK(p2p_region_torn(&r));
        work(&r);
    }
    p2p_region_blank(&r);
    CHECK(r.base[0] == 0);
    p2p_region_unmap(&r);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    p2p_sigbus_install(false);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct p2p_region_header h;
    struct p2p_error err;
    uint8_t how = in8(&in);

    make_header(&h, &in);
    if (how & 64) {
        forge(&h, &in);
    }
    if (how & 1) {
        rewrite(&h, &in);
    } else if (how & 2) { /* Any bytes. */
        size_t n = in.left < sizeof h ? in.left : sizeof h;
        memcpy((uint8_t *)&h + 8, in.data, n > 8 ? n - 8 : 0);
    }
    if (how & 4) {
        map(&h, &in);
        return 0;
    }
    size_t region_size = how & 8 ? (size_t)in_word(&in, h.size) : h.size;
    uint64_t magic = how & 16 ? P2P_LINK_MAGIC : P2P_PORT_MAGIC;
    int error = p2p_region_check(&h, region_size, magic, how & 32, &err);
    CHECK(error == 0 || (error == -EPROTO && err.text[0]));
    if (!error) {
        judge(&h, region_size);
        if (region_size <= SIZE_MAX_FUZZ) {
            struct p2p_region r = { .size = region_size, .fd = -1, .hdr = h };
            r.base = aligned_alloc(P2P_CACHE_LINE, region_size);
            memset(r.base, 0, region_size);
            work(&r);
            free(r.base);
        }
    }
    return 0;
}
