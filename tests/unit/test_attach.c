/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VNFs that come and go: over the socket, with ports and switches that come and go too, with processes that are stopped
 * and killed at any moment.
 *
 * time-limit: 600
 */
#include "fixture.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "atomics.h"
#include "rawclient.h"
#include "ring.h"
#include "sock.h"
#include "sw.h"

static void assert_says(const char *text, const char *word)
{
    if (!strstr(text, word)) {
        fail_msg("\"%s\" does not say \"%s\"", text, word);
    }
}

/*
 * Attaching.
 */

static void no_such_port(void **state)
{
    struct p2p_port *port;
    struct p2p_error err;
    (void)state;

    fixture_start(1);
    assert_int_equal(vnf_try("nobody", 0, &port, &err), -ENOENT);
    assert_null(port);
    assert_says(err.text, "no port nobody of type dpdkr");
    assert_says(err.text, "ovs-vsctl add-port");
    assert_int_equal(vnf_try("", 0, &port, &err), -EINVAL);
    char name[80];
    memset(name, 'x', sizeof name);
    name[P2P_NAME_MAX] = '\0';
    assert_int_equal(vnf_try(name, 0, &port, &err), -EINVAL);
    assert_says(err.text, name);
    name[P2P_NAME_MAX - 1] = '\0';
    assert_int_equal(vnf_try(name, 0, &port, NULL), -ENOENT);
}

static void no_switch(void **state)
{
    struct p2p_port *port;
    struct p2p_error err;
    (void)state;

    assert_int_equal(vnf_try("a", 0, &port, &err), -ENOENT);
    assert_says(err.text, fx.tb.socket);
    assert_says(err.text, "ovs-vswitchd");
    uint64_t before = testbed_now_ms();
    assert_int_equal(vnf_try("a", 200, &port, &err), -ENOENT);
    assert_true(testbed_now_ms() - before >= 200);
    char path[200];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    struct p2p_port_config cfg = { .name = "a", .attach = P2P_ATTACH_SOCKET, .socket = path };
    assert_int_equal(p2p_port_open(&cfg, &port, &err), -ENAMETOOLONG);
    rmdir(fx.tb.dir);
}

static void taken_port(void **state)
{
    struct p2p_port *port;
    struct p2p_error err;
    char pid[32];
    (void)state;

    fixture_start(1);
    struct p2p_port *first = vnf_open("a");
    assert_int_equal(vnf_try("a", 0, &port, &err), -EBUSY);
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    assert_says(err.text, pid);
    assert_int_equal(info_of(0).pid, getpid());
    vnf_close(first);
    vnf_open("a"); /* At once. */
}

static void *late_port(void *unused)
{
    (void)unused;
    testbed_sleep_ms(150);
    testbed_add_port(&fx.tb, "late", 2, 9000);
    return NULL;
}

static void waits_for_the_port_to_be_there(void **state)
{
    struct p2p_port_info info;
    pthread_t thread;
    (void)state;

    fixture_start(0);
    pthread_create(&thread, NULL, late_port, NULL);
    struct p2p_port *port = vnf_open("late");
    pthread_join(thread, NULL);
    p2p_port_get_info(port, &info);
    assert_string_equal(info.name, "late");
    assert_int_equal(info.n_txq, 2);
    assert_int_equal(info.n_rxq, 2);
    assert_int_equal(info.mtu, 9000);
    assert_true(info.attached && info.link_up && !info.in_guest);
    p2p_swport_set_link_up(fx.tb.port[0].port, false);
    p2p_port_get_info(port, &info);
    assert_false(info.link_up);
}

/* A switch that listens, but is none: what it answers to HELLO, and to ATTACH. */
struct impostor {
    int listen_fd;
    void (*hello)(int sock, const struct p2p_msg *m);
    void (*attach)(int sock, const struct p2p_msg *m);
};

static void *impostor_main(void *i_)
{
    struct impostor *i = i_;
    int sock = accept(i->listen_fd, NULL, NULL);
    struct p2p_msg m;
    int fd;

    if (sock >= 0 && raw_recv(sock, &m, &fd, 5000)) {
        i->hello(sock, &m);
        while (i->attach && p2p_msg_recv(sock, &m, &fd) == -EAGAIN) {
            testbed_sleep_ms(1);
        }
        if (i->attach) {
            i->attach(sock, &m);
        }
        for (int error = 0; !error || error == -EAGAIN;) { /* Until the VNF hangs up. */
            error = p2p_msg_recv(sock, &m, &fd);
            if (error) {
                testbed_sleep_ms(1);
            } else if (fd >= 0) {
                close(fd);
            }
        }
        close(sock);
    }
    return NULL;
}

static void hello_right(int sock, const struct p2p_msg *m)
{
    struct p2p_msg a;
    p2p_msg_init(&a, P2P_MSG_HELLO, m->seq);
    a.version = a.version_min = P2P_CONTROL_VERSION;
    (void)p2p_msg_send(sock, &a, -1);
}

static void hello_too_new(int sock, const struct p2p_msg *m)
{
    struct p2p_msg a;
    p2p_msg_init(&a, P2P_MSG_HELLO, m->seq);
    a.version = a.version_min = 99;
    (void)p2p_msg_send(sock, &a, -1);
}

static void hello_garbage(int sock, const struct p2p_msg *m)
{
    (void)m;
    (void)send(sock, "HTTP/1.1 400 Bad Request", 24, MSG_NOSIGNAL);
}

static void hello_hangs_up(int sock, const struct p2p_msg *m)
{
    (void)m;
    shutdown(sock, SHUT_RDWR);
}

