/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-switch.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "../libp2plink/src/sock.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd_switch);

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000
#define HELLO_TIMEOUT_MS 5000

struct out_msg {
    struct ovs_list node;
    struct p2p_msg msg;
    int fd;        /* Our own, or -1. */
};

enum swconn_state {
    SWCONN_WAITING, /* Not connected; the next attempt is at 'deadline'. */
    SWCONN_HELLO,   /* Connected; until 'deadline' for vswitchd's HELLO. */
    SWCONN_UP,
};

struct swconn {
    char *path;
    const struct swconn_callbacks *callbacks;
    void *aux;
    enum swconn_state state;
    int sock;
    long long deadline;
    unsigned backoff_ms;
    unsigned session;
    uint32_t seq;
    bool said_down;
    char *trouble;
    struct ovs_list out;   /* struct out_msg */
};

struct swconn *swconn_create(const char *path, const struct swconn_callbacks *callbacks, void *aux)
{
    struct swconn *c = xzalloc(sizeof *c);

    c->path = xstrdup(path);
    c->callbacks = callbacks;
    c->aux = aux;
    c->sock = -1;
    c->deadline = time_msec();
    c->trouble = xstrdup("not connected yet");
    ovs_list_init(&c->out);
    return c;
}

static void out_msg_free(struct out_msg *m)
{
    if (m->fd >= 0) {
        close(m->fd);
    }
    free(m);
}

static void close_connection(struct swconn *c)
{
    struct out_msg *m;

    if (c->sock >= 0) {
        close(c->sock);
        c->sock = -1;
    }
    LIST_FOR_EACH_POP (m, node, &c->out) {
        out_msg_free(m);
    }
    c->state = SWCONN_WAITING;
}

void swconn_destroy(struct swconn *c)
{
    if (c) {
        close_connection(c);
        free(c->trouble);
        free(c->path);
        free(c);
    }
}

static void OVS_PRINTF_FORMAT(2, 3) swconn_down(struct swconn *c, const char *fmt, ...)
{
    bool was_up = c->state == SWCONN_UP;
    va_list args;

    free(c->trouble);
    va_start(args, fmt);
    c->trouble = xvasprintf(fmt, args);
    va_end(args);
    if (was_up || !c->said_down) {
        VLOG(was_up ? VLL_WARN : VLL_INFO, "%s", c->trouble);
        c->said_down = true;
    }

    close_connection(c);
    c->backoff_ms = was_up ? 0 : MIN(MAX(c->backoff_ms * 2, BACKOFF_MIN_MS), BACKOFF_MAX_MS);
    c->deadline = time_msec() + c->backoff_ms;
    if (was_up) {
        c->callbacks->down(c->aux);
    }
}

static void flush(struct swconn *c)
{
    while (!ovs_list_is_empty(&c->out)) {
        struct out_msg *m = CONTAINER_OF(ovs_list_front(&c->out), struct out_msg, node);
        if (p2p_msg_send(c->sock, &m->msg, m->fd) < 0) {
            /* -EAGAIN: later.  Any other error shows when receiving. */
            return;
        }
        ovs_list_remove(&m->node);
        out_msg_free(m);
    }
}

static struct p2p_msg *queue(struct swconn *c, enum p2p_msg_type type, uint32_t seq, int fd)
{
    struct out_msg *m = xmalloc(sizeof *m);

    p2p_msg_init(&m->msg, type, seq);
    m->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    ovs_list_push_back(&c->out, &m->node);
    return &m->msg;
}

static uint32_t next_seq(struct swconn *c)
{
    c->seq += 1 + (c->seq == UINT32_MAX);
    return c->seq;
}

uint32_t swconn_ask(struct swconn *c, enum p2p_msg_type type, const char *name, const struct swconn_region *region)
{
    if (c->state != SWCONN_UP) {
        return 0;
    }
    struct p2p_msg *m = queue(c, type, next_seq(c), region->fd);
    uint32_t seq = m->seq;
    ovs_strlcpy(m->name, name, sizeof m->name);
    m->link_id = region->link_id;
    m->generation = region->generation;
    m->size = region->size;
    flush(c);
    return seq;
}

