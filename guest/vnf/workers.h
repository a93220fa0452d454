/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data threads: each calls one step function over and over, and can be paused between two steps, so that the control
 * thread may read and change what they own without any lock on the hot path.
 *
 * All functions are the control thread's, and none may be called by a step function.
 */
#ifndef VNF_WORKERS_H
#define VNF_WORKERS_H 1

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define WORKERS_MAX 32u
#define CPUS_MAX 64u

enum idle {
    IDLE_SPIN,
    IDLE_YIELD,   /* Give the CPU away after a step that found nothing to do. */
    IDLE_SLEEP,   /* Sleep for a short time after some such steps. */
};
extern const char *const idle_names[]; /* NULL-terminated. */

struct cpu_list {
    unsigned n;
    int cpu[CPUS_MAX];
};
/* "0", "0,2", "1-3".  -EINVAL. */
int cpu_list_parse(struct cpu_list *list, const char *text);

/* Does one round of 'worker's work.  False: there was none. */
typedef bool workers_step_func(void *aux, unsigned worker);

struct workers {
    workers_step_func *step;
    void *aux;
    enum idle idle;
    struct cpu_list cpus;        /* Worker i runs on number i modulo n; empty: anywhere. */
    unsigned n;

    atomic_bool interrupt;       /* Hot: look at the rest. */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool pause, stop;            /* Under 'mutex'. */
    unsigned n_paused;           /* Under 'mutex'. */
    unsigned n_started;
    struct worker {
        struct workers *pool;
        unsigned index;
        pthread_t thread;
    } worker[WORKERS_MAX];
};

void workers_init(struct workers *w, workers_step_func *step, void *aux, unsigned n, enum idle idle,
                  const struct cpu_list *cpus);

/* Makes the threads, paused.  Returns 0, or a negative errno with the CPU that could not be had in '*cpu' (else -1). */
int workers_start(struct workers *w, int *cpu);

/* When this returns no step is running, and what the steps did is visible to the caller. */
void workers_pause(struct workers *w);
void workers_resume(struct workers *w);

/* Ends and joins the threads, paused or not. */
void workers_stop(struct workers *w);

#endif /* workers.h */
