/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own code for sending and receiving messages of p2plink/control.h: it is not part of its interface, so
 * it is compiled into p2plinkd once more. */
#include "../libp2plink/src/sock.c"
