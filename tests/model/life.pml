/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a link, direction a to b, one queue: made, used, ended, used again, with the data path of data.pml
 * (bursts of one packet) running meanwhile; and what becomes of it when a, b or vswitchd dies at any moment and
 * comes back.
 *
 * Threads: A and B are the VNFs' data threads, CA and CB their control threads, PMD polls a's port, SW is
 * vswitchd's control thread (with its mutex held, so set_target() and confirm() are steps of its own here).  One
 * access to shared memory is one step, in the order of the code; grace periods are modelled as what they are: the
 * wait for every reader that is inside a section now.  docs/protocol.md says which line of code each step stands
 * for.
 *
 * What is checked:
 *  - b takes packets in the order in which they were sent, none twice (take());
 *  - nobody reads or writes a region that he has unmapped (MAPPED_A, MAPPED_B);
 *  - counters are final when the sender has answered (settle());
 *  - when nothing can happen any more (Rest): each packet that was sent has been taken, or lies where this
 *    variant's death may have left it, or has been counted as dropped; the link is direct if it is wanted, else it
 *    is over and unmapped on both sides, although an application may cease to call at any time between two bursts;
 *  - it does come to that: the graph of states has no cycle.
 *
 * Timers: a time limit on somebody's answer passes only when that one cannot answer (he is dead, or his application
 * does not call any more); lingering ends at any time.  Bells as in data.pml.
 *
 * Bounds and variants are given with -D, and so are mutations, M_...; tests/model/run knows them all.
 */
#ifndef PACKETS
#define PACKETS 3       /* That a sends, at most. */
#endif
#ifndef WANTS
#define WANTS 2         /* Times that the link is wanted. */
#endif
#ifndef LINKS
#define LINKS 2         /* Link regions that can be made. */
#endif
#ifndef STOPS
#define STOPS 0         /* 1: b's application may cease to call; 2: and calls again, after a while. */
#endif
#ifndef STOPS_A
#define STOPS_A 0       /* 1: a's application may cease to call. */
#endif
#ifndef HOLDS
#define HOLDS 0         /* 1: b's application keeps packets for a while before it releases them. */
#endif
#ifndef COUNTS
#define COUNTS 0        /* 1: a's counters are stored when the packets have been: are they final when they should be? */
#endif
#ifndef BOTH_WAYS
#define BOTH_WAYS 0     /* 1: the other direction may keep link regions in use. */
#endif
#ifndef HASTY
#define HASTY 0         /* 1: time limits on answers pass although the other one lives. */
#endif
#ifndef HOLD
#define HOLD 0          /* 1: who takes the link away holds a's normal ring, for as long as he likes. */
#endif
#ifndef ABORT
#define ABORT 0         /* 1: port a is destroyed, and another port's link to b, number 2, begins at once. */
#endif
#ifndef A_DIES
#define A_DIES 0        /* 1: a dies, once, and comes back. */
#endif
#ifndef B_DIES
#define B_DIES 0        /* 1: b does. */
#endif
#ifndef GUEST
#define GUEST 0         /* 1: who comes back finds the same port region, as a guest does; else there is a fresh one. */
#endif
#ifndef SW_DIES
#define SW_DIES 0       /* 1: vswitchd dies and comes back; 2: it does not. */
#endif
#ifndef AT
#define AT 0            /* It dies only 1: between an epoch's begin and its gate; 2: while it opens a channel to b. */
#endif
#ifndef ADOPT
#define ADOPT 0         /* 1: a restarted vswitchd adopts what the VNFs have; 2: or not, each of the two. */
#endif

/* Generations of a's port region, one after the other; of b's. */
#if (A_DIES && !GUEST) || SW_DIES
#define NA_GEN 2
#else
#define NA_GEN 1
#endif
#if (B_DIES && !GUEST) || SW_DIES
#define NB_GEN 2
#else
#define NB_GEN 1
#endif

#define NONE 7                              /* No region. */

/* Words.  Link 0 is none. */
#define MODE(seq, l, direct) ((seq) * 8 + (l) * 2 + (direct))
#define MODE_LINK(w) (((w) / 2) % 4)
#define MODE_DIRECT(w) ((w) % 2)
#define RX(seq, l, what) ((seq) * 16 + (l) * 4 + (what))
#define RX_LINK(w) (((w) / 4) % 4)
#define RX_WHAT(w) ((w) % 4)
#define RX_NONE 0
#define RX_ACTIVE 1
#define RX_DRAIN 2
#define RX_DROP 3
#define WANT_NONE 0
#define WANT_MAP 1
#define WANT_UNMAP 2
#define HAVE_NONE 0
#define HAVE_MAPPED 1
#define HAVE_UNMAPPED 2

/* a's port regions. */
byte mode[NA_GEN], mode_ack[NA_GEN], start_epoch[NA_GEN], start_cut[NA_GEN];
byte nA_head[NA_GEN], nA_tail[NA_GEN], direct_packets[NA_GEN];
byte nA[NA_GEN * PACKETS];
bit session_a[NA_GEN];                      /* The VNF's; the switch repeats it with rx_ready. */
/* b's port regions. */
byte rx_link[NB_GEN], rx_link_ack[NB_GEN], gate_epoch[NB_GEN], gate_cut[NB_GEN];
byte nB_head[NB_GEN];
byte nB[NB_GEN * PACKETS];
bit session_b[NB_GEN];
/* Words about links, in the port regions too. */
byte want_a[LINKS + 1], want_b[LINKS + 1], have_a[LINKS + 1], have_b[LINKS + 1];
/* Link regions. */
byte D_start[LINKS + 1], D_head[LINKS + 1], D_tail[LINKS + 1], D_freed[LINKS + 1];
byte D[(LINKS + 1) * PACKETS];

/* vswitchd's memory that its threads share. */
byte region_a = 0, region_b = 0;            /* port->region */
bit rx_ready[NA_GEN], tx_ready[NB_GEN];
byte gate_to = NONE;                        /* r->gate_to */
bit gate_awaited;                           /* r->gate_awaited */
bit hold;                                   /* from->hold_until */
byte hand;                                  /* Packet that the PMD has taken and not yet sent on. */
/* The ledger. */
byte l_mode, l_rx_link, l_gate_epoch;
byte l_want_a[LINKS + 1], l_want_b[LINKS + 1];
bit l_session_a = 1, l_session_b = 1;

/* VNF a. */
byte map_a = 0;                             /* port->map, by the generation of its region. */
byte tx_chan;
byte using_link, a_epoch;                   /* map->tx[0] */
bit mapped_a[LINKS + 1];
/* VNF b. */
byte map_b = 0;
byte rx_chan;
byte nB_next;                               /* map->rx[0].normal.next */
byte seg_ring[3], seg_upto[3], n_segs, cur, seg_chan;
byte D_next[LINKS + 1], passed[LINKS + 1];  /* In the channel. */
byte last[LINKS + 1];                       /* c->last, plus one; 0: not c->ending. */
bit mapped_b[LINKS + 1];
bit b_stopped;                              /* Its application does not call any more. */

/* Grace periods: who is in a section; whether somebody waits for that one to leave. */
bit in_a, in_b, in_p, wait_a, wait_b, wait_p;

