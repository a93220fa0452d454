/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's side against whatever lies in its port region and its link regions.
 *
 * In one half of the inputs only the peer is hostile: it writes what it likes into the link region, its header too,
 * before and after the VNF has mapped it.  Then what comes through the switch must still arrive, all of it, in order,
 * unharmed.  In the other half the switch is hostile too.  In both: packets lie in the regions and have legal
 * lengths, stay readable until they are released, and nothing crashes or hangs.
 */
#include <string.h>
#include "puppet.h"
#include "vnf.h"

#define BURST 32
#define KEPT 128

static struct {
    bool only_peer;
    struct input *in;
    uint64_t next_seq[P2P_MAX_QUEUES], seen[P2P_MAX_QUEUES];  /* By queue of the normal ring to the VNF. */
    uint64_t sent_seq[P2P_MAX_QUEUES];                        /* And from it. */
    struct p2p_pkt kept[P2P_MAX_QUEUES][KEPT];                /* Handed out, not released. */
    unsigned n_kept[P2P_MAX_QUEUES];
} t;

#define NORMAL_MARK UINT64_C(0x6e6f726d616c2121)

struct frame {
    uint8_t eth[16];
    uint64_t mark, seq;
    uint8_t fill[36];
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    puppet_init();
    return 0;
}

/* The switch puts packets of others, or of the peer's normal way, into the VNF's ring. */
static void switch_sends(unsigned queue, unsigned n)
{
    if (!puppet.port.r.base) {
        return;
    }
    struct p2p_prod *p = &puppet.port.tx[queue %= puppet.port.n_tx];
    for (unsigned i = 0; i < n; i++) {
        struct frame f = { .mark = NORMAL_MARK, .seq = t.next_seq[queue] };
        struct p2p_buf buf = { &f, sizeof f, 0 };
        uint64_t bytes = 0;
        memset(f.fill, (int)f.seq, sizeof f.fill);
        t.next_seq[queue] += p2p_prod_burst(p, &buf, 1, &bytes);
    }
}

/* The peer puts packets into the direct ring as the input says. */
static void peer_forges(unsigned k, unsigned queue, struct input *in)
{
    struct puppet_region *l = &puppet.link[k];

    if (l->r.base) {
        struct p2p_prod *p = &l->tx[queue % l->n_tx];
        for (unsigned i = 1 + in_below(in, 4); i; i--) {
            p->desc[p->head & p->mask] = in_desc(in, p->data_size, in8(in) & 1 ? p->max_len : P2P_MTU_MAX);
            p2p_store_release(&p->ctl->head, ++p->head);
        }
    }
}

static void peer_sends(unsigned k, unsigned queue, unsigned n)
{
    static const uint8_t packet[P2P_MTU_MAX + P2P_FRAME_OVERHEAD];
    struct puppet_region *l = &puppet.link[k];

    if (l->r.base) {
        struct p2p_buf bufs[BURST];
        uint64_t bytes = 0;
        for (unsigned i = 0; i < n; i++) {
            bufs[i] = (struct p2p_buf) { packet, P2P_FRAME_MIN + i * 7, 0 };
        }
        (void)p2p_prod_burst(&l->tx[queue % l->n_tx], bufs, n, &bytes);
    }
}

/* What the VNF has sent by the normal ring is all there. */
static void switch_receives(unsigned queue)
{
    if (!puppet.port.r.base) {
        return;
    }
    struct p2p_cons *c = &puppet.port.rx[queue %= puppet.port.n_rx];
    struct p2p_pkt pkts[BURST];
    uint64_t bytes = 0, bad = 0;
    unsigned n = p2p_cons_take(c, p2p_cons_head(c), pkts, BURST, &bytes, &bad);

    for (unsigned i = 0; i < n && t.only_peer; i++) {
        const struct frame *f = pkts[i].data;
        CHECK(pkts[i].len == sizeof *f && f->seq >= t.sent_seq[queue] && f->fill[35] == (uint8_t)f->seq);
        t.sent_seq[queue] = f->seq + 1; /* Those between went to the peer. */
    }
    CHECK(!t.only_peer || !bad);
    p2p_cons_release(c);
}

static void vnf_sends(unsigned queue, unsigned n)
{
    static uint64_t seq[P2P_MAX_QUEUES];
    unsigned q = queue % P2P_MAX_QUEUES;

    if (!t.sent_seq[q]) {
        seq[q] = 1;
        t.sent_seq[q] = 1;
    }
    for (unsigned i = 0; i < n; i++) {
        struct frame f = { .seq = seq[q] };
        struct p2p_buf buf = { &f, sizeof f, 0 };
        memset(f.fill, (int)f.seq, sizeof f.fill);
        seq[q] += p2p_tx_burst(puppet.vnf_port, queue, &buf, 1);
    }
}

