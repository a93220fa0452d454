/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-qmp.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "openvswitch/list.h"
#include "openvswitch/poll-loop.h"
#include "openvswitch/shash.h"
#include "openvswitch/vlog.h"
#include "socket-util.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd_qmp);

/* A QEMU that floods us is cut off here: its longest honest message is some hundred kB (query-qmp-schema). */
#define MESSAGE_MAX (16u << 20)
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000

unsigned qmp_timeout_ms = 5000;

enum qmp_state {
    QMP_WAITING,     /* Not connected; the next attempt is at 'deadline'. */
    QMP_GREETING,    /* Connected; until 'deadline' for QEMU's greeting. */
    QMP_NEGOTIATING, /* qmp_capabilities is under way. */
    QMP_UP,
};

struct qmp_command {
    struct ovs_list node;
    char *name;
    struct json *args;
    int fd;
    qmp_reply_func *cb;
    void *aux;
};

struct qmp {
    char *path;
    const struct qmp_callbacks *callbacks;
    void *aux;

    enum qmp_state state;
    int sock;
    long long deadline;         /* Next attempt, or time limit of the greeting or of the command under way. */
    unsigned backoff_ms;
    char *version;

    struct json_parser *parser;
    size_t message_size;        /* Fed to 'parser' so far. */

    struct ovs_list commands;   /* struct qmp_command; the first is under way if 'in_flight'. */
    bool in_flight;
    int64_t id;                 /* Of the command under way. */
    char *out;                  /* It, as text. */
    size_t out_size, out_sent;
};

struct qmp *qmp_create(const char *path, const struct qmp_callbacks *callbacks, void *aux)
{
    struct qmp *qmp = xzalloc(sizeof *qmp);

    qmp->path = xstrdup(path);
    qmp->callbacks = callbacks;
    qmp->aux = aux;
    qmp->sock = -1;
    qmp->deadline = time_msec();
    qmp->version = xstrdup("");
    ovs_list_init(&qmp->commands);
    return qmp;
}

static void command_free(struct qmp_command *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    json_destroy(c->args);
    free(c->name);
    free(c);
}

static void command_answer(struct qmp_command *c, const struct qmp_reply *reply)
{
    c->cb(c->aux, reply);
    command_free(c);
}

/* Takes the first command out of the queue. */
static struct qmp_command *pop_command(struct qmp *qmp)
{
    qmp->in_flight = false;
    free(qmp->out);
    qmp->out = NULL;
    return CONTAINER_OF(ovs_list_pop_front(&qmp->commands), struct qmp_command, node);
}

static void close_connection(struct qmp *qmp)
{
    if (qmp->sock >= 0) {
        close(qmp->sock);
        qmp->sock = -1;
    }
    if (qmp->parser) {
        json_parser_abort(qmp->parser);
        qmp->parser = NULL;
    }
    qmp->state = QMP_WAITING;
}

void qmp_destroy(struct qmp *qmp)
{
    if (qmp) {
        close_connection(qmp);
        while (!ovs_list_is_empty(&qmp->commands)) {
            command_free(pop_command(qmp));
        }
        free(qmp->version);
        free(qmp->path);
        free(qmp);
    }
}

bool qmp_is_up(const struct qmp *qmp)
{
    return qmp->state == QMP_UP;
}

const char *qmp_version(const struct qmp *qmp)
{
    return qmp->version;
}

pid_t qmp_pid(const struct qmp *qmp)
{
    struct ucred cred = { .pid = 0 };
    socklen_t len = sizeof cred;

    return qmp->sock >= 0 && !getsockopt(qmp->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) ? cred.pid : 0;
}

void qmp_hurry(struct qmp *qmp)
{
    if (qmp->state == QMP_WAITING) {
        qmp->backoff_ms = 0;
        qmp->deadline = time_msec();
    }
}