static void hello_silence(int sock, const struct p2p_msg *m)
{
    (void)sock;
    (void)m;
}

static void send_region(int sock, uint32_t seq, const char *name, uint64_t add_generation, int fd)
{
    struct p2p_region_spec spec = { .n_queues = { 1, 1 }, .mtu = 1500, .numa_node = -1, .name = { name, NULL } };
    struct p2p_logger log = { 0 };
    struct p2p_region r;
    struct p2p_msg a;

    if (p2p_region_create(&r, &spec, &log, NULL)) {
        return;
    }
    p2p_msg_init(&a, P2P_MSG_REGION, seq);
    a.size = r.size;
    a.generation = r.hdr.generation + add_generation;
    (void)p2p_msg_send(sock, &a, fd == -2 ? r.fd : fd);
    p2p_region_unmap(&r);
}

static void attach_no_region(int sock, const struct p2p_msg *m) { send_region(sock, m->seq, "a", 0, -1); }
static void attach_no_memory(int sock, const struct p2p_msg *m) { send_region(sock, m->seq, "a", 0, sock); }
static void attach_other_port(int sock, const struct p2p_msg *m) { send_region(sock, m->seq, "other", 0, -2); }
static void attach_other_generation(int sock, const struct p2p_msg *m) { send_region(sock, m->seq, "a", 1, -2); }
static void attach_never_accepts(int sock, const struct p2p_msg *m) { send_region(sock, m->seq, "a", 0, -2); }

static void switch_that_is_none(void **state)
{
    static const struct {
        void (*hello)(int sock, const struct p2p_msg *m);
        void (*attach)(int sock, const struct p2p_msg *m);
        int error;
        const char *says;
    } cases[] = {
        { hello_garbage, NULL, -EPROTO, "no answer from the switch" },
        { hello_too_new, NULL, -EPROTO, "speaks control version 99" },
        { hello_hangs_up, NULL, -ECONNRESET, "no answer from the switch" },
        { hello_silence, NULL, -ETIMEDOUT, "no answer from the switch" },
        { hello_right, attach_no_region, -EMFILE, "descriptor has not come" },
        { hello_right, attach_no_memory, -EPROTO, "too small" },
        { hello_right, attach_other_port, -EPROTO, "the region is of port other, not a" },
        { hello_right, attach_other_generation, -EPROTO, "has been replaced" },
        { hello_right, attach_never_accepts, -ETIMEDOUT, "has not accepted port a" },
    };
    unsigned fds = open_fds(), regions = mapped_regions();
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    (void)state;

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", fx.tb.socket);
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct impostor imp = { .hello = cases[i].hello, .attach = cases[i].attach };
        struct p2p_port *port;
        struct p2p_error err = { "" };
        pthread_t thread;

        imp.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(imp.listen_fd, (struct sockaddr *)&sun, sizeof sun), 0);
        assert_int_equal(listen(imp.listen_fd, 5), 0);
        pthread_create(&thread, NULL, impostor_main, &imp);
        int error = vnf_try("a", 0, &port, &err);
        pthread_join(thread, NULL);
        close(imp.listen_fd);
        unlink(fx.tb.socket);
        if (error != cases[i].error || !strstr(err.text, cases[i].says)) {
            fail_msg("case %u: %d \"%s\", expected %d with \"%s\"", i, error, err.text, cases[i].error, cases[i].says);
        }
    }
    assert_int_equal(open_fds(), fds);
    assert_int_equal(mapped_regions(), regions);
    rmdir(fx.tb.dir);
}

/* Lets the VNF in, then sends it into another region and never lets it in there. */
static void attach_and_strand(int sock, const struct p2p_msg *m)
{
    struct p2p_region_spec spec = { .n_queues = { 1, 1 }, .mtu = 1500, .numa_node = -1, .name = { "a", NULL } };
    struct p2p_logger log = { 0 };
    struct p2p_region r;
    struct p2p_msg a;

    if (p2p_region_create(&r, &spec, &log, NULL)) {
        return;
    }
    struct p2p_switch_page *sw = p2p_region_at(&r, r.hdr.switch_page_off);
    struct p2p_vnf_page *vnf = p2p_region_at(&r, r.hdr.vnf_page_off);
    p2p_msg_init(&a, P2P_MSG_REGION, m->seq);
    a.size = r.size;
    a.generation = r.hdr.generation;
    (void)p2p_msg_send(sock, &a, r.fd);
    while (!p2p_load_acquire(&vnf->session)) {
        testbed_sleep_ms(1);
    }
    p2p_store_release(&sw->session, p2p_load(&vnf->session));
    testbed_sleep_ms(50);
    p2p_region_unmap(&r);
    send_region(sock, 0, "a", 0, -2);
}

/* It does not stay where nobody is with it, but comes anew. */
static void stranded_between_two_regions(void **state)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    struct impostor imp = { .hello = hello_right, .attach = attach_and_strand };
    struct p2p_port_info info;
    pthread_t thread;
    (void)state;

    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", fx.tb.socket);
    imp.listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(imp.listen_fd, (struct sockaddr *)&sun, sizeof sun), 0);
    assert_int_equal(listen(imp.listen_fd, 5), 0);
    pthread_create(&thread, NULL, impostor_main, &imp);
    struct p2p_port *port = vnf_open("a");
    pthread_join(thread, NULL); /* It has hung up. */
    p2p_port_get_info(port, &info);
    assert_false(info.attached);
    close(imp.listen_fd);
    unlink(fx.tb.socket);
    fixture_start(1); /* A real one. */
    assert_true(testbed_wait_attached(&fx.tb, 0, true));
}