/* vswitchd's control thread: p2p_swport of a and b, sw_chan. */
#define S_NORMAL 0
#define S_PROVISIONING 1
#define S_SWITCHING 2
#define S_DIRECT 3
#define S_REVERTING 4
#define ST_OFF 0
#define ST_STARTING 1
#define ST_ON 2
#define ST_DRAINING 3
#define ST_DROPPING 4
#define E_NONE 0                            /* There is no such channel. */
#define E_AWAITED 1
#define E_MAPPING 2
#define E_MAPPED 3
#define E_UNMAPPING 4
#define E_GONE 5
byte state = S_NORMAL, stage = ST_OFF, out;
bit to, target, ending, confirmed, adopted, restoring;
byte end_a[LINKS + 1], end_b[LINKS + 1];
bit err[LINKS + 1], closing[LINKS + 1], other_way[LINKS + 1];
bit attached_a = 1, attached_b = 1;
byte next_link = 1, wants;
bit stays;                                  /* The link is wanted for good. */

/* Who is dead.  Who comes back asks for a region: 1: asked; 3: has been given a fresh one. */
bit a_dies, b_dies, sw_dies;
bit hung_up_a, hung_up_b;                   /* vswitchd has not noticed yet. */
byte asks_a, asks_b;
byte aborted;
bit switch_no, known_a, known_b;            /* 1: the second vswitchd; the one that a, b is connected to. */

/* What the properties are about. */
byte sent, got, taken, in_dropped, dropped, lost_in_hand, lost_a, lost_b, put_direct[NA_GEN];
byte links_before;                          /* Links from this one on are the second vswitchd's. */

bit bell_p = 1, bell_b = 1;

#define MAPPED_A(l) assert(mapped_a[l])
#define MAPPED_B(l) assert(mapped_b[l])

inline take(p)
{
    assert(p > got);                        /* Not doubled, not reordered. */
    got = p;
    taken++
}

/*
 * a's data thread: p2p_tx_burst() of one packet.  Where it stands is a variable, since it ends there when a dies.
 */
#define IDLE 0
#define A_DIRECT 1          /* mode has said DIRECT. */
#define A_BEGIN 2           /* The direct ring is empty. */
#define A_START 3           /* The direct ring's copy of 'start' has been stored. */
#define A_PUT_NORMAL 4
#define A_PUT_DIRECT 5
#define A_COUNT 6
byte a_at, a_map, a_link;
bit a_stopped;

inline leave_a()
{
    a_at = IDLE; a_map = 0; a_link = 0;
    in_a = 0; wait_a = 0                                    /* p2p_rcu_unlock() */
}

proctype A()
{
    do
    :: d_step {
        a_at == IDLE && sent < PACKETS && map_a != NONE && !a_stopped;
        in_a = 1;                                           /* p2p_rcu_lock() */
        a_map = map_a;
        a_link = MODE_LINK(mode[a_map]);                    /* p2p_load_acquire(&map->sw->mode) */
        a_at = (MODE_DIRECT(mode[a_map]) -> A_DIRECT : A_PUT_NORMAL)
       }
    :: d_step {
        a_at == A_DIRECT;
        if
        :: tx_chan != a_link || a_link == 0 -> a_at = A_PUT_NORMAL /* p2p_rcu_get(map->tx_chan) */
        :: tx_chan == a_link && a_link != 0 && using_link == a_link -> a_at = A_PUT_DIRECT
        :: else ->
            MAPPED_A(a_link);
            a_at = (D_tail[a_link] == D_head[a_link] -> A_BEGIN : A_PUT_NORMAL) /* p2p_prod_drained(d) */
        fi
       }
    :: d_step {                                             /* p2p_store_release(&d->ctl->start, start) */
        a_at == A_BEGIN;
        MAPPED_A(a_link);
        a_epoch++;
        using_link = a_link;
        D_start[a_link] = a_epoch;
        bell_b = 1;
        a_at = A_START
       }
    :: d_step {                                             /* p2p_store_release(&map->vnf->txq[queue].start, start) */
        a_at == A_START;
        start_epoch[a_map] = a_epoch; start_cut[a_map] = nA_head[a_map];
        bell_p = 1;
        a_at = A_PUT_DIRECT
       }
    :: d_step {                                             /* p2p_store_release(&p->ctl->head, head) */
        a_at == A_PUT_NORMAL;
        using_link = 0;
        sent++;
        nA[a_map * PACKETS + nA_head[a_map]] = sent;
        nA_head[a_map]++;
        bell_p = 1;
        leave_a()
       }
    :: d_step {
        a_at == A_PUT_DIRECT;
        MAPPED_A(a_link);
        sent++;
        D[a_link * PACKETS + D_head[a_link]] = sent;
        D_head[a_link]++;
        put_direct[a_map]++;
        bell_b = 1;
#if COUNTS
#ifdef M_COUNTED_OUTSIDE
        in_a = 0; wait_a = 0;
#endif
        a_at = A_COUNT
       }
    :: d_step {
        a_at == A_COUNT;
#endif
        direct_packets[a_map]++;                            /* p2p_store(&words->direct_packets, ...) */
        leave_a()
       }
#if STOPS_A
    :: d_step { a_at == IDLE && !a_stopped; a_stopped = 1 }
#endif
    od
}

/*
 * a's control thread: vnf_words_run(), and vnf_socket_run() when the socket has broken.  A word is taken up when it is
 * seen to have changed; in which order, is left open.
 */

/* run_want().  p2p_rcu_wait() begins with 'wait_a = in_a' and ends when that is 0. */
#define WANT_OPTIONS_A(l) \
    :: d_step { \
        map_a != NONE && want_a[l] != done[l] && want_a[l] == WANT_MAP; \
        mapped_a[l] = 1; done[l] = WANT_MAP; have_a[l] = HAVE_MAPPED \
       } \
    :: d_step { \
        map_a != NONE && want_a[l] != done[l] && want_a[l] != WANT_MAP; \
        w = want_a[l]; \
        if \
        :: tx_chan == l -> tx_chan = 0; wait_a = in_a \
        :: else \
        fi \
       } \
       d_step { \
        !wait_a; \
        mapped_a[l] = 0; done[l] = w; have_a[l] = (w == WANT_UNMAP -> HAVE_UNMAPPED : HAVE_NONE); w = 0 \
       }

#define CHAN_A(w) (mapped_a[MODE_LINK(w)] -> MODE_LINK(w) : 0)

/* A port region of our own: vnf_map_publish(), from the fresh region on; vnf_map_retire(). */
inline enter_a()
{
    session_a[NA_GEN - 1] = 1;                              /* p2p_store_release(&vnf->session, map->session) */
    d_step {                                                /* p2p_load_acquire(&map->sw->session) == map->session */
        rx_ready[NA_GEN - 1];
        map_a = NONE;
        wait_a = in_a
    }
#ifndef M_START_ZEROED_EARLY
    d_step { start_epoch[NA_GEN - 1] = 0; start_cut[NA_GEN - 1] = 0 }
#endif
    d_step {
        !wait_a;
        mapped_a[1] = 0; mapped_a[LINKS] = 0; done[1] = 0; done[LINKS] = 0; done_mode = 0;
        tx_chan = 0; using_link = 0; a_epoch = 0;
        have_a[1] = 0; have_a[LINKS] = 0;
        map_a = NA_GEN - 1
    }
}

