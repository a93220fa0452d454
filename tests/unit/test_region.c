/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: how they are laid out, made, mapped and let go, and that a bad one is refused with a reason that helps.
 *
 * P2P_SEED=number repeats a randomised test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "region.h"

#define HUGE_PAGE (UINT64_C(2) << 20)

/* The numbers of docs/shared-memory.md. */
#define AT(STRUCT, FIELD, OFFSET) static_assert(offsetof(struct STRUCT, FIELD) == (OFFSET), "ABI")
AT(p2p_region_header, version, 8);
AT(p2p_region_header, version_min, 12);
AT(p2p_region_header, features, 16);
AT(p2p_region_header, size, 24);
AT(p2p_region_header, generation, 32);
AT(p2p_region_header, link_id, 40);
AT(p2p_region_header, mtu, 44);
AT(p2p_region_header, n_queues, 48);
AT(p2p_region_header, mac, 56);
AT(p2p_region_header, numa_node, 64);
AT(p2p_region_header, name, 68);
AT(p2p_region_header, switch_page_off, 200);
AT(p2p_region_header, vnf_page_off, 208);
AT(p2p_region_header, ring, 216);
AT(p2p_ring_ctl, start, 8);
AT(p2p_ring_ctl, tail, 128);
AT(p2p_ring_ctl, freed, 132);
AT(p2p_switch_page, rx_link, 8);
AT(p2p_switch_page, gate, 64);
AT(p2p_switch_page, session, 192);
AT(p2p_switch_page, want, 256);
AT(p2p_switch_page, want_generation, 288);
AT(p2p_vnf_page, mode_ack, 24);
AT(p2p_vnf_page, rx_link_ack, 32);
AT(p2p_vnf_page, have, 64);
AT(p2p_vnf_page, txq, 128);
AT(p2p_vnf_page, rxq, 128 + 16 * 128);

/* The log lines of the library. */
static struct {
    unsigned n;
    char last[4608];
} logged;

static void keep_log(void *aux, enum p2p_log_level level, const char *message)
{
    (void)aux;
    (void)level;
    logged.n++;
    p2p_copy_name(logged.last, sizeof logged.last, message);
}

static const struct p2p_logger logger = { .func = keep_log };

static struct p2p_region_spec port_spec(unsigned n, uint32_t mtu)
{
    return (struct p2p_region_spec) {
        .n_queues = { n, n }, .mtu = mtu, .mac = { 2, 0, 0, 0, 0, 1 }, .numa_node = -1, .name = { "dpdkr1", NULL },
    };
}

static struct p2p_region_spec link_spec(unsigned n0, unsigned n1, uint32_t mtu)
{
    return (struct p2p_region_spec) {
        .link_id = 77, .n_queues = { n0, n1 }, .mtu = mtu, .numa_node = -1, .name = { "dpdkr1", "dpdkr2" },
    };
}

static void make(struct p2p_region *r, struct p2p_region_spec spec)
{
    struct p2p_error err = { "" };

    if (p2p_region_create(r, &spec, &logger, &err)) {
        fail_msg("%s", err.text);
    }
}

/* 'text' names 'word'. */
static void assert_says(const char *text, const char *word)
{
    if (!strstr(text, word)) {
        fail_msg("\"%s\" does not say \"%s\"", text, word);
    }
}

struct stretch {
    uint64_t off, len;
};

static int by_offset(const void *a_, const void *b_)
{
    const struct stretch *a = a_, *b = b_;
    return a->off < b->off ? -1 : a->off > b->off;
}