static bool inside(const struct p2p_pkt *p, const struct p2p_region *r)
{
    const uint8_t *at = p->data;
    return r->base && at >= r->base + P2P_PAGE && at + p->len <= r->base + r->size;
}

/* Reads all that the application holds: must be possible, whatever has become of the region. */
static void look_at_kept(unsigned q)
{
    for (unsigned i = 0; i < t.n_kept[q]; i++) {
        const volatile uint8_t *at = t.kept[q][i].data;
        (void)at[0];
        (void)at[t.kept[q][i].len - 1];
    }
}

static void vnf_receives(unsigned queue, unsigned budget)
{
    struct p2p_pkt pkts[BURST];
    unsigned q = queue % P2P_MAX_QUEUES;
    unsigned n = p2p_rx_burst(puppet.vnf_port, queue, pkts, budget);
    const struct vnf_map *map = puppet.vnf_port->map;

    CHECK(n <= budget && (!n || (map && queue < map->n_rxq)));
    for (unsigned i = 0; i < n; i++) {
        bool normal = inside(&pkts[i], &map->region);
        bool direct = map->rx_chan && inside(&pkts[i], &map->rx_chan->region);
        CHECK(normal || direct);
        CHECK(pkts[i].len >= P2P_FRAME_MIN && pkts[i].len <= puppet.mtu + P2P_FRAME_OVERHEAD);
        if (normal && t.only_peer) {
            const struct frame *f = pkts[i].data;
            CHECK(pkts[i].len == sizeof *f && f->mark == NORMAL_MARK && f->seq == t.seen[q]++
                  && f->fill[35] == (uint8_t)f->seq);
        }
        if (t.n_kept[q] < KEPT) {
            t.kept[q][t.n_kept[q]++] = pkts[i];
        }
    }
}

static void vnf_releases(unsigned queue)
{
    unsigned q = queue % P2P_MAX_QUEUES;

    look_at_kept(q);
    p2p_rx_release(puppet.vnf_port, queue);
    t.n_kept[q] = 0;
}

/* All that the switch has sent comes out, in a bounded number of bursts. */
static void drain(void)
{
    for (unsigned q = 0; q < puppet.n_queues; q++) {
        for (unsigned i = 0; i < 4 * 1024 && t.seen[q] != t.next_seq[q]; i++) {
            vnf_receives(q, BURST);
            vnf_releases(q);
        }
        CHECK(t.seen[q] == t.next_seq[q]);
    }
}

static uint64_t *ring_word(struct puppet_region *p, unsigned ring, struct input *in)
{
    const struct p2p_ring_geometry *g = &p->r.hdr.ring[ring];
    struct p2p_ring_ctl *ctl = p2p_region_at(&p->r, g->ctl_off);

    switch (in8(in) % 4) {
    case 0:
        return (uint64_t *)&ctl->head;
    case 1:
        return (uint64_t *)&ctl->tail;
    case 2:
        return &ctl->start;
    default:
        return (uint64_t *)((struct p2p_desc *)p2p_region_at(&p->r, g->desc_off)
                            + (p2p_load(&ctl->head) - in8(in) % 16) % g->n_desc) + in8(in) % 2;
    }
}

/* A word that somebody hostile may write; NULL: none. */
static uint64_t *hostile_word(struct input *in)
{
    uint8_t where = in8(in);
    struct puppet_region *p = t.only_peer || where & 0x80 ? &puppet.link[where & 1] : &puppet.port;

    if (!p->r.base) {
        return NULL;
    }
    if (where & 0x40) {
        return in_header(in, p->r.base);
    }
    if (p == &puppet.port && where & 0x20) {
        return (uint64_t *)puppet.sw + in8(in) % (sizeof *puppet.sw / 8);
    }
    if (p == &puppet.port && where & 0x10) {
        return (uint64_t *)puppet.vnf + in16(in) % (sizeof *puppet.vnf / 8);
    }
    if (where & 0x08) {
        return (uint64_t *)p->r.base + in32(in) % (p->r.size / 8);
    }
    return ring_word(p, in8(in) % (p->n_tx + p->n_rx), in);
}

static void scribbled(struct input *in)
{
    struct scribble s[SCRIBBLES_MAX];
    unsigned n = 0;

    for (unsigned i = 1 + in_below(in, 4); i; i--) {
        uint64_t *word = hostile_word(in);
        if (word) {
            s[n].at = word;
            s[n++].value = in_word(in, *word);
        }
    }
    scribble_begin(s, n);
    for (unsigned i = 1 + in_below(in, 6); i; i--) {
        vnf_receives(in8(in) % 4, 1 + in_below(in, BURST));
        vnf_sends(in8(in) % 4, in_below(in, 8));
        vnf_releases(in8(in) % 4);
        if (in8(in) & 1) {
            puppet_control(1 + in_below(in, 3));
        }
    }
    scribble_end();
}

