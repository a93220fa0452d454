/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's socket against any sequence of messages, from any number of clients, in any role.
 *
 * Clients connect, send what the input says (whole messages, torn ones, with descriptors or without), hang up; the
 * switch has ports that want links, so that there is something to ask an agent for.  Whoever plays the agent also
 * plays a guest: it writes session and heartbeat into the port region that it was given.  At the end nothing of it
 * may be left: no connection, no region, no descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <p2plink/control.h>
#include <p2plink/switch.h>
#include "death.h"
#include "fuzz.h"
#include "sock.h"
#include "sw.h"

#define N_PORTS 3
#define N_CLIENTS 4

struct client {
    int sock;                               /* -1: none. */
    uint32_t seq[4];                        /* Of the last questions to it: an agent answers them. */
    unsigned n_seq;
    struct held {                           /* Regions that it was given: the port's, and links'. */
        int fd;                             /* -1: none. */
        uint32_t link_id;
        uint64_t generation, size;
    } port, link[2];
    uint8_t *base;                          /* The port's, mapped. */
    struct p2p_vnf_page *vnf;
    struct p2p_switch_page *sw;
};

static const char *const names[] = { "p0", "p1", "p2", "none", "" };
static struct p2p_switch *sw;
static struct p2p_swport *port[N_PORTS];
static struct client client[N_CLIENTS];
static struct p2p_switch_config cfg;
static char dir[72], sock_path[80];
static int memfd, event;

static void remove_dir(void)
{
    char path[96];

    snprintf(path, sizeof path, "%s.lock", sock_path);
    unlink(path);
    snprintf(path, sizeof path, "%s.ledger", sock_path);
    unlink(path);
    unlink(sock_path);
    rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_freeze_time();
    fuzz_make_dir(dir, sizeof dir);
    snprintf(sock_path, sizeof sock_path, "%s/sock", dir);
    atexit(remove_dir);
    p2p_switch_config_init(&cfg);
    cfg.socket = sock_path;
    cfg.use_hugepages = false;
    cfg.log = fuzz_log;
    cfg.linger_ms = 50;
    cfg.drain_ms = 30;
    cfg.answer_ms = 20;
    cfg.plug_ms = 100;
    cfg.heartbeat_ms = 60;
    cfg.retry_ms = 5;
    cfg.max_links = 2;
    memfd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    event = eventfd(0, EFD_CLOEXEC);
    CHECK(memfd >= 0 && event >= 0 && !ftruncate(memfd, 2 << 20));
    return 0;
}

static void drop(struct held *h)
{
    if (h->fd >= 0) {
        close(h->fd);
        h->fd = -1;
    }
}

static void let_go(struct client *c)
{
    if (c->base) {
        munmap(c->base, c->port.size);
        c->base = NULL;
    }
    drop(&c->port);
}

static void hang_up(struct client *c)
{
    if (c->sock >= 0) {
        close(c->sock);
        c->sock = -1;
    }
}

static void end_client(struct client *c)
{
    hang_up(c);
    let_go(c);
    drop(&c->link[0]);
    drop(&c->link[1]);
}

static void take(struct client *c, const struct p2p_msg *m, int fd)
{
    struct stat st;

    CHECK(!fstat(fd, &st) && (uint64_t)st.st_size == m->size && m->generation);
    CHECK((fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK) == F_SEAL_SHRINK);
    struct held h = { .fd = fd, .link_id = m->link_id, .generation = m->generation, .size = m->size };
    if (m->link_id) {
        drop(&c->link[m->link_id % 2]);
        c->link[m->link_id % 2] = h;
        return;
    }
    let_go(c);
    c->port = h;
    c->base = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(c->base != MAP_FAILED);
    c->sw = (void *)(c->base + P2P_PAGE);
    c->vnf = (void *)(c->base + 2 * P2P_PAGE);
}

/* What comes from the switch must always be whole. */
static void listen_to(struct client *c)
{
    struct p2p_msg m;
    int fd;

    while (c->sock >= 0) {
        int error = p2p_msg_recv(c->sock, &m, &fd);
        if (error) {
            CHECK(error == -EAGAIN || error == -ECONNRESET);
            if (error != -EAGAIN) {
                hang_up(c);
            }
            return;
        }
        CHECK(m.magic == P2P_CONTROL_MAGIC && m.type >= P2P_MSG_HELLO && m.type <= 16);
        CHECK((fd >= 0) == (m.type == P2P_MSG_REGION || m.type == P2P_MSG_PLUG || m.type == P2P_MSG_REPLUG));
        if (m.type == P2P_MSG_PLUG || m.type == P2P_MSG_UNPLUG || m.type == P2P_MSG_REPLUG) {
            c->seq[c->n_seq++ % 4] = m.seq;
        }
        if (fd >= 0) {
            take(c, &m, fd);
        }
    }
}

