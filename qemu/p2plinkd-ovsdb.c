/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>
#include "p2plinkd-ovsdb.h"
#include <string.h>
#include "ovsdb-idl.h"
#include "p2plinkd-agent.h"
#include "smap.h"
#include "util.h"
#include "vswitch-idl.h"

struct watcher {
    char *remote;
    struct ovsdb_idl *idl;
    unsigned seqno;
};

struct watcher *watcher_create(const char *remote)
{
    struct watcher *w = xzalloc(sizeof *w);

    w->remote = xstrdup(remote);
    w->idl = ovsdb_idl_create(remote, &ovsrec_idl_class, false, true);
    ovsdb_idl_add_table(w->idl, &ovsrec_table_interface);
    ovsdb_idl_add_column(w->idl, &ovsrec_interface_col_name);
    ovsdb_idl_add_column(w->idl, &ovsrec_interface_col_type);
    ovsdb_idl_add_column(w->idl, &ovsrec_interface_col_external_ids);
    return w;
}

void watcher_destroy(struct watcher *w)
{
    if (w) {
        ovsdb_idl_destroy(w->idl);
        free(w->remote);
        free(w);
    }
}

void watcher_run(struct watcher *w, struct agent *agent)
{
    const struct ovsrec_interface *row;

    ovsdb_idl_run(w->idl);
    unsigned seqno = ovsdb_idl_get_seqno(w->idl);
    if (seqno == w->seqno || !ovsdb_idl_has_ever_connected(w->idl)) {
        return;
    }
    w->seqno = seqno;

    agent_ifaces_begin(agent);
    OVSREC_INTERFACE_FOR_EACH (row, w->idl) {
        if (!strcmp(row->type, "dpdkr")) {
            const struct agent_iface iface = {
                .name = row->name,
                .qmp = smap_get_def(&row->external_ids, "p2plink-qmp", ""),
                .vm_uuid = smap_get_def(&row->external_ids, "vm-uuid", ""),
                .iface_id = smap_get_def(&row->external_ids, "iface-id", ""),
            };
            agent_iface(agent, &iface);
        }
    }
    agent_ifaces_end(agent);
}

void watcher_wait(struct watcher *w)
{
    ovsdb_idl_wait(w->idl);
}

const char *watcher_remote(const struct watcher *w)
{
    return w->remote;
}

bool watcher_is_connected(const struct watcher *w)
{
    return ovsdb_idl_is_connected(w->idl);
}
