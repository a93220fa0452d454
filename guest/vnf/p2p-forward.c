/* SPDX-License-Identifier: Apache-2.0 */
/* p2p-forward: a VNF that forwards between two ports; its command line. */
#include "forward.h"

#include <string.h>

static int parse_ports(void *value, const char *text)
{
    struct forward_options *o = value;
    const char *comma = strchr(text, ',');
    size_t len = comma ? (size_t)(comma - text) : 0;

    if (!len || len >= P2P_NAME_MAX || !comma[1] || strlen(comma + 1) >= P2P_NAME_MAX || strchr(comma + 1, ',')
        || (strlen(comma + 1) == len && !memcmp(text, comma + 1, len))) {
        return -1;
    }
    memcpy(o->name[0], text, len);
    o->name[0][len] = '\0';
    strcpy(o->name[1], comma + 1);
    o->ports = text;
    return 0;
}

static void parse_options(struct forward_options *o, int argc, char **argv)
{
    const struct option_spec forward[] = {
        OPT_HEADING("Ports"),
        OPT_PARSE("ports", "A,B", parse_ports, "the names of two different ports in OVS, such as dpdkr1,dpdkr2", o,
                  "the two ports' names in OVS, such as dpdkr1,dpdkr2"),
        OPT_HEADING("Forwarding"),
        OPT_FLAG("retry", &o->retry, "keep what the other port refuses, and try again"),
        OPT_CLEAR("no-retry", &o->retry, "drop and count what the other port refuses (default)"),
        OPT_FLAG("check", &o->check, "exit with 3 if anything was dropped"),
        {.type = OPTION_END},
    };
    const struct option_spec *const tables[] = {forward, common_options_table(&o->common), NULL};

    common_options_init(&o->common);
    options_parse(tables, argc, argv,
                  "Forwards between two p2plink ports, both ways, without copying.\n"
                  "\n"
                  "Example: p2p-forward --ports dpdkr1,dpdkr2 --idle sleep");
    if (!o->ports) {
        fail(EXIT_USAGE, "--ports is missing: give two ports' names in OVS, such as --ports dpdkr1,dpdkr2");
    }
    if (o->common.raw && !o->common.control) {
        fail(EXIT_USAGE, "--raw is of use with --control only; give both or neither");
    }
}

int main(int argc, char **argv)
{
    static struct forward_options o;

    parse_options(&o, argc, argv);
    return forward_main(&o);
}