/* Answers the commands that wait at this moment, not those that callbacks add. */
static void fail_commands(struct qmp *qmp, const char *why)
{
    const struct qmp_reply reply = { .error = -ECONNRESET, .class = "", .text = why };
    struct ovs_list waiting;

    ovs_list_move(&waiting, &qmp->commands);
    ovs_list_init(&qmp->commands);
    while (!ovs_list_is_empty(&waiting)) {
        command_answer(CONTAINER_OF(ovs_list_pop_front(&waiting), struct qmp_command, node), &reply);
    }
}

/* Ends the connection, or the attempt to make one, and answers what waits: with 'error' the command under way. */
static void qmp_down(struct qmp *qmp, int error, bool gone, const char *why)
{
    /* An established connection is made again at once: that shows whether QEMU is still there. */
    if (qmp->state == QMP_UP) {
        qmp->backoff_ms = 0;
    } else {
        qmp->backoff_ms = MIN(MAX(qmp->backoff_ms * 2, BACKOFF_MIN_MS), BACKOFF_MAX_MS);
    }
    close_connection(qmp);
    qmp->deadline = time_msec() + qmp->backoff_ms;

    if (qmp->in_flight) {
        const struct qmp_reply reply = { .error = error, .class = "", .text = why };
        command_answer(pop_command(qmp), &reply);
    }
    fail_commands(qmp, why);
    qmp->callbacks->down(qmp->aux, gone, why);
}

static void qmp_connect(struct qmp *qmp)
{
    int sock = make_unix_socket(SOCK_STREAM, true, NULL, qmp->path);
    if (sock < 0) {
        bool gone = sock == -ENOENT || sock == -ECONNREFUSED;
        /* OVS turns EAGAIN, which says that the queue of connections is full, into EPROTO. */
        char *why = sock == -EPROTO
                    ? xasprintf("%s is taken: QEMU hangs, or serves another client (one per monitor: give p2plinkd a "
                                "monitor socket of its own)", qmp->path)
                    : xasprintf("cannot connect to %s: %s%s", qmp->path, ovs_strerror(-sock),
                                gone ? " (is the VM running, with '-qmp unix:PATH,server=on,wait=off'?)" : "");
        qmp_down(qmp, -ECONNRESET, gone, why);
        free(why);
        return;
    }
    qmp->sock = sock;
    qmp->state = QMP_GREETING;
    qmp->deadline = time_msec() + qmp_timeout_ms;
}

static void send_text(struct qmp *qmp)
{
    struct qmp_command *c = CONTAINER_OF(ovs_list_front(&qmp->commands), struct qmp_command, node);

    while (qmp->out_sent < qmp->out_size) {
        struct iovec iov = { .iov_base = qmp->out + qmp->out_sent, .iov_len = qmp->out_size - qmp->out_sent };
        union {
            struct cmsghdr align;
            char buf[CMSG_SPACE(sizeof(int))];
        } control;
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (c->fd >= 0) {
            memset(&control, 0, sizeof control);
            msg.msg_control = control.buf;
            msg.msg_controllen = sizeof control.buf;
            struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
            cmsg->cmsg_level = SOL_SOCKET;
            cmsg->cmsg_type = SCM_RIGHTS;
            cmsg->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(cmsg), &c->fd, sizeof(int));
        }
        ssize_t n = sendmsg(qmp->sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            /* EAGAIN: later.  Any other error shows when receiving. */
            return;
        }
        qmp->out_sent += n;
        if (c->fd >= 0) {
            close(c->fd);
            c->fd = -1;
        }
    }
}

static void qmp_start_next(struct qmp *qmp)
{
    if (qmp->in_flight || ovs_list_is_empty(&qmp->commands) || qmp->state < QMP_NEGOTIATING) {
        return;
    }

    struct qmp_command *c = CONTAINER_OF(ovs_list_front(&qmp->commands), struct qmp_command, node);
    struct json *request = json_object_create();
    json_object_put_string(request, "execute", c->name);
    if (c->args) {
        json_object_put(request, "arguments", json_clone(c->args));
    }
    json_object_put(request, "id", json_integer_create(++qmp->id));
    char *text = json_to_string(request, 0);
    json_destroy(request);
    qmp->out = xasprintf("%s\r\n", text);
    free(text);
    qmp->out_size = strlen(qmp->out);
    qmp->out_sent = 0;
    qmp->in_flight = true;
    qmp->deadline = time_msec() + qmp_timeout_ms;
    VLOG_DBG("%s: send %s", qmp->path, qmp->out);
    send_text(qmp);
}

