/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines from tables, see options.h. */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <p2plink/common.h>

#define HELP_COLUMN 30

const char *program_name = "vnf";

static void vcomplain(const char *format, va_list args)
{
    char text[1024];

    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "%s: %s\n", program_name, text);
}

void complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vcomplain(format, args);
    va_end(args);
}

void fail(int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vcomplain(format, args);
    va_end(args);
    exit(code);
}

bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    uint64_t v, unit = 1;
    char *end;

    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    v = strtoull(text, &end, 0);
    if (errno) {
        return false;
    }
    if (*end == 'k' || *end == 'M' || *end == 'G') {
        unit = *end == 'k' ? 1000 : *end == 'M' ? 1000000 : 1000000000;
        end++;
    }
    if (*end || v > UINT64_MAX / unit || v * unit < min || v * unit > max) {
        return false;
    }
    *value = v * unit;
    return true;
}

static void print_help(const struct option_spec *const *tables, const char *summary)
{
    printf("Usage: %s [OPTION]...\n%s\n", program_name, summary);
    for (; *tables; tables++) {
        for (const struct option_spec *o = *tables; o->type != OPTION_END; o++) {
            int n;

            if (o->type == OPTION_HEADING) {
                printf("\n%s:\n", o->help);
                continue;
            }
            n = printf("  --%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
            if (n >= HELP_COLUMN) {
                putchar('\n');
                n = 0;
            }
            for (const char *p = o->help; *p;) {
                int len = (int)strcspn(p, "\n");
                printf("%*s%.*s\n", HELP_COLUMN - n, "", len, p);
                p += len + (p[len] == '\n');
                n = 0;
            }
        }
    }
    printf("\nExit status: 0 well; 1 failed at run time; 2 wrong use; 3 a check (--check) did not hold.\n");
}

static const struct option_spec *find(const struct option_spec *const *tables, const char *name, size_t len)
{
    for (; *tables; tables++) {
        for (const struct option_spec *o = *tables; o->type != OPTION_END; o++) {
            if (o->name && strlen(o->name) == len && !memcmp(o->name, name, len)) {
                return o;
            }
        }
    }
    return NULL;
}

static void set_name(const struct option_spec *o, const char *text)
{
    char list[256];
    size_t n = 0;

    for (int i = 0; o->names[i]; i++) {
        if (!strcmp(o->names[i], text)) {
            *(int *)o->value = i;
            return;
        }
    }
    list[0] = '\0';
    for (int i = 0; o->names[i] && n < sizeof list; i++) {
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", o->names[i]);
    }
    fail(EXIT_USAGE, "--%s '%s': no such choice; give one of %s", o->name, text, list);
}

static void set(const struct option_spec *o, const char *text)
{
    char *end;
    double seconds;

    switch (o->type) {
    case OPTION_NUMBER:
        if (!parse_number(text, o->min, o->max, o->value)) {
            fail(EXIT_USAGE, "--%s '%s': give a number from %" PRIu64 " to %" PRIu64 " (k, M or G may follow)", o->name,
                 text, o->min, o->max);
        }
        break;
    case OPTION_SECONDS:
        seconds = strtod(text, &end);
        if (end == text || *end || !(seconds >= 0 && seconds <= 1e9)) {
            fail(EXIT_USAGE, "--%s '%s': give a number of seconds, such as 10 or 0.5", o->name, text);
        }
        *(double *)o->value = seconds;
        break;
    case OPTION_STRING:
        if (!*text) {
            fail(EXIT_USAGE, "--%s '': give a value (%s)", o->name, o->help);
        }
        *(const char **)o->value = text;
        break;
    case OPTION_NAME:
        set_name(o, text);
        break;
    case OPTION_PARSE:
        if (o->parse(o->value, text)) {
            fail(EXIT_USAGE, "--%s '%s': give %s", o->name, text, o->syntax);
        }
        break;
    case OPTION_END:
    case OPTION_HEADING:
    case OPTION_FLAG:
        break;
    }
}

void options_parse(const struct option_spec *const *tables, int argc, char **argv, const char *summary)
{
    if (argc > 0) {
        const char *slash = strrchr(argv[0], '/');
        program_name = slash ? slash + 1 : argv[0];
    }
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i] + 2;
        size_t len = strcspn(argv[i], "=") - 2;
        const struct option_spec *o;
        const char *value;

        if (strncmp(argv[i], "--", 2)) {
            fail(EXIT_USAGE, "'%s': not an option; all options begin with --, see --help", argv[i]);
        }
        if (!strcmp(name, "help")) {
            print_help(tables, summary);
            exit(EXIT_OK);
        }
        if (!strcmp(name, "version")) {
            printf("%s (p2plink) %s\n", program_name, p2p_version());
            exit(EXIT_OK);
        }
        o = find(tables, name, len);
        if (!o) {
            fail(EXIT_USAGE, "--%.*s: no such option, see --help", (int)len, name);
        }
        value = name[len] == '=' ? name + len + 1 : NULL;
        if (o->type == OPTION_FLAG) {
            if (value) {
                fail(EXIT_USAGE, "--%s takes no value, but '%s' was given", o->name, value);
            }
            *(bool *)o->value = o->min;
            continue;
        }
        if (!value) {
            if (++i == argc) {
                fail(EXIT_USAGE, "--%s wants a value (%s): %s", o->name, o->arg, o->help);
            }
            value = argv[i];
        }
        set(o, value);
    }
}