/* Everything inside the region, at cache lines, and nothing on anything else. */
static void check_layout(const struct p2p_region_header *h)
{
    struct stretch s[3 + 3 * 2 * P2P_MAX_QUEUES];
    unsigned n = 0;
    struct p2p_error err;

    assert_int_equal(h->size & (h->size - 1), 0);
    assert_true(h->size % HUGE_PAGE == 0);
    s[n++] = (struct stretch) { 0, P2P_PAGE };
    if (!h->link_id) {
        s[n++] = (struct stretch) { h->switch_page_off, P2P_PAGE };
        s[n++] = (struct stretch) { h->vnf_page_off, P2P_PAGE };
    }
    for (unsigned i = 0; i < h->n_queues[0] + h->n_queues[1]; i++) {
        const struct p2p_ring_geometry *g = &h->ring[i];
        assert_true(g->n_desc && !(g->n_desc & (g->n_desc - 1)));
        /* The longest frames must fit more than once, the shortest ones for every descriptor. */
        assert_true(g->data_size >= 32 * (h->mtu + P2P_FRAME_OVERHEAD));
        assert_true(g->data_size >= g->n_desc * P2P_CACHE_LINE);
        s[n++] = (struct stretch) { g->ctl_off, sizeof(struct p2p_ring_ctl) };
        s[n++] = (struct stretch) { g->desc_off, g->n_desc * sizeof(struct p2p_desc) };
        s[n++] = (struct stretch) { g->data_off, g->data_size };
    }
    qsort(s, n, sizeof s[0], by_offset);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(s[i].off % P2P_CACHE_LINE, 0);
        assert_true(s[i].len <= h->size && s[i].off <= h->size - s[i].len);
        assert_true(!i || s[i - 1].off + s[i - 1].len <= s[i].off);
    }
    assert_int_equal(p2p_region_check(h, h->size, h->magic, h->generation, &err), 0);
}

static void layouts_of_all_sizes(void **state)
{
    const uint32_t mtu[] = { 68, 576, 1500, 2000, 2001, 4000, 9000 };
    struct p2p_region r;
    (void)state;

    for (unsigned m = 0; m < sizeof mtu / sizeof mtu[0]; m++) {
        for (unsigned q = 1; q <= P2P_MAX_QUEUES; q++) {
            make(&r, port_spec(q, mtu[m]));
            check_layout(&r.hdr);
            assert_memory_equal(r.base, &r.hdr, sizeof r.hdr);
            p2p_region_unmap(&r);
            make(&r, link_spec(q, P2P_MAX_QUEUES + 1 - q, mtu[m]));
            check_layout(&r.hdr);
            p2p_region_unmap(&r);
        }
    }
}

/* The table of docs/shared-memory.md. */
static void sizes_are_as_documented(void **state)
{
    static const struct { unsigned queues; uint32_t mtu; unsigned mib; unsigned data_kib; } table[] = {
        { 1, 1500, 2, 1001 }, { 2, 1500, 2, 492 }, { 4, 2000, 4, 494 }, { 8, 1500, 8, 495 }, { 16, 2000, 16, 495 },
        { 1, 9000, 2, 1001 }, { 2, 9000, 4, 1004 }, { 4, 2001, 8, 1006 }, { 8, 9000, 16, 1007 }, { 16, 9000, 32, 1007 },
    };
    struct p2p_region r;
    (void)state;

    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        make(&r, port_spec(table[i].queues, table[i].mtu));
        assert_int_equal(r.size >> 20, table[i].mib);
        assert_int_equal(r.hdr.ring[0].data_size >> 10, table[i].data_kib);
        assert_int_equal(r.hdr.ring[0].n_desc, 1024);
        p2p_region_unmap(&r);
        make(&r, link_spec(table[i].queues, table[i].queues, table[i].mtu));
        assert_int_equal(r.size >> 20, table[i].mib);
        p2p_region_unmap(&r);
    }
}