proctype CA()
{
    byte done[LINKS + 1], done_mode, w;

alive:
    {
        do
        WANT_OPTIONS_A(1)
#if LINKS > 1
        WANT_OPTIONS_A(2)
#endif
        :: d_step {                                         /* run_mode() */
            map_a != NONE && mode[map_a] != done_mode;
            w = mode[map_a];
            tx_chan = CHAN_A(w);
#ifndef M_ACK_BEFORE_GRACE
            wait_a = in_a
#endif
           }
           d_step { !wait_a; done_mode = w; mode_ack[map_a] = w; w = 0 }
#if ABORT
        :: d_step { aborted != 0 && map_a != NONE; map_a = NONE; wait_a = in_a } /* P2P_MSG_DETACH: vnf_map_retire() */
           d_step { !wait_a; mapped_a[1] = 0; tx_chan = 0 }
#endif
#if A_DIES || SW_DIES
#if GUEST
        :: d_step {                                         /* vnf_map_publish() */
            map_a == NONE;
#ifdef M_START_ZEROED_EARLY
            start_epoch[0] = 0; start_cut[0] = 0;
#endif
            mode_ack[0] = 0; have_a[1] = 0; have_a[LINKS] = 0
           }
           asks_a = 1;                                      /* p2p_store_release(&vnf->session, map->session) */
#else
        :: d_step { map_a == NONE || known_a != switch_no; asks_a = 1 } /* attach() */
#endif
           if
           :: asks_a == 0                                   /* We have been adopted: all goes on. */
           :: asks_a == 3 -> enter_a(); d_step { asks_a = 0; known_a = switch_no }
           fi
#endif
        od
    }
#if A_DIES
    unless {
        d_step {
            a_dies;
            a_dies = 0;
            hung_up_a = 1;
            leave_a();
            map_a = NONE; tx_chan = 0; using_link = 0; a_epoch = 0;
            mapped_a[1] = 0; mapped_a[LINKS] = 0;
            asks_a = 0;
            done[1] = 0; done[LINKS] = 0; done_mode = 0; w = 0
        };
        goto alive
    }
#endif
}

/*
 * The PMD that polls a's port: p2p_swport_rx_begin() .. p2p_swport_rx_end(), p2p_swport_tx_burst() to b's.
 */
#define P_OPEN 1            /* The gate is to be opened. */
#define P_OPENED 2          /* It has been. */
#define P_TAKE 3
byte p_at, p_region, p_limit, p_epoch, p_to;

inline leave_p()
{
    p_at = IDLE; p_region = 0; p_limit = 0; p_epoch = 0; p_to = 0;
    in_p = 0; wait_p = 0
}

/* rx_limit(): p_limit becomes the limit, unless the gate is to be opened. */
inline find_limit()
{
    if
    :: p_epoch == 0 || p_epoch == l_gate_epoch -> p_at = P_TAKE
#if ADOPT && !defined(M_TAKEN_TOO_EARLY)
    :: p_epoch != 0 && p_epoch != l_gate_epoch && gate_to == NONE && !gate_awaited -> p_at = P_TAKE
    :: p_epoch != 0 && p_epoch != l_gate_epoch && gate_to == NONE && gate_awaited ->
        p_limit = (start_cut[p_region] < p_limit -> start_cut[p_region] : p_limit);
        p_at = P_TAKE
#else
    :: p_epoch != 0 && p_epoch != l_gate_epoch && gate_to == NONE -> p_at = P_TAKE
#endif
    :: p_epoch != 0 && p_epoch != l_gate_epoch && gate_to != NONE && start_cut[p_region] > nA_tail[p_region] ->
        p_limit = (start_cut[p_region] < p_limit -> start_cut[p_region] : p_limit);
        p_at = P_TAKE
    :: else -> p_to = gate_to; p_at = P_OPEN
    fi
}

inline send_on()                                            /* p2p_swport_tx_burst() */
{
    if
    :: tx_ready[region_b] ->
        nB[region_b * PACKETS + nB_head[region_b]] = hand;
        nB_head[region_b]++;
        bell_b = 1
    :: else -> dropped++
    fi;
    hand = 0
}

proctype PMD()
{
    do
    :: d_step {
        p_at == IDLE && bell_p && hand == 0;
        bell_p = 0;
        if
        :: rx_ready[region_a] ->
            in_p = 1;
            p_region = region_a;                            /* p2p_rcu_get(port->region) */
            p_limit = nA_head[p_region];                    /* p2p_cons_head(&q->ring) */
            p_epoch = start_epoch[p_region];                /* p2p_load_acquire(&r->vnf->txq[queue].start) */
            find_limit();
            if
            :: hold -> leave_p()                            /* held(port) */
            :: !hold && p_at == P_TAKE && p_limit <= nA_tail[p_region] -> leave_p()
            :: else
            fi
        :: else
        fi;
        skip
       }
    :: d_step {                                             /* p2p_store_release(&to->sw->gate[queue], ...) */
        p_at == P_OPEN;
        gate_epoch[p_to] = p_epoch; gate_cut[p_to] = nB_head[p_to];
        bell_b = 1;
#if SW_DIES
        p_at = P_OPENED
       }
    :: d_step {
        p_at == P_OPENED;
#endif
        l_gate_epoch = p_epoch;                             /* p2p_store(q->gate_epoch, epoch) */
        bell_p = 1;
        p_at = P_TAKE
       }
    :: d_step {                                             /* p2p_cons_take(), p2p_cons_release() */
        p_at == P_TAKE;
        if
        :: p_limit > nA_tail[p_region] ->
            hand = nA[p_region * PACKETS + nA_tail[p_region]];
            nA[p_region * PACKETS + nA_tail[p_region]] = 0;
            nA_tail[p_region]++;
            bell_p = 1;
#if !SW_DIES && !B_DIES
            send_on()
#endif
        :: else
        fi;
        leave_p()
       }
#if SW_DIES || B_DIES
    :: d_step { hand != 0; send_on(); bell_p = 1 }
#endif
    od
}

/*
 * b's data thread: p2p_rx_burst() and p2p_rx_release().
 */
#define B_LOOK 1            /* Has the normal ring's head. */
#define B_SERVE 2
#define B_RELEASE 3
byte b_at, b_map, b_link, b_n;
bit b_held, b_stopped_once;

inline clear_segs()
{
    n_segs = 0; cur = 0; seg_chan = 0;
    seg_ring[0] = 0; seg_ring[1] = 0; seg_ring[2] = 0; seg_upto[0] = 0; seg_upto[1] = 0; seg_upto[2] = 0
}

inline add_seg(ring, end)
{
    seg_ring[n_segs] = ring;                                /* 0: nB; 1: the direct ring. */
    seg_upto[n_segs] = end;
    n_segs++
}

/* Not more to be looked at than what lies there: goes on to the next segment, or is at the end of all. */
inline next_seg()
{
    do
    :: cur < n_segs && seg_ring[cur] == 0 && nB_next == seg_upto[cur] -> cur++
    :: cur < n_segs && seg_ring[cur] == 1 && D_next[b_link] == seg_upto[cur] -> cur++
    :: else -> break
    od;
    if
    :: cur == n_segs -> clear_segs()
    :: else
    fi
}

