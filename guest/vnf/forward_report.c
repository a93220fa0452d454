/* SPDX-License-Identifier: Apache-2.0 */
/* What the forwarder tells of its traffic, as text and as JSON, see forward.h.  Control thread, data threads paused. */
#include "forward.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "port_report.h"

void forward_sum(const struct forward *f, unsigned side, struct forward_stats *sum, uint64_t *pending)
{
    memset(sum, 0, sizeof *sum);
    *pending = 0;
    for (unsigned q = 0; q < P2P_MAX_QUEUES; q++) {
        const struct forward_lane *l = &f->lane[side][q];

        sum->received += l->stats.received;
        sum->received_bytes += l->stats.received_bytes;
        sum->forwarded += l->stats.forwarded;
        sum->forwarded_bytes += l->stats.forwarded_bytes;
        sum->dropped += l->stats.dropped;
        sum->too_long += l->stats.too_long;
        sum->retries += l->stats.retries;
        sum->set_aside += l->stats.set_aside;
        *pending += l->n - l->first;
    }
}

static void report_side_json(const struct forward *f, unsigned side, struct json *j)
{
    struct forward_stats sum;
    uint64_t pending;

    forward_sum(f, side, &sum, &pending);
    json_object(j, NULL);
    json_string(j, "from", f->options.name[side]);
    json_string(j, "to", f->options.name[!side]);
    json_uint(j, "received", sum.received);
    json_uint(j, "received_bytes", sum.received_bytes);
    json_uint(j, "forwarded", sum.forwarded);
    json_uint(j, "forwarded_bytes", sum.forwarded_bytes);
    json_uint(j, "dropped", sum.dropped);
    json_uint(j, "too_long", sum.too_long);
    json_uint(j, "pending", pending);
    json_uint(j, "retries", sum.retries);
    json_uint(j, "set_aside", sum.set_aside);
    port_report_json(f->port[side], j);
    json_object_end(j);
}

void forward_report_json(const struct forward *f, struct json *j)
{
    json_string(j, "program", program_name);
    json_string(j, "version", p2p_version());
    json_real(j, "seconds", (double)(clock_ns() - f->reset_at) / NS_PER_S);
    json_bool(j, "retry", f->options.retry);
    json_array(j, "directions");
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        report_side_json(f, side, j);
    }
    json_array_end(j);
}

void forward_report_text(const struct forward *f)
{
    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        struct forward_stats sum;
        struct p2p_port_stats st;
        uint64_t pending;

        forward_sum(f, side, &sum, &pending);
        p2p_port_get_stats(f->port[side], &st);
        printf("%s to %s: received %" PRIu64 " (direct %" PRIu64 "), forwarded %" PRIu64 ", dropped %" PRIu64
               ", too long %" PRIu64 ", pending %" PRIu64 "\n",
               f->options.name[side], f->options.name[!side], sum.received, st.rx_direct_packets, sum.forwarded,
               sum.dropped, sum.too_long, pending);
    }
}

void forward_progress(struct forward *f)
{
    uint64_t now = clock_ns();
    double seconds = (double)(now - f->progress_last) / NS_PER_S;
    uint64_t forwarded = 0, dropped = 0;

    for (unsigned side = 0; side < FORWARD_PORTS; side++) {
        struct forward_stats sum;
        uint64_t pending;

        forward_sum(f, side, &sum, &pending);
        forwarded += sum.forwarded;
        dropped += sum.dropped + sum.too_long;
    }
    fprintf(stderr, "%s: %.0f s: forwarded %" PRIu64 " (%.0f/s), dropped %" PRIu64 "\n", program_name,
            (double)(now - f->started_at) / NS_PER_S, forwarded, (double)(forwarded - f->progress_count) / seconds,
            dropped);
    f->progress_last = now;
    f->progress_count = forwarded;
}
