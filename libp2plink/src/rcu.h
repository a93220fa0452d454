/* SPDX-License-Identifier: Apache-2.0 */
/*
 * liburcu ("bp": membarrier, threads register themselves), under our names.
 *
 * Data threads find what the control thread has made by p2p_rcu_get() inside p2p_rcu_lock() .. p2p_rcu_unlock(); the
 * control thread puts it there with p2p_rcu_set(), and after taking it away frees it behind p2p_rcu_wait().  The
 * wrappers are acquire and release in C11's sense, which costs nothing on the processors that matter, and tell
 * ThreadSanitizer what liburcu's own code, which it cannot see into, grants.
 */
#ifndef P2P_RCU_H
#define P2P_RCU_H 1

#include <urcu-bp.h>
#include "atomics.h"

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
extern char p2p_rcu_tsan_tag;
#define P2P_RCU_READER_LEFT() __tsan_release(&p2p_rcu_tsan_tag)
#define P2P_RCU_READERS_GONE() __tsan_acquire(&p2p_rcu_tsan_tag)
#else
#define P2P_RCU_READER_LEFT() ((void)0)
#define P2P_RCU_READERS_GONE() ((void)0)
#endif

#define p2p_rcu_get(P) p2p_load_acquire(&(P))
#define p2p_rcu_set(P, V) p2p_store_release(&(P), V)

static inline void p2p_rcu_lock(void)
{
    rcu_read_lock();
}

static inline void p2p_rcu_unlock(void)
{
    P2P_RCU_READER_LEFT();
    rcu_read_unlock();
}

/* Returns when every reader that was inside its section at the call has left it.  Not from inside a section. */
static inline void p2p_rcu_wait(void)
{
    synchronize_rcu();
    P2P_RCU_READERS_GONE();
}

#endif /* rcu.h */
