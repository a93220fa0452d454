/* SPDX-License-Identifier: Apache-2.0 */
#include "sw_ledger.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LEDGER_MAGIC UINT64_C(0x305244474c503250) /* "P2PLGDR0": another layout has another magic. */
#define LEDGER_PAGES 1025u                        /* Ports, and one. */

static struct sw_ledger_port *page(const struct sw_ledger *l, unsigned i)
{
    return (struct sw_ledger_port *)(void *)(l->base + (size_t)i * P2P_PAGE);
}

void sw_ledger_open(struct sw_ledger *l, const char *path, const struct p2p_logger *log)
{
    size_t size = (size_t)LEDGER_PAGES * P2P_PAGE;
    void *base = MAP_FAILED;

    l->n_pages = LEDGER_PAGES;
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (l->fd >= 0 && ftruncate(l->fd, (off_t)size) == 0) {
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, l->fd, 0);
    }
    if (base == MAP_FAILED) {
        p2p_log(log, P2P_LOG_WARN, "%s: %s: after a restart, links and port counters will begin anew", path,
                strerror(errno));
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    l->base = base == MAP_FAILED ? NULL : base;
    if (l->base && *(uint64_t *)base != LEDGER_MAGIC) {
        memset(base, 0, size);
        *(uint64_t *)base = LEDGER_MAGIC;
    }
}

void sw_ledger_close(struct sw_ledger *l)
{
    if (l->base) {
        munmap(l->base, (size_t)l->n_pages * P2P_PAGE);
        l->base = NULL;
    }
    if (l->fd >= 0) {
        close(l->fd);
        l->fd = -1;
    }
}

struct sw_ledger_port *sw_ledger_get(struct sw_ledger *l, const char *name)
{
    struct sw_ledger_port *free_page = NULL;

    for (unsigned i = 1; l->base && i < l->n_pages; i++) {
        struct sw_ledger_port *p = page(l, i);
        if (!strncmp(p->name, name, sizeof p->name)) {
            return p;
        }
        if (!free_page && !p->name[0]) {
            free_page = p;
        }
    }
    if (!free_page) {
        return calloc(1, P2P_PAGE); /* More ports than pages: this one will not be remembered. */
    }
    memset(free_page, 0, sizeof *free_page);
    p2p_copy_name(free_page->name, sizeof free_page->name, name);
    return free_page;
}

void sw_ledger_put(struct sw_ledger *l, struct sw_ledger_port *p)
{
    uint8_t *at = (uint8_t *)p;

    if (l->base && at >= l->base && at < l->base + (size_t)l->n_pages * P2P_PAGE) {
        memset(p, 0, sizeof *p);
    } else {
        free(p);
    }
}
