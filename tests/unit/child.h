/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VNFs and switches in processes of their own, so that a test can stop and kill them: the test's program, started anew.
 */
#ifndef CHILD_H
#define CHILD_H 1

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What a child VNF sends: numbered from 0 in each life, by queue. */
struct child_frame {
    uint8_t eth[14];
    uint16_t queue;
    uint32_t pid;
    uint64_t seq;
} __attribute__((packed));

/* To be called first in main(): if this process is a child, plays its part and does not return. */
void child_main(int argc, char **argv);

/* A VNF that sends on all queues as fast as it may, and takes what comes. */
pid_t child_vnf(const char *socket, const char *port);
/* A switch with ports "a" and "b", linked both ways, at 'socket'.  Returns when it is there. */
pid_t child_switch(const char *dir);
void child_stop(pid_t pid);  /* SIGSTOP, and waits until it has stopped. */
void child_cont(pid_t pid);
void child_kill(pid_t pid);  /* SIGKILL, and waits for its end. */

#endif
