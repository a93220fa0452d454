/* SPDX-License-Identifier: Apache-2.0 */
#include "fixture.h"
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture fx;
static uint32_t last_id;

int fixture_setup(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof fx);
    testbed_init(&fx.tb);
    fx.tb.cfg.answer_ms = 300;
    fx.tb.cfg.plug_ms = 1000;
    fx.tb.cfg.drain_ms = 200;
    fx.tb.cfg.linger_ms = 50;
    fx.tb.cfg.retry_ms = 20;
    return 0;
}

int fixture_teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N_PEERS; i++) {
        if (fx.peer[i].running) {
            peer_stop(&fx.peer[i]);
        }
        p2p_port_close(fx.vnf[i]);
        if (fx.child[i]) {
            child_kill(fx.child[i]);
        }
    }
    if (fx.started) {
        testbed_stop(&fx.tb);
    }
    return 0;
}

void fixture_start(unsigned n_ports)
{
    testbed_start(&fx.tb);
    fx.started = true;
    for (unsigned i = 0; i < n_ports; i++) {
        testbed_add_port(&fx.tb, (char[]) { (char)('a' + i), 0 }, 1, 1500);
    }
    if (n_ports >= 2) {
        testbed_forward(&fx.tb, 0, 1);
        testbed_forward(&fx.tb, 1, 0);
    }
}

/*
 * VNFs in this process.
 */

static void quiet(void *aux, enum p2p_log_level level, const char *message)
{
    (void)aux;
    if (getenv("TESTBED_LOG") && level <= (enum p2p_log_level)atoi(getenv("TESTBED_LOG"))) {
        fprintf(stderr, "# vnf: %s\n", message);
    }
}

int vnf_try(const char *name, unsigned wait_ms, struct p2p_port **portp, struct p2p_error *err)
{
    struct p2p_port_config cfg = {
        .name = name, .attach = P2P_ATTACH_SOCKET, .socket = fx.tb.socket, .wait_ms = wait_ms, .log = quiet,
    };
    return p2p_port_open(&cfg, portp, err);
}

static struct p2p_port *open_port(const char *name)
{
    struct p2p_port *port;
    struct p2p_error err;

    if (vnf_try(name, 5000, &port, &err)) {
        fail_msg("%s: %s", name, err.text);
    }
    return port;
}

struct p2p_port *vnf_open(const char *name)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        if (!fx.vnf[i]) {
            return fx.vnf[i] = open_port(name);
        }
    }
    fail_msg("too many VNFs");
    return NULL;
}

void vnf_close(struct p2p_port *port)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        if (fx.vnf[i] == port) {
            fx.vnf[i] = NULL;
        }
    }
    p2p_port_close(port);
}

static void write_frame(struct child_frame *f, uint32_t id, unsigned queue, uint64_t seq)
{
    memset(f, 0, sizeof *f);
    f->queue = (uint16_t)queue;
    f->pid = id;
    f->seq = seq;
}

bool vnf_send(struct p2p_port *port, uint64_t seq)
{
    struct child_frame f;

    write_frame(&f, 1, 0, seq);
    return p2p_tx_burst(port, 0, &(struct p2p_buf) { &f, sizeof f, 0 }, 1) == 1;
}

uint64_t vnf_expect(struct p2p_port *port)
{
    struct p2p_pkt pkt;
    uint64_t until = testbed_now_ms() + 5000;

    while (!p2p_rx_burst(port, 0, &pkt, 1)) {
        if (testbed_now_ms() >= until) {
            fail_msg("no frame has come");
        }
        sched_yield();
    }
    assert_int_equal(pkt.len, sizeof(struct child_frame));
    return ((const struct child_frame *)pkt.data)->seq;
}

