/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's unix socket: VNFs on the host, and the host agent.
 *
 * With the switch's mutex held.  Clients are not trusted: a message that makes no sense gets an error, a client that
 * does not read its socket loses messages (it looks at its words by itself), one that breaks the protocol is dropped.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "sock.h"
#include "sw.h"

#define AGENT_BUFFER (4 << 20) /* Bytes of messages that the agent has not read yet: some thousands. */
#define ACCEPT_PAUSE_MS 100u
#define IDLE_MAX 256u /* Connections that are neither a VNF's nor the agent's. */

uint32_t sw_conn_seq(struct p2p_switch *sw)
{
    sw->next_seq += 1 + (sw->next_seq == UINT32_MAX);
    return sw->next_seq;
}

static void send_msg(struct sw_conn *conn, const struct p2p_msg *m, int fd)
{
    int error = p2p_msg_send(conn->fd, m, fd);
    if (error && m->type != P2P_MSG_POKE) {
        conn->dead = true; /* It would wait for ever for what it has not got. */
    }
}

void sw_conn_send_error(struct sw_conn *conn, uint32_t seq, int error, const char *fmt, ...)
{
    struct p2p_msg m;
    va_list args;

    p2p_msg_init(&m, P2P_MSG_ERROR, seq);
    m.error = error;
    va_start(args, fmt);
    vsnprintf(m.text, sizeof m.text, fmt, args);
    va_end(args);
    send_msg(conn, &m, -1);
}

/* A message about a region, with its descriptor if it has one. */
void sw_conn_send_region(struct sw_conn *conn, uint32_t seq, enum p2p_msg_type type, const char *name,
                         const struct p2p_region *r)
{
    struct p2p_msg m;

    p2p_msg_init(&m, type, seq);
    m.link_id = r->hdr.link_id;
    m.generation = r->hdr.generation;
    m.size = r->size;
    p2p_copy_name(m.name, sizeof m.name, name);
    send_msg(conn, &m, r->fd);
}

void sw_conn_send_port(struct sw_conn *conn, const struct p2p_swport *port, int error)
{
    struct p2p_msg m;

    p2p_msg_init(&m, P2P_MSG_PORT, 0);
    m.error = error;
    p2p_copy_name(m.name, sizeof m.name, port->name);
    send_msg(conn, &m, -1);
}

void sw_conn_send_ok(struct sw_conn *conn, uint32_t seq)
{
    struct p2p_msg m;
    p2p_msg_init(&m, P2P_MSG_OK, seq);
    send_msg(conn, &m, -1);
}

static void hello(struct p2p_switch *sw, struct sw_conn *conn, const struct p2p_msg *m)
{
    if (m->version_min > P2P_CONTROL_VERSION || m->version < P2P_CONTROL_VERSION_MIN) {
        sw_conn_send_error(conn, m->seq, -EPROTO, "control versions %u to %u are spoken there, %u to %u here: "
                           "upgrade %s",
                           m->version_min, m->version, P2P_CONTROL_VERSION_MIN, P2P_CONTROL_VERSION,
                           m->version_min > P2P_CONTROL_VERSION ? "Open vSwitch" : "the client");
        return;
    }
    if (m->role != P2P_ROLE_VNF && m->role != P2P_ROLE_AGENT) {
        sw_conn_send_error(conn, m->seq, -EINVAL, "role %u is not known", m->role);
        return;
    }
    if (conn->role) {
        sw_conn_send_error(conn, m->seq, -EPROTO, "HELLO comes once");
        return;
    }
    if (m->role == P2P_ROLE_AGENT && conn->uid && conn->uid != geteuid()) {
        /* It would get the memory of every port. */
        sw_conn_send_error(conn, m->seq, -EPERM, "the agent must run as root, or as the switch's own user");
        return;
    }
    if (m->role == P2P_ROLE_AGENT && sw->agent && !sw->agent->dead) {
        sw_conn_send_error(conn, m->seq, -EBUSY, "the agent with pid %u is connected already", sw->agent->pid);
        return;
    }
    conn->role = m->role;

    struct p2p_msg answer;
    p2p_msg_init(&answer, P2P_MSG_HELLO, m->seq);
    answer.version = m->version < P2P_CONTROL_VERSION ? m->version : P2P_CONTROL_VERSION;
    answer.version_min = P2P_CONTROL_VERSION_MIN;
    p2p_copy_name(answer.text, sizeof answer.text, p2p_version());
    send_msg(conn, &answer, -1);
    if (m->role == P2P_ROLE_AGENT) {
        /* It hears of every port in one go, and of every link. */
        int size = AGENT_BUFFER;
        if (setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0) {
            (void)setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        }
        sw->agent = conn;
        p2p_log(&sw->log, P2P_LOG_INFO, "host agent connected (pid %u)", conn->pid);
        for (struct p2p_swport *p = sw->ports; p; p = p->next) {
            sw_conn_send_port(conn, p, 0);
        }
    }
}

