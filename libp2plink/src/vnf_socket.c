/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a VNF on the host gets at its regions: vswitchd's unix socket.
 *
 * Control thread (and p2p_port_open() before that thread is there).  The socket brings regions and pokes; if it breaks,
 * the VNF keeps what it has, goes on, and comes back when a switch answers again.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include "sock.h"
#include "vnf.h"

#define ANSWER_MS 2000
#define RETRY_MS 100

static void drop_connection(struct p2p_port *port)
{
    if (port->sock >= 0) {
        close(port->sock);
        port->sock = -1;
    }
    p2p_store(&port->registered, false);
    port->retry_at_ms = p2p_now_ms() + RETRY_MS;
}

static void forget_offer(struct vnf_offer *o)
{
    if (o->link_id) {
        if (o->fd >= 0) {
            close(o->fd);
        }
        o->link_id = 0;
    }
}

static void forget_offers(struct p2p_port *port)
{
    for (unsigned i = 0; i < P2P_MAX_LINKS; i++) {
        forget_offer(&port->offer[i]);
    }
}

static void keep_offer(struct p2p_port *port, const struct p2p_msg *m, int fd)
{
    struct vnf_offer *o = &port->offer[0];

    for (unsigned i = 0; i < P2P_MAX_LINKS; i++) {
        struct vnf_offer *other = &port->offer[i];
        if (other->link_id == m->link_id) {
            forget_offer(other);
        }
        /* The oldest goes, if it must: it has never been asked for. */
        if (o->link_id && (!other->link_id || other->generation < o->generation)) {
            o = other;
        }
    }
    forget_offer(o);
    *o = (struct vnf_offer) { .link_id = m->link_id, .generation = m->generation, .size = m->size, .fd = fd };
}

/* Waits for the next message.  -ETIMEDOUT. */
static int wait_msg(struct p2p_port *port, struct p2p_msg *m, int *fd, uint64_t until_ms)
{
    for (;;) {
        int error = p2p_msg_recv(port->sock, m, fd);
        if (error != -EAGAIN) {
            return error;
        }
        uint64_t now = p2p_now_ms();
        if (now >= until_ms) {
            return -ETIMEDOUT;
        }
        if (atomic_load(&port->stop)) {
            return -ECANCELED;
        }
        struct pollfd pfd[2] = {
            { .fd = port->sock, .events = POLLIN },
            { .fd = port->wake_fd, .events = POLLIN },
        };
        (void)poll(pfd, 2, (int)(until_ms - now));
    }
}

/* Sends 'm' and waits for the answer to it; other messages on the way are pokes and may be ignored. */
static int ask(struct p2p_port *port, const struct p2p_msg *m, int send_fd, struct p2p_msg *answer, int *fd,
               struct p2p_error *err)
{
    uint64_t until = p2p_now_ms() + ANSWER_MS;
    int error = p2p_msg_send(port->sock, m, send_fd);

    while (!error) {
        error = wait_msg(port, answer, fd, until);
        if (!error && answer->seq == m->seq) {
            if (answer->type != P2P_MSG_ERROR) {
                return 0;
            }
            if (*fd >= 0) {
                close(*fd);
            }
            return p2p_fail(err, answer->error < 0 && answer->error > -4096 ? answer->error : -EPROTO, "%s",
                            answer->text);
        }
        if (!error && *fd >= 0) {
            close(*fd);
        }
    }
    return p2p_fail(err, error, "%s: no answer from the switch: %s", port->socket_path, strerror(-error));
}

static int no_descriptor(struct p2p_error *err)
{
    return p2p_fail(err, -EMFILE, "the region's descriptor has not come: out of file descriptors here");
}

/* Maps the port region that came with 'm' and moves into it.  Takes over 'fd'. */
static int enter_region(struct p2p_port *port, const struct p2p_msg *m, int fd, struct p2p_error *err)
{
    struct p2p_region region = P2P_REGION_INIT;
    if (fd < 0) {
        return no_descriptor(err);
    }
    int error = p2p_region_map(&region, fd, m->size, P2P_PORT_MAGIC, m->generation, err);

    if (error) {
        close(fd);
        return error;
    }
    return vnf_map_publish(port, &region, err);
}

/* Tells a restarted switch what we have from its predecessor. */
static void offer(struct p2p_port *port, struct vnf_map *map)
{
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        struct vnf_chan *c = map->chan[k];
        if (c) {
            struct p2p_msg m;
            p2p_msg_init(&m, P2P_MSG_OFFER, 0);
            m.link_id = c->link_id;
            m.generation = c->region.hdr.generation;
            m.size = c->region.size;
            p2p_copy_name(m.name, sizeof m.name, port->name);
            (void)p2p_msg_send(port->sock, &m, c->region.fd); /* Not taken: the link will end, that is all. */
        }
    }
}

