/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control path of the DPDK driver: what applications set and ask by ethdev's functions.
 *
 * Called by the application's control thread; on_event() by EAL's interrupt thread, when libp2plink's control thread
 * says that something about the port has changed.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <rte_interrupts.h>
#include <rte_malloc.h>
#include <rte_string_fns.h>
#include "p2plink_dev.h"

#define RING_SLOTS 1024u    /* Of each ring; what an application asks for is only for itself to know. */
#define ROOM_MIN 256u       /* So that the stash has enough for the longest frame. */

#define RX_OFFLOADS (RTE_ETH_RX_OFFLOAD_SCATTER | RTE_ETH_RX_OFFLOAD_RSS_HASH | RTE_ETH_RX_OFFLOAD_CHECKSUM \
                     | RTE_ETH_RX_OFFLOAD_VLAN_STRIP | RTE_ETH_RX_OFFLOAD_TCP_LRO)
#define RX_L4_CSUM (RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM)
#define TX_OFFLOADS (RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM \
                     | RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_TSO \
                     | RTE_ETH_TX_OFFLOAD_VLAN_INSERT)

_Static_assert((P2P_MTU_MAX + P2P_FRAME_OVERHEAD) / ROOM_MIN < P2PLINK_STASH, "the longest frame fits into the stash");

/*
 * The port's state.
 */

static void fetch_info(struct p2plink_dev *dev, struct p2p_port_info *info)
{
    p2p_port_get_info(dev->port, info);
    if (info->n_rxq && info->n_txq) {
        __atomic_store_n(&dev->n_rxq, info->n_rxq, __ATOMIC_RELAXED);
        __atomic_store_n(&dev->n_txq, info->n_txq, __ATOMIC_RELAXED);
        __atomic_store_n(&dev->mtu, info->mtu, __ATOMIC_RELAXED);
    }
}

static int link_update(struct rte_eth_dev *eth, int wait __rte_unused)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    struct p2p_port_info info;

    fetch_info(dev, &info);
    struct rte_eth_link link = {
        .link_speed = RTE_ETH_SPEED_NUM_10G,
        .link_duplex = RTE_ETH_LINK_FULL_DUPLEX,
        .link_autoneg = RTE_ETH_LINK_FIXED,
        .link_status = dev->started && info.link_up ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN,
    };
    return rte_eth_linkstatus_set(eth, &link);
}

/* Interrupt thread. */
static void on_event(void *eth_)
{
    struct rte_eth_dev *eth = eth_;
    struct p2plink_dev *dev = eth->data->dev_private;
    uint64_t n;

    if (read(p2p_port_event_fd(dev->port), &n, sizeof n) < 0 && errno == EAGAIN) {
        return;
    }
    if (link_update(eth, 0) == 0 && eth->data->dev_conf.intr_conf.lsc) {
        rte_eth_dev_callback_process(eth, RTE_ETH_EVENT_INTR_LSC, NULL);
    }
}

int p2plink_watch(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;

    dev->intr = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_SHARED);
    if (!dev->intr) {
        return -ENOMEM;
    }
    eth->intr_handle = dev->intr;
    if (rte_intr_fd_set(dev->intr, p2p_port_event_fd(dev->port))
        || rte_intr_type_set(dev->intr, RTE_INTR_HANDLE_VDEV)) {
        return -rte_errno;
    }
    int error = rte_intr_callback_register(dev->intr, on_event, eth);
    dev->intr_registered = !error;
    return error;
}

void p2plink_unwatch(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;

    if (dev->intr_registered) {
        rte_intr_callback_unregister_sync(dev->intr, on_event, eth);
        dev->intr_registered = false;
    }
    rte_intr_instance_free(dev->intr);
    dev->intr = eth->intr_handle = NULL;
}

static int infos_get(struct rte_eth_dev *eth, struct rte_eth_dev_info *info)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    struct p2p_port_info port;

    fetch_info(dev, &port);
    info->max_rx_queues = dev->n_rxq;
    info->max_tx_queues = dev->n_txq;
    info->min_mtu = P2P_MTU_MIN;
    info->max_mtu = (uint16_t)dev->mtu;
    info->max_rx_pktlen = dev->mtu + P2PLINK_OVERHEAD;
    info->max_lro_pkt_size = P2P_TSO_MAX;
    info->min_rx_bufsize = ROOM_MIN;
    info->max_mac_addrs = P2PLINK_MACS_MAX;
    info->rx_offload_capa = RX_OFFLOADS;
    info->tx_offload_capa = TX_OFFLOADS;
    info->speed_capa = RTE_ETH_LINK_SPEED_10G;
    info->default_rxportconf = (struct rte_eth_dev_portconf) {
        .burst_size = P2PLINK_BURST, .ring_size = RING_SLOTS, .nb_queues = 1,
    };
    info->default_txportconf = info->default_rxportconf;
    info->dev_capa &= ~RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP;
    return 0;
}

