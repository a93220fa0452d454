/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include "testbed.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void quiet_log(void *aux, enum p2p_log_level level, const char *message)
{
    (void)aux;
    if (getenv("TESTBED_LOG") && level <= (enum p2p_log_level)atoi(getenv("TESTBED_LOG"))) {
        fprintf(stderr, "# %s\n", message);
    }
}

static void *control_main(void *tb_)
{
    struct testbed *tb = tb_;

    while (!atomic_load(&tb->stop)) {
        p2p_switch_run(tb->sw, 100);
        pthread_mutex_lock(&tb->lock);
        for (int i = 0; i < tb->n_ports && atomic_load(&tb->auto_confirm); i++) {
            struct p2p_swport *to;
            uint64_t ticket;
            if (!tb->port[i].port) {
                continue;
            }
            if (p2p_swport_wants_confirm(tb->port[i].port, &to, &ticket)) {
                p2p_swport_confirm(tb->port[i].port, ticket, true, NULL);
            }
            if (p2p_swport_held(tb->port[i].port, &ticket)) {
                p2p_swport_unhold(tb->port[i].port, ticket);
            }
        }
        pthread_mutex_unlock(&tb->lock);
    }
    return NULL;
}

#define BURST 32

/* What dpif-netdev's output batches are: packets received but not sent yet. */
struct pending {
    unsigned n;
    struct p2p_buf buf[4 * BURST];
    uint8_t *mem[4 * BURST];
};

static void flush(struct testbed *tb, int from, unsigned queue, struct pending *pend)
{
    int to = atomic_load(&tb->port[from].forward_to);
    unsigned sent = 0;

    if (to >= 0 && tb->port[to].port) {
        unsigned lose = atomic_load(&tb->lose_one);
        unsigned skip = lose && pend->n ? 1 : 0;
        if (skip) {
            atomic_fetch_sub(&tb->lose_one, 1);
        }
        sent = p2p_swport_tx_burst(tb->port[to].port, queue, pend->buf + skip, pend->n - skip);
        atomic_fetch_add(&tb->port[to].tx, sent + skip);
        atomic_fetch_add(&tb->port[to].tx_dropped, pend->n - skip - sent);
    }
    for (unsigned i = 0; i < pend->n; i++) {
        free(pend->mem[i]);
    }
    pend->n = 0;
}

static void *pmd_main(void *tb_)
{
    struct testbed *tb = tb_;
    struct pending (*pend)[P2P_MAX_QUEUES] = calloc(TESTBED_PORTS, sizeof *pend);
    unsigned long polls = 0;

    while (!atomic_load(&tb->stop)) {
        unsigned work = 0;

        polls++;
        if (atomic_load(&tb->pause)) {
            sched_yield();
            continue;
        }
        pthread_mutex_lock(&tb->lock);
        for (int i = 0; i < tb->n_ports; i++) {
            for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
                struct p2p_swport *port = tb->port[i].port;
                struct p2p_pkt pkts[BURST];
                struct pending *pd = &pend[i][q];

                if (!port) {
                    flush(tb, i, q, pd);
                    continue;
                }
                if (pd->n && (p2p_swport_rx_wants_flush(port, q) || polls % tb->flush_every == 0
                              || pd->n > 3 * BURST)) {
                    flush(tb, i, q, pd);
                }
                unsigned n = p2p_swport_rx_begin(port, q, pkts, BURST, pd->n == 0);
                for (unsigned k = 0; k < n; k++) {
                    uint8_t *copy = malloc(pkts[k].len);
                    memcpy(copy, pkts[k].data, pkts[k].len);
                    pd->mem[pd->n] = copy;
                    pd->buf[pd->n++] = (struct p2p_buf) { copy, pkts[k].len, pkts[k].hash };
                }
                p2p_swport_rx_end(port, q);
                atomic_fetch_add(&tb->port[i].rx, n);
                if (tb->flush_every == 1 && pd->n) {
                    flush(tb, i, q, pd);
                }
                work += n;
            }
        }
        pthread_mutex_unlock(&tb->lock);
        if (!work) {
            sched_yield();
        }
    }
    for (int i = 0; i < TESTBED_PORTS; i++) {
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            for (unsigned k = 0; k < pend[i][q].n; k++) {
                free(pend[i][q].mem[k]);
            }
        }
    }
    free(pend);
    return NULL;
}

void testbed_init(struct testbed *tb)
{
    memset(tb, 0, sizeof *tb);
    strcpy(tb->dir, "/tmp/p2plink-test-XXXXXX");
    if (!mkdtemp(tb->dir)) {
        abort();
    }
    snprintf(tb->socket, sizeof tb->socket, "%s/sock", tb->dir);
    p2p_switch_config_init(&tb->cfg);
    tb->cfg.socket = tb->socket;
    tb->cfg.use_hugepages = false;
    tb->cfg.log = quiet_log;
    tb->cfg.retry_ms = 50;
    tb->flush_every = 1;
    pthread_mutex_init(&tb->lock, NULL);
    atomic_store(&tb->auto_confirm, true);
}

void testbed_start(struct testbed *tb)
{
    struct p2p_error err;

    if (p2p_switch_create(&tb->cfg, &tb->sw, &err)) {
        fprintf(stderr, "# %s\n", err.text);
        abort();
    }
    pthread_create(&tb->control, NULL, control_main, tb);
}

