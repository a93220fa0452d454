/* SPDX-License-Identifier: Apache-2.0 */
#include "sigbus.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include "atomics.h"

#define N_WATCHES 4096u

static struct watch {
    uintptr_t base; /* 0: free; 1: being filled in. */
    size_t size;
    bool torn;
} watches[N_WATCHES];

static struct sigaction former;

static struct watch *find(uintptr_t at)
{
    for (unsigned i = 0; i < N_WATCHES; i++) {
        uintptr_t base = p2p_load_acquire(&watches[i].base);
        if (base > 1 && at >= base && at - base < p2p_load(&watches[i].size)) {
            return &watches[i];
        }
    }
    return NULL;
}

static void handler(int sig, siginfo_t *info, void *context)
{
    int saved = errno;
    /* A broken memory chip (BUS_MCEERR_*) is not ours to hide. */
    struct watch *w = info->si_code == BUS_ADRERR ? find((uintptr_t)info->si_addr) : NULL;

    if (w && mmap((void *)p2p_load(&w->base), p2p_load(&w->size), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
        p2p_store_release(&w->torn, true);
        errno = saved;
        return;
    }
    errno = saved;
    if (former.sa_flags & SA_SIGINFO) {
        former.sa_sigaction(sig, info, context);
    } else if (former.sa_handler != SIG_DFL && former.sa_handler != SIG_IGN) {
        former.sa_handler(sig);
    } else {
        signal(sig, SIG_DFL); /* The touch is repeated, and ends the process. */
    }
}

static void install(void)
{
    struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER };

    sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGBUS, NULL, &former);
    (void)sigaction(SIGBUS, &sa, NULL);
}

void p2p_sigbus_install(bool polite)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sigaction now;

    if (polite && !sigaction(SIGBUS, NULL, &now) && (now.sa_flags & SA_SIGINFO || now.sa_handler != SIG_DFL)) {
        return;
    }
    pthread_once(&once, install);
}

int p2p_sigbus_watch(void *base, size_t size)
{
    for (unsigned i = 0; i < N_WATCHES; i++) {
        struct watch *w = &watches[i];
        uintptr_t none = 0;

        if (!p2p_load(&w->base)
            && __atomic_compare_exchange_n(&w->base, &none, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            p2p_store(&w->size, size);
            p2p_store(&w->torn, false);
            p2p_store_release(&w->base, (uintptr_t)base);
            return (int)i + 1;
        }
    }
    return 0;
}

void p2p_sigbus_forget(int watch)
{
    if (watch) {
        p2p_store_release(&watches[watch - 1].base, 0);
    }
}

bool p2p_sigbus_torn(int watch)
{
    return watch && p2p_load_acquire(&watches[watch - 1].torn);
}