/*
 * Receive interrupts: an eventfd per queue, which the library writes.
 */

static void rx_intr_uninstall(struct p2plink_dev *dev)
{
    for (int i = 0; dev->rx_intr && i < rte_intr_nb_efd_get(dev->intr); i++) {
        int fd = rte_intr_efds_index_get(dev->intr, i);
        if (fd >= 0) {
            close(fd);
        }
        rte_intr_efds_index_set(dev->intr, i, -1);
    }
    rte_intr_free_epoll_fd(dev->intr);
    rte_intr_vec_list_free(dev->intr);
    rte_intr_nb_efd_set(dev->intr, 0);
    dev->rx_intr = false;
}

static int rx_intr_install(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    uint16_t n = eth->data->nb_rx_queues;
    struct p2p_port_info info;

    p2p_port_get_info(dev->port, &info);
    if (info.in_guest) {
        P2PLINK_LOG(ERR, "%s: there are no receive interrupts in a guest: poll\n", eth->data->name);
        return -ENOTSUP;
    }
    if (rte_intr_vec_list_alloc(dev->intr, "p2plink_intr_vec", n) || rte_intr_nb_efd_set(dev->intr, n)
        || rte_intr_max_intr_set(dev->intr, n + RTE_INTR_VEC_RXTX_OFFSET)
        || rte_intr_efd_counter_size_set(dev->intr, sizeof(uint64_t))) {
        rx_intr_uninstall(dev);
        return -ENOMEM;
    }
    dev->rx_intr = true;
    for (uint16_t i = 0; i < n; i++) {
        rte_intr_efds_index_set(dev->intr, i, -1);
    }
    for (uint16_t i = 0; i < n; i++) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0 || rte_intr_efds_index_set(dev->intr, i, fd)
            || rte_intr_vec_list_index_set(dev->intr, i, RTE_INTR_VEC_RXTX_OFFSET + i)) {
            rx_intr_uninstall(dev);
            return -ENFILE;
        }
    }
    return 0;
}

static int rx_queue_intr_enable(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    const struct p2plink_rxq *q = eth->data->rx_queues[id];
    int fd = rte_intr_efds_index_get(dev->intr, id), error = 0;

    if (!dev->rx_intr) {
        return -ENOTSUP;
    }
    if (q->next < q->n) {
        uint64_t one = 1;
        return write(fd, &one, sizeof one) < 0 ? -errno : 0; /* Taken already, and waiting for an mbuf. */
    }
    for (unsigned i = id; i < dev->n_rxq && !error; i += q->step) {
        error = p2p_rx_arm(dev->port, i, fd);
    }
    return error;
}

static int rx_queue_intr_disable(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    const struct p2plink_rxq *q = eth->data->rx_queues[id];

    for (unsigned i = id; i < P2P_MAX_QUEUES; i += q->step) {
        p2p_rx_disarm(dev->port, i);
    }
    return 0;
}

/*
 * Configure, start, stop.
 */

static int configure(struct rte_eth_dev *eth __rte_unused)
{
    return 0; /* ethdev has compared it all with infos_get(). */
}

static void set_max_len(struct rte_eth_dev *eth, uint16_t mtu)
{
    for (uint16_t i = 0; i < eth->data->nb_rx_queues; i++) {
        struct p2plink_rxq *q = eth->data->rx_queues[i];
        if (q) {
            __atomic_store_n(&q->max_len, mtu + P2PLINK_OVERHEAD, __ATOMIC_RELAXED);
        }
    }
}

