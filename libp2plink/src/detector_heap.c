/* SPDX-License-Identifier: Apache-2.0 */
#include "detector_heap.h"

/* 'rank' is the number of nodes on the right spine.  A left child's is never below its sibling's, so a heap of rank r
 * has at least 2^r - 1 nodes, and 8 bits are plenty. */
static unsigned rank_of(const struct p2p_det_node *n)
{
    return n ? n->rank : 0;
}

static bool comes_before(const struct p2p_det_node *a, const struct p2p_det_node *b)
{
    return a->key != b->key ? a->key > b->key : a->minor > b->minor;
}

/* Puts the child of higher rank on the left, and returns whether n's rank has changed. */
static bool settle(struct p2p_det_node *n)
{
    if (rank_of(n->left) < rank_of(n->right)) {
        struct p2p_det_node *left = n->left;
        n->left = n->right;
        n->right = left;
    }

    uint8_t rank = (uint8_t)(rank_of(n->right) + 1);
    bool changed = rank != n->rank;
    n->rank = rank;
    return changed;
}

/* Merges two heaps along their right spines, which bounds the recursion by the sum of their ranks.  On equality 'a' is
 * first.  The new root's 'up' is left as it is. */
static struct p2p_det_node *meld(struct p2p_det_node *a, struct p2p_det_node *b)
{
    if (!a || !b) {
        return a ? a : b;
    }
    if (comes_before(b, a)) {
        struct p2p_det_node *c = a;
        a = b;
        b = c;
    }
    a->right = meld(a->right, b);
    a->right->up = a;
    settle(a);
    return a;
}

struct p2p_det_node *p2p_det_heap_insert(struct p2p_det_node *root, struct p2p_det_node *node)
{
    node->left = node->right = NULL;
    node->rank = 1;
    node->present = true;
    return meld(root, node);
}

struct p2p_det_node *p2p_det_heap_remove(struct p2p_det_node *root, struct p2p_det_node *node)
{
    struct p2p_det_node *m = meld(node->left, node->right);
    node->present = false;
    if (node == root) {
        return m;
    }

    struct p2p_det_node *up = node->up;
    if (m) {
        m->up = up;
    }
    if (up->left == node) {
        up->left = m;
    } else {
        up->right = m;
    }
    /* Wherever this goes on, the subtree just left has become a right child, and its parent's rank is one more than its
     * own: that cannot happen more often than there are ranks. */
    while (settle(up) && up != root) {
        up = up->up;
    }
    return root;
}
