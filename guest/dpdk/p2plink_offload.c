/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What packets need that ask for more than being copied: checksums, TCP segmentation, VLAN tags.
 *
 * Called by data threads, for such packets only.  A checksum of TCP or UDP is not computed if the packet goes straight
 * to a peer whose application takes packets without (it has asked for receive checksum offload): the memory between
 * them flips no bits.  All else is done here, on the way into the ring, from the mbuf: what lies in a ring may be
 * changed by the peer at any time, and is slow to read in a guest.
 */
#include <string.h>
#include <rte_ip.h>
#include <rte_memcpy.h>
#include <rte_net.h>
#include <rte_tcp.h>
#include <rte_udp.h>
#include "p2plink_dev.h"

#define VLAN_BYTES 4u
#define VLAN_OFFSET (2 * RTE_ETHER_ADDR_LEN)
#define TCP_FIN_PSH (RTE_TCP_FIN_FLAG | RTE_TCP_PSH_FLAG)

#define UNKNOWN_WORK (RTE_MBUF_F_TX_UDP_SEG | RTE_MBUF_F_TX_QINQ | RTE_MBUF_F_TX_TUNNEL_MASK)

/* What is known of a packet's headers, and their bytes. */
struct headers {
    uint32_t l3, l4;        /* Offsets. */
    uint32_t l4_len;        /* Bytes from l4 on, payload included, without what pads the frame. */
    uint8_t proto;
    bool v4;
    uint8_t bytes[P2PLINK_HEADERS_MAX];
};

void p2plink_copy_out(const struct rte_mbuf *m, uint32_t off, uint32_t len, uint8_t *to)
{
    const void *p = rte_pktmbuf_read(m, off, len, to);

    if (p && p != to) {
        rte_memcpy(to, p, len); /* It was in one piece. */
    }
}

/* Copies the first 'len' bytes to h->bytes. */
static bool read_headers(struct headers *h, const struct rte_mbuf *m, uint32_t len)
{
    if (len > sizeof h->bytes || len > m->pkt_len) {
        return false;
    }
    p2plink_copy_out(m, 0, len, h->bytes);
    return true;
}

static uint32_t l4_header(uint8_t proto)
{
    return proto == IPPROTO_TCP ? sizeof(struct rte_tcp_hdr) : sizeof(struct rte_udp_hdr);
}

static uint32_t csum_field(const struct headers *h)
{
    return h->l4 + (h->proto == IPPROTO_TCP ? offsetof(struct rte_tcp_hdr, cksum)
                                            : offsetof(struct rte_udp_hdr, dgram_cksum));
}

/* Sum of the addresses, protocol and length that the checksum covers besides. */
static uint32_t pseudo_sum(const struct headers *h, uint32_t l4_len)
{
    const uint8_t *l3 = h->bytes + h->l3;
    const uint8_t *addresses = h->v4 ? l3 + offsetof(struct rte_ipv4_hdr, src_addr)
                                     : l3 + offsetof(struct rte_ipv6_hdr, src_addr);

    return (uint32_t)rte_raw_cksum(addresses, h->v4 ? 8 : 32) + rte_cpu_to_be_16(h->proto)
           + rte_cpu_to_be_16((uint16_t)l4_len);
}

static uint16_t finish(uint32_t sum, uint8_t proto)
{
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    uint16_t csum = (uint16_t)~sum;
    return !csum && proto == IPPROTO_UDP ? 0xffff : csum;
}

/* Bytes of TCP or UDP that the IP header speaks of, if the frame has as many. */
static bool l4_length(struct headers *h, uint32_t pkt_len)
{
    const uint8_t *l3 = h->bytes + h->l3;
    uint32_t all;

    if (h->v4) {
        all = h->l3 + rte_be_to_cpu_16(((const struct rte_ipv4_hdr *)l3)->total_length);
    } else {
        all = h->l3 + (uint32_t)sizeof(struct rte_ipv6_hdr)
              + rte_be_to_cpu_16(((const struct rte_ipv6_hdr *)l3)->payload_len);
    }
    if (all > pkt_len || all < h->l4 + l4_header(h->proto)) {
        return false;
    }
    h->l4_len = all - h->l4;
    return true;
}

/* The checksum that belongs into the packet, whatever stands there now. */
static uint16_t l4_csum(const struct headers *h, const struct rte_mbuf *m)
{
    uint16_t sum = 0, old;

    (void)rte_raw_cksum_mbuf(m, h->l4, h->l4_len, &sum);
    memcpy(&old, h->bytes + csum_field(h), sizeof old);
    return finish((uint32_t)sum + (uint16_t)~old + pseudo_sum(h, h->l4_len), h->proto);
}

