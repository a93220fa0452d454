/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For VNFs on the host that have nothing to do: tells them by an eventfd that there is something to receive.
 *
 * Each ring has a word, 'wake', on which its consumer sleeps (futex; shared memory is all that producer and consumer
 * have in common).  A thread of the port's, the sleeper, does that for all rings of all queues that are armed; it is
 * there from the first p2p_rx_arm() on.  To arm is:
 *
 *   1. set 'wake' of each ring;
 *   2. have a memory barrier executed by all threads of all processes that use this library (membarrier(2));
 *   3. if a ring is not empty, tell at once; else sleep until 'wake' is no longer set.
 *
 * A producer stores 'head', then loads 'wake', without a fence: either it did both before the barrier, and step 3 sees
 * 'head', or it loads 'wake' behind it, and sees that it is set.  So those who are awake pay for nobody's sleep.
 *
 * A producer in a guest has another kernel's futexes, one that does not run this library need not know of any: so the
 * sleeper looks for itself every TICK_MS too.  It also looks when the port's links change.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "rcu.h"
#include "vnf.h"

#define TICK_MS 10
#define WAITS_MAX (2 * P2P_MAX_QUEUES + 1)  /* Rings to receive from, and the word for ourselves. */

static bool kernel_can(void)
{
    return syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno != ENOSYS;
}

void vnf_sleep_kick(struct p2p_port *port)
{
    struct vnf_sleep *s = &port->sleep;

    __atomic_add_fetch(&s->kick, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &s->kick, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Steps 1 to 3 for the queues in 'armed'.  Returns those that have something to receive; fills in what to sleep on. */
static uint32_t look(struct p2p_port *port, uint32_t armed, struct futex_waitv *waits, unsigned *n)
{
    struct p2p_ring_ctl *ring[2 * P2P_MAX_QUEUES];
    unsigned queue[2 * P2P_MAX_QUEUES];
    uint32_t n_desc[2 * P2P_MAX_QUEUES];
    unsigned n_rings = 0;
    uint32_t ready = 0;

    p2p_rcu_lock();
    const struct vnf_map *map = p2p_rcu_get(port->map);
    const struct vnf_chan *chan = map ? p2p_rcu_get(map->rx_chan) : NULL;
    for (unsigned q = 0; map && q < map->n_rxq; q++) {
        if (armed >> q & 1) {
            queue[n_rings] = q;
            n_desc[n_rings] = map->rx[q].normal.mask + 1;
            ring[n_rings++] = map->rx[q].normal.ctl;
            for (unsigned i = q; chan && i < chan->n_rx; i += map->n_rxq) {
                queue[n_rings] = q;
                n_desc[n_rings] = chan->rx[i].mask + 1;
                ring[n_rings++] = chan->rx[i].ctl;
            }
        }
    }
    for (unsigned i = 0; i < n_rings; i++) {
        __atomic_store_n(&ring[i]->wake, 1, __ATOMIC_SEQ_CST);
    }
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
    for (unsigned i = 0; i < n_rings; i++) {
        uint32_t used = p2p_load_acquire(&ring[i]->head) - p2p_load_acquire(&ring[i]->tail);
        if (used && used <= n_desc[i]) {
            ready |= 1u << queue[i];
            p2p_store(&ring[i]->wake, 0);
        }
        /* The memory may be gone by the time that the kernel looks: it will say so, or find another value there. */
        waits[(*n)++] = (struct futex_waitv) { .val = 1, .uaddr = (uintptr_t)&ring[i]->wake, .flags = FUTEX_32 };
    }
    p2p_rcu_unlock();
    return ready;
}

static void fire(struct vnf_sleep *s, uint32_t ready)
{
    pthread_mutex_lock(&s->mutex);
    ready &= s->armed;
    s->armed &= ~ready;
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        if (ready >> q & 1) {
            uint64_t one = 1;
            ssize_t n = write(s->fd[q], &one, sizeof one);
            (void)n;
        }
    }
    pthread_mutex_unlock(&s->mutex);
}

static void *sleep_main(void *port_)
{
    struct p2p_port *port = port_;
    struct vnf_sleep *s = &port->sleep;

    pthread_setname_np(pthread_self(), "p2p-sleeper");
    for (unsigned in_vain = 0;;) {
        struct futex_waitv waits[WAITS_MAX];
        unsigned n = 0;
        uint32_t kick = __atomic_load_n(&s->kick, __ATOMIC_SEQ_CST);

        if (atomic_load(&port->stop)) {
            return NULL;
        }
        waits[n++] = (struct futex_waitv) {
            .val = kick, .uaddr = (uintptr_t)&s->kick, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG,
        };
        pthread_mutex_lock(&s->mutex);
        uint32_t armed = s->armed;
        pthread_mutex_unlock(&s->mutex);

        uint32_t ready = armed ? look(port, armed, waits, &n) : 0;
        if (ready) {
            in_vain = 0;
            fire(s, ready);
            continue;
        }
        if (in_vain > 1) { /* Somebody wakes us for nothing; and each look costs others a barrier. */
            nanosleep(&(struct timespec) { .tv_nsec = in_vain < 8 ? 100000L << in_vain : TICK_MS * 1000000L }, NULL);
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        long woken = syscall(SYS_futex_waitv, waits, n, 0, armed ? &until : NULL, CLOCK_MONOTONIC);
        if (woken < 0 && errno == ETIMEDOUT) {
            in_vain = 0;
        } else if (woken != 0 || in_vain) { /* (Number 0 is our own.) */
            in_vain++;
        }
    }
}

/* On the control thread, so that the sleeper has its processors, not those of a data thread. */
void vnf_sleep_run(struct p2p_port *port)
{
    struct vnf_sleep *s = &port->sleep;

    pthread_mutex_lock(&s->mutex);
    bool start = s->armed && !s->running;
    pthread_mutex_unlock(&s->mutex);
    if (start) {
        int error = pthread_create(&s->thread, NULL, sleep_main, port);
        if (error) {
            fire(s, UINT32_MAX); /* It has to look for itself. */
        } else {
            __atomic_store_n(&s->running, true, __ATOMIC_RELEASE);
        }
    }
}

int p2p_rx_arm(struct p2p_port *port, unsigned queue, int fd)
{
    struct vnf_sleep *s = &port->sleep;

    if (port->pci || !kernel_can()) {
        return -ENOTSUP;
    }
    if (queue >= P2P_MAX_QUEUES) {
        return -EINVAL;
    }
    pthread_mutex_lock(&s->mutex);
    s->fd[queue] = fd;
    s->armed |= 1u << queue;
    pthread_mutex_unlock(&s->mutex);
    if (__atomic_load_n(&s->running, __ATOMIC_ACQUIRE)) {
        vnf_sleep_kick(port);
    } else {
        uint64_t one = 1;
        ssize_t n = write(port->wake_fd, &one, sizeof one);
        (void)n;
    }
    return 0;
}

void p2p_rx_disarm(struct p2p_port *port, unsigned queue)
{
    struct vnf_sleep *s = &port->sleep;

    if (queue < P2P_MAX_QUEUES) {
        pthread_mutex_lock(&s->mutex);
        s->armed &= ~(1u << queue);
        pthread_mutex_unlock(&s->mutex);
    }
}

void vnf_sleep_close(struct p2p_port *port)
{
    if (port->sleep.running) {
        vnf_sleep_kick(port);
        pthread_join(port->sleep.thread, NULL);
        port->sleep.running = false;
    }
}
