/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VNF's port: open, close, the control thread, and what people want to know of it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "rcu.h"
#include "sigbus.h"
#include "vnf.h"

#define ACCEPT_MS 2000      /* The switch's time to accept us. */
#define LEAVE_MS 100        /* How long p2p_port_close() waits for the switch to take what was sent. */
#define KEEP_MS 100         /* How long memory that has to go waits for an application that holds packets of it. */
#define PCI_TICK_MS 1       /* A guest has nobody to wake it. */
#define SOCKET_TICK_MS 10   /* Only the heartbeat, pokes do the rest. */

static void sleep_ms(unsigned ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
    nanosleep(&ts, NULL);
}

/*
 * Regions that have gone but may still be looked at.
 */

/* Those of 'waiting', queues that held packets when 'releases' was noted, that have not given them back. */
static uint32_t still_waiting(const struct p2p_port *port, const uint32_t *releases, uint32_t waiting)
{
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        if (p2p_load_acquire(&port->rxs[q].releases) != releases[q]) {
            waiting &= ~(1u << q);
        }
    }
    return waiting;
}

void vnf_bury(struct p2p_port *port, struct p2p_region *region, bool blank)
{
    struct vnf_grave *g = NULL;
    uint32_t releases[P2P_MAX_QUEUES];
    uint32_t waiting = 0;

    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        /* In this order: a release in between is seen as one that has come. */
        releases[q] = p2p_load_acquire(&port->rxs[q].releases);
        waiting |= (uint32_t)!!p2p_load(&port->rxs[q].held) << q;
    }
    /* Mostly it is in the middle of a burst, which should not turn into zeros under its eyes. */
    for (unsigned i = 0; blank && waiting && i < KEEP_MS && !atomic_load(&port->stop); i++) {
        sleep_ms(1);
        waiting = still_waiting(port, releases, waiting);
    }
    if (waiting) {
        g = calloc(1, sizeof *g);
    }
    if (!g) {
        if (waiting) {
            p2p_region_blank(region); /* No memory to remember it by: its addresses stay reserved for good. */
        } else {
            p2p_region_unmap(region);
        }
        region->base = NULL;
        return;
    }
    if (blank) {
        p2p_region_blank(region);
    }
    memcpy(g->releases, releases, sizeof g->releases);
    g->waiting = waiting;
    g->region = *region;
    g->next = port->graves;
    port->graves = g;
}

static void visit_graves(struct p2p_port *port, bool all)
{
    struct vnf_grave **gp = &port->graves;

    while (*gp) {
        struct vnf_grave *g = *gp;
        g->waiting = still_waiting(port, g->releases, g->waiting);
        if (all || !g->waiting) {
            *gp = g->next;
            p2p_region_unmap(&g->region);
            free(g);
        } else {
            gp = &g->next;
        }
    }
}

/*
 * The port region.
 */

static void free_map(struct vnf_map *map)
{
    for (unsigned q = 0; q < map->n_txq; q++) {
        p2p_prod_uninit(&map->tx[q].normal);
    }
    free(map);
}

void vnf_map_retire(struct p2p_port *port)
{
    struct vnf_map *map = port->map;
    if (!map) {
        return;
    }
    p2p_rcu_set(port->map, NULL);
    p2p_rcu_wait();
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        if (map->chan[k]) {
            vnf_chan_free(port, map->chan[k], port->pci);
        }
    }
    /* A device may be pulled at any time now; a memfd stays for as long as somebody has it mapped. */
    vnf_bury(port, &map->region, port->pci);
    free_map(map);
}

static void fill_info(struct p2p_port *port, const struct vnf_map *map)
{
    const struct p2p_region_header *h = &map->region.hdr;

    pthread_mutex_lock(&port->info_mutex);
    memcpy(port->info.mac, h->mac, sizeof port->info.mac);
    port->info.n_txq = (uint16_t)map->n_txq;
    port->info.n_rxq = (uint16_t)map->n_rxq;
    port->info.mtu = h->mtu;
    pthread_mutex_unlock(&port->info_mutex);
}

