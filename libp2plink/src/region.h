/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: making them, mapping them, checking their headers, letting them go.
 *
 * Control path.  A region is a sealed memfd (huge pages if there are any, else tmpfs) or, in a guest, a PCI BAR.
 * Whoever maps one works from a private copy of the header, checked once: what lies in shared memory may change at any
 * time.
 */
#ifndef P2P_REGION_H
#define P2P_REGION_H 1

#include <stdbool.h>
#include <stddef.h>
#include <p2plink/common.h>
#include <p2plink/layout.h>
#include "util.h"

struct p2p_region {
    uint8_t *base;                 /* NULL: not mapped. */
    size_t size;
    int fd;                        /* -1: none. */
    bool huge;                     /* Huge pages. */
    bool wc;                       /* The mapping may be write-combining. */
    int watch;                     /* See sigbus.h; 0: none. */
    struct p2p_region_header hdr;  /* Private copy. */
};

#define P2P_REGION_INIT { .base = NULL, .fd = -1 }

static inline void *p2p_region_at(const struct p2p_region *r, uint64_t off) { return r->base + off; }
static inline bool p2p_region_is_link(const struct p2p_region *r) { return r->hdr.magic == P2P_LINK_MAGIC; }

/* Somebody has taken its memory away: what is there now is zeros, and this process's alone. */
bool p2p_region_torn(const struct p2p_region *r);

/* What to make; sizes and offsets follow from it. */
struct p2p_region_spec {
    uint32_t link_id;           /* 0: a port region. */
    uint32_t n_queues[2];
    uint32_t mtu;
    uint8_t mac[6];
    int numa_node;
    const char *name[2];        /* [1]: NULL for a port region. */
    bool huge;                  /* Try huge pages. */
    uint32_t first_index;       /* Where ring indices begin. */
};

/* Makes, maps and fills in a region.  If huge pages were asked for and there are none, says so on 'log' and uses tmpfs.
 * -ENOMEM, -ENOSPC, -EMFILE and such. */
int p2p_region_create(struct p2p_region *r, const struct p2p_region_spec *spec, const struct p2p_logger *log,
                      struct p2p_error *err);

/* Maps what 'fd' is (a memfd, or a PCI resource file of 'size' bytes), and checks it.  Takes over 'fd' on success.
 * 'magic' is what is expected; 'generation' too unless it is 0.  -EPROTO: not a region that this library can use. */
int p2p_region_map(struct p2p_region *r, int fd, size_t size, uint64_t magic, uint64_t generation,
                   struct p2p_error *err);

/* Checks a header, which must be a private copy, against the size of what it lies in. */
int p2p_region_check(const struct p2p_region_header *h, size_t size, uint64_t magic, uint64_t generation,
                     struct p2p_error *err);

/* Replaces the mapping by zero pages at the same place: the memory is let go, and late readers read zeros. */
void p2p_region_blank(struct p2p_region *r);
/* Gives the memory back to the system although others may have it mapped: they read zeros from then on.  (Huge pages
 * are only filled with zeros.) */
void p2p_region_wipe(struct p2p_region *r);
/* The same with huge pages given back too.  Only when nobody honest touches it any more: there may be none left to fill
 * the hole. */
void p2p_region_punch(struct p2p_region *r);
void p2p_region_unmap(struct p2p_region *r); /* And closes the descriptor. */

#endif /* region.h */
