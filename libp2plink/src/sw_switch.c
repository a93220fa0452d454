/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch object and its main loop.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "sigbus.h"
#include "sock.h"
#include "sw.h"

#define BUSY_MS 1u  /* How long to sleep while a VNF's word is waited for: guests cannot wake us. */
#define IDLE_MS 10u

void p2p_switch_config_init(struct p2p_switch_config *cfg)
{
    *cfg = (struct p2p_switch_config) {
        .socket = p2p_default_socket(),
        .use_hugepages = true,
        .hold_max_ms = 1000,
        .linger_ms = 2000,
        .drain_ms = 5000,
        .answer_ms = 2000,
        .plug_ms = 10000,
        .heartbeat_ms = 3000,
        .retry_ms = 5000,
        .max_links = 256,
    };
}

void sw_changed(struct p2p_switch *sw)
{
    if (sw->cfg.changed) {
        sw->cfg.changed(sw->cfg.aux);
    }
}

/* Listens on 'path'.  A lock file beside it tells a stale socket from another switch's. */
static int listen_on(struct p2p_switch *sw, const char *path, struct p2p_error *err)
{
    struct sockaddr_un sun = { .sun_family = AF_UNIX };
    char lock[sizeof sun.sun_path + 8];

    if (strlen(path) >= sizeof sun.sun_path) {
        return p2p_fail(err, -ENAMETOOLONG, "%s: longer than the %zu characters that a unix socket can have", path,
                        sizeof sun.sun_path - 1);
    }
    strcpy(sun.sun_path, path);
    snprintf(lock, sizeof lock, "%s.lock", path);
    sw->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (sw->lock_fd < 0) {
        return p2p_fail(err, -errno, "%s: %s", lock, strerror(errno));
    }
    if (flock(sw->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        return p2p_fail(err, -EADDRINUSE, "%s: another switch listens there", path);
    }
    (void)unlink(path);
    sw->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t mode = sw->cfg.socket_mode ? sw->cfg.socket_mode : 0600;
    /* The mode before bind() counts too: nobody slips in before chmod() makes it independent of the umask. */
    if (sw->listen_fd < 0 || fchmod(sw->listen_fd, mode) < 0
        || bind(sw->listen_fd, (struct sockaddr *)&sun, sizeof sun) < 0 || chmod(path, mode) < 0
        || listen(sw->listen_fd, 64) < 0) {
        return p2p_fail(err, -errno, "%s: %s", path, strerror(errno));
    }
    return 0;
}

int p2p_switch_create(const struct p2p_switch_config *cfg, struct p2p_switch **swp, struct p2p_error *err)
{
    struct p2p_switch *sw = calloc(1, sizeof *sw);
    int error;

    *swp = NULL;
    if (!sw) {
        return p2p_fail(err, -ENOMEM, "out of memory");
    }
    p2p_sigbus_install(false);
    p2p_membarrier_register();
    sw->cfg = *cfg;
    sw->socket_path = strdup(cfg->socket ? cfg->socket : p2p_default_socket());
    sw->cfg.socket = sw->socket_path;
    sw->log = (struct p2p_logger) { .func = cfg->log, .aux = cfg->aux };
    sw->listen_fd = sw->lock_fd = sw->ledger.fd = -1;
    sw->former_ms = SW_FORMER_MS;
    sw->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    sw->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&sw->mutex, NULL);
    /* Ids of a switch that was here before must not come back while its VNFs may still have them. */
    sw->next_link_id = (uint32_t)(p2p_unique64() / 1000000);
    sw->next_link_id += !sw->next_link_id;

    if (sw->epoll_fd < 0 || sw->wake_fd < 0 || !sw->socket_path) {
        error = p2p_fail(err, -ENOMEM, "out of memory or file descriptors");
    } else {
        error = listen_on(sw, sw->socket_path, err);
    }
    struct epoll_event listen_ev = { .events = EPOLLIN, .data.ptr = &sw->listen_fd };
    struct epoll_event wake_ev = { .events = EPOLLIN, .data.ptr = &sw->wake_fd };
    if (!error && (epoll_ctl(sw->epoll_fd, EPOLL_CTL_ADD, sw->listen_fd, &listen_ev) < 0
                   || epoll_ctl(sw->epoll_fd, EPOLL_CTL_ADD, sw->wake_fd, &wake_ev) < 0)) {
        error = p2p_fail(err, -errno, "epoll: %s", strerror(errno));
    }
    if (error) {
        p2p_switch_destroy(sw);
        return error;
    }
    char ledger_path[sizeof((struct sockaddr_un *)0)->sun_path + 8];
    snprintf(ledger_path, sizeof ledger_path, "%s.ledger", sw->socket_path);
    sw_ledger_open(&sw->ledger, ledger_path, &sw->log);
    *swp = sw;
    return 0;
}

void p2p_switch_destroy(struct p2p_switch *sw)
{
    if (!sw) {
        return;
    }
    sw_chan_reap(sw);
    sw_former_free(sw);
    while (sw->conns) {
        struct sw_conn *conn = sw->conns;
        sw->conns = conn->next;
        sw_conn_drop(sw, conn);
    }
    if (sw->listen_fd >= 0) {
        (void)unlink(sw->socket_path);
        close(sw->listen_fd);
    }
    if (sw->lock_fd >= 0) {
        close(sw->lock_fd); /* The file stays: removing it would race with the next switch. */
    }
    if (sw->epoll_fd >= 0) {
        close(sw->epoll_fd);
    }
    if (sw->wake_fd >= 0) {
        close(sw->wake_fd);
    }
    sw_ledger_close(&sw->ledger);
    pthread_mutex_destroy(&sw->mutex);
    free(sw->socket_path);
    free(sw);
}

void p2p_switch_wake(struct p2p_switch *sw)
{
    uint64_t one = 1;
    ssize_t n = write(sw->wake_fd, &one, sizeof one);
    (void)n;
}

void p2p_switch_run(struct p2p_switch *sw, unsigned timeout_ms)
{
    struct epoll_event ev[32];
    unsigned limit = sw->busy ? BUSY_MS : IDLE_MS;
    int n = epoll_wait(sw->epoll_fd, ev, 32, (int)(timeout_ms < limit ? timeout_ms : limit));

    pthread_mutex_lock(&sw->mutex);
    uint64_t now = p2p_now_ms();
    for (int i = 0; i < n; i++) {
        if (ev[i].data.ptr == &sw->listen_fd) {
            sw_conn_accept(sw);
        } else if (ev[i].data.ptr == &sw->wake_fd) {
            uint64_t count;
            ssize_t got = read(sw->wake_fd, &count, sizeof count);
            (void)got;
        } else {
            sw_conn_input(sw, ev[i].data.ptr);
        }
    }
    sw_conn_reap(sw);
    sw_conn_run(sw, now);

    sw->busy = false;
    for (struct p2p_swport *p = sw->ports; p; p = p->next) {
        sw_port_run(p, now);
    }
    for (struct p2p_swport *p = sw->ports; p; p = p->next) {
        sw_dir_run(p, now);
    }
    for (struct sw_chan *c = sw->chans; c; c = c->next) {
        sw_chan_run(c, now);
    }
    sw_chan_reap(sw);
    sw_former_run(sw, now);
    if (now - sw->heartbeat_ms >= IDLE_MS) {
        sw->heartbeat_ms = now;
        for (struct p2p_swport *p = sw->ports; p; p = p->next) {
            p2p_store(&p->region->sw->heartbeat, now);
        }
    }
    sw_conn_reap(sw);
    pthread_mutex_unlock(&sw->mutex);
}