int vnf_map_publish(struct p2p_port *port, struct p2p_region *region, struct p2p_error *err)
{
    const struct p2p_region_header *h = &region->hdr;
    int error = 0;

    if (strcmp(h->name[0], port->name)) {
        error = p2p_fail(err, -EPROTO, "the region is of port %s, not %s", h->name[0], port->name);
        p2p_region_unmap(region);
        return error;
    }
    struct vnf_map *map = aligned_alloc(128, (sizeof *map + 127) / 128 * 128);
    if (!map) {
        p2p_region_unmap(region);
        return p2p_fail(err, -ENOMEM, "out of memory");
    }
    memset(map, 0, sizeof *map);
    map->region = *region;
    map->sw = p2p_region_at(region, h->switch_page_off);
    map->vnf = p2p_region_at(region, h->vnf_page_off);
    map->n_txq = h->n_queues[0];
    map->n_rxq = h->n_queues[1];
    map->max_frame = h->mtu + P2P_FRAME_OVERHEAD;

    /* Introduce ourselves.  The switch empties the rings and clears its words, then repeats our session. */
    struct p2p_vnf_page *vnf = map->vnf;
    map->session = p2p_random64();
    vnf->version = P2P_LAYOUT_VERSION;
    vnf->pid = (uint32_t)getpid();
    vnf->mode_ack = 0;
    vnf->rx_link_ack = 0;
    memset(vnf->have, 0, sizeof vnf->have);
    p2p_wc_fence(region->wc);
    p2p_store_release(&vnf->session, map->session);
    vnf_socket_poke(port);

    uint64_t until = p2p_now_ms() + ACCEPT_MS;
    while (p2p_load_acquire(&map->sw->session) != map->session) {
        if (p2p_now_ms() >= until || atomic_load(&port->stop)) {
            error = p2p_fail(err, -ETIMEDOUT, "the switch has not accepted port %s within %d ms", port->name,
                             ACCEPT_MS);
            break;
        }
        p2p_store(&vnf->heartbeat, vnf->heartbeat + 1);
        sleep_ms(1);
    }
    /* Not earlier: before the switch has accepted us, a gate may still have to be opened for what a former VNF sent.
     * Not later: no link can begin before this thread has mapped it. */
    for (unsigned q = 0; q < P2P_MAX_QUEUES && !error; q++) {
        p2p_store(&vnf->txq[q].start, 0);
    }
    p2p_wc_fence(region->wc);
    for (unsigned q = 0; q < map->n_txq && !error; q++) {
        error = p2p_prod_init(&map->tx[q].normal, region, q);
    }
    for (unsigned q = 0; q < map->n_rxq; q++) {
        p2p_cons_init(&map->rx[q].normal, region, map->n_txq + q);
    }
    if (error) {
        free_map(map);
        p2p_region_unmap(region);
        return error;
    }

    vnf_map_retire(port);
    fill_info(port, map);
    p2p_rcu_set(port->map, map);
    return 0;
}

/*
 * The control thread.
 */

/* Has what p2p_port_get_info() tells changed since the last time? */
static bool info_changed(const struct p2p_port_info *a, const struct p2p_port_info *b)
{
    return memcmp(a->mac, b->mac, sizeof a->mac) || a->n_txq != b->n_txq || a->n_rxq != b->n_rxq || a->mtu != b->mtu
           || a->attached != b->attached || a->link_up != b->link_up || a->tx_link_id != b->tx_link_id
           || a->rx_link_id != b->rx_link_id || a->tx_direct != b->tx_direct || a->rx_direct != b->rx_direct;
}

static void tell_changes(struct p2p_port *port, struct p2p_port_info *told)
{
    struct p2p_port_info now;

    p2p_port_get_info(port, &now);
    if (info_changed(&now, told)) {
        *told = now;
        vnf_sleep_kick(port); /* There may be other rings now. */
        uint64_t one = 1;
        ssize_t n = write(port->event_fd, &one, sizeof one);
        (void)n;
    }
}

static void *control_main(void *port_)
{
    struct p2p_port *port = port_;
    struct p2p_port_info told = { .mtu = 0 };

    pthread_setname_np(pthread_self(), "p2p-control");

    while (!atomic_load(&port->stop)) {
        (port->pci ? vnf_pci_run : vnf_socket_run)(port);
        bool pending = vnf_words_run(port);
        visit_graves(port, false);
        tell_changes(port, &told);
        vnf_sleep_run(port);

        struct pollfd pfd[2] = {
            { .fd = port->wake_fd, .events = POLLIN },
            { .fd = port->pci ? -1 : port->sock, .events = POLLIN },
        };
        (void)poll(pfd, 2, port->pci ? PCI_TICK_MS : pending ? 1 : SOCKET_TICK_MS);
        if (pfd[0].revents) {
            uint64_t n;
            ssize_t got = read(port->wake_fd, &n, sizeof n);
            (void)got;
        }
    }
    return NULL;
}

static void destroy(struct p2p_port *port)
{
    vnf_map_retire(port);
    visit_graves(port, true);
    vnf_socket_close(port);
    vnf_pci_close(port);
    if (port->wake_fd >= 0) {
        close(port->wake_fd);
    }
    if (port->event_fd >= 0) {
        close(port->event_fd);
    }
    pthread_mutex_destroy(&port->info_mutex);
    pthread_mutex_destroy(&port->sleep.mutex);
    free(port->socket_path);
    free(port->sysfs);
    free(port);
}

static bool worth_waiting(int error)
{
    return error == -ENOENT || error == -ECONNREFUSED || error == -EBUSY || error == -ETIMEDOUT || error == -ECONNRESET
           || error == -EAGAIN; /* The socket's backlog is full. */
}