/* A VNF that waits for an answer of the switch can be closed all the same. */
static void close_does_not_wait_for_a_silent_switch(void **state)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    (void)state;

    fixture_start(1);
    struct p2p_port *port = vnf_open("a");
    testbed_stop(&fx.tb);
    fx.started = false;
    assert_int_equal(mkdir(fx.tb.dir, 0700), 0);
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", fx.tb.socket);
    int silent = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(silent, (struct sockaddr *)&sun, sizeof sun), 0);
    assert_int_equal(listen(silent, 5), 0);
    int sock = accept(silent, NULL, NULL); /* It tries to come back, and waits. */
    struct p2p_port_info info;
    p2p_port_get_info(port, &info);
    assert_false(info.attached);
    uint64_t before = testbed_now_ms();
    vnf_close(port);
    assert_true(testbed_now_ms() - before < 1000);
    close(sock);
    close(silent);
    unlink(fx.tb.socket);
    rmdir(fx.tb.dir);
}

static void nothing_is_left_behind(void **state)
{
    unsigned fds = 0, regions = 0;
    (void)state;

    fixture_start(2);
    for (unsigned i = 0; i < 15; i++) {
        struct p2p_port *a = vnf_open("a"), *b = vnf_open("b");
        link_up(0, 1);
        link_up(1, 0);
        assert_true(vnf_send(a, i));
        assert_int_equal(vnf_expect(b), i);
        if (i % 3) {
            target(0, -1);
            assert_true(testbed_wait_unlinked(&fx.tb, 0));
        }
        if (i % 3 == 2) {
            p2p_rx_release(b, 0);
        }
        vnf_close(a);
        vnf_close(b);
        assert_true(testbed_wait_attached(&fx.tb, 0, false) && testbed_wait_attached(&fx.tb, 1, false));
        assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
        target(0, -1);
        target(1, -1);
        if (i == 4) {
            testbed_sleep_ms(50);
            fds = open_fds();
            regions = mapped_regions();
        }
    }
    testbed_sleep_ms(50);
    assert_int_equal(open_fds(), fds);
    assert_int_equal(mapped_regions(), regions);
}

/*
 * Ports and switches that come and go.
 */

static void assert_all_in_order(struct peer *p)
{
    assert_int_equal(atomic_load(&p->backward), 0);
    assert_int_equal(atomic_load(&p->odd), 0);
}

static void port_goes_and_comes_back(void **state)
{
    (void)state;

    fixture_start(2);
    struct peer *a = peer_start("a", false), *b = peer_start("b", false);
    link_up(0, 1);
    link_up(1, 0);
    for (unsigned i = 0; i < 6; i++) {
        int gone = (int)(i % 2);
        peer_wait_got(a, 100);
        peer_wait_got(b, 100);
        testbed_remove_port(&fx.tb, gone);
        testbed_sleep_ms(i * 30);
        testbed_put_port(&fx.tb, gone, gone ? "b" : "a", 1 + i % 3, i % 4 ? 1500 : 9000);
        assert_true(testbed_wait_attached(&fx.tb, gone, true));
        peer_wait_got(a, 100); /* Through the switch. */
        peer_wait_got(b, 100);
        testbed_reconfigure(&fx.tb, gone, 1 + i % 3, 1500);
        assert_true(testbed_wait_attached(&fx.tb, gone, true));
        link_up(0, 1);
        link_up(1, 0);
    }
    assert_all_in_order(a);
    assert_all_in_order(b);
}

static void switch_ends_and_another_one_begins(void **state)
{
    (void)state;

    fixture_start(2);
    struct peer *a = peer_start("a", false), *b = peer_start("b", false);
    for (unsigned i = 0; i < 4; i++) {
        link_up(0, 1);
        link_up(1, 0);
        peer_wait_got(a, 100);
        peer_wait_got(b, 100);
        testbed_restart(&fx.tb);
        assert_true(testbed_wait_attached(&fx.tb, 0, true) && testbed_wait_attached(&fx.tb, 1, true));
        peer_wait_got(a, 100);
        peer_wait_got(b, 100);
    }
    assert_all_in_order(a);
    assert_all_in_order(b);
}

/* A switch that is killed says nothing to nobody.  Direct traffic goes on. */
static void switch_is_killed(void **state)
{
    struct p2p_port_info info;
    (void)state;

    pid_t pid = fx.child[0] = child_switch(fx.tb.dir);
    struct peer *a = peer_start("a", false), *b = peer_start("b", false);
    struct p2p_port_stats before, after;
    wait_for((p2p_port_get_info(a->port, &info), info.tx_direct && info.rx_direct));
    peer_wait_got(a, 100);
    child_remove(pid);
    wait_for((p2p_port_get_info(a->port, &info), !info.attached));
    assert_true(info.tx_direct);
    p2p_port_get_stats(b->port, &before);
    peer_wait_got(b, 10000);
    p2p_port_get_stats(b->port, &after);
    assert_true(after.rx_direct_packets >= before.rx_direct_packets + 5000);

    fx.child[0] = child_switch(fx.tb.dir);
    wait_for((p2p_port_get_info(a->port, &info), info.attached));
    wait_for((p2p_port_get_info(b->port, &info), info.attached));
    wait_for((p2p_port_get_info(a->port, &info), info.tx_direct && info.rx_direct));
    p2p_port_get_stats(b->port, &before);
    wait_for((p2p_port_get_stats(b->port, &after), after.rx_direct_packets >= before.rx_direct_packets + 1000));
    peer_wait_got(a, 1000);
    assert_all_in_order(a);
    assert_all_in_order(b);
    child_remove(fx.child[0]);
    testbed_clean(&fx.tb);
}