static void check_frame(struct peer *p, const struct p2p_pkt *pkt)
{
    struct child_frame f;

    if (pkt->len != sizeof f) {
        atomic_fetch_add(&p->odd, 1);
        return;
    }
    memcpy(&f, pkt->data, sizeof f);
    if (f.queue >= P2P_MAX_QUEUES || !f.pid) {
        atomic_fetch_add(&p->odd, 1);
        return;
    }
    if (p->from[f.queue].id != f.pid) {
        p->from[f.queue].id = f.pid; /* Another life of the sender. */
        p->from[f.queue].next = 0;
    }
    if (f.seq < p->from[f.queue].next) {
        atomic_fetch_add(&p->backward, 1);
    } else {
        atomic_fetch_add(&p->missing, f.seq - p->from[f.queue].next);
    }
    p->from[f.queue].next = f.seq + 1;
}

static void *peer_main(void *p_)
{
    struct peer *p = p_;
    uint64_t seq[P2P_MAX_QUEUES] = { 0 };
    struct child_frame f[8];
    struct p2p_buf bufs[8];
    struct p2p_pkt pkts[32];

    while (!atomic_load(&p->stop)) {
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            if (!atomic_load(&p->mute)) {
                for (unsigned i = 0; i < 8; i++) {
                    write_frame(&f[i], p->id, q, seq[q] + i);
                    bufs[i] = (struct p2p_buf) { &f[i], sizeof f[i], 0 };
                }
                unsigned n = p2p_tx_burst(p->port, q, bufs, 8);
                seq[q] += n;
                atomic_fetch_add(&p->sent, n);
            }
            if (!atomic_load(&p->deaf)) {
                unsigned n = p2p_rx_burst(p->port, q, pkts, 32);
                for (unsigned i = 0; i < n; i++) {
                    check_frame(p, &pkts[i]);
                }
                atomic_fetch_add(&p->got, n);
                if (!atomic_load(&p->hoard)) {
                    p2p_rx_release(p->port, q);
                }
            }
        }
        sched_yield();
    }
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        p2p_rx_release(p->port, q);
    }
    return NULL;
}

struct peer *peer_start(const char *name, bool mute)
{
    struct peer *p = fx.peer;

    while (p->running) {
        p++;
    }
    assert_true(p < fx.peer + N_PEERS);
    memset(p, 0, sizeof *p);
    p->id = ++last_id;
    atomic_store(&p->mute, mute);
    p->port = open_port(name);
    p->running = true;
    pthread_create(&p->thread, NULL, peer_main, p);
    return p;
}

void peer_stop(struct peer *p)
{
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    p2p_port_close(p->port);
    p->running = false;
}

void peer_wait_got(struct peer *p, uint64_t more)
{
    uint64_t until = atomic_load(&p->got) + more;
    wait_for(atomic_load(&p->got) >= until);
}

void peer_wait_sent(struct peer *p, uint64_t more)
{
    uint64_t until = atomic_load(&p->sent) + more;
    wait_for(atomic_load(&p->sent) >= until);
}

/*
 * VNFs in other processes.
 */

pid_t child_add(const char *port)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        if (!fx.child[i]) {
            return fx.child[i] = child_vnf(fx.tb.socket, port);
        }
    }
    fail_msg("too many children");
    return 0;
}

void child_remove(pid_t pid)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        if (fx.child[i] == pid) {
            fx.child[i] = 0;
        }
    }
    child_kill(pid);
}

/*
 * The switch.
 */

void target(int from, int to)
{
    p2p_swport_set_target(fx.tb.port[from].port, to < 0 ? NULL : fx.tb.port[to].port, "test");
}

void link_up(int from, int to)
{
    target(from, to);
    assert_true(testbed_wait_state(&fx.tb, from, P2P_LINK_DIRECT));
}

struct p2p_swport_info info_of(int port)
{
    struct p2p_swport_info info;
    p2p_swport_get_info(fx.tb.port[port].port, &info);
    return info;
}

struct p2p_swport_stats stats_of(int port)
{
    struct p2p_swport_stats stats;
    p2p_swport_get_stats(fx.tb.port[port].port, &stats);
    return stats;
}

unsigned open_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 4096; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

unsigned mapped_regions(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned n = 0;

    while (f && fgets(line, sizeof line, f)) {
        n += strstr(line, "memfd:p2plink") != NULL;
    }
    if (f) {
        fclose(f);
    }
    return n;
}
