/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packets that sample VNFs send each other: Ethernet, IPv4, UDP, then 22 bytes that number and time-stamp the
 * packet, then a pattern that follows from its number, so that any changed byte shows.
 *
 * Called by the sending and receiving data threads; no state of its own.
 *
 *    0  Ethernet       addresses from source and flow
 *   14  IPv4           addresses from source and flow, don't fragment, correct checksum
 *   34  UDP            destination port says the kind, no checksum
 *   42  u16 magic
 *   44  u16 source (12 bits), flags (4 bits)
 *   46  u16 flow
 *   48  u48 sequence number within (source, flow, kind)
 *   54  u48 send time, nanoseconds of the sender's CLOCK_MONOTONIC
 *   60  u32 check over everything before it and over the frame's length
 *   64  pattern
 *
 * What follows the UDP header is little-endian.  The shortest frame is 64 bytes long, without FCS.
 */
#ifndef VNF_PACKET_H
#define VNF_PACKET_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/common.h>

#define PKT_MIN 64u                  /* Shortest frame, bytes. */
#define PKT_ETHERNET 14u             /* MTU + this is the longest frame. */
#define PKT_MAX (9000u + PKT_ETHERNET)
#define PKT_SOURCES 4096u
#define PKT_FLOWS 65536u
#define PKT_KINDS 2u                 /* 0: other; 1: marked. */
#define PKT_TIME_BITS 48
#define PKT_SEQ_MAX ((UINT64_C(1) << 48) - 1)
#define PKT_PORT_OTHER 9u            /* UDP destination port of kind 0: discard. */
#define PKT_PORT_MARKED 7u           /* ... and of kind 1, unless told otherwise: echo. */

const char *pkt_kind_name(unsigned kind);

/* What all flows of a sender have in common. */
struct pkt_params {
    uint16_t source;     /* < PKT_SOURCES. */
    uint16_t mark_port;  /* UDP destination port of marked packets. */
    bool routed;         /* Something on the way rewrites addresses: the check shall not cover the headers. */
    bool have_dst_mac;
    uint8_t dst_mac[6];
    uint32_t dst_ip;     /* Host byte order, of flow 0; flow f adds f.  0: the usual. */
};

/* The part of a flow's packets that does not change. */
struct pkt_template {
    uint8_t bytes[48];
    uint32_t ip_sum;     /* Of the IPv4 header with length and checksum 0. */
    uint32_t hash;       /* RSS hash, not 0. */
    uint16_t source;
    uint16_t flow;
    uint16_t udp_port[PKT_KINDS];
    bool routed;
};
void pkt_template_init(struct pkt_template *t, const struct pkt_params *params, uint16_t flow);

/* Writes a whole packet of 'len' bytes (PKT_MIN .. PKT_MAX) into 'frame'. */
void pkt_build(uint8_t *frame, const struct pkt_template *t, uint32_t len, unsigned kind, uint64_t seq,
               uint64_t time_ns);

struct pkt_id {
    uint16_t source;
    uint16_t flow;
    uint8_t kind;
    bool routed;
    uint64_t seq;
    uint64_t time_ns;    /* Modulo 2^PKT_TIME_BITS. */
};

enum pkt_verdict {
    PKT_GOOD,
    PKT_FOREIGN,         /* Well-formed, and not from a sample VNF. */
    PKT_BAD_HEADER,      /* The check does not hold: nothing in it can be believed. */
    PKT_BAD_PAYLOAD,     /* The check holds, but the pattern is not the one that belongs to the number. */
};

/* Judges a received packet, which may lie in memory that others write.  Fills in '*id' for PKT_GOOD and
 * PKT_BAD_PAYLOAD, and '*bad' for the latter: offset of the first wrong byte. */
enum pkt_verdict pkt_parse(const void *data, uint32_t len, struct pkt_id *id, uint32_t *bad);

/* Nanoseconds from the packet's send time until 'now_ns', which may be negative if the clocks differ. */
static inline int64_t pkt_age(const struct pkt_id *id, uint64_t now_ns)
{
    return (int64_t)((now_ns - id->time_ns) << (64 - PKT_TIME_BITS)) >> (64 - PKT_TIME_BITS);
}

#endif /* packet.h */