static int attach(struct p2p_port *port, struct p2p_error *err)
{
    struct vnf_map *map = port->map;
    struct p2p_msg m, answer;
    int fd;

    p2p_msg_init(&m, P2P_MSG_ATTACH, 2);
    p2p_copy_name(m.name, sizeof m.name, port->name);
    if (map) {
        offer(port, map);
        m.generation = map->region.hdr.generation;
        m.size = map->region.size;
    }
    int error = ask(port, &m, map ? map->region.fd : -1, &answer, &fd, err);
    if (error) {
        return error;
    }
    if (map && answer.type == P2P_MSG_REGION && answer.generation == map->region.hdr.generation) {
        if (fd >= 0) {
            close(fd);
        }
        return 0; /* We have been adopted: all goes on. */
    }
    if (answer.type != P2P_MSG_REGION) {
        if (fd >= 0) {
            close(fd);
        }
        return p2p_fail(err, -EPROTO, "%s: answer %u to an attach", port->socket_path, answer.type);
    }
    return enter_region(port, &answer, fd, err);
}

int vnf_socket_open(struct p2p_port *port, struct p2p_error *err)
{
    int sock = p2p_sock_connect(port->socket_path);
    if (sock < 0) {
        return p2p_fail(err, sock, "%s: %s: is ovs-vswitchd running, and has it a port of type dpdkr?",
                        port->socket_path, strerror(-sock));
    }
    port->sock = sock;

    struct p2p_msg m, answer;
    int fd;
    p2p_msg_init(&m, P2P_MSG_HELLO, 1);
    m.version = P2P_CONTROL_VERSION;
    m.version_min = P2P_CONTROL_VERSION_MIN;
    m.role = P2P_ROLE_VNF;
    int error = ask(port, &m, -1, &answer, &fd, err);
    if (!error && fd >= 0) {
        close(fd);
    }
    if (!error && (answer.type != P2P_MSG_HELLO || answer.version < P2P_CONTROL_VERSION_MIN
                   || answer.version > P2P_CONTROL_VERSION)) {
        error = p2p_fail(err, -EPROTO, "%s: the switch speaks control version %u, this library %u to %u",
                         port->socket_path, answer.version, P2P_CONTROL_VERSION_MIN, P2P_CONTROL_VERSION);
    }
    if (!error) {
        error = attach(port, err);
    }
    if (error) {
        drop_connection(port);
    } else {
        p2p_store(&port->registered, true);
        port->said_away = false;
    }
    return error;
}

static void handle(struct p2p_port *port, const struct p2p_msg *m, int fd)
{
    struct p2p_error err = { "" };

    switch (m->type) {
    case P2P_MSG_REGION:
        if (m->link_id) {
            keep_offer(port, m, fd); /* Also without a descriptor: who asks for the link, is told why. */
        } else if (enter_region(port, m, fd, &err)) {
            p2p_log(&port->log, P2P_LOG_WARN, "cannot enter the new port region: %s", err.text);
            vnf_map_retire(port); /* The switch has let go of the former one: come anew. */
            drop_connection(port);
        }
        return; /* 'fd' has been taken over. */
    case P2P_MSG_DETACH:
        p2p_log(&port->log, P2P_LOG_WARN, "detached by the switch: %s", m->text);
        vnf_map_retire(port);
        drop_connection(port);
        break;
    default:
        break; /* POKE: having woken up is all. */
    }
    if (fd >= 0) {
        close(fd);
    }
}

void vnf_socket_run(struct p2p_port *port)
{
    while (port->sock >= 0) {
        struct p2p_msg m;
        int fd;
        int error = p2p_msg_recv(port->sock, &m, &fd);

        if (!error) {
            handle(port, &m, fd);
        } else if (error == -EAGAIN) {
            break;
        } else if (error != -EPROTO) {
            p2p_log(&port->log, P2P_LOG_WARN, "the switch is gone (%s); direct links go on, trying to come back",
                    strerror(-error));
            drop_connection(port);
        }
    }
    if (port->sock < 0 && p2p_now_ms() >= port->retry_at_ms) {
        struct p2p_error err = { "" };
        int error = vnf_socket_open(port, &err);
        if (!error) {
            p2p_log(&port->log, P2P_LOG_INFO, "attached again");
        } else {
            if (!port->said_away) {
                p2p_log(&port->log, P2P_LOG_INFO, "not attached: %s", err.text);
                port->said_away = true;
            }
            port->retry_at_ms = p2p_now_ms() + RETRY_MS;
        }
    }
}

void vnf_socket_poke(struct p2p_port *port)
{
    if (port->sock >= 0) {
        struct p2p_msg m;
        p2p_msg_init(&m, P2P_MSG_POKE, 0);
        (void)p2p_msg_send(port->sock, &m, -1); /* The switch looks by itself too, only later. */
    }
}

int vnf_socket_link(struct p2p_port *port, uint32_t link_id, uint64_t generation, struct p2p_region *region,
                    struct p2p_error *err)
{
    for (unsigned i = 0; i < P2P_MAX_LINKS; i++) {
        struct vnf_offer *o = &port->offer[i];
        if (o->link_id == link_id) {
            int error = o->fd < 0 ? no_descriptor(err)
                        : p2p_region_map(region, o->fd, o->size, P2P_LINK_MAGIC, generation, err);
            if (error) {
                forget_offer(o);
            } else {
                o->link_id = 0;
            }
            return error;
        }
    }
    return -EAGAIN;
}

void vnf_socket_close(struct p2p_port *port)
{
    drop_connection(port);
    forget_offers(port);
}