/*
 * Transmit.
 */

/* The headers as the application has described them by lengths. */
static bool tx_headers(struct headers *h, const struct rte_mbuf *m)
{
    uint64_t l4 = m->ol_flags & RTE_MBUF_F_TX_L4_MASK;
    bool tso = m->ol_flags & RTE_MBUF_F_TX_TCP_SEG;

    h->v4 = !(m->ol_flags & RTE_MBUF_F_TX_IPV6);
    h->proto = tso || l4 == RTE_MBUF_F_TX_TCP_CKSUM ? IPPROTO_TCP : l4 == RTE_MBUF_F_TX_UDP_CKSUM ? IPPROTO_UDP : 0;
    h->l3 = m->l2_len;
    h->l4 = m->l2_len + m->l3_len;
    h->l4_len = 0;
    return h->l3 >= RTE_ETHER_HDR_LEN
           && m->l3_len >= (h->v4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr))
           && l4 != RTE_MBUF_F_TX_SCTP_CKSUM
           && read_headers(h, m, h->l4 + (tso ? m->l4_len : h->proto ? l4_header(h->proto) : 0));
}

static void put_ip_csum(struct headers *h)
{
    struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(h->bytes + h->l3);

    ip->hdr_checksum = 0;
    ip->hdr_checksum = finish(rte_raw_cksum(ip, h->l4 - h->l3), 0);
}

/* Can whoever receives it deal with that?  Asked at most once a burst: the answer lies in a line that the receiver
 * writes all the time. */
static bool takes(struct p2plink_tx *tx, uint32_t what)
{
    if (!tx->takes_known) {
        tx->takes_known = true;
        tx->takes = tx->vnf.direct ? p2p_load(&tx->vnf.ring->ctl->takes) : 0;
    }
    return tx->takes & what;
}

/* Room for 'len' bytes, and as many more as the tag takes that is to be inserted. */
static uint8_t *reserve(struct p2plink_tx *tx, const struct rte_mbuf *m, uint32_t *len)
{
    if (m->ol_flags & RTE_MBUF_F_TX_VLAN) {
        *len += VLAN_BYTES;
    }
    return p2p_prod_reserve(tx->vnf.ring, tx->head, *len);
}

/* Writes the first 'len' bytes of a frame, at least its addresses, with the tag if one is to be inserted.  Returns
 * where the rest goes. */
static uint8_t *put_headers(uint8_t *to, const struct rte_mbuf *m, const uint8_t *bytes, uint32_t len)
{
    if (m->ol_flags & RTE_MBUF_F_TX_VLAN) {
        uint16_t tag[2] = { RTE_BE16(RTE_ETHER_TYPE_VLAN), rte_cpu_to_be_16(m->vlan_tci) };
        memcpy(to, bytes, VLAN_OFFSET);
        memcpy(to + VLAN_OFFSET, tag, sizeof tag);
        memcpy(to + VLAN_OFFSET + VLAN_BYTES, bytes + VLAN_OFFSET, len - VLAN_OFFSET);
        return to + len + VLAN_BYTES;
    }
    memcpy(to, bytes, len);
    return to + len;
}

static void filled(struct p2plink_tx *tx, const struct rte_mbuf *m, const uint8_t *at, uint32_t len, uint32_t flags)
{
    p2p_prod_fill(tx->vnf.ring, tx->head, at, len, flags, m->ol_flags & RTE_MBUF_F_RX_RSS_HASH ? m->hash.rss : 0);
    tx->head++;
    tx->bytes += len;
}