static void reconfigured_under_traffic(void **state)
{
    struct p2p_port_info info;
    (void)state;

    fixture_start(2);
    struct peer *a = peer_start("a", false), *b = peer_start("b", false);
    for (unsigned i = 0; i < 10; i++) {
        unsigned na = 1 + i * 7 % 16, nb = 1 + i * 3 % 4;
        uint32_t mtu = i % 2 ? 9000 : 1500;
        testbed_reconfigure(&fx.tb, 0, na, mtu);
        if (i % 3) {
            peer_wait_sent(b, 100); /* With different MTUs, for a while. */
        }
        testbed_reconfigure(&fx.tb, 1, nb, mtu);
        wait_for((p2p_port_get_info(a->port, &info), info.n_txq == na && info.mtu == mtu));
        wait_for((p2p_port_get_info(b->port, &info), info.n_rxq == nb && info.mtu == mtu));
        link_up(0, 1);
        link_up(1, 0);
        uint64_t before = stats_of(1).in_packets;
        peer_wait_got(a, 200);
        peer_wait_got(b, 200);
        wait_for(stats_of(1).in_packets > before);
    }
    assert_all_in_order(a);
    assert_all_in_order(b);
}

static void different_mtus_do_not_link(void **state)
{
    (void)state;

    fixture_start(2);
    vnf_open("a");
    vnf_open("b");
    testbed_reconfigure(&fx.tb, 1, 1, 9000);
    assert_true(testbed_wait_attached(&fx.tb, 1, true));
    target(0, 1);
    testbed_sleep_ms(100);
    assert_int_equal(info_of(0).state, P2P_LINK_NORMAL);
    assert_int_equal(info_of(0).link_id, 0);
    testbed_reconfigure(&fx.tb, 0, 1, 9000);
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT));
}

/*
 * Processes that are killed and stopped.  "a" is the one, port 0; "b" its peer, port 1.
 */

enum moment {
    ATTACHED,       /* No link. */
    PROVISIONING,
    SWITCHING,      /* Not confirmed. */
    CONFIRMED,      /* The sender has not answered (if it is the one that is stopped). */
    DIRECT,
    BOTH_DIRECT,
    REVERTING,
    LINGERING,
    DRAINING,
    N_MOMENTS
};

static const char *const moment_name[] = {
    "attached", "provisioning", "switching", "confirmed", "direct", "both direct", "reverting", "lingering", "draining",
};

/* Brings the link from 'from' to 'to' to that moment.  'pid' may have been stopped for it. */
static void bring_to(enum moment m, int from, int to, pid_t pid)
{
    struct p2p_swport *receiver;
    uint64_t ticket;

    atomic_store(&fx.tb.auto_confirm, m != SWITCHING && m != CONFIRMED);
    switch (m) {
    case ATTACHED:
    case N_MOMENTS:
        break;
    case PROVISIONING:
        child_stop(pid);
        target(from, to);
        assert_true(testbed_wait_state(&fx.tb, from, P2P_LINK_PROVISIONING));
        break;
    case SWITCHING:
        target(from, to);
        assert_true(testbed_wait_state(&fx.tb, from, P2P_LINK_SWITCHING));
        break;
    case CONFIRMED:
        target(from, to);
        assert_true(testbed_wait_state(&fx.tb, from, P2P_LINK_SWITCHING));
        child_stop(pid);
        assert_true(p2p_swport_wants_confirm(fx.tb.port[from].port, &receiver, &ticket));
        assert_ptr_equal(receiver, fx.tb.port[to].port);
        assert_true(p2p_swport_confirm(fx.tb.port[from].port, ticket, true, NULL));
        break;
    case BOTH_DIRECT:
        link_up(to, from);
        link_up(from, to);
        break;
    case DIRECT:
        link_up(from, to);
        break;
    case REVERTING:
        link_up(from, to);
        child_stop(pid);
        target(from, -1);
        break;
    case LINGERING:
        link_up(from, to);
        target(from, -1);
        assert_true(testbed_wait_state(&fx.tb, from, P2P_LINK_NORMAL));
        break;
    case DRAINING:
        link_up(from, to);
        child_stop(pid);
        testbed_sleep_ms(20); /* If it is the receiver, its ring fills. */
        target(from, -1);
        testbed_sleep_ms(fx.tb.cfg.linger_ms + 50);
        break;
    }
}

/* All that the switch may take to end a link with a VNF that does not answer, and some. */
static uint64_t end_limit_ms(void)
{
    const struct p2p_switch_config *c = &fx.tb.cfg;
    return c->answer_ms + c->linger_ms + c->drain_ms + c->answer_ms + 3000;
}

