/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DPDK driver's statistics: what queues count, and what the library knows besides, the normal way and the direct
 * one apart.
 *
 * Any control thread.  Counters are never set back, since their data threads write them: a reset remembers where they
 * stood.
 */
#include <stddef.h>
#include <rte_string_fns.h>
#include "p2plink_dev.h"

/* Each queue's counters, of which the sum is shown. */
struct queue_field {
    const char *name;
    size_t offset;
};
static const struct queue_field rx_fields[] = {
    { "rx_too_long", offsetof(struct p2plink_rx_counters, too_long) },
    { "rx_carried_checksums", offsetof(struct p2plink_rx_counters, carried_csum) },
    { "rx_carried_segmentations", offsetof(struct p2plink_rx_counters, carried_tso) },
};
static const struct queue_field tx_fields[] = {
    { "tx_bad_packets", offsetof(struct p2plink_tx_counters, bad) },
    { "tx_carried_checksums", offsetof(struct p2plink_tx_counters, carried_csum) },
    { "tx_carried_segmentations", offsetof(struct p2plink_tx_counters, carried_tso) },
    { "tx_software_checksums", offsetof(struct p2plink_tx_counters, sw_csum) },
    { "tx_software_segments", offsetof(struct p2plink_tx_counters, sw_segments) },
};

/* What the library counts: all of it, less a part. */
struct lib_field {
    const char *name;
    size_t offset, less;    /* 'less' 0: nothing. */
};
#define LIB(FIELD) offsetof(struct p2p_port_stats, FIELD)
static const struct lib_field lib_fields[] = {
    { "rx_normal_packets", LIB(rx_packets), LIB(rx_direct_packets) },
    { "rx_normal_bytes", LIB(rx_bytes), LIB(rx_direct_bytes) },
    { "rx_direct_packets", LIB(rx_direct_packets), 0 },
    { "rx_direct_bytes", LIB(rx_direct_bytes), 0 },
    { "rx_bad_descriptors", LIB(rx_bad), 0 },
    { "tx_normal_packets", LIB(tx_packets), LIB(tx_direct_packets) },
    { "tx_normal_bytes", LIB(tx_bytes), LIB(tx_direct_bytes) },
    { "tx_direct_packets", LIB(tx_direct_packets), 0 },
    { "tx_direct_bytes", LIB(tx_direct_bytes), 0 },
    { "tx_refused", LIB(tx_refused), 0 },
    { "tx_switchovers", LIB(tx_epochs), 0 },
};
#define N_XSTATS (RTE_DIM(rx_fields) + RTE_DIM(tx_fields) + RTE_DIM(lib_fields))

static uint64_t word(const void *counters, size_t offset)
{
    return __atomic_load_n((const uint64_t *)((const char *)counters + offset), __ATOMIC_RELAXED);
}

static uint64_t rx_since(const struct p2plink_dev *dev, unsigned queue, size_t offset)
{
    return word(&dev->rx[queue], offset) - word(&dev->base.rx[queue], offset);
}

static uint64_t tx_since(const struct p2plink_dev *dev, unsigned queue, size_t offset)
{
    return word(&dev->tx[queue], offset) - word(&dev->base.tx[queue], offset);
}

static uint64_t lib_since(const struct p2plink_dev *dev, const struct p2p_port_stats *now, const struct lib_field *f)
{
    uint64_t value = word(now, f->offset) - word(&dev->base.lib, f->offset);
    uint64_t less = f->less ? word(now, f->less) - word(&dev->base.lib, f->less) : 0;

    return value > less ? value - less : 0; /* They are not read at one moment. */
}

int p2plink_stats_get(struct rte_eth_dev *eth, struct rte_eth_stats *stats)
{
    const struct p2plink_dev *dev = eth->data->dev_private;
    struct p2p_port_stats lib;

    p2p_port_get_stats(dev->port, &lib);
    stats->ierrors = lib.rx_bad - dev->base.lib.rx_bad;
    for (unsigned i = 0; i < P2P_MAX_QUEUES; i++) {
        uint64_t packets = rx_since(dev, i, offsetof(struct p2plink_rx_counters, packets));
        uint64_t bytes = rx_since(dev, i, offsetof(struct p2plink_rx_counters, bytes));

        stats->ipackets += packets;
        stats->ibytes += bytes;
        stats->ierrors += rx_since(dev, i, offsetof(struct p2plink_rx_counters, too_long));
        stats->rx_nombuf += rx_since(dev, i, offsetof(struct p2plink_rx_counters, no_mbuf));
        if (i < RTE_ETHDEV_QUEUE_STAT_CNTRS) {
            stats->q_ipackets[i] = packets;
            stats->q_ibytes[i] = bytes;
        }
        packets = tx_since(dev, i, offsetof(struct p2plink_tx_counters, packets));
        bytes = tx_since(dev, i, offsetof(struct p2plink_tx_counters, bytes));
        stats->opackets += packets;
        stats->obytes += bytes;
        stats->oerrors += tx_since(dev, i, offsetof(struct p2plink_tx_counters, bad));
        if (i < RTE_ETHDEV_QUEUE_STAT_CNTRS) {
            stats->q_opackets[i] = packets;
            stats->q_obytes[i] = bytes;
        }
    }
    return 0;
}

int p2plink_stats_reset(struct rte_eth_dev *eth)
{
    struct p2plink_dev *dev = eth->data->dev_private;

    for (unsigned i = 0; i < P2P_MAX_QUEUES; i++) {
        dev->base.rx[i] = dev->rx[i];
        dev->base.tx[i] = dev->tx[i];
    }
    p2p_port_get_stats(dev->port, &dev->base.lib);
    return 0;
}

int p2plink_xstats_get(struct rte_eth_dev *eth, struct rte_eth_xstat *stats, unsigned n)
{
    const struct p2plink_dev *dev = eth->data->dev_private;
    struct p2p_port_stats lib;
    unsigned k = 0;

    if (n < N_XSTATS || !stats) {
        return N_XSTATS;
    }
    p2p_port_get_stats(dev->port, &lib);
    for (unsigned i = 0; i < RTE_DIM(lib_fields); i++) {
        stats[k++].value = lib_since(dev, &lib, &lib_fields[i]);
    }
    for (unsigned i = 0; i < RTE_DIM(rx_fields); i++, k++) {
        stats[k].value = 0;
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            stats[k].value += rx_since(dev, q, rx_fields[i].offset);
        }
    }
    for (unsigned i = 0; i < RTE_DIM(tx_fields); i++, k++) {
        stats[k].value = 0;
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            stats[k].value += tx_since(dev, q, tx_fields[i].offset);
        }
    }
    for (unsigned i = 0; i < k; i++) {
        stats[i].id = i;
    }
    return (int)k;
}

int p2plink_xstats_get_names(struct rte_eth_dev *eth __rte_unused, struct rte_eth_xstat_name *names, unsigned n)
{
    unsigned k = 0;

    if (n < N_XSTATS || !names) {
        return N_XSTATS;
    }
    for (unsigned i = 0; i < RTE_DIM(lib_fields); i++) {
        rte_strlcpy(names[k++].name, lib_fields[i].name, sizeof names->name);
    }
    for (unsigned i = 0; i < RTE_DIM(rx_fields); i++) {
        rte_strlcpy(names[k++].name, rx_fields[i].name, sizeof names->name);
    }
    for (unsigned i = 0; i < RTE_DIM(tx_fields); i++) {
        rte_strlcpy(names[k++].name, tx_fields[i].name, sizeof names->name);
    }
    return (int)k;
}