inline leave_b()
{
    b_at = IDLE; b_map = 0; b_link = 0; b_n = 0;
    in_b = 0; wait_b = 0
}

proctype B()
{
    byte d, s, g, cut;

    do
    :: d_step {
        b_at == IDLE && !b_stopped && map_b != NONE && (bell_b || n_segs > 0);
        in_b = 1;                                           /* p2p_rcu_lock() */
        b_map = map_b;
        b_link = rx_chan;                                   /* p2p_rcu_get(map->rx_chan) */
        if
        :: n_segs > 0 && seg_chan == b_link -> b_at = B_SERVE
        :: else ->                                          /* look() */
            bell_b = 0;
            clear_segs();
            b_n = nB_head[b_map];                           /* p2p_cons_head(&rq->normal) */
            b_at = B_LOOK
        fi;
        if
        :: b_at == B_LOOK && b_link == 0 ->
            add_seg(0, b_n);
            next_seg();
            b_n = 0;
            b_at = B_SERVE;
            if
            :: n_segs == 0 -> leave_b()
            :: else
            fi
        :: else
        fi
       }
    :: d_step {
        b_at == B_LOOK;
        MAPPED_B(b_link);
        d = D_head[b_link];                                 /* p2p_cons_head(d) */
        d = (last[b_link] != 0 && d >= last[b_link] -> last[b_link] - 1 : d);
        s = D_start[b_link];                                /* p2p_load_acquire(&d->ctl->start) */
        g = gate_epoch[b_map]; cut = gate_cut[b_map];       /* p2p_load_acquire(&map->sw->gate[i]) */
        if
        :: s == 0 || s != g
        :: s != 0 && s == g && passed[b_link] != s && cut > nB_next ->
            if
            :: cut > b_n                                    /* As good as shut. */
            :: else -> add_seg(0, cut); add_seg(1, d)
            fi
        :: else -> passed[b_link] = s; add_seg(1, d)
        fi;
        add_seg(0, b_n);
        seg_chan = b_link;
        d = 0; s = 0; g = 0; cut = 0; b_n = 0;
        next_seg();
        b_at = B_SERVE;
        if
        :: n_segs == 0 -> leave_b()
        :: else
        fi
       }
    :: d_step {
        b_at == B_SERVE;                                    /* p2p_cons_take() */
        if
        :: seg_ring[cur] == 0 ->
            take(nB[b_map * PACKETS + nB_next]);
            nB[b_map * PACKETS + nB_next] = 0;
            nB_next++
        :: else ->
            MAPPED_B(b_link);
            take(D[b_link * PACKETS + D_next[b_link]]);
            D[b_link * PACKETS + D_next[b_link]] = 0;
            D_next[b_link]++;
            D_tail[b_link] = D_next[b_link];                /* p2p_cons_received() */
#if HOLDS
            b_held = 1
#else
            D_freed[b_link] = D_next[b_link]
#endif
        fi;
        next_seg();
        leave_b()
       }
#if HOLDS
    :: d_step {                                             /* p2p_rx_release() */
        b_at == IDLE && !b_stopped && map_b != NONE && (b_held || D_freed[rx_chan] != D_next[rx_chan]);
        in_b = 1;
        b_link = rx_chan;
        b_at = B_RELEASE
       }
    :: d_step {
        b_at == B_RELEASE;
        if
        :: b_link != 0 -> MAPPED_B(b_link); D_freed[b_link] = D_next[b_link]
        :: else
        fi;
        b_held = 0;
        leave_b()
       }
#endif
#if STOPS
    :: d_step { b_at == IDLE && !b_stopped && !b_stopped_once; b_stopped = 1; b_stopped_once = 1 }
#if STOPS == 2
    :: b_stopped -> b_stopped = 0
#endif
#endif
    od
}

/*
 * b's control thread.
 */
#ifdef M_NO_UNMAP_GRACE
#define IN_B_UNMAP 0
#else
#define IN_B_UNMAP in_b
#endif

#define WANT_OPTIONS_B(l) \
    :: d_step { \
        map_b != NONE && want_b[l] != done[l] && want_b[l] == WANT_MAP; \
        mapped_b[l] = 1; D_next[l] = D_tail[l]; passed[l] = 0; last[l] = 0; \
        done[l] = WANT_MAP; have_b[l] = HAVE_MAPPED \
       } \
    :: d_step { \
        map_b != NONE && want_b[l] != done[l] && want_b[l] != WANT_MAP; \
        w = want_b[l]; \
        if \
        :: rx_chan == l -> rx_chan = 0; bell_b = 1; wait_b = IN_B_UNMAP \
        :: else \
        fi \
       } \
       d_step { \
        !wait_b; \
        mapped_b[l] = 0; passed[l] = 0; last[l] = 0; \
        done[l] = w; have_b[l] = (w == WANT_UNMAP -> HAVE_UNMAPPED : HAVE_NONE); w = 0 \
       }

inline enter_b()
{
    session_b[NB_GEN - 1] = 1;
    d_step { tx_ready[NB_GEN - 1]; map_b = NONE; wait_b = in_b }
    d_step {
        !wait_b;
        mapped_b[1] = 0; mapped_b[LINKS] = 0; done[1] = 0; done[LINKS] = 0; done_rx = 0;
        passed[1] = 0; passed[LINKS] = 0; last[1] = 0; last[LINKS] = 0;
        rx_chan = 0; nB_next = 0; clear_segs();
        have_b[1] = 0; have_b[LINKS] = 0;
        map_b = NB_GEN - 1;
        bell_b = 1
    }
}

#define RX_WORD rx_link[map_b]
#ifdef M_NO_DRAIN
#define DRAINED true
#else
#define DRAINED (RX_WHAT(RX_WORD) != RX_DRAIN || rx_chan == 0 \
                 || (last[rx_chan] != 0 && D_freed[rx_chan] + 1 >= last[rx_chan]))
#endif

