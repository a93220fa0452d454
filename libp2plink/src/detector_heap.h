/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A leftist heap (C. A. Crane, 1972; Knuth, TAOCP 3, 5.2.3) of nodes that lie in the caller's structs, with removal
 * from anywhere.
 *
 * The detector asks of a set of rules only what its first two are, so a heap is enough, and this one suits it well:
 *
 *   - Insertion and removal of any node are O(log n) in the worst case, not amortised and not by luck: a right spine
 *     has at most log2(n + 1) nodes, and nothing else is walked.
 *   - Any number of nodes may be equal.  They cost nothing more.
 *   - It needs no memory, so nothing can fail.
 *
 * First comes the highest (key, minor).  Among equals the one that was the root stays it when others are inserted.
 *
 * Who calls it: detector.c only, for rules by priority, and for watched ports by how far down a table they look.
 * A heap is its root, or NULL.  The root's 'up' is the caller's own (detector.c chains roots by it): no function here
 * reads or writes that of a node that stays the root; a node that becomes the root has garbage there.
 */
#ifndef P2P_DETECTOR_HEAP_H
#define P2P_DETECTOR_HEAP_H 1

#include <p2plink/detector.h>

/* Both return the new root.  'key' and 'minor' are the caller's to set before insertion and to leave alone after it. */
struct p2p_det_node *p2p_det_heap_insert(struct p2p_det_node *root, struct p2p_det_node *node);
struct p2p_det_node *p2p_det_heap_remove(struct p2p_det_node *root, struct p2p_det_node *node);

/* Whether another node has the key of 'root', which is not NULL.  ('minor' does not count.) */
static inline bool p2p_det_heap_is_tied(const struct p2p_det_node *root)
{
    return (root->left && root->left->key == root->key) || (root->right && root->right->key == root->key);
}

#endif /* detector_heap.h */
