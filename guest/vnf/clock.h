/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and chance for the sample VNFs: the one clock that packets are stamped with, and a small seeded generator.
 * Any thread; a generator belongs to one thread.
 */
#ifndef VNF_CLOCK_H
#define VNF_CLOCK_H 1

#include <stdint.h>
#include <time.h>

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

/* CLOCK_MONOTONIC: all processes of a host share it, guests have their own. */
static inline uint64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static inline uint64_t mix64(uint64_t x) /* The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

struct prng {
    uint64_t state;
};

static inline uint64_t prng_next(struct prng *r)
{
    r->state += UINT64_C(0x9e3779b97f4a7c15);
    return mix64(r->state);
}

/* Uniform in [0, n), as near as a 32-bit draw gets; n > 0. */
static inline uint32_t prng_below(struct prng *r, uint32_t n)
{
    return (prng_next(r) >> 32) * n >> 32;
}

#endif /* clock.h */
