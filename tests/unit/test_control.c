/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's socket and control words: clients that are wrong or hostile, the host agent, VNFs in guests, and VNFs
 * that answer late, wrongly, or not at all.
 *
 * time-limit: 400
 */
#include "fixture.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "atomics.h"
#include "fakepci.h"
#include "rawclient.h"
#include "sock.h"
#include "sw.h"

/* The log lines of the switch with a word that a test waits for. */
static struct {
    const char *word;
    atomic_uint n;
} counted;

static char log_text[8192]; /* The last of them. */

static void count_log(void *aux, enum p2p_log_level level, const char *message)
{
    (void)aux;
    if (getenv("TESTBED_LOG") && level <= (enum p2p_log_level)atoi(getenv("TESTBED_LOG"))) {
        fprintf(stderr, "# %s\n", message);
    }
    if (counted.word && strstr(message, counted.word)) {
        snprintf(log_text, sizeof log_text, "%s", message);
        atomic_fetch_add(&counted.n, 1);
    }
}

static struct fake_agent agent;
static struct raw_vnf raw[2];
static int socks[4]; /* Closed after the test. */
static unsigned fds_before;

static int setup(void **state)
{
    fds_before = open_fds();
    fixture_setup(state);
    fx.tb.cfg.log = count_log;
    fx.tb.cfg.heartbeat_ms = 1000;
    counted.word = NULL;
    atomic_store(&counted.n, 0);
    fake_agent_init(&agent, fx.tb.socket);
    for (unsigned i = 0; i < 2; i++) {
        raw[i] = (struct raw_vnf) { .sock = -1, .region = P2P_REGION_INIT, .link = P2P_REGION_INIT };
    }
    for (unsigned i = 0; i < 4; i++) {
        socks[i] = -1;
    }
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < N_PEERS; i++) {
        if (fx.peer[i].running) {
            peer_stop(&fx.peer[i]);
        }
        p2p_port_close(fx.vnf[i]);
        fx.vnf[i] = NULL;
    }
    fake_agent_destroy(&agent);
    for (unsigned i = 0; i < 2; i++) {
        raw_vnf_detach(&raw[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        if (socks[i] >= 0) {
            close(socks[i]);
        }
    }
    fixture_teardown(state);
    if (open_fds() != fds_before) {
        print_error("# %u descriptors were open before, %u are now\n", fds_before, open_fds());
        return -1;
    }
    return 0;
}

static void assert_says(const char *text, const char *word)
{
    if (!strstr(text, word)) {
        fail_msg("\"%s\" does not say \"%s\"", text, word);
    }
}

/*
 * Clients.
 */

static void hello_as(uint32_t version, uint32_t version_min, uint32_t role, int error, const char *word)
{
    int sock = raw_connect(fx.tb.socket);
    struct p2p_msg m;

    p2p_msg_init(&m, P2P_MSG_HELLO, 5);
    m.version = version;
    m.version_min = version_min;
    m.role = role;
    assert_int_equal(p2p_msg_send(sock, &m, -1), 0);
    if (error) {
        raw_expect_error(sock, 5, error, word);
    } else {
        raw_expect(sock, P2P_MSG_HELLO, &m, NULL);
        assert_int_equal(m.seq, 5);
        assert_int_equal(m.version, P2P_CONTROL_VERSION);
        assert_string_equal(m.text, p2p_version());
    }
    close(sock);
}

static void versions_are_negotiated(void **state)
{
    (void)state;

    fixture_start(1);
    hello_as(P2P_CONTROL_VERSION, P2P_CONTROL_VERSION_MIN, P2P_ROLE_VNF, 0, "");
    hello_as(P2P_CONTROL_VERSION + 7, P2P_CONTROL_VERSION, P2P_ROLE_VNF, 0, ""); /* Newer, and knows ours. */
    hello_as(99, 98, P2P_ROLE_VNF, -EPROTO, "versions 98 to 99 are spoken there, 1 to 1 here: upgrade Open vSwitch");
    hello_as(0, 0, P2P_ROLE_VNF, -EPROTO, "upgrade the client");
    hello_as(UINT32_MAX, UINT32_MAX, P2P_ROLE_AGENT, -EPROTO, "4294967295");
    hello_as(1, 1, 0, -EINVAL, "role 0");
    hello_as(1, 1, 3, -EINVAL, "role 3");
}

static void hello_comes_first_and_once(void **state)
{
    (void)state;

    fixture_start(1);
    int sock = socks[0] = raw_connect(fx.tb.socket);
    raw_expect_error(sock, raw_send(sock, P2P_MSG_ATTACH, "a", 0), -EPROTO, "HELLO comes first");
    raw_expect_error(sock, raw_send(sock, P2P_MSG_CLAIM, "a", 0), -EPROTO, "HELLO comes first");
    raw_expect_error(sock, raw_send(sock, 999, "a", 0), -EPROTO, "HELLO comes first");
    close(sock);
    sock = socks[0] = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
    struct p2p_msg m;
    p2p_msg_init(&m, P2P_MSG_HELLO, 77);
    m.version = m.version_min = 1;
    m.role = P2P_ROLE_AGENT;
    assert_int_equal(p2p_msg_send(sock, &m, -1), 0);
    raw_expect_error(sock, 77, -EPROTO, "HELLO comes once");
    assert_false(info_of(0).attached);
}

static void what_is_not_allowed_or_not_known(void **state)
{
    struct p2p_msg m;
    int fd;
    (void)state;

    fixture_start(2);
    int vnf = socks[0] = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_CLAIM, "a", 0), -EPERM, "only the agent");
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_RELEASE, "a", 0), -EPERM, "only the agent");
    raw_expect_error(vnf, raw_send(vnf, 4711, "a", 0), -EOPNOTSUPP, "message 4711");
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_REGION, "a", 0), -EOPNOTSUPP, "message 3");
    raw_send(vnf, P2P_MSG_OK, "a", 0);    /* Answers to what nobody has asked. */
    raw_send(vnf, P2P_MSG_ERROR, "a", 0);
    raw_send(vnf, P2P_MSG_POKE, NULL, 0);
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_ATTACH, "nobody", 0), -ENOENT, "no port nobody");
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_ATTACH, "", 0), -ENOENT, "no port ");
    raw_send(vnf, P2P_MSG_ATTACH, "a", 0);
    raw_expect(vnf, P2P_MSG_REGION, &m, &fd);
    close(fd);
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_ATTACH, "a", 0), -EINVAL, "one port");
    raw_expect_error(vnf, raw_send(vnf, P2P_MSG_ATTACH, "b", 0), -EINVAL, "one port");

    int ag = socks[1] = raw_hello(fx.tb.socket, P2P_ROLE_AGENT);
    raw_expect(ag, P2P_MSG_PORT, &m, NULL);
    raw_expect(ag, P2P_MSG_PORT, &m, NULL);
    raw_expect_error(ag, raw_send(ag, P2P_MSG_ATTACH, "b", 0), -EINVAL, "a connection attaches one VNF");
}

