/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A switch in this process, for hostile VNFs in others; built with ASan and UBSan, each region between pages that
 * nobody may touch (tests/fuzz/hooks.h).
 *
 *   plant --socket PATH --seconds N [--seed N]
 *
 * Ports: bad0 is linked with peer, a VNF of this process that behaves; bad1 and bad2 are linked with each other; good0
 * and good1 are an honest pair of this process, checked packet by packet all the while (tests/fuzz/honest.c).  Two
 * threads: the switch's control thread, and this one, which is the data path of the switch and of all VNFs here.
 * Links come and go.  Prints "ready" when bad0..2 can be attached to, and at the end a line of JSON with what it has
 * seen; anything that must not be ends it with a report.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <p2plink/switch.h>
#include <p2plink/vnf.h>
#include "fuzz.h"
#include "honest.h"
#include "sw.h"

enum { BAD0, BAD1, BAD2, PEER, N_PORTS };
static const char *const names[N_PORTS] = { "bad0", "bad1", "bad2", "peer" };
static const int linked_with[N_PORTS] = { PEER, BAD2, BAD1, BAD0 };

#define BURST 32
#define FRAME_MAX (1500 + P2P_FRAME_OVERHEAD)
#define NS_PER_PACKET 2 /* As sw_stats.c has it. */

static struct p2p_switch *sw;
static struct p2p_swport *port[N_PORTS];
static struct p2p_port *peer;
static atomic_bool stop, linked[N_PORTS];
static uint64_t seed = 1, begin_ns;
static _Atomic uint64_t lines; /* That would have been logged, warnings and errors. */
static struct {
    uint64_t polled, peer_received, rounds, honest, links, stats;
} done;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void on_log(void *aux, enum p2p_log_level level, const char *message)
{
    if (level <= P2P_LOG_WARN) {
        atomic_fetch_add(&lines, 1);
    }
    fuzz_log(aux, level, message);
}

static void *control_main(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        p2p_switch_run(sw, 10);
        for (int i = 0; i < N_PORTS; i++) {
            struct p2p_swport *to;
            uint64_t ticket;
            if (p2p_swport_wants_confirm(port[i], &to, &ticket)) {
                (void)p2p_swport_confirm(port[i], ticket, true, NULL);
            }
            if (p2p_swport_held(port[i], &ticket)) {
                p2p_swport_unhold(port[i], ticket);
            }
        }
    }
    return NULL;
}

/* One poll of a port, as a PMD does it. */
static void forward(int i)
{
    static uint8_t copy[BURST][FRAME_MAX];
    struct p2p_pkt pkts[BURST];
    struct p2p_buf bufs[BURST];
    unsigned n = p2p_swport_rx_begin(port[i], 0, pkts, BURST, true);

    CHECK(n <= BURST);
    for (unsigned k = 0; k < n; k++) {
        CHECK(pkts[k].len >= P2P_FRAME_MIN && pkts[k].len <= FRAME_MAX);
        memcpy(copy[k], pkts[k].data, pkts[k].len); /* Outside of the region there is nothing that could be read. */
        bufs[k] = (struct p2p_buf) { copy[k], pkts[k].len, pkts[k].hash };
    }
    p2p_swport_rx_end(port[i], 0);
    CHECK(p2p_swport_tx_burst(port[linked_with[i]], 0, bufs, n) <= n);
    done.polled += n;
}

static void run_peer(void)
{
    static uint8_t packet[FRAME_MAX], sum;
    static unsigned kept;
    struct p2p_buf bufs[BURST];
    struct p2p_pkt pkts[BURST];
    unsigned n = rnd() % 8;

    for (unsigned k = 0; k < n; k++) {
        bufs[k] = (struct p2p_buf) { packet, 60 + (uint32_t)(rnd() % 1400), 0 };
    }
    (void)p2p_tx_burst(peer, 0, bufs, n);
    n = p2p_rx_burst(peer, 0, pkts, BURST);
    CHECK(n <= BURST);
    for (unsigned k = 0; k < n; k++) {
        const volatile uint8_t *at = pkts[k].data;
        CHECK(pkts[k].len >= P2P_FRAME_MIN && pkts[k].len <= FRAME_MAX);
        for (uint32_t j = 0; j < pkts[k].len; j++) {
            sum += at[j];
        }
    }
    done.peer_received += n;
    if (++kept % 4 == 0) {
        p2p_rx_release(peer, 0);
    }
}

