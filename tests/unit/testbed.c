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
        for (int i = 0; i < tb->n_ports && atomic_load(&tb->auto_confirm); i++) {
            struct p2p_swport *to;
            uint64_t ticket;
            if (p2p_swport_wants_confirm(tb->port[i].port, &to, &ticket)) {
                p2p_swport_confirm(tb->port[i].port, ticket, true, NULL);
            }
            if (p2p_swport_held(tb->port[i].port, &ticket)) {
                p2p_swport_unhold(tb->port[i].port, ticket);
            }
        }
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

    if (to >= 0) {
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
        for (int i = 0; i < tb->n_ports; i++) {
            for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
                struct p2p_swport *port = tb->port[i].port;
                struct p2p_pkt pkts[BURST];
                struct pending *pd = &pend[i][q];

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

int testbed_add_port(struct testbed *tb, const char *name, unsigned n_queues, uint32_t mtu)
{
    struct p2p_swport_config cfg = { .name = name, .n_queues = n_queues, .mtu = mtu, .numa_node = -1 };
    struct p2p_error err;
    int i = tb->n_ports;

    atomic_store(&tb->port[i].forward_to, -1);
    if (p2p_swport_create(tb->sw, &cfg, &tb->port[i].port, &err)) {
        fprintf(stderr, "# %s\n", err.text);
        abort();
    }
    tb->n_ports++;
    return i;
}

static void start_pmd(struct testbed *tb)
{
    if (!tb->pmd) {
        pthread_create(&tb->pmd, NULL, pmd_main, tb);
    }
}

void testbed_stop(struct testbed *tb)
{
    char path[128];

    atomic_store(&tb->stop, true);
    p2p_switch_wake(tb->sw);
    pthread_join(tb->control, NULL);
    if (tb->pmd) {
        pthread_join(tb->pmd, NULL);
    }
    for (int i = 0; i < tb->n_ports; i++) {
        p2p_swport_destroy(tb->port[i].port);
    }
    p2p_switch_destroy(tb->sw);
    snprintf(path, sizeof path, "%s.lock", tb->socket);
    unlink(path);
    rmdir(tb->dir);
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

bool testbed_wait_state(struct testbed *tb, int port, enum p2p_link_state state)
{
    for (int i = 0; i < 10000; i++) {
        struct p2p_swport_info info;
        p2p_swport_get_info(tb->port[port].port, &info);
        if (info.state == state) {
            return true;
        }
        nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
    }
    return false;
}
