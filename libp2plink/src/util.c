/* SPDX-License-Identifier: Apache-2.0 */
#include "util.h"
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef P2PLINK_VERSION
#define P2PLINK_VERSION "0.1.0"
#endif

const char *p2p_version(void)
{
    return P2PLINK_VERSION;
}

const char *p2p_default_socket(void)
{
    const char *s = getenv("P2PLINK_SOCKET");
    return s && *s ? s : "/var/run/openvswitch/p2plink.sock";
}

int p2p_fail(struct p2p_error *err, int error, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
    }
    return error;
}

uint64_t p2p_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void p2p_log(const struct p2p_logger *l, enum p2p_log_level level, const char *fmt, ...)
{
    char text[4608]; /* The longest are commands to plug a port by hand. */
    size_t used = 0;
    va_list args;

    if (l->who) {
        used = (size_t)snprintf(text, sizeof text, "%s: ", l->who);
        used = used < sizeof text ? used : sizeof text - 1;
    }
    va_start(args, fmt);
    vsnprintf(text + used, sizeof text - used, fmt, args);
    va_end(args);
    if (l->func) {
        l->func(l->aux, level, text);
    } else if (level <= P2P_LOG_WARN) {
        fprintf(stderr, "p2plink: %s\n", text);
    }
}

uint64_t p2p_random64(void)
{
    uint64_t x = 0;

    while (!x) {
        if (getrandom(&x, sizeof x, 0) != sizeof x) {
            x = p2p_unique64();
        }
    }
    return x;
}

uint64_t p2p_unique64(void)
{
    static uint64_t last;
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    uint64_t now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    uint64_t prev = __atomic_load_n(&last, __ATOMIC_RELAXED);
    uint64_t next;
    do {
        next = now > prev ? now : prev + 1;
    } while (!__atomic_compare_exchange_n(&last, &prev, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return next;
}

void p2p_copy_name(char *dst, size_t size, const char *src)
{
    size_t len = strnlen(src, size - 1);
    memcpy(dst, src, len);
    memset(dst + len, 0, size - len);
}

#ifdef __SANITIZE_THREAD__
char p2p_rcu_tsan_tag; /* See rcu.h. */
#endif

void p2p_membarrier_register(void)
{
    /* Where that is not known, those who sleep look for themselves now and then. */
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
}
