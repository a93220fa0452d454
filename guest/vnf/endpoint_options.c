/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of endpoints, see endpoint.h. */
#include "endpoint.h"

#include <stdio.h>
#include <string.h>

static const char *const from_names[] = {"zero", "first", NULL};
static const char *const latency_names[] = {"auto", "absolute", "relative", NULL};

static int parse_sizes(void *value, const char *text)
{
    return sizes_parse(value, text);
}

static int parse_mac(void *value, const char *text)
{
    struct pkt_params *params = value;
    unsigned b[6];
    char rest;

    if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &rest) != 6) {
        return -1;
    }
    for (unsigned i = 0; i < 6; i++) {
        params->dst_mac[i] = (uint8_t)b[i];
    }
    params->have_dst_mac = true;
    return 0;
}

static int parse_ip(void *value, const char *text)
{
    struct pkt_params *params = value;
    unsigned b[4];
    char rest;

    if (sscanf(text, "%3u.%3u.%3u.%3u%c", &b[0], &b[1], &b[2], &b[3], &rest) != 4) {
        return -1;
    }
    if (b[0] > 255 || b[1] > 255 || b[2] > 255 || b[3] > 255) {
        return -1;
    }
    params->dst_ip = b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
    return 0;
}

static void settle(struct endpoint_options *o)
{
    if (!o->port) {
        fail(EXIT_USAGE, "--port is missing: give the port's name in OVS, such as --port dpdkr1");
    }
    if (strlen(o->port) >= P2P_NAME_MAX) {
        fail(EXIT_USAGE, "--port '%s': names have at most %u characters", o->port, P2P_NAME_MAX - 1);
    }
    if (!o->send && !o->receive) {
        fail(EXIT_USAGE, "--no-send and no --receive leave nothing to do; give --send or --receive");
    }
    if (o->mark_port == PKT_PORT_OTHER) {
        fail(EXIT_USAGE, "--mark-port %u is the port of packets that are not marked; give another one", PKT_PORT_OTHER);
    }
    if (o->common.raw && !o->common.control) {
        fail(EXIT_USAGE, "--raw is of use with --control only; give both or neither");
    }
    if (o->linger < 0) {
        o->linger = o->ends_with_sending && o->receive ? 1 : 0.2;
    }
    if (!o->seed) {
        o->seed = clock_ns() % 1000000000 + 1;
    }
    o->params.source = (uint16_t)o->id;
    o->params.mark_port = (uint16_t)o->mark_port;
    o->params.routed = o->routed;
}

void endpoint_options_init(struct endpoint_options *o)
{
    *o = (struct endpoint_options) {
        .flows = 1,
        .mark_port = PKT_PORT_MARKED,
        .retry = true,
        .window = TRACK_WINDOW_DEFAULT,
        .linger = -1,
    };
    common_options_init(&o->common);
    sizes_parse(&o->sizes, "64");
}

void endpoint_options_parse(struct endpoint_options *o, int argc, char **argv, const char *summary)
{
    const struct option_spec endpoint[] = {
        OPT_HEADING("Port"),
        OPT_STRING("port", "NAME", &o->port, "the port's name in OVS, such as dpdkr1"),
        OPT_FLAG("send", &o->send, "send (p2p-source does without being asked)"),
        OPT_CLEAR("no-send", &o->send, "do not send"),
        OPT_FLAG("receive", &o->receive, "judge what is received (p2p-sink does without being asked)"),
        OPT_CLEAR("no-receive", &o->receive, "leave the receive queues alone"),
        OPT_HEADING("Sending"),
        OPT_NUMBER("queues", "N", 1, P2P_MAX_QUEUES, &o->queues, "transmit queues to use (default: all)"),
        OPT_NUMBER("rate", "PPS", 0, UINT64_C(1000000000), &o->rate,
                   "packets per second (default 0: as fast as possible)"),
        OPT_PARSE("size", "SIZES", parse_sizes, SIZES_SYNTAX, &o->sizes,
                  "frame bytes without FCS (default 64): a size, a range, a list\n"
                  "of these such as 64,512-1518,max, or mixed"),
        OPT_NUMBER("count", "N", 0, UINT64_MAX, &o->count, "packets to send, each time (default 0: no limit)"),
        OPT_NUMBER("flows", "N", 1, PKT_FLOWS, &o->flows, "flows; flow f uses queue f modulo queues (default 1)"),
        OPT_NUMBER("id", "ID", 0, PKT_SOURCES - 1, &o->id,
                   "number of this source; two sources whose packets meet need two"),
        OPT_NUMBER("mark-percent", "P", 0, 100, &o->mark_percent,
                   "so many of 100 packets are marked: numbered by themselves,\nand sent to UDP port --mark-port"),
        OPT_NUMBER("mark-port", "PORT", 1, 65535, &o->mark_port, "UDP destination port of marked packets (default 7)"),
        OPT_NUMBER("seed", "N", 1, UINT64_MAX, &o->seed, "of sizes and marks (default: by the clock; it is reported)"),
        OPT_FLAG("retry", &o->retry, "offer refused packets again (default)"),
        OPT_CLEAR("no-retry", &o->retry, "discard refused packets; their numbers go to later ones"),
        OPT_FLAG("routed", &o->routed, "something on the way rewrites addresses: leave the headers\nout of the check"),
        OPT_PARSE("dst-mac", "MAC", parse_mac, "an address such as 02:00:00:00:00:01", &o->params,
                  "destination address (default: by flow)"),
        OPT_PARSE("dst-ip", "IP", parse_ip, "an IPv4 address such as 198.18.0.1", &o->params,
                  "destination of flow 0; flow f adds f (default: by flow)"),
        OPT_HEADING("Receiving"),
        OPT_NUMBER("expect", "N", 0, UINT64_MAX, &o->expect,
                   "end when so many packets have been received; with --check\nexactly so many must have come"),
        OPT_NUMBER("window", "N", TRACK_WINDOW_MIN, TRACK_WINDOW_MAX, &o->window,
                   "numbers, per flow, among which lost, doubled and reordered\nare told apart (default 65536)"),
        OPT_NAME("from", "WHAT", from_names, &o->from,
                 "zero (default): what is missing before the first packet is\n"
                 "lost; first: a flow begins with what comes first"),
        OPT_NAME("latency", "HOW", latency_names, &o->latency,
                 "absolute: sender and receiver share a clock; relative: to the\n"
                 "shortest seen of a source; auto (default): relative in guests"),
        OPT_SECONDS("linger", &o->linger,
                    "stay so long after sending has ended (default: source with\n--receive 1, else 0.2)"),
        OPT_FLAG("check", &o->check, "exit with 3 if anything was lost, doubled, reordered or corrupted"),
        OPT_FLAG("per-flow", &o->per_flow, "report each flow, not only those with errors"),
        {.type = OPTION_END},
    };
    const struct option_spec *const tables[] = {endpoint, common_options_table(&o->common), NULL};

    options_parse(tables, argc, argv, summary);
    settle(o);
}
