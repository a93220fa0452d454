/* SPDX-License-Identifier: Apache-2.0 */
#include "puppet.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "sock.h"
#include "vnf.h"

struct puppet puppet;

static unsigned turns_left; /* Of the control thread; 0: it is not running. */

static void remove_dir(void)
{
    unlink(puppet.path);
    rmdir(puppet.dir);
}

/*
 * Regions.
 */

static void drop_region(struct puppet_region *p)
{
    if (p->r.base) {
        for (unsigned i = 0; i < p->n_tx; i++) {
            p2p_prod_uninit(&p->tx[i]);
        }
        p2p_region_unmap(&p->r);
    }
    memset(p, 0, sizeof *p);
}

/* Ends of the rings on the side that is not 'side'; in a port region, the VNF is side 0. */
static void make_ends(struct puppet_region *p, unsigned side)
{
    const struct p2p_region_header *h = &p->r.hdr;

    p->side = side;
    p->n_rx = h->n_queues[side];
    p->n_tx = h->n_queues[!side];
    for (unsigned i = 0; i < p->n_rx; i++) {
        p2p_cons_init(&p->rx[i], &p->r, (side ? h->n_queues[0] : 0) + i);
    }
    for (unsigned i = 0; i < p->n_tx; i++) {
        CHECK(!p2p_prod_init(&p->tx[i], &p->r, (side ? 0 : h->n_queues[0]) + i));
    }
}

static void make(struct puppet_region *p, const struct p2p_region_spec *spec, unsigned side)
{
    struct p2p_logger log = { .func = fuzz_log };
    struct p2p_error err;

    drop_region(p);
    CHECK(!p2p_region_create(&p->r, spec, &log, &err));
    make_ends(p, side);
}

void puppet_make_port(void)
{
    struct p2p_region_spec spec = {
        .n_queues = { puppet.n_queues, puppet.n_queues }, .mtu = puppet.mtu, .numa_node = -1,
        .name = { PUPPET_NAME, NULL }, .first_index = UINT32_MAX - 20,
    };

    make(&puppet.port, &spec, 0);
    puppet.sw = p2p_region_at(&puppet.port.r, puppet.port.r.hdr.switch_page_off);
    puppet.vnf = p2p_region_at(&puppet.port.r, puppet.port.r.hdr.vnf_page_off);
}

void puppet_make_link(unsigned k)
{
    unsigned side = k & 1;
    struct p2p_region_spec spec = {
        .link_id = puppet.next_link_id++, .mtu = puppet.mtu, .numa_node = -1, .first_index = UINT32_MAX - 10,
        .n_queues = { side ? puppet.n_peer_queues : puppet.n_queues, side ? puppet.n_queues : puppet.n_peer_queues },
        .name = { side ? "peer" : PUPPET_NAME, side ? PUPPET_NAME : "peer" },
    };

    make(&puppet.link[k], &spec, side);
}

/*
 * The socket.
 */

void puppet_hang_up(void)
{
    if (puppet.sock >= 0) {
        close(puppet.sock);
        puppet.sock = -1;
    }
}

void puppet_send(enum p2p_msg_type type, uint32_t seq, const struct puppet_region *r, int fd)
{
    struct p2p_msg m;

    p2p_msg_init(&m, type, seq);
    strcpy(m.name, PUPPET_NAME);
    m.version = P2P_CONTROL_VERSION;
    m.version_min = P2P_CONTROL_VERSION_MIN;
    if (r && r->r.base) {
        m.link_id = r->r.hdr.link_id;
        m.generation = r->r.hdr.generation;
        m.size = r->r.size;
    }
    if (puppet.sock >= 0) {
        (void)p2p_msg_send(puppet.sock, &m, fd);
    }
}

void puppet_answer(const struct p2p_msg *m)
{
    switch (m->type) {
    case P2P_MSG_HELLO:
        puppet_send(P2P_MSG_HELLO, m->seq, NULL, -1);
        break;
    case P2P_MSG_ATTACH:
        puppet_make_port();
        puppet_send(P2P_MSG_REGION, m->seq, &puppet.port, puppet.port.r.fd);
        break;
    default:
        break;
    }
}

