/* SPDX-License-Identifier: Apache-2.0 */
/* The sample VNFs' packet format and frame size specifications: guest/vnf/packet.c, sizes.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vnf/clock.h"
#include "vnf/packet.h"
#include "vnf/sizes.h"

static const struct pkt_params plain = {.source = 0x123, .mark_port = PKT_PORT_MARKED};

static uint8_t frame[PKT_MAX];

static void build(const struct pkt_params *params, uint16_t flow, uint32_t len, unsigned kind, uint64_t seq,
                  uint64_t time_ns)
{
    struct pkt_template t;

    pkt_template_init(&t, params, flow);
    memset(frame, 0xaa, sizeof frame);
    pkt_build(frame, &t, len, kind, seq, time_ns);
}

static enum pkt_verdict parse(uint32_t len)
{
    struct pkt_id id;
    uint32_t bad;

    return pkt_parse(frame, len, &id, &bad);
}

static unsigned be16(unsigned off)
{
    return (unsigned)frame[off] << 8 | frame[off + 1];
}

static void test_headers_are_valid(void **state)
{
    uint32_t sum = 0;

    (void)state;
    build(&plain, 513, 1000, 1, 1, 1);
    assert_int_equal(be16(12), 0x0800);
    assert_int_equal(frame[14], 0x45);
    assert_int_equal(be16(16), 1000 - 14);
    assert_int_equal(frame[23], 17);
    for (unsigned i = 14; i < 34; i += 2) {
        sum += be16(i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    assert_int_equal(sum, 0xffff);
    assert_int_equal(be16(36), PKT_PORT_MARKED);
    assert_int_equal(be16(38), 1000 - 34);
    assert_int_equal(frame[0] & 1, 0); /* No multicast. */
    assert_int_equal(frame[6] & 1, 0);

    build(&plain, 513, 64, 0, 1, 1);
    assert_int_equal(be16(36), PKT_PORT_OTHER);
}

static void test_comes_back_as_it_was(void **state)
{
    static const uint32_t lengths[] = {64, 65, 71, 72, 73, 127, 1514, 9014};
    struct pkt_id id;
    uint32_t bad;

    (void)state;
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (unsigned kind = 0; kind < PKT_KINDS; kind++) {
            build(&plain, 0xfedc, lengths[i], kind, PKT_SEQ_MAX - 1, UINT64_C(0xabcdef123456));
            assert_int_equal(pkt_parse(frame, lengths[i], &id, &bad), PKT_GOOD);
            assert_int_equal(id.source, 0x123);
            assert_int_equal(id.flow, 0xfedc);
            assert_int_equal(id.kind, kind);
            assert_true(id.seq == PKT_SEQ_MAX - 1);
            assert_true(id.time_ns == UINT64_C(0xabcdef123456));
            if (lengths[i] < PKT_MAX) {
                assert_int_equal(frame[lengths[i]], 0xaa); /* Nothing beyond its end. */
            }
        }
    }
}

static void test_every_changed_bit_shows(void **state)
{
    static const uint32_t lengths[] = {64, 67, 200, 1514};

    (void)state;
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint32_t len = lengths[i];

        build(&plain, 7, len, 0, 123456, 42);
        for (uint32_t bit = 0; bit < 8 * len; bit++) {
            struct pkt_id id;
            uint32_t bad = 0;
            enum pkt_verdict v;

            frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
            v = pkt_parse(frame, len, &id, &bad);
            frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (bit / 8 < PKT_MIN) {
                assert_int_equal(v, PKT_BAD_HEADER);
            } else {
                assert_int_equal(v, PKT_BAD_PAYLOAD);
                assert_int_equal(bad, bit / 8);
                assert_true(id.seq == 123456);
            }
        }
        assert_int_equal(parse(len), PKT_GOOD);
    }
}

static void test_wrong_length_shows(void **state)
{
    (void)state;
    build(&plain, 7, 200, 0, 1, 1);
    for (uint32_t len = 14; len < 300; len++) {
        assert_int_equal(parse(len), len == 200 ? PKT_GOOD : PKT_BAD_HEADER);
    }
}

/* The header of one packet with the payload of another: what a torn slot would look like. */
static void test_mixed_packets_show(void **state)
{
    uint8_t header[PKT_MIN];
    struct pkt_id id;
    uint32_t bad;

    (void)state;
    build(&plain, 7, 300, 0, 1, 1);
    memcpy(header, frame, sizeof header);
    build(&plain, 7, 300, 0, 2, 1);
    memcpy(frame, header, sizeof header);
    assert_int_equal(pkt_parse(frame, 300, &id, &bad), PKT_BAD_PAYLOAD);
    assert_true(id.seq == 1);

    build(&plain, 7, 300, 1, 1, 1);
    memcpy(frame, header, sizeof header);
    assert_int_equal(parse(300), PKT_BAD_PAYLOAD);
}

