/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#define FUZZ_HOOKS_ONLY_DECLARED 1
#include "hooks.h"

/*
 * Input.
 */

static void take(struct input *in, void *to, size_t n)
{
    size_t k = n < in->left ? n : in->left;

    memset(to, 0, n);
    if (k) {
        memcpy(to, in->data, k);
        in->data += k;
        in->left -= k;
    }
}

uint8_t in8(struct input *in)
{
    uint8_t x;
    take(in, &x, sizeof x);
    return x;
}

uint16_t in16(struct input *in)
{
    uint16_t x;
    take(in, &x, sizeof x);
    return x;
}

uint32_t in32(struct input *in)
{
    uint32_t x;
    take(in, &x, sizeof x);
    return x;
}

uint64_t in64(struct input *in)
{
    uint64_t x;
    take(in, &x, sizeof x);
    return x;
}

uint64_t in_word(struct input *in, uint64_t now)
{
    uint8_t how = in8(in);

    switch (how % 16) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return in64(in);
    case 3: return in32(in);
    case 4: return now + in8(in);
    case 5: return now - in8(in);
    case 6: return now ^ UINT64_C(1) << in8(in) % 64;
    case 7: return now + (UINT64_C(1) << in8(in) % 64);
    case 8: return (uint64_t)in16(in) << 32 | (uint32_t)now;             /* Another upper half, */
    case 11: return (uint64_t)in8(in) << 32 | (uint32_t)now;
    case 12: return now + ((uint64_t)in16(in) << 32);
    case 13: return now - ((uint64_t)in8(in) << 32);
    case 14: return (uint64_t)(UINT32_MAX - in8(in)) << 32 | (uint32_t)now;
    case 9: return (now & ~(uint64_t)UINT32_MAX) | in32(in);             /* another lower half. */
    case 10: return (now & ~(uint64_t)UINT32_MAX) | (uint32_t)(now + 0x7fffffff + in8(in) % 3);
    default: return (uint64_t)in8(in) * UINT64_C(0x0101010101010101);
    }
}

struct p2p_desc in_desc(struct input *in, uint32_t data_size, uint32_t max_len)
{
    uint8_t how = in8(in);
    struct p2p_desc d = { .flags = how & 1, .hash = how };

    switch (how >> 1 & 7) {
    case 0: d.len = P2P_FRAME_MIN - 1; break;
    case 1: d.len = max_len; break;
    case 2: d.len = max_len + 1; break;
    case 3: d.len = data_size + in8(in) - 128; break;
    case 4: d.len = in32(in); break;
    case 5: d.len = in16(in); break;
    default: d.len = P2P_FRAME_MIN + in8(in); break;
    }
    switch (how >> 4 & 7) {
    case 0: d.off = data_size - d.len; break;
    case 1: d.off = data_size - d.len + 1; break;
    case 2: d.off = UINT32_MAX - in8(in); break;
    case 3: d.off = 0u - d.len; break;
    case 4: d.off = in32(in); break;
    default: d.off = in16(in) * P2P_CACHE_LINE % data_size; break;
    }
    return d;
}

uint64_t *in_header(struct input *in, void *base)
{
    uint16_t where = in16(in);

    return (uint64_t *)base + (where & 0x8000 ? where % 8 : where % (sizeof(struct p2p_region_header) / 8));
}

/*
 * Time.
 */

static bool frozen;
static uint64_t passed_ns; /* Atomic: honest VNFs' threads look too. */

void fuzz_freeze_time(void)
{
    frozen = true;
    p2p_store(&passed_ns, UINT64_C(1000000000));
}

void fuzz_pass_ms(unsigned ms)
{
    __atomic_fetch_add(&passed_ns, (uint64_t)ms * 1000000, __ATOMIC_RELAXED);
}

int fuzz_clock_gettime(clockid_t clock, struct timespec *ts)
{
    uint64_t ns;

    if (frozen) {
        ns = __atomic_add_fetch(&passed_ns, 10000, __ATOMIC_RELAXED);
    } else {
        clock_gettime(clock, ts);
        ns = (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec + p2p_load(&passed_ns);
    }
    ts->tv_sec = (time_t)(ns / 1000000000u);
    ts->tv_nsec = (long)(ns % 1000000000u);
    return 0;
}

uint64_t fuzz_now_ns(void)
{
    struct timespec ts;
    fuzz_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void (*fuzz_turn)(void);

int fuzz_nanosleep(const struct timespec *req, struct timespec *rem)
{
    if (!fuzz_turn) {
        return nanosleep(req, rem);
    }
    __atomic_fetch_add(&passed_ns, (uint64_t)req->tv_sec * 1000000000u + (uint64_t)req->tv_nsec, __ATOMIC_RELAXED);
    fuzz_turn();
    return 0;
}

int fuzz_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    if (!fuzz_turn) {
        return poll(fds, n, timeout_ms);
    }
    fuzz_turn();
    int ready = poll(fds, n, 0);
    if (!ready && timeout_ms > 0) {
        fuzz_pass_ms((unsigned)timeout_ms);
    }
    return ready;
}

/*
 * Threads.
 */

bool fuzz_catch_threads;
void *(*fuzz_thread_main)(void *);
void *fuzz_thread_arg;

int fuzz_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    if (!fuzz_catch_threads || attr) { /* With attributes: one that closes a stranger's file. */
        return pthread_create(thread, attr, start, arg);
    }
    fuzz_thread_main = start;
    fuzz_thread_arg = arg;
    return 0;
}

