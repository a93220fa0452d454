/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch's unix socket: VNFs on the host, and the host agent.
 *
 * With the switch's mutex held.  Clients are not trusted: a message that makes no sense gets an error, a client that does
 * not read its socket loses messages (it looks at its words by itself), one that breaks the protocol is dropped.
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

static void send_ok(struct sw_conn *conn, uint32_t seq)
{
    struct p2p_msg m;
    p2p_msg_init(&m, P2P_MSG_OK, seq);
    send_msg(conn, &m, -1);
}

static void hello(struct p2p_switch *sw, struct sw_conn *conn, const struct p2p_msg *m)
{
    if (m->version_min > P2P_CONTROL_VERSION || m->version < P2P_CONTROL_VERSION_MIN) {
        sw_conn_send_error(conn, m->seq, -EPROTO, "control versions %u to %u are spoken there, %u to %u here: upgrade %s",
                           m->version_min, m->version, P2P_CONTROL_VERSION_MIN, P2P_CONTROL_VERSION,
                           m->version_min > P2P_CONTROL_VERSION ? "Open vSwitch" : "the client");
        return;
    }
    if (m->role != P2P_ROLE_VNF && m->role != P2P_ROLE_AGENT) {
        sw_conn_send_error(conn, m->seq, -EINVAL, "role %u is not known", m->role);
        return;
    }
    if (m->role == P2P_ROLE_AGENT && sw->agent && sw->agent != conn) {
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
        sw->agent = conn;
        p2p_log(&sw->log, P2P_LOG_INFO, "host agent connected (pid %u)", conn->pid);
        for (struct p2p_swport *p = sw->ports; p; p = p->next) {
            sw_conn_send_port(conn, p, 0);
        }
    }
}

static void handle(struct p2p_switch *sw, struct sw_conn *conn, const struct p2p_msg *m)
{
    struct p2p_swport *port;

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
            sw_conn_send_error(conn, m->seq, -ENOENT, "there is no port %s of type dpdkr: ovs-vsctl add-port BRIDGE %s -- set "
                               "Interface %s type=dpdkr", m->name, m->name, m->name);
        } else {
            sw_port_attach(port, conn, m->seq);
        }
        break;

    case P2P_MSG_CLAIM:
    case P2P_MSG_RELEASE:
        port = sw_port_find(sw, m->name);
        if (conn != sw->agent) {
            sw_conn_send_error(conn, m->seq, -EPERM, "only the agent may");
        } else if (!port) {
            sw_conn_send_error(conn, m->seq, -ENOENT, "there is no port %s of type dpdkr", m->name);
        } else if (m->type == P2P_MSG_CLAIM) {
            sw_port_claim(port, conn, m->seq, m->generation);
        } else {
            sw_port_unclaim(port);
            send_ok(conn, m->seq);
        }
        break;

    case P2P_MSG_OK:
    case P2P_MSG_ERROR:
        if (conn == sw->agent) {
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
        if (fd >= 0) {
            close(fd);
        }
        if (error) {
            conn->dead = true;
        } else {
            handle(sw, conn, &m);
        }
    }
}

void sw_conn_accept(struct p2p_switch *sw)
{
    for (;;) {
        int fd = accept4(sw->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return;
        }
        struct sw_conn *conn = calloc(1, sizeof *conn);
        struct ucred cred = { 0 };
        socklen_t len = sizeof cred;
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = conn };
        if (!conn || epoll_ctl(sw->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
            free(conn);
            close(fd);
            return;
        }
        (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
        conn->fd = fd;
        conn->pid = (uint32_t)cred.pid;
        conn->next = sw->conns;
        sw->conns = conn;
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
    close(conn->fd); /* Leaves the epoll set by itself. */
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
