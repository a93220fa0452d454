/* SPDX-License-Identifier: Apache-2.0 */
/* Data threads, see workers.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "workers.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

/* A sleeper wakes up often enough for a ring of a thousand packets at ten million a second. */
#define SLEEP_AFTER 64u
#define SLEEP_NS 50000
#define TIMER_SLACK_NS 1000

const char *const idle_names[] = {"spin", "yield", "sleep", NULL};

int cpu_list_parse(struct cpu_list *list, const char *text)
{
    const char *p = text;

    list->n = 0;
    for (;;) {
        char *end;
        long low, high;

        if (*p < '0' || *p > '9') {
            return -EINVAL;
        }
        low = high = strtol(p, &end, 10);
        if (*end == '-' && end[1] >= '0' && end[1] <= '9') {
            high = strtol(end + 1, &end, 10);
        }
        if (high >= CPU_SETSIZE || high < low) {
            return -EINVAL;
        }
        for (; low <= high; low++) {
            if (list->n == CPUS_MAX) {
                return -EINVAL;
            }
            list->cpu[list->n++] = (int)low;
        }
        if (!*end) {
            return 0;
        }
        if (*end != ',') {
            return -EINVAL;
        }
        p = end + 1;
    }
}

/* Waits while there is a pause.  False: the thread shall end. */
static bool worker_interrupted(struct workers *w)
{
    bool stop;

    pthread_mutex_lock(&w->mutex);
    w->n_paused++;
    pthread_cond_broadcast(&w->changed);
    while (w->pause && !w->stop) {
        pthread_cond_wait(&w->changed, &w->mutex);
    }
    w->n_paused--;
    stop = w->stop;
    pthread_mutex_unlock(&w->mutex);
    return !stop;
}

static void worker_idle(const struct workers *w, unsigned empty_steps)
{
    static const struct timespec nap = {.tv_nsec = SLEEP_NS};

    switch (w->idle) {
    case IDLE_SPIN:
        break;
    case IDLE_YIELD:
        sched_yield();
        break;
    case IDLE_SLEEP:
        if (empty_steps > SLEEP_AFTER) {
            nanosleep(&nap, NULL);
        }
        break;
    }
}

static void *worker_main(void *aux)
{
    struct worker *me = aux;
    struct workers *w = me->pool;
    unsigned empty_steps = 0;

    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    for (;;) {
        if (atomic_load_explicit(&w->interrupt, memory_order_relaxed) && !worker_interrupted(w)) {
            return NULL;
        }
        if (w->step(w->aux, me->index)) {
            empty_steps = 0;
        } else {
            worker_idle(w, ++empty_steps);
        }
    }
}

void workers_init(struct workers *w, workers_step_func *step, void *aux, unsigned n, enum idle idle,
                  const struct cpu_list *cpus)
{
    memset(w, 0, sizeof *w);
    w->step = step;
    w->aux = aux;
    w->idle = idle;
    w->cpus = *cpus;
    w->n = n;
    w->pause = true;
    atomic_init(&w->interrupt, true);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->changed, NULL);
}

int workers_start(struct workers *w, int *cpu)
{
    *cpu = -1;
    for (unsigned i = 0; i < w->n; i++) {
        struct worker *me = &w->worker[i];
        int error;

        me->pool = w;
        me->index = i;
        error = pthread_create(&me->thread, NULL, worker_main, me);
        if (error) {
            return -error;
        }
        w->n_started++;
        if (w->cpus.n) {
            int where = w->cpus.cpu[i % w->cpus.n];
            cpu_set_t set;

            CPU_ZERO(&set);
            CPU_SET(where, &set);
            error = pthread_setaffinity_np(me->thread, sizeof set, &set);
            if (error) {
                *cpu = where;
                return -error;
            }
        }
    }
    return 0;
}

void workers_pause(struct workers *w)
{
    pthread_mutex_lock(&w->mutex);
    w->pause = true;
    atomic_store_explicit(&w->interrupt, true, memory_order_relaxed);
    while (w->n_paused < w->n_started) {
        pthread_cond_wait(&w->changed, &w->mutex);
    }
    pthread_mutex_unlock(&w->mutex);
}

void workers_resume(struct workers *w)
{
    pthread_mutex_lock(&w->mutex);
    w->pause = false;
    atomic_store_explicit(&w->interrupt, false, memory_order_relaxed);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

void workers_stop(struct workers *w)
{
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    atomic_store_explicit(&w->interrupt, true, memory_order_relaxed);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->mutex);
    for (unsigned i = 0; i < w->n_started; i++) {
        pthread_join(w->worker[i].thread, NULL);
    }
    w->n_started = 0;
    pthread_mutex_destroy(&w->mutex);
    pthread_cond_destroy(&w->changed);
}
