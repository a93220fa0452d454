/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VNF that attaches to a port as it should, and then does its worst.
 *
 *   hostile --port NAME [--socket PATH | --attach pci] [--seconds N] [--seed N] [--holes] [--flood] [--pause US]
 *   hostile --port NAME --socket PATH --tear port|link
 *
 * By turns, each for a random fraction of a second, it behaves well (sends, receives, gives back), or writes random
 * values over its own port region and the link regions that it has been given: indices, descriptors, epochs and cuts,
 * gates, modes, acknowledgements, sessions, counters, headers, or just anything anywhere; or it hangs up and comes
 * anew.  It keeps what it has mapped when a link is over, and goes on writing there.  Of some regions it only keeps the
 * descriptors, to see at the end how much memory that has left it with.  With --holes it also takes memory out of the
 * regions, with --flood it sends nonsense to the switch's socket.  With --tear it behaves well until SIGUSR1, then
 * takes all memory out of its port region, or its newest link region, and does nothing more: who is next to touch it
 * will have to find some.
 *
 * It uses the library for what a good VNF does, and its private headers for the rest.  Runs on the host, and with
 * "--attach pci" in a guest.  Ends after N seconds, or at SIGTERM; prints what it has done as one line of JSON.
 * --pause is how long it rests after each few thousand writes: it is the damage that counts, not the heat.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <p2plink/control.h>
#include "rcu.h"
#include "sigbus.h"
#include "sock.h"
#include "vnf.h"

#define VIEWS 16    /* Regions that it keeps mapped. */
#define HOARD 16384 /* Descriptors that it keeps. */
#define N_KNOWN 64

struct view {
    uint8_t *base;
    size_t size;
    int watch; /* A device may be pulled out under it. */
    struct p2p_region_header hdr;
};

static struct p2p_port *port;
static struct view view[VIEWS];     /* The newest port region and link regions among them. */
static unsigned next_view;
static int current_port = -1;       /* Index of the present port region's view. */
static uint64_t seed = 1;
static bool holes, flood, in_guest;
static const char *tear;
static unsigned pause_us = 200;
static const char *socket_path;
static uint64_t known_generation[N_KNOWN];
static unsigned n_known;
static int hoard[HOARD];
static unsigned hoarded;
static volatile sig_atomic_t stop, told_to_tear;
static struct {
    uint64_t writes, turns, packets, received, attaches, links, messages, holes;
} done;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void rest(void)
{
    struct timespec ts = { .tv_nsec = (long)pause_us * 1000 };
    nanosleep(&ts, NULL);
}

/*
 * What it has mapped.  Mappings of its own, so that it may keep them for as long as it likes.
 */

static bool known(uint64_t generation)
{
    for (unsigned i = 0; i < N_KNOWN; i++) {
        if (known_generation[i] == generation) {
            return true;
        }
    }
    return false;
}

static void add_view(int fd, const struct p2p_region_header *h)
{
    next_view = (next_view + ((int)next_view == current_port)) % VIEWS;
    struct view *v = &view[next_view];
    void *base = mmap(NULL, h->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (base == MAP_FAILED) {
        return;
    }
    if (v->base) { /* The oldest. */
        p2p_sigbus_forget(v->watch);
        munmap(v->base, v->size);
    }
    *v = (struct view) { .base = base, .size = h->size, .watch = p2p_sigbus_watch(base, h->size), .hdr = *h };
    if (!h->link_id) {
        current_port = (int)next_view;
    }
    next_view = (next_view + 1) % VIEWS;
}

/* Takes in regions that the library has been given since. */
static void look_around(void)
{
    int fd[1 + P2P_MAX_LINKS];
    struct p2p_region_header h[1 + P2P_MAX_LINKS];
    unsigned n = 0;

    p2p_rcu_lock();
    const struct vnf_map *map = p2p_rcu_get(port->map);
    if (map) {
        const struct p2p_region *regions[1 + P2P_MAX_LINKS] = { &map->region };
        const struct vnf_chan *tx = p2p_rcu_get(map->tx_chan), *rx = p2p_rcu_get(map->rx_chan);
        regions[1] = tx ? &tx->region : NULL;
        regions[2] = rx ? &rx->region : NULL;
        for (unsigned i = 0; i < 3; i++) {
            if (regions[i] && !known(regions[i]->hdr.generation)) {
                h[n] = regions[i]->hdr;
                fd[n++] = dup(regions[i]->fd);
            }
        }
    }
    p2p_rcu_unlock();
    for (unsigned i = 0; i < n; i++) {
        if (fd[i] >= 0 && !known(h[i].generation)) {
            known_generation[n_known++ % N_KNOWN] = h[i].generation;
            done.attaches += !h[i].link_id;
            done.links += h[i].link_id != 0;
            if (!tear && (h[i].link_id ? rnd() % 2 : rnd() % 4 == 0) && hoarded < HOARD) {
                hoard[hoarded++] = fd[i];
                continue;
            }
            add_view(fd[i], &h[i]);
        }
        close(fd[i]);
    }
}

/* Of the regions that it only keeps. */
static uint64_t kept_kb(void)
{
    uint64_t sum = 0;
    struct stat st;

    for (unsigned i = 0; i < hoarded; i++) {
        sum += fstat(hoard[i], &st) ? 0 : (uint64_t)st.st_blocks / 2;
    }
    return sum;
}

static struct view *any_view(void)
{
    struct view *v = rnd() % 2 && current_port >= 0 ? &view[current_port] : &view[rnd() % VIEWS];
    return v->base ? v : NULL;
}

/*
 * What it writes.
 */

static uint64_t value(uint64_t old)
{
    switch (rnd() % 10) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return rnd();
    case 3: return old + rnd() % 64;
    case 4: return old - rnd() % 64;
    case 5: return old ^ UINT64_C(1) << rnd() % 64;
    case 6: return (rnd() & 0xffff) << 32 | (uint32_t)old;
    case 7: return (old & ~(uint64_t)UINT32_MAX) | (uint32_t)rnd();
    case 8: return old + (UINT64_C(1) << rnd() % 64);
    default: return rnd() % 4096;
    }
}

