/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p2plinkd, the host agent: plugs the regions of p2plink ports and links into the VMs that own them, and out again.
 *
 * It learns from OVSDB which VM owns which port, from vswitchd which regions there are, and from each VM what it has.
 * It keeps no state of its own: killed and started again, it finds everything as it left it.  This file is the program:
 * options, main loop, end.
 */
#include <config.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <p2plink/common.h>
#include "command-line.h"
#include "daemon.h"
#include "dirs.h"
#include "fatal-signal.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/vlog.h"
#include "ovsdb-idl.h"
#include "p2plinkd-agent.h"
#include "p2plinkd-ctl.h"
#include "p2plinkd-ovsdb.h"
#include "p2plinkd-qmp.h"
#include "p2plinkd-vm.h"
#include "stream.h"
#include "unixctl.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd);

struct options {
    char *db;
    char *socket;
    char *unixctl;
};

OVS_NO_RETURN static void usage(const struct options *o)
{
    printf("%s: plugs p2plink's shared memory into virtual machines\n"
           "usage: %s [OPTIONS]\n"
           "\nA port's VM is named by its QMP socket, which p2plinkd must have for itself:\n"
           "  ovs-vsctl set Interface PORT external_ids:p2plink-qmp=PATH\n"
           "\nOptions:\n"
           "  --db=DATABASE             OVSDB server (default: %s)\n"
           "  --p2plink-socket=PATH     vswitchd's p2plink socket (default: %s)\n"
           "  --command-timeout=MS      time limit of each QMP command (default: %u)\n"
           "  --unplug-timeout=MS       how long a guest may take to let go of a device (default: %u)\n",
           program_name, program_name, o->db, o->socket, qmp_timeout_ms, vm_unplug_timeout_ms);
    daemon_usage();
    printf("  --foreground              stay in the foreground (the default: see --detach)\n");
    vlog_usage();
    printf("\nOther options:\n"
           "  --unixctl=SOCKET          override default control socket name\n"
           "  -h, --help                display this help message\n"
           "  -V, --version             display version information\n"
           "\np2plinkctl(1) shows and changes what a running p2plinkd does.\n");
    exit(EXIT_SUCCESS);
}

static unsigned parse_ms(const char *option, const char *text)
{
    unsigned ms;

    if (!str_to_uint(text, 10, &ms) || ms < 1 || ms > 3600 * 1000) {
        ovs_fatal(0, "--%s=%s: must be 1 to 3600000 (milliseconds)", option, text);
    }
    return ms;
}

static void parse_options(int argc, char *argv[], struct options *o)
{
    enum {
        OPT_DB = UCHAR_MAX + 1,
        OPT_SOCKET,
        OPT_COMMAND_TIMEOUT,
        OPT_UNPLUG_TIMEOUT,
        OPT_FOREGROUND,
        OPT_UNIXCTL,
        VLOG_OPTION_ENUMS,
        DAEMON_OPTION_ENUMS,
    };
    static const struct option long_options[] = {
        {"db", required_argument, NULL, OPT_DB},
        {"p2plink-socket", required_argument, NULL, OPT_SOCKET},
        {"command-timeout", required_argument, NULL, OPT_COMMAND_TIMEOUT},
        {"unplug-timeout", required_argument, NULL, OPT_UNPLUG_TIMEOUT},
        {"foreground", no_argument, NULL, OPT_FOREGROUND},
        {"unixctl", required_argument, NULL, OPT_UNIXCTL},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        VLOG_LONG_OPTIONS,
        DAEMON_LONG_OPTIONS,
        {NULL, 0, NULL, 0},
    };
    char *short_options = ovs_cmdl_long_options_to_short_options(long_options);
    bool foreground = false;

    o->db = xasprintf("unix:%s/db.sock", ovs_rundir());
    o->socket = xstrdup(p2p_default_socket());
    o->unixctl = NULL;
    for (;;) {
        int c = getopt_long(argc, argv, short_options, long_options, NULL);
        if (c == -1) {
            break;
        }
        switch (c) {
        case OPT_DB:
            free(o->db);
            o->db = xstrdup(optarg);
            break;
        case OPT_SOCKET:
            free(o->socket);
            o->socket = xstrdup(optarg);
            break;
        case OPT_COMMAND_TIMEOUT:
            qmp_timeout_ms = parse_ms("command-timeout", optarg);
            break;
        case OPT_UNPLUG_TIMEOUT:
            vm_unplug_timeout_ms = parse_ms("unplug-timeout", optarg);
            break;
        case OPT_FOREGROUND:
            foreground = true;
            break;
        case OPT_UNIXCTL:
            o->unixctl = optarg;
            break;
        case 'h':
            usage(o);
        case 'V':
            printf("%s (p2plink) %s\n", program_name, p2p_version());
            exit(EXIT_SUCCESS);
        VLOG_OPTION_HANDLERS
        DAEMON_OPTION_HANDLERS
        case '?':
            exit(EXIT_FAILURE);
        default:
            abort();
        }
    }
    free(short_options);
    if (optind < argc) {
        ovs_fatal(0, "unexpected argument '%s'; use --help for usage", argv[optind]);
    }
    if (foreground && get_detach()) {
        ovs_fatal(0, "--foreground and --detach exclude each other");
    }
}

static void ctl_exit_command(struct unixctl_conn *conn, int argc OVS_UNUSED, const char *argv[] OVS_UNUSED,
                             void *exiting_)
{
    bool *exiting = exiting_;

    *exiting = true;
    unixctl_command_reply(conn, NULL);
}

int main(int argc, char *argv[])
{
    struct unixctl_server *unixctl;
    struct options o;
    bool exiting = false;

    struct rlimit files;

    ovs_cmdl_proctitle_init(argc, argv);
    set_program_name(argv[0]);
    service_start(&argc, &argv);
    fatal_ignore_sigpipe();
    parse_options(argc, argv, &o);

    /* Two or three descriptors for each VM, one for each region. */
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }

    daemonize_start(false);
    int error = unixctl_server_create(o.unixctl, &unixctl);
    if (error) {
        ovs_fatal(error, "cannot make the control socket");
    }
    unixctl_command_register("exit", "", 0, 0, ctl_exit_command, &exiting);

    struct agent *agent = agent_create(o.socket);
    struct watcher *watcher = watcher_create(o.db);
    ctl_init(agent, watcher);
    daemonize_complete();
    VLOG_INFO("p2plinkd %s: OVSDB at %s, vswitchd at %s", p2p_version(), o.db, o.socket);

    while (!exiting) {
        watcher_run(watcher, agent);
        agent_run(agent);
        unixctl_server_run(unixctl);
        ctl_run();

        watcher_wait(watcher);
        agent_wait(agent);
        unixctl_server_wait(unixctl);
        ctl_wait();
        if (exiting) {
            poll_immediate_wake();
        }
        poll_block();
    }

    ctl_exit();
    unixctl_server_destroy(unixctl);
    watcher_destroy(watcher);
    agent_destroy(agent);
    free(o.db);
    free(o.socket);
    service_stop();
    return 0;
}