static void killed_at(enum moment m, bool sender)
{
    int from = sender ? 0 : 1, to = !from;

    fixture_start(2);
    struct peer *b = peer_start("b", false);
    for (unsigned life = 0; life < 2; life++) {
        pid_t pid = child_add("a");
        assert_true(testbed_wait_attached(&fx.tb, 0, true));
        assert_int_equal(info_of(0).pid, pid);
        peer_wait_got(b, 50);
        bring_to(m, from, to, pid);
        uint64_t before = testbed_now_ms();
        child_remove(pid);
        assert_true(testbed_wait_attached(&fx.tb, 0, false));
        assert_true(testbed_wait_unlinked(&fx.tb, 0));
        assert_true(testbed_wait_unlinked(&fx.tb, 1));
        assert_true(testbed_now_ms() - before < end_limit_ms());
        peer_wait_sent(b, 2000); /* More than a ring holds: the switch takes it. */
        atomic_store(&fx.tb.auto_confirm, true);
        target(from, -1);
        target(to, -1);
    }
    pid_t pid = child_add("a");
    assert_true(testbed_wait_attached(&fx.tb, 0, true));
    assert_int_equal(info_of(0).pid, pid);
    link_up(0, 1);
    link_up(1, 0);
    struct p2p_swport_stats was = stats_of(0);
    wait_for(stats_of(0).out_packets >= was.out_packets + 500);
    wait_for(stats_of(0).in_packets >= was.in_packets + 500);
    peer_wait_got(b, 500);
    assert_all_in_order(b);
    assert_int_equal(b->from[0].id, pid);
}

static void killed_at_any_moment(bool sender)
{
    for (enum moment m = 0; m < N_MOMENTS; m++) {
        print_message("# killed when %s\n", moment_name[m]);
        killed_at(m, sender);
        fixture_teardown(NULL);
        fixture_setup(NULL);
    }
}

static void killed_sender(void **state)
{
    (void)state;
    killed_at_any_moment(true);
    rmdir(fx.tb.dir);
}

static void killed_receiver(void **state)
{
    (void)state;
    killed_at_any_moment(false);
    rmdir(fx.tb.dir);
}

/* "a" does not run at all for a while.  Its links end in time, its peers go on without it, and it comes back. */
static void stopped_at(enum moment m, bool sender)
{
    int from = sender ? 0 : 1, to = !from;

    fixture_start(3);
    pid_t pid = child_add("a");
    struct peer *b = peer_start("b", false), *c = peer_start("c", true);
    assert_true(testbed_wait_attached(&fx.tb, 0, true));
    bring_to(m, from, to, pid);
    child_stop(pid);

    uint64_t before = testbed_now_ms();
    atomic_store(&fx.tb.auto_confirm, true);
    target(from, -1);
    target(to, -1);
    testbed_forward(&fx.tb, 1, 2);
    peer_wait_got(c, 1000); /* b's traffic is not held up by a's end. */
    target(1, 2);
    assert_true(testbed_wait_unlinked(&fx.tb, 0));
    assert_true(testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT));
    assert_true(testbed_now_ms() - before < end_limit_ms());
    assert_string_equal(info_of(1).peer, "c");
    uint64_t was = stats_of(2).in_packets;
    wait_for(stats_of(2).in_packets >= was + 1000);
    assert_true(info_of(0).attached);

    child_cont(pid);
    link_up(0, 1);
    assert_int_equal(info_of(0).pid, pid);
    peer_wait_got(b, 1000);
    assert_all_in_order(b);
    assert_all_in_order(c);
}

static void stopped_at_any_moment(bool sender)
{
    for (enum moment m = 0; m < N_MOMENTS; m++) {
        print_message("# stopped when %s\n", moment_name[m]);
        stopped_at(m, sender);
        fixture_teardown(NULL);
        fixture_setup(NULL);
    }
}

static void stopped_sender(void **state)
{
    (void)state;
    stopped_at_any_moment(true);
    rmdir(fx.tb.dir);
}

static void stopped_receiver(void **state)
{
    (void)state;
    stopped_at_any_moment(false);
    rmdir(fx.tb.dir);
}

/* A VNF that does not map its link region: the attempt ends, says why, and is made again. */
static void stopped_vnf_does_not_map(void **state)
{
    (void)state;

    fx.tb.cfg.plug_ms = 100;
    fixture_start(2);
    pid_t pid = child_add("a");
    struct peer *b = peer_start("b", false);
    assert_true(testbed_wait_attached(&fx.tb, 0, true));
    child_stop(pid);
    target(1, 0);
    wait_for(strstr(info_of(1).last_error, "has not mapped"));
    assert_says(info_of(1).last_error, "on the side of a");
    testbed_sleep_ms(1000); /* More attempts. */
    peer_wait_sent(b, 2000);
    child_cont(pid);
    assert_true(testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT));
    assert_string_equal(info_of(1).last_error, "");
}

/*
 * Packets in place that the application keeps.
 */

static unsigned take(struct p2p_port *port, unsigned n, struct p2p_pkt *pkts)
{
    unsigned got = 0;
    uint64_t until = testbed_now_ms() + 5000;

    while (got < n) {
        got += p2p_rx_burst(port, 0, pkts + got, n - got);
        if (testbed_now_ms() > until) {
            fail_msg("only %u packets of %u have come", got, n);
        }
    }
    return got;
}

/* Reads all bytes.  They are those of frame 'seq', or zeros. */
static bool reads_as_before(const struct p2p_pkt *pkt, uint64_t seq)
{
    struct child_frame f, zero = { 0 };

    memcpy(&f, pkt->data, sizeof f);
    if (!memcmp(&f, &zero, sizeof f)) {
        return false;
    }
    assert_int_equal(f.pid, 1);
    assert_int_equal(f.seq, seq);
    return true;
}

static void send_some(struct p2p_port *port, uint64_t first, unsigned n)
{
    struct p2p_port_info info;

    wait_for((p2p_port_get_info(port, &info), info.attached));
    for (unsigned i = 0; i < n; i++) {
        assert_true(vnf_send(port, first + i));
    }
}