int fuzz_pthread_join(pthread_t thread, void **ret)
{
    return fuzz_catch_threads ? 0 : pthread_join(thread, ret);
}

/*
 * Mappings.  What a 32-bit offset can reach before and after one is nobody's.
 */

#define GUARD (UINT64_C(4) << 30)

void (*fuzz_mapped)(void *base, size_t size);

void *fuzz_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t off)
{
    if (flags & MAP_FIXED) {
        return mmap(addr, size, prot, flags, fd, off); /* In the place of one that is guarded already. */
    }
    size_t rounded = (size + P2P_PAGE - 1) / P2P_PAGE * P2P_PAGE;
    uint8_t *all = mmap(NULL, rounded + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) {
        return MAP_FAILED;
    }
    void *base = mmap(all + GUARD, size, prot, flags | MAP_FIXED, fd, off);
    if (base == MAP_FAILED) {
        int error = errno;
        munmap(all, rounded + 2 * GUARD);
        errno = error;
        return MAP_FAILED;
    }
    if (fuzz_mapped && flags & MAP_SHARED && prot & PROT_WRITE) {
        fuzz_mapped(base, size);
    }
    return base;
}

int fuzz_munmap(void *addr, size_t size)
{
    size_t rounded = (size + P2P_PAGE - 1) / P2P_PAGE * P2P_PAGE;

    scribble_end(); /* It may be at work in there. */
    return munmap((uint8_t *)addr - GUARD, rounded + 2 * GUARD);
}

bool fuzz_no_holes;

/* Memory comes when it is touched: filling megabytes of zeros for each input would be most of the work. */
int fuzz_fallocate(int fd, int mode, off_t off, off_t len)
{
    return mode && !fuzz_no_holes ? fallocate(fd, mode, off, len) : 0;
}

/*
 * The scribbler.
 */

static pthread_mutex_t scribble_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t scribble_cond = PTHREAD_COND_INITIALIZER;
static struct scribble scribbles[SCRIBBLES_MAX];
static unsigned n_scribbles; /* 0: rest. */
static bool scribbling;

static void *scribble_main(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&scribble_mutex);
    for (;;) {
        while (!p2p_load(&n_scribbles)) {
            pthread_cond_wait(&scribble_cond, &scribble_mutex);
        }
        uint64_t former[SCRIBBLES_MAX];
        unsigned n = n_scribbles;
        for (unsigned i = 0; i < n; i++) {
            former[i] = p2p_load(scribbles[i].at);
        }
        p2p_store(&scribbling, true);
        while (p2p_load(&n_scribbles)) {
            for (unsigned i = 0; i < n; i++) {
                p2p_store(scribbles[i].at, scribbles[i].value);
            }
            for (unsigned i = 0; i < n; i++) {
                p2p_store(scribbles[i].at, former[i]);
            }
        }
        p2p_store_release(&scribbling, false);
    }
    return NULL;
}

void scribble_begin(const struct scribble *list, unsigned n)
{
    static bool started;

    if (!started) {
        pthread_t thread;
        CHECK(!pthread_create(&thread, NULL, scribble_main, NULL));
        pthread_detach(thread);
        started = true;
    }
    if (n) {
        pthread_mutex_lock(&scribble_mutex);
        memcpy(scribbles, list, n * sizeof *list);
        p2p_store(&n_scribbles, n);
        pthread_cond_signal(&scribble_cond);
        pthread_mutex_unlock(&scribble_mutex);
        while (!p2p_load_acquire(&scribbling)) {
            sched_yield();
        }
    }
}

void scribble_end(void)
{
    p2p_store(&n_scribbles, 0);
    while (p2p_load_acquire(&scribbling)) {
        sched_yield();
    }
}

/*
 * Others.
 */

void fuzz_log(void *aux, enum p2p_log_level level, const char *message)
{
    static const char *show;

    (void)aux;
    if (!show) {
        show = getenv("FUZZ_LOG") ? getenv("FUZZ_LOG") : "";
    }
    if (*show && level <= (enum p2p_log_level)atoi(show)) {
        fprintf(stderr, "# %s\n", message);
    }
}

void fuzz_make_dir(char *path, size_t size)
{
    const char *tmp = getenv("FUZZ_TMP");

    CHECK((size_t)snprintf(path, size, "%s/p2plink-fuzz-XXXXXX", tmp ? tmp : "/tmp") < size && mkdtemp(path));
}

int fuzz_count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

bool fuzz_wait_fds(int n)
{
    for (int i = 0; i < 2000 && fuzz_count_fds() != n; i++) {
        usleep(1000);
    }
    return fuzz_count_fds() == n;
}
