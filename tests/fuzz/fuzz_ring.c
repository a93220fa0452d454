/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a ring against memory that anybody writes.
 *
 * Control words, descriptors and data are heap blocks of their own, so that ASan sees every step beyond them.  The
 * input lets the ends work, rewrites words between their steps, and, now and then, while they work.  As long as
 * nothing has been rewritten, what comes out must be what went in.
 */
#include <string.h>
#include <p2plink/vnf.h>
#include "fuzz.h"
#include "ring.h"

#define BURST 16
#define MODEL 256
#define LEN_MAX 16384

struct model { /* What an honest ring has in it, in order. */
    uint32_t len[MODEL];
    uint8_t fill[MODEL];
    uint32_t first, taken, end; /* freed, handed out, put in. */
};

struct ring {
    struct p2p_prod prod;
    struct p2p_cons cons;
    struct model model;
    bool honest;
    uint8_t next_fill;
};

static void put(struct ring *r, struct input *in)
{
    struct p2p_buf bufs[BURST];
    unsigned n = in_below(in, BURST + 1);
    uint8_t *mem[BURST];
    uint64_t bytes = 0, sum = 0;

    for (unsigned i = 0; i < n; i++) {
        uint32_t len = in8(in) % 4 ? in8(in) : in16(in) % LEN_MAX;
        mem[i] = malloc(len ? len : 1); /* The producer must not read beyond it. */
        memset(mem[i], (uint8_t)(r->next_fill + i), len);
        bufs[i] = (struct p2p_buf) { mem[i], len, i };
    }
    uint32_t head = r->prod.head;
    unsigned sent = p2p_prod_burst(&r->prod, bufs, n, &bytes);
    CHECK(sent <= n && (uint32_t)(r->prod.head - head) == sent);
    CHECK((uint32_t)(r->prod.head - r->prod.freed) <= r->prod.mask + 1);
    for (unsigned i = 0; i < n; i++) {
        if (i < sent) {
            CHECK(bufs[i].len >= P2P_FRAME_MIN && bufs[i].len <= r->prod.max_len);
            sum += bufs[i].len;
            if (r->honest) {
                r->model.len[r->model.end % MODEL] = bufs[i].len;
                r->model.fill[r->model.end++ % MODEL] = (uint8_t)(r->next_fill + i);
            }
        }
        free(mem[i]);
    }
    CHECK(sum == bytes);
    r->next_fill += (uint8_t)sent;
    if (r->honest && sent) {
        CHECK(p2p_load(&r->prod.ctl->head) == r->prod.head);
    }
}

static void check_pkt(const struct ring *r, const struct p2p_pkt *p)
{
    const uint8_t *at = p->data;
    volatile uint8_t byte;

    CHECK(p->len >= P2P_FRAME_MIN && p->len <= r->cons.max_len);
    CHECK(at >= r->cons.data && at + p->len <= r->cons.data + r->cons.data_size);
    for (uint32_t i = 0; i < p->len; i += 13) {
        byte = at[i];
    }
    byte = at[p->len - 1];
    (void)byte;
}

static void take(struct ring *r, struct input *in)
{
    struct p2p_pkt pkts[BURST];
    uint64_t bytes = 0, bad = 0, sum = 0;
    uint32_t from = r->cons.next;
    uint32_t upto = p2p_cons_head(&r->cons);
    unsigned n = in_below(in, BURST + 1);

    CHECK((uint32_t)(upto - from) <= r->cons.mask + 1);
    if (upto != from && in8(in) % 2) {
        upto = from + in_below(in, upto - from); /* Up to a cut. */
    }
    unsigned got = p2p_cons_take(&r->cons, upto, pkts, n, &bytes, &bad);
    CHECK(got <= n && (uint32_t)(r->cons.next - from) == got + bad);
    CHECK((uint32_t)(r->cons.next - from) <= (uint32_t)(upto - from));
    CHECK((uint32_t)(r->cons.next - from) <= n + P2P_BAD_MAX);
    CHECK(got == n || r->cons.next == upto || bad >= P2P_BAD_MAX);
    for (unsigned i = 0; i < got; i++) {
        check_pkt(r, &pkts[i]);
        sum += pkts[i].len;
        if (r->honest) {
            uint32_t k = r->model.taken++ % MODEL;
            const uint8_t *at = pkts[i].data;
            CHECK(pkts[i].len == r->model.len[k] && at[0] == r->model.fill[k] && at[pkts[i].len - 1] == at[0]);
        }
    }
    CHECK(sum == bytes);
    CHECK(!r->honest || (!bad && !r->cons.bad_index));
}