/* Do the frames of 'mtu' fit into the buffers of all queues? */
static int check_room(struct rte_eth_dev *eth, uint16_t mtu)
{
    for (uint16_t i = 0; i < eth->data->nb_rx_queues; i++) {
        const struct p2plink_rxq *q = eth->data->rx_queues[i];
        if (q && !q->scatter && mtu + P2PLINK_OVERHEAD > q->room) {
            P2PLINK_LOG(ERR, "%s: frames of MTU %u (%u bytes) do not fit into the %u bytes of an mbuf of rx queue %u: "
                        "enable RTE_ETH_RX_OFFLOAD_SCATTER, or give it larger mbufs\n", eth->data->name, mtu,
                        mtu + P2PLINK_OVERHEAD, q->room, i);
            return -EINVAL;
        }
    }
    return 0;
}

/* What peers may leave undone: P2P_TAKES_*.  A packet that stands for several can have any length that there is, so an
 * application has to allow for that. */
static uint32_t what_we_take(struct rte_eth_dev *eth)
{
    const struct rte_eth_rxmode *rx = &eth->data->dev_conf.rxmode;
    bool csum = (rx->offloads & RX_L4_CSUM) == RX_L4_CSUM;
    bool tso = csum && rx->offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO && rx->max_lro_pkt_size >= P2P_TSO_MAX;

    for (uint16_t i = 0; i < eth->data->nb_rx_queues; i++) {
        const struct p2plink_rxq *q = eth->data->rx_queues[i];
        tso &= q->scatter && q->room * P2PLINK_STASH >= P2P_TSO_MAX;
    }
    return (csum ? P2P_TAKES_CSUM : 0) | (tso ? P2P_TAKES_TSO : 0);
}

static int rx_queue_start(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_rxq *q = eth->data->rx_queues[id];

    q->running = true;
    eth->data->rx_queue_state[id] = RTE_ETH_QUEUE_STATE_STARTED;
    return 0;
}

static int rx_queue_stop(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_rxq *q = eth->data->rx_queues[id];

    q->running = false;
    eth->data->rx_queue_state[id] = RTE_ETH_QUEUE_STATE_STOPPED;
    return 0;
}

static int tx_queue_start(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_txq *q = eth->data->tx_queues[id];

    q->running = true;
    eth->data->tx_queue_state[id] = RTE_ETH_QUEUE_STATE_STARTED;
    return 0;
}

static int tx_queue_stop(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_txq *q = eth->data->tx_queues[id];

    q->running = false;
    eth->data->tx_queue_state[id] = RTE_ETH_QUEUE_STATE_STOPPED;
    return 0;
}

static int start(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    struct rte_eth_dev_data *data = eth->data;
    uint64_t offloads = data->dev_conf.rxmode.offloads;
    int error = check_room(eth, data->mtu);

    if (error) {
        return error;
    }
    if (data->dev_conf.intr_conf.rxq) {
        error = rx_intr_install(eth);
        if (error) {
            return error;
        }
    }
    set_max_len(eth, data->mtu);
    vnf_set_takes(dev->port, what_we_take(eth));
    data->scattered_rx = !!(offloads & RTE_ETH_RX_OFFLOAD_SCATTER);
    for (uint16_t i = 0; i < data->nb_rx_queues; i++) {
        struct p2plink_rxq *q = data->rx_queues[i];
        q->step = data->nb_rx_queues;
        q->strip_vlan = offloads & RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
        /* What a chain of all mbufs at hand has room for: a peer may send longer ones, although it was not asked to. */
        q->max_tso = offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO && q->scatter
                     ? RTE_MIN(P2P_TSO_MAX, q->room * P2PLINK_STASH) : 0;
        if (q->cur % q->step != q->id) { /* There is another number of queues now. */
            if (q->n) {
                p2p_rx_release(q->port, q->cur);
            }
            q->n = q->next = 0;
            q->cur = q->id;
        }
        if (!q->deferred) {
            rx_queue_start(eth, i);
        }
    }
    for (uint16_t i = 0; i < data->nb_tx_queues; i++) {
        const struct p2plink_txq *q = data->tx_queues[i];
        if (!q->deferred) {
            tx_queue_start(eth, i);
        }
    }
    dev->started = true;
    link_update(eth, 0);
    return 0;
}

static int stop(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;

    for (uint16_t i = 0; i < eth->data->nb_rx_queues; i++) {
        rx_queue_stop(eth, i);
        rx_queue_intr_disable(eth, i);
    }
    rx_intr_uninstall(dev);
    for (uint16_t i = 0; i < eth->data->nb_tx_queues; i++) {
        tx_queue_stop(eth, i);
    }
    dev->started = false;
    link_update(eth, 0);
    return 0;
}

/*
 * Queues.
 */