static void packets_kept_over_the_end_of_a_link(void **state)
{
    struct p2p_pkt pkts[16];
    (void)state;

    fx.tb.cfg.drain_ms = 400;
    fixture_start(2);
    struct p2p_port *a = vnf_open("a"), *b = vnf_open("b");
    unsigned regions = mapped_regions();

    /* Released in time: the link waits for it. */
    link_up(0, 1);
    send_some(a, 0, 10);
    take(b, 10, pkts);
    target(0, -1);
    testbed_sleep_ms(200); /* It drains. */
    assert_int_equal(info_of(0).state, P2P_LINK_NORMAL);
    assert_true(info_of(0).link_id);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(reads_as_before(&pkts[i], i));
    }
    p2p_rx_release(b, 0);
    assert_true(testbed_wait_unlinked(&fx.tb, 0));
    assert_int_equal(stats_of(1).in_dropped, 0);
    wait_for(mapped_regions() == regions);

    /* Not released: the link ends nevertheless, and the packets can be read all the same. */
    link_up(0, 1);
    send_some(a, 10, 10);
    take(b, 6, pkts);
    target(0, -1);
    assert_true(testbed_wait_unlinked(&fx.tb, 0));
    for (unsigned i = 0; i < 6; i++) {
        (void)reads_as_before(&pkts[i], 10 + i);
    }
    assert_int_equal(stats_of(1).in_dropped, 4); /* What is kept has been received. */
    assert_says(info_of(1).last_error, "4 packets of a were left in the channel");
    wait_for(mapped_regions() == regions);
    for (unsigned i = 0; i < 6; i++) {
        assert_false(reads_as_before(&pkts[i], 10 + i));
    }
    /* Meanwhile, packets that come through the switch. */
    send_some(a, 20, 3);
    take(b, 3, pkts + 6);
    for (unsigned i = 6; i < 9; i++) {
        assert_true(reads_as_before(&pkts[i], 20 + i - 6));
    }
    p2p_rx_release(b, 0);
    p2p_rx_release(b, 0);
    link_up(0, 1);
    send_some(a, 30, 3);
    take(b, 3, pkts);
    assert_true(reads_as_before(&pkts[0], 30));
    p2p_rx_release(b, 0);
    assert_int_equal(stats_of(1).in_packets, 23);
}

/* A sender that does not leave the channel when its link is over keeps neither the link nor its receiver. */
static void sender_that_stays(void **state)
{
    struct raw_vnf a;
    struct p2p_prod ring;
    struct p2p_pkt pkts[16];
    struct p2p_region_header h;
    uint8_t frame[64] = { 0 };
    struct p2p_buf buf = { .data = frame, .len = sizeof frame };
    uint64_t bytes = 0, got = 0;
    (void)state;

    fx.tb.cfg.drain_ms = 60000; /* More than anybody here waits for. */
    fixture_start(2);
    raw_vnf_attach(&a, fx.tb.socket, "a");
    struct p2p_port *b = vnf_open("b");
    target(0, 1);
    while (info_of(0).state != P2P_LINK_DIRECT) {
        raw_vnf_obey(&a, 2);
    }
    raw_vnf_take_link(&a);
    h = a.link.hdr;
    unsigned side = strcmp(h.name[0], "a") != 0;
    assert_int_equal(p2p_prod_init(&ring, &a.link, side ? h.n_queues[0] : 0), 0);

    uint64_t start = p2p_epoch_word(1, 0);
    p2p_store_release(&ring.ctl->start, start);
    p2p_store_release(&a.vnf->txq[0].start, start);
    uint64_t until = testbed_now_ms() + 10000;
    while (got < 1000 && testbed_now_ms() < until) {
        (void)p2p_prod_burst(&ring, &buf, 1, &bytes);
        got += p2p_rx_burst(b, 0, pkts, 16);
        p2p_rx_release(b, 0);
    }
    assert_true(got >= 1000);

    target(0, -1);
    while (info_of(0).link_id && testbed_now_ms() < until) {
        for (unsigned i = 0; i < 100; i++) {
            (void)p2p_prod_burst(&ring, &buf, 1, &bytes); /* Never empty. */
            (void)p2p_prod_burst(&ring, &buf, 1, &bytes);
            (void)p2p_rx_burst(b, 0, pkts, 1);
            p2p_rx_release(b, 0);
        }
        raw_vnf_obey(&a, 1);
    }
    assert_int_equal(info_of(0).link_id, 0);
    p2p_prod_uninit(&ring);
    p2p_region_unmap(&a.link);
    raw_vnf_detach(&a);
}

static void packets_kept_while_the_port_is_replaced(void **state)
{
    struct p2p_pkt pkts[64];
    struct p2p_port_info info;
    (void)state;

    fixture_start(2);
    struct p2p_port *a = vnf_open("a"), *b = vnf_open("b");
    link_up(0, 1);
    send_some(a, 0, 5);
    take(b, 5, pkts);
    target(0, -1);
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_NORMAL));
    send_some(a, 5, 5);
    take(b, 5, pkts + 5);
    unsigned n = 10;
    for (unsigned i = 0; i < 3; i++) {
        if (i == 0) {
            testbed_reconfigure(&fx.tb, 1, 2, 1500);
            wait_for((p2p_port_get_info(b, &info), info.n_rxq == 2));
        } else if (i == 1) {
            testbed_remove_port(&fx.tb, 1);
            testbed_put_port(&fx.tb, 1, "b", 3, 1500);
            wait_for((p2p_port_get_info(b, &info), info.n_rxq == 3));
        } else {
            testbed_restart(&fx.tb);
        }
        assert_true(testbed_wait_attached(&fx.tb, 0, true) && testbed_wait_attached(&fx.tb, 1, true));
        wait_for((p2p_port_get_info(b, &info), info.attached));
        for (unsigned k = 0; k < n; k++) {
            assert_true(reads_as_before(&pkts[k], k) || k < 5); /* Those came by a link that is over. */
        }
        send_some(a, n, 5);
        take(b, 5, pkts + n);
        for (unsigned k = n; k < n + 5; k++) {
            assert_true(reads_as_before(&pkts[k], k));
        }
        n += 5;
    }
    unsigned kept = mapped_regions();
    p2p_rx_release(b, 1); /* Another queue: nothing. */
    testbed_sleep_ms(50);
    for (unsigned k = 0; k < n; k++) {
        (void)reads_as_before(&pkts[k], k);
    }
    p2p_rx_release(b, 0);
    wait_for(mapped_regions() < kept); /* Their places are let go. */
}

