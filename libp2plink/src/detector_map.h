/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chained hash table of links that lie in the caller's structs.  It grows and shrinks with what is in it.
 *
 * Once made it cannot fail: if there is no memory to grow, the chains get longer until there is.  It knows hashes only;
 * keys are compared by the caller, who walks the chain.
 *
 * Who calls it: detector.c only.
 */
#ifndef P2P_DETECTOR_MAP_H
#define P2P_DETECTOR_MAP_H 1

#include <p2plink/detector.h>

#define P2P_DET_CONTAINER(PTR, TYPE, MEMBER) ((TYPE *)((char *)(PTR) - offsetof(TYPE, MEMBER)))

struct p2p_det_map {
    struct p2p_det_link **heads;
    uint32_t mask;               /* Number of heads less one; they are a power of two. */
    uint32_t n;                  /* Links in it. */
    uint32_t (*hash_of)(const struct p2p_det_link *link);
};

int p2p_det_map_init(struct p2p_det_map *map, uint32_t (*hash_of)(const struct p2p_det_link *link)); /* 0, -ENOMEM. */
void p2p_det_map_destroy(struct p2p_det_map *map); /* Does not touch the links. */

/* Where the chain of 'hash' begins.  A caller may exchange one link for another of the same hash in place. */
static inline struct p2p_det_link **p2p_det_map_head(const struct p2p_det_map *map, uint32_t hash)
{
    return &map->heads[hash & map->mask];
}

void p2p_det_map_insert(struct p2p_det_map *map, struct p2p_det_link *link);
void p2p_det_map_remove(struct p2p_det_map *map, struct p2p_det_link *link); /* It must be in it. */
/* For a caller that has changed a chain by itself: 'change' links more. */
void p2p_det_map_count(struct p2p_det_map *map, int change);

/* All 64 bits of 'x' count for each bit of the result (the finalizer of MurmurHash3). */
static inline uint32_t p2p_det_hash(uint64_t x)
{
    x = (x ^ (x >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ (x >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return (uint32_t)(x ^ (x >> 33));
}

#endif /* detector_map.h */