/*
 * Offers: kept until the ATTACH or CLAIM that they belong to.
 */

static void keep_offer(struct sw_conn *conn, const struct p2p_msg *m, int fd)
{
    struct sw_offer *offers = NULL;

    if (fd >= 0 && m->link_id && conn->n_offers < SW_MAX_OFFERS) {
        offers = realloc(conn->offers, (conn->n_offers + 1) * sizeof *offers);
    }
    if (!offers) {
        if (fd >= 0) {
            p2p_close_foreign(fd);
        }
        return;
    }
    conn->offers = offers;
    struct sw_offer *o = &offers[conn->n_offers++];
    *o = (struct sw_offer) { .link_id = m->link_id, .generation = m->generation, .size = m->size, .fd = fd };
    p2p_copy_name(o->name, sizeof o->name, m->name);
}

const struct sw_offer *sw_conn_offer(const struct sw_conn *conn, const char *name, uint32_t link_id)
{
    for (unsigned i = 0; i < conn->n_offers; i++) {
        if (conn->offers[i].link_id == link_id && !strcmp(conn->offers[i].name, name)) {
            return &conn->offers[i];
        }
    }
    return NULL;
}

/* Those for port 'name', or all. */
static void forget_offers(struct sw_conn *conn, const char *name)
{
    for (unsigned i = 0; i < conn->n_offers;) {
        if (!name || !strcmp(conn->offers[i].name, name)) {
            p2p_close_foreign(conn->offers[i].fd);
            conn->offers[i] = conn->offers[--conn->n_offers];
        } else {
            i++;
        }
    }
}

/* 'fd', if not negative, came with the message; the caller closes it. */
static void handle(struct p2p_switch *sw, struct sw_conn *conn, const struct p2p_msg *m, int fd)
{
    struct p2p_swport *port;
    struct sw_offer own = { .generation = m->generation, .size = m->size, .fd = fd };

    if (!conn->role && m->type != P2P_MSG_HELLO) {
        sw_conn_send_error(conn, m->seq, -EPROTO, "HELLO comes first");
        return;
    }
    switch (m->type) {
    case P2P_MSG_HELLO:
        hello(sw, conn, m);
        break;

    case P2P_MSG_POKE:
        break; /* Having woken up is all. */

    case P2P_MSG_ATTACH:
        port = sw_port_find(sw, m->name);
        if (conn->role != P2P_ROLE_VNF || conn->port) {
            sw_conn_send_error(conn, m->seq, -EINVAL, "a connection attaches one VNF to one port");
        } else if (!port) {
            sw_conn_send_error(conn, m->seq, -ENOENT, "there is no port %s of type dpdkr: ovs-vsctl add-port BRIDGE %s "
                               "-- set Interface %s type=dpdkr", m->name, m->name, m->name);
        } else if (m->generation && fd < 0) {
            /* It has been lost on the way.  The VNF asks again, and keeps meanwhile what it has. */
            sw_conn_send_error(conn, m->seq, -EMFILE, "out of file descriptors");
        } else {
            sw_port_attach(port, conn, m->seq, fd >= 0 ? &own : NULL);
        }
        forget_offers(conn, m->name);
        break;

    case P2P_MSG_CLAIM:
    case P2P_MSG_RELEASE:
        port = sw_port_find(sw, m->name);
        if (conn != sw->agent) {
            sw_conn_send_error(conn, m->seq, -EPERM, "only the agent may");
        } else if (!port) {
            sw_conn_send_error(conn, m->seq, -ENOENT, "there is no port %s of type dpdkr", m->name);
        } else if (m->type == P2P_MSG_CLAIM) {
            sw_port_claim(port, conn, m->seq, &own);
            forget_offers(conn, m->name);
        } else {
            sw_port_unclaim(port);
            sw_conn_send_ok(conn, m->seq);
        }
        break;

    case P2P_MSG_OK:
    case P2P_MSG_ERROR:
        if (conn == sw->agent && !sw_port_answer(sw, m)) {
            sw_chan_answer(sw, m);
        }
        break;

    default:
        sw_conn_send_error(conn, m->seq, -EOPNOTSUPP, "message %u is not known", m->type);
        break;
    }
}