/* Sends 'len' bytes of a message whose name has no end, whose magic may be wrong, with 'n_fds' descriptors. */
static void send_rubbish(int sock, size_t len, uint32_t magic, unsigned n_fds)
{
    struct p2p_msg m[2];
    memset(m, 'x', sizeof m);
    m[0].magic = magic;
    m[0].type = P2P_MSG_ATTACH;
    m[0].seq = 3;
    struct iovec iov = { .iov_base = m, .iov_len = len };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(64 * sizeof(int))];
    } control = { 0 };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    if (n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        for (unsigned i = 0; i < n_fds; i++) {
            memcpy(CMSG_DATA(c) + i * sizeof(int), &sock, sizeof(int));
        }
    }
    assert_int_equal(sendmsg(sock, &msg, MSG_NOSIGNAL), len);
}

/* Whoever breaks the protocol is dropped, and leaves no descriptor behind. */
static void rubbish_ends_the_connection(void **state)
{
    static const struct {
        size_t len;
        uint32_t magic;
        unsigned n_fds;
    } cases[] = {
        { sizeof(struct p2p_msg), 0x12345678, 0 },
        { sizeof(struct p2p_msg) - 1, P2P_CONTROL_MAGIC, 0 },
        { sizeof(struct p2p_msg) + 1, P2P_CONTROL_MAGIC, 0 },
        { 1, P2P_CONTROL_MAGIC, 0 },
        { 4, P2P_CONTROL_MAGIC, 1 },
        { sizeof(struct p2p_msg), 0, 3 },
        { sizeof(struct p2p_msg), P2P_CONTROL_MAGIC, 64 },
    };
    (void)state;

    fixture_start(1);
    struct p2p_port *port = vnf_open("a");
    unsigned fds = open_fds();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned k = 0; k < 2; k++) {
            int sock = k ? raw_hello(fx.tb.socket, P2P_ROLE_VNF) : raw_connect(fx.tb.socket);
            send_rubbish(sock, cases[i].len, cases[i].magic, cases[i].n_fds);
            assert_true(raw_closed(sock));
            close(sock);
        }
    }
    /* The message is one, but its name and text have no end, and nobody asked for descriptors. */
    int sock = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
    for (unsigned i = 0; i < 100; i++) {
        send_rubbish(sock, sizeof(struct p2p_msg), P2P_CONTROL_MAGIC, 1);
        raw_expect_error(sock, 3, -ENOENT, "xxxx");
    }
    close(sock);
    wait_for(open_fds() == fds);
    struct p2p_port_info info;
    p2p_port_get_info(port, &info);
    assert_true(info.attached); /* Others do not notice. */
}

/* Clients that send without end, and without reading: others are served all the same. */
static void flood(void **state)
{
    (void)state;

    fixture_start(2);
    int sock = socks[0] = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
    struct p2p_msg m;
    p2p_msg_init(&m, 999, 1);
    unsigned sent = 0;
    for (uint64_t until = testbed_now_ms() + 300; testbed_now_ms() < until;) {
        int error = p2p_msg_send(sock, &m, -1);
        if (error && error != -EAGAIN) {
            break; /* It has been dropped, since it does not take its answers. */
        }
        sent += !error;
    }
    print_message("# %u messages\n", sent);
    struct p2p_port *a = vnf_open("a"), *b = vnf_open("b");
    for (unsigned i = 0; i < 2000; i++) {
        (void)p2p_msg_send(sock, &m, -1);
    }
    link_up(0, 1);
    assert_true(vnf_send(a, 5));
    assert_int_equal(vnf_expect(b), 5);
}

static void *attach_late(void *unused)
{
    (void)unused;
    struct p2p_port *port;
    struct p2p_error err;
    if (vnf_try("a", 5000, &port, &err)) {
        return NULL;
    }
    return port;
}