static void test_strangers(void **state)
{
    (void)state;
    memset(frame, 0, sizeof frame);
    assert_int_equal(parse(64), PKT_BAD_HEADER); /* Nothing but zeros is no packet of anybody's. */
    assert_int_equal(parse(1514), PKT_BAD_HEADER);

    /* ARP. */
    memset(frame, 0xff, 6);
    memcpy(frame + 6, "\x52\x54\x00\x01\x02\x03\x08\x06", 8);
    assert_int_equal(parse(42), PKT_FOREIGN);
    assert_int_equal(parse(64), PKT_FOREIGN);

    /* Ours, beyond recognition but for the address. */
    build(&plain, 7, 64, 0, 1, 1);
    memset(frame + 42, 0, 22);
    assert_int_equal(parse(64), PKT_BAD_HEADER);
}

static void test_routed_headers_may_change(void **state)
{
    struct pkt_params routed = plain;
    uint32_t sum = 0;

    (void)state;
    routed.routed = true;
    build(&routed, 7, 128, 0, 1, 1);
    assert_int_equal(parse(128), PKT_GOOD);
    memset(frame, 0x12, 12); /* Another hop's addresses. */
    assert_int_equal(parse(128), PKT_GOOD);

    frame[22]--; /* TTL, without the checksum... */
    assert_int_equal(parse(128), PKT_BAD_HEADER);
    frame[24] = frame[25] = 0; /* ... and with it. */
    for (unsigned i = 14; i < 34; i += 2) {
        sum += be16(i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24] = (uint8_t)(~sum >> 8);
    frame[25] = (uint8_t)~sum;
    assert_int_equal(parse(128), PKT_GOOD);

    frame[50] ^= 1;
    assert_int_equal(parse(128), PKT_BAD_HEADER);
}

static void test_destination_can_be_given(void **state)
{
    struct pkt_params params = plain;

    (void)state;
    params.have_dst_mac = true;
    memcpy(params.dst_mac, "\x02\x00\x00\x00\x00\x99", 6);
    params.dst_ip = UINT32_C(0xc6120001);
    build(&params, 258, 64, 0, 1, 1);
    assert_memory_equal(frame, params.dst_mac, 6);
    assert_memory_equal(frame + 30, "\xc6\x12\x01\x03", 4);
    assert_int_equal(parse(64), PKT_GOOD);
}

static void test_age_wraps(void **state)
{
    struct pkt_id id = {.time_ns = (UINT64_C(1) << 48) - 10};

    (void)state;
    assert_true(pkt_age(&id, (UINT64_C(1) << 48) + 5) == 15);
    assert_true(pkt_age(&id, (UINT64_C(1) << 48) - 30) == -20);
}

static void test_sizes(void **state)
{
    struct sizes s;
    struct prng r = {.state = 1};

    (void)state;
    assert_int_equal(sizes_parse(&s, "64"), 0);
    assert_int_equal(sizes_draw(&s, &r, 1514), 64);
    assert_int_equal(sizes_longest(&s), 64);

    assert_int_equal(sizes_parse(&s, "100-110,1500,max"), 0);
    assert_int_equal(sizes_longest(&s), 1500);
    for (int i = 0; i < 1000; i++) {
        uint32_t len = sizes_draw(&s, &r, 1514);
        assert_true((len >= 100 && len <= 110) || len == 1500 || len == 1514);
    }

    assert_int_equal(sizes_parse(&s, "mixed"), 0);
    assert_true(sizes_longest(&s) <= 1514);
    for (int i = 0; i < 1000; i++) {
        uint32_t len = sizes_draw(&s, &r, 600); /* A port with a small MTU cuts what is longer. */
        assert_true(len >= 64 && len <= 600);
    }
}

static void test_wrong_sizes_are_refused(void **state)
{
    static const char *const wrong[] = {"",    "63",  "9015",    "64,", ",64", "64-",
                                        "-64", "64x", "200-100", "big", "max-64"};
    struct sizes s;

    (void)state;
    assert_int_equal(sizes_parse(&s, "77"), 0);
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(sizes_parse(&s, wrong[i]), -EINVAL);
        assert_int_equal(s.range[0].low, 77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_are_valid),
        cmocka_unit_test(test_comes_back_as_it_was),
        cmocka_unit_test(test_every_changed_bit_shows),
        cmocka_unit_test(test_wrong_length_shows),
        cmocka_unit_test(test_mixed_packets_show),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_routed_headers_may_change),
        cmocka_unit_test(test_destination_can_be_given),
        cmocka_unit_test(test_age_wraps),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_wrong_sizes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
