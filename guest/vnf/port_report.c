/* SPDX-License-Identifier: Apache-2.0 */
/* A port's state and statistics as JSON, see port_report.h. */
#include "port_report.h"

static void info_json(const struct p2p_port *port, struct json *j)
{
    struct p2p_port_info info;
    char mac[18];

    p2p_port_get_info(port, &info);
    snprintf(mac, sizeof mac, "%02x:%02x:%02x:%02x:%02x:%02x", info.mac[0], info.mac[1], info.mac[2], info.mac[3],
             info.mac[4], info.mac[5]);
    json_object(j, "port");
    json_string(j, "name", info.name);
    json_string(j, "mac", mac);
    json_uint(j, "n_txq", info.n_txq);
    json_uint(j, "n_rxq", info.n_rxq);
    json_uint(j, "mtu", info.mtu);
    json_bool(j, "in_guest", info.in_guest);
    json_bool(j, "attached", info.attached);
    json_bool(j, "link_up", info.link_up);
    json_bool(j, "tx_direct", info.tx_direct);
    json_bool(j, "rx_direct", info.rx_direct);
    json_uint(j, "tx_link_id", info.tx_link_id);
    json_uint(j, "rx_link_id", info.rx_link_id);
    json_object_end(j);
}

static void stats_json(const struct p2p_port *port, struct json *j)
{
    struct p2p_port_stats st;

    p2p_port_get_stats(port, &st);
    json_object(j, "port_stats");
    json_uint(j, "tx_packets", st.tx_packets);
    json_uint(j, "tx_bytes", st.tx_bytes);
    json_uint(j, "rx_packets", st.rx_packets);
    json_uint(j, "rx_bytes", st.rx_bytes);
    json_uint(j, "tx_direct_packets", st.tx_direct_packets);
    json_uint(j, "tx_direct_bytes", st.tx_direct_bytes);
    json_uint(j, "rx_direct_packets", st.rx_direct_packets);
    json_uint(j, "rx_direct_bytes", st.rx_direct_bytes);
    json_uint(j, "tx_refused", st.tx_refused);
    json_uint(j, "rx_bad", st.rx_bad);
    json_uint(j, "tx_epochs", st.tx_epochs);
    json_object_end(j);
}

void port_report_json(const struct p2p_port *port, struct json *j)
{
    info_json(port, j);
    stats_json(port, j);
}