/* No descriptors left: the switch says so once, does not spin, and goes on when there are some again. */
static void out_of_descriptors(void **state)
{
    struct rlimit old, low;
    struct rusage before, after;
    int waiting[16], n = 0;
    (void)state;

    counted.word = "cannot accept a connection";
    fixture_start(1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (; n < 16; n++) { /* Sockets first, while there are descriptors; then not one more. */
        waiting[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    int highest = waiting[n - 1];
    low = old;
    low.rlim_cur = (rlim_t)highest + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", fx.tb.socket);
    for (int i = 0; i < n; i++) {
        assert_int_equal(connect(waiting[i], (struct sockaddr *)&sun, sizeof sun), 0);
    }
    wait_for(atomic_load(&counted.n) > 0);
    getrusage(RUSAGE_SELF, &before);
    testbed_sleep_ms(1000);
    getrusage(RUSAGE_SELF, &after);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    uint64_t busy_us = (uint64_t)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000
                       + (uint64_t)(after.ru_utime.tv_usec - before.ru_utime.tv_usec)
                       + (uint64_t)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000
                       + (uint64_t)(after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    print_message("# %llu us of processor time in 1 s\n", (unsigned long long)busy_us);
    assert_int_equal(atomic_load(&counted.n), 1);
    assert_says(log_text, "Too many open files");
    assert_true(busy_us < 200000);
    pthread_t thread;
    void *port;
    pthread_create(&thread, NULL, attach_late, NULL);
    pthread_join(thread, &port);
    assert_non_null(port);
    p2p_port_close(port);
    for (int i = 0; i < n; i++) {
        close(waiting[i]);
    }
}

/* A region for a VNF cannot be made, for want of descriptors: it hears of it, and may ask again. */
static void no_descriptor_for_a_region(void **state)
{
    struct rlimit old, low;
    struct p2p_msg m;
    int fd;
    (void)state;

    fixture_start(1);
    vnf_close(vnf_open("a")); /* The next one gets a fresh region. */
    wait_for(!info_of(0).attached && !info_of(0).pid);
    int sock = socks[0] = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
    fd = open("/", O_RDONLY | O_CLOEXEC); /* The lowest that is free. */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    uint32_t seq = raw_send(sock, P2P_MSG_ATTACH, "a", 0);
    testbed_sleep_ms(100);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    close(fd);
    raw_expect_error(sock, seq, -ENOMEM, "cannot make shared memory p2plink:a");
    raw_send(sock, P2P_MSG_ATTACH, "a", 0);
    raw_expect(sock, P2P_MSG_REGION, &m, &fd);
    assert_true(fd >= 0);
    close(fd);
}

/* A child of the switch's process that has been forked, and has all its descriptors: a connection that the switch has
 * dropped must not come back to life by what happens to the child's copy. */
static void forked_child_keeps_descriptors(void **state)
{
    int ready[2];
    (void)state;

    fixture_start(1);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    int sock = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
    pid_t pid = fork();
    if (!pid) {
        char c;
        close(ready[1]);
        while (read(ready[0], &c, 1) > 0) { /* Until the parent is done. */
        }
        _exit(0);
    }
    close(ready[0]);
    send_rubbish(sock, 1, 0, 0);        /* The switch drops the connection; the child still has its end. */
    testbed_sleep_ms(50);
    for (unsigned i = 0; i < 20; i++) { /* More to hear on it. */
        (void)send(sock, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        testbed_sleep_ms(1);
    }
    vnf_open("a");
    close(sock);
    close(ready[1]);
    waitpid(pid, NULL, 0);
}

static void socket_is_ours_alone(void **state)
{
    struct stat st;
    (void)state;

    fixture_start(1);
    assert_int_equal(stat(fx.tb.socket, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    struct p2p_switch *second;
    struct p2p_error err;
    assert_int_equal(p2p_switch_create(&fx.tb.cfg, &second, &err), -EADDRINUSE);
    assert_null(second);
    assert_says(err.text, fx.tb.socket);
    vnf_open("a"); /* The first one is still there. */
}

/* A client whose VNF does not come, or that hangs up between two steps. */
static void half_attached(void **state)
{
    struct p2p_msg m;
    int fd;
    (void)state;

    fixture_start(1);
    for (unsigned i = 0; i < 5; i++) {
        int sock = raw_hello(fx.tb.socket, P2P_ROLE_VNF);
        raw_send(sock, P2P_MSG_ATTACH, "a", 0);
        if (i % 2) {
            raw_expect(sock, P2P_MSG_REGION, &m, &fd);
            close(fd);
            struct p2p_port *port;
            struct p2p_error err;
            assert_int_equal(vnf_try("a", 0, &port, &err), -EBUSY);
        }
        close(sock);
    }
    vnf_open("a");
}

/* Who had a region, but has no connection any more, does not get in by writing a session there. */
static void ghosts_are_not_let_in(void **state)
{
    (void)state;

    fixture_start(1);
    raw_vnf_attach(&raw[0], fx.tb.socket, "a");
    close(raw[0].sock);
    raw[0].sock = -1;
    assert_true(testbed_wait_attached(&fx.tb, 0, false));
    for (unsigned i = 0; i < 20; i++) {
        p2p_store_release(&raw[0].vnf->session, 1000 + i);
        testbed_sleep_ms(2);
        assert_false(info_of(0).attached);
    }
    struct p2p_port *port;
    struct p2p_error err;
    assert_int_equal(vnf_try("a", 0, &port, &err), 0); /* Nor does it keep others out. */
    p2p_port_close(port);
}

/*
 * VNFs that answer as they like.
 */

/* Both say that they cannot map the region, and let go as soon as they may. */
static void both_fail_to_map(void **state)
{
    (void)state;

    fx.tb.cfg.retry_ms = 1;
    fixture_start(2);
    raw_vnf_attach(&raw[0], fx.tb.socket, "a");
    raw_vnf_attach(&raw[1], fx.tb.socket, "b");
    target(0, 1);
    target(1, 0);
    unsigned failures = 0;
    for (uint64_t until = testbed_now_ms() + 1500; testbed_now_ms() < until;) {
        for (unsigned v = 0; v < 2; v++) {
            for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
                uint64_t want = p2p_load_acquire(&raw[v].sw->want[k]);
                if (p2p_want_what(want) == P2P_WANT_MAP) {
                    raw_vnf_have(&raw[v], k, p2p_have(p2p_want_link(want), ENOMEM, P2P_HAVE_FAILED));
                    failures++;
                } else if (p2p_want_what(want) == P2P_WANT_UNMAP) {
                    raw_vnf_have(&raw[v], k, p2p_have(p2p_want_link(want), 0, P2P_HAVE_UNMAPPED));
                }
            }
        }
    }
    assert_true(failures > 10);
    target(0, -1);
    target(1, -1);
    assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
    assert_says(info_of(0).last_error, "mapping failed on the side of");
    assert_says(info_of(0).last_error, "Cannot allocate memory");
}

/* A VNF that fills its words with all kinds of values while a link is made and ended with it. */
static void random_words(void **state)
{
    const char *given = getenv("P2P_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : p2p_random64();
    (void)state;

    print_message("# random_words: P2P_SEED=0x%llx\n", (unsigned long long)seed);
    fx.tb.cfg.answer_ms = fx.tb.cfg.plug_ms = fx.tb.cfg.drain_ms = 20;
    fx.tb.cfg.linger_ms = 5;
    fixture_start(2);
    struct peer *b = peer_start("b", false);
    raw_vnf_attach(&raw[0], fx.tb.socket, "a");
    uint64_t session = raw[0].vnf->session;
    for (unsigned i = 0; i < 3000; i++) {
        struct p2p_vnf_page *v = raw[0].vnf;
        uint64_t *words = (uint64_t *)v;
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        unsigned k = seed % P2P_MAX_LINKS;
        uint64_t want = p2p_load(&raw[0].sw->want[k]);
        switch (seed >> 8 & 7) {
        case 0:
            p2p_store(&v->have[k], p2p_have(p2p_want_link(want), (int)(seed >> 20), (enum p2p_have)(seed >> 16 & 7)));
            break;
        case 1:
            p2p_store(&v->mode_ack, p2p_load(&raw[0].sw->mode));
            break;
        case 2:
            p2p_store(&v->rx_link_ack, p2p_load(&raw[0].sw->rx_link));
            break;
        case 3:
            p2p_store(&v->txq[0].start, p2p_epoch_word((uint32_t)(seed >> 12) % 4, (uint32_t)(seed >> 30)));
            break;
        case 4:
            raw_vnf_obey(&raw[0], 2);
            break;
        case 5: {
            struct p2p_ring_ctl *ctl = p2p_region_at(&raw[0].region, raw[0].region.hdr.ring[seed >> 12 & 1].ctl_off);
            p2p_store(seed >> 13 & 1 ? &ctl->head : seed >> 14 & 1 ? &ctl->tail : &ctl->freed, (uint32_t)(seed >> 32));
            break;
        }
        default:
            p2p_store(&words[1 + (seed >> 16) % (sizeof *v / 8 - 1)], seed * 0x9e3779b97f4a7c15u);
            break;
        }
        p2p_store(&v->session, i % 500 == 499 ? ++session : session);
        if (i % 50 == 0) {
            target(0, i % 100 ? 1 : -1);
            target(1, i % 150 ? 0 : -1);
            (void)stats_of(0);
            (void)info_of(1);
        }
        /* It does not read what it is sent. */
    }
    raw_vnf_detach(&raw[0]);
    assert_true(testbed_wait_attached(&fx.tb, 0, false));
    struct peer *a = peer_start("a", false);
    peer_wait_got(b, 10); /* Ours go on. */
    link_up(0, 1);
    link_up(1, 0);
    peer_wait_got(a, 1000);
    peer_wait_got(b, 1000);
    struct p2p_swport_stats s = stats_of(1);
    assert_true(s.in_dropped <= s.in_packets);
}

/* The peer writes what it likes into the link region's header before we map it. */
static void link_with_a_forged_header(void **state)
{
    (void)state;

    fixture_start(2);
    for (unsigned i = 0; i < 4; i++) {
        raw_vnf_attach(&raw[0], fx.tb.socket, "a");
        pid_t pid = child_add("b");
        assert_true(testbed_wait_attached(&fx.tb, 1, true));
        child_stop(pid);
        target(0, 1);
        uint64_t want = raw_vnf_wait_want(&raw[0], 0, P2P_WANT_MAP);
        raw_vnf_take_link(&raw[0]);
        struct p2p_region_header *h = (struct p2p_region_header *)raw[0].link.base;
        switch (i) {
        case 0: h->mtu = 9000; break;                                /* b's application counts on 1500. */
        case 1: h->ring[1].data_off = h->size; break;
        case 2: h->n_queues[!p2p_want_side(want)] = 16; h->n_queues[p2p_want_side(want)] = 2; break;
        case 3: strcpy(h->name[!p2p_want_side(want)], "c"); break;
        }
        child_cont(pid);
        wait_for((raw_vnf_obey(&raw[0], 5), strstr(info_of(1).last_error, "mapping failed")));
        assert_says(info_of(1).last_error, "Protocol error");
        target(0, -1);
        child_remove(pid);
        raw_vnf_detach(&raw[0]);
        assert_true(testbed_wait_attached(&fx.tb, 0, false) && testbed_wait_attached(&fx.tb, 1, false));
        assert_true(testbed_wait_unlinked(&fx.tb, 0));
    }
}

/* A peer that writes into the direct ring what it likes: the receiver skips and counts, and goes on. */
static void hostile_peer_on_a_direct_ring(void **state)
{
    struct p2p_port_stats stats;
    struct p2p_pkt pkts[64];
    (void)state;

    fixture_start(3);
    struct p2p_port *b = vnf_open("b"), *c = vnf_open("c");
    testbed_forward(&fx.tb, 2, 1);
    raw_vnf_attach(&raw[0], fx.tb.socket, "a");
    target(0, 1);
    uint64_t want = raw_vnf_wait_want(&raw[0], 0, P2P_WANT_MAP);
    raw_vnf_take_link(&raw[0]);
    wait_for((raw_vnf_obey(&raw[0], 2), info_of(0).state == P2P_LINK_DIRECT));

    const struct p2p_ring_geometry *g = &raw[0].link.hdr.ring[p2p_want_side(want)]; /* One queue each. */
    struct p2p_ring_ctl *ctl = p2p_region_at(&raw[0].link, g->ctl_off);
    struct p2p_desc *desc = p2p_region_at(&raw[0].link, g->desc_off);
    uint64_t start = p2p_epoch_word(1, 0);
    p2p_store_release(&ctl->start, start);
    p2p_store_release(&raw[0].vnf->txq[0].start, start); /* The switch opens the gate. */
    for (uint32_t i = 0; i < 1000; i++) {
        desc[i] = (struct p2p_desc) { .off = i * 7919 * 64, .len = i % 3 ? i * 91 : UINT32_MAX - i };
        if (i % 10 == 0) {
            desc[i] = (struct p2p_desc) { .off = 0, .len = 60 };
        }
    }
    p2p_store_release(&ctl->head, 1000);
    unsigned got = 0;
    uint64_t bad = 0;
    for (uint64_t until = testbed_now_ms() + 5000; got + bad < 1000 && testbed_now_ms() < until;) {
        unsigned n = p2p_rx_burst(b, 0, pkts, 64);
        for (unsigned i = 0; i < n; i++) {
            volatile uint8_t last = ((const uint8_t *)pkts[i].data)[pkts[i].len - 1];
            (void)last;
            assert_true(pkts[i].len >= P2P_FRAME_MIN && pkts[i].len <= 1522);
        }
        got += n;
        p2p_rx_release(b, 0);
        p2p_port_get_stats(b, &stats);
        bad = stats.rx_bad;
    }
    assert_int_equal(got + bad, 1000);
    assert_true(got >= 100 && bad > 500);
    assert_int_equal(p2p_load(&fx.tb.port[1].port->region->vnf->rxq[0].bad_descs), bad);

    /* Indices that nobody could have, epochs that never were: nothing comes of it; others' packets do. */
    const uint32_t heads[] = { 999, 0, 1000 + g->n_desc + 1, 1u << 31, UINT32_MAX };
    for (unsigned i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        p2p_store_release(&ctl->head, heads[i]);
        p2p_store_release(&ctl->start, p2p_epoch_word(i, i * 1000));
        p2p_store_release(&ctl->tail, i * 77);
        p2p_store_release(&ctl->freed, i * 99);
        assert_true(vnf_send(c, i));
        assert_int_equal(vnf_expect(b), i);
        p2p_rx_release(b, 0);
    }
    p2p_port_get_stats(b, &stats);
    assert_int_equal(stats.rx_bad, bad);
    target(0, -1);
    wait_for((raw_vnf_obey(&raw[0], 2), info_of(0).state == P2P_LINK_NORMAL && !info_of(0).link_id));
    assert_true(vnf_send(c, 50));
    assert_int_equal(vnf_expect(b), 50);
}

/* One direction of a pair ends and begins again on the same channel, while the sender has nothing to send: it goes on
 * in its epoch, and must be heard. */
static void idle_sender_on_the_same_channel(void **state)
{
    (void)state;

    fixture_start(2);
    struct p2p_port *a = vnf_open("a"), *b = vnf_open("b");
    link_up(0, 1);
    link_up(1, 0);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(vnf_send(a, i));
        assert_int_equal(vnf_expect(b), i);
        p2p_rx_release(b, 0);
        uint32_t link_id = info_of(0).link_id;
        target(0, -1);
        assert_true(testbed_wait_unlinked(&fx.tb, 0));
        assert_int_equal(info_of(1).state, P2P_LINK_DIRECT);
        if (i % 3 == 2) {
            assert_true(vnf_send(a, 100 + i));
            assert_int_equal(vnf_expect(b), 100 + i);
            p2p_rx_release(b, 0);
        }
        link_up(0, 1);
        assert_int_equal(info_of(0).link_id, link_id);
    }
    uint64_t direct = stats_of(1).in_packets;
    assert_int_equal(direct, 10);
    assert_int_equal(stats_of(1).in_dropped, 0);
}

/* What was counted as dropped when a direction ended is not received when it begins again. */
static void dropped_packets_do_not_come_back(void **state)
{
    struct p2p_pkt pkts[32];
    (void)state;

    fixture_start(2);
    struct p2p_port *a = vnf_open("a"), *b = vnf_open("b");
    link_up(0, 1);
    link_up(1, 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_true(vnf_send(a, i));
    }
    assert_int_equal(vnf_expect(b), 0); /* The gate is open: the others lie in the channel. */
    p2p_rx_release(b, 0);
    target(0, -1);
    assert_true(testbed_wait_unlinked(&fx.tb, 0));
    assert_int_equal(stats_of(1).in_dropped, 19);
    assert_true(vnf_send(a, 100));
    assert_int_equal(vnf_expect(b), 100);
    p2p_rx_release(b, 0);
    link_up(0, 1);
    assert_true(vnf_send(a, 200));
    assert_int_equal(vnf_expect(b), 200);
    assert_int_equal(p2p_rx_burst(b, 0, pkts, 32), 0);
    assert_int_equal(stats_of(1).in_packets, 21);
    assert_int_equal(stats_of(1).in_dropped, 19);
    assert_true(testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT)); /* The other direction has a new channel, too. */
}

/*
 * The agent.
 */

static void expect_port(int sock, const char *name, int error)
{
    struct p2p_msg m;

    raw_expect(sock, P2P_MSG_PORT, &m, NULL);
    assert_string_equal(m.name, name);
    assert_int_equal(m.error, error);
    assert_int_equal(m.seq, 0);
}

static void agent_hears_of_ports(void **state)
{
    struct p2p_msg m;
    (void)state;

    fixture_start(1);
    int ag = socks[0] = raw_hello(fx.tb.socket, P2P_ROLE_AGENT);
    expect_port(ag, "a", 0);
    testbed_add_port(&fx.tb, "b", 1, 1500);
    expect_port(ag, "b", 0);
    testbed_remove_port(&fx.tb, 1);
    expect_port(ag, "b", -ENOENT);
    testbed_put_port(&fx.tb, 1, "b", 2, 1500);
    expect_port(ag, "b", 0);

    int second = socks[1] = raw_connect(fx.tb.socket);
    p2p_msg_init(&m, P2P_MSG_HELLO, 9);
    m.version = m.version_min = 1;
    m.role = P2P_ROLE_AGENT;
    assert_int_equal(p2p_msg_send(second, &m, -1), 0);
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    raw_expect_error(second, 9, -EBUSY, pid);
    close(ag);
    socks[0] = -1;
    for (int error = -EBUSY; error;) { /* As soon as the switch has seen it go. */
        testbed_sleep_ms(5);
        assert_int_equal(p2p_msg_send(second, &m, -1), 0);
        struct p2p_msg answer;
        do {
            assert_true(raw_recv(second, &answer, NULL, 5000));
        } while (answer.seq != 9);
        error = answer.type == P2P_MSG_HELLO ? 0 : answer.error;
    }
    for (unsigned i = 0; i < 2; i++) {
        raw_expect(second, P2P_MSG_PORT, &m, NULL);
    }
}

/* More ports than a socket's ordinary buffer has room for. */
static void agent_hears_of_many_ports(void **state)
{
    enum { N = 250 };
    struct p2p_swport *port[N];
    struct p2p_error err;
    struct p2p_msg m;
    (void)state;

    fixture_start(0);
    for (unsigned i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "port%u", i);
        struct p2p_swport_config cfg = { .name = name, .n_queues = 1, .mtu = 1500, .numa_node = -1 };
        if (p2p_swport_create(fx.tb.sw, &cfg, &port[i], &err)) {
            fail_msg("%s", err.text);
        }
    }
    int ag = socks[0] = raw_connect(fx.tb.socket);
    p2p_msg_init(&m, P2P_MSG_HELLO, 1);
    m.version = m.version_min = 1;
    m.role = P2P_ROLE_AGENT;
    assert_int_equal(p2p_msg_send(ag, &m, -1), 0);
    testbed_sleep_ms(300); /* It is slow to read. */
    raw_expect(ag, P2P_MSG_HELLO, &m, NULL);
    for (unsigned i = 0; i < N; i++) {
        raw_expect(ag, P2P_MSG_PORT, &m, NULL);
    }
    for (unsigned i = 0; i < N; i++) {
        p2p_swport_destroy(port[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        raw_expect(ag, P2P_MSG_PORT, &m, NULL);
        assert_int_equal(m.error, -ENOENT);
    }
}

/* CLAIMs 'name' and takes the answer; returns the generation. */
static uint64_t claim(int ag, const char *name, uint64_t generation, int *fdp, uint64_t *size)
{
    struct p2p_msg m;
    uint32_t seq = raw_send(ag, P2P_MSG_CLAIM, name, generation);

    raw_expect(ag, P2P_MSG_REGION, &m, fdp);
    assert_int_equal(m.seq, seq);
    assert_string_equal(m.name, name);
    assert_int_equal(m.link_id, 0);
    generation = m.generation;
    *size = m.size;
    do {
        raw_expect(ag, P2P_MSG_OK, &m, NULL);
    } while (m.seq != seq);
    return generation;
}

static void claims(void **state)
{
    struct p2p_port *port;
    struct p2p_error err;
    struct p2p_msg m;
    uint64_t size;
    int fd;
    (void)state;

    fixture_start(2);
    int ag = socks[0] = raw_hello(fx.tb.socket, P2P_ROLE_AGENT);
    expect_port(ag, "b", 0);
    expect_port(ag, "a", 0);
    raw_expect_error(ag, raw_send(ag, P2P_MSG_CLAIM, "nobody", 0), -ENOENT, "no port nobody");
    raw_expect_error(ag, raw_send(ag, P2P_MSG_RELEASE, "nobody", 0), -ENOENT, "no port nobody");
    struct p2p_port *process = vnf_open("a");
    raw_expect_error(ag, raw_send(ag, P2P_MSG_CLAIM, "a", 0), -EBUSY, "taken by the process with pid");
    vnf_close(process);
    wait_for(!info_of(0).attached && !info_of(0).pid); /* It has left, and the switch has seen its socket close. */

    uint64_t first = claim(ag, "a", 0, &fd, &size);
    assert_true(fd >= 0 && size == info_of(0).region_size && first == info_of(0).generation);
    close(fd);
    assert_int_equal(vnf_try("a", 0, &port, &err), -EBUSY);
    assert_says(err.text, "plugged into a VM");
    assert_int_equal(claim(ag, "a", first, &fd, &size), first); /* It is what we have. */
    close(fd);
    uint64_t second = claim(ag, "a", first + 1, &fd, &size);    /* It is not. */
    assert_true(second != first);
    close(fd);
    uint64_t third = claim(ag, "a", 0, &fd, &size);             /* A new VM. */
    assert_true(third != first && third != second);
    close(fd);
    assert_int_equal(info_of(0).attached, 0);
    uint32_t seq = raw_send(ag, P2P_MSG_RELEASE, "a", 0);
    raw_expect(ag, P2P_MSG_OK, &m, NULL);
    assert_int_equal(m.seq, seq);
    assert_int_equal(vnf_try("a", 0, &port, &err), 0);
    assert_true(info_of(0).generation != third);
    p2p_port_close(port);
    raw_send(ag, P2P_MSG_RELEASE, "b", 0); /* Of what is not claimed: nothing. */
    raw_expect(ag, P2P_MSG_OK, &m, NULL);
}

/*
 * VNFs in guests.
 */

static struct p2p_port *guest_open(const char *name)
{
    struct p2p_error err;

    for (unsigned i = 0; i < N_PEERS; i++) {
        if (!fx.vnf[i]) {
            if (fake_vm_open(fake_agent_vm(&agent, name), name, 5000, &fx.vnf[i], &err)) {
                fail_msg("%s: %s", name, err.text);
            }
            return fx.vnf[i];
        }
    }
    fail_msg("too many VNFs");
    return NULL;
}

static struct p2p_port *ga, *gb;

/* Two guests, a and b. */
static void two_guests(void)
{
    fixture_start(2);
    fake_agent_add(&agent, "a");
    fake_agent_add(&agent, "b");
    fake_agent_start(&agent);
    ga = guest_open("a");
    gb = guest_open("b");
}

static void exchange(struct p2p_port *a, struct p2p_port *b)
{
    static uint64_t seq;

    for (unsigned i = 0; i < 50; i++) {
        wait_for(vnf_send(a, ++seq));
        assert_int_equal(vnf_expect(b), seq);
        p2p_rx_release(b, 0);
        wait_for(vnf_send(b, ++seq));
        assert_int_equal(vnf_expect(a), seq);
        p2p_rx_release(a, 0);
    }
}

static void guests_get_a_channel(void **state)
{
    struct p2p_port_info info;
    (void)state;

    two_guests();
    p2p_port_get_info(ga, &info);
    assert_true(info.in_guest && info.attached && info.link_up);
    assert_true(info_of(0).in_guest && info_of(0).attached && info_of(0).pid == 0);
    exchange(ga, gb);
    assert_int_equal(stats_of(0).out_packets, 0);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t was = stats_of(0).out_packets;
        link_up(0, 1);
        link_up(1, 0);
        exchange(ga, gb);
        assert_int_equal(stats_of(0).out_packets, was + 50);
        assert_int_equal(stats_of(0).in_packets, was + 50);
        assert_int_equal(fake_vm_devices(fake_agent_vm(&agent, "a")), 2);
        assert_int_equal(fake_vm_devices(fake_agent_vm(&agent, "b")), 2);
        target(0, -1);
        target(1, -1);
        assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
        exchange(ga, gb);
        wait_for(atomic_load(&agent.unplugs) == 2 * (i + 1));
        assert_int_equal(atomic_load(&agent.plugs), 2 * (i + 1));
        assert_int_equal(fake_vm_devices(fake_agent_vm(&agent, "a")), 1);
        assert_int_equal(fake_vm_devices(fake_agent_vm(&agent, "b")), 1);
    }
    assert_string_equal(info_of(0).last_error, "");
    assert_string_equal(info_of(1).last_error, "");
}

static void guest_and_process(void **state)
{
    (void)state;

    fixture_start(2);
    fake_agent_add(&agent, "a");
    fake_agent_start(&agent);
    ga = guest_open("a");
    gb = vnf_open("b");
    link_up(0, 1);
    link_up(1, 0);
    exchange(ga, gb);
    assert_int_equal(stats_of(0).out_packets, 50);
    assert_int_equal(atomic_load(&agent.plugs), 1);
    vnf_close(gb); /* The process goes: the guest's device, too. */
    assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
    wait_for(atomic_load(&agent.unplugs) == 1);
    gb = vnf_open("b");
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT) && testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT));
    exchange(ga, gb);
}

static void vm_refuses_the_device(void **state)
{
    (void)state;

    two_guests();
    atomic_store(&agent.refuse, true);
    target(0, 1);
    wait_for(strstr(info_of(0).last_error, "cannot plug: the VM says no"));
    exchange(ga, gb);
    atomic_store(&agent.refuse, false);
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT));
    exchange(ga, gb);

    atomic_store(&agent.refuse, true);
    target(0, -1);
    wait_for(strstr(info_of(0).last_error, "cannot unplug: the VM says no"));
    atomic_store(&agent.refuse, false);
    exchange(ga, gb);
    link_up(0, 1);
    exchange(ga, gb);
}

