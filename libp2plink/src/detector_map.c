/* SPDX-License-Identifier: Apache-2.0 */
#include "detector_map.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "detector_private.h"

#define MIN_HEADS 16u
#define MAX_HEADS (UINT32_C(1) << 28)

static struct p2p_det_link **new_heads(uint32_t n)
{
    struct p2p_det_link **heads = p2p_det_alloc(n * sizeof *heads);
    if (heads) {
        memset(heads, 0, n * sizeof *heads);
    }
    return heads;
}

int p2p_det_map_init(struct p2p_det_map *map, uint32_t (*hash_of)(const struct p2p_det_link *))
{
    map->heads = new_heads(MIN_HEADS);
    map->mask = MIN_HEADS - 1;
    map->n = 0;
    map->hash_of = hash_of;
    return map->heads ? 0 : -ENOMEM;
}

void p2p_det_map_destroy(struct p2p_det_map *map)
{
    free(map->heads);
    map->heads = NULL;
}

static void resize(struct p2p_det_map *map, uint32_t n_heads)
{
    struct p2p_det_link **heads = new_heads(n_heads);
    if (!heads) {
        return;
    }
    for (uint32_t i = 0; i <= map->mask; i++) {
        struct p2p_det_link *next;
        for (struct p2p_det_link *link = map->heads[i]; link; link = next) {
            struct p2p_det_link **head = &heads[map->hash_of(link) & (n_heads - 1)];
            next = link->next;
            link->next = *head;
            *head = link;
        }
    }
    free(map->heads);
    map->heads = heads;
    map->mask = n_heads - 1;
}

void p2p_det_map_count(struct p2p_det_map *map, int change)
{
    uint32_t n_heads = map->mask + 1;

    map->n += (uint32_t)change;
    if (map->n > n_heads && n_heads < MAX_HEADS) {
        resize(map, n_heads * 2);
    } else if (map->n < n_heads / 8 && n_heads > MIN_HEADS) {
        resize(map, n_heads / 2);
    }
}

void p2p_det_map_insert(struct p2p_det_map *map, struct p2p_det_link *link)
{
    struct p2p_det_link **head = p2p_det_map_head(map, map->hash_of(link));
    link->next = *head;
    *head = link;
    p2p_det_map_count(map, 1);
}

void p2p_det_map_remove(struct p2p_det_map *map, struct p2p_det_link *link)
{
    struct p2p_det_link **slot = p2p_det_map_head(map, map->hash_of(link));
    while (*slot != link) {
        slot = &(*slot)->next;
    }
    *slot = link->next;
    p2p_det_map_count(map, -1);
}