static void put(void *at)
{
    uint64_t *word = at;
    p2p_store(word, value(p2p_load(word)));
    done.writes++;
}

static struct p2p_ring_ctl *any_ring(struct view *v, const struct p2p_ring_geometry **gp)
{
    *gp = &v->hdr.ring[rnd() % (v->hdr.n_queues[0] + v->hdr.n_queues[1])];
    return (struct p2p_ring_ctl *)(v->base + (*gp)->ctl_off);
}

static void indices(struct view *v)
{
    const struct p2p_ring_geometry *g;
    struct p2p_ring_ctl *ctl = any_ring(v, &g);

    switch (rnd() % 3) {
    case 0: put(&ctl->head); break;
    case 1: put(&ctl->tail); break; /* And 'freed'. */
    default: put(&ctl->start); break;
    }
}

/* Descriptors that say anything, and a head that says that they are there. */
static void descriptors(struct view *v)
{
    const struct p2p_ring_geometry *g;
    struct p2p_ring_ctl *ctl = any_ring(v, &g);
    struct p2p_desc *desc = (struct p2p_desc *)(v->base + g->desc_off);
    uint32_t head = p2p_load(&ctl->head), n = (uint32_t)(rnd() % 32);

    for (uint32_t i = 0; i < n; i++) {
        struct p2p_desc *d = &desc[(head + i) % g->n_desc];
        uint32_t len = (uint32_t)(rnd() % 3 ? rnd() % 2000 : rnd());
        p2p_store(&d->len, len);
        p2p_store(&d->flags, (uint32_t)rnd());
        p2p_store(&d->off, (uint32_t)(rnd() % 3 ? g->data_size - len + rnd() % 3 : rnd()));
        done.writes += 3;
    }
    p2p_store_release(&ctl->head, head + n);
}

static void vnf_words(struct view *v)
{
    if (v->hdr.vnf_page_off) {
        struct p2p_vnf_page *p = (struct p2p_vnf_page *)(v->base + v->hdr.vnf_page_off);
        unsigned q = rnd() % P2P_MAX_QUEUES;
        switch (rnd() % 12) {
        case 0: put(&p->mode_ack); break;
        case 1: put(&p->rx_link_ack); break;
        case 2: put(&p->have[rnd() % P2P_MAX_LINKS]); break;
        case 3: put(&p->txq[q % v->hdr.n_queues[0]].start); break;
        case 4: put(&p->txq[0].direct_packets); break;
        case 5: put(&p->txq[0].direct_bytes); break;
        case 6: put(&p->txq[q].refused); break;
        case 7: put(&p->txq[q].epochs); break;
        case 8: put(&p->rxq[q].polls); break;
        case 9: if (rnd() % 64 == 0) { put(&p->session); } break;
        default: put((uint64_t *)p + rnd() % (sizeof *p / 8)); break;
        }
    }
}