static void agent_does_not_answer(void **state)
{
    (void)state;

    fx.tb.cfg.plug_ms = 200;
    two_guests();
    atomic_store(&agent.mute, true);
    target(0, 1);
    wait_for(strstr(info_of(0).last_error, "the guest has not mapped its device"));
    assert_says(info_of(0).last_error, "Connection timed out");
    exchange(ga, gb);
    atomic_store(&agent.mute, false);
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT));
    exchange(ga, gb);

    atomic_store(&agent.mute, true);
    target(0, -1);
    wait_for(strstr(info_of(0).last_error, "the VM has not let its device go within 200 ms"));
    exchange(ga, gb);
    atomic_store(&agent.mute, false);
    link_up(0, 1);
    exchange(ga, gb);
}

static void agent_restarts_while_direct(void **state)
{
    (void)state;

    two_guests();
    link_up(0, 1);
    link_up(1, 0);
    exchange(ga, gb);
    struct p2p_swport_info before = info_of(0);
    fake_agent_stop(&agent);
    testbed_sleep_ms(100);
    exchange(ga, gb);
    assert_int_equal(info_of(0).state, P2P_LINK_DIRECT);
    fake_agent_start(&agent);
    wait_for(atomic_load(&agent.claims_done) == 2);
    assert_int_equal(atomic_load(&agent.plugs), 4); /* It has been told anew what its VMs should have. */
    exchange(ga, gb);
    struct p2p_swport_info after = info_of(0);
    assert_int_equal(after.state, P2P_LINK_DIRECT);
    assert_int_equal(after.link_id, before.link_id);
    assert_int_equal(after.generation, before.generation);

    /* A link that ends while the agent is away: when it is back, it is not told to keep the device. */
    fake_agent_stop(&agent);
    target(0, -1);
    target(1, -1);
    assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
    testbed_sleep_ms(fx.tb.cfg.linger_ms + 50);
    fake_agent_start(&agent);
    wait_for(atomic_load(&agent.claims_done) == 2);
    assert_int_equal(atomic_load(&agent.plugs), 4);
    exchange(ga, gb);
    link_up(0, 1);
    exchange(ga, gb);
}

