/* SPDX-License-Identifier: Apache-2.0 */
/*
 * p2plinkctl: shows what p2plinkd has plugged where, plugs and unplugs by hand, and prints how to do without p2plinkd.
 *
 * It only asks p2plinkd (and, for "commands", ovs-vswitchd) over their unixctl sockets and prints the answer.
 */
#include <config.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <p2plink/common.h>
#include "command-line.h"
#include "daemon.h"
#include "dirs.h"
#include "jsonrpc.h"
#include "openvswitch/json.h"
#include "openvswitch/vlog.h"
#include "timeval.h"
#include "unixctl.h"
#include "util.h"

enum {
    EXIT_REFUSED = 1,     /* The daemon says no, or could not do it. */
    EXIT_USAGE = 2,
    EXIT_NO_DAEMON = 3,
};

OVS_NO_RETURN static void usage(void)
{
    printf("%s: shows and changes what p2plinkd plugs into virtual machines\n"
           "usage: %s [OPTIONS] COMMAND [ARGUMENT]...\n"
           "\nCommands:\n"
           "  list               ports with their states and VMs\n"
           "  show [PORT]        ports, VMs, and the devices that VMs have\n"
           "  plug PORT [QMP]    plug PORT into its VM, or the VM with the monitor socket QMP, until \"unplug\"\n"
           "  unplug PORT        take PORT and its links out of its VM, and leave it out until \"plug\"\n"
           "  commands PORT      print the QMP commands that plug PORT and its links by hand, without p2plinkd\n"
           "\nOptions:\n"
           "  --json             answer in JSON\n"
           "  -t, --target=TARGET  pidfile or control socket of p2plinkd (for \"commands\": of ovs-vswitchd)\n"
           "  -T, --timeout=SECS   give up after SECS seconds\n"
           "  -h, --help         display this help message\n"
           "  -V, --version      display version information\n"
           "\nExit status: 0 done, 1 refused or failed, 2 usage, 3 no answer from the daemon.\n",
           program_name, program_name);
    exit(EXIT_SUCCESS);
}

OVS_NO_RETURN OVS_PRINTF_FORMAT(2, 3) static void fail(int status, const char *fmt, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "%s: ", program_name);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    putc('\n', stderr);
    exit(status);
}

/* Connects to the daemon 'target': a name, a pidfile or a socket. */
static struct jsonrpc *connect_to(const char *target)
{
    struct jsonrpc *client;
    char *path;

    if (target[0] != '/') {
        char *pidfile = xasprintf("%s/%s.pid", ovs_rundir(), target);
        pid_t pid = read_pidfile(pidfile);
        if (pid < 0) {
            fail(EXIT_NO_DAEMON, "cannot read pidfile %s (%s): is %s running, with --pidfile?", pidfile,
                 ovs_strerror(-pid), target);
        }
        path = xasprintf("%s/%s.%ld.ctl", ovs_rundir(), target, (long)pid);
        free(pidfile);
    } else {
        path = xstrdup(target);
    }
    int error = unixctl_client_create(path, &client);
    if (error) {
        fail(EXIT_NO_DAEMON, "cannot connect to %s (%s): is the daemon running?", path, ovs_strerror(error));
    }
    free(path);
    return client;
}

int main(int argc, char *argv[])
{
    static const struct option long_options[] = {
        {"json", no_argument, NULL, 'j'},
        {"target", required_argument, NULL, 't'},
        {"timeout", required_argument, NULL, 'T'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    static const struct {
        const char *name;
        const char *daemon, *command;
        int min_args, max_args;
    } commands[] = {
        {"list", "p2plinkd", "p2plinkd/list", 0, 0},
        {"show", "p2plinkd", "p2plinkd/show", 0, 1},
        {"plug", "p2plinkd", "p2plinkd/plug", 1, 2},
        {"unplug", "p2plinkd", "p2plinkd/unplug", 1, 1},
        {"commands", "ovs-vswitchd", "p2plink/plug-commands", 1, 1},
    };
    const char *target = NULL;
    unsigned timeout = 0;
    bool json = false;
    int c;

    set_program_name(argv[0]);
    vlog_set_levels(NULL, VLF_ANY_DESTINATION, VLL_WARN);
    /* Options may stand behind the command too. */
    while ((c = getopt_long(argc, argv, "jt:T:hV", long_options, NULL)) != -1) {
        switch (c) {
        case 'j':
            json = true;
            break;
        case 't':
            target = optarg;
            break;
        case 'T':
            if (!str_to_uint(optarg, 10, &timeout) || !timeout) {
                fail(EXIT_USAGE, "--timeout=%s: must be a number of seconds, at least 1", optarg);
            }
            break;
        case 'h':
            usage();
        case 'V':
            printf("%s (p2plink) %s\n", program_name, p2p_version());
            return EXIT_SUCCESS;
        default:
            return EXIT_USAGE;
        }
    }
    argc -= optind;
    argv += optind;
    if (!argc) {
        fail(EXIT_USAGE, "a command is missing; use --help for usage");
    }

    size_t i = 0;
    while (i < ARRAY_SIZE(commands) && strcmp(commands[i].name, argv[0])) {
        i++;
    }
    if (i >= ARRAY_SIZE(commands)) {
        fail(EXIT_USAGE, "there is no command '%s'; use --help for usage", argv[0]);
    }
    if (argc - 1 < commands[i].min_args || argc - 1 > commands[i].max_args) {
        fail(EXIT_USAGE, "'%s' takes %d to %d arguments; use --help for usage", argv[0], commands[i].min_args,
             commands[i].max_args);
    }

    char *args[4];
    int n_args = 0;
    /* "commands" prints text that is JSON line by line already. */
    bool wrap = json && !strcmp(commands[i].name, "commands");
    if (json && !wrap) {
        args[n_args++] = "--json";
    }
    for (int j = 1; j < argc; j++) {
        args[n_args++] = argv[j];
    }

    if (timeout) {
        time_alarm(timeout);
    }
    struct jsonrpc *client = connect_to(target ? target : commands[i].daemon);
    char *result, *error;
    int rc = unixctl_client_transact(client, CONST_CAST(char *, commands[i].command), n_args, args, &result, &error);
    if (rc) {
        fail(EXIT_NO_DAEMON, "the connection to the daemon broke: %s", rc == EOF ? "end of file" : ovs_strerror(rc));
    } else if (error) {
        size_t len = strlen(error);
        fail(EXIT_REFUSED, "%.*s", (int)(len && error[len - 1] == '\n' ? len - 1 : len), error);
    }
    if (wrap) {
        struct json *o = json_object_create();
        struct json *list = json_array_create_empty();
        char *save = NULL;
        for (char *line = strtok_r(result, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            struct json *command = json_from_string(line);
            if (command->type == JSON_OBJECT) {
                json_array_add(list, command);
            } else {
                json_destroy(command); /* A comment. */
            }
        }
        json_object_put(o, "commands", list);
        char *text = json_to_string(o, JSSF_PRETTY | JSSF_SORT);
        puts(text);
        free(text);
        json_destroy(o);
    } else {
        fputs(result, stdout);
    }
    jsonrpc_close(client);
    free(result);
    free(error);
    return fflush(stdout) ? EXIT_REFUSED : EXIT_SUCCESS;
}