void sw_conn_input(struct p2p_switch *sw, struct sw_conn *conn)
{
    for (int i = 0; i < 64 && !conn->dead; i++) {
        struct p2p_msg m;
        int fd;
        int error = p2p_msg_recv(conn->fd, &m, &fd);

        if (error == -EAGAIN) {
            return;
        }
        if (error) {
            conn->dead = true;
        } else if (m.type == P2P_MSG_OFFER && conn->role) {
            keep_offer(conn, &m, fd);
            fd = -1;
        } else {
            handle(sw, conn, &m, fd);
        }
        if (fd >= 0) {
            p2p_close_foreign(fd);
        }
    }
}

/* Out of descriptors or memory: who waits to be accepted has to wait, and must not keep us awake meanwhile. */
static void pause_accepting(struct p2p_switch *sw, int error)
{
    struct epoll_event ev = { .events = 0, .data.ptr = &sw->listen_fd };

    if (!sw->said_full) {
        p2p_log(&sw->log, P2P_LOG_WARN, "%s: cannot accept a connection: %s", sw->socket_path, strerror(error));
        sw->said_full = true;
    }
    (void)epoll_ctl(sw->epoll_fd, EPOLL_CTL_MOD, sw->listen_fd, &ev);
    sw->accept_again_ms = p2p_now_ms() + ACCEPT_PAUSE_MS;
}

void sw_conn_run(struct p2p_switch *sw, uint64_t now)
{
    if (sw->accept_again_ms && now >= sw->accept_again_ms) {
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &sw->listen_fd };
        sw->accept_again_ms = 0;
        (void)epoll_ctl(sw->epoll_fd, EPOLL_CTL_MOD, sw->listen_fd, &ev);
    }
}

/* Whoever may connect could take all our descriptors: the oldest of those that do nothing makes room. */
static void limit_idle(struct p2p_switch *sw)
{
    struct sw_conn *oldest = NULL;
    unsigned n = 0;

    for (struct sw_conn *c = sw->conns; c; c = c->next) {
        if (!c->port && c != sw->agent && !c->dead) {
            n++;
            oldest = c;
        }
    }
    if (n > IDLE_MAX) {
        oldest->dead = true;
    }
}

void sw_conn_accept(struct p2p_switch *sw)
{
    for (;;) {
        int fd = accept4(sw->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                pause_accepting(sw, errno);
            }
            return;
        }
        struct sw_conn *conn = calloc(1, sizeof *conn);
        struct ucred cred = { .uid = (uid_t)-1 };
        socklen_t len = sizeof cred;
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = conn };
        if (!conn || epoll_ctl(sw->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
            pause_accepting(sw, conn ? errno : ENOMEM);
            free(conn);
            close(fd);
            return;
        }
        sw->said_full = false;
        (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
        conn->fd = fd;
        conn->pid = (uint32_t)cred.pid;
        conn->uid = (uint32_t)cred.uid;
        conn->next = sw->conns;
        sw->conns = conn;
        limit_idle(sw);
    }
}

/* Takes a connection from everybody who knows it. */
void sw_conn_drop(struct p2p_switch *sw, struct sw_conn *conn)
{
    if (conn == sw->agent) {
        p2p_log(&sw->log, P2P_LOG_WARN, "host agent (pid %u) is gone: links of VMs stay as they are until it is back",
                conn->pid);
        sw->agent = NULL;
    }
    for (struct p2p_swport *p = sw->ports; p; p = p->next) {
        if (p->waiting == conn) {
            p->waiting = NULL;
        }
        if (p->conn == conn) {
            p->conn = NULL;
            sw_port_detach(p, "its socket is closed");
        }
    }
    /* By name: a forked child may have the descriptor too, and then close() alone would leave it in the set. */
    (void)epoll_ctl(sw->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    close(conn->fd);
    forget_offers(conn, NULL);
    free(conn->offers);
    free(conn);
}

void sw_conn_reap(struct p2p_switch *sw)
{
    for (struct sw_conn **cp = &sw->conns; *cp;) {
        struct sw_conn *conn = *cp;
        if (conn->dead) {
            *cp = conn->next;
            sw_conn_drop(sw, conn);
        } else {
            cp = &conn->next;
        }
    }
}
