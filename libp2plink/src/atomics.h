/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Acquire and release, explained once and used by name ever after.
 *
 * p2p_load_acquire(p): nothing that stands behind it in the program is done before it.  What was written before the
 * store that it reads is visible.
 * p2p_store_release(p, v): all that stands before it in the program has been done, as seen by whoever reads 'v' with
 * p2p_load_acquire().
 * p2p_load(), p2p_store(): whole (never torn), not ordered.
 *
 * The switchover protocol asks for nothing stronger; docs/protocol.md says which pair grants what.  One exception: in a
 * guest, a write-combining mapping orders stores by fences only, see p2p_wc_fence().
 */
#ifndef P2P_ATOMICS_H
#define P2P_ATOMICS_H 1

#include <stdbool.h>

#define p2p_load(P) __atomic_load_n(P, __ATOMIC_RELAXED)
#define p2p_store(P, V) __atomic_store_n(P, V, __ATOMIC_RELAXED)
#define p2p_load_acquire(P) __atomic_load_n(P, __ATOMIC_ACQUIRE)
#define p2p_store_release(P, V) __atomic_store_n(P, V, __ATOMIC_RELEASE)

#define p2p_likely(X) __builtin_expect(!!(X), 1)
#define p2p_unlikely(X) __builtin_expect(!!(X), 0)

/* Before a release store into a mapping that may be write-combining ('wc'): pushes earlier stores out. */
static inline void p2p_wc_fence(bool wc)
{
    if (p2p_unlikely(wc)) {
#if defined(__x86_64__)
        __builtin_ia32_sfence();
#else
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    }
}

static inline void p2p_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

#endif /* atomics.h */