static void run(unsigned times)
{
    while (times--) {
        p2p_switch_run(sw, 0);
        for (int i = 0; i < N_CLIENTS; i++) {
            listen_to(&client[i]);
        }
    }
}

static void send_raw(struct client *c, const void *data, size_t size, const int *fds, unsigned n_fds)
{
    struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(8 * sizeof(int))];
    } control = { 0 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
    }
    (void)sendmsg(c->sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void say(struct client *c, struct input *in)
{
    uint8_t how = in8(in);
    struct p2p_msg m;
    int fds[8];

    p2p_msg_init(&m, how & 1 ? (enum p2p_msg_type)in8(in) : (enum p2p_msg_type)(1 + in8(in) % 14), 1 + in8(in));
    m.version = P2P_CONTROL_VERSION;
    m.version_min = P2P_CONTROL_VERSION_MIN;
    m.role = in8(in) % 4;
    m.generation = c->port.generation;
    strcpy(m.name, names[in8(in) % 5]);
    if (m.type == P2P_MSG_OK || m.type == P2P_MSG_ERROR) {
        m.seq = c->seq[in8(in) % 4];
        m.error = m.type == P2P_MSG_ERROR ? -(int)in8(in) : 0;
    }
    if (how & 2) { /* Something in it is not as it should be. */
        for (unsigned n = in_below(in, 4); n; n--) {
            ((uint8_t *)&m)[in16(in) % sizeof m] = in8(in);
        }
    }
    if (how & 4) {
        memset(m.name, 'x', sizeof m.name);
        memset(m.text, 'x', sizeof m.text);
    }
    unsigned n_fds = how & 8 ? in_below(in, 9) : 0;
    for (unsigned i = 0; i < n_fds; i++) {
        const int some[] = { memfd, event, c->port.fd, c->link[0].fd, c->link[1].fd };
        fds[i] = some[in8(in) % 5];
        fds[i] = fds[i] >= 0 ? fds[i] : memfd;
    }
    size_t size = sizeof m;
    uint8_t more[2 * sizeof m] = { 0 };
    memcpy(more, &m, sizeof m);
    if (how & 16) {
        size = in16(in) % sizeof more;
    }
    if (c->sock >= 0) {
        send_raw(c, more, size, fds, n_fds);
    }
}

/* HELLO and what comes after it, as it should be: with what it has from before, if it has. */
static void say_well(struct client *c, uint8_t what)
{
    const char *name = names[what / 2 % 3];
    struct p2p_msg m;

    p2p_msg_init(&m, P2P_MSG_HELLO, 1);
    m.version = P2P_CONTROL_VERSION;
    m.version_min = P2P_CONTROL_VERSION_MIN;
    m.role = what & 1 ? P2P_ROLE_VNF : P2P_ROLE_AGENT;
    (void)p2p_msg_send(c->sock, &m, -1);
    for (int i = 0; i < 3 && what & 0x80; i++) {
        const struct held *h = i < 2 ? &c->link[i] : &c->port;
        p2p_msg_init(&m, i < 2 ? P2P_MSG_OFFER : what & 1 ? P2P_MSG_ATTACH : P2P_MSG_CLAIM, i < 2 ? 0 : 2);
        strcpy(m.name, name);
        m.link_id = h->link_id;
        m.generation = h->generation;
        m.size = h->size;
        if (h->fd >= 0) {
            (void)p2p_msg_send(c->sock, &m, h->fd);
        }
    }
    if (!(what & 0x80)) {
        p2p_msg_init(&m, what & 1 ? P2P_MSG_ATTACH : P2P_MSG_CLAIM, 2);
        strcpy(m.name, name);
        (void)p2p_msg_send(c->sock, &m, -1);
    }
}

static void vnf_words(struct client *c, struct input *in)
{
    if (!c->base) {
        return;
    }
    uint8_t what = in8(in);
    if (what & 1) {
        c->vnf->session = 1 + in8(in) % 4;
    }
    if (what & 2) {
        c->vnf->heartbeat++;
    }
    if (what & 4) {
        c->vnf->mode_ack = c->sw->mode;
        c->vnf->rx_link_ack = c->sw->rx_link;
    }
    if (what & 8) {
        for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
            uint64_t want = c->sw->want[k];
            c->vnf->have[k] = p2p_have(p2p_want_link(want), in8(in) % 8 ? 0 : 5,
                                       p2p_want_what(want) == P2P_WANT_UNMAP ? P2P_HAVE_UNMAPPED
                                       : in8(in) % 8 ? P2P_HAVE_MAPPED : P2P_HAVE_FAILED);
        }
    }
    if (what & 16) {
        uint64_t *word = (uint64_t *)c->vnf + in16(in) % (sizeof *c->vnf / 8);
        *word = in_word(in, *word);
    }
}

static void make_port(int i)
{
    struct p2p_swport_config pc = { .name = names[i], .n_queues = 1, .mtu = 1500, .numa_node = -1 };
    struct p2p_error err;

    CHECK(!p2p_swport_create(sw, &pc, &port[i], &err));
}