/* A link that ends without notice, since the peer's port goes, leaves the application time for its burst. */
static void packets_in_hand_when_the_peer_goes(void **state)
{
    struct p2p_pkt pkts[5];
    (void)state;

    fixture_start(2);
    struct p2p_port *b = vnf_open("b");
    for (unsigned i = 0; i < 5; i++) {
        struct p2p_port *a = vnf_open("a");
        link_up(0, 1);
        send_some(a, 0, 5);
        take(b, 5, pkts);
        uint64_t before = testbed_now_ms();
        testbed_remove_port(&fx.tb, 0);
        testbed_sleep_ms(10 + i * 10);
        for (unsigned k = 0; k < 5; k++) {
            bool kept = reads_as_before(&pkts[k], k);
            assert_true(kept || testbed_now_ms() - before > 80);
        }
        p2p_rx_release(b, 0);
        vnf_close(a);
        wait_for(mapped_regions() <= 2); /* b's own, on both sides. */
        testbed_put_port(&fx.tb, 0, "a", 1, 1500);
    }
}

/* An application that never releases anything, and links that come and go. */
static void packets_kept_for_ever(void **state)
{
    (void)state;

    fx.tb.cfg.drain_ms = 20;
    fixture_start(2);
    struct peer *a = peer_start("a", false), *b = peer_start("b", true);
    atomic_store(&b->hoard, true);
    for (unsigned i = 0; i < 10; i++) {
        link_up(0, 1);
        testbed_sleep_ms(10);
        target(0, -1);
        assert_true(testbed_wait_unlinked(&fx.tb, 0));
    }
    atomic_store(&b->hoard, false);
    peer_wait_got(b, 1000);
    link_up(0, 1);
    peer_wait_got(b, 5000);
    peer_wait_sent(a, 1000);
    assert_all_in_order(b);
}

/*
 * Memory that VNFs do not let go.
 */

/* Bytes of memory behind a file. */
static uint64_t memory_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Two VNFs played by the test, linked by a region whose descriptor is returned. */
static int link_raw_vnfs(struct raw_vnf *a, struct raw_vnf *b)
{
    target(0, 1);
    while (info_of(0).state != P2P_LINK_DIRECT) {
        raw_vnf_obey(a, 2);
        raw_vnf_obey(b, 2);
    }
    raw_vnf_take_link(a);
    return dup(a->link.fd);
}

/* A process that attaches again and again, and keeps what it has mapped. */
static void kept_port_regions(void **state)
{
    enum { N = SW_FORMER_MAX + 5 };
    int fd[N];
    struct raw_vnf v;
    (void)state;

    fixture_start(1);
    for (unsigned i = 0; i < N; i++) {
        raw_vnf_attach(&v, fx.tb.socket, "a");
        fd[i] = dup(v.region.fd);
        assert_int_equal(memory_of(fd[i]), v.region.size);
        raw_vnf_detach(&v);
        assert_true(testbed_wait_attached(&fx.tb, 0, false));
    }
    /* The last one is still the port's; those before may be about to be read, and the oldest are empty. */
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(memory_of(fd[i]) != 0, i >= N - 1 - SW_FORMER_MAX);
    }
    pthread_mutex_lock(&fx.tb.sw->mutex);
    fx.tb.sw->former_ms = 1;
    pthread_mutex_unlock(&fx.tb.sw->mutex);
    raw_vnf_attach(&v, fx.tb.socket, "a");
    wait_for(!memory_of(fd[N - 1]));
    raw_vnf_detach(&v);
    for (unsigned i = 0; i < N; i++) {
        close(fd[i]);
    }
}

/* What a process had that has ended, nobody is about to read; somebody it knew might keep it. */
static void kept_for_a_dead_process(void **state)
{
    struct raw_vnf v;
    (void)state;

    fixture_start(1);
    pid_t child = child_add("a");
    assert_true(testbed_wait_attached(&fx.tb, 0, true));
    int fd = dup(fx.tb.port[0].port->region->region.fd);
    child_remove(child);
    assert_true(testbed_wait_attached(&fx.tb, 0, false));
    assert_true(memory_of(fd) > 0);
    raw_vnf_attach(&v, fx.tb.socket, "a");
    assert_int_equal(memory_of(fd), 0);
    raw_vnf_detach(&v);
    close(fd);
}

/* A VNF that says that it has unmapped a link region, and has not. */
static void kept_link_region(void **state)
{
    struct raw_vnf a, b;
    (void)state;

    fixture_start(2);
    raw_vnf_attach(&a, fx.tb.socket, "a");
    raw_vnf_attach(&b, fx.tb.socket, "b");
    int fd = link_raw_vnfs(&a, &b);
    assert_int_equal(memory_of(fd), a.link.size);
    target(0, -1);
    uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS;
    while (memory_of(fd) && testbed_now_ms() < until) {
        raw_vnf_obey(&a, 2);
        raw_vnf_obey(&b, 2);
    }
    assert_int_equal(memory_of(fd), 0);
    assert_string_equal(info_of(0).last_error, ""); /* It has not been taken away by force. */
    raw_vnf_detach(&a);
    raw_vnf_detach(&b);
    close(fd);
}

