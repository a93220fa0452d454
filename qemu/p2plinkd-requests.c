/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vswitchd says and asks.  Requests that concern a VM are handed to it and answered when it has done them; the
 * rest changes what agent_run() then acts upon.
 *
 * Called from swconn_run(), in p2plinkd's only thread.
 */
#include <config.h>
#include "p2plinkd-agent-private.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "openvswitch/vlog.h"
#include "p2plinkd-region.h"
#include "timeval.h"
#include "util.h"

VLOG_DEFINE_THIS_MODULE(p2plinkd_requests);

/* After vswitchd is (again) there: how long until its silence about a port means that it does not have it. */
#define SETTLE_MS 5000

/* A question of vswitchd that is answered when a VM has done it, or the plugging of a port region of our own accord. */
struct plug_job {
    struct agent *agent;
    struct agent_port *port;    /* Port regions: whose.  NULL when it is gone. */
    char *name;
    unsigned session;
    uint32_t seq;               /* 0: nobody asked. */
};

static struct plug_job *job_create(struct agent *a, const char *name, uint32_t seq)
{
    struct plug_job *job = xzalloc(sizeof *job);

    job->agent = a;
    job->name = xstrdup(name);
    job->session = swconn_session(a->sw);
    job->seq = seq;
    return job;
}

static void job_done(void *job_, int error, const char *text)
{
    struct plug_job *job = job_;
    struct agent_port *p = job->port;

    if (job->seq) {
        swconn_answer(job->agent->sw, job->session, job->seq, job->name, error, text);
    }
    if (p) {
        p->job = NULL;
        free(p->error);
        p->error = xstrdup(error ? text : "");
        if (error) {
            p->backoff_ms = MIN(MAX(p->backoff_ms * 2, RETRY_MIN_MS), RETRY_MAX_MS);
            p->retry_at = time_msec() + p->backoff_ms;
        } else {
            p->backoff_ms = 0;
            p->seen_plugged = true;
        }
    }
    free(job->name);
    free(job);
}

void agent_forget_job(struct agent_port *p)
{
    if (p->job) {
        p->job->port = NULL;
        p->job = NULL;
    }
}

static void switch_up(void *a_)
{
    struct agent *a = a_;
    struct shash_node *node;
    struct vm *vm;

    a->settle_at = time_msec() + SETTLE_MS;
    /* Who uses which link region is told anew. */
    HMAP_FOR_EACH (vm, node, &a->vms) {
        SHASH_FOR_EACH (node, &vm->devices) {
            struct vm_device *d = node->data;
            sset_clear(&d->users);
        }
    }
}

static void switch_down(void *a_)
{
    struct agent *a = a_;
    struct agent_port *p;

    HMAP_FOR_EACH (p, node, &a->ports) {
        agent_port_unclaimed(p);
        p->in_switch = false;
        p->left_switch = false;
    }
}

/* Checks what is to be plugged.  Returns NULL, or what is wrong. */
static char *check_region(const struct p2p_msg *m, int fd)
{
    return m->generation ? region_check_fd(fd, m->size) : xstrdup("generation 0 is none");
}

static void plug_port(struct agent *a, struct agent_port *p, const struct p2p_msg *m, int fd, uint32_t seq)
{
    p->generation = m->generation;
    p->seen_plugged = false;

    struct vm_region r = agent_port_region(p);
    r.size = m->size;
    agent_forget_job(p);
    p->job = job_create(a, p->name, seq);
    p->job->port = p;
    vm_plug(p->vm, &r, fd, job_done, p->job);
}

