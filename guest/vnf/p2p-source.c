/* SPDX-License-Identifier: Apache-2.0 */
/* p2p-source: a VNF that sends numbered, time-stamped packets; with --receive it also judges what comes back. */
#include "endpoint.h"

int main(int argc, char **argv)
{
    static struct endpoint_options o;

    endpoint_options_init(&o);
    o.send = o.ends_with_sending = true;
    o.id = 1;
    return endpoint_main(&o, argc, argv,
                         "Sends numbered, time-stamped packets on a p2plink port.\n"
                         "\n"
                         "Example: p2p-source --port dpdkr1 --rate 100k --duration 10");
}