static void rx_queue_release(struct rte_eth_dev *eth, uint16_t id)
{
    struct p2plink_rxq *q = eth->data->rx_queues[id];

    if (!q) {
        return;
    }
    if (q->n) {
        p2p_rx_release(q->port, q->cur); /* What is left goes: there was no mbuf for it. */
    }
    if (q->n_stash) {
        rte_mempool_put_bulk(q->pool, (void **)q->stash, q->n_stash);
    }
    rte_free(q);
    eth->data->rx_queues[id] = NULL;
}

static int rx_queue_setup(struct rte_eth_dev *eth, uint16_t id, uint16_t n_desc, unsigned socket,
                          const struct rte_eth_rxconf *conf, struct rte_mempool *pool)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    uint64_t offloads = conf->offloads | eth->data->dev_conf.rxmode.offloads;
    struct p2plink_rxq *q = rte_zmalloc_socket("p2plink_rxq", sizeof *q, RTE_CACHE_LINE_SIZE, (int)socket);

    if (!q) {
        return -ENOMEM;
    }
    q->dev = dev;
    q->port = dev->port;
    q->count = &dev->rx[id];
    q->pool = pool;
    q->id = q->cur = id;
    q->step = eth->data->nb_rx_queues;
    q->room = (uint16_t)(rte_pktmbuf_data_room_size(pool) - RTE_PKTMBUF_HEADROOM);
    q->scatter = offloads & RTE_ETH_RX_OFFLOAD_SCATTER;
    q->want_hash = offloads & RTE_ETH_RX_OFFLOAD_RSS_HASH;
    q->want_csum = (offloads & RX_L4_CSUM) == RX_L4_CSUM;
    q->n_desc = n_desc;
    q->deferred = conf->rx_deferred_start;

    struct rte_mbuf model = { .data_off = RTE_PKTMBUF_HEADROOM, .nb_segs = 1, .port = eth->data->port_id };
    rte_mbuf_refcnt_set(&model, 1);
    rte_compiler_barrier();
    q->rearm = *p2plink_rearm(&model);
    eth->data->rx_queues[id] = q;
    return 0;
}

static void tx_queue_release(struct rte_eth_dev *eth, uint16_t id)
{
    rte_free(eth->data->tx_queues[id]);
    eth->data->tx_queues[id] = NULL;
}

static int tx_queue_setup(struct rte_eth_dev *eth, uint16_t id, uint16_t n_desc, unsigned socket,
                          const struct rte_eth_txconf *conf)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    struct p2plink_txq *q = rte_zmalloc_socket("p2plink_txq", sizeof *q, RTE_CACHE_LINE_SIZE, (int)socket);

    if (!q) {
        return -ENOMEM;
    }
    q->port = dev->port;
    q->count = &dev->tx[id];
    q->id = id;
    q->n_desc = n_desc;
    q->deferred = conf->tx_deferred_start;
    eth->data->tx_queues[id] = q;
    return 0;
}

static void rxq_info_get(struct rte_eth_dev *eth, uint16_t id, struct rte_eth_rxq_info *info)
{
    const struct p2plink_rxq *q = eth->data->rx_queues[id];

    info->mp = q->pool;
    info->scattered_rx = q->scatter;
    info->nb_desc = q->n_desc;
    info->conf.rx_deferred_start = q->deferred;
    info->conf.offloads = eth->data->dev_conf.rxmode.offloads;
}

static void txq_info_get(struct rte_eth_dev *eth, uint16_t id, struct rte_eth_txq_info *info)
{
    const struct p2plink_txq *q = eth->data->tx_queues[id];

    info->nb_desc = q->n_desc;
    info->conf.tx_deferred_start = q->deferred;
    info->conf.offloads = eth->data->dev_conf.txmode.offloads;
}

static int burst_mode_get(struct rte_eth_dev *eth __rte_unused, uint16_t id __rte_unused,
                          struct rte_eth_burst_mode *mode)
{
    rte_strlcpy(mode->info, "Scalar", sizeof mode->info);
    return 0;
}

/* Mbufs are free as soon as they have been sent. */
static int tx_done_cleanup(void *txq __rte_unused, uint32_t n __rte_unused)
{
    return 0;
}

/*
 * Settings.  A port hears whatever the switch, or its peer, sends to it: there is no filter by address.
 */

static int accept_all(struct rte_eth_dev *eth __rte_unused)
{
    return 0;
}

