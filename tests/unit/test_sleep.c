/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VNFs that sleep until there is something to receive (p2p_rx_arm()), and that are told when their port's state changes
 * (p2p_port_event_fd()).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "testbed.h"

#define WAIT_MS 20000
#define QUIET_MS 50
#define ROUNDS 300

static struct testbed tb;
static int a, b;
static struct p2p_port *from, *to;
static int fd;

static int set_up(void **state)
{
    (void)state;
    testbed_init(&tb);
    testbed_start(&tb);
    a = testbed_add_port(&tb, "dpdkr1", 2, 1500);
    b = testbed_add_port(&tb, "dpdkr2", 2, 1500);
    testbed_forward(&tb, a, b);
    from = testbed_vnf(&tb, "dpdkr1");
    to = testbed_vnf(&tb, "dpdkr2");
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0;
}

static int tear_down(void **state)
{
    (void)state;
    p2p_port_close(from);
    p2p_port_close(to);
    close(fd);
    testbed_stop(&tb);
    return 0;
}

static bool readable(int which, int ms)
{
    struct pollfd pfd = { .fd = which, .events = POLLIN };
    uint64_t n;

    return poll(&pfd, 1, ms) == 1 && read(which, &n, sizeof n) == sizeof n;
}

static void send_one(unsigned queue)
{
    static const uint8_t frame[64];
    struct p2p_buf buf = { .data = frame, .len = sizeof frame };

    assert_int_equal(p2p_tx_burst(from, queue, &buf, 1), 1);
}

static unsigned receive(unsigned queue)
{
    struct p2p_pkt pkts[8];
    unsigned n = p2p_rx_burst(to, queue, pkts, 8);

    p2p_rx_release(to, queue);
    return n;
}

/* As an application does: it arms only when it has found nothing. */
static void wait_for_one(unsigned queue)
{
    while (!receive(queue)) {
        assert_int_equal(p2p_rx_arm(to, queue, fd), 0);
        assert_true(readable(fd, WAIT_MS));
    }
}

static void link_up(void)
{
    p2p_swport_set_target(tb.port[a].port, tb.port[b].port, NULL);
    assert_true(testbed_wait_state(&tb, a, P2P_LINK_DIRECT));
}

static void wakes_for_each_packet(void **state)
{
    (void)state;
    for (unsigned direct = 0; direct < 2; direct++) {
        for (unsigned i = 0; i < ROUNDS; i++) {
            assert_int_equal(p2p_rx_arm(to, 1, fd), 0);
            if (i % 8 == 0) {
                testbed_sleep_ms(1); /* Most likely it sleeps by then. */
            }
            send_one(1);
            assert_true(readable(fd, WAIT_MS));
            wait_for_one(1);
        }
        if (!direct) {
            link_up();
        }
    }
    struct p2p_port_stats stats;
    p2p_port_get_stats(to, &stats);
    assert_int_equal(stats.rx_packets, 2 * ROUNDS);
    assert_in_range(stats.rx_direct_packets, 1, 2 * ROUNDS);
}

static void tells_at_once_of_what_is_there(void **state)
{
    (void)state;
    link_up();
    send_one(0);
    assert_int_equal(p2p_rx_arm(to, 0, fd), 0);
    assert_true(readable(fd, WAIT_MS));
    wait_for_one(0);
}

static void sleeps_when_there_is_nothing(void **state)
{
    (void)state;
    link_up();
    assert_int_equal(p2p_rx_arm(to, 0, fd), 0);
    send_one(1); /* Another queue's. */
    assert_false(readable(fd, QUIET_MS));
    p2p_rx_disarm(to, 0);
    send_one(0);
    assert_false(readable(fd, QUIET_MS));
    assert_int_equal(receive(0), 1);
}

static void sees_links_that_come_while_it_sleeps(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(p2p_rx_arm(to, 0, fd), 0);
        link_up();
        send_one(0);
        assert_true(readable(fd, WAIT_MS));
        wait_for_one(0);
        assert_int_equal(p2p_rx_arm(to, 0, fd), 0);
        p2p_swport_set_target(tb.port[a].port, NULL, "test");
        assert_true(testbed_wait_state(&tb, a, P2P_LINK_NORMAL));
        send_one(0);
        assert_true(readable(fd, WAIT_MS));
        wait_for_one(0);
    }
}

static void is_told_when_the_link_changes(void **state)
{
    struct p2p_port_info info;
    int event = p2p_port_event_fd(to);

    (void)state;
    for (unsigned up = 2; up-- > 0;) {
        p2p_swport_set_link_up(tb.port[b].port, up);
        do {
            assert_true(readable(event, WAIT_MS));
            p2p_port_get_info(to, &info);
        } while (info.link_up != !!up);
    }
}

static void refuses_queues_that_cannot_be(void **state)
{
    (void)state;
    assert_int_equal(p2p_rx_arm(to, P2P_MAX_QUEUES, fd), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(wakes_for_each_packet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tells_at_once_of_what_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sleeps_when_there_is_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sees_links_that_come_while_it_sleeps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_told_when_the_link_changes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_queues_that_cannot_be, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("sleep", tests, NULL, NULL);
}
