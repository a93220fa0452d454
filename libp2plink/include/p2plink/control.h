/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on vswitchd's unix socket (SOCK_SEQPACKET): the whole wire ABI, no code.  docs/control-protocol.md tells the
 * same in words.
 *
 * Two kinds of clients: VNFs on the host, a connection per port, and the host agent (p2plinkd), one connection.  The
 * socket only hands out memory (file descriptors, as SCM_RIGHTS) and wakes people up; all of a link's state is in the
 * control words of the port regions (layout.h), the same for processes and guests.
 *
 * Each message is one packet: struct p2p_msg, at most one file descriptor.  Unknown types are answered with
 * P2P_MSG_ERROR (-EOPNOTSUPP) and otherwise ignored, so that a newer client can try.
 */
#ifndef P2PLINK_CONTROL_H
#define P2PLINK_CONTROL_H 1

#include <assert.h>
#include <stdint.h>
#include <p2plink/layout.h>

#define P2P_CONTROL_MAGIC 0x4c503250u /* "P2PL" */
#define P2P_CONTROL_VERSION 1u
#define P2P_CONTROL_VERSION_MIN 1u

enum p2p_msg_type {
    /* First, both ways.  Client: 'version', 'version_min', 'role'.  Answer: HELLO with the version agreed on in
     * 'version', or ERROR -EPROTO. */
    P2P_MSG_HELLO = 1,

    /* VNF to vswitchd. */
    P2P_MSG_ATTACH = 2,   /* 'name'.  A VNF that has been here before a restart of vswitchd sends OFFERs for its link
                           * regions, and then its port region along: 'generation', 'size' and a descriptor.  Answer:
                           * REGION with a fresh port region, or with the same generation (stay where you are), or
                           * ERROR: -ENOENT, -EBUSY. */

    /* vswitchd to VNF. */
    P2P_MSG_REGION = 3,   /* A region and its descriptor.  'link_id' 0: the port's own, which replaces the former one;
                           * else a link region that a 'want' word asks to map. */
    P2P_MSG_DETACH = 4,   /* The port is gone; 'text' says why.  The connection stays: the VNF may ATTACH again. */

    /* Either way. */
    P2P_MSG_POKE = 5,     /* Look at the control words.  No answer. */
    P2P_MSG_ERROR = 6,    /* Answer to 'seq': 'error' (negative errno), 'text'. */
    P2P_MSG_OK = 7,       /* Answer to 'seq'. */

    /* Agent to vswitchd. */
    P2P_MSG_CLAIM = 8,    /* A VM is there for port 'name'.  'generation' != 0: it already has the port region of that
                           * generation plugged; its descriptor comes along if the agent has it.
                           * Answer: REGION, with the port region to plug (the same generation: nothing to plug), or
                           * ERROR: -ENOENT, -EBUSY (a process has the port).  After REGION: PLUG for each link region
                           * that the VM has or should have for this port (answered at once where it is plugged), then
                           * OK with the CLAIM's 'seq': link regions not named by then can go. */
    P2P_MSG_RELEASE = 9,  /* That VM is gone, or its port region is about to be unplugged (in a second: the VNF must let
                           * go of it, and not come back to that region).  Answer: OK. */

    /* vswitchd to agent; answers carry the same 'seq'. */
    P2P_MSG_PLUG = 10,    /* Plug link region 'link_id' with its descriptor into the VM of port 'name'.  Answer when
                           * QEMU has accepted the device: OK, or ERROR. */
    P2P_MSG_UNPLUG = 11,  /* Unplug it.  Answer when the device is gone: OK, or ERROR. */
    P2P_MSG_REPLUG = 12,  /* The port region of 'name' has been replaced by this one: unplug the old, plug this.
                           * Answer: OK or ERROR. */
    P2P_MSG_PORT = 13,    /* Port 'name' has come ('error' 0) or gone ('error' -ENOENT).  No answer.  Sent for every
                           * port after HELLO. */

    /* VNF or agent to vswitchd, before ATTACH or CLAIM: link region 'link_id' ('generation', 'size', a descriptor) that
     * port 'name' has had since before a restart of vswitchd.  No answer. */
    P2P_MSG_OFFER = 14,
};

enum p2p_role {
    P2P_ROLE_VNF = 1,
    P2P_ROLE_AGENT = 2,
};

struct p2p_msg {
    uint32_t magic;
    uint32_t type;        /* enum p2p_msg_type. */
    uint32_t seq;         /* Drawn by the asker; copied into the answer.  0 in what needs no answer. */
    int32_t error;
    uint32_t version;
    uint32_t version_min;
    uint32_t role;        /* enum p2p_role. */
    uint32_t link_id;
    uint64_t generation;
    uint64_t size;        /* Of the region, bytes. */
    char name[P2P_NAME_MAX];
    char text[256];
};
static_assert(sizeof(struct p2p_msg) == 368, "ABI");

#endif /* p2plink/control.h */
