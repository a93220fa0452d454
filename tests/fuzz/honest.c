/* SPDX-License-Identifier: Apache-2.0 */
#include "honest.h"
#include <string.h>
#include <time.h>
#include <p2plink/vnf.h>
#include "fuzz.h"
#include "sw.h"

static struct p2p_swport *port[2];
static struct p2p_port *vnf[2];
static uint64_t next_seq[2], seen[2], direct;

struct frame {
    uint8_t eth[14];
    uint8_t pad[2];
    uint64_t seq;
    uint8_t fill[48];
};

static void *open_vnfs(void *sw_)
{
    struct p2p_switch *sw = sw_;
    struct p2p_error err;

    for (int i = 0; i < 2; i++) {
        struct p2p_port_config cfg = {
            .name = i ? "good1" : "good0", .attach = P2P_ATTACH_SOCKET, .socket = sw->socket_path, .wait_ms = 5000,
            .log = fuzz_log,
        };
        CHECK(!p2p_port_open(&cfg, &vnf[i], &err));
    }
    return NULL;
}

void honest_start(struct p2p_switch *sw)
{
    struct p2p_error err;
    pthread_t thread;

    for (int i = 0; i < 2; i++) {
        struct p2p_swport_config cfg = { .name = i ? "good1" : "good0", .n_queues = 1, .mtu = 1500, .numa_node = -1 };
        CHECK(!p2p_swport_create(sw, &cfg, &port[i], &err));
    }
    CHECK(!pthread_create(&thread, NULL, open_vnfs, sw));
    while (pthread_tryjoin_np(thread, NULL)) {
        p2p_switch_run(sw, 1);
    }
    p2p_swport_set_target(port[0], port[1], NULL);
    for (int i = 0; i < 10000 && port[0]->state != P2P_LINK_DIRECT; i++) {
        struct p2p_swport *to;
        uint64_t ticket;
        p2p_switch_run(sw, 1);
        if (p2p_swport_wants_confirm(port[0], &to, &ticket)) {
            CHECK(p2p_swport_confirm(port[0], ticket, true, NULL));
        }
    }
    honest_check();
}

/* The switch's data path from 'from' to the other. */
static void forward(int from)
{
    struct p2p_pkt pkts[32];
    struct p2p_buf bufs[32];
    struct frame copy[32];
    unsigned n = p2p_swport_rx_begin(port[from], 0, pkts, 32, true);

    for (unsigned i = 0; i < n; i++) {
        CHECK(pkts[i].len == sizeof copy[i]);
        memcpy(&copy[i], pkts[i].data, sizeof copy[i]);
        bufs[i] = (struct p2p_buf) { &copy[i], sizeof copy[i], 0 };
    }
    p2p_swport_rx_end(port[from], 0);
    CHECK(p2p_swport_tx_burst(port[!from], 0, bufs, n) == n);
}

static void send(int from, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct frame f = { .seq = next_seq[from]++ };
        memset(f.fill, (int)(f.seq * 7), sizeof f.fill);
        struct p2p_buf buf = { &f, sizeof f, 0 };
        CHECK(p2p_tx_burst(vnf[from], 0, &buf, 1) == 1);
    }
}

static void receive(int at)
{
    struct p2p_pkt pkts[32];
    unsigned n = p2p_rx_burst(vnf[at], 0, pkts, 32);

    for (unsigned i = 0; i < n; i++) {
        const struct frame *f = pkts[i].data;
        CHECK(pkts[i].len == sizeof *f && f->seq == seen[!at]);
        CHECK(f->fill[0] == (uint8_t)(f->seq * 7) && f->fill[47] == f->fill[0]);
        seen[!at]++;
    }
    p2p_rx_release(vnf[at], 0);
}

void honest_check(void)
{
    struct p2p_swport_stats out, in;

    CHECK(port[0]->state == P2P_LINK_DIRECT && port[1]->state == P2P_LINK_NORMAL);
    send(0, 3);
    send(1, 2);
    for (int i = 0; i < 3; i++) { /* The first may be of a new epoch: the gate opens when the switch has looked. */
        forward(0);
        forward(1);
        receive(0);
        receive(1);
    }
    direct += 3;
    CHECK(seen[0] == next_seq[0] && seen[1] == next_seq[1]);
    p2p_swport_get_stats(port[0], &out);
    p2p_swport_get_stats(port[1], &in);
    CHECK(out.out_packets == direct && out.out_bytes == direct * sizeof(struct frame));
    CHECK(in.in_packets == direct && in.in_bytes == out.out_bytes);
    CHECK(!out.rx_bad && !in.rx_bad && !in.in_dropped && !out.tx_refused && !in.out_packets && !out.in_packets);
    CHECK(port[0]->last_error[0] == '\0' && port[1]->last_error[0] == '\0');
}
