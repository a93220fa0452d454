/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forced into the library's sources (-include) when they are built for fuzzing: time, sleep, threads and mappings go
 * through the harness.
 *
 * A harness decides what time it is, so that time limits of seconds cost nothing; it gets a turn whenever the library
 * waits, so that it can play the other side in the same thread, the same way each time; and each region lies between
 * pages that nobody may touch, so that nothing out of bounds goes unseen.
 */
#ifndef FUZZ_HOOKS_H
#define FUZZ_HOOKS_H 1

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

int fuzz_clock_gettime(clockid_t clock, struct timespec *ts);
int fuzz_nanosleep(const struct timespec *req, struct timespec *rem);
int fuzz_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int fuzz_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int fuzz_pthread_join(pthread_t thread, void **ret);
void *fuzz_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t off);
int fuzz_munmap(void *addr, size_t size);
int fuzz_fallocate(int fd, int mode, off_t off, off_t len);

#ifndef FUZZ_HOOKS_ONLY_DECLARED
#define clock_gettime fuzz_clock_gettime
#define nanosleep fuzz_nanosleep
#define poll fuzz_poll
#define pthread_create fuzz_pthread_create
#define pthread_join fuzz_pthread_join
#define mmap fuzz_mmap
#define munmap fuzz_munmap
#define fallocate fuzz_fallocate
#endif

#endif /* hooks.h */