static void what_is_asked_for_is_in_the_header(void **state)
{
    struct p2p_region_spec spec = link_spec(3, 5, 1400);
    struct p2p_region a, b;
    (void)state;

    spec.first_index = UINT32_MAX - 4;
    make(&a, spec);
    make(&b, port_spec(2, 9000));
    assert_int_equal(a.hdr.magic, P2P_LINK_MAGIC);
    assert_int_equal(b.hdr.magic, P2P_PORT_MAGIC);
    assert_int_equal(a.hdr.link_id, 77);
    assert_int_equal(b.hdr.link_id, 0);
    assert_int_equal(a.hdr.n_queues[0], 3);
    assert_int_equal(a.hdr.n_queues[1], 5);
    assert_int_equal(a.hdr.mtu, 1400);
    assert_string_equal(a.hdr.name[0], "dpdkr1");
    assert_string_equal(a.hdr.name[1], "dpdkr2");
    assert_memory_equal(b.hdr.mac, "\2\0\0\0\0\1", 6);
    assert_true(a.hdr.generation && b.hdr.generation > a.hdr.generation);
    assert_true(p2p_region_is_link(&a) && !p2p_region_is_link(&b));
    for (unsigned i = 0; i < 8; i++) {
        const struct p2p_ring_ctl *ctl = p2p_region_at(&a, a.hdr.ring[i].ctl_off);
        assert_int_equal(ctl->head, UINT32_MAX - 4);
        assert_int_equal(ctl->tail, UINT32_MAX - 4);
        assert_int_equal(ctl->freed, UINT32_MAX - 4);
        assert_int_equal(ctl->start, 0);
    }
    p2p_region_unmap(&a);
    p2p_region_unmap(&b);
}

/* A long name is cut off, not overrun; a node that is not there is a wish that does not come true. */
static void odd_names_and_nodes(void **state)
{
    char name[200];
    struct p2p_region_spec spec = link_spec(1, 1, 1500);
    struct p2p_region r;
    (void)state;

    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    spec.name[0] = spec.name[1] = name;
    const int nodes[] = { 0, 1, 900, 5000, -2 };
    for (unsigned i = 0; i < sizeof nodes / sizeof nodes[0]; i++) {
        spec.numa_node = nodes[i];
        make(&r, spec);
        assert_int_equal(strlen(r.hdr.name[0]), P2P_NAME_MAX - 1);
        assert_int_equal(r.hdr.numa_node, nodes[i]);
        p2p_region_unmap(&r);
    }
}

static unsigned long free_huge_pages(void)
{
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    unsigned long n = 0;

    while (f && fgets(line, sizeof line, f)) {
        sscanf(line, "HugePages_Free: %lu", &n);
    }
    if (f) {
        fclose(f);
    }
    return n;
}

