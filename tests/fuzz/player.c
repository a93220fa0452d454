/* SPDX-License-Identifier: Apache-2.0 */
#include "player.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "sock.h"

static void unmap(struct player_map *m)
{
    if (m->base) {
        scribble_end(); /* It may be at work in there. */
        munmap(m->base, m->size);
        close(m->fd);
        m->base = NULL;
    }
}

/* Takes over 'fd'. */
static void map(struct player_map *m, int fd, size_t size)
{
    unmap(m);
    m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(m->base != MAP_FAILED);
    m->size = size;
    m->fd = fd;
    memcpy(&m->hdr, m->base, sizeof m->hdr);
}

void player_init(struct player *p, struct p2p_switch *sw, const char *name)
{
    memset(p, 0, sizeof *p);
    p->sw = sw;
    p->sock = -1;
    strcpy(p->name, name);
}

static void tell(struct player *p, enum p2p_msg_type type, uint32_t seq)
{
    struct p2p_msg m;

    p2p_msg_init(&m, type, seq);
    m.version = P2P_CONTROL_VERSION;
    m.version_min = P2P_CONTROL_VERSION_MIN;
    m.role = P2P_ROLE_VNF;
    strcpy(m.name, p->name);
    (void)p2p_msg_send(p->sock, &m, -1);
}

/* A memfd that looks like what 'm' is: the content is the same, the memory is not. */
static int forge(const struct player_map *m, bool seal)
{
    int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    CHECK(fd >= 0 && !ftruncate(fd, (off_t)m->size) && pwrite(fd, m->base, 65536, 0) == 65536);
    if (seal) {
        CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    }
    return fd;
}

static void offer(struct player *p, enum p2p_msg_type type, const struct player_map *as, struct input *in)
{
    uint8_t how = in8(in);
    const struct player_map *what = how & 1 && how & 2 ? &p->link[how >> 6] : as;
    struct p2p_msg m;
    int fd = -1;

    p2p_msg_init(&m, type, type == P2P_MSG_ATTACH ? 2 : 0);
    strcpy(m.name, p->name);
    if (as->base) {
        m.link_id = as->hdr.link_id;
        m.generation = as->hdr.generation;
        m.size = as->size;
    }
    if (what->base) {
        fd = how & 4 && how & 8 ? forge(what, how & 16) : dup(what->fd);
        CHECK(fd >= 0);
    }
    if (how & 32 && how & 1) {
        m.size = in_word(in, m.size);
        m.link_id = (uint32_t)in_word(in, m.link_id);
    }
    if (type == P2P_MSG_ATTACH || fd >= 0) {
        (void)p2p_msg_send(p->sock, &m, fd);
    }
    if (fd >= 0) {
        close(fd);
    }
}

void player_come_back(struct player *p, struct input *in)
{
    player_hang_up(p);
    p->sock = p2p_sock_connect(p->sw->socket_path);
    if (p->sock >= 0) {
        tell(p, P2P_MSG_HELLO, 1);
        for (unsigned i = 0; i < P2P_MAX_LINKS; i++) {
            offer(p, P2P_MSG_OFFER, &p->link[i], in);
        }
        offer(p, P2P_MSG_ATTACH, &p->port, in);
    }
}

void player_attach(struct player *p)
{
    player_hang_up(p);
    p->sock = p2p_sock_connect(p->sw->socket_path);
    if (p->sock >= 0) {
        tell(p, P2P_MSG_HELLO, 1);
        tell(p, P2P_MSG_ATTACH, 2);
    }
}

/* Takes over 'fd'. */
static void map_link(struct player *p, struct player_map *l, int fd, const struct p2p_msg *m)
{
    struct sw_chan *c = p->sw->chans;

    while (c && c->id != m->link_id) {
        c = c->next;
    }
    if (c) {
        map(l, fd, m->size);
        l->hdr = c->region.hdr; /* The other end may have rewritten the one in memory. */
        CHECK(!strcmp(l->hdr.name[0], p->name) || !strcmp(l->hdr.name[1], p->name)); /* Not somebody else's. */
    } else {
        close(fd); /* It is over already. */
    }
}

void player_listen(struct player *p)
{
    struct p2p_msg m;
    int fd;

    while (p->sock >= 0) {
        int error = p2p_msg_recv(p->sock, &m, &fd);
        if (error) {
            CHECK(error == -EAGAIN || error == -ECONNRESET);
            if (error != -EAGAIN) {
                player_hang_up(p);
            }
            return;
        }
        if (m.type != P2P_MSG_REGION) {
            CHECK(fd < 0);
            continue;
        }
        CHECK(fd >= 0);
        if (m.link_id) {
            struct player_map *l = p->link;
            for (unsigned i = 1; i < P2P_MAX_LINKS && l->base; i++) {
                l = p->link[i].base && p->link[i].hdr.link_id > l->hdr.link_id ? l : &p->link[i];
            }
            map_link(p, l, fd, &m);
        } else if (p->port.base && p->port.hdr.generation == m.generation) {
            close(fd); /* It may stay where it is: adopted. */
            p->n_adopted++;
        } else {
            map(&p->port, fd, m.size);
            if (!p->port.hdr.magic) { /* Replaced already; the next one is on its way. */
                unmap(&p->port);
                continue;
            }
            p->switch_page = (void *)(p->port.base + p->port.hdr.switch_page_off);
            p->vnf_page = (void *)(p->port.base + p->port.hdr.vnf_page_off);
            CHECK(!strcmp(p->port.hdr.name[0], p->name));
            CHECK(p2p_load(&p->vnf_page->session) == 0); /* Nobody has had it before. */
        }
    }
}

