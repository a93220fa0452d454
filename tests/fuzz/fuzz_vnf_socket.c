/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VNF's side against any sequence of messages from what listens on the switch's socket.
 *
 * The puppet answers as the input says: with the message that is due or another one, with a region, a broken region,
 * a file that is none, or nothing; it hangs up when it likes.  Whether or not the port opens, nothing crashes, nobody
 * waits for longer than the time limits, and no descriptor and no mapping is left.
 */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "puppet.h"
#include "sock.h"
#include "vnf.h"

static struct input *input;
static int some_memfd, some_event;
static bool opened;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    puppet_init();
    some_memfd = memfd_create("fuzz", MFD_CLOEXEC);
    some_event = eventfd(0, EFD_CLOEXEC);
    CHECK(some_memfd >= 0 && some_event >= 0 && !ftruncate(some_memfd, 2 << 20));
    return 0;
}

static int choose_fd(struct input *in)
{
    switch (in8(in) % 8) {
    case 0: return -1;
    case 1: return some_memfd;
    case 2: return some_event;
    case 3: return puppet.link[0].r.base ? puppet.link[0].r.fd : -1;
    case 4: return puppet.link[1].r.base ? puppet.link[1].r.fd : -1;
    default: return puppet.port.r.base ? puppet.port.r.fd : -1;
    }
}

static void any_message(struct input *in, uint32_t seq)
{
    uint8_t how = in8(in);
    const struct puppet_region *const regions[] = { &puppet.port, &puppet.link[0], &puppet.link[1], NULL };
    const struct puppet_region *r = regions[how % 4];
    struct p2p_msg m;
    uint8_t raw[2 * sizeof m] = { 0 };
    size_t size = sizeof m;

    p2p_msg_init(&m, (enum p2p_msg_type)(in8(in) % 16), how & 4 ? seq : in8(in));
    m.version = m.version_min = 1;
    strcpy(m.name, PUPPET_NAME);
    if (r && r->r.base) {
        m.link_id = r->r.hdr.link_id;
        m.generation = r->r.hdr.generation;
        m.size = r->r.size;
    }
    if (how & 8) {
        for (unsigned n = 1 + in_below(in, 4); n; n--) {
            ((uint8_t *)&m)[in16(in) % 48] = in8(in);
        }
    }
    if (how & 16) {
        memset(m.text, 'x', sizeof m.text);
        m.error = (int32_t)in32(in);
    }
    memcpy(raw, &m, sizeof m);
    if (how & 32) {
        size = in16(in) % sizeof raw;
    }
    int fd = choose_fd(in);
    if (size == sizeof m) {
        (void)p2p_msg_send(puppet.sock, (struct p2p_msg *)(void *)raw, fd);
    } else {
        (void)send(puppet.sock, raw, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* Something of a region is not as it should be. */
static void spoil(struct puppet_region *p, struct input *in)
{
    if (p->r.base) {
        for (unsigned n = in_below(in, 3); n; n--) {
            uint64_t *word = in_header(in, p->r.base);
            p2p_store(word, in_word(in, *word));
        }
    }
}

static void on_msg(struct puppet *p, const struct p2p_msg *m, int fd)
{
    (void)p;
    (void)fd;
    uint8_t how = in8(input);

    if (how % 4) {
        if (m->type == P2P_MSG_ATTACH && how & 0x80) {
            puppet_make_port();
            spoil(&puppet.port, input);
            puppet_send(P2P_MSG_REGION, m->seq, &puppet.port, choose_fd(input));
        } else {
            puppet_answer(m);
        }
    } else if (how & 4) {
        any_message(input, m->seq);
    } else if (how & 8) {
        puppet_hang_up();
    }
}

static void on_turn(struct puppet *p)
{
    if (!input->left || p->sock < 0) {
        return;
    }
    uint8_t op = in8(input);
    switch (op % 16) {
    case 0:
        any_message(input, in8(input) % 4);
        break;
    case 1:
        puppet_hang_up();
        break;
    case 2:
        puppet_make_link(op >> 7);
        spoil(&p->link[op >> 7], input);
        puppet_send(P2P_MSG_REGION, 0, &p->link[op >> 7], choose_fd(input));
        break;
    case 3:
        puppet_want(in8(input) % P2P_MAX_LINKS, op >> 7, (enum p2p_want)(in8(input) % 4));
        break;
    case 4:
        puppet_make_port();
        spoil(&p->port, input);
        puppet_send(P2P_MSG_REGION, 0, &p->port, p->port.r.fd);
        break;
    case 5:
        p->silent = in8(input) % 8 == 0;
        break;
    case 6:
        puppet_send(P2P_MSG_DETACH, 0, NULL, -1);
        break;
    case 7:
        puppet_mode(op >> 7, in8(input) & 1);
        puppet_rx(op >> 7, (enum p2p_rx_state)(in8(input) % 4));
        break;
    default:
        break;
    }
}

static void use(struct input *in)
{
    static const uint8_t packet[1522];
    struct p2p_buf buf = { packet, 60 + in8(in), 0 };
    struct p2p_pkt pkts[16];
    unsigned queue = in8(in) % 3;

    (void)p2p_tx_burst(puppet.vnf_port, queue, &buf, 1);
    unsigned n = p2p_rx_burst(puppet.vnf_port, queue, pkts, 16);
    for (unsigned i = 0; i < n; i++) {
        CHECK(pkts[i].len <= P2P_MTU_MAX + P2P_FRAME_OVERHEAD);
        (void)((const volatile uint8_t *)pkts[i].data)[pkts[i].len - 1];
    }
    p2p_rx_release(puppet.vnf_port, queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    int fds = fuzz_count_fds();
    uint64_t begin = fuzz_now_ns();

    puppet_begin(1 + in8(&in) % 2, 1, 1500);
    input = &in;
    puppet.on_msg = on_msg;
    puppet.on_turn = on_turn;
    opened = puppet_open() == 0;
    CHECK(fuzz_now_ns() - begin < UINT64_C(60000000000)); /* Some questions with a time limit of 2 s each. */
    for (int i = 0; opened && i < 100 && in.left; i++) {
        puppet_control(1 + in_below(&in, 8));
        use(&in);
    }
    if (opened) {
        puppet_close();
    }
    puppet_end();
    CHECK(fuzz_wait_fds(fds));
    return 0;
}