int p2p_port_open(const struct p2p_port_config *cfg, struct p2p_port **portp, struct p2p_error *err)
{
    const char *name = cfg->name;

    *portp = NULL;
    if (!name || !*name || strlen(name) >= P2P_NAME_MAX) {
        return p2p_fail(err, -EINVAL, "port name \"%s\" must have 1 to %u characters", name ? name : "",
                        P2P_NAME_MAX - 1);
    }
    const char *socket_path = cfg->socket ? cfg->socket : p2p_default_socket();
    struct p2p_port *port = aligned_alloc(128, (sizeof *port + 127) / 128 * 128);
    if (!port) {
        return p2p_fail(err, -ENOMEM, "out of memory");
    }
    memset(port, 0, sizeof *port);
    p2p_copy_name(port->name, sizeof port->name, name);
    port->log = (struct p2p_logger) { .func = cfg->log, .aux = cfg->log_aux, .who = port->name };
    port->socket_path = strdup(socket_path);
    port->sysfs = strdup(cfg->sysfs ? cfg->sysfs : "/sys");
    port->sock = port->uevent_fd = -1;
    port->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    port->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&port->info_mutex, NULL);
    pthread_mutex_init(&port->sleep.mutex, NULL);
    p2p_copy_name(port->info.name, sizeof port->info.name, name);
    if (port->wake_fd < 0 || port->event_fd < 0 || !port->socket_path || !port->sysfs) {
        destroy(port);
        return p2p_fail(err, -ENOMEM, "out of memory or file descriptors");
    }

    p2p_sigbus_install(true);
    p2p_membarrier_register();

    uint64_t until = p2p_now_ms() + cfg->wait_ms;
    int error;
    for (;;) {
        port->pci = cfg->attach == P2P_ATTACH_PCI
                    || (cfg->attach == P2P_ATTACH_AUTO && access(socket_path, F_OK) != 0);
        error = (port->pci ? vnf_pci_open : vnf_socket_open)(port, err);
        if (!error || !worth_waiting(error) || p2p_now_ms() >= until) {
            break;
        }
        sleep_ms(20);
    }
    if (!error) {
        port->info.in_guest = port->pci;
        error = -pthread_create(&port->thread, NULL, control_main, port);
        port->thread_running = !error;
        if (error) {
            p2p_fail(err, error, "cannot make a thread: %s", strerror(-error));
        }
    }
    if (error) {
        destroy(port);
        return error;
    }
    *portp = port;
    return 0;
}

/* What was accepted for transmission gets its chance: the switch empties the normal rings in no time if it is there. */
static void send_off(struct p2p_port *port)
{
    struct vnf_map *map = port->map;
    uint64_t until = p2p_now_ms() + LEAVE_MS;

    for (unsigned q = 0; map && q < map->n_txq; q++) {
        while (!p2p_prod_drained(&map->tx[q].normal) && p2p_now_ms() < until) {
            sleep_ms(1);
        }
    }
}

void p2p_port_close(struct p2p_port *port)
{
    if (!port) {
        return;
    }
    atomic_store(&port->stop, true);
    uint64_t one = 1;
    ssize_t n = write(port->wake_fd, &one, sizeof one);
    (void)n;
    if (port->thread_running) {
        pthread_join(port->thread, NULL);
    }
    vnf_sleep_close(port);
    send_off(port);
    /* A guest has no connection that could break: say good-bye in the region. */
    if (port->map) {
        p2p_store_release(&port->map->vnf->session, 0);
    }
    destroy(port);
}

/*
 * For people.
 */

void p2p_port_get_info(const struct p2p_port *port_, struct p2p_port_info *info)
{
    struct p2p_port *port = (struct p2p_port *)port_;

    pthread_mutex_lock(&port->info_mutex);
    *info = port->info;
    pthread_mutex_unlock(&port->info_mutex);

    p2p_rcu_lock();
    const struct vnf_map *map = p2p_rcu_get(port->map);
    if (map) {
        uint64_t mode = p2p_load_acquire(&map->sw->mode);
        uint64_t rx_link = p2p_load_acquire(&map->sw->rx_link);
        info->attached = p2p_load(&port->registered);
        info->link_up = p2p_load(&map->sw->link_up);
        info->tx_direct = p2p_mode_direct(mode);
        info->tx_link_id = p2p_mode_link(mode);
        info->rx_direct = p2p_rx_link_state(rx_link) == P2P_RX_ACTIVE;
        info->rx_link_id = p2p_rx_link_id(rx_link);
    }
    p2p_rcu_unlock();
}

int p2p_port_event_fd(const struct p2p_port *port)
{
    return port->event_fd;
}

void p2p_port_get_stats(const struct p2p_port *port, struct p2p_port_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        const struct vnf_txq_stats *t = &port->txs[q];
        const struct vnf_rxq_stats *r = &port->rxs[q];

        stats->tx_packets += p2p_load(&t->packets);
        stats->tx_bytes += p2p_load(&t->bytes);
        stats->tx_direct_packets += p2p_load(&t->direct_packets);
        stats->tx_direct_bytes += p2p_load(&t->direct_bytes);
        stats->tx_refused += p2p_load(&t->refused);
        stats->tx_epochs += p2p_load(&t->epochs);
        stats->rx_packets += p2p_load(&r->packets);
        stats->rx_bytes += p2p_load(&r->bytes);
        stats->rx_direct_packets += p2p_load(&r->direct_packets);
        stats->rx_direct_bytes += p2p_load(&r->direct_bytes);
        stats->rx_bad += p2p_load(&r->bad);
    }
}
