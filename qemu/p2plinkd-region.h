/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions as p2plinkd sees them: descriptors that it passes on and keeps, so that a restarted vswitchd can have them
 * back.  It reads a region's header, never more, and believes none of it without a check.
 *
 * One thread; p2plinkd-agent.c and p2plinkd-vm.c call it.
 */
#ifndef P2PLINKD_REGION_H
#define P2PLINKD_REGION_H 1

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <p2plink/layout.h>

/* Is 'fd' shared memory of 'size' bytes, fit for a PCI BAR, that nobody can resize?  Returns NULL, or what is wrong (to
 * be freed). */
char *region_check_fd(int fd, uint64_t size);

/* Reads the header of the region behind 'fd': a private copy, names terminated, with a p2plink magic, and made for a
 * region as large as this one.  False if it has no such header. */
bool region_read_header(int fd, struct p2p_region_header *);

/* A descriptor of the region that process 'pid' (a QEMU) has open, of that generation and link ('link_id' 0: a port
 * region), or -1. */
int region_find_fd(pid_t pid, uint64_t generation, uint32_t link_id);

#endif /* p2plinkd-region.h */