/* A packet that stays one. */
static int tx_one(struct p2plink_txq *q, struct p2plink_tx *tx, struct rte_mbuf *m)
{
    struct headers h;
    uint32_t len = m->pkt_len, n_headers = VLAN_OFFSET, flags = 0;
    bool csum = m->ol_flags & RTE_MBUF_F_TX_L4_MASK, ip_csum = m->ol_flags & RTE_MBUF_F_TX_IP_CKSUM;

    if (len < P2P_FRAME_MIN) {
        return -EINVAL;
    }
    if (csum || ip_csum) {
        if (!tx_headers(&h, m) || (csum && !l4_length(&h, len)) || (ip_csum && !h.v4)) {
            return -EINVAL;
        }
        n_headers = h.l4 + (csum ? l4_header(h.proto) : 0);
    } else {
        p2plink_copy_out(m, 0, VLAN_OFFSET, h.bytes);
    }
    uint32_t room = len + (m->ol_flags & RTE_MBUF_F_TX_VLAN ? VLAN_BYTES : 0);
    if (room > tx->vnf.ring->max_len) {
        return -EINVAL;
    }
    room = len;
    uint8_t *at = reserve(tx, m, &room);
    if (!at) {
        return 0;
    }
    if (ip_csum) {
        put_ip_csum(&h);
    }
    if (csum) {
        uint16_t sum;
        if (takes(tx, P2P_TAKES_CSUM)) {
            flags = P2P_DESC_CSUM;
            q->count->carried_csum++;
        } else {
            sum = l4_csum(&h, m);
            memcpy(h.bytes + csum_field(&h), &sum, sizeof sum);
            q->count->sw_csum++;
        }
    }
    uint8_t *rest = put_headers(at, m, h.bytes, n_headers);
    if (len > n_headers) {
        p2plink_copy_out(m, n_headers, len - n_headers, rest);
    }
    filled(tx, m, at, room, flags);
    return 1;
}

/* One of the segments of 'm': 'len' bytes of payload from 'off' on.  'h' has the headers of the whole. */
static bool tx_segment(struct p2plink_tx *tx, const struct rte_mbuf *m, const struct headers *whole, uint32_t n_headers,
                       uint32_t off, uint32_t len, unsigned number)
{
    struct headers h = *whole;
    uint32_t l4_len = n_headers - h.l4 + len, room = n_headers + len;
    bool last = off + len == m->pkt_len;
    uint8_t *at = reserve(tx, m, &room);

    if (!at) {
        return false;
    }
    struct rte_tcp_hdr *tcp = (struct rte_tcp_hdr *)(h.bytes + h.l4);
    tcp->sent_seq = rte_cpu_to_be_32(rte_be_to_cpu_32(tcp->sent_seq) + (off - n_headers));
    if (!last) {
        tcp->tcp_flags &= (uint8_t)~TCP_FIN_PSH;
    }
    if (number) {
        tcp->tcp_flags &= (uint8_t)~RTE_TCP_CWR_FLAG;
    }
    if (h.v4) {
        struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(h.bytes + h.l3);
        ip->total_length = rte_cpu_to_be_16((uint16_t)(n_headers - h.l3 + len));
        ip->packet_id = rte_cpu_to_be_16((uint16_t)(rte_be_to_cpu_16(ip->packet_id) + number));
        put_ip_csum(&h);
    } else {
        struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(h.bytes + h.l3);
        ip->payload_len = rte_cpu_to_be_16((uint16_t)(n_headers - h.l3 - sizeof *ip + len));
    }
    uint16_t sum = 0;
    tcp->cksum = 0;
    (void)rte_raw_cksum_mbuf(m, off, len, &sum);
    /* The headers have an even length, so that the payload's bytes keep their places in the sum. */
    tcp->cksum = finish((uint32_t)sum + rte_raw_cksum(tcp, n_headers - h.l4) + pseudo_sum(&h, l4_len), IPPROTO_TCP);
    p2plink_copy_out(m, off, len, put_headers(at, m, h.bytes, n_headers));
    filled(tx, m, at, room, 0);
    return true;
}

/* The packet as it is, for a peer that can deal with it. */
static int tx_whole(struct p2plink_txq *q, struct p2plink_tx *tx, struct rte_mbuf *m, struct headers *h,
                    uint32_t n_headers)
{
    uint32_t tag = m->ol_flags & RTE_MBUF_F_TX_VLAN ? VLAN_BYTES : 0;
    uint32_t room = m->pkt_len;
    uint8_t *at = reserve(tx, m, &room);

    if (!at) {
        return 0;
    }
    if (h->v4) {
        struct rte_ipv4_hdr *ip = (struct rte_ipv4_hdr *)(h->bytes + h->l3);
        ip->total_length = rte_cpu_to_be_16((uint16_t)(m->pkt_len - h->l3));
        put_ip_csum(h);
    } else {
        struct rte_ipv6_hdr *ip = (struct rte_ipv6_hdr *)(h->bytes + h->l3);
        ip->payload_len = rte_cpu_to_be_16((uint16_t)(m->pkt_len - h->l3 - sizeof *ip));
    }
    p2plink_copy_out(m, n_headers, m->pkt_len - n_headers, put_headers(at, m, h->bytes, n_headers));
    uint32_t flags = p2p_desc_tso(m->tso_segsz, n_headers + tag), extra = p2p_desc_segments(flags, room) - 1;
    filled(tx, m, at, room, flags);
    /* Counted as what it stands for, as if it had gone through the switch. */
    tx->extra += extra;
    tx->bytes += (uint64_t)extra * (n_headers + tag);
    q->count->carried_tso++;
    q->count->carried_csum++;
    return (int)extra + 1;
}

