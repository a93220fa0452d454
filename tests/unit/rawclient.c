/* SPDX-License-Identifier: Apache-2.0 */
#include "rawclient.h"
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "atomics.h"
#include "sock.h"
#include "testbed.h"

static uint32_t last_seq = 100;

int raw_connect(const char *path)
{
    int sock = p2p_sock_connect(path);

    if (sock < 0) {
        fail_msg("%s: %s", path, strerror(-sock));
    }
    return sock;
}

uint32_t raw_send(int sock, enum p2p_msg_type type, const char *name, uint64_t generation)
{
    struct p2p_msg m;

    p2p_msg_init(&m, type, ++last_seq);
    p2p_copy_name(m.name, sizeof m.name, name ? name : "");
    m.generation = generation;
    assert_int_equal(p2p_msg_send(sock, &m, -1), 0);
    return m.seq;
}

void raw_answer(int sock, uint32_t seq, int error, const char *text)
{
    struct p2p_msg m;

    p2p_msg_init(&m, error ? P2P_MSG_ERROR : P2P_MSG_OK, seq);
    m.error = error;
    p2p_copy_name(m.text, sizeof m.text, text);
    assert_int_equal(p2p_msg_send(sock, &m, -1), 0);
}

/* 0, or what p2p_msg_recv() says; -EAGAIN after 'ms'. */
static int receive(int sock, struct p2p_msg *m, int *fd, unsigned ms)
{
    uint64_t until = testbed_now_ms() + ms;

    for (;;) {
        int error = p2p_msg_recv(sock, m, fd);
        uint64_t now = testbed_now_ms();
        if (error != -EAGAIN || now >= until) {
            return error;
        }
        struct pollfd pfd = { .fd = sock, .events = POLLIN };
        (void)poll(&pfd, 1, (int)(until - now));
    }
}