static void switch_words(struct view *v)
{
    if (v->hdr.switch_page_off) {
        put((uint64_t *)(v->base + v->hdr.switch_page_off) + rnd() % (sizeof(struct p2p_switch_page) / 8));
    }
}

static void headers(struct view *v)
{
    put((uint64_t *)v->base + rnd() % (sizeof(struct p2p_region_header) / 8));
}

static void anywhere(struct view *v)
{
    put((uint64_t *)v->base + rnd() % (v->size / 8));
}

/* Lies about how much it has sent, as much as could be true, or more. */
static void counters(struct view *v)
{
    if (v->hdr.vnf_page_off) {
        struct p2p_vnf_txq *t = &((struct p2p_vnf_page *)(v->base + v->hdr.vnf_page_off))->txq[0];
        uint64_t n = rnd() % 4 ? rnd() % 100000 : rnd();
        p2p_store(&t->direct_packets, t->direct_packets + n);
        p2p_store(&t->direct_bytes, t->direct_bytes + n * (rnd() % 4 ? 64 : rnd() % 100000));
        done.writes += 2;
    }
}

/* Takes memory out of a region: whoever looks there next finds zeros. */
static void punch(struct view *v)
{
    if (holes && rnd() % 1000 == 0) {
        size_t page = rnd() % 2 ? v->size : 4096;
        (void)madvise(v->base + rnd() % (v->size / page) * page, page, MADV_REMOVE);
        done.holes++;
    }
}

typedef void attack_func(struct view *);
static attack_func *const attacks[] = {
    indices, descriptors, vnf_words, switch_words, headers, anywhere, counters, vnf_words, indices, punch,
};
#define N_ATTACKS (sizeof attacks / sizeof *attacks)

static void attack(uint64_t until)
{
    attack_func *one = attacks[rnd() % N_ATTACKS];
    bool mixed = rnd() % 2;

    if (rnd() % 4 == 0) {
        (void)shutdown(port->sock, SHUT_RDWR); /* The library comes anew, and gets other memory. */
    }
    while (!stop && now_ms() < until) {
        for (unsigned i = 0; i < 2000; i++) {
            struct view *v = any_view();
            if (v) {
                (mixed ? attacks[rnd() % N_ATTACKS] : one)(v);
            }
        }
        rest();
        look_around();
    }
    if (in_guest && current_port >= 0) {
        /* Which device is the port's, its own library could not tell any more. */
        memcpy(view[current_port].base, &view[current_port].hdr, sizeof view[current_port].hdr);
    }
}

/*
 * What it does when it behaves.
 */

static void behave(uint64_t until)
{
    static uint8_t frame[1514];

    while (!stop && now_ms() < until) {
        struct p2p_buf bufs[16];
        struct p2p_pkt pkts[32];
        for (unsigned i = 0; i < 16; i++) {
            bufs[i] = (struct p2p_buf) { frame, 60 + (uint32_t)(rnd() % 1454), 0 };
        }
        done.packets += p2p_tx_burst(port, 0, bufs, 16);
        unsigned n = p2p_rx_burst(port, 0, pkts, 32);
        done.received += n;
        if (rnd() % 4) {
            p2p_rx_release(port, 0);
        }
        rest();
        look_around();
    }
    p2p_rx_release(port, 0);
}

/* Many connections, and all sorts of messages with all sorts of files. */
static void flood_socket(uint64_t until)
{
    int sock[64];
    unsigned n = 0;

    while (!stop && now_ms() < until) {
        int s = p2p_sock_connect(socket_path);
        if (s < 0) {
            rest();
            continue;
        }
        for (unsigned i = 0; i < 1 + rnd() % 20; i++) {
            struct p2p_msg m;
            p2p_msg_init(&m, (enum p2p_msg_type)(rnd() % 16), (uint32_t)rnd());
            m.version = m.version_min = 1;
            m.role = (uint32_t)(rnd() % 3);
            snprintf(m.name, sizeof m.name, "dpdkr%u", (unsigned)(rnd() % 10));
            if (rnd() % 4 == 0) {
                ((uint8_t *)&m)[rnd() % sizeof m] = (uint8_t)rnd();
            }
            /* Not as the agent: that would be root's right, and root may. */
            if (m.type == P2P_MSG_HELLO) {
                m.role = P2P_ROLE_VNF;
            }
            if (m.type != P2P_MSG_ATTACH) { /* Who is first has the port, also if it is nobody good. */
                (void)p2p_msg_send(s, &m, rnd() % 4 ? -1 : 0);
                done.messages++;
            }
        }
        if (n < 64 && rnd() % 4) {
            sock[n++] = s; /* Stays connected for a while. */
        } else {
            close(s);
        }
        rest();
    }
    while (n) {
        close(sock[--n]);
    }
}

