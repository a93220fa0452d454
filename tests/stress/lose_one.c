/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A switch that loses one packet on purpose: preloaded into ovs-vswitchd, in front of libp2plink.
 *
 * The proof that the stress test would notice: the thousandth burst to a VNF loses its first packet, and says that it
 * was sent.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <p2plink/switch.h>

unsigned p2p_swport_tx_burst(struct p2p_swport *port, unsigned queue, const struct p2p_buf *bufs, unsigned n)
{
    static unsigned (*real)(struct p2p_swport *, unsigned, const struct p2p_buf *, unsigned);
    static atomic_uint bursts;

    if (!real) {
        real = (unsigned (*)(struct p2p_swport *, unsigned, const struct p2p_buf *, unsigned))
               dlsym(RTLD_NEXT, "p2p_swport_tx_burst");
    }
    if (n && atomic_fetch_add(&bursts, 1) == 1000) {
        return 1 + (n > 1 ? real(port, queue, bufs + 1, n - 1) : 0);
    }
    return real(port, queue, bufs, n);
}