/* The peer has mapped the link first, and got at its header. */
static void peer_forges_header(unsigned k, struct input *in)
{
    struct p2p_region_header *h = (void *)puppet.link[k].r.base;
    struct p2p_ring_geometry *g = &h->ring[in8(in) % 4];
    uint64_t *word;

    switch (in8(in) % 8) {
    case 0: h->mtu = in16(in) % (P2P_MTU_MAX + 2); break;
    case 1: h->n_queues[in8(in) & 1] = in8(in) % (P2P_MAX_QUEUES + 2); break;
    case 2: g->data_size = in32(in); break;
    case 3: g->n_desc = 1u << in8(in) % 32; break;
    case 4: g->data_off = (h->size - g->data_size) / P2P_CACHE_LINE * P2P_CACHE_LINE + in8(in); break;
    case 5: g->desc_off = in32(in) / P2P_CACHE_LINE * P2P_CACHE_LINE; break;
    default:
        word = in_header(in, h);
        *word = in_word(in, *word);
        break;
    }
}

/* A link with all that belongs to it, as a good switch makes it. */
static void make_link(unsigned k, struct input *in)
{
    puppet_make_link(k);
    puppet_send(P2P_MSG_REGION, 0, &puppet.link[k], puppet.link[k].r.fd);
    if (in8(in) % 4 == 0) {
        peer_forges_header(k, in);
    }
    puppet_want(k, k, P2P_WANT_MAP);
    puppet_control(3);
}

static void step(struct input *in)
{
    uint8_t op = in8(in);
    unsigned k = op >> 7, q = in8(in) % 4;

    switch (op % 20) {
    case 0: case 1: case 2: case 3: {
        uint64_t *word = hostile_word(in);
        if (word) {
            p2p_store(word, in_word(in, *word));
        }
        break;
    }
    case 4:
        vnf_receives(q, 1 + in_below(in, BURST));
        break;
    case 5:
        vnf_releases(q);
        break;
    case 6:
        vnf_sends(q, in_below(in, 16));
        break;
    case 7:
        switch_sends(q, in_below(in, 16));
        break;
    case 8:
        if (in8(in) & 1) {
            peer_sends(k, q, in_below(in, BURST));
        } else {
            peer_forges(k, q, in);
            vnf_receives(q, BURST);
        }
        break;
    case 9:
        switch_receives(q);
        break;
    case 10:
        make_link(k, in);
        break;
    case 11:
        puppet_want(in8(in) % P2P_MAX_LINKS, k, (enum p2p_want)(in8(in) % 3));
        break;
    case 12:
        puppet_mode(k, in8(in) % 4);
        break;
    case 13:
        puppet_rx(k, (enum p2p_rx_state)(in8(in) % 4));
        break;
    case 14:
        puppet_start_epoch(k, q, in8(in) % 4);
        puppet_open_gates(k);
        break;
    case 15:
    case 16:
        puppet_control(1 + in_below(in, 4));
        break;
    case 17:
        if (in8(in) % 4 == 0) {
            scribbled(in);
        }
        break;
    case 18: {
        struct p2p_port_info info;
        struct p2p_port_stats stats;
        p2p_port_get_info(puppet.vnf_port, &info);
        p2p_port_get_stats(puppet.vnf_port, &stats);
        CHECK(strnlen(info.name, sizeof info.name) < sizeof info.name);
        for (unsigned i = 0; i < P2P_MAX_QUEUES; i++) {
            look_at_kept(i);
        }
        break;
    }
    case 19: /* Both ways, a whole link at once. */
        make_link(k, in);
        puppet_rx(k, P2P_RX_ACTIVE);
        puppet_mode(k, true);
        puppet_control(2);
        puppet_start_epoch(k, q, 1);
        puppet_open_gates(k);
        vnf_sends(q, 2);
        peer_sends(k, q, 2);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    static const unsigned mtus[] = { 1500, 300, 68, 9000 };
    uint8_t shape = in8(&in);
    int fds = fuzz_count_fds();

    memset(&t, 0, sizeof t);
    t.only_peer = shape & 0x80;
    t.in = &in;
    puppet_begin(1 + shape % 3, 1 + (shape >> 2) % 4, mtus[shape >> 4 & 3]);
    CHECK(!puppet_open());
    for (int i = 0; i < 200 && in.left; i++) {
        step(&in);
    }
    if (t.only_peer) {
        drain();
    }
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        look_at_kept(q);
    }
    puppet_close();
    puppet_end();
    CHECK(fuzz_wait_fds(fds));
    return 0;
}
