/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the DPDK driver gets its devices: --vdev=net_p2plink0,port=NAME,..., or, in a guest, the ivshmem devices that
 * carry a port.
 *
 * Called by EAL, on the thread that initialises it or plugs devices.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <bus_vdev_driver.h>
#include <ethdev_vdev.h>
#include <rte_devargs.h>
#include <rte_kvargs.h>
#include <rte_lcore.h>
#include <rte_pci.h>
#include "p2plink_dev.h"

#define DRIVER_NAME "net_p2plink"
#define WAIT_MS_MAX 600000ul
#define GUEST_WAIT_MS 2000      /* The switch may be about to look. */
#define PCI_SYSFS "/sys/bus/pci/devices"

static const char *const known_args[] = { "port", "socket", "attach", "sysfs", "wait", NULL };

RTE_LOG_REGISTER(p2plink_logtype, pmd.net.p2plink, NOTICE);

static void log_line(void *aux __rte_unused, enum p2p_log_level level, const char *message)
{
    static const uint32_t levels[] = { RTE_LOG_ERR, RTE_LOG_WARNING, RTE_LOG_INFO, RTE_LOG_DEBUG };

    rte_log(levels[level], p2plink_logtype, "p2plink: %s\n", message);
}

/* Opening a port makes the library's control thread, which inherits the processors of whoever opens it: that must not
 * be an lcore, whose thread leaves nothing to others. */
struct opening {
    struct p2p_port_config cfg;
    struct p2p_port *port;
    struct p2p_error err;
    int error;
};

static void *open_port(void *opening_)
{
    struct opening *o = opening_;

    o->error = p2p_port_open(&o->cfg, &o->port, &o->err);
    return NULL;
}

static int open_elsewhere(struct opening *o)
{
    pthread_t thread;
    int error = rte_ctrl_thread_create(&thread, "p2plink-open", NULL, open_port, o);

    if (error) {
        return -abs(error);
    }
    pthread_join(thread, NULL);
    if (o->error) {
        P2PLINK_LOG(ERR, "port %s: %s\n", o->cfg.name, o->err.text);
    }
    return o->error;
}

/* Fills in a device that ethdev has allocated.  On failure, all is as before. */
static int init(struct rte_eth_dev *eth, const struct p2p_port_config *cfg)
{
    struct p2plink_dev *dev = eth->data->dev_private;
    struct opening o = { .cfg = *cfg };
    struct p2p_port_info info;

    o.cfg.log = log_line;
    int error = open_elsewhere(&o);
    if (error) {
        return error;
    }
    dev->port = o.port;
    p2p_port_get_info(dev->port, &info);
    memcpy(dev->name, info.name, sizeof dev->name);
    dev->n_rxq = info.n_rxq;
    dev->n_txq = info.n_txq;
    dev->mtu = info.mtu;
    memcpy(dev->macs[0].addr_bytes, info.mac, sizeof info.mac);

    struct rte_eth_dev_data *data = eth->data;
    data->mac_addrs = dev->macs;
    data->mtu = (uint16_t)RTE_MIN(info.mtu, (uint32_t)RTE_ETHER_MTU);
    data->promiscuous = 1;
    data->all_multicast = 1;
    data->dev_flags |= RTE_ETH_DEV_INTR_LSC | RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS;
    data->dev_link = (struct rte_eth_link) {
        .link_speed = RTE_ETH_SPEED_NUM_10G, .link_duplex = RTE_ETH_LINK_FULL_DUPLEX,
        .link_autoneg = RTE_ETH_LINK_FIXED,
    };
    eth->dev_ops = &p2plink_ops;
    eth->rx_pkt_burst = p2plink_rx_burst;
    eth->tx_pkt_burst = p2plink_tx_burst;
    eth->tx_pkt_prepare = p2plink_tx_prepare;
    error = p2plink_watch(eth);
    if (error) {
        P2PLINK_LOG(ERR, "%s: cannot follow the port's state: %s\n", data->name, rte_strerror(-error));
        p2plink_unwatch(eth);
        p2p_port_close(dev->port);
        data->mac_addrs = NULL;
    }
    return error;
}