void player_hang_up(struct player *p)
{
    if (p->sock >= 0) {
        close(p->sock);
        p->sock = -1;
    }
}

void player_free(struct player *p)
{
    player_hang_up(p);
    unmap(&p->port);
    for (unsigned i = 0; i < P2P_MAX_LINKS; i++) {
        unmap(&p->link[i]);
    }
}

void player_introduce(struct player *p)
{
    if (p->port.base) {
        p2p_store_release(&p->vnf_page->session, ++p->session);
    }
}

void player_behave(struct player *p)
{
    if (!p->port.base) {
        return;
    }
    if (!p2p_load(&p->vnf_page->session)) {
        player_introduce(p);
    }
    p->vnf_page->heartbeat++;
    for (unsigned k = 0; k < P2P_MAX_LINKS; k++) {
        uint64_t want = p2p_load_acquire(&p->switch_page->want[k]);
        uint64_t have = p2p_want_what(want) == P2P_WANT_MAP ? p2p_have(p2p_want_link(want), 0, P2P_HAVE_MAPPED)
                        : p2p_want_what(want) == P2P_WANT_UNMAP ? p2p_have(p2p_want_link(want), 0, P2P_HAVE_UNMAPPED)
                        : 0;
        p2p_store_release(&p->vnf_page->have[k], have);
    }
    p2p_store_release(&p->vnf_page->mode_ack, p2p_load_acquire(&p->switch_page->mode));
    p2p_store_release(&p->vnf_page->rx_link_ack, p2p_load_acquire(&p->switch_page->rx_link));
    for (unsigned q = 0; q < p->port.hdr.n_queues[1]; q++) {
        struct p2p_ring_ctl *ctl = (void *)(p->port.base + p->port.hdr.ring[p->port.hdr.n_queues[0] + q].ctl_off);
        uint32_t head = p2p_load_acquire(&ctl->head);
        p2p_store_release(&ctl->tail, head);
        p2p_store_release(&ctl->freed, head);
    }
}

static void ring_send(struct player_map *m, unsigned ring, uint32_t len, struct input *in)
{
    const struct p2p_ring_geometry *g = &m->hdr.ring[ring];
    struct p2p_ring_ctl *ctl = (void *)(m->base + g->ctl_off);
    uint32_t head = p2p_load(&ctl->head);
    struct p2p_desc *desc = (struct p2p_desc *)(m->base + g->desc_off) + head % g->n_desc;

    if (head - p2p_load_acquire(&ctl->freed) >= g->n_desc) {
        return;
    }
    if (in) {
        *desc = in_desc(in, g->data_size, m->hdr.mtu + P2P_FRAME_OVERHEAD);
    } else {
        *desc = (struct p2p_desc) { .off = head % 8 * 16384 % g->data_size, .len = len };
    }
    p2p_store_release(&ctl->head, head + 1);
}

void player_send(struct player *p, unsigned queue, uint32_t len)
{
    if (p->port.base) {
        ring_send(&p->port, queue % p->port.hdr.n_queues[0], len, NULL);
    }
}

void player_forge(struct player *p, struct input *in)
{
    if (p->port.base) {
        ring_send(&p->port, in8(in) % p->port.hdr.n_queues[0], 0, in);
    }
}

void player_send_direct(struct player *p, unsigned queue, uint32_t len, bool count)
{
    struct player_map *l = &p->link[0];
    if (!l->base || !p->port.base) {
        return;
    }
    unsigned side = strcmp(l->hdr.name[0], p->name) != 0;

    queue %= l->hdr.n_queues[side];
    ring_send(l, (side ? l->hdr.n_queues[0] : 0) + queue, len, NULL);
    if (count) {
        p->vnf_page->txq[queue].direct_bytes += len;
        p->vnf_page->txq[queue].direct_packets++;
    }
}

/* Of a ring: control words, or a descriptor near to the producer's index. */
static uint64_t *ring_word(struct player_map *m, unsigned ring, struct input *in)
{
    const struct p2p_ring_geometry *g = &m->hdr.ring[ring];
    struct p2p_ring_ctl *ctl = (void *)(m->base + g->ctl_off);
    struct p2p_desc *desc = (void *)(m->base + g->desc_off);

    switch (in8(in) % 4) {
    case 0:
        return (uint64_t *)&ctl->head;
    case 1:
        return (uint64_t *)&ctl->tail;
    case 2:
        return &ctl->start;
    default:
        return (uint64_t *)&desc[(p2p_load(&ctl->head) - in8(in) % 16) % g->n_desc] + in8(in) % 2;
    }
}

uint64_t *player_word(struct player *p, struct input *in)
{
    uint8_t where = in8(in);
    struct player_map *link = &p->link[where % P2P_MAX_LINKS];
    struct player_map *m = where & 0x80 && link->base ? link : &p->port;

    if (!m->base) {
        return NULL;
    }
    if (m == &p->port) {
        switch (where % 8) {
        case 0:
            return (uint64_t *)p->switch_page + in16(in) % (sizeof *p->switch_page / 8);
        case 1:
        case 2:
            return (uint64_t *)p->vnf_page + in16(in) % (sizeof *p->vnf_page / 8);
        case 3:
            return &p->vnf_page->txq[in8(in) % P2P_MAX_QUEUES].start + 8 * (in8(in) % 2); /* Or direct_packets. */
        case 4:
            return in_header(in, p->port.base);
        default:
            break;
        }
    }
    if (where % 16 == 15) {
        return (uint64_t *)m->base + in32(in) % (m->size / 8); /* Anywhere. */
    }
    return ring_word(m, in8(in) % (m->hdr.n_queues[0] + m->hdr.n_queues[1]), in);
}
