/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the public headers of libp2plink share: export marks, errors, packets, version.
 *
 * Functions return 0 or a count on success and a negative errno on failure, unless their comment says otherwise.
 * Where a caller may want to show a reason to a person, a function takes a `struct p2p_error *` (or NULL).
 */
#ifndef P2PLINK_COMMON_H
#define P2PLINK_COMMON_H 1

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define P2P_EXPORT __attribute__((visibility("default")))
#define P2P_PRINTF(FMT, ARG) __attribute__((format(printf, FMT, ARG)))

/* What went wrong, for people: one line, no final newline, with the value and the remedy in it. */
struct p2p_error {
    char text[512];
};

/* A packet to send: the caller's memory, read during the call only. */
struct p2p_buf {
    const void *data;
    uint32_t len;   /* Bytes, P2P_FRAME_MIN .. MTU + P2P_FRAME_OVERHEAD. */
    uint32_t hash;  /* RSS hash, or 0 for "none". */
};

/* A packet received in place: it lies in shared memory, its writer may still scribble on it, and it is valid until the
 * matching release call. */
struct p2p_pkt {
    const void *data;
    uint32_t len;
    uint32_t hash; /* As the sender gave it. */
};

enum p2p_log_level {
    P2P_LOG_ERROR,
    P2P_LOG_WARN,
    P2P_LOG_INFO,
    P2P_LOG_DEBUG,
};

/* 'message' is one line without a newline. */
typedef void p2p_log_func(void *aux, enum p2p_log_level level, const char *message);

/* The library's version, such as "0.1.0". */
P2P_EXPORT const char *p2p_version(void);

/* Where vswitchd listens unless told otherwise: $P2PLINK_SOCKET, else "/var/run/openvswitch/p2plink.sock". */
P2P_EXPORT const char *p2p_default_socket(void);

#ifdef __cplusplus
}
#endif

#endif /* p2plink/common.h */
