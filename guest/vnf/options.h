/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines from tables: long options with typed values, --help made from the same table, and errors that name the
 * option, the value and what would be right.  Runs once, at start.
 */
#ifndef VNF_OPTIONS_H
#define VNF_OPTIONS_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXIT_OK 0
#define EXIT_RUNTIME 1
#define EXIT_USAGE 2
#define EXIT_CHECK 3

enum option_type {
    OPTION_END,
    OPTION_HEADING,   /* Only 'help': a line of its own in --help. */
    OPTION_FLAG,      /* bool: sets it to 'min'. */
    OPTION_NUMBER,    /* uint64_t in [min, max]; k, M and G may follow. */
    OPTION_SECONDS,   /* double, not negative. */
    OPTION_STRING,    /* const char *. */
    OPTION_NAME,      /* int: index in 'names'. */
    OPTION_PARSE,     /* Whatever 'parse' makes of it. */
};

struct option_spec {
    enum option_type type;
    const char *name;          /* Without dashes. */
    const char *arg;           /* What --help calls the value. */
    const char *help;
    void *value;
    uint64_t min, max;
    const char *const *names;  /* OPTION_NAME: NULL-terminated. */
    int (*parse)(void *value, const char *text); /* OPTION_PARSE: 0, or negative: wrong. */
    const char *syntax;        /* OPTION_PARSE: what would be right. */
};

#define OPT_HEADING(TEXT) {.type = OPTION_HEADING, .help = TEXT}
#define OPT_FLAG(NAME, VALUE, HELP) {.type = OPTION_FLAG, .name = NAME, .help = HELP, .value = VALUE, .min = true}
#define OPT_CLEAR(NAME, VALUE, HELP) {.type = OPTION_FLAG, .name = NAME, .help = HELP, .value = VALUE, .min = false}
#define OPT_NUMBER(NAME, ARG, MIN, MAX, VALUE, HELP) \
    {.type = OPTION_NUMBER, .name = NAME, .arg = ARG, .help = HELP, .value = VALUE, .min = MIN, .max = MAX}
#define OPT_SECONDS(NAME, VALUE, HELP) \
    {.type = OPTION_SECONDS, .name = NAME, .arg = "SECONDS", .help = HELP, .value = VALUE}
#define OPT_STRING(NAME, ARG, VALUE, HELP) \
    {.type = OPTION_STRING, .name = NAME, .arg = ARG, .help = HELP, .value = VALUE}
#define OPT_NAME(NAME, ARG, NAMES, VALUE, HELP) \
    {.type = OPTION_NAME, .name = NAME, .arg = ARG, .help = HELP, .value = VALUE, .names = NAMES}
#define OPT_PARSE(NAME, ARG, PARSE, SYNTAX, VALUE, HELP) \
    {.type = OPTION_PARSE, .name = NAME, .arg = ARG, .help = HELP, .value = VALUE, .parse = PARSE, .syntax = SYNTAX}

/* Reads the command line.  'tables' is a NULL-terminated list of tables, each ended by OPTION_END.  --help and
 * --version print and end the program with EXIT_OK, a mistake prints and ends it with EXIT_USAGE. */
void options_parse(const struct option_spec *const *tables, int argc, char **argv, const char *summary);

/* The program's name for messages: the last part of argv[0]. */
extern const char *program_name;

/* "PROGRAM: message" to stderr, and exit(code). */
void fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A number with an optional k, M or G.  False: it is none, or out of range. */
bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);

#endif /* options.h */
