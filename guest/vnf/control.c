/* SPDX-License-Identifier: Apache-2.0 */
/* Main loop and line commands of the sample VNFs, see control.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "clock.h"

#define EOF_RETRY_MS 200u
#define WRITE_PATIENCE_MS 5000u

static int saved_flags = -1;
static struct termios saved_termios;
static bool termios_changed;

/* One line to standard output.  A reader who takes nothing for long loses the rest of it, and the next line begins
 * with a newline of its own. */
static void write_line(char *text)
{
    static bool torn;
    uint64_t deadline = clock_ns() + WRITE_PATIENCE_MS * NS_PER_MS;
    size_t len = strlen(text), done = 0;

    text[len++] = '\n'; /* In place of the final zero: 'text' is not used as a string from here on. */
    if (torn && write(STDOUT_FILENO, "\n", 1) != 1) {
        return;
    }
    torn = false;
    while (done < len) {
        ssize_t n = write(STDOUT_FILENO, text + done, len - done);

        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EAGAIN && clock_ns() < deadline) {
            struct pollfd pfd = {.fd = STDOUT_FILENO, .events = POLLOUT};
            poll(&pfd, 1, 100);
        } else if (n < 0 && errno != EINTR) {
            torn = done > 0;
            return;
        }
    }
}

static void write_json(struct json *j)
{
    char *text = json_end(j);

    if (!text) {
        complain("out of memory for an answer");
        return;
    }
    write_line(text);
    free(text);
}

bool control_event_begin(struct json *j, const char *event)
{
    if (!json_begin(j)) {
        complain("out of memory for event '%s'", event);
        return false;
    }
    json_string(j, "event", event);
    return true;
}

void control_event_end(struct json *j)
{
    write_json(j);
}

void control_open(struct control *c)
{
    c->terminal = isatty(STDIN_FILENO); /* Asked now: one that has hung up says no. */
    c->len = 0;
    c->too_long = c->eof = c->quit = c->interrupted = false;
    if (!c->options->control) {
        return;
    }
    if (c->options->raw) {
        struct termios t;

        if (tcgetattr(STDIN_FILENO, &saved_termios)) {
            fail(EXIT_USAGE, "--raw: standard input is not a terminal or serial line (%s); leave --raw out",
                 strerror(errno));
        }
        t = saved_termios;
        cfmakeraw(&t);
        t.c_cflag |= CLOCAL;
        termios_changed = !tcsetattr(STDIN_FILENO, TCSANOW, &t);
    }
    fflush(stdout);
    saved_flags = fcntl(STDOUT_FILENO, F_GETFL);
    if (saved_flags >= 0) {
        fcntl(STDOUT_FILENO, F_SETFL, saved_flags | O_NONBLOCK);
    }
}

void control_close(struct control *c)
{
    (void)c;
    if (saved_flags >= 0) {
        fcntl(STDOUT_FILENO, F_SETFL, saved_flags);
        saved_flags = -1;
    }
    if (termios_changed) {
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_termios);
        termios_changed = false;
    }
}

static const char *help(const struct control *c, struct json *answer)
{
    json_object(answer, "commands");
    for (const struct control_command *cmd = c->commands; cmd->name; cmd++) {
        char text[256];
        snprintf(text, sizeof text, "%s%s%s", cmd->args, *cmd->args ? ": " : "", cmd->help);
        json_string(answer, cmd->name, text);
    }
    json_string(answer, "help", "this");
    json_string(answer, "quit", "end the program, with a last report");
    json_object_end(answer);
    return NULL;
}

static const char *dispatch(struct control *c, const char *name, const char *args, struct json *answer)
{
    if (!strcmp(name, "help")) {
        return help(c, answer);
    }
    if (!strcmp(name, "quit")) {
        c->quit = true;
        return NULL;
    }
    for (const struct control_command *cmd = c->commands; cmd->name; cmd++) {
        if (!strcmp(cmd->name, name)) {
            return cmd->func(c->aux, args, answer);
        }
    }
    return "no such command; help lists them";
}

static void answer_line(struct control *c, const char *name, const char *args)
{
    struct json answer;
    const char *error;

    if (!json_begin(&answer)) {
        complain("out of memory for an answer");
        return;
    }
    json_string(&answer, "cmd", name);
    error = dispatch(c, name, args, &answer);
    json_bool(&answer, "ok", !error);
    if (error) {
        json_string(&answer, "error", error);
    }
    write_json(&answer);
}

static void handle_line(struct control *c)
{
    char *p = c->line, *end, *name;

    c->line[c->len] = '\0';
    p += strspn(p, " \t");
    end = p + strlen(p);
    while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
        *--end = '\0';
    }
    name = p;
    p += strcspn(p, " \t");
    if (*p) {
        *p++ = '\0';
        p += strspn(p, " \t");
    }
    if (c->too_long) {
        struct json answer;
        if (json_begin(&answer)) {
            json_bool(&answer, "ok", false);
            json_string(&answer, "error", "the line is too long");
            write_json(&answer);
        }
    } else if (*name) {
        answer_line(c, name, p);
    }
    c->len = 0;
    c->too_long = false;
}

static void handle_bytes(struct control *c, const char *p, size_t n)
{
    for (size_t i = 0; i < n && !c->quit; i++) {
        if (p[i] == '\n' || p[i] == '\r') {
            if (c->len || c->too_long) {
                handle_line(c);
            }
        } else if (!p[i]) {
            continue; /* Breaks and noise of a serial line. */
        } else if (c->len + 1 < sizeof c->line) {
            c->line[c->len++] = p[i];
        } else {
            c->too_long = true;
        }
    }
}

static void input_over(struct control *c)
{
    int what = c->options->control_eof;

    if (what == CONTROL_EOF_QUIT || (what == CONTROL_EOF_AUTO && !c->terminal)) {
        c->quit = true;
        return;
    }
    c->eof = true;
    c->retry_at = clock_ns() + EOF_RETRY_MS * NS_PER_MS;
}

static void handle_input(struct control *c)
{
    char buf[512];
    ssize_t n = read(STDIN_FILENO, buf, sizeof buf);

    if (n > 0) {
        handle_bytes(c, buf, (size_t)n);
    } else if (!n || (errno != EAGAIN && errno != EINTR)) {
        input_over(c);
    }
}

/* Waits until 'until', or for a signal or input, and sees to that. */
static void wait_and_serve(struct control *c, uint64_t until)
{
    uint64_t now = clock_ns();
    struct pollfd pfd[2] = {{.fd = signals_fd(), .events = POLLIN}, {.fd = -1, .events = POLLIN}};

    if (c->eof && now >= c->retry_at) {
        c->eof = false;
    }
    if (c->options->control && !c->eof) {
        pfd[1].fd = STDIN_FILENO;
    }
    if (c->eof && c->retry_at < until) {
        until = c->retry_at;
    }
    if (poll(pfd, 2, until > now ? (int)((until - now + NS_PER_MS - 1) / NS_PER_MS) : 0) <= 0) {
        return;
    }
    if (pfd[0].revents && signals_pending()) {
        c->interrupted = true;
    } else if (pfd[1].revents) {
        handle_input(c);
    }
}

void control_run(struct control *c)
{
    uint64_t tick_at = clock_ns() + c->tick_ms * NS_PER_MS;

    while (!c->quit && !c->interrupted) {
        uint64_t now;

        wait_and_serve(c, tick_at);
        now = clock_ns();
        if (now >= tick_at) {
            if (!c->tick(c->aux)) {
                return;
            }
            tick_at = now + c->tick_ms * NS_PER_MS;
        }
    }
}