void swconn_answer(struct swconn *c, unsigned session, uint32_t seq, const char *name, int error, const char *text)
{
    if (c->state != SWCONN_UP || session != c->session) {
        return;
    }
    struct p2p_msg *m = queue(c, error ? P2P_MSG_ERROR : P2P_MSG_OK, seq, -1);
    ovs_strlcpy(m->name, name, sizeof m->name);
    m->error = error;
    ovs_strlcpy(m->text, text ? text : "", sizeof m->text);
    flush(c);
}

static void swconn_connect(struct swconn *c)
{
    int sock = p2p_sock_connect(c->path);
    if (sock < 0) {
        swconn_down(c, "cannot connect to vswitchd at %s: %s%s", c->path, ovs_strerror(-sock),
                    sock == -ENOENT || sock == -ECONNREFUSED ? " (is a vswitchd with p2plink running?)" : "");
        return;
    }
    c->sock = sock;
    c->state = SWCONN_HELLO;
    c->deadline = time_msec() + HELLO_TIMEOUT_MS;

    struct p2p_msg *m = queue(c, P2P_MSG_HELLO, next_seq(c), -1);
    m->version = P2P_CONTROL_VERSION;
    m->version_min = P2P_CONTROL_VERSION_MIN;
    m->role = P2P_ROLE_AGENT;
}

/* The first message.  Returns false with the connection down if it is not what is expected. */
static bool process_hello(struct swconn *c, const struct p2p_msg *m)
{
    if (m->type == P2P_MSG_ERROR) {
        swconn_down(c, "vswitchd at %s refuses this agent: %s (%s)", c->path, m->text, ovs_strerror(-m->error));
    } else if (m->type != P2P_MSG_HELLO) {
        swconn_down(c, "vswitchd at %s began with message type %"PRIu32" instead of HELLO", c->path, m->type);
    } else if (m->version < P2P_CONTROL_VERSION_MIN || m->version > P2P_CONTROL_VERSION) {
        swconn_down(c, "vswitchd at %s wants control protocol version %"PRIu32", this p2plinkd knows %u to %u: upgrade "
                    "the older of the two", c->path, m->version, P2P_CONTROL_VERSION_MIN, P2P_CONTROL_VERSION);
    } else {
        VLOG_INFO("connected to vswitchd at %s", c->path);
        c->state = SWCONN_UP;
        c->session++;
        c->backoff_ms = 0;
        c->said_down = false;
        free(c->trouble);
        c->trouble = xstrdup("");
        c->callbacks->up(c->aux);
        return true;
    }
    return false;
}

void swconn_run(struct swconn *c)
{
    if (c->state == SWCONN_WAITING) {
        if (time_msec() < c->deadline) {
            return;
        }
        swconn_connect(c);
    }
    for (int i = 0; i < 50 && c->state != SWCONN_WAITING; i++) {
        struct p2p_msg m;
        int fd;

        flush(c);
        int error = p2p_msg_recv(c->sock, &m, &fd);
        if (error == -EAGAIN) {
            break;
        } else if (error == -EPROTO) {
            VLOG_WARN("vswitchd at %s sent something that is not a p2plink message", c->path);
        } else if (error) {
            swconn_down(c, "lost the connection to vswitchd at %s: %s", c->path, ovs_strerror(-error));
        } else if (c->state == SWCONN_UP) {
            c->callbacks->message(c->aux, &m, fd);
        } else {
            if (fd >= 0) {
                close(fd);
            }
            process_hello(c, &m);
        }
    }
    if (c->state == SWCONN_HELLO && time_msec() >= c->deadline) {
        swconn_down(c, "vswitchd at %s does not say HELLO within %u ms", c->path, HELLO_TIMEOUT_MS);
    }
}

void swconn_wait(struct swconn *c)
{
    if (c->state != SWCONN_UP) {
        poll_timer_wait_until(c->deadline);
    }
    if (c->state != SWCONN_WAITING) {
        poll_fd_wait(c->sock, POLLIN | (ovs_list_is_empty(&c->out) ? 0 : POLLOUT));
    }
}

bool swconn_is_up(const struct swconn *c)
{
    return c->state == SWCONN_UP;
}

unsigned swconn_session(const struct swconn *c)
{
    return c->session;
}

const char *swconn_path(const struct swconn *c)
{
    return c->path;
}

const char *swconn_trouble(const struct swconn *c)
{
    return c->trouble;
}