/* A port's rings and the driver's queues are one process's. */
static int refuse_secondary(const char *name)
{
    if (rte_eal_process_type() == RTE_PROC_PRIMARY) {
        return 0;
    }
    P2PLINK_LOG(ERR, "%s: secondary processes cannot use p2plink ports: open the port in the primary process only, or "
                "in a primary process of its own\n", name);
    return -ENOTSUP;
}

/*
 * Virtual devices.
 */

static int parse_string(const char *key __rte_unused, const char *value, void *to)
{
    *(const char **)to = value;
    return 0;
}

static int parse_attach(const char *key __rte_unused, const char *value, void *to)
{
    enum p2p_attach *attach = to;

    if (!strcmp(value, "auto")) {
        *attach = P2P_ATTACH_AUTO;
    } else if (!strcmp(value, "socket")) {
        *attach = P2P_ATTACH_SOCKET;
    } else if (!strcmp(value, "pci")) {
        *attach = P2P_ATTACH_PCI;
    } else {
        P2PLINK_LOG(ERR, "attach=%s: give auto, socket or pci\n", value);
        return -EINVAL;
    }
    return 0;
}

static int parse_wait(const char *key __rte_unused, const char *value, void *to)
{
    char *end;
    unsigned long ms = strtoul(value, &end, 10);

    if (*value < '0' || *value > '9' || *end || ms > WAIT_MS_MAX) {
        P2PLINK_LOG(ERR, "wait=%s: give milliseconds, up to %lu\n", value, WAIT_MS_MAX);
        return -EINVAL;
    }
    *(unsigned *)to = (unsigned)ms;
    return 0;
}

static int parse_args(struct rte_kvargs *args, struct p2p_port_config *cfg)
{
    int error = rte_kvargs_process(args, "port", parse_string, &cfg->name);

    error = error ? error : rte_kvargs_process(args, "socket", parse_string, &cfg->socket);
    error = error ? error : rte_kvargs_process(args, "sysfs", parse_string, &cfg->sysfs);
    error = error ? error : rte_kvargs_process(args, "attach", parse_attach, &cfg->attach);
    error = error ? error : rte_kvargs_process(args, "wait", parse_wait, &cfg->wait_ms);
    if (!error && !cfg->name) {
        P2PLINK_LOG(ERR, "port= is missing: give the port's name in OVS, such as port=dpdkr1\n");
    }
    return error || !cfg->name ? -EINVAL : 0;
}

static int vdev_probe(struct rte_vdev_device *vdev)
{
    const char *name = rte_vdev_device_name(vdev);
    struct p2p_port_config cfg = { .attach = P2P_ATTACH_AUTO };
    int error = refuse_secondary(name);

    if (error) {
        return error;
    }
    struct rte_kvargs *args = rte_kvargs_parse(rte_vdev_device_args(vdev), known_args);
    if (!args) {
        P2PLINK_LOG(ERR, "%s: it takes port=NAME, socket=PATH, attach=auto|socket|pci, sysfs=PATH and "
                    "wait=MILLISECONDS, not \"%s\"\n", name, rte_vdev_device_args(vdev));
        return -EINVAL;
    }
    error = parse_args(args, &cfg);
    if (!error) {
        struct rte_eth_dev *eth = rte_eth_vdev_allocate(vdev, sizeof(struct p2plink_dev));
        error = eth ? init(eth, &cfg) : -ENOMEM;
        if (!error) {
            rte_eth_dev_probing_finish(eth);
        } else if (eth) {
            rte_eth_dev_release_port(eth);
        }
    }
    rte_kvargs_free(args);
    return error;
}

static int vdev_remove(struct rte_vdev_device *vdev)
{
    struct rte_eth_dev *eth = rte_eth_dev_allocated(rte_vdev_device_name(vdev));

    if (eth) {
        const struct p2plink_dev *dev = eth->data->dev_private;
        if (dev && dev->port) {
            p2plink_ops.dev_close(eth);
        }
        rte_eth_dev_release_port(eth);
    }
    return 0;
}