bool raw_recv(int sock, struct p2p_msg *m, int *fdp, unsigned ms)
{
    int fd;
    int error = receive(sock, m, &fd, ms);

    if (error == -EAGAIN) {
        return false;
    }
    if (error) {
        fail_msg("receiving: %s", strerror(-error));
    }
    if (fdp) {
        *fdp = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    return true;
}

void raw_expect(int sock, enum p2p_msg_type type, struct p2p_msg *m, int *fdp)
{
    uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS;
    int fd;

    while (testbed_now_ms() < until) {
        if (!raw_recv(sock, m, &fd, RAW_PATIENCE_MS)) {
            break;
        }
        if (m->type == type) {
            if (fdp) {
                *fdp = fd;
            } else if (fd >= 0) {
                close(fd);
            }
            return;
        }
        if (m->type == P2P_MSG_ERROR) {
            fail_msg("waiting for message %d, got error %d: %s", type, m->error, m->text);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    fail_msg("no message %d has come", type);
}

void raw_expect_error(int sock, uint32_t seq, int error, const char *word)
{
    struct p2p_msg m;
    int fd;

    do {
        if (!raw_recv(sock, &m, &fd, RAW_PATIENCE_MS)) {
            fail_msg("no error has come");
        }
        assert_int_equal(fd, -1);
    } while (m.type == P2P_MSG_POKE);
    assert_int_equal(m.type, P2P_MSG_ERROR);
    assert_int_equal(m.seq, seq);
    if (m.error != error || !strstr(m.text, word)) {
        fail_msg("error %d \"%s\", expected %d with \"%s\"", m.error, m.text, error, word);
    }
}

bool raw_closed(int sock)
{
    struct p2p_msg m;
    int fd, error;

    do {
        error = receive(sock, &m, &fd, RAW_PATIENCE_MS);
        if (!error && fd >= 0) {
            close(fd);
        }
    } while (!error);
    return error == -ECONNRESET;
}

int raw_hello(const char *path, enum p2p_role role)
{
    int sock = raw_connect(path);
    struct p2p_msg m;

    p2p_msg_init(&m, P2P_MSG_HELLO, 1);
    m.version = P2P_CONTROL_VERSION;
    m.version_min = P2P_CONTROL_VERSION_MIN;
    m.role = role;
    assert_int_equal(p2p_msg_send(sock, &m, -1), 0);
    raw_expect(sock, P2P_MSG_HELLO, &m, NULL);
    assert_int_equal(m.seq, 1);
    assert_int_equal(m.version, P2P_CONTROL_VERSION);
    return sock;
}

/*
 * A VNF.
 */

void raw_vnf_enter(struct raw_vnf *v, int fd, uint64_t size)
{
    struct p2p_error err;

    if (p2p_region_map(&v->region, fd, size, P2P_PORT_MAGIC, 0, &err)) {
        fail_msg("%s", err.text);
    }
    v->sw = p2p_region_at(&v->region, v->region.hdr.switch_page_off);
    v->vnf = p2p_region_at(&v->region, v->region.hdr.vnf_page_off);
    uint64_t session = p2p_random64();
    p2p_store(&v->vnf->version, P2P_LAYOUT_VERSION);
    p2p_store_release(&v->vnf->session, session);
    for (uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS; p2p_load_acquire(&v->sw->session) != session;) {
        if (testbed_now_ms() >= until) {
            fail_msg("the switch has not accepted the VNF");
        }
        testbed_sleep_ms(1);
    }
}

void raw_vnf_attach(struct raw_vnf *v, const char *path, const char *name)
{
    struct p2p_msg m;
    int fd;

    *v = (struct raw_vnf) { .region = P2P_REGION_INIT, .link = P2P_REGION_INIT };
    v->sock = raw_hello(path, P2P_ROLE_VNF);
    uint32_t seq = raw_send(v->sock, P2P_MSG_ATTACH, name, 0);
    raw_expect(v->sock, P2P_MSG_REGION, &m, &fd);
    assert_int_equal(m.seq, seq);
    assert_int_equal(m.link_id, 0);
    assert_true(fd >= 0);
    raw_vnf_enter(v, fd, m.size);
}

static void too_long(const char *what, uint64_t word)
{
    fail_msg("waited too long for %s; the word is %llx", what, (unsigned long long)word);
}

uint64_t raw_vnf_wait_want(struct raw_vnf *v, unsigned slot, enum p2p_want what)
{
    uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS, word;

    while (p2p_want_what(word = p2p_load_acquire(&v->sw->want[slot])) != what) {
        if (testbed_now_ms() >= until) {
            too_long("want", word);
        }
        testbed_sleep_ms(1);
    }
    return word;
}

uint64_t raw_vnf_wait_rx(struct raw_vnf *v, enum p2p_rx_state rx_state)
{
    uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS, word;

    while (p2p_rx_link_state(word = p2p_load_acquire(&v->sw->rx_link)) != rx_state) {
        if (testbed_now_ms() >= until) {
            too_long("rx_link", word);
        }
        testbed_sleep_ms(1);
    }
    return word;
}

uint64_t raw_vnf_wait_mode(struct raw_vnf *v, bool direct)
{
    uint64_t until = testbed_now_ms() + RAW_PATIENCE_MS, word;

    while (p2p_mode_direct(word = p2p_load_acquire(&v->sw->mode)) != direct) {
        if (testbed_now_ms() >= until) {
            too_long("mode", word);
        }
        testbed_sleep_ms(1);
    }
    return word;
}

void raw_vnf_have(struct raw_vnf *v, unsigned slot, uint64_t have)
{
    p2p_store_release(&v->vnf->have[slot], have);
}

void raw_vnf_obey(struct raw_vnf *v, unsigned ms)
{
    for (uint64_t until = testbed_now_ms() + ms; testbed_now_ms() < until; testbed_sleep_ms(1)) {
        p2p_store(&v->vnf->heartbeat, v->vnf->heartbeat + 1);
        p2p_store_release(&v->vnf->mode_ack, p2p_load_acquire(&v->sw->mode));
        p2p_store_release(&v->vnf->rx_link_ack, p2p_load_acquire(&v->sw->rx_link));
        for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
            uint64_t want = p2p_load_acquire(&v->sw->want[k]);
            enum p2p_have have = p2p_want_what(want) == P2P_WANT_MAP ? P2P_HAVE_MAPPED
                                 : p2p_want_what(want) == P2P_WANT_UNMAP ? P2P_HAVE_UNMAPPED : P2P_HAVE_NONE;
            raw_vnf_have(v, k, p2p_have(p2p_want_link(want), 0, have));
        }
    }
}

void raw_vnf_detach(struct raw_vnf *v)
{
    p2p_region_unmap(&v->region);
    p2p_region_unmap(&v->link);
    if (v->sock >= 0) {
        close(v->sock);
        v->sock = -1;
    }
}

void raw_vnf_take_link(struct raw_vnf *v)
{
    struct p2p_error err;
    struct p2p_msg m;
    int fd;

    raw_expect(v->sock, P2P_MSG_REGION, &m, &fd);
    assert_true(m.link_id != 0);
    if (p2p_region_map(&v->link, fd, m.size, P2P_LINK_MAGIC, m.generation, &err)) {
        fail_msg("%s", err.text);
    }
}
