/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which region it is, and the id that its memory backend and its PCI device have in QEMU.  The id says all, so that a
 * restarted p2plinkd knows what a VM has by asking it:
 *
 *   p2plink-port-GENERATION-PORT       a port region
 *   p2plink-link-GENERATION-LINK       a link region
 *
 * GENERATION and LINK are hexadecimal; in PORT, every byte but letters, digits, '-' and '.' is written as _XX.
 */
#ifndef P2PLINKD_ID_H
#define P2PLINKD_ID_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/layout.h>

#define ID_PREFIX "p2plink-"

/* A port region ('link_id' 0, 'port' its port) or a link region. */
struct vm_region {
    char port[P2P_NAME_MAX];
    uint32_t link_id;
    uint64_t generation;
    uint64_t size;      /* Bytes; 0: not known.  Not part of the id. */
};

char *region_to_id(const struct vm_region *); /* To be freed. */
/* The other way round.  False if 'id' is none of ours. */
bool region_from_id(const char *id, struct vm_region *);
/* For people: "port NAME" or "link NUMBER"; to be freed. */
char *region_describe(const struct vm_region *);

#endif /* p2plinkd-id.h */