static struct rte_vdev_driver vdev_driver = {
    .probe = vdev_probe,
    .remove = vdev_remove,
};

RTE_PMD_REGISTER_VDEV(net_p2plink, vdev_driver);
RTE_PMD_REGISTER_PARAM_STRING(net_p2plink,
                              "port=<string> "
                              "socket=<path> "
                              "attach=auto|socket|pci "
                              "sysfs=<path> "
                              "wait=<milliseconds>");

/*
 * Guests.  DPDK's PCI bus leaves out devices that no driver of the kernel has, such as these; so each of them that
 * carries a port is made a virtual device, as if the command line had named it.  Those of links have the same id; the
 * library finds them when they come.
 */

static bool plain_name(const char *name)
{
    return *name && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == strlen(name);
}

/* Do -a and -b let the application have the PCI device at 'address'? */
static bool allowed(const char *address)
{
    const struct rte_devargs *devargs;
    bool all = true;

    RTE_EAL_DEVARGS_FOREACH("pci", devargs) {
        struct rte_pci_addr a, b;
        bool same = !rte_pci_addr_parse(devargs->name, &a) && !rte_pci_addr_parse(address, &b)
                    && !rte_pci_addr_cmp(&a, &b);
        if (same) {
            return devargs->policy == RTE_DEV_ALLOWED;
        }
        all &= devargs->policy != RTE_DEV_ALLOWED;
    }
    return all;
}

/* Is there a device for 'port' already, by the command line or by an earlier scan? */
static bool known(const char *port)
{
    const struct rte_devargs *devargs;
    char key[sizeof "port=" + P2P_NAME_MAX];
    size_t len = (size_t)snprintf(key, sizeof key, "port=%s", port);

    RTE_EAL_DEVARGS_FOREACH("vdev", devargs) {
        const char *arg = strncmp(devargs->name, DRIVER_NAME, strlen(DRIVER_NAME)) ? NULL : devargs->args;
        for (; arg && *arg; arg = strchr(arg, ',') ? strchr(arg, ',') + 1 : NULL) {
            if (!strncmp(arg, key, len) && (!arg[len] || arg[len] == ',')) {
                return true;
            }
        }
    }
    return false;
}

static void add_port_at(const char *address)
{
    char dir[sizeof PCI_SYSFS + NAME_MAX + 1], port[P2P_NAME_MAX], args[2 * P2P_NAME_MAX + 64];

    snprintf(dir, sizeof dir, "%s/%s", PCI_SYSFS, address);
    int error = vnf_pci_port_name(dir, port);
    if (error == -ENODEV || !allowed(address)) {
        return;
    }
    if (error) {
        P2PLINK_LOG(WARNING, "%s: %s: run as root\n", dir, rte_strerror(-error));
    } else if (!plain_name(port)) {
        P2PLINK_LOG(WARNING, "%s: DPDK cannot have a port called \"%s\"\n", dir, port);
    } else if (!known(port)) {
        snprintf(args, sizeof args, DRIVER_NAME "_%s,port=%s,attach=pci,wait=%u", port, port, GUEST_WAIT_MS);
        if (rte_devargs_add(RTE_DEVTYPE_VIRTUAL, args)) {
            P2PLINK_LOG(ERR, "%s: cannot add \"%s\"\n", dir, args);
        }
    }
}

static int is_device(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/* When EAL looks for virtual devices. */
static void find_ports(void *arg __rte_unused)
{
    struct dirent **found;
    int n = rte_eal_has_pci() && rte_eal_process_type() == RTE_PROC_PRIMARY
            ? scandir(PCI_SYSFS, &found, is_device, alphasort) : 0;

    for (int i = 0; i < n; i++) {
        add_port_at(found[i]->d_name);
        free(found[i]);
    }
    if (n > 0) {
        free(found);
    }
}

RTE_INIT(p2plink_init)
{
    rte_vdev_add_custom_scan(find_ports, NULL);
}