static int tx_tso(struct p2plink_txq *q, struct p2plink_tx *tx, struct rte_mbuf *m)
{
    struct p2p_prod *ring = tx->vnf.ring;
    struct headers h;
    uint32_t n_headers = m->l2_len + m->l3_len + m->l4_len;
    uint32_t tag = m->ol_flags & RTE_MBUF_F_TX_VLAN ? VLAN_BYTES : 0;

    if (m->l4_len < sizeof(struct rte_tcp_hdr) || m->l4_len % 4 || !m->tso_segsz || !tx_headers(&h, m)
        || n_headers >= m->pkt_len || n_headers + m->tso_segsz + tag > ring->max_len
        || (m->pkt_len - n_headers - 1) / m->tso_segsz >= P2PLINK_SEGMENTS_MAX) {
        return -EINVAL;
    }
    if (takes(tx, P2P_TAKES_TSO) && m->pkt_len - h.l3 <= UINT16_MAX && m->pkt_len + tag <= P2P_TSO_MAX
        && n_headers % 2 == 0) {
        return tx_whole(q, tx, m, &h, n_headers);
    }
    /* All of them or none. */
    const struct p2plink_tx before = *tx;
    const uint32_t cursor = ring->cursor;
    unsigned n = 0;
    for (uint32_t off = n_headers, len; off < m->pkt_len; off += len) {
        len = RTE_MIN((uint32_t)m->tso_segsz, m->pkt_len - off);
        if (!tx_segment(tx, m, &h, n_headers, off, len, n)) {
            *tx = before;
            ring->cursor = cursor;
            return 0;
        }
        n++;
    }
    q->count->sw_segments += n;
    return (int)n;
}

int p2plink_tx_offload(struct p2plink_txq *q, struct p2plink_tx *tx, struct rte_mbuf *m)
{
    if (m->ol_flags & UNKNOWN_WORK) {
        return -EINVAL;
    }
    return m->ol_flags & RTE_MBUF_F_TX_TCP_SEG ? tx_tso(q, tx, m) : tx_one(q, tx, m);
}

/* Says beforehand which packets p2plink_tx_burst() would throw away. */
uint16_t p2plink_tx_prepare(void *txq __rte_unused, struct rte_mbuf **pkts, uint16_t n)
{
    for (uint16_t i = 0; i < n; i++) {
        const struct rte_mbuf *m = pkts[i];
        struct headers h;
        bool work = m->ol_flags & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IP_CKSUM);

        if (m->ol_flags & UNKNOWN_WORK) {
            rte_errno = ENOTSUP;
            return i;
        }
        if (m->pkt_len < P2P_FRAME_MIN || (work && !tx_headers(&h, m))) {
            rte_errno = EINVAL;
            return i;
        }
    }
    return n;
}

/*
 * Receive: what a peer has left to us, for an application that has not asked for that.
 */

void p2plink_rx_csum(struct rte_mbuf *m)
{
    struct rte_net_hdr_lens lens;
    struct headers h;
    uint32_t type = rte_net_get_ptype(m, &lens, RTE_PTYPE_L2_MASK | RTE_PTYPE_L3_MASK | RTE_PTYPE_L4_MASK);
    uint16_t csum;

    h.v4 = RTE_ETH_IS_IPV4_HDR(type);
    h.proto = (type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_TCP   ? IPPROTO_TCP
              : (type & RTE_PTYPE_L4_MASK) == RTE_PTYPE_L4_UDP ? IPPROTO_UDP
                                                               : 0;
    h.l3 = lens.l2_len;
    h.l4 = h.l3 + lens.l3_len;
    if (!h.proto || (!h.v4 && !RTE_ETH_IS_IPV6_HDR(type)) || !read_headers(&h, m, h.l4 + l4_header(h.proto))
        || !l4_length(&h, m->pkt_len)) {
        return;
    }
    csum = l4_csum(&h, m);
    /* The headers may lie in several mbufs. */
    uint32_t off = csum_field(&h);
    for (const uint8_t *p = (const uint8_t *)&csum; p < (const uint8_t *)(&csum + 1); p++, off++) {
        struct rte_mbuf *seg = m;
        uint32_t at = off;
        while (at >= seg->data_len) {
            at -= seg->data_len;
            seg = seg->next;
        }
        *rte_pktmbuf_mtod_offset(seg, uint8_t *, at) = *p;
    }
}