static void agent_restarts_while_provisioning(void **state)
{
    (void)state;

    fx.tb.cfg.plug_ms = 4000;
    two_guests();
    atomic_store(&agent.mute, true);
    target(0, 1);
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_PROVISIONING));
    fake_agent_stop(&agent);
    uint32_t link_id = info_of(0).link_id;
    atomic_store(&agent.mute, false);
    testbed_sleep_ms(50);
    fake_agent_start(&agent);
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT));
    assert_int_equal(info_of(0).link_id, link_id); /* The same attempt. */
    exchange(ga, gb);
}

/* The agent says that the VM is another one. */
static void vm_is_replaced(void **state)
{
    (void)state;

    two_guests();
    link_up(0, 1);
    link_up(1, 0);
    exchange(ga, gb);
    uint64_t before = info_of(0).generation;
    fake_agent_stop(&agent);
    fake_vm_unplug(fake_agent_vm(&agent, "a"), agent.port[0].generation);
    agent.port[0].generation = 0;
    fake_agent_start(&agent);
    wait_for(info_of(0).generation != before);
    assert_true(testbed_wait_attached(&fx.tb, 0, true)); /* The "new VM" is the old one with a new device. */
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT) && testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT));
    exchange(ga, gb);
}

static void vm_is_released(void **state)
{
    (void)state;

    two_guests();
    link_up(0, 1);
    link_up(1, 0);
    exchange(ga, gb);
    raw_send(agent.sock, P2P_MSG_RELEASE, "a", 0);
    assert_true(testbed_wait_attached(&fx.tb, 0, false));
    assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
    fake_agent_stop(&agent);
    vnf_close(ga);
    ga = vnf_open("a"); /* A process may have it now. */
    exchange(ga, gb);
}

