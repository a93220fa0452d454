/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The detector: which ports' traffic all goes to one other port, going by the flow tables.
 *
 * Fed rule by rule with what is committed, it keeps for each watched port A the answer to one question: is there a port
 * B such that every packet that enters by A leaves by B, unchanged, and nothing else happens to it?  It never says yes
 * wrongly.  Where it says no although yes would be right is listed in docs/detector.md.
 *
 * It knows nothing of OpenFlow's encodings: the caller (ofproto, through ovs-patch/) reduces a rule to what is below.
 *
 * Cost: a change costs O(log n) in the rules of its table that name the same in_port (or none), in the worst case,
 * however their priorities lie; plus, if it is a change at the top, O(log w) for each of the watched ports whose answer
 * can change by it, and their way through the tables at the next commit.  Memory: the caller's `struct p2p_det_rule`,
 * embedded in its rule, and a hash table of 1 to 8 pointers for each table and in_port that has rules.
 *
 * Threads: none; the caller serialises calls (in OVS, ofproto_mutex does).
 */
#ifndef P2PLINK_DETECTOR_H
#define P2PLINK_DETECTOR_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <p2plink/common.h>

#ifdef __cplusplus
extern "C" {
#endif

struct p2p_detector;

#define P2P_DET_ANY UINT32_MAX        /* A rule without in_port; an answer without output. */
#define P2P_DET_N_TABLES 256u
#define P2P_DET_NO_TABLE UINT16_MAX

/* Something a rule outputs to. */
enum p2p_det_out {
    P2P_DET_OUT_NONE,
    P2P_DET_OUT_PORT,   /* One port. */
    P2P_DET_OUT_GROUP,  /* A group, see p2p_detector_group_set(). */
};

/* What a rule does, in this order: outputs ('apply'), changes the action set, goes on in another table. */
struct p2p_det_effect {
    bool opaque;              /* Does anything that cannot be said here: the rest does not count. */
    bool clear_set;           /* Clears the action set first. */
    uint8_t apply;            /* enum p2p_det_out, at once. */
    uint8_t write;            /* enum p2p_det_out, replaces the action set's output (or group: a set can hold both, */
                              /* and then, as OpenFlow has it, the group is what counts). */
    uint16_t next_table;      /* Unconditional goto (or resubmit as last action), or P2P_DET_NO_TABLE. */
    uint32_t apply_id;        /* Port or group number. */
    uint32_t write_id;
};

/* How the detector strings rules together; for its own use. */
struct p2p_det_link {
    struct p2p_det_link *next;
};
struct p2p_det_node {
    union {
        struct p2p_det_node *up;
        struct p2p_det_link chain;
    };
    struct p2p_det_node *left, *right;
    int32_t key;
    uint8_t minor;
    uint8_t rank;
    bool present;
};

/* A rule.  The caller embeds it, fills in the first part, and leaves it alone between add and remove.  64 bytes. */
struct p2p_det_rule {
    uint8_t table;
    bool partial;             /* Matches on anything besides in_port. */
    int32_t priority;
    uint32_t in_port;         /* Or P2P_DET_ANY. */
    struct p2p_det_effect effect;

    struct p2p_det_node node; /* The detector's own.  All zeroes before the first add. */
};

enum p2p_det_reason {
    P2P_DET_LINKED,
    P2P_DET_NO_RULE,      /* No rule of 'table' matches all of the port's traffic, and none matches part of it. */
    P2P_DET_PARTIAL,      /* 'rule' is the highest that can match, and matches only part of the traffic. */
    P2P_DET_OVERLAP,      /* 'rule' shares its priority with another one that can match. */
    P2P_DET_OPAQUE,       /* 'rule' does something besides outputting. */
    P2P_DET_GROUP,        /* 'rule' outputs to a group that is not there or does more than one output. */
    P2P_DET_NO_OUTPUT,    /* The packet is dropped; 'rule' is the last one. */
    P2P_DET_MANY_OUTPUTS, /* More than one output on the way; 'rule' is where the second was found. */
    P2P_DET_SELF,         /* Output to the port it came from. */
    P2P_DET_LOOP,         /* Gotos that do not end (resubmits can go backwards), or go backwards too often. */
    P2P_DET_NOT_WATCHED,  /* Or only since the last commit. */
};
P2P_EXPORT const char *p2p_det_reason_name(enum p2p_det_reason reason); /* A short phrase for people. */

struct p2p_det_answer {
    enum p2p_det_reason reason;
    uint32_t out_port;                /* With P2P_DET_LINKED, else P2P_DET_ANY. */
    uint8_t table;                    /* Where it was decided. */
    /* The deciding rule (with P2P_DET_LINKED, the one that outputs).  Valid until the next change.  NULL: there is
     * none, or something on the port's way has changed since. */
    const struct p2p_det_rule *rule;
    uint64_t serial;                  /* Changes whenever the port's way through the tables has been followed anew, also
                                       * if it leads to the same port: the rules on the way may be others. */
};

P2P_EXPORT struct p2p_detector *p2p_detector_create(void); /* NULL: out of memory. */
/* Rules still in it are forgotten, not touched. */
P2P_EXPORT void p2p_detector_destroy(struct p2p_detector *d);

/* Changes.  They take effect on answers at the next p2p_detector_commit(), all at once. */
/* Never fails: it needs no memory but the rule. */
P2P_EXPORT void p2p_detector_add(struct p2p_detector *d, struct p2p_det_rule *rule);
/* Nothing happens if 'rule' is not in it. */
P2P_EXPORT void p2p_detector_remove(struct p2p_detector *d, struct p2p_det_rule *rule);
/* Defines (or redefines) a group: 'port' is the one port its single bucket outputs to, or P2P_DET_ANY if the group does
 * anything else (which is the same, here, as if it were not there).  -ENOMEM: the group counts as unknown, which is
 * safe; redefining a known group never fails. */
P2P_EXPORT int p2p_detector_group_set(struct p2p_detector *d, uint32_t group_id, uint32_t port);
P2P_EXPORT void p2p_detector_group_remove(struct p2p_detector *d, uint32_t group_id);

/* Which ports to keep answers for.  A port begins as not linked, and ends without a call of 'cb' (see below).
 * -ENOMEM, -EEXIST, -EINVAL (P2P_DET_ANY is no port). */
P2P_EXPORT int p2p_detector_watch(struct p2p_detector *d, uint32_t port);
P2P_EXPORT void p2p_detector_unwatch(struct p2p_detector *d, uint32_t port);

/* Brings all answers up to date, then calls 'cb' (unless it is NULL) for each watched port whose output has changed
 * since the last commit (linked or not, or linked elsewhere).  'cb' must not change the detector; it may ask for
 * answers.  Never fails. */
typedef void p2p_det_changed_func(void *aux, uint32_t port, const struct p2p_det_answer *answer);
P2P_EXPORT void p2p_detector_commit(struct p2p_detector *d, p2p_det_changed_func *cb, void *aux);

/* The answer for 'port' as of the last commit. */
P2P_EXPORT void p2p_detector_answer(const struct p2p_detector *d, uint32_t port, struct p2p_det_answer *answer);

#ifdef __cplusplus
}
#endif

#endif /* p2plink/detector.h */
