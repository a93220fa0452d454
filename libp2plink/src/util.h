/* SPDX-License-Identifier: Apache-2.0 */
/* Small things that several files need: error texts, clocks, log lines, random numbers. */
#ifndef P2P_UTIL_H
#define P2P_UTIL_H 1

#include <stdint.h>
#include <p2plink/common.h>

/* Writes the reason, if 'err' is not NULL, and returns 'error', so that callers can say "return p2p_fail(...)". */
int p2p_fail(struct p2p_error *err, int error, const char *fmt, ...) P2P_PRINTF(3, 4);

uint64_t p2p_now_ns(void);          /* CLOCK_MONOTONIC. */
static inline uint64_t p2p_now_ms(void) { return p2p_now_ns() / 1000000; }

/* Where log lines go; a NULL 'func' sends warnings and errors to stderr. */
struct p2p_logger {
    p2p_log_func *func;
    void *aux;
    const char *who;  /* Prefix, or NULL. */
};
void p2p_log(const struct p2p_logger *l, enum p2p_log_level level, const char *fmt, ...) P2P_PRINTF(3, 4);

uint64_t p2p_random64(void);        /* Never 0. */
uint64_t p2p_unique64(void);        /* Never 0, ascending, never twice on a host: wall-clock nanoseconds. */
/* Lets others ask this process's threads for a memory barrier (MEMBARRIER_CMD_GLOBAL_EXPEDITED), once per process. */
void p2p_membarrier_register(void);
void p2p_copy_name(char *dst, size_t size, const char *src); /* Always terminated. */

#endif /* util.h */