proctype CB()
{
    byte done[LINKS + 1], done_rx, w;

alive:
    {
        do
        WANT_OPTIONS_B(1)
#if LINKS > 1
        WANT_OPTIONS_B(2)
#endif
        :: d_step {                                         /* run_rx_link(): P2P_RX_ACTIVE */
            map_b != NONE && RX_WORD != done_rx && RX_WHAT(RX_WORD) == RX_ACTIVE && mapped_b[RX_LINK(RX_WORD)];
            w = RX_WORD;
#ifndef M_LAST_KEPT
            last[RX_LINK(w)] = 0;
#endif
#ifndef M_NO_REPLACE_GRACE
            wait_b = (rx_chan != 0 && rx_chan != RX_LINK(w) -> in_b : 0);
#endif
            bell_b = bell_b || rx_chan != RX_LINK(w);
            rx_chan = RX_LINK(w)
           }
           d_step { !wait_b; done_rx = w; rx_link_ack[map_b] = w; w = 0 }
        :: d_step {                                         /* chan_begin_end() */
            map_b != NONE && RX_WORD != done_rx && RX_WHAT(RX_WORD) == RX_DRAIN && rx_chan != 0 && last[rx_chan] == 0;
            last[rx_chan] = D_head[rx_chan] + 1;
            bell_b = 1
           }
        :: d_step {                                         /* The others; chan_drained() */
            map_b != NONE && RX_WORD != done_rx && RX_WHAT(RX_WORD) != RX_ACTIVE && DRAINED;
            w = RX_WORD;
            wait_b = (rx_chan != 0 -> in_b : 0);
            bell_b = bell_b || rx_chan != 0;
            rx_chan = 0
           }
           d_step { !wait_b; done_rx = w; rx_link_ack[map_b] = w; w = 0 }
#if B_DIES || SW_DIES
#if GUEST
        :: d_step { map_b == NONE; rx_link_ack[0] = 0; have_b[1] = 0; have_b[LINKS] = 0 }
           asks_b = 1;
#else
        :: d_step { map_b == NONE || known_b != switch_no; asks_b = 1 }
#endif
           if
           :: asks_b == 0                                   /* We have been adopted: all goes on. */
           :: asks_b == 3 -> enter_b(); d_step { asks_b = 0; known_b = switch_no }
           fi
#endif
        od
    }
#if B_DIES
    unless {
        d_step {
            b_dies;
            b_dies = 0;
            hung_up_b = 1;
            leave_b();
            map_b = NONE; rx_chan = 0; nB_next = 0; b_held = 0; clear_segs();
            D_next[1] = 0; D_next[LINKS] = 0; passed[1] = 0; passed[LINKS] = 0; last[1] = 0; last[LINKS] = 0;
            mapped_b[1] = 0; mapped_b[LINKS] = 0;
            asks_b = 0;
            done[1] = 0; done[LINKS] = 0; done_rx = 0; w = 0
        };
        goto alive
    }
#endif
}

/*
 * vswitchd's control thread: sw_dir_run(), sw_chan_run(), sw_port_run(), p2p_swport_set_target(), p2p_swport_confirm().
 * What it does without a look at anybody's words, it does at once (advance()).
 */
#if SW_DIES
#define NEXT_STEP } d_step {        /* It can die in between. */
#else
#define NEXT_STEP ;
#endif

/* sw_port_set_mode(), sw_port_set_rx(), set_want(): the ledger first, then the region.  Inside d_step. */
#define SET_MODE(l, direct) \
    mode_seq++; l_mode = MODE(mode_seq, l, direct) NEXT_STEP mode[region_a] = l_mode
#define SET_RX(l, what) \
    rx_seq++; l_rx_link = RX(rx_seq, l, what) NEXT_STEP rx_link[region_b] = l_rx_link
#define SET_WANT_A(l, what) l_want_a[l] = what NEXT_STEP want_a[l] = what
#define SET_WANT_B(l, what) l_want_b[l] = what NEXT_STEP want_b[l] = what

/* Packets between the indices that b and a have stored last. */
#define LEFT (D_head[out] - D_tail[out])

#define GOAL (target || (adopted && restoring && to))
#define WANTED (GOAL && attached_a && attached_b && !err[out])  /* err[0] is 0. */
#define HAS_SLOT_A(l) (end_a[l] != E_NONE && end_a[l] != E_AWAITED && end_a[l] != E_GONE)
#define HAS_SLOT_B(l) (end_b[l] != E_NONE && end_b[l] != E_AWAITED && end_b[l] != E_GONE)
#define IN_USE(l) ((to && out == l) || other_way[l])
#define READY(l) (!closing[l] && !err[l] && end_a[l] == E_MAPPED && end_b[l] == E_MAPPED)
#define QUIET_A (!to && !HAS_SLOT_A(1) && !HAS_SLOT_A(LINKS))
#define QUIET_B (!to && !HAS_SLOT_B(1) && !HAS_SLOT_B(LINKS))

/* sw_chan_get(): the region that the two have, or a new one; none while the former is being taken away. */
#define EXISTS(l) (end_a[l] != E_NONE && end_a[l] != E_AWAITED && end_b[l] != E_AWAITED)
#define OLD_LINK(l) (EXISTS(l) && !closing[l] && !err[l])
#define NEW_LINK (!EXISTS(1) && !EXISTS(LINKS) && next_link <= LINKS - ABORT)
#define BEGINS (state == S_NORMAL && !to && WANTED && !MODE_DIRECT(l_mode))
#define BEGIN_WITH(l) to = 1; out = l; ending = 0; state = S_PROVISIONING; advance()

/* a's receiver has not come back yet. */
#define AWAITS_B ((HAS_SLOT_A(1) && end_b[1] == E_AWAITED) || (HAS_SLOT_A(LINKS) && end_b[LINKS] == E_AWAITED))
/* run_orphan() */
#define ORPHANED (!HAS_SLOT_A(MODE_LINK(l_mode)) || err[MODE_LINK(l_mode)] || closing[MODE_LINK(l_mode)])

/* What sw_dir_run() and sw_chan_run() do with nothing but vswitchd's own memory. */
inline advance()
{
    do
    :: state == S_NORMAL && to && WANTED && !ending && READY(out) ->
        state = (stage == ST_ON -> S_SWITCHING : S_PROVISIONING)
    :: state == S_PROVISIONING && !WANTED -> ending = err[out] || stage == ST_OFF; state = S_NORMAL
    :: state == S_PROVISIONING && WANTED && stage == ST_ON -> state = S_SWITCHING
    :: state == S_SWITCHING && !confirmed && !WANTED -> state = S_NORMAL
    :: end_a[1] != E_NONE && !closing[1] && !IN_USE(1) && err[1] -> closing[1] = 1
#if LINKS > 1
    :: end_a[2] != E_NONE && !closing[2] && !IN_USE(2) && err[2] -> closing[2] = 1
#endif
    :: end_a[1] == E_GONE && end_b[1] == E_GONE && !IN_USE(1) -> /* sw_chan_reap() */
        end_a[1] = E_NONE; end_b[1] = E_NONE; closing[1] = 0; err[1] = 0
#if LINKS > 1
    :: end_a[2] == E_GONE && end_b[2] == E_GONE && !IN_USE(2) ->
        end_a[2] = E_NONE; end_b[2] = E_NONE; closing[2] = 0; err[2] = 0
#endif
    :: else -> break
    od;
#if ADOPT
    bell_p = bell_p || gate_awaited;
    gate_awaited = gate_awaited && !to && AWAITS_B;
#endif
    skip
}

inline begin_revert(holds)
{
    d_step { hold = hold || holds; SET_MODE(out, 0) NEXT_STEP confirmed = 0; adopted = 0; state = S_REVERTING }
}

inline open_rx()
{
    d_step {
#ifndef M_GATES_KEPT
        gate_epoch[region_b] = 0
        NEXT_STEP
#endif
#if !defined(M_EPOCH_NOT_REOPENED) && !defined(M_REOPENED_LATE)
        l_gate_epoch = 0
        NEXT_STEP
#endif
        SET_RX(out, RX_ACTIVE)
#ifdef M_REOPENED_LATE
        NEXT_STEP
        l_gate_epoch = 0
#endif
    }
    d_step { gate_to = region_b; bell_p = 1; stage = ST_STARTING }
}

#ifdef M_NO_GATE_GRACE
#define IN_P 0
#else
#define IN_P in_p
#endif

inline close_rx()
{
    d_step { wait_p = (gate_to != NONE -> IN_P : 0); bell_p = bell_p || gate_to != NONE; gate_to = NONE }
    d_step {
        !wait_p;
        if
        :: stage != ST_OFF -> rx_seq++; l_rx_link = RX(rx_seq, 0, RX_NONE)
        :: else
        fi
        NEXT_STEP
        rx_link[region_b] = l_rx_link;
        stage = ST_OFF; to = 0; out = 0; ending = 0; confirmed = 0; adopted = 0;
        advance()
    }
}