static int mac_addr_set(struct rte_eth_dev *eth __rte_unused, struct rte_ether_addr *mac __rte_unused)
{
    return 0;
}

static int mac_addr_add(struct rte_eth_dev *eth __rte_unused, struct rte_ether_addr *mac __rte_unused,
                        uint32_t index __rte_unused, uint32_t pool __rte_unused)
{
    return 0;
}

static void mac_addr_remove(struct rte_eth_dev *eth __rte_unused, uint32_t index __rte_unused)
{
}

static int set_mc_addr_list(struct rte_eth_dev *eth __rte_unused, struct rte_ether_addr *list __rte_unused,
                            uint32_t n __rte_unused)
{
    return 0;
}

static int mtu_set(struct rte_eth_dev *eth, uint16_t mtu)
{
    const struct p2plink_dev *dev = eth->data->dev_private;
    int error = dev->started ? check_room(eth, mtu) : 0; /* Else start() sees to it. */

    if (!error) {
        set_max_len(eth, mtu);
    }
    return error;
}

static int vlan_offload_set(struct rte_eth_dev *eth, int mask)
{
    if (mask & RTE_ETH_VLAN_STRIP_MASK) {
        for (uint16_t i = 0; i < eth->data->nb_rx_queues; i++) {
            struct p2plink_rxq *q = eth->data->rx_queues[i];
            if (q) {
                q->strip_vlan = eth->data->dev_conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
            }
        }
    }
    return 0;
}

static int priv_dump(struct rte_eth_dev *eth, FILE *f)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    struct p2p_port_info info;

    p2p_port_get_info(dev->port, &info);
    fprintf(f, "port %s: %sattached, %u rx and %u tx queues, mtu %u\n", dev->name, info.attached ? "" : "not ",
            info.n_rxq, info.n_txq, info.mtu);
    fprintf(f, "sends %s (link %u), receives %s (link %u)\n", info.tx_direct ? "directly" : "through the switch",
            info.tx_link_id, info.rx_direct ? "directly too" : "from the switch", info.rx_link_id);
    return 0;
}

static int close_dev(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;

    if (rte_eal_process_type() != RTE_PROC_PRIMARY) {
        return 0;
    }
    p2plink_unwatch(eth);
    for (uint16_t i = 0; i < eth->data->nb_rx_queues; i++) {
        rx_queue_release(eth, i);
    }
    for (uint16_t i = 0; i < eth->data->nb_tx_queues; i++) {
        tx_queue_release(eth, i);
    }
    p2p_port_close(dev->port);
    dev->port = NULL;
    eth->data->mac_addrs = NULL; /* Part of dev_private. */
    return 0;
}

const struct eth_dev_ops p2plink_ops = {
    .dev_configure = configure,
    .dev_start = start,
    .dev_stop = stop,
    .dev_close = close_dev,
    .dev_infos_get = infos_get,
    .link_update = link_update,
    .promiscuous_enable = accept_all,
    .promiscuous_disable = accept_all,
    .allmulticast_enable = accept_all,
    .allmulticast_disable = accept_all,
    .mac_addr_set = mac_addr_set,
    .mac_addr_add = mac_addr_add,
    .mac_addr_remove = mac_addr_remove,
    .set_mc_addr_list = set_mc_addr_list,
    .mtu_set = mtu_set,
    .vlan_offload_set = vlan_offload_set,
    .stats_get = p2plink_stats_get,
    .stats_reset = p2plink_stats_reset,
    .xstats_get = p2plink_xstats_get,
    .xstats_get_names = p2plink_xstats_get_names,
    .xstats_reset = p2plink_stats_reset,
    .rx_queue_setup = rx_queue_setup,
    .rx_queue_release = rx_queue_release,
    .rx_queue_start = rx_queue_start,
    .rx_queue_stop = rx_queue_stop,
    .rxq_info_get = rxq_info_get,
    .rx_burst_mode_get = burst_mode_get,
    .rx_queue_intr_enable = rx_queue_intr_enable,
    .rx_queue_intr_disable = rx_queue_intr_disable,
    .tx_queue_setup = tx_queue_setup,
    .tx_queue_release = tx_queue_release,
    .tx_queue_start = tx_queue_start,
    .tx_queue_stop = tx_queue_stop,
    .txq_info_get = txq_info_get,
    .tx_burst_mode_get = burst_mode_get,
    .tx_done_cleanup = tx_done_cleanup,
    .eth_dev_priv_dump = priv_dump,
};
