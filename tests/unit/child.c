/* SPDX-License-Identifier: Apache-2.0 */
#include "child.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "testbed.h"

extern char **environ;

static void play_vnf(const char *socket, const char *name)
{
    struct p2p_port_config cfg = { .name = name, .attach = P2P_ATTACH_SOCKET, .socket = socket, .wait_ms = 10000 };
    struct p2p_port *port;
    struct p2p_error err;
    struct p2p_port_info info;
    uint64_t seq[P2P_MAX_QUEUES] = { 0 };

    if (p2p_port_open(&cfg, &port, &err)) {
        fprintf(stderr, "# child %s: %s\n", name, err.text);
        exit(1);
    }
    for (;;) {
        p2p_port_get_info(port, &info);
        for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
            struct child_frame f[8];
            struct p2p_buf bufs[8];
            struct p2p_pkt pkts[32];

            if (q < info.n_txq) {
                for (unsigned i = 0; i < 8; i++) {
                    memset(&f[i], 0, sizeof f[i]);
                    f[i].queue = (uint16_t)q;
                    f[i].pid = (uint32_t)getpid();
                    f[i].seq = seq[q] + i;
                    bufs[i] = (struct p2p_buf) { &f[i], sizeof f[i], 0 };
                }
                seq[q] += p2p_tx_burst(port, q, bufs, 8);
            }
            if (q < info.n_rxq) {
                (void)p2p_rx_burst(port, q, pkts, 32);
                p2p_rx_release(port, q);
            }
        }
        sched_yield();
    }
}

static void play_switch(const char *dir)
{
    struct testbed tb;

    testbed_init(&tb);
    rmdir(tb.dir);
    snprintf(tb.dir, sizeof tb.dir, "%s", dir);
    snprintf(tb.socket, sizeof tb.socket, "%s/sock", dir);
    testbed_start(&tb);
    int a = testbed_add_port(&tb, "a", 1, 1500);
    int b = testbed_add_port(&tb, "b", 1, 1500);
    testbed_forward(&tb, a, b);
    testbed_forward(&tb, b, a);
    p2p_swport_set_target(tb.port[a].port, tb.port[b].port, NULL);
    p2p_swport_set_target(tb.port[b].port, tb.port[a].port, NULL);
    for (;;) {
        pause();
    }
}

void child_main(int argc, char **argv)
{
    if (argc < 3 || strncmp(argv[1], "--play-", 7)) {
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == 1) {
        exit(1); /* The test is gone already. */
    }
    if (!strcmp(argv[1], "--play-vnf") && argc == 4) {
        play_vnf(argv[2], argv[3]);
    } else if (!strcmp(argv[1], "--play-switch")) {
        play_switch(argv[2]);
    }
    exit(2);
}

static pid_t start(char *const argv[])
{
    pid_t pid;
    int error = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);

    if (error) {
        fprintf(stderr, "# cannot start a child: %s\n", strerror(error));
        abort();
    }
    return pid;
}

pid_t child_vnf(const char *socket, const char *port)
{
    return start((char *[]) { "vnf", "--play-vnf", (char *)socket, (char *)port, NULL });
}

pid_t child_switch(const char *dir)
{
    char path[128];
    pid_t pid = start((char *[]) { "switch", "--play-switch", (char *)dir, NULL });

    snprintf(path, sizeof path, "%s/sock", dir);
    for (unsigned i = 0; i < 10000 && access(path, F_OK); i++) {
        testbed_sleep_ms(1);
    }
    return pid;
}

void child_stop(pid_t pid)
{
    char path[64], line[256] = "";

    kill(pid, SIGSTOP);
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    while (!strstr(line, ") T ")) { /* It may have been stopped before. */
        FILE *f = fopen(path, "r");
        if (!f || !fgets(line, sizeof line, f)) {
            abort();
        }
        fclose(f);
    }
}

void child_cont(pid_t pid)
{
    kill(pid, SIGCONT);
}

void child_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}