static void port_is_reconfigured(void **state)
{
    struct p2p_port_info info;
    (void)state;

    two_guests();
    for (unsigned i = 0; i < 3; i++) {
        link_up(0, 1);
        link_up(1, 0);
        exchange(ga, gb);
        testbed_reconfigure(&fx.tb, 1, 2 + i, 1500);
        wait_for((p2p_port_get_info(gb, &info), info.n_rxq == 2 + i));
        assert_true(testbed_wait_attached(&fx.tb, 1, true));
        wait_for(atomic_load(&agent.replugs) == i + 1);
        wait_for((p2p_port_get_info(gb, &info), info.attached));
        exchange(ga, gb);
    }
    atomic_store(&agent.refuse, true);
    testbed_reconfigure(&fx.tb, 1, 1, 1500);
    wait_for(strstr(info_of(1).last_error, "cannot plug the new port region: the VM says no"));
    assert_false(info_of(1).attached);
}

/* A VNF that the test plays, in the VM of port "a". */
static void raw_guest(void)
{
    wait_for(atomic_load(&agent.claims_done) >= 1);
    pthread_mutex_lock(&agent.mutex);
    int fd = fcntl(fake_agent_vm(&agent, "a")->fd[0], F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&agent.mutex);
    raw_vnf_enter(&raw[0], fd, info_of(0).region_size);
}