static void turn(void)
{
    if (puppet.sock < 0) {
        puppet.sock = accept4(puppet.listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    for (;;) {
        struct p2p_msg m;
        int fd;
        int error = puppet.sock >= 0 ? p2p_msg_recv(puppet.sock, &m, &fd) : -EAGAIN;
        if (error == -ECONNRESET) {
            puppet_hang_up();
        }
        if (error) {
            break;
        }
        if (puppet.on_msg) {
            puppet.on_msg(&puppet, &m, fd);
        } else {
            puppet_answer(&m);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    if (puppet.vnf && !puppet.silent) {
        p2p_store_release(&puppet.sw->session, p2p_load_acquire(&puppet.vnf->session));
    }
    if (puppet.on_turn) {
        puppet.on_turn(&puppet);
    }
    if (turns_left && !--turns_left) {
        atomic_store(&puppet.vnf_port->stop, true);
    }
}

void puppet_init(void)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };

    fuzz_make_dir(puppet.dir, sizeof puppet.dir);
    snprintf(puppet.path, sizeof puppet.path, "%s/sock", puppet.dir);
    strcpy(sun.sun_path, puppet.path);
    puppet.listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(puppet.listen >= 0 && !bind(puppet.listen, (struct sockaddr *)&sun, sizeof sun) && !listen(puppet.listen, 8));
    atexit(remove_dir);
    puppet.sock = -1;
    fuzz_freeze_time();
    fuzz_catch_threads = true;
    fuzz_turn = turn;
}

void puppet_begin(unsigned n_queues, unsigned n_peer_queues, unsigned mtu)
{
    puppet.n_queues = n_queues;
    puppet.n_peer_queues = n_peer_queues;
    puppet.mtu = mtu;
    puppet.next_link_id = 1;
    puppet.seq = 0;
    puppet.silent = false;
}

void puppet_end(void)
{
    int left;

    puppet_hang_up();
    while ((left = accept4(puppet.listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        close(left);
    }
    drop_region(&puppet.port);
    for (unsigned k = 0; k < PUPPET_LINKS; k++) {
        drop_region(&puppet.link[k]);
    }
    puppet.sw = NULL;
    puppet.vnf = NULL;
    puppet.on_msg = NULL;
    puppet.on_turn = NULL;
}

/*
 * The library's side.
 */

int puppet_open(void)
{
    struct p2p_port_config cfg = {
        .name = PUPPET_NAME, .attach = P2P_ATTACH_SOCKET, .socket = puppet.path, .log = fuzz_log,
    };
    struct p2p_error err = { "" };
    int error = p2p_port_open(&cfg, &puppet.vnf_port, &err);

    CHECK(!error == !!puppet.vnf_port && error <= 0 && error > -4096);
    return error;
}

void puppet_close(void)
{
    p2p_port_close(puppet.vnf_port);
    puppet.vnf_port = NULL;
}

void puppet_control(unsigned turns)
{
    CHECK(fuzz_thread_arg == puppet.vnf_port);
    turns_left = turns;
    fuzz_thread_main(fuzz_thread_arg);
    turns_left = 0;
    atomic_store(&puppet.vnf_port->stop, false);
}

/*
 * Words.
 */

void puppet_want(unsigned slot, unsigned k, enum p2p_want what)
{
    const struct puppet_region *l = &puppet.link[k];

    if (l->r.base && puppet.sw) {
        p2p_store(&puppet.sw->want_generation[slot], l->r.hdr.generation);
        p2p_store_release(&puppet.sw->want[slot], p2p_want(l->r.hdr.link_id, l->side, what));
    }
}

void puppet_mode(unsigned k, bool direct)
{
    if (puppet.link[k].r.base && puppet.sw) {
        p2p_store_release(&puppet.sw->mode, p2p_mode(puppet.link[k].r.hdr.link_id, ++puppet.seq, direct));
    }
}

void puppet_rx(unsigned k, enum p2p_rx_state state)
{
    if (puppet.link[k].r.base && puppet.sw) {
        p2p_store_release(&puppet.sw->rx_link, p2p_rx_link(puppet.link[k].r.hdr.link_id, ++puppet.seq, state));
    }
}

void puppet_open_gates(unsigned k)
{
    const struct puppet_region *l = &puppet.link[k];

    for (unsigned i = 0; l->r.base && puppet.sw && i < l->n_tx; i++) {
        uint32_t epoch = p2p_word_epoch(p2p_load(&l->tx[i].ctl->start));
        if (epoch) {
            uint32_t b_cut = puppet.port.tx[i % puppet.port.n_tx].head;
            p2p_store_release(&puppet.sw->gate[i], p2p_epoch_word(epoch, b_cut));
        }
    }
}

void puppet_start_epoch(unsigned k, unsigned queue, uint32_t epoch)
{
    struct puppet_region *l = &puppet.link[k];

    if (l->r.base) {
        p2p_store_release(&l->tx[queue % l->n_tx].ctl->start, p2p_epoch_word(epoch, 0));
    }
}
