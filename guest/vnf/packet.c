/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building and judging the sample VNFs' packets, see packet.h.
 *
 * The receiver works on a private copy of the first 64 bytes and reads the pattern once, since a packet received in
 * place lies in memory that its sender may still write.
 */
#include "packet.h"

#include <string.h>

#include "clock.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "p2plink's layout is little-endian"
#endif

#define MAGIC 0x5032u /* "2P" in memory. */
#define FLAG_MARKED 0x1000u
#define FLAG_ROUTED 0x2000u
#define FLAG_MASK 0xf000u

#define MAC_PREFIX_0 0x02u /* Locally administered. */
#define MAC_PREFIX_1 0x50u
#define MAC_PREFIX_2 0x32u

enum {
    OFF_IP = 14,
    OFF_UDP = 34,
    OFF_MAGIC = 42,
    OFF_SOURCE = 44,
    OFF_FLOW = 46,
    OFF_SEQ = 48,
    OFF_TIME = 54,
    OFF_CHECK = 60,
};

#define K1 UINT64_C(0x9e3779b97f4a7c15)
#define K2 UINT64_C(0xc2b2ae3d27d4eb4f)

const char *pkt_kind_name(unsigned kind)
{
    return kind ? "marked" : "other";
}

static inline uint16_t get_u16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t get_u48(const uint8_t *p)
{
    uint32_t low;

    memcpy(&low, p, sizeof low);
    return low | (uint64_t)get_u16(p + 4) << 32;
}

static inline void put_u16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static inline void put_u48(uint8_t *p, uint64_t v)
{
    put_u32(p, (uint32_t)v);
    put_u16(p + 4, (uint16_t)(v >> 32));
}

static inline uint16_t get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void put_be16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put_be32(uint8_t *p, uint32_t v)
{
    put_be16(p, v >> 16);
    put_be16(p + 2, v);
}

static inline uint16_t fold16(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)(sum + (sum >> 16));
}

static uint32_t ip_header_sum(const uint8_t *ip)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < 20; i += 2) {
        sum += get_be16(ip + i);
    }
    return sum;
}

/* Over bytes 'from' (0 or OFF_MAGIC) up to OFF_CHECK and the frame's length.  Each step is a bijection of its lane's
 * state, so a change within one lane always changes the 64-bit result, of which half is kept. */
static inline uint32_t check(const uint8_t *p, unsigned from, uint32_t len)
{
    uint64_t a = K2 ^ (uint64_t)len << 32, b = K1;

    for (unsigned i = from; i + 16 <= OFF_CHECK; i += 16) {
        a = (a ^ get_u64(p + i)) * K1;
        b = (b ^ get_u64(p + i + 8)) * K2;
        a = a << 29 | a >> 35;
        b = b << 31 | b >> 33;
    }
    /* The rest, overlapping what has been done. */
    a = (a ^ get_u64(p + OFF_CHECK - 16)) * K1;
    b = (b ^ get_u64(p + OFF_CHECK - 8)) * K2;
    a ^= b << 17 | b >> 47;
    a = (a ^ a >> 32) * K2;
    return (uint32_t)(a >> 32);
}

static inline unsigned check_from(bool routed)
{
    return routed ? OFF_MAGIC : 0;
}

/* Pattern: 64-bit words that follow from the packet's identity and length. */
static inline uint64_t pattern_base(uint32_t source, uint32_t flow, uint32_t kind, uint64_t seq, uint32_t len)
{
    return mix64((uint64_t)source << 52 ^ (uint64_t)kind << 51 ^ (uint64_t)flow << 32 ^ len ^ seq * K2);
}

static inline uint64_t pattern_word(uint64_t base, uint32_t i)
{
    uint64_t w = base + i * K1;

    return w ^ w >> 32;
}

static void pattern_write(uint8_t *p, uint32_t len, uint64_t base)
{
    uint32_t n = len / 8, rest = len % 8;

    for (uint32_t i = 0; i < n; i++) {
        uint64_t w = pattern_word(base, i);
        memcpy(p + 8 * (size_t)i, &w, 8);
    }
    if (rest) {
        uint64_t w = pattern_word(base, n);
        memcpy(p + 8 * (size_t)n, &w, rest);
    }
}

/* Returns the offset of the first byte that differs, or 'len'. */
static uint32_t pattern_compare(const uint8_t *p, uint32_t len, uint64_t base)
{
    uint32_t n = len / 8, rest = len % 8;
    uint64_t diff = 0;
    uint64_t tail = 0;

    for (uint32_t i = 0; i < n; i++) {
        diff |= get_u64(p + 8 * (size_t)i) ^ pattern_word(base, i);
    }
    if (rest) {
        memcpy(&tail, p + 8 * (size_t)n, rest);
        diff |= (tail ^ pattern_word(base, n)) << (64 - 8 * rest);
    }
    if (!diff) {
        return len;
    }
    for (uint32_t i = 0; i < len; i++) {
        if (p[i] != (uint8_t)(pattern_word(base, i / 8) >> i % 8 * 8)) {
            return i;
        }
    }
    return 0; /* It was wrong when it was first read, and is right now. */
}