/* A guest gives no sign when it dies, but that its heart stops. */
static void guest_dies(void **state)
{
    (void)state;

    fx.tb.cfg.heartbeat_ms = 200;
    fixture_start(2);
    fake_agent_add(&agent, "a");
    fake_agent_start(&agent);
    struct peer *b = peer_start("b", false);
    raw_guest();
    assert_true(info_of(0).in_guest);
    target(1, 0);
    target(0, 1);
    wait_for((raw_vnf_obey(&raw[0], 2), info_of(0).state == P2P_LINK_DIRECT && info_of(1).state == P2P_LINK_DIRECT));
    raw_vnf_obey(&raw[0], 400);
    assert_true(info_of(0).attached);

    uint64_t before = testbed_now_ms();
    assert_true(testbed_wait_attached(&fx.tb, 0, false));
    assert_true(testbed_now_ms() - before >= 150);
    assert_true(testbed_wait_unlinked(&fx.tb, 0) && testbed_wait_unlinked(&fx.tb, 1));
    assert_true(testbed_now_ms() - before < 3000);
    peer_wait_sent(b, 3000);

    /* It wakes up after all: not with the session that is over. */
    raw_vnf_obey(&raw[0], 50);
    assert_false(info_of(0).attached);
    assert_int_equal(p2p_load(&raw[0].sw->session), 0);
    p2p_store_release(&raw[0].vnf->session, raw[0].vnf->session + 1);
    wait_for((raw_vnf_obey(&raw[0], 2), info_of(0).state == P2P_LINK_DIRECT && info_of(1).state == P2P_LINK_DIRECT));
}

/* A VNF program in a guest that ends and is started again, with and without saying good-bye, in the same region. */
static void guest_starts_again(void **state)
{
    (void)state;

    two_guests();
    uint64_t generation = info_of(0).generation;
    for (unsigned i = 0; i < 5; i++) {
        link_up(0, 1);
        link_up(1, 0);
        exchange(ga, gb);
        vnf_close(ga);
        assert_true(testbed_wait_attached(&fx.tb, 0, false));
        ga = guest_open("a");
        assert_true(testbed_wait_attached(&fx.tb, 0, true));
        exchange(ga, gb);
    }
    vnf_close(ga);
    assert_true(testbed_wait_attached(&fx.tb, 0, false));
    raw_guest();
    wait_for((raw_vnf_obey(&raw[0], 2), info_of(0).state == P2P_LINK_DIRECT && info_of(1).state == P2P_LINK_DIRECT));
    ga = guest_open("a"); /* While the switch takes the former one for alive. */
    assert_true(testbed_wait_state(&fx.tb, 0, P2P_LINK_DIRECT) && testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT));
    exchange(ga, gb);
    assert_int_equal(info_of(0).generation, generation);
}

/* Lets the PMD go on when a's next VNF has introduced itself, and takes what comes to b. */
static void *late_gate_main(void *got_)
{
    unsigned *got = got_;
    struct p2p_pkt pkts[8];
    uint64_t until = testbed_now_ms() + 10000;

    while (!p2p_load_acquire(&fx.tb.port[0].port->region->vnf->session) && testbed_now_ms() < until) {
        testbed_sleep_ms(1);
    }
    atomic_store(&fx.tb.pause, false);
    while (*got < 3 && testbed_now_ms() < until) {
        *got += p2p_rx_burst(gb, 0, pkts, 8);
        p2p_rx_release(gb, 0);
    }
    return NULL;
}

/* A VNF in a guest ends while packets lie in the direct ring whose gate is still to be opened; the next one comes at
 * once, in the same region, and must not take that away. */
static void guest_ends_before_its_gate_is_open(void **state)
{
    pthread_t thread;
    unsigned got = 0;
    (void)state;

    two_guests();
    link_up(0, 1);
    atomic_store(&fx.tb.pause, true);
    testbed_sleep_ms(10); /* Nothing is lost if it has not come to rest by now, only this test sees nothing. */
    for (unsigned i = 0; i < 3; i++) {
        assert_true(vnf_send(ga, i));
    }
    vnf_close(ga);
    assert_int_equal(pthread_create(&thread, NULL, late_gate_main, &got), 0);
    ga = guest_open("a");
    pthread_join(thread, NULL);
    assert_int_equal(got, 3);
    assert_string_equal(info_of(1).last_error, "");
    exchange(ga, gb);
}

