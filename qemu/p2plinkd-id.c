/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-id.h"
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "openvswitch/dynamic-string.h"
#include "util.h"

#define PORT_PREFIX ID_PREFIX "port-"
#define LINK_PREFIX ID_PREFIX "link-"

char *region_to_id(const struct vm_region *r)
{
    if (r->link_id) {
        return xasprintf(LINK_PREFIX "%"PRIx64"-%"PRIx32, r->generation, r->link_id);
    }

    struct ds s = DS_EMPTY_INITIALIZER;
    ds_put_format(&s, PORT_PREFIX "%"PRIx64"-", r->generation);
    for (const char *p = r->port; *p; p++) {
        if (isalnum((unsigned char)*p) || *p == '-' || *p == '.') {
            ds_put_char(&s, *p);
        } else {
            ds_put_format(&s, "_%02X", (unsigned char)*p);
        }
    }
    return ds_steal_cstr(&s);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool region_from_id(const char *id, struct vm_region *r)
{
    bool link = !strncmp(id, LINK_PREFIX, strlen(LINK_PREFIX));
    char *end;

    memset(r, 0, sizeof *r);
    if (!link && strncmp(id, PORT_PREFIX, strlen(PORT_PREFIX))) {
        return false;
    }
    const char *p = id + strlen(PORT_PREFIX);
    if (!isxdigit((unsigned char)*p)) {
        return false;
    }
    r->generation = strtoull(p, &end, 16);
    if (*end != '-') {
        return false;
    }
    p = end + 1;
    if (link) {
        r->link_id = strtoul(p, &end, 16);
        return r->link_id && !*end && isxdigit((unsigned char)*p);
    }

    size_t n = 0;
    while (*p) {
        char c = *p++;
        if (c == '_') {
            int hi = hex_digit(p[0]);
            int lo = hi < 0 ? -1 : hex_digit(p[1]);
            if (lo < 0) {
                return false;
            }
            c = hi << 4 | lo;
            p += 2;
        }
        if (n >= sizeof r->port - 1) {
            return false;
        }
        r->port[n++] = c;
    }
    return n > 0;
}

char *region_describe(const struct vm_region *r)
{
    return r->link_id ? xasprintf("link %"PRIu32, r->link_id) : xasprintf("port %s", r->port);
}
