/* SPDX-License-Identifier: Apache-2.0 */
/* Options, signals and attaching, for all sample VNFs, see common.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "clock.h"

/* Waiting for a port is cut into pieces, so that a signal is heard. */
#define WAIT_PIECE_MS 200u

static const char *const attach_names[] = {"auto", "socket", "pci", NULL};
static const char *const control_eof_names[] = {"auto", "quit", "ignore", NULL};
static int signal_fd = -1;

static int parse_cpus(void *value, const char *text)
{
    return cpu_list_parse(value, text);
}

void common_options_init(struct common_options *o)
{
    memset(o, 0, sizeof *o);
    o->attach = P2P_ATTACH_AUTO;
    o->burst = 32;
    o->threads = 1;
    o->idle = IDLE_YIELD;
}

const struct option_spec *common_options_table(struct common_options *o)
{
    static struct option_spec table[32];
    const struct option_spec spec[] = {
        OPT_HEADING("Attaching"),
        OPT_NAME("attach", "HOW", attach_names, &o->attach,
                 "socket: through vswitchd's socket; pci: to an ivshmem device;\n"
                 "auto (default): by socket if there is one (or if --socket\n"
                 "names one), else pci"),
        OPT_STRING("socket", "PATH", &o->socket, "vswitchd's socket, if it is not the usual one"),
        OPT_STRING("sysfs", "DIR", &o->sysfs, "where sysfs is, if not at /sys"),
        OPT_SECONDS("wait", &o->wait, "how long to wait for a port to be there (default 0)"),
        OPT_HEADING("Running"),
        OPT_SECONDS("duration", &o->duration, "end after so long (default: when a signal comes)"),
        OPT_NUMBER("burst", "N", 1, 256, &o->burst, "packets per burst (default 32)"),
        OPT_NUMBER("threads", "N", 1, WORKERS_MAX, &o->threads,
                   "data threads, which share the queues (default 1)"),
        OPT_PARSE("cpu", "LIST", parse_cpus, "CPU numbers, such as 0,2 or 1-3", &o->cpus,
                  "CPUs to pin the data threads to, in turn"),
        OPT_NAME("idle", "HOW", idle_names, &o->idle,
                 "when there is nothing to do: spin, yield (default), or\n"
                 "sleep (for 50 microseconds, after some empty polls)"),
        OPT_HEADING("Talking"),
        OPT_FLAG("json", &o->json, "report as one line of JSON"),
        OPT_FLAG("quiet", &o->quiet, "no progress line each second"),
        OPT_FLAG("verbose", &o->verbose, "the library's messages too"),
        OPT_FLAG("control", &o->control,
                 "take commands, one a line, from standard input, and answer\n"
                 "each with a line of JSON (the command help lists them)"),
        OPT_NAME("control-eof", "WHAT", control_eof_names, &o->control_eof,
                 "at the end of standard input: quit; ignore (a serial line\n"
                 "may come back); auto (default): ignore if it is a terminal"),
        OPT_FLAG("raw", &o->raw, "with --control: standard input is a serial line; set it to\nraw mode, without echo"),
        OPT_HEADING("Help"),
        {.type = OPTION_FLAG, .name = "help", .help = "this (and --version)"},
        {.type = OPTION_END},
    };

    _Static_assert(sizeof spec <= sizeof table, "the list fits into the table");
    memcpy(table, spec, sizeof spec);
    return table;
}

void signals_init(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0) {
        fail(EXIT_RUNTIME, "signalfd: %s", strerror(errno));
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* A serial line that hangs up. */
}

int signals_fd(void)
{
    return signal_fd;
}

bool signals_pending(void)
{
    struct signalfd_siginfo info;

    return read(signal_fd, &info, sizeof info) == sizeof info;
}

static void log_message(void *aux, enum p2p_log_level level, const char *message)
{
    const struct common_options *o = aux;

    if (level <= P2P_LOG_WARN || o->verbose) {
        complain("%s", message);
    }
}

static bool worth_waiting(int error)
{
    switch (-error) {
    case ENOENT:
    case ENODEV:
    case ECONNREFUSED:
    case ECONNRESET:
    case ETIMEDOUT:
    case EAGAIN:
    case EBUSY: /* The VNF that had it may just have died. */
        return true;
    default:
        return false;
    }
}

struct p2p_port *attach_port(const struct common_options *o, const char *name)
{
    uint64_t deadline = clock_ns() + (uint64_t)(o->wait * NS_PER_S);
    struct p2p_port_config cfg = {
        .name = name,
        .attach = o->socket && o->attach == P2P_ATTACH_AUTO ? P2P_ATTACH_SOCKET : (enum p2p_attach)o->attach,
        .socket = o->socket,
        .sysfs = o->sysfs,
        .log = log_message,
        .log_aux = (void *)o,
    };

    for (;;) {
        uint64_t now = clock_ns();
        uint64_t left_ms = now < deadline ? (deadline - now) / NS_PER_MS : 0;
        struct pollfd pfd = {.fd = signal_fd, .events = POLLIN};
        struct p2p_error err = {{0}};
        struct p2p_port *port;
        int error;

        cfg.wait_ms = left_ms < WAIT_PIECE_MS ? (unsigned)left_ms : WAIT_PIECE_MS;
        error = p2p_port_open(&cfg, &port, &err);
        if (!error) {
            return port;
        }
        now = clock_ns();
        if (now >= deadline || !worth_waiting(error)) {
            complain("cannot attach to port '%s': %s%s", name, err.text[0] ? err.text : strerror(-error),
                     worth_waiting(error) ? " (--wait SECONDS waits for it)" : "");
            return NULL;
        }
        /* The library may have given up before its time, so do not ask too often. */
        if (poll(&pfd, 1, 20) > 0) {
            complain("interrupted while waiting for port '%s'", name);
            return NULL;
        }
    }
}