/* The n-th device of the commands for port 'port': its descriptor (a new one) and generation. */
static int by_hand(int port, unsigned n, uint64_t *generation)
{
    char text[4096], path[64];
    int pid, fd;

    assert_true((size_t)p2p_swport_plug_commands(fx.tb.port[port].port, text, sizeof text) < sizeof text);
    const char *at = text;
    for (unsigned i = 0; at && i <= n; i++) {
        at = strstr(i ? at + 1 : at, "\"mem-path\"");
    }
    if (!at) {
        return -1;
    }
    assert_int_equal(sscanf(at, "\"mem-path\":\"/proc/%d/fd/%d\"", &pid, &fd), 2);
    assert_int_equal(pid, getpid());
    const char *id = strstr(at, "\"driver\":\"ivshmem-plain\",\"id\":\"p2plink-");
    assert_non_null(id);
    unsigned long long g;
    assert_int_equal(sscanf(id, "\"driver\":\"ivshmem-plain\",\"id\":\"p2plink-%*4s-%llx\"", &g), 1);
    *generation = g;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void plugged_by_hand(void **state)
{
    struct fake_vm vm;
    struct p2p_error err;
    uint64_t generation, of_process;
    (void)state;

    counted.word = "plugged by hand";
    fx.tb.cfg.plug_ms = 100;
    fixture_start(2);
    struct peer *b = peer_start("b", false);

    /* What a process had is not for a VM. */
    struct p2p_port *process = vnf_open("a");
    vnf_close(process);
    wait_for(!info_of(0).attached && !info_of(0).pid);
    of_process = info_of(0).generation;

    fake_vm_init(&vm);
    int fd = by_hand(0, 0, &generation);
    assert_true(generation != of_process && generation == info_of(0).generation);
    fake_vm_plug(&vm, fd, generation);
    if (fake_vm_open(&vm, "a", 1000, &fx.vnf[0], &err)) {
        fail_msg("%s", err.text);
    }
    assert_true(info_of(0).in_guest && info_of(0).attached);
    struct p2p_port *port;
    assert_int_equal(vnf_try("a", 0, &port, &err), -EBUSY);
    target(1, 0);
    assert_true(testbed_wait_state(&fx.tb, 1, P2P_LINK_PROVISIONING));
    uint32_t link_id = info_of(1).link_id;
    testbed_sleep_ms(500); /* Whoever does it takes his time. */
    assert_int_equal(info_of(1).state, P2P_LINK_PROVISIONING);
    assert_int_equal(info_of(1).link_id, link_id);
    assert_int_equal(atomic_load(&counted.n), 1);
    assert_says(log_text, "p2plinkctl commands a");
    assert_says(log_text, "device_add");
    fake_vm_plug(&vm, by_hand(0, 1, &generation), generation);
    assert_true(testbed_wait_state(&fx.tb, 1, P2P_LINK_DIRECT));
    wait_for(stats_of(0).in_packets >= 100);
    /* The whole text, and its length in any buffer. */
    char small[16];
    assert_true(p2p_swport_plug_commands(fx.tb.port[0].port, small, sizeof small) > 500);
    assert_int_equal(small[sizeof small - 1], 0);
    assert_true(p2p_swport_plug_commands(fx.tb.port[0].port, NULL, 0) > 500);
    target(1, -1);
    assert_true(testbed_wait_unlinked(&fx.tb, 1));
    target(1, 0);
    assert_true(testbed_wait_state(&fx.tb, 1, P2P_LINK_PROVISIONING));
    assert_int_equal(atomic_load(&counted.n), 1); /* Said once. */
    target(1, -1);
    assert_true(testbed_wait_unlinked(&fx.tb, 1));
    vnf_close(fx.vnf[0]);
    fake_vm_destroy(&vm);
    peer_wait_sent(b, 100);
}

static int plug_copy(struct fake_vm *vm, const char *name, uint32_t version, uint64_t *generation)
{
    struct p2p_region_spec spec = { .n_queues = { 1, 1 }, .mtu = 1500, .numa_node = -1, .name = { name, NULL } };
    struct p2p_logger log = { 0 };
    struct p2p_region r;

    assert_int_equal(p2p_region_create(&r, &spec, &log, NULL), 0);
    ((struct p2p_region_header *)r.base)->version_min = version;
    *generation = r.hdr.generation;
    int fd = fcntl(r.fd, F_DUPFD_CLOEXEC, 0);
    p2p_region_unmap(&r);
    return fake_vm_plug(vm, fd, *generation);
}

static void guest_finds_no_port(void **state)
{
    struct fake_vm vm;
    struct p2p_port *port;
    struct p2p_error err;
    uint64_t generation;
    char path[128];
    (void)state;

    fake_vm_init(&vm);
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -ENOENT);
    assert_says(err.text, "no ivshmem device carries port a");
    plug_copy(&vm, "other", 1, &generation);
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -ENOENT);
    /* A link region whose header has been written over by the peer: the device says that it is none. */
    struct p2p_region_header h;
    uint64_t magic = P2P_PORT_MAGIC, none = 0;
    int slot = plug_copy(&vm, "a", 1, &generation);
    assert_int_equal(pread(vm.fd[slot], &h, sizeof h, 0), sizeof h);
    fake_vm_unplug(&vm, generation);
    int fd = memfd_create("link", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)h.size), 0);
    fake_vm_plug(&vm, fd, 77);
    assert_int_equal(pwrite(fd, &h, sizeof h, 0), sizeof h);
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -ENOENT);
    fake_vm_unplug(&vm, 77);

    /* A device of the right kind that is no region, one that is too small, one without memory. */
    fd = memfd_create("other", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 4 << 20), 0);
    assert_int_equal(pwrite(fd, &magic, sizeof magic, 0), sizeof magic);
    fake_vm_plug(&vm, fd, 1);
    assert_int_equal(pwrite(fd, &none, sizeof none, 0), sizeof none);
    fd = memfd_create("small", MFD_CLOEXEC);
    assert_int_equal(pwrite(fd, &magic, sizeof magic, 0), sizeof magic);
    fake_vm_plug(&vm, fd, 2);
    slot = fake_vm_plug(&vm, memfd_create("gone", MFD_CLOEXEC), 3);
    snprintf(path, sizeof path, "%s/bus/pci/devices/0000:00:%02x.0/resource2_wc", vm.sysfs, slot + 5);
    unlink(path);
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -ENOENT);

    plug_copy(&vm, "a", 5, &generation);
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -EPROTO);
    assert_says(err.text, "needs a library that knows version 5");
    plug_copy(&vm, "a", 1, &generation); /* A newer one; but there is no switch behind it. */
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -ETIMEDOUT);
    assert_says(err.text, "has not accepted port a");
    fake_vm_destroy(&vm);
    assert_int_equal(fake_vm_open(&vm, "a", 0, &port, &err), -ENOENT);
    assert_says(err.text, vm.sysfs);
    rmdir(fx.tb.dir);
}

int main(int argc, char **argv)
{
    child_main(argc, argv);
    cmocka_set_test_filter(getenv("P2P_TEST")); /* NULL: all. */
#define T(NAME) cmocka_unit_test_setup_teardown(NAME, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(versions_are_negotiated),
        T(hello_comes_first_and_once),
        T(what_is_not_allowed_or_not_known),
        T(rubbish_ends_the_connection),
        T(flood),
        T(out_of_descriptors),
        T(no_descriptor_for_a_region),
        T(forked_child_keeps_descriptors),
        T(socket_is_ours_alone),
        T(half_attached),
        T(ghosts_are_not_let_in),
        T(both_fail_to_map),
        T(random_words),
        T(link_with_a_forged_header),
        T(hostile_peer_on_a_direct_ring),
        T(idle_sender_on_the_same_channel),
        T(dropped_packets_do_not_come_back),
        T(agent_hears_of_ports),
        T(agent_hears_of_many_ports),
        T(claims),
        T(guests_get_a_channel),
        T(guest_and_process),
        T(vm_refuses_the_device),
        T(agent_does_not_answer),
        T(agent_restarts_while_direct),
        T(agent_restarts_while_provisioning),
        T(vm_is_replaced),
        T(vm_is_released),
        T(port_is_reconfigured),
        T(guest_dies),
        T(guest_starts_again),
        T(guest_ends_before_its_gate_is_open),
        T(plugged_by_hand),
        T(guest_finds_no_port),
    };
    return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
