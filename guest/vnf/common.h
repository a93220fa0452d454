/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sample VNFs have in common besides their traffic: options, signals, attaching to ports, and a main loop that
 * serves line commands and calls a tick.  Control thread.
 */
#ifndef VNF_COMMON_H
#define VNF_COMMON_H 1

#include <stdbool.h>
#include <stdint.h>
#include <p2plink/vnf.h>

#include "options.h"
#include "workers.h"

struct common_options {
    int attach;              /* enum p2p_attach. */
    const char *socket;
    const char *sysfs;
    double wait;
    uint64_t burst, threads;
    int idle;                /* enum idle. */
    struct cpu_list cpus;
    double duration;         /* 0: without end. */
    bool control;
    int control_eof;         /* enum control_eof. */
    bool raw;
    bool json, quiet, verbose;
};

enum control_eof {
    CONTROL_EOF_AUTO,        /* Ignore it if the commands come from a terminal, else quit. */
    CONTROL_EOF_QUIT,
    CONTROL_EOF_IGNORE,
};

void common_options_init(struct common_options *o);
/* The table, for options_parse(); it points into 'o'.  Static storage. */
const struct option_spec *common_options_table(struct common_options *o);

/* Blocks SIGINT and SIGTERM in this thread and those it makes, to be seen by signals_pending() and the main
 * loop.  First of all. */
void signals_init(void);
/* Whether one has come since the last call. */
bool signals_pending(void);
int signals_fd(void);

/* Attaches, waiting for the port as long as the options allow.  Prints what is wrong and returns NULL if it cannot. */
struct p2p_port *attach_port(const struct common_options *o, const char *name);

#endif /* common.h */