#if SW_DIES
#define AWAITED_OPTIONS(l) /* Nobody comes, or it is not wanted any more. */ \
    :: d_step { \
        end_a[l] == E_AWAITED && (closing[l] || err[l] || (attached_a && asks_a != 1)); \
        err[l] = 1; end_a[l] = E_GONE; advance() \
       } \
    :: d_step { \
        end_b[l] == E_AWAITED && (closing[l] || err[l] || (attached_b && asks_b != 1)); \
        err[l] = 1; end_b[l] = E_GONE; advance() \
       }
#else
#define AWAITED_OPTIONS(l)
#endif

/* sw_chan_run(), end_run() for link region l. */
#define CHAN_OPTIONS(l) \
    :: d_step { \
        end_a[l] != E_NONE && !closing[l] && !IN_USE(l) && end_a[l] != E_AWAITED && end_b[l] != E_AWAITED; \
        closing[l] = 1 \
       } \
    :: d_step { other_way[l]; other_way[l] = 0; advance() } \
    :: d_step { end_a[l] == E_MAPPING && have_a[l] == HAVE_MAPPED; end_a[l] = E_MAPPED; advance() } \
    :: d_step { end_b[l] == E_MAPPING && have_b[l] == HAVE_MAPPED; end_b[l] = E_MAPPED; advance() } \
    :: d_step { \
        (end_a[l] == E_MAPPING && (closing[l] || err[l])) || (end_a[l] == E_MAPPED && closing[l]); \
        SET_WANT_A(l, WANT_UNMAP) NEXT_STEP end_a[l] = E_UNMAPPING \
       } \
    :: d_step { \
        (end_b[l] == E_MAPPING && (closing[l] || err[l])) || (end_b[l] == E_MAPPED && closing[l]); \
        SET_WANT_B(l, WANT_UNMAP) NEXT_STEP end_b[l] = E_UNMAPPING \
       } \
    :: d_step { \
        end_a[l] == E_UNMAPPING && (have_a[l] == HAVE_UNMAPPED || !attached_a || HASTY); \
        SET_WANT_A(l, WANT_NONE) NEXT_STEP end_a[l] = E_GONE; advance() \
       } \
    :: d_step { \
        end_b[l] == E_UNMAPPING && (have_b[l] == HAVE_UNMAPPED || !attached_b || HASTY); \
        SET_WANT_B(l, WANT_NONE) NEXT_STEP end_b[l] = E_GONE; advance() \
       } \
    AWAITED_OPTIONS(l)

#if SW_DIES
/* sw_dir_adopt(): both VNFs of link l are back. */
inline adopt_dir(l)
{
    if
    :: to || RX_LINK(l_rx_link) != l || RX_WHAT(l_rx_link) == RX_NONE ->
        if
        :: !to && MODE_DIRECT(l_mode) && MODE_LINK(l_mode) == l ->
            mode_seq++; l_mode = MODE(mode_seq, l, 0); mode[region_a] = l_mode
        :: else
        fi
    :: else ->
        to = 1; out = l;
        gate_to = region_b;
        bell_p = 1;
        stage = (RX_WHAT(l_rx_link) == RX_ACTIVE -> ST_STARTING :
                 (RX_WHAT(l_rx_link) == RX_DRAIN -> ST_DRAINING : ST_DROPPING));
        ending = stage != ST_STARTING;
        if
        :: MODE_DIRECT(l_mode) && MODE_LINK(l_mode) == l && !ending -> confirmed = 1; adopted = 1; state = S_DIRECT
        :: else ->
            if
            :: mode_ack[region_a] != l_mode -> state = S_REVERTING
            :: else
            fi
        fi
    fi
}

/* sw_adopt_links(), for link l of a's; of b's. */
inline adopt_link_a(l)
{
    if
    :: l_want_a[l] != WANT_NONE && mapped_a[l] && (end_a[l] == E_NONE || end_a[l] == E_AWAITED) ->
        end_b[l] = (end_a[l] == E_NONE -> E_AWAITED : end_b[l]); /* sw_chan_adopt() */
        end_a[l] = (l_want_a[l] == WANT_MAP -> E_MAPPING : E_UNMAPPING);
        closing[l] = closing[l] || l_want_a[l] != WANT_MAP
    :: l_want_a[l] != WANT_NONE && !(mapped_a[l] && (end_a[l] == E_NONE || end_a[l] == E_AWAITED)) ->
        l_want_a[l] = WANT_UNMAP;
        want_a[l] = WANT_UNMAP
    :: else
    fi;
    if
    :: HAS_SLOT_A(l) && HAS_SLOT_B(l) -> adopt_dir(l)
    :: else
    fi
}

inline adopt_link_b(l)
{
    if
    :: l_want_b[l] != WANT_NONE && mapped_b[l] && (end_b[l] == E_NONE || end_b[l] == E_AWAITED) ->
        end_a[l] = (end_b[l] == E_NONE -> E_AWAITED : end_a[l]);
        end_b[l] = (l_want_b[l] == WANT_MAP -> E_MAPPING : E_UNMAPPING);
        closing[l] = closing[l] || l_want_b[l] != WANT_MAP
    :: l_want_b[l] != WANT_NONE && !(mapped_b[l] && (end_b[l] == E_NONE || end_b[l] == E_AWAITED)) ->
        l_want_b[l] = WANT_UNMAP;
        want_b[l] = WANT_UNMAP
    :: else
    fi;
    if
    :: HAS_SLOT_A(l) && HAS_SLOT_B(l) -> adopt_dir(l)
    :: else
    fi
}
#endif

#ifdef M_DRAINED_IN_HOLD
#define DRAIN_IS_LATE (b_stopped || HASTY || hold)
#else
#define DRAIN_IS_LATE ((b_stopped || HASTY) && !hold)
#endif
#define RX_ANSWERED (rx_link_ack[region_b] == l_rx_link)
#define ENDS (state == S_NORMAL && to && (ending || !WANTED || !READY(out))) /* Lingering ends at any time. */

