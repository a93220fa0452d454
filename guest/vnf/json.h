/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes one JSON value, on one line, into a string.  The caller nests and names correctly; commas, quotes and
 * escapes are done here.  Control thread.
 */
#ifndef VNF_JSON_H
#define VNF_JSON_H 1

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *file;      /* In memory. */
    char *text;
    size_t len;
    bool comma;      /* Before the next element. */
};

/* Begins an object.  False: out of memory. */
bool json_begin(struct json *j);
/* Ends it and returns the text, to be freed, or NULL: out of memory. */
char *json_end(struct json *j);

/* 'name' is NULL for elements of arrays. */
void json_object(struct json *j, const char *name);
void json_object_end(struct json *j);
void json_array(struct json *j, const char *name);
void json_array_end(struct json *j);
void json_string(struct json *j, const char *name, const char *value);
void json_uint(struct json *j, const char *name, uint64_t value);
void json_real(struct json *j, const char *name, double value);
void json_bool(struct json *j, const char *name, bool value);

#endif /* json.h */