void pkt_template_init(struct pkt_template *t, const struct pkt_params *params, uint16_t flow)
{
    uint8_t *p = t->bytes;
    uint8_t *ip = p + OFF_IP;
    uint8_t *udp = p + OFF_UDP;
    uint32_t dst_ip = UINT32_C(0x0a800000) | (params->source & 0x7fu) << 16 | flow; /* 10.128+S.F.F */

    memset(t, 0, sizeof *t);
    t->source = params->source;
    t->flow = flow;
    t->routed = params->routed;
    t->udp_port[0] = PKT_PORT_OTHER;
    t->udp_port[1] = params->mark_port;

    const uint8_t host = params->source & 0x7f;
    const uint8_t dst[6] = {MAC_PREFIX_0, MAC_PREFIX_1, MAC_PREFIX_2, 0x80 | host, flow >> 8, flow & 0xff};
    const uint8_t src[6] = {MAC_PREFIX_0, MAC_PREFIX_1, MAC_PREFIX_2, host, flow >> 8, flow & 0xff};
    memcpy(p, params->have_dst_mac ? params->dst_mac : dst, 6);
    memcpy(p + 6, src, 6);
    put_be16(p + 12, 0x0800);

    ip[0] = 0x45;
    ip[6] = 0x40; /* Don't fragment. */
    ip[8] = 64;
    ip[9] = 17;
    put_be32(ip + 12, UINT32_C(0x0a000000) | (params->source & 0x7fu) << 16 | flow); /* 10.S.F.F */
    put_be32(ip + 16, params->dst_ip ? params->dst_ip + flow : dst_ip);
    t->ip_sum = ip_header_sum(ip);

    put_be16(udp, 0xc000u | (flow & 0x3fffu));

    put_u16(p + OFF_MAGIC, MAGIC);
    put_u16(p + OFF_FLOW, flow);
    t->hash = (uint32_t)mix64((uint64_t)params->source << 16 | flow) | 1;
}

void pkt_build(uint8_t *frame, const struct pkt_template *t, uint32_t len, unsigned kind, uint64_t seq,
               uint64_t time_ns)
{
    uint32_t ip_len = len - PKT_ETHERNET;
    uint16_t flags = (kind ? FLAG_MARKED : 0) | (t->routed ? FLAG_ROUTED : 0);
    uint32_t sum;

    memcpy(frame, t->bytes, sizeof t->bytes);
    put_be16(frame + OFF_IP + 2, ip_len);
    put_be16(frame + OFF_IP + 10, (uint16_t)~fold16(t->ip_sum + ip_len));
    put_be16(frame + OFF_UDP + 2, t->udp_port[kind]);
    put_be16(frame + OFF_UDP + 4, ip_len - 20);
    put_u16(frame + OFF_SOURCE, t->source | flags);
    put_u48(frame + OFF_SEQ, seq);
    put_u48(frame + OFF_TIME, time_ns);
    sum = check(frame, check_from(t->routed), len);
    put_u32(frame + OFF_CHECK, sum);
    if (len > PKT_MIN) {
        pattern_write(frame + PKT_MIN, len - PKT_MIN, pattern_base(t->source, t->flow, kind, seq, len));
    }
}

/* A packet whose check does not hold: a broken one of ours, or somebody else's? */
static enum pkt_verdict judge_stranger(const uint8_t *p, uint32_t len)
{
    static const uint8_t zero[6];

    if (len >= OFF_MAGIC + 2 && get_u16(p + OFF_MAGIC) == MAGIC) {
        return PKT_BAD_HEADER;
    }
    if (len < PKT_ETHERNET || !memcmp(p, zero, 6) || !memcmp(p + 6, zero, 6)) {
        return PKT_BAD_HEADER; /* No frame at all. */
    }
    if (p[6] == MAC_PREFIX_0 && p[7] == MAC_PREFIX_1 && p[8] == MAC_PREFIX_2) {
        return PKT_BAD_HEADER;
    }
    return PKT_FOREIGN;
}

/* For packets whose check leaves the headers out. */
static bool headers_hold(const uint8_t *p, uint32_t len)
{
    const uint8_t *ip = p + OFF_IP;

    return get_be16(p + 12) == 0x0800 && ip[0] == 0x45 && ip[9] == 17 && get_be16(ip + 2) == len - PKT_ETHERNET
           && fold16(ip_header_sum(ip)) == 0xffff;
}

enum pkt_verdict pkt_parse(const void *data, uint32_t len, struct pkt_id *id, uint32_t *bad)
{
    uint8_t h[PKT_MIN] = {0};
    uint16_t word;
    uint32_t sum, body;
    uint64_t base;

    if (len < PKT_MIN) {
        memcpy(h, data, len);
        return judge_stranger(h, len);
    }
    memcpy(h, data, PKT_MIN);
    word = get_u16(h + OFF_SOURCE);
    id->source = word & ~FLAG_MASK;
    id->kind = (word & FLAG_MARKED) != 0;
    id->routed = (word & FLAG_ROUTED) != 0;
    id->flow = get_u16(h + OFF_FLOW);
    id->seq = get_u48(h + OFF_SEQ);
    id->time_ns = get_u48(h + OFF_TIME);

    memcpy(&sum, h + OFF_CHECK, sizeof sum);
    if (get_u16(h + OFF_MAGIC) != MAGIC || sum != check(h, check_from(id->routed), len)
        || (word & FLAG_MASK & ~(FLAG_MARKED | FLAG_ROUTED)) || (id->routed && !headers_hold(h, len))) {
        return judge_stranger(h, len);
    }
    if (len == PKT_MIN) {
        return PKT_GOOD;
    }
    base = pattern_base(id->source, id->flow, id->kind, id->seq, len);
    body = pattern_compare((const uint8_t *)data + PKT_MIN, len - PKT_MIN, base);
    if (body == len - PKT_MIN) {
        return PKT_GOOD;
    }
    *bad = PKT_MIN + body;
    return PKT_BAD_PAYLOAD;
}
