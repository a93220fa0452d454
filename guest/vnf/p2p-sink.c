/* SPDX-License-Identifier: Apache-2.0 */
/* p2p-sink: a VNF that judges the packets which p2p-source has sent; with --send it also sends. */
#include "endpoint.h"

int main(int argc, char **argv)
{
    static struct endpoint_options o;

    endpoint_options_init(&o);
    o.receive = true;
    o.id = 2;
    return endpoint_main(&o, argc, argv,
                         "Receives the packets of p2p-source on a p2plink port, and reports which were lost, doubled,\n"
                         "reordered or corrupted, and how long they took.\n"
                         "\n"
                         "Example: p2p-sink --port dpdkr2 --duration 10 --check");
}