/* Behaves well until it is told to tear, takes the memory out, and is still. */
static void tear_region(void)
{
    bool link = !strcmp(tear, "link");
    struct view *v = NULL;

    while (!stop && !told_to_tear) {
        behave(now_ms() + 10);
    }
    look_around();
    for (unsigned i = 0; i < VIEWS; i++) {
        if (view[i].base && (view[i].hdr.link_id != 0) == link
            && (!v || view[i].hdr.generation > v->hdr.generation)) {
            v = &view[i];
        }
    }
    if (!stop) {
        int error = !v ? ENOENT : madvise(v->base, v->size, MADV_REMOVE) ? errno : 0;
        printf("{\"event\":\"torn\",\"error\":%d}\n", error);
        fflush(stdout);
    }
    while (!stop) {
        rest();
    }
}

static void on_signal(int sig)
{
    if (sig == SIGUSR1) {
        told_to_tear = 1;
    } else {
        stop = 1;
    }
}

static void no_log(void *aux, enum p2p_log_level level, const char *message)
{
    (void)aux;
    (void)level;
    (void)message;
}

static int usage(void)
{
    fprintf(stderr, "hostile --port NAME [--socket PATH | --attach pci] [--seconds N] [--seed N] [--holes] [--flood]\n"
            "        [--pause US] [--tear port|link]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "port", required_argument, NULL, 'p' }, { "socket", required_argument, NULL, 's' },
        { "seconds", required_argument, NULL, 't' }, { "seed", required_argument, NULL, 'r' },
        { "pause", required_argument, NULL, 'u' }, { "holes", no_argument, NULL, 'h' },
        { "flood", no_argument, NULL, 'f' }, { "attach", required_argument, NULL, 'a' },
        { "tear", required_argument, NULL, 'T' }, { NULL, 0, NULL, 0 },
    };
    struct p2p_port_config cfg = { .attach = P2P_ATTACH_SOCKET, .wait_ms = 30000, .log = no_log };
    uint64_t seconds = 10;
    struct p2p_error err;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'p': cfg.name = optarg; break;
        case 's': cfg.socket = socket_path = optarg; break;
        case 't': seconds = strtoull(optarg, NULL, 0); break;
        case 'r': seed = strtoull(optarg, NULL, 0) * 2 + 1; break;
        case 'u': pause_us = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'h': holes = true; break;
        case 'f': flood = true; break;
        case 'a': cfg.attach = strcmp(optarg, "pci") ? P2P_ATTACH_SOCKET : P2P_ATTACH_PCI; break;
        case 'T': tear = optarg; break;
        default: return usage();
        }
    }
    if (!cfg.name || (cfg.attach == P2P_ATTACH_SOCKET && !cfg.socket)) {
        return usage();
    }
    in_guest = cfg.attach == P2P_ATTACH_PCI;
    struct rlimit files = { HOARD + 1024, HOARD + 1024 };
    (void)setrlimit(RLIMIT_NOFILE, &files);
    struct sigaction sa = { .sa_handler = on_signal };
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGUSR1, &sa, NULL);
    if (p2p_port_open(&cfg, &port, &err)) {
        fprintf(stderr, "hostile: %s\n", err.text);
        return 1;
    }
    printf("{\"event\":\"ready\"}\n");
    fflush(stdout);
    if (tear) {
        tear_region();
    }

    for (uint64_t end = now_ms() + seconds * 1000; !stop && now_ms() < end; done.turns++) {
        uint64_t until = now_ms() + 5 + rnd() % 300;
        look_around();
        if (rnd() % 3 == 0) {
            behave(until + rnd() % 500);
        } else if (flood && rnd() % 4 == 0) {
            flood_socket(until);
        } else {
            attack(until);
        }
    }
    printf("{\"event\":\"done\",\"writes\":%llu,\"turns\":%llu,\"packets\":%llu,\"received\":%llu,\"attaches\":%llu,"
           "\"links\":%llu,\"messages\":%llu,\"holes\":%llu,\"hoarded\":%u,\"kept_kb\":%llu}\n",
           (unsigned long long)done.writes, (unsigned long long)done.turns, (unsigned long long)done.packets,
           (unsigned long long)done.received, (unsigned long long)done.attaches, (unsigned long long)done.links,
           (unsigned long long)done.messages, (unsigned long long)done.holes, hoarded,
           (unsigned long long)kept_kb());
    fflush(stdout);
    _exit(0); /* Without a word to the switch, as such do. */
}