void testbed_put_port(struct testbed *tb, int i, const char *name, unsigned n_queues, uint32_t mtu)
{
    struct p2p_swport_config cfg = { .name = name, .n_queues = n_queues, .mtu = mtu, .numa_node = -1 };
    struct p2p_swport *port;
    struct p2p_error err;

    if (p2p_swport_create(tb->sw, &cfg, &port, &err)) {
        fprintf(stderr, "# %s\n", err.text);
        abort();
    }
    pthread_mutex_lock(&tb->lock);
    tb->port[i].port = port;
    pthread_mutex_unlock(&tb->lock);
}

void testbed_remove_port(struct testbed *tb, int i)
{
    pthread_mutex_lock(&tb->lock);
    p2p_swport_destroy(tb->port[i].port);
    tb->port[i].port = NULL;
    pthread_mutex_unlock(&tb->lock);
}

void testbed_reconfigure(struct testbed *tb, int i, unsigned n_queues, uint32_t mtu)
{
    struct p2p_swport_config cfg = { .n_queues = n_queues, .mtu = mtu, .numa_node = -1 };
    struct p2p_error err;

    pthread_mutex_lock(&tb->lock);
    if (p2p_swport_reconfigure(tb->port[i].port, &cfg, &err)) {
        fprintf(stderr, "# %s\n", err.text);
        abort();
    }
    pthread_mutex_unlock(&tb->lock);
}

int testbed_add_port(struct testbed *tb, const char *name, unsigned n_queues, uint32_t mtu)
{
    int i = tb->n_ports;

    atomic_store(&tb->port[i].forward_to, -1);
    testbed_put_port(tb, i, name, n_queues, mtu);
    tb->n_ports++;
    return i;
}

static void start_pmd(struct testbed *tb)
{
    if (!tb->pmd) {
        pthread_create(&tb->pmd, NULL, pmd_main, tb);
    }
}

static void stop_switch(struct testbed *tb)
{
    atomic_store(&tb->stop, true);
    p2p_switch_wake(tb->sw);
    pthread_join(tb->control, NULL);
    if (tb->pmd) {
        pthread_join(tb->pmd, NULL);
        tb->pmd = 0;
    }
    for (int i = 0; i < tb->n_ports; i++) {
        p2p_swport_destroy(tb->port[i].port);
        tb->port[i].port = NULL;
    }
    p2p_switch_destroy(tb->sw);
}

void testbed_restart(struct testbed *tb)
{
    struct p2p_swport_info info[TESTBED_PORTS];
    bool had_pmd = tb->pmd;

    for (int i = 0; i < tb->n_ports; i++) {
        p2p_swport_get_info(tb->port[i].port, &info[i]);
    }
    stop_switch(tb);
    atomic_store(&tb->stop, false);
    testbed_start(tb);
    for (int i = 0; i < tb->n_ports; i++) {
        testbed_put_port(tb, i, info[i].name, info[i].n_queues, info[i].mtu);
    }
    if (had_pmd) {
        start_pmd(tb);
    }
}

void testbed_clean(struct testbed *tb)
{
    char path[128];

    unlink(tb->socket);
    snprintf(path, sizeof path, "%s.lock", tb->socket);
    unlink(path);
    snprintf(path, sizeof path, "%s.ledger", tb->socket);
    unlink(path);
    rmdir(tb->dir);
}

void testbed_stop(struct testbed *tb)
{
    stop_switch(tb);
    pthread_mutex_destroy(&tb->lock);
    testbed_clean(tb);
}

void testbed_forward(struct testbed *tb, int from, int to)
{
    atomic_store(&tb->port[from].forward_to, to);
    start_pmd(tb);
}

struct p2p_port *testbed_vnf(struct testbed *tb, const char *name)
{
    struct p2p_port_config cfg = {
        .name = name, .attach = P2P_ATTACH_SOCKET, .socket = tb->socket, .wait_ms = 5000, .log = quiet_log,
    };
    struct p2p_port *port;
    struct p2p_error err;

    if (p2p_port_open(&cfg, &port, &err)) {
        fprintf(stderr, "# %s: %s\n", name, err.text);
        abort();
    }
    return port;
}

void testbed_sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec) { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

uint64_t testbed_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

#define PATIENCE_MS 10000

bool testbed_wait_state(struct testbed *tb, int port, enum p2p_link_state state)
{
    struct p2p_swport_info info;

    for (uint64_t until = testbed_now_ms() + PATIENCE_MS; testbed_now_ms() < until; testbed_sleep_ms(1)) {
        p2p_swport_get_info(tb->port[port].port, &info);
        if (info.state == state) {
            return true;
        }
    }
    fprintf(stderr, "# port %s is %s, not %s; last error: %s\n", info.name, p2p_link_state_name(info.state),
            p2p_link_state_name(state), info.last_error);
    return false;
}

bool testbed_wait_attached(struct testbed *tb, int port, bool attached)
{
    struct p2p_swport_info info;

    for (uint64_t until = testbed_now_ms() + PATIENCE_MS; testbed_now_ms() < until; testbed_sleep_ms(1)) {
        p2p_swport_get_info(tb->port[port].port, &info);
        if (info.attached == attached) {
            return true;
        }
    }
    fprintf(stderr, "# port %s: attached %d; last error: %s\n", info.name, info.attached, info.last_error);
    return false;
}

bool testbed_wait_unlinked(struct testbed *tb, int port)
{
    struct p2p_swport_info info;

    for (uint64_t until = testbed_now_ms() + PATIENCE_MS; testbed_now_ms() < until; testbed_sleep_ms(1)) {
        p2p_swport_get_info(tb->port[port].port, &info);
        if (info.state == P2P_LINK_NORMAL && !info.link_id) {
            return true;
        }
    }
    fprintf(stderr, "# port %s is %s with link %u\n", info.name, p2p_link_state_name(info.state), info.link_id);
    return false;
}
