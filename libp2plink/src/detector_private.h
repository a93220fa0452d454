/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the detector's files and its tests share, and nobody else needs.
 */
#ifndef P2P_DETECTOR_PRIVATE_H
#define P2P_DETECTOR_PRIVATE_H 1

#include <p2plink/detector.h>

/* Where the detector gets its memory, malloc() unless a test wants it to fail.  Not to be changed while others run. */
extern void *(*p2p_det_alloc)(size_t size);

/* How many times a port's way through the tables has been followed: what a change costs beyond its rule's heap. */
uint64_t p2p_detector_n_evaluations(const struct p2p_detector *d);

#endif /* detector_private.h */
