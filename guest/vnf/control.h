/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread's main loop: waits for signals and for command lines on standard input, answers on standard
 * output, and calls a tick in between.
 *
 * Made for pipes and for serial lines alike: carriage returns and empty lines are ignored, a line that is too long is
 * refused as a whole, and a line that hangs up is asked again later (--control-eof).  Answers that nobody takes are
 * dropped in the end, whole, rather than block the program.
 */
#ifndef VNF_CONTROL_H
#define VNF_CONTROL_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common.h"
#include "json.h"

/* A command.  'args' is what follows its name, without surrounding blanks.  Returns NULL after adding what it has to
 * say to the answer, or why it cannot be done. */
typedef const char *control_command_func(void *aux, const char *args, struct json *answer);

struct control_command {
    const char *name;
    const char *args;        /* For help, or "". */
    const char *help;
    control_command_func *func;
};

struct control {
    const struct common_options *options;
    const struct control_command *commands; /* Up to one without name.  "help" and "quit" come by themselves. */
    void *aux;
    /* Called when 'tick_ms' (which it may change) have passed and after each command.  False: end the program. */
    bool (*tick)(void *aux);
    unsigned tick_ms;

    /* The loop's own. */
    char line[1024];
    size_t len;
    bool terminal;           /* Standard input is one. */
    bool too_long;
    bool eof;                /* Standard input is at its end; try again at 'retry_at'. */
    uint64_t retry_at;
    bool quit;
    bool interrupted;        /* Ended by a signal. */
};

/* Sets standard input and output up.  Call control_close() at the end, whatever happens. */
void control_open(struct control *c);
void control_close(struct control *c);

/* Runs until a signal, "quit", the end of standard input, or the tick says so. */
void control_run(struct control *c);

/* Writes a line that has an "event" to standard output; 'j' has been begun with control_event_begin(). */
bool control_event_begin(struct json *j, const char *event);
void control_event_end(struct json *j);

#endif /* control.h */
