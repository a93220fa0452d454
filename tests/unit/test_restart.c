/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch dies and comes back, while two VNFs go on.
 *
 * The switch runs in a child process that is killed without warning; the VNFs are in this one.  What the ledger and the
 * VNFs' own offers save is tested packet by packet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "testbed.h"

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec) { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L }, NULL);
}

/* What the child tells us and we tell it. */
struct shared {
    atomic_bool link;          /* a -> b and b -> a are linked. */
    atomic_bool restoring;
    atomic_bool quit;
    struct p2p_swport_stats a, b;
    _Atomic uint64_t a_rx, b_tx;
    atomic_int state;
};

static struct shared *sh;
static struct testbed tb;

static pid_t start_switch(bool restoring, bool link)
{
    atomic_store(&sh->restoring, restoring);
    atomic_store(&sh->link, link);
    atomic_store(&sh->state, -1);
    pid_t pid = fork();
    if (pid) {
        return pid;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* A failed test leaves nothing behind. */
    testbed_start(&tb);
    p2p_switch_set_restoring(tb.sw, restoring);
    int a = testbed_add_port(&tb, "a", 2, 1500);
    int b = testbed_add_port(&tb, "b", 1, 1500);
    testbed_forward(&tb, a, b);
    testbed_forward(&tb, b, a);
    while (!atomic_load(&sh->quit)) {
        bool restoring_now = atomic_load(&sh->restoring); /* First: who ends it has set the links before. */
        bool l = atomic_load(&sh->link);
        p2p_swport_set_target(tb.port[a].port, l ? tb.port[b].port : NULL, "test");
        p2p_swport_set_target(tb.port[b].port, l ? tb.port[a].port : NULL, "test");
        p2p_switch_set_restoring(tb.sw, restoring_now);
        struct p2p_swport_info info;
        p2p_swport_get_info(tb.port[a].port, &info);
        atomic_store(&sh->state, (int)info.state);
        p2p_swport_get_stats(tb.port[a].port, &sh->a);
        p2p_swport_get_stats(tb.port[b].port, &sh->b);
        atomic_store(&sh->a_rx, atomic_load(&tb.port[a].rx));
        atomic_store(&sh->b_tx, atomic_load(&tb.port[b].tx));
        sleep_ms(1);
    }
    testbed_stop(&tb);
    _exit(0);
}

static void kill_switch(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static bool wait_direct(struct p2p_port *port, bool direct)
{
    for (int i = 0; i < 5000; i++) {
        struct p2p_port_info info;
        p2p_port_get_info(port, &info);
        if (info.tx_direct == direct && atomic_load(&sh->state) == (int)(direct ? P2P_LINK_DIRECT : P2P_LINK_NORMAL)) {
            return true;
        }
        sleep_ms(1);
    }
    return false;
}

struct stream {
    struct p2p_port *from, *to;
    uint64_t sent[2], next[2], got, wrong;
};

static unsigned take(struct stream *s)
{
    struct p2p_pkt pkts[32];
    unsigned n = p2p_rx_burst(s->to, 0, pkts, 32);

    for (unsigned i = 0; i < n; i++) {
        unsigned q;
        uint64_t seq;
        memcpy(&q, (const uint8_t *)pkts[i].data + 14, 4);
        memcpy(&seq, (const uint8_t *)pkts[i].data + 20, 8);
        s->wrong += q > 1 || seq != s->next[q & 1];
        s->next[q & 1] = seq + 1;
    }
    s->got += n;
    p2p_rx_release(s->to, 0);
    return n;
}

/* So often: sends one packet on each queue, and takes what has come. */
static void pump(struct stream *s, unsigned rounds)
{
    uint8_t frame[64] = { 0 };

    while (rounds--) {
        for (unsigned q = 0; q < 2; q++) {
            memcpy(frame + 14, &q, 4);
            memcpy(frame + 20, &s->sent[q], 8);
            s->sent[q] += p2p_tx_burst(s->from, q, &(struct p2p_buf) { frame, sizeof frame, 0 }, 1);
        }
        take(s);
    }
}

/* Takes what is under way, up to 'expect' packets in all. */
static void drain(struct stream *s, uint64_t expect)
{
    for (int i = 0; i < 2000 && s->got < expect; i++) {
        if (!take(s)) {
            sleep_ms(1);
        }
    }
}

static void setup_lab(void)
{
    testbed_init(&tb);
    tb.cfg.linger_ms = 200;
    sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(sh != MAP_FAILED);
}

/* Until nothing is under way any more: all that was sent has come, and the switch has counted what went directly.
 * Returns the sender's counters. */
static struct p2p_port_stats all_adds_up(struct stream *s)
{
    struct p2p_port_stats sender;

    drain(s, s->sent[0] + s->sent[1]);
    assert_int_equal(s->got, s->sent[0] + s->sent[1]);
    assert_int_equal(s->wrong, 0);
    p2p_port_get_stats(s->from, &sender);
    for (int i = 0; i < 10000 && (sh->a.out_packets < sender.tx_direct_packets
                                  || sh->b.in_packets < sender.tx_direct_packets); i++) {
        sleep_ms(1);
    }
    assert_int_equal(sh->a.out_packets, sender.tx_direct_packets);
    assert_int_equal(sh->b.in_packets, sender.tx_direct_packets);
    return sender;
}

static void end(struct stream *s, pid_t pid)
{
    p2p_port_close(s->from);
    p2p_port_close(s->to);
    atomic_store(&sh->quit, true);
    waitpid(pid, NULL, 0);
    munmap(sh, sizeof *sh);
}

/* Story: direct; the switch is killed; traffic goes on; a new switch restores its tables and finds the link as it was;
 * nothing is lost, and the port counters say what they would have said. */
static void killed_with_restore(void **state)
{
    (void)state;
    setup_lab();
    pid_t pid = start_switch(false, true);
    struct stream s = { .from = testbed_vnf(&tb, "a"), .to = testbed_vnf(&tb, "b") };
    assert_true(wait_direct(s.from, true));
    pump(&s, 500);
    for (int round = 0; round < 5; round++) {
        kill_switch(pid);
        pump(&s, 2000);
        pid = start_switch(true, false);
        pump(&s, 500);
        sleep_ms(150 * (unsigned)(round % 2));
        pump(&s, 500);
        atomic_store(&sh->link, true);
        sleep_ms(20);
        atomic_store(&sh->restoring, false);
        assert_true(wait_direct(s.from, true));
        pump(&s, 500);
    }
    struct p2p_port_stats va = all_adds_up(&s);
    assert_int_equal(va.tx_direct_packets, va.tx_packets); /* It never left the channel. */
    end(&s, pid);
}

/* Story: the same without restoring: the link goes back to normal, in order and with nothing lost, and is made anew. */
static void killed_without_restore(void **state)
{
    (void)state;
    setup_lab();
    pid_t pid = start_switch(false, true);
    struct stream s = { .from = testbed_vnf(&tb, "a"), .to = testbed_vnf(&tb, "b") };
    assert_true(wait_direct(s.from, true));
    pump(&s, 500);
    kill_switch(pid);
    pump(&s, 2000);
    pid = start_switch(false, false);
    for (int i = 0; i < 100; i++) {
        pump(&s, 5);
        sleep_ms(1);
    }
    assert_true(wait_direct(s.from, false));
    for (int i = 0; i < 50; i++) {
        pump(&s, 5);
        sleep_ms(1);
    }
    atomic_store(&sh->link, true);
    assert_true(wait_direct(s.from, true));
    pump(&s, 100);
    struct p2p_port_stats va = all_adds_up(&s);
    assert_true(va.tx_direct_packets < va.tx_packets);
    end(&s, pid);
}

/* Story: while the switch was dead, the receiver died too.  The sender is told to go back, and the rest goes on. */
static void receiver_dies_meanwhile(void **state)
{
    (void)state;
    setup_lab();
    tb.cfg.plug_ms = 300;
    pid_t pid = start_switch(false, true);
    struct stream s = { .from = testbed_vnf(&tb, "a"), .to = testbed_vnf(&tb, "b") };
    assert_true(wait_direct(s.from, true));
    pump(&s, 100);
    kill_switch(pid);
    p2p_port_close(s.to);
    pid = start_switch(true, true);
    assert_true(wait_direct(s.from, false));
    atomic_store(&sh->restoring, false);
    s.to = testbed_vnf(&tb, "b");
    assert_true(wait_direct(s.from, true));
    s.got = s.wrong = 0;
    memcpy(s.next, s.sent, sizeof s.next);
    uint64_t base = s.sent[0] + s.sent[1];
    pump(&s, 100);
    drain(&s, s.sent[0] + s.sent[1] - base);
    assert_int_equal(s.got, s.sent[0] + s.sent[1] - base);
    assert_int_equal(s.wrong, 0);
    end(&s, pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_with_restore),
        cmocka_unit_test(killed_without_restore),
        cmocka_unit_test(receiver_dies_meanwhile),
    };
    return cmocka_run_group_tests_name("restart", tests, NULL, NULL);
}