/* Takes huge pages away from everybody, until fewer than 'left' are there.  NULL: there were no more to begin with. */
static void *take_huge_pages(unsigned long left, size_t *size)
{
    unsigned long n = free_huge_pages();

    *size = n >= left ? (n - left + 1) * HUGE_PAGE : 0;
    if (!*size) {
        return NULL;
    }
    void *p = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void no_huge_pages_falls_back_and_says_so(void **state)
{
    struct p2p_region_spec spec = port_spec(P2P_MAX_QUEUES, 9000);
    struct p2p_region r;
    size_t taken;
    (void)state;

    spec.huge = true;
    void *p = take_huge_pages(1, &taken);
    logged.n = 0;
    make(&r, spec);
    if (p) {
        munmap(p, taken);
    }
    if (!r.huge) { /* (Others may have given some back in between.) */
        assert_int_equal(logged.n, 1);
        assert_says(logged.last, "no huge pages for p2plink:dpdkr1");
        assert_says(logged.last, "32768 kB");
        assert_says(logged.last, "tmpfs");
        assert_says(logged.last, "vm.nr_hugepages");
    }
    check_layout(&r.hdr);
    memset(r.base + P2P_PAGE, 0x55, r.size - P2P_PAGE);
    p2p_region_unmap(&r);

    spec.huge = false;
    logged.n = 0;
    make(&r, spec);
    assert_int_equal(logged.n, 0);
    p2p_region_unmap(&r);
}

static int open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static void nobody_can_resize_a_region(void **state)
{
    struct p2p_region r;
    int fds = open_fds();
    (void)state;

    make(&r, port_spec(1, 1500));
    assert_int_equal(ftruncate(r.fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(r.fd, (off_t)r.size - P2P_PAGE), -1);
    assert_int_equal(ftruncate(r.fd, (off_t)r.size * 2), -1);
    assert_int_equal(fallocate(r.fd, 0, (off_t)r.size, P2P_PAGE), -1);
    assert_int_equal(fcntl(r.fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    assert_int_equal(fcntl(r.fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    assert_true(fcntl(r.fd, F_GETFD) & FD_CLOEXEC);
    p2p_region_unmap(&r);
    assert_int_equal(open_fds(), fds);
    p2p_region_unmap(&r); /* Twice does no harm. */
}

/*
 * Mapping and checking.
 */

static int map(struct p2p_region *m, const struct p2p_region *r, size_t size, uint64_t magic, uint64_t generation,
               struct p2p_error *err)
{
    int fd = dup(r->fd);
    int error = p2p_region_map(m, fd, size, magic, generation, err);

    if (error) {
        assert_int_equal(close(fd), 0); /* Still ours. */
    }
    return error;
}

static void mapped_twice_it_is_the_same_memory(void **state)
{
    struct p2p_region r, m;
    struct p2p_error err;
    (void)state;

    make(&r, link_spec(2, 1, 1500));
    assert_int_equal(map(&m, &r, r.size, P2P_LINK_MAGIC, r.hdr.generation, &err), 0);
    assert_memory_equal(&m.hdr, &r.hdr, sizeof m.hdr);
    r.base[r.size - 1] = 0x42;
    assert_int_equal(m.base[r.size - 1], 0x42);
    /* The private copy stays what it was. */
    memset(r.base, 0xff, P2P_PAGE);
    assert_int_equal(m.hdr.size, r.size);
    p2p_region_unmap(&m);
    p2p_region_unmap(&r);
}

static void what_is_no_region_is_not_mapped(void **state)
{
    struct p2p_region r, m;
    struct p2p_error err;
    int pipes[2], fds = open_fds();
    (void)state;

    make(&r, port_spec(1, 1500));
    assert_int_equal(map(&m, &r, r.size * 2, P2P_PORT_MAGIC, 0, &err), -EPROTO);
    assert_says(err.text, "2097152");
    assert_says(err.text, "4194304");
    assert_int_equal(map(&m, &r, r.size / 2, P2P_PORT_MAGIC, 0, &err), -EPROTO);
    assert_says(err.text, "header says 2097152 bytes, the memory has 1048576");
    assert_int_equal(map(&m, &r, 0, P2P_PORT_MAGIC, 0, &err), -EPROTO);
    assert_int_equal(map(&m, &r, 4096, P2P_PORT_MAGIC, 0, &err), -EPROTO);
    assert_int_equal(map(&m, &r, SIZE_MAX, P2P_PORT_MAGIC, 0, &err), -EPROTO);
    assert_int_equal(map(&m, &r, r.size, P2P_LINK_MAGIC, 0, &err), -EPROTO);
    assert_says(err.text, "not a p2plink link region");
    assert_int_equal(map(&m, &r, r.size, P2P_PORT_MAGIC, r.hdr.generation + 1, &err), -EPROTO);
    assert_says(err.text, "the region has been replaced");
    assert_int_equal(map(&m, &r, r.size, P2P_PORT_MAGIC, 0, NULL), 0); /* Any generation; no reason wanted. */
    p2p_region_unmap(&m);

    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(p2p_region_map(&m, pipes[0], r.size, P2P_PORT_MAGIC, 0, &err), -EPROTO);
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(p2p_region_map(&m, -1, r.size, P2P_PORT_MAGIC, 0, &err), -EBADF);
    assert_int_equal(p2p_region_map(&m, 4000, r.size, P2P_PORT_MAGIC, 0, &err), -EBADF);
    int ro = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(p2p_region_map(&m, ro, 4 * P2P_PAGE, P2P_PORT_MAGIC, 0, &err) < 0);
    close(ro);
    p2p_region_unmap(&r);
    assert_int_equal(open_fds(), fds);
}

/* One wrong thing in an otherwise good header, and what the refusal must name. */
struct mistake {
    const char *says[3];
    void (*make)(struct p2p_region_header *h);
};

static void no_magic(struct p2p_region_header *h) { h->magic = 0; }
static void other_magic(struct p2p_region_header *h) { h->magic = 0x1234567890abcdef; }
static void too_new(struct p2p_region_header *h) { h->version = 9; h->version_min = 7; }
static void too_old(struct p2p_region_header *h) { h->version = h->version_min = 0; }
static void features(struct p2p_region_header *h) { h->features = 0xa0; }
static void size_smaller(struct p2p_region_header *h) { h->size = 1048576; }
static void size_zero(struct p2p_region_header *h) { h->size = 0; }
static void no_generation(struct p2p_region_header *h) { h->generation = 0; }
static void wrong_generation(struct p2p_region_header *h) { h->generation = 0xabc; }
static void wrong_kind(struct p2p_region_header *h) { h->link_id = h->link_id ? 0 : 5; }
static void mtu_small(struct p2p_region_header *h) { h->mtu = 67; }
static void mtu_big(struct p2p_region_header *h) { h->mtu = 9001; }
static void mtu_huge(struct p2p_region_header *h) { h->mtu = UINT32_MAX; }
static void no_queues(struct p2p_region_header *h) { h->n_queues[0] = 0; }
static void many_queues(struct p2p_region_header *h) { h->n_queues[1] = 17; }
static void queues_overflow(struct p2p_region_header *h) { h->n_queues[0] = UINT32_MAX; h->n_queues[1] = 2; }
static void endless_name(struct p2p_region_header *h) { memset(h->name[0], 'a', P2P_NAME_MAX); }
static void endless_name_1(struct p2p_region_header *h) { memset(h->name[1], 'a', P2P_NAME_MAX); }
static void switch_page_out(struct p2p_region_header *h) { h->switch_page_off = h->size; }
static void vnf_page_out(struct p2p_region_header *h) { h->vnf_page_off = h->size - P2P_PAGE + 64; }
static void page_overflow(struct p2p_region_header *h) { h->vnf_page_off = UINT64_MAX - 63; }
static void page_on_header(struct p2p_region_header *h) { h->vnf_page_off = 0; }
static void page_unaligned(struct p2p_region_header *h) { h->switch_page_off += 8; }
static void n_desc_zero(struct p2p_region_header *h) { h->ring[0].n_desc = 0; }
static void n_desc_one(struct p2p_region_header *h) { h->ring[0].n_desc = 1; }
static void n_desc_odd(struct p2p_region_header *h) { h->ring[0].n_desc = 1023; }
static void n_desc_many(struct p2p_region_header *h) { h->ring[0].n_desc = 1u << 31; }
static void n_desc_end(struct p2p_region_header *h) { h->ring[1].n_desc = 1u << 20; }
static void data_small(struct p2p_region_header *h) { h->ring[0].data_size = h->mtu + P2P_FRAME_OVERHEAD - 1; }
static void data_big(struct p2p_region_header *h) { h->ring[1].data_size = 0xf0000000u; }
static void data_end(struct p2p_region_header *h) { h->ring[1].data_off = h->size - h->ring[1].data_size + 64; }
static void data_overflow(struct p2p_region_header *h) { h->ring[1].data_off = UINT64_MAX - 63; }
static void data_on_header(struct p2p_region_header *h) { h->ring[1].data_off = 0; }
static void desc_end(struct p2p_region_header *h) { h->ring[0].desc_off = h->size - 64; }
static void desc_unaligned(struct p2p_region_header *h) { h->ring[0].desc_off += 16; }
static void ctl_end(struct p2p_region_header *h) { h->ring[0].ctl_off = h->size - 192; }
static void ctl_unaligned(struct p2p_region_header *h) { h->ring[0].ctl_off += 4; }

static const struct mistake mistakes[] = {
    { { "magic is 0000000000000000", "not a p2plink", NULL }, no_magic },
    { { "magic is 1234567890abcdef", "not a p2plink", NULL }, other_magic },
    { { "version 9", "version 7", "upgrade libp2plink" }, too_new },
    { { "version 0", "too old", "upgrade the switch" }, too_old },
    { { "features a0", "upgrade libp2plink", NULL }, features },
    { { "1048576", "2097152", NULL }, size_smaller },
    { { "header says 0 bytes", NULL, NULL }, size_zero },
    { { "generation is 0", NULL, NULL }, no_generation },
    { { "generation is abc", "replaced", NULL }, wrong_generation },
    { { "link id", "region", NULL }, wrong_kind },
    { { "MTU 67", "68 and 9000", NULL }, mtu_small },
    { { "MTU 9001", NULL, NULL }, mtu_big },
    { { "MTU 4294967295", NULL, NULL }, mtu_huge },
    { { "0 queues", "1 to 16", NULL }, no_queues },
    { { "17 queues", NULL, NULL }, many_queues },
    { { "4294967295 queues", NULL, NULL }, queues_overflow },
    { { "name without end", NULL, NULL }, endless_name },
    { { "name without end", NULL, NULL }, endless_name_1 },
    { { "ring 0 (0 descriptors", NULL, NULL }, n_desc_zero },
    { { "ring 0 (1 descriptors", NULL, NULL }, n_desc_one },
    { { "ring 0 (1023 descriptors", NULL, NULL }, n_desc_odd },
    { { "ring 0 (2147483648 descriptors", NULL, NULL }, n_desc_many },
    { { "ring 1 (1048576 descriptors", "outside", NULL }, n_desc_end },
    { { "ring 0", "1521 bytes", NULL }, data_small },
    { { "ring 1", "4026531840 bytes", NULL }, data_big },
    { { "ring 1", "outside", NULL }, data_end },
    { { "ring 1", "outside", NULL }, data_overflow },
    { { "ring 1", "outside", NULL }, data_on_header },
    { { "ring 0", "outside", NULL }, desc_end },
    { { "ring 0", "outside", NULL }, desc_unaligned },
    { { "ring 0", "outside", NULL }, ctl_end },
    { { "ring 0", "outside", NULL }, ctl_unaligned },
};

static const struct mistake port_mistakes[] = {
    { { "200000", "outside", NULL }, switch_page_out },
    { { "1ff040", "outside", NULL }, vnf_page_out },
    { { "ffffffffffffffc0", "outside", NULL }, page_overflow },
    { { "outside", NULL, NULL }, page_on_header },
    { { "1008", "outside", NULL }, page_unaligned },
};

static void refuse(struct p2p_region *r, const struct mistake *m, unsigned n)
{
    const struct p2p_region_header good = r->hdr;

    for (unsigned i = 0; i < n; i++) {
        struct p2p_region mapped;
        struct p2p_error err = { "" };
        struct p2p_region_header bad = good;

        m[i].make(&bad);
        memcpy(r->base, &bad, sizeof bad);
        int error = map(&mapped, r, r->size, good.magic, good.generation, &err);
        if (error != -EPROTO) {
            fail_msg("mistake %u: error %d, text \"%s\"", i, error, err.text);
        }
        for (unsigned k = 0; k < 3 && m[i].says[k]; k++) {
            assert_says(err.text, m[i].says[k]);
        }
    }
    struct p2p_region mapped;
    memcpy(r->base, &good, sizeof good);
    assert_int_equal(map(&mapped, r, r->size, good.magic, good.generation, NULL), 0);
    p2p_region_unmap(&mapped);
}

static void bad_headers_are_refused_with_the_value(void **state)
{
    struct p2p_region r;
    (void)state;

    make(&r, port_spec(1, 1500));
    refuse(&r, mistakes, sizeof mistakes / sizeof mistakes[0]);
    refuse(&r, port_mistakes, sizeof port_mistakes / sizeof port_mistakes[0]);
    p2p_region_unmap(&r);
    make(&r, link_spec(1, 1, 1500));
    refuse(&r, mistakes, sizeof mistakes / sizeof mistakes[0]);
    p2p_region_unmap(&r);
}

/* A later version that says that this library may use it is used; so is one with unknown bytes in the pads. */
static void later_versions_that_allow_us_are_accepted(void **state)
{
    struct p2p_region r;
    (void)state;

    make(&r, port_spec(4, 1500));
    struct p2p_region_header h = r.hdr;
    h.version = 12;
    h.version_min = P2P_LAYOUT_VERSION;
    h.pad = 0xffff;
    assert_int_equal(p2p_region_check(&h, r.size, P2P_PORT_MAGIC, h.generation, NULL), 0);
    p2p_region_unmap(&r);
}

static uint64_t rnd(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Whatever header passes the check, every ring and page of it lies inside. */
static void random_headers(void **state)
{
    const char *given = getenv("P2P_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : p2p_random64();
    struct p2p_region r;
    unsigned passed = 0;
    (void)state;

    printf("# random_headers: P2P_SEED=0x%llx\n", (unsigned long long)seed);
    make(&r, port_spec(3, 1500));
    for (unsigned i = 0; i < 300000; i++) {
        struct p2p_region_header h = r.hdr;
        unsigned n = 1 + (unsigned)(rnd(&seed) % 3);
        for (unsigned k = 0; k < n; k++) {
            /* Mostly small or extreme numbers: others are refused at once. */
            uint64_t values[] = { rnd(&seed), rnd(&seed) % r.size, UINT64_MAX - rnd(&seed) % 8192, rnd(&seed) % 64,
                                  r.size - rnd(&seed) % 65536, rnd(&seed) % 64 * 64 };
            uint64_t v = values[rnd(&seed) % 6];
            size_t first = offsetof(struct p2p_region_header, size);
            size_t at = first + rnd(&seed) % (offsetof(struct p2p_region_header, ring[7]) - first - 8);
            memcpy((uint8_t *)&h + at / 4 * 4, &v, rnd(&seed) % 2 ? 4 : 8);
        }
        if (p2p_region_check(&h, r.size, P2P_PORT_MAGIC, r.hdr.generation, NULL)) {
            continue;
        }
        passed++;
        assert_true(h.switch_page_off <= r.size - P2P_PAGE && h.vnf_page_off <= r.size - P2P_PAGE);
        for (unsigned k = 0; k < h.n_queues[0] + h.n_queues[1]; k++) {
            const struct p2p_ring_geometry *g = &h.ring[k];
            assert_true(g->ctl_off >= P2P_PAGE && g->ctl_off + sizeof(struct p2p_ring_ctl) <= r.size);
            assert_true(g->ctl_off < r.size && g->desc_off < r.size && g->data_off < r.size);
            assert_true(g->desc_off + (uint64_t)g->n_desc * sizeof(struct p2p_desc) <= r.size);
            assert_true(g->data_off + g->data_size <= r.size);
        }
    }
    printf("# %u of 300000 passed\n", passed);
    assert_true(passed > 100);
    p2p_region_unmap(&r);
}

/*
 * Letting go.
 */

static void blanked_region_reads_zeros_for_us_only(void **state)
{
    struct p2p_region r, m;
    int fds = open_fds();
    (void)state;

    make(&r, port_spec(1, 1500));
    assert_int_equal(map(&m, &r, r.size, P2P_PORT_MAGIC, 0, NULL), 0);
    memset(r.base + P2P_PAGE, 0x77, r.size - P2P_PAGE);
    p2p_region_blank(&m);
    assert_int_equal(m.fd, -1);
    for (size_t i = 0; i < m.size; i += 509) {
        assert_int_equal(m.base[i], 0);
    }
    m.base[5000] = 1; /* And it is memory, though nobody else's. */
    assert_int_equal(r.base[5000], 0x77);
    p2p_region_unmap(&m);
    p2p_region_unmap(&r);
    assert_int_equal(open_fds(), fds);
}

static void wiped_region_is_free_and_reads_zeros_for_all(void **state)
{
    struct p2p_region r, m;
    struct stat before, after;
    (void)state;

    make(&r, link_spec(1, 1, 1500));
    assert_int_equal(map(&m, &r, r.size, P2P_LINK_MAGIC, 0, NULL), 0);
    memset(m.base + P2P_PAGE, 0x77, r.size - P2P_PAGE);
    assert_int_equal(fstat(r.fd, &before), 0);
    assert_true((uint64_t)before.st_blocks * 512 >= r.size); /* All of it was there from the start. */
    p2p_region_wipe(&r);
    assert_int_equal(fstat(r.fd, &after), 0);
    assert_int_equal(after.st_blocks, 0);
    p2p_region_unmap(&r);
    for (size_t i = 0; i < m.size; i += 509) {
        assert_int_equal(m.base[i], 0);
    }
    p2p_region_wipe(&r); /* Of nothing: nothing. */
    p2p_region_unmap(&m);
}

/* A region on huge pages that is wiped must not be the end of those who still look at it, even when there is no huge
 * page left to fill a hole with. */
static void wiped_huge_region_stays_readable(void **state)
{
    struct p2p_region_spec spec = link_spec(1, 1, 1500);
    struct p2p_region r, m;
    size_t taken;
    (void)state;

    spec.huge = true;
    make(&r, spec);
    if (!r.huge) {
        p2p_region_unmap(&r);
        skip(); /* No huge pages on this machine. */
    }
    assert_int_equal(map(&m, &r, r.size, P2P_LINK_MAGIC, 0, NULL), 0);
    memset(m.base + P2P_PAGE, 0x77, r.size - P2P_PAGE);
    p2p_region_wipe(&r);
    p2p_region_unmap(&r);
    void *p = take_huge_pages(1, &taken);
    for (size_t i = 0; i < m.size; i += 509) {
        assert_int_equal(m.base[i], 0);
    }
    m.base[100] = 1;
    if (p) {
        munmap(p, taken);
    }
    p2p_region_unmap(&m);
}

int main(void)
{
    cmocka_set_test_filter(getenv("P2P_TEST")); /* NULL: all. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts_of_all_sizes),
        cmocka_unit_test(sizes_are_as_documented),
        cmocka_unit_test(what_is_asked_for_is_in_the_header),
        cmocka_unit_test(odd_names_and_nodes),
        cmocka_unit_test(no_huge_pages_falls_back_and_says_so),
        cmocka_unit_test(nobody_can_resize_a_region),
        cmocka_unit_test(mapped_twice_it_is_the_same_memory),
        cmocka_unit_test(what_is_no_region_is_not_mapped),
        cmocka_unit_test(bad_headers_are_refused_with_the_value),
        cmocka_unit_test(later_versions_that_allow_us_are_accepted),
        cmocka_unit_test(random_headers),
        cmocka_unit_test(blanked_region_reads_zeros_for_us_only),
        cmocka_unit_test(wiped_region_is_free_and_reads_zeros_for_all),
        cmocka_unit_test(wiped_huge_region_stays_readable),
    };
    return cmocka_run_group_tests_name("region", tests, NULL, NULL);
}
