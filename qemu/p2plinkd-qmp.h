/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QMP client: one connection to one QEMU, asynchronous, made again whenever it is lost.
 *
 * Called by p2plinkd-vm.c from p2plinkd's only thread; nothing here blocks.  Commands are sent one at a time, in order:
 * that keeps a descriptor that is passed along together with its command, and makes time limits meaningful.  (QEMU
 * serves one client per monitor socket: p2plinkd needs one of its own.)
 */
#ifndef P2PLINKD_QMP_H
#define P2PLINKD_QMP_H 1

#include <stdbool.h>
#include <sys/types.h>
#include "openvswitch/json.h"

struct qmp;

/* How long QEMU may take for its greeting and for each command, ms. */
extern unsigned qmp_timeout_ms;

struct qmp_reply {
    int error;                /* 0; -EREMOTEIO: QEMU refused; -ETIMEDOUT; -ECONNRESET: the connection was lost. */
    const struct json *value; /* Without error: what the command returned. */
    const char *class;        /* With -EREMOTEIO: such as "DeviceNotFound", else "". */
    const char *text;         /* With error: for people. */
};
typedef void qmp_reply_func(void *aux, const struct qmp_reply *);

/* Called from qmp_run().  They may call qmp_execute(), not qmp_destroy(). */
struct qmp_callbacks {
    void (*up)(void *aux);
    /* The connection was lost, or could not be made.  'gone': nobody listens there, so there is no such QEMU.  Commands
     * that were waiting have been answered with an error before. */
    void (*down)(void *aux, bool gone, const char *why);
    void (*event)(void *aux, const char *name, const struct json *data);
};

struct qmp *qmp_create(const char *path, const struct qmp_callbacks *, void *aux);
/* Waiting commands are forgotten without an answer. */
void qmp_destroy(struct qmp *);
void qmp_run(struct qmp *);
void qmp_wait(struct qmp *);

bool qmp_is_up(const struct qmp *);
/* QEMU's version, such as "7.2.22", or "". */
const char *qmp_version(const struct qmp *);
/* QEMU's process, as the kernel knows it; 0 when the connection is down. */
pid_t qmp_pid(const struct qmp *);
/* Tries to connect at the next qmp_run(), if it is waiting for a later time. */
void qmp_hurry(struct qmp *);

/* Arguments with one string in them, for qmp_execute(). */
struct json *qmp_args(const char *name, const char *value);
/* For answers that do not matter. */
qmp_reply_func qmp_ignore;
/* Queues 'command'.  Takes over 'args' (NULL: none) and 'fd' (-1: none).  'cb' is called exactly once, from qmp_run(),
 * unless the client is destroyed first.  When the client is down, the answer is -ECONNRESET. */
void qmp_execute(struct qmp *, const char *command, struct json *args, int fd, qmp_reply_func *cb, void *aux);

#endif /* p2plinkd-qmp.h */