/* What is believed of a VNF never goes backwards, and is no more than rings could have carried in the time. */
static void check_stats(int i)
{
    static struct p2p_swport_stats last[N_PORTS];
    struct p2p_swport_stats s;

    p2p_swport_get_stats(port[i], &s);
    done.stats++;
    CHECK(s.out_packets >= last[i].out_packets && s.out_bytes >= last[i].out_bytes);
    CHECK(s.in_packets >= last[i].in_packets && s.in_bytes >= last[i].in_bytes);
    CHECK(s.in_dropped >= last[i].in_dropped && s.in_dropped <= s.in_packets);
    uint64_t most = (fuzz_now_ns() - begin_ns) / NS_PER_PACKET + 1024 * (done.stats + 1000);
    CHECK(s.out_packets <= most && s.in_packets <= most);
    CHECK(s.out_bytes / FRAME_MAX <= s.out_packets + 1024 * (done.stats + 1000));
    last[i] = s;
}

static void flip(int i)
{
    bool on = rnd() % 4 != 0;

    if (on != atomic_load(&linked[i])) {
        atomic_store(&linked[i], on);
        p2p_swport_set_target(port[i], on ? port[linked_with[i]] : NULL, "test");
        done.links += on;
    }
}

static void *open_peer(void *arg)
{
    struct p2p_port_config cfg = {
        .name = "peer", .attach = P2P_ATTACH_SOCKET, .socket = sw->socket_path, .wait_ms = 5000, .log = fuzz_log,
    };
    struct p2p_error err;

    (void)arg;
    CHECK(!p2p_port_open(&cfg, &peer, &err));
    return NULL;
}

static void set_up(const char *path)
{
    struct p2p_switch_config cfg;
    struct p2p_error err;
    pthread_t thread;

    p2p_switch_config_init(&cfg);
    cfg.socket = path;
    cfg.use_hugepages = false;
    cfg.log = on_log;
    CHECK(!p2p_switch_create(&cfg, &sw, &err));
    honest_start(sw);
    for (int i = 0; i < N_PORTS; i++) {
        struct p2p_swport_config pc = { .name = names[i], .n_queues = 1, .mtu = 1500, .numa_node = -1 };
        CHECK(!p2p_swport_create(sw, &pc, &port[i], &err));
    }
    CHECK(!pthread_create(&thread, NULL, open_peer, NULL));
    while (pthread_tryjoin_np(thread, NULL)) {
        p2p_switch_run(sw, 1);
    }
    /* Hostile ones may wait for nothing for shorter, so that more happens. */
    sw->cfg.linger_ms = 100;
    sw->cfg.answer_ms = 100;
    sw->cfg.drain_ms = 50;
    sw->cfg.plug_ms = 200;
    sw->cfg.retry_ms = 20;
    begin_ns = fuzz_now_ns();
}

static void on_signal(int sig)
{
    (void)sig;
    atomic_store(&stop, true);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "socket", required_argument, NULL, 's' }, { "seconds", required_argument, NULL, 't' },
        { "seed", required_argument, NULL, 'r' }, { NULL, 0, NULL, 0 },
    };
    const char *path = NULL;
    uint64_t seconds = 10;
    pthread_t control;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's': path = optarg; break;
        case 't': seconds = strtoull(optarg, NULL, 0); break;
        case 'r': seed = strtoull(optarg, NULL, 0) * 2 + 1; break;
        default: return 2;
        }
    }
    if (!path) {
        fprintf(stderr, "plant --socket PATH --seconds N [--seed N]\n");
        return 2;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    set_up(path);
    CHECK(!pthread_create(&control, NULL, control_main, NULL));
    printf("ready\n");
    fflush(stdout);

    uint64_t end = fuzz_now_ns() + seconds * 1000000000u, next_check = 0;
    while (!atomic_load(&stop) && fuzz_now_ns() < end) {
        for (int i = 0; i < N_PORTS; i++) {
            forward(i);
        }
        run_peer();
        done.rounds++;
        if (fuzz_now_ns() >= next_check) {
            int i = (int)(rnd() % N_PORTS);
            next_check = fuzz_now_ns() + 2000000;
            honest_check();
            done.honest++;
            check_stats(i);
            if (rnd() % 16 == 0) {
                flip(i);
            }
            struct p2p_swport_info info;
            p2p_swport_get_info(port[i], &info);
        } else if (done.rounds % 64 == 0) {
            nanosleep(&(struct timespec) { .tv_nsec = 100000 }, NULL); /* There are not processors enough for all. */
        }
    }
    atomic_store(&stop, true);
    p2p_switch_wake(sw);
    pthread_join(control, NULL);
    p2p_port_close(peer);
    for (int i = 0; i < N_PORTS; i++) {
        p2p_swport_destroy(port[i]);
    }
    honest_check();
    printf("{\"polled\":%llu,\"peer_received\":%llu,\"rounds\":%llu,\"honest_checks\":%llu,\"links\":%llu,"
           "\"warnings\":%llu}\n", (unsigned long long)done.polled, (unsigned long long)done.peer_received,
           (unsigned long long)done.rounds, (unsigned long long)done.honest, (unsigned long long)done.links,
           (unsigned long long)atomic_load(&lines));
    return 0;
}