proctype SW()
{
    byte mode_seq, rx_seq;

alive:
    {
        do
        /* p2p_swport_set_target() */
        :: d_step { !target && wants < WANTS; wants++; target = 1; advance() }
        :: target && !stays && (state == S_DIRECT || (state == S_SWITCHING && confirmed)) ->
           target = 0;
           begin_revert(HOLD)
        :: d_step {
            target && !stays && state != S_DIRECT && !(state == S_SWITCHING && confirmed);
            target = 0;
            advance()
           }
        :: d_step { target && !stays && wants == WANTS; stays = 1 }
#if HOLD
        :: d_step { hold; hold = 0; bell_p = 1 }            /* p2p_swport_unhold(), or its time is over */
#endif

        /* sw_dir_run() */
        :: d_step { stage == ST_STARTING && attached_b && RX_ANSWERED; stage = ST_ON; advance() }
        :: d_step { BEGINS && OLD_LINK(1); BEGIN_WITH(1) }
#if LINKS > 1
        :: d_step { BEGINS && OLD_LINK(2); BEGIN_WITH(2) }
#endif
        :: d_step {
            BEGINS && NEW_LINK;
            end_a[next_link] = E_MAPPING; end_b[next_link] = E_MAPPING; /* begin_map() */
            next_link++;
            BEGIN_WITH(next_link - 1);
            SET_WANT_A(out, WANT_MAP)
            NEXT_STEP
            SET_WANT_B(out, WANT_MAP)
           }
#if BOTH_WAYS
           if
           :: other_way[out] = 1
           :: true
           fi
#endif
        :: d_step { ENDS && !ending; ending = 1 }
        :: ENDS && ending && stage == ST_OFF -> close_rx()  /* run_ending() */
        :: d_step {
            ENDS && ending && stage != ST_OFF && stage != ST_DROPPING && !attached_b;
            in_dropped = in_dropped + LEFT
           }
           close_rx()
        :: d_step {
            ENDS && ending && (stage == ST_STARTING || stage == ST_ON) && attached_b;
            SET_RX(out, RX_DRAIN)
            NEXT_STEP
            stage = ST_DRAINING
           }
        :: ENDS && ending && stage == ST_DRAINING && attached_b && RX_ANSWERED -> close_rx()
        :: d_step {
            ENDS && ending && stage == ST_DRAINING && attached_b && DRAIN_IS_LATE;
#ifdef M_COUNTED_EARLY
            in_dropped = in_dropped + LEFT;
#endif
            SET_RX(out, RX_DROP)
            NEXT_STEP
            stage = ST_DROPPING
           }
        :: d_step {
            ENDS && ending && stage == ST_DROPPING && (!attached_b || RX_ANSWERED || HASTY);
#ifndef M_LEFTOVERS_KEPT
            err[out] = err[out] || LEFT != 0 || !RX_ANSWERED;
#endif
#ifndef M_COUNTED_EARLY
            in_dropped = in_dropped + LEFT
#endif
           }
           close_rx()
        :: state == S_PROVISIONING && WANTED && stage == ST_OFF && READY(out) -> open_rx()
        :: d_step {
            state == S_SWITCHING && !confirmed && WANTED && target; /* p2p_swport_confirm() */
            confirmed = 1;
            SET_MODE(out, 1)
           }
        :: state == S_SWITCHING && confirmed && !WANTED -> begin_revert(0)
        :: d_step { state == S_SWITCHING && confirmed && WANTED && mode_ack[region_a] == l_mode; state = S_DIRECT }
        :: state == S_DIRECT && !WANTED -> begin_revert(0)
        :: d_step {
            state == S_REVERTING && mode_ack[region_a] == l_mode;
            assert(direct_packets[region_a] == put_direct[region_a]);
            confirmed = 0; state = S_NORMAL;                /* settle() */
            advance()
           }
#if HASTY
        :: d_step { state == S_REVERTING; confirmed = 0; state = S_NORMAL; ending = 1; err[out] = 1; advance() }
#endif
#if ABORT
        :: d_step {                                         /* cut_off(a): sw_dir_abort(), sw_chan_port_gone() */
            !aborted;
            aborted = 1;
            attached_a = 0;
            if
            :: to -> SET_MODE(out, 0); confirmed = 0; state = S_NORMAL
            :: else
            fi
           }
           if
           :: to -> close_rx()
           :: else
           fi;
           d_step {
            if
            :: end_a[1] != E_NONE -> end_a[1] = E_GONE; closing[1] = 1
            :: else
            fi;
            target = 0; wants = WANTS;
            advance()
           }
           SET_WANT_B(2, WANT_MAP);                         /* sw_chan_get() for the other port */
           aborted = 2
        :: d_step { aborted == 2 && have_b[2] == HAVE_MAPPED; SET_RX(2, RX_ACTIVE); aborted = 3 }
#endif

        CHAN_OPTIONS(1)
#if LINKS > 1
        CHAN_OPTIONS(2)
#endif

#if SW_DIES
        :: d_step { restoring; restoring = 0; advance() }   /* p2p_switch_set_restoring() */
        :: d_step {                                         /* run_orphan() */
            state == S_NORMAL && !to && attached_a && MODE_DIRECT(l_mode) && ORPHANED;
            SET_MODE(MODE_LINK(l_mode), 0)
           }
#if ADOPT
        :: d_step {                                         /* sw_adopt_port() */
            asks_a == 1 && switch_no && !attached_a;
            mode[0] = l_mode;
            want_a[1] = l_want_a[1]; want_a[LINKS] = l_want_a[LINKS];
            region_a = 0;
            mode_seq = l_mode / 8;
            attached_a = 1;
            gate_awaited = 1;
            rx_ready[0] = 1;
            bell_p = 1
           }
           d_step {
            adopt_link_a(1);                                /* sw_adopt_links() */
#if LINKS > 1
            adopt_link_a(2);
#endif
            advance();
            asks_a = 0; known_a = 1
           }
        :: d_step {
            asks_b == 1 && switch_no && !attached_b;
            rx_link[0] = l_rx_link;
            want_b[1] = l_want_b[1]; want_b[LINKS] = l_want_b[LINKS];
            region_b = 0;
            rx_seq = l_rx_link / 16;
            attached_b = 1;
            tx_ready[0] = 1;
            adopt_link_b(1);
#if LINKS > 1
            adopt_link_b(2);
#endif
            advance();
            asks_b = 0; known_b = 1
           }
#endif
#if ADOPT != 1
        :: d_step {                                         /* run_waiting(): a fresh region. */
            asks_a == 1 && switch_no && !attached_a;
            asks_a = 3
           }
           d_step {                                         /* accept_vnf() */
            session_a[1];
            l_gate_epoch = 0;
            l_mode = 0; l_want_a[1] = 0; l_want_a[LINKS] = 0; want_a[1] = 0; want_a[LINKS] = 0;
            rx_ready[1] = 1;
            bell_p = 1;
            attached_a = 1;
            advance()
           }
        :: d_step {
            asks_b == 1 && switch_no && !attached_b;
            asks_b = 3
           }
           d_step {
            session_b[1];
            l_rx_link = 0; l_want_b[1] = 0; l_want_b[LINKS] = 0; want_b[1] = 0; want_b[LINKS] = 0;
            tx_ready[1] = 1;
            attached_b = 1;
            advance()
           }
#endif
#endif
#if A_DIES
        :: d_step {                                         /* sw_port_detach() */
            hung_up_a;
            hung_up_a = 0;
            attached_a = 0;
            err[1] = err[1] || HAS_SLOT_A(1);               /* sw_chan_vnf_gone() */
            err[LINKS] = err[LINKS] || HAS_SLOT_A(LINKS);
            if
            :: to -> SET_MODE(out, 0); confirmed = 0; state = S_NORMAL; ending = 1
            :: else
            fi;
            advance()
           }
#ifdef M_NOT_QUIET
#define MAY_COME_A true
#else
#define MAY_COME_A QUIET_A
#endif
#if GUEST
        :: d_step {                                         /* watch_session(), accept_vnf() */
            asks_a == 1 && !attached_a && !hung_up_a && MAY_COME_A;
            rx_ready[0] = 0;
            wait_p = in_p
           }
           d_step {
            !wait_p;
            lost_a = lost_a + nA_head[0] - nA_tail[0];
            do
            :: nA_tail[0] < nA_head[0] -> nA[nA_tail[0]] = 0; nA_tail[0]++
            :: else -> break
            od;
            nA_head[0] = 0; nA_tail[0] = 0;
            mode[0] = 0; want_a[1] = 0; want_a[LINKS] = 0;
            asks_a = 3
           }
#else
        :: d_step {                                         /* run_waiting(), freshen() */
            asks_a == 1 && !attached_a && !hung_up_a && MAY_COME_A;
            region_a = 1;
            bell_p = 1;
            wait_p = IN_P                                   /* (A sender with a port of its own would not wait.) */
           }
           d_step { !wait_p; asks_a = 3 }
           session_a[1];                                    /* watch_session(), accept_vnf() */
#endif
           d_step {
            l_gate_epoch = 0;
            l_mode = 0; l_want_a[1] = 0; l_want_a[LINKS] = 0;
            rx_ready[NA_GEN - 1] = 1;
            bell_p = 1;
            attached_a = 1;
            advance()
           }
#endif
#if B_DIES
        :: d_step {
            hung_up_b;
            hung_up_b = 0;
            attached_b = 0;
            tx_ready[region_b] = 0;
            err[1] = err[1] || HAS_SLOT_B(1);
            err[LINKS] = err[LINKS] || HAS_SLOT_B(LINKS);
            advance()
           }
#if GUEST
        :: d_step {
            asks_b == 1 && !attached_b && !hung_up_b && QUIET_B;
            wait_p = in_p
           }
           d_step {
            !wait_p;
            do
            :: nB_head[0] > 0 ->
                nB_head[0]--;
                lost_b = lost_b + (nB[nB_head[0]] != 0 -> 1 : 0);
                nB[nB_head[0]] = 0
            :: else -> break
            od;
            rx_link[0] = 0; want_b[1] = 0; want_b[LINKS] = 0; gate_epoch[0] = 0; gate_cut[0] = 0;
            asks_b = 3
           }
#else
        :: d_step {
            asks_b == 1 && !attached_b && !hung_up_b && QUIET_B;
            region_b = 1;
            wait_p = in_p
           }
           d_step { !wait_p; asks_b = 3 }
           session_b[1];
#endif
           d_step {
            l_rx_link = 0; l_want_b[1] = 0; l_want_b[LINKS] = 0;
            tx_ready[NB_GEN - 1] = 1;
            attached_b = 1;
            advance()
           }
#endif
        od
    }
#if SW_DIES
    unless {
        d_step {
            sw_dies;
            sw_dies = 0;
            lost_in_hand = lost_in_hand + (hand != 0 -> 1 : 0);
            hand = 0;
            leave_p();
            state = S_NORMAL; stage = ST_OFF; out = 0; to = 0; target = 0; ending = 0; confirmed = 0; adopted = 0;
            stays = 0;
            wants = (wants == WANTS -> WANTS - 1 : wants);  /* It may be wanted after, too. */
            restoring = ADOPT;
            end_a[1] = 0; end_a[LINKS] = 0; end_b[1] = 0; end_b[LINKS] = 0;
            err[1] = 0; err[LINKS] = 0; closing[1] = 0; closing[LINKS] = 0;
            attached_a = 0; attached_b = 0;
            gate_to = NONE; gate_awaited = 0; hold = 0;
            region_a = 1; region_b = 1;
            rx_ready[0] = 0; tx_ready[0] = 0;
            mode_seq = 0; rx_seq = 0;
            links_before = next_link
        };
#if SW_DIES == 1
        switch_no = 1;
        goto alive
#endif
    }
#endif
}

