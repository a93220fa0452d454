/* SPDX-License-Identifier: Apache-2.0 */
/* JSON writer, see json.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "json.h"

#include <inttypes.h>
#include <stdlib.h>

static void put_quoted(FILE *f, const char *s)
{
    putc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            fprintf(f, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            fprintf(f, "\\u%04x", c);
        } else {
            putc(c, f);
        }
    }
    putc('"', f);
}

static void element(struct json *j, const char *name)
{
    if (j->comma) {
        putc(',', j->file);
    }
    if (name) {
        put_quoted(j->file, name);
        putc(':', j->file);
    }
    j->comma = true;
}

bool json_begin(struct json *j)
{
    j->text = NULL;
    j->comma = false;
    j->file = open_memstream(&j->text, &j->len);
    if (j->file) {
        putc('{', j->file);
    }
    return j->file != NULL;
}

char *json_end(struct json *j)
{
    bool failed;

    putc('}', j->file);
    failed = ferror(j->file);
    if (fclose(j->file) || failed) {
        free(j->text);
        return NULL;
    }
    return j->text;
}

void json_object(struct json *j, const char *name)
{
    element(j, name);
    putc('{', j->file);
    j->comma = false;
}

void json_object_end(struct json *j)
{
    putc('}', j->file);
    j->comma = true;
}

void json_array(struct json *j, const char *name)
{
    element(j, name);
    putc('[', j->file);
    j->comma = false;
}

void json_array_end(struct json *j)
{
    putc(']', j->file);
    j->comma = true;
}

void json_string(struct json *j, const char *name, const char *value)
{
    element(j, name);
    put_quoted(j->file, value);
}

void json_uint(struct json *j, const char *name, uint64_t value)
{
    element(j, name);
    fprintf(j->file, "%" PRIu64, value);
}

void json_real(struct json *j, const char *name, double value)
{
    element(j, name);
    fprintf(j->file, "%.3f", value);
}

void json_bool(struct json *j, const char *name, bool value)
{
    element(j, name);
    fputs(value ? "true" : "false", j->file);
}