/* Dies and comes back: all that its successor has is the ledger. */
static void restart(struct input *in)
{
    struct p2p_error err;

    death_begin(sw);
    for (int i = 0; i < N_PORTS; i++) {
        p2p_swport_destroy(port[i]);
    }
    p2p_switch_destroy(sw);
    death_over();
    for (int i = 0; i < N_CLIENTS; i++) {
        hang_up(&client[i]);
    }
    CHECK(!p2p_switch_create(&cfg, &sw, &err));
    if (in8(in) & 1) {
        p2p_switch_set_restoring(sw, true);
    }
    for (int i = 0; i < N_PORTS; i++) {
        make_port(i);
    }
}

static void of_the_switch(struct input *in)
{
    uint8_t what = in8(in);
    int i = what % N_PORTS, j = what / 4 % N_PORTS;
    struct p2p_swport *to;
    uint64_t ticket;

    switch (what >> 5) {
    case 0:
    case 1:
    case 2:
        p2p_swport_set_target(port[i], i == j ? NULL : port[j], "fuzz");
        break;
    case 3: {
        struct p2p_swport_config pc = { .n_queues = 1 + in8(in) % 2, .mtu = 1500, .numa_node = -1 };
        struct p2p_error err;
        CHECK(!p2p_swport_reconfigure(port[i], &pc, &err));
        break;
    }
    case 4:
        p2p_swport_destroy(port[i]);
        make_port(i);
        break;
    case 5: {
        struct p2p_swport_info info;
        struct p2p_swport_stats stats;
        char text[1000];
        p2p_swport_get_info(port[i], &info);
        p2p_swport_get_stats(port[i], &stats);
        (void)p2p_swport_plug_commands(port[i], text, sizeof text);
        break;
    }
    case 6:
        if (in8(in) % 2) {
            restart(in);
        } else {
            p2p_switch_set_restoring(sw, in8(in) & 1);
        }
        break;
    default:
        for (i = 0; i < N_PORTS; i++) {
            if (p2p_swport_wants_confirm(port[i], &to, &ticket)) {
                (void)p2p_swport_confirm(port[i], ticket, true, NULL);
            }
        }
        break;
    }
}

static void step(struct input *in)
{
    uint8_t op = in8(in);
    struct client *c = &client[op >> 6];

    switch (op % 12) {
    case 0:
    case 1:
    case 2:
        say(c, in);
        break;
    case 3:
        if (c->sock < 0) {
            c->sock = p2p_sock_connect(sock_path);
        }
        break;
    case 4:
    case 5:
        if (c->sock < 0) {
            c->sock = p2p_sock_connect(sock_path);
        }
        if (c->sock >= 0) {
            say_well(c, in8(in));
        }
        break;
    case 6:
        if (in8(in) % 4 == 0) {
            hang_up(c);
        }
        break;
    case 7:
        run(1 + in_below(in, 4));
        break;
    case 8:
        fuzz_pass_ms(in8(in) % 64);
        run(1);
        break;
    case 9:
        vnf_words(c, in);
        break;
    case 10:
        of_the_switch(in);
        break;
    case 11:
        for (int i = 0; i < N_CLIENTS; i++) { /* Guests and agents that behave. */
            struct input good = { (const uint8_t *)"\x0f\1\1\1\1\1\1\1\1\1", 10 };
            vnf_words(&client[i], &good);
            for (unsigned k = 0; k < 4 && client[i].sock >= 0; k++) {
                struct p2p_msg m;
                p2p_msg_init(&m, P2P_MSG_OK, client[i].seq[k]);
                (void)p2p_msg_send(client[i].sock, &m, -1);
                client[i].seq[k] = 0;
            }
        }
        run(1);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct p2p_error err;
    int fds = fuzz_count_fds();

    CHECK(!p2p_switch_create(&cfg, &sw, &err));
    for (int i = 0; i < N_PORTS; i++) {
        make_port(i);
    }
    for (int i = 0; i < N_CLIENTS; i++) {
        client[i] = (struct client) { .sock = -1, .port.fd = -1, .link = { { .fd = -1 }, { .fd = -1 } } };
    }
    for (int k = 0; k < 200 && in.left; k++) {
        step(&in);
    }
    run(1);
    for (int i = 0; i < N_CLIENTS; i++) {
        end_client(&client[i]);
    }
    for (int k = 0; k < 100 && sw->conns; k++) {
        run(1);
    }
    CHECK(!sw->conns && !sw->agent);
    for (int i = 0; i < N_PORTS; i++) {
        CHECK(!port[i]->conn && !port[i]->waiting);
        p2p_swport_destroy(port[i]);
    }
    run(1);
    CHECK(!sw->chans && !sw->ports);
    p2p_switch_destroy(sw);
    CHECK(fuzz_wait_fds(fds));
    return 0;
}