#if A_DIES
proctype Killer() { a_dies = 1 }
#endif
#if B_DIES
proctype Killer() { b_dies = 1 }
#endif
#if SW_DIES
#if AT == 1
#define MOMENT (start_epoch[0] != l_gate_epoch)
#elif AT == 2
#define MOMENT (RX_WHAT(l_rx_link) == RX_ACTIVE && gate_to == NONE)
#else
#define MOMENT true
#endif
proctype Killer() { d_step { MOMENT; sw_dies = 1 } }
#endif

/* Nothing can happen any more. */
proctype Rest()
{
    byte i, left_a, left_b, left_d;

    timeout;
    d_step {
        for (i : 0 .. NA_GEN * PACKETS - 1) { left_a = left_a + (nA[i] != 0 -> 1 : 0) }
        for (i : 0 .. NB_GEN * PACKETS - 1) { left_b = left_b + (nB[i] != 0 -> 1 : 0) }
        for (i : 0 .. (LINKS + 1) * PACKETS - 1) { left_d = left_d + (D[i] != 0 -> 1 : 0) }
        assert(taken + left_a + left_b + left_d + lost_a + lost_b + dropped + lost_in_hand == sent);
#if SW_DIES == 2
        assert(rx_chan == 0 || D_start[rx_chan] == 0 || D_start[rx_chan] != gate_epoch[0]
               || D_tail[rx_chan] == D_head[rx_chan]); /* Direct traffic goes on. */
#elif !ABORT
        /* Everything is sent; the link is direct, or over. */
        assert(sent == PACKETS || a_stopped);
        assert(other_way[1] == 0 && other_way[LINKS] == 0);
        if
        :: stays && state == S_DIRECT -> assert(rx_chan == out && tx_chan == out)
        :: stays && state != S_DIRECT -> assert(next_link > LINKS && !to)
        :: else -> assert(!target && state == S_NORMAL && !to && rx_chan == 0)
        fi;
        assert(mapped_a[1] == (to && out == 1) && mapped_b[1] == (to && out == 1));
        assert(mapped_a[LINKS] == (to && out == LINKS) && mapped_b[LINKS] == (to && out == LINKS));
#else
        assert(aborted != 3 || (rx_chan == 2 && mapped_b[2] && !mapped_b[1] && !mapped_a[1]));
#endif
        /* What is missing is where this variant allows. */
#if !SW_DIES && !A_DIES
        assert(left_a + lost_a == 0 || ABORT);
#endif
#if !SW_DIES && !B_DIES
        assert(dropped == 0);
        assert(left_b + lost_b == 0 || b_stopped);
        assert(left_d == 0 || b_stopped || STOPS == 2 || HASTY || ABORT);
#endif
#if !SW_DIES && !HASTY && !ABORT
        assert(left_d == in_dropped + (to -> LEFT : 0));
#endif
#if !SW_DIES
        assert(lost_in_hand == 0)
#endif
#if SW_DIES == 1 && ADOPT == 1
        assert(left_a == 0 && left_b == 0 && left_d == 0)
#endif
#if SW_DIES == 1 && ADOPT != 1
        for (i : 0 .. PACKETS - 1) { assert(nA[PACKETS + i] == 0 && nB[PACKETS + i] == 0) }
        for (i : links_before * PACKETS .. (LINKS + 1) * PACKETS - 1) { assert(D[i] == 0) }
#endif
    }
}

init
{
    atomic {
        rx_ready[0] = 1; tx_ready[0] = 1; session_a[0] = 1; session_b[0] = 1;
        run A(); run CA(); run PMD(); run B(); run CB(); run SW();
#if A_DIES || B_DIES || SW_DIES
        run Killer();
#endif
        run Rest()
    }
}