void qmp_execute(struct qmp *qmp, const char *command, struct json *args, int fd, qmp_reply_func *cb, void *aux)
{
    struct qmp_command *c = xmalloc(sizeof *c);

    c->name = xstrdup(command);
    c->args = args;
    c->fd = fd;
    c->cb = cb;
    c->aux = aux;
    ovs_list_push_back(&qmp->commands, &c->node);
    qmp_start_next(qmp);
}

struct json *qmp_args(const char *name, const char *value)
{
    struct json *args = json_object_create();

    json_object_put_string(args, name, value);
    return args;
}

void qmp_ignore(void *aux OVS_UNUSED, const struct qmp_reply *reply OVS_UNUSED)
{
}

static void negotiated(void *qmp_, const struct qmp_reply *reply)
{
    struct qmp *qmp = qmp_;

    if (!reply->error) {
        qmp->state = QMP_UP;
        qmp->backoff_ms = 0;
        qmp->callbacks->up(qmp->aux);
    }
    /* With an error the connection is of no use; the time limit does not apply any more, so end it here: unless that
     * error is its end already. */
    else if (reply->error == -EREMOTEIO) {
        VLOG_WARN("%s: QEMU refused qmp_capabilities: %s", qmp->path, reply->text);
        shutdown(qmp->sock, SHUT_RDWR);
    }
}

static const struct json *member(const struct json *object, const char *name)
{
    return object && object->type == JSON_OBJECT ? shash_find_data(json_object(object), name) : NULL;
}

static const char *string_member(const struct json *object, const char *name, const char *otherwise)
{
    const struct json *value = member(object, name);
    return value && value->type == JSON_STRING ? json_string(value) : otherwise;
}

static void process_greeting(struct qmp *qmp, const struct json *greeting)
{
    const struct json *version = member(member(greeting, "version"), "qemu");
    const char *names[] = { "major", "minor", "micro" };
    int64_t part[3] = { 0 };

    for (int i = 0; i < 3; i++) {
        const struct json *value = member(version, names[i]);
        part[i] = value && value->type == JSON_INTEGER ? json_integer(value) : 0;
    }
    free(qmp->version);
    qmp->version = xasprintf("%"PRId64".%"PRId64".%"PRId64, part[0], part[1], part[2]);

    qmp->state = QMP_NEGOTIATING;
    qmp_execute(qmp, "qmp_capabilities", NULL, -1, negotiated, qmp);
}

static void process_answer(struct qmp *qmp, const struct json *message)
{
    const struct json *id = member(message, "id");
    const struct json *value = member(message, "return");
    const struct json *error = member(message, "error");

    if (!qmp->in_flight || !id || id->type != JSON_INTEGER || json_integer(id) != qmp->id) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 5);
        VLOG_WARN_RL(&rl, "%s: QEMU sent an answer that nobody waits for", qmp->path);
        return;
    }

    struct qmp_reply reply = {
        .error = value ? 0 : -EREMOTEIO,
        .value = value,
        .class = string_member(error, "class", ""),
        .text = value ? NULL : string_member(error, "desc", "an error without description"),
    };
    command_answer(pop_command(qmp), &reply);
    qmp_start_next(qmp);
}

static void process_message(struct qmp *qmp, const struct json *message)
{
    if (VLOG_IS_DBG_ENABLED()) {
        char *text = json_to_string(message, 0);
        VLOG_DBG("%s: received %s", qmp->path, text);
        free(text);
    }
    const char *event = string_member(message, "event", NULL);
    if (event) {
        qmp->callbacks->event(qmp->aux, event, member(message, "data"));
    } else if (member(message, "QMP")) {
        if (qmp->state == QMP_GREETING) {
            process_greeting(qmp, member(message, "QMP"));
        }
    } else {
        process_answer(qmp, message);
    }
}