/* A word of the ring that the other side, or somebody, has written. */
static uint64_t *word_of(struct ring *r, struct input *in)
{
    switch (in8(in) % 4) {
    case 0:
        return (uint64_t *)&r->prod.ctl->head; /* And its padding: aligned. */
    case 1:
        return (uint64_t *)&r->prod.ctl->tail; /* And 'freed'. */
    case 2:
        return &r->prod.ctl->start;
    default:
        return (uint64_t *)&r->prod.desc[in8(in) & r->prod.mask] + in8(in) % 2;
    }
}

static void step(struct ring *r, struct input *in)
{
    switch (in8(in) % 9) {
    case 0:
    case 1:
        put(r, in);
        break;
    case 2:
    case 3:
        take(r, in);
        break;
    case 4:
        p2p_cons_release(&r->cons);
        r->model.first = r->model.taken;
        break;
    case 5: {
        bool drained = p2p_prod_drained(&r->prod);
        CHECK(!r->honest || !drained || r->model.taken == r->model.end);
        p2p_prod_refresh(&r->prod, r->prod.head);
        break;
    }
    case 6: {
        uint64_t *word = word_of(r, in);
        r->honest = false;
        p2p_store(word, in_word(in, *word));
        break;
    }
    case 8: { /* Packets that nobody has put there, or others than those. */
        unsigned n = 1 + in_below(in, 4);
        r->honest = false;
        for (unsigned i = 0; i < n; i++) {
            r->prod.desc[(r->cons.next + i) & r->prod.mask] = in_desc(in, r->cons.data_size, r->cons.max_len);
        }
        p2p_store(&r->prod.ctl->head, r->cons.next + n);
        take(r, in);
        break;
    }
    case 7: { /* Rewritten while the ends work. */
        struct scribble s[SCRIBBLES_MAX];
        unsigned n = 1 + in_below(in, 3);
        if (in8(in) % 8) {
            break;
        }
        r->honest = false;
        for (unsigned i = 0; i < n; i++) {
            s[i].at = word_of(r, in);
            s[i].value = in_word(in, *s[i].at);
        }
        scribble_begin(s, n);
        for (unsigned i = 1 + in_below(in, 8); i; i--) {
            put(r, in);
            take(r, in);
            p2p_cons_release(&r->cons);
        }
        scribble_end();
        break;
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct ring r = { .honest = true };
    uint32_t n_desc = 2u << in_below(&in, 6); /* Up to 64: fewer than the model has places for. */
    uint32_t max_len = in8(&in) % 4 ? 90 + in8(&in) : P2P_MTU_MAX + P2P_FRAME_OVERHEAD;
    uint32_t data_size = max_len + in16(&in) % 4096;
    uint32_t index = in8(&in) % 2 ? in32(&in) : UINT32_MAX - in8(&in);
    struct p2p_ring_ctl *ctl = aligned_alloc(64, sizeof *ctl);
    struct p2p_desc *desc = calloc(n_desc, sizeof *desc);
    uint8_t *area = malloc(data_size);
    uint32_t *pos = calloc(n_desc, sizeof *pos);

    memset(ctl, 0, sizeof *ctl);
    memset(area, 0xee, data_size);
    ctl->head = ctl->tail = ctl->freed = index;
    /* As p2p_prod_init() and p2p_cons_init() do, only that the three lie apart. */
    r.prod = (struct p2p_prod) {
        .ctl = ctl, .desc = desc, .data = area, .pos = pos, .mask = n_desc - 1, .data_size = data_size,
        .max_len = max_len, .head = index, .freed = index,
    };
    r.cons = (struct p2p_cons) {
        .ctl = ctl, .desc = desc, .data = area, .mask = n_desc - 1, .data_size = data_size, .max_len = max_len,
        .next = index,
    };
    for (int i = 0; i < 200 && in.left; i++) {
        step(&r, &in);
    }
    free(pos);
    free(area);
    free(desc);
    free(ctl);
    return 0;
}