static void process_region(struct agent *a, const struct p2p_msg *m, int fd)
{
    struct agent_port *p;

    HMAP_FOR_EACH (p, node, &a->ports) {
        if (p->claim == AGENT_ASKED && p->claim_seq == m->seq && m->seq) {
            char *bad = check_region(m, fd);
            if (bad) {
                VLOG_ERR("port %s: %s", p->name, bad);
                agent_set_string(&p->error, bad);
                free(bad);
                p->claim = AGENT_REFUSED;
                p->retry_at = time_msec() + RETRY_MAX_MS;
                break;
            }
            p->claim = AGENT_CLAIMED;
            agent_set_string(&p->error, "");
            plug_port(a, p, m, fd, 0);
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void process_refusal(struct agent *a, const struct p2p_msg *m)
{
    struct agent_port *p;

    HMAP_FOR_EACH (p, node, &a->ports) {
        if (p->claim == AGENT_ASKED && p->claim_seq == m->seq && m->seq) {
            if (strcmp(p->error, m->text)) {
                VLOG_WARN("vswitchd does not give port %s to VM %s: %s", p->name, p->vm ? p->vm->path : "?", m->text);
                agent_set_string(&p->error, m->text);
            }
            p->claim = AGENT_REFUSED;
            p->backoff_ms = MIN(MAX(p->backoff_ms * 2, RETRY_MIN_MS), RETRY_MAX_MS);
            p->retry_at = time_msec() + p->backoff_ms;
        }
    }
}

static void process_plug(struct agent *a, const struct p2p_msg *m, int fd)
{
    struct agent_port *p = agent_find_port(a, m->name);
    unsigned session = swconn_session(a->sw);
    char *bad = check_region(m, fd);

    if (!bad && (!p || p->claim != AGENT_CLAIMED || !p->vm)) {
        bad = xasprintf("port %s has not been claimed for a VM", m->name);
    }
    if (!bad && m->type == P2P_MSG_PLUG && !m->link_id) {
        bad = xstrdup("link 0 is none");
    }
    if (bad) {
        VLOG_ERR("port %s: %s", m->name, bad);
        swconn_answer(a->sw, session, m->seq, m->name, -EINVAL, bad);
        free(bad);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    if (m->type == P2P_MSG_REPLUG) {
        plug_port(a, p, m, fd, m->seq);
        return;
    }

    struct vm_region r = { .link_id = m->link_id, .generation = m->generation, .size = m->size };
    vm_plug(p->vm, &r, fd, job_done, job_create(a, m->name, m->seq));
    struct vm_device *d = vm_find(p->vm, &r);
    if (d) {
        sset_add(&d->users, p->name);
        d->retire_at = 0;
    }
}

static void process_unplug(struct agent *a, const struct p2p_msg *m)
{
    struct agent_port *p = agent_find_port(a, m->name);
    struct vm_region r = { .link_id = m->link_id, .generation = m->generation };
    struct vm_device *d = p && p->vm ? vm_find(p->vm, &r) : NULL;

    if (d) {
        sset_find_and_delete(&d->users, m->name);
        if (sset_is_empty(&d->users)) {
            vm_unplug(p->vm, d, job_done, job_create(a, m->name, m->seq));
            return;
        }
        /* The VM's other port still uses it. */
    }
    swconn_answer(a->sw, swconn_session(a->sw), m->seq, m->name, 0, NULL);
}

static void process_port(struct agent *a, const struct p2p_msg *m)
{
    struct agent_port *p = agent_get_port(a, m->name);

    p->in_switch = !m->error;
    p->left_switch = m->error != 0;
    agent_port_unclaimed(p);
}

static void process_ok(struct agent *a, const struct p2p_msg *m)
{
    struct agent_port *p;

    HMAP_FOR_EACH (p, node, &a->ports) {
        if (p->claim == AGENT_CLAIMED && p->claim_seq == m->seq && m->seq) {
            p->listed = true;
        }
    }
}

static void switch_message(void *a_, const struct p2p_msg *m, int fd)
{
    struct agent *a = a_;

    switch (m->type) {
    case P2P_MSG_REGION:
        process_region(a, m, fd);
        return;
    case P2P_MSG_PLUG:
    case P2P_MSG_REPLUG:
        process_plug(a, m, fd);
        return;
    case P2P_MSG_UNPLUG:
        process_unplug(a, m);
        break;
    case P2P_MSG_PORT:
        process_port(a, m);
        break;
    case P2P_MSG_OK:
        process_ok(a, m);
        break;
    case P2P_MSG_ERROR:
        process_refusal(a, m);
        break;
    case P2P_MSG_POKE:
        break;
    default:
        if (m->seq) {
            swconn_answer(a->sw, swconn_session(a->sw), m->seq, m->name, -EOPNOTSUPP, "p2plinkd does not know that");
        }
        break;
    }
    if (fd >= 0) {
        close(fd);
    }
}

const struct swconn_callbacks agent_switch_callbacks = {
    .up = switch_up,
    .down = switch_down,
    .message = switch_message,
};