/* Feeds 'n' bytes to the parser.  Returns false, with the connection down, if they make no sense. */
static bool process_bytes(struct qmp *qmp, const char *bytes, size_t n)
{
    while (n) {
        if (!qmp->parser) {
            qmp->parser = json_parser_create(0);
            qmp->message_size = 0;
        }
        size_t used = json_parser_feed(qmp->parser, bytes, n);
        bytes += used;
        n -= used;
        qmp->message_size += used;
        if (json_parser_is_done(qmp->parser)) {
            struct json *message = json_parser_finish(qmp->parser);
            qmp->parser = NULL;
            if (message->type == JSON_STRING) {
                char *why = xasprintf("what answers on %s does not speak QMP (%s)", qmp->path, json_string(message));
                json_destroy(message);
                qmp_down(qmp, -EPROTO, false, why);
                free(why);
                return false;
            }
            process_message(qmp, message);
            json_destroy(message);
        } else if (qmp->message_size > MESSAGE_MAX) {
            char *why = xasprintf("QEMU sent a message of more than %u bytes on %s", MESSAGE_MAX, qmp->path);
            qmp_down(qmp, -EPROTO, false, why);
            free(why);
            return false;
        }
    }
    return true;
}

static void check_deadline(struct qmp *qmp)
{
    char *why;

    if (time_msec() < qmp->deadline) {
        return;
    }
    if (qmp->state == QMP_GREETING) {
        why = xasprintf("%s sends no greeting within %u ms: QEMU hangs, or serves another client (one per monitor: "
                        "give p2plinkd a monitor socket of its own)", qmp->path, qmp_timeout_ms);
    } else if (qmp->in_flight) {
        const struct qmp_command *c = CONTAINER_OF(ovs_list_front(&qmp->commands), struct qmp_command, node);
        why = xasprintf("QEMU has not answered '%s' within %u ms", c->name, qmp_timeout_ms);
    } else {
        return;
    }
    qmp_down(qmp, -ETIMEDOUT, false, why);
    free(why);
}

void qmp_run(struct qmp *qmp)
{
    if (qmp->state < QMP_NEGOTIATING) {
        fail_commands(qmp, "there is no monitor connection");
    }
    if (qmp->state == QMP_WAITING) {
        if (time_msec() < qmp->deadline) {
            return;
        }
        qmp_connect(qmp);
    }
    if (qmp->in_flight) {
        send_text(qmp);
    }
    /* A bounded amount at a time, so that one talkative QEMU does not keep the others waiting. */
    for (int i = 0; i < 8 && qmp->state != QMP_WAITING; i++) {
        char buf[8192];
        ssize_t n = recv(qmp->sock, buf, sizeof buf, MSG_DONTWAIT);
        if (n > 0) {
            if (!process_bytes(qmp, buf, n)) {
                return;
            }
        } else if (n == 0) {
            qmp_down(qmp, -ECONNRESET, false, "QEMU closed the monitor connection");
            return;
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            qmp_down(qmp, -ECONNRESET, false, ovs_strerror(errno));
            return;
        }
    }
    if (qmp->state != QMP_WAITING) {
        check_deadline(qmp);
    }
}

void qmp_wait(struct qmp *qmp)
{
    if (qmp->state < QMP_NEGOTIATING && !ovs_list_is_empty(&qmp->commands)) {
        poll_immediate_wake();
    }
    if (qmp->state == QMP_WAITING) {
        poll_timer_wait_until(qmp->deadline);
        return;
    }
    poll_fd_wait(qmp->sock, POLLIN | (qmp->in_flight && qmp->out_sent < qmp->out_size ? POLLOUT : 0));
    if (qmp->state == QMP_GREETING || qmp->in_flight) {
        poll_timer_wait_until(qmp->deadline);
    }
}