/* VNFs that hang up may be about to read, so they keep the last link regions, and not those before. */
static void kept_link_regions_of_vnfs_that_hang_up(void **state)
{
    enum { N = SW_FORMER_MAX / 2 + 2 };
    struct raw_vnf a, b;
    int link[N], port[N];
    (void)state;

    fixture_start(2);
    for (unsigned i = 0; i < N; i++) {
        raw_vnf_attach(&a, fx.tb.socket, "a");
        raw_vnf_attach(&b, fx.tb.socket, "b");
        link[i] = link_raw_vnfs(&a, &b);
        port[i] = dup(a.region.fd);
        raw_vnf_detach(&a);
        assert_true(testbed_wait_attached(&fx.tb, 0, false));
        target(0, -1);
        raw_vnf_obey(&b, 50);
        assert_true(memory_of(link[i]) > 0);
        assert_true(memory_of(port[i]) > 0);
        raw_vnf_detach(&b);
        assert_true(testbed_wait_attached(&fx.tb, 1, false));
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < N; i++) {
        kept += (memory_of(link[i]) != 0) + (memory_of(port[i]) != 0);
        close(link[i]);
        close(port[i]);
    }
    assert_in_range(kept, 2, SW_FORMER_MAX + 1);
    assert_true(2 * N > SW_FORMER_MAX + 1);
}

/* A peer that fills its ring with descriptors out of bounds: no burst goes through all of them, and what comes after
 * them comes. */
static void peer_with_many_bad_descriptors(void **state)
{
    struct raw_vnf a;
    struct p2p_port_stats stats;
    struct p2p_pkt pkt;
    (void)state;

    fixture_start(2);
    raw_vnf_attach(&a, fx.tb.socket, "a");
    struct p2p_port *b = vnf_open("b");
    target(0, 1);
    while (info_of(0).state != P2P_LINK_DIRECT) {
        raw_vnf_obey(&a, 2);
    }
    raw_vnf_take_link(&a);
    const struct p2p_ring_geometry *g = &a.link.hdr.ring[strcmp(a.link.hdr.name[0], "a") ? 1 : 0];
    struct p2p_ring_ctl *ctl = p2p_region_at(&a.link, g->ctl_off);
    struct p2p_desc *desc = p2p_region_at(&a.link, g->desc_off);
    uint64_t start = p2p_epoch_word(1, p2p_load(&((struct p2p_ring_ctl *)p2p_region_at(
        &a.region, a.region.hdr.ring[0].ctl_off))->head));

    uint32_t head = p2p_load(&ctl->head);
    for (uint32_t i = 0; i < g->n_desc; i++) {
        desc[(head + i) % g->n_desc] = (struct p2p_desc) { .len = i + 1 == g->n_desc ? 64 : UINT32_MAX };
    }
    p2p_store(&ctl->start, start);
    p2p_store_release(&ctl->head, head + g->n_desc);
    p2p_store_release(&a.vnf->txq[0].start, start);
    unsigned got = 0, empty = 0;
    for (uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS; !got && testbed_now_ms() < until;) {
        p2p_port_get_stats(b, &stats);
        uint64_t before = stats.rx_bad;
        got = p2p_rx_burst(b, 0, &pkt, 1);
        p2p_port_get_stats(b, &stats);
        assert_in_range(stats.rx_bad - before, 0, 1 + P2P_BAD_MAX);
        empty += stats.rx_bad != before && !got;
    }
    assert_int_equal(got, 1);
    assert_int_equal(pkt.len, 64);
    assert_int_equal(stats.rx_bad, g->n_desc - 1);
    assert_in_range(empty, 1, g->n_desc);
    p2p_rx_release(b, 0);
    raw_vnf_detach(&a);
}

int main(int argc, char **argv)
{
    child_main(argc, argv);
#define T(NAME) cmocka_unit_test_setup_teardown(NAME, fixture_setup, fixture_teardown)
    cmocka_set_test_filter(getenv("P2P_TEST")); /* NULL: all. */
    const struct CMUnitTest tests[] = {
        T(no_such_port),
        T(no_switch),
        T(taken_port),
        T(waits_for_the_port_to_be_there),
        T(switch_that_is_none),
        T(stranded_between_two_regions),
        T(close_does_not_wait_for_a_silent_switch),
        T(nothing_is_left_behind),
        T(port_goes_and_comes_back),
        T(switch_ends_and_another_one_begins),
        T(switch_is_killed),
        T(reconfigured_under_traffic),
        T(different_mtus_do_not_link),
        T(killed_sender),
        T(killed_receiver),
        T(stopped_sender),
        T(stopped_receiver),
        T(stopped_vnf_does_not_map),
        T(packets_kept_over_the_end_of_a_link),
        T(sender_that_stays),
        T(packets_kept_while_the_port_is_replaced),
        T(packets_in_hand_when_the_peer_goes),
        T(packets_kept_for_ever),
        T(peer_with_many_bad_descriptors),
        T(kept_port_regions),
        T(kept_for_a_dead_process),
        T(kept_link_region),
        T(kept_link_regions_of_vnfs_that_hang_up),
    };
    return cmocka_run_group_tests_name("attach", tests, NULL, NULL);
}
