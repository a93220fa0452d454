/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a link, direction a to b, one queue: made, used, ended, used again, with the data path of data.pml (bursts of
 * one packet) running meanwhile; and what becomes of it when a, b or vswitchd dies at any moment and comes back.
 *
 * Threads: A and B are the VNFs' data threads, CA and CB their control threads, PMD polls a's port, SW is vswitchd's control
 * thread (with its mutex held, so set_target() and confirm() are steps of its own here).  One access to shared memory is one
 * step, in the order of the code; grace periods are modelled as what they are: the wait for every reader that is inside a
 * section now.  docs/protocol.md says which line of code each step stands for.
 *
 * What is checked:
 *  - b takes packets in the order in which they were sent, none twice (take());
 *  - in the end each packet that was sent has been taken, or lies where this model's death may have left it, or has been
 *    counted as dropped; nothing else is missing (Rest);
 *  - nobody reads or writes a region that he has unmapped (MAPPED_A, MAPPED_B);
 *  - counters are final when the sender has answered (settle);
 *  - in the end the link is direct if it is wanted, else it is over and unmapped on both sides, although an application may
 *    cease to call at any time between two bursts (Rest); wherever things come to rest earlier, b has all it can have (Watch).
 *
 * Timers: a time limit on somebody's answer passes only when that one cannot answer (he is dead, or his application does not
 * call any more); lingering ends at any time.  Bells as in data.pml.
 *
 * Variants, with -D: A_DIES, B_DIES, SW_DIES (once); ADOPT: a restarted vswitchd adopts what the VNFs offer.
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
#define STOPS 0         /* 1: b's application may cease to call. */
#endif
#ifndef BOTH_WAYS
#define BOTH_WAYS 0     /* 1: the other direction may keep link regions in use. */
#endif
#ifndef A_DIES
#define A_DIES 0
#endif
#ifndef B_DIES
#define B_DIES 0
#endif
#ifndef SW_DIES
#define SW_DIES 0
#endif
#ifndef ADOPT
#define ADOPT 0
#endif

/* Generations of a's port region, one after the other; of b's. */
#if A_DIES || SW_DIES
#define NA_GEN 2
#else
#define NA_GEN 1
#endif
#if B_DIES || SW_DIES
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
bit session_a[NA_GEN];                      /* The VNF's; the switch's is rx_ready. */
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

/* Who is dead.  Who comes back asks for a region: 1: asked, 2: adopted, 3: has been given a fresh one. */
bit a_dead, b_dead, sw_dead;
bit hung_up_a, hung_up_b;                   /* vswitchd has not noticed yet. */
byte asks_a, asks_b, gone;
bit switch_no, known_a, known_b;            /* 1: the second vswitchd; the one that a, b is connected to. */

/* What the properties are about. */
byte sent, got, taken, in_dropped, dropped, lost_in_hand, put_direct[NA_GEN];
bit gate_awaited;                           /* r->gate_awaited */

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
 * a's data thread: p2p_tx_burst() of one packet.
 */
#define USE_NORMAL 0
#define USE_DIRECT 1
#define BEGIN_EPOCH 2

#define SYNC_A wait_a = in_a; (!wait_a)                     /* p2p_rcu_wait() */
#define SYNC_B wait_b = in_b; (!wait_b)
#define SYNC_P wait_p = in_p; (!wait_p)

inline leave_a()
{
    in_a = 0; wait_a = 0;                                   /* p2p_rcu_unlock() */
    way = 0; c = 0; m = 0
}

proctype A()
{
    byte m, c, way;

alive:
    {
        do
        :: atomic {
            d_step {                                        /* p2p_load_acquire(&map->sw->mode) */
                sent < PACKETS && map_a != NONE;
                in_a = 1;                                   /* p2p_rcu_lock() */
                m = map_a;
                c = MODE_LINK(mode[m]);
                way = (MODE_DIRECT(mode[m]) -> USE_DIRECT : USE_NORMAL)
            }
            if
            :: way == USE_NORMAL -> goto put
            :: else
            fi
           }
           atomic {
            d_step {                                        /* p2p_rcu_get(map->tx_chan); p2p_prod_drained(d) */
                if
                :: tx_chan != c || c == 0 -> way = USE_NORMAL
                :: tx_chan == c && c != 0 && using_link == c -> way = USE_DIRECT
                :: else ->
                    MAPPED_A(c);
                    way = (D_tail[c] == D_head[c] -> BEGIN_EPOCH : USE_NORMAL)
                fi
            }
            if
            :: way != BEGIN_EPOCH -> goto put
            :: else -> way = USE_DIRECT
            fi
           }
           d_step {                                         /* p2p_store_release(&d->ctl->start, start) */
            MAPPED_A(c);
            a_epoch++;
            using_link = c;
            D_start[c] = a_epoch;
            bell_b = 1
#if A_DIES
           }
           d_step {
#endif
            start_epoch[m] = a_epoch; start_cut[m] = nA_head[m]; /* p2p_store_release(&...txq[queue].start, start) */
            bell_p = 1
           }
put:
           if                                               /* p2p_store_release(&p->ctl->head, head) */
           :: d_step {
                way == USE_NORMAL;
                using_link = 0;
                sent++;
                nA[m * PACKETS + nA_head[m]] = sent;
                nA_head[m]++;
                bell_p = 1;
                leave_a()
              }
           :: d_step {
                way == USE_DIRECT;
                MAPPED_A(c);
                sent++;
                D[c * PACKETS + D_head[c]] = sent;
                D_head[c]++;
                put_direct[m]++;
                bell_b = 1
              }
              d_step { direct_packets[m]++; leave_a() }     /* p2p_store(&words->direct_packets, ...) */
           fi
        od
    }
#if A_DIES
    unless { d_step { a_dead; m = 0; c = 0; way = 0; gone++ }; (!a_dead); goto alive }
#endif
}

/*
 * a's control thread: vnf_words_run(), and vnf_socket_run() when the socket has broken.  A word is taken up when it is seen
 * to have changed; in which order, is left open.
 */

/* run_want() */
#define WANT_OPTIONS_A(l) \
    :: d_step { map_a != NONE && want_a[l] != done[l] && want_a[l] == WANT_MAP; \
        mapped_a[l] = 1; done[l] = WANT_MAP; have_a[l] = HAVE_MAPPED } \
    :: map_a != NONE && want_a[l] != done[l] && want_a[l] != WANT_MAP -> \
       w = want_a[l]; \
       if \
       :: tx_chan == l -> tx_chan = 0; SYNC_A \
       :: else \
       fi; \
       d_step { mapped_a[l] = 0; done[l] = w; have_a[l] = (w == WANT_UNMAP -> HAVE_UNMAPPED : HAVE_NONE); w = 0 }

#define CHAN_A(w) (mapped_a[MODE_LINK(w)] -> MODE_LINK(w) : 0)

/* A port region of our own: vnf_map_publish(), from the fresh region on; vnf_map_retire(). */
inline enter_a()
{
    session_a[NA_GEN - 1] = 1;                              /* p2p_store_release(&vnf->session, map->session) */
    rx_ready[NA_GEN - 1];                                   /* p2p_load_acquire(&map->sw->session) == map->session */
    map_a = NONE;
    SYNC_A;
    d_step {
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
            tx_chan = CHAN_A(w)
           }
#ifndef M_ACK_BEFORE_GRACE
           SYNC_A;
#endif
           d_step { done_mode = w; mode_ack[map_a] = w; w = 0 }
#if A_DIES || SW_DIES
        :: d_step { (map_a == NONE || known_a != switch_no) && !sw_dead; asks_a = 1 } /* attach() */
           if
           :: asks_a == 2
           :: asks_a == 3 -> enter_a()
           fi;
           d_step { asks_a = 0; known_a = switch_no }
#endif
        od
    }
#if A_DIES
    unless { d_step { a_dead; done[1] = 0; done[LINKS] = 0; done_mode = 0; w = 0; gone++ }; (!a_dead); goto alive }
#endif
}

/*
 * The PMD that polls a's port: p2p_swport_rx_begin() .. p2p_swport_rx_end(), p2p_swport_tx_burst() to b's.
 */
#define TAKE 0
#define OPEN 1
#define BACK 2

inline leave_p()
{
    in_p = 0; wait_p = 0;
    r = 0; h = 0; se = 0; t = 0; next = TAKE
}

/* rx_limit(): 'h' becomes the limit, unless the gate is to be opened. */
inline find_limit()
{
    t = gate_to;
    if
    :: se == 0 || se == l_gate_epoch -> next = TAKE
#if ADOPT && !defined(M_TAKEN_TOO_EARLY)
    :: se != 0 && se != l_gate_epoch && t == NONE ->
        h = (gate_awaited -> (start_cut[r] > nA_tail[r] -> (start_cut[r] > h -> h : start_cut[r]) : nA_tail[r]) : h);
        next = TAKE
#else
    :: se != 0 && se != l_gate_epoch && t == NONE -> next = TAKE
#endif
    :: se != 0 && se != l_gate_epoch && t != NONE && start_cut[r] > nA_tail[r] ->
        h = (start_cut[r] > h -> h : start_cut[r]);
        next = TAKE
    :: else -> next = OPEN
    fi
}

proctype PMD()
{
    byte r, h, se, t, next;

alive:
    {
        do
        :: atomic {
            d_step {
                bell_p && hand == 0;
                bell_p = 0;
                r = region_a;                               /* p2p_rcu_get(port->region) */
                if
                :: rx_ready[r] ->
                    in_p = 1;
                    h = nA_head[r];                         /* p2p_cons_head(&q->ring) */
                    se = start_epoch[r];                    /* p2p_load_acquire(&r->vnf->txq[queue].start) */
                    find_limit();
                    if
                    :: next == TAKE && h <= nA_tail[r] -> leave_p(); next = BACK
                    :: else
                    fi
                :: else -> r = 0; next = BACK
                fi
            }
            if
            :: next == BACK -> next = TAKE; goto polled
            :: next == TAKE -> goto taking
            :: else
            fi
           }
           d_step {                                         /* p2p_store_release(&to->sw->gate[queue], ...) */
            gate_epoch[t] = se; gate_cut[t] = nB_head[t];
            bell_b = 1
#if SW_DIES
           }
           d_step {
#endif
            l_gate_epoch = se; bell_p = 1                   /* p2p_store(q->gate_epoch, epoch) */
           }
taking:
           if                                               /* p2p_cons_take(), p2p_cons_release() */
           :: d_step {
                h > nA_tail[r];
                hand = nA[r * PACKETS + nA_tail[r]];
                nA[r * PACKETS + nA_tail[r]] = 0;
                nA_tail[r]++;
                bell_p = 1;
                leave_p()
              }
           :: d_step { h <= nA_tail[r]; leave_p() }
           fi;
polled:
           skip
        :: d_step {                                         /* p2p_swport_tx_burst() */
            hand != 0;
            if
            :: tx_ready[region_b] ->
                nB[region_b * PACKETS + nB_head[region_b]] = hand;
                nB_head[region_b]++;
                bell_b = 1
            :: else -> dropped++
            fi;
            hand = 0;
            bell_p = 1
           }
        od
    }
#if SW_DIES
    unless {
        d_step {
            sw_dead;
            lost_in_hand = lost_in_hand + (hand != 0 -> 1 : 0);
            hand = 0;
            leave_p();
            gone++
        };
        (!sw_dead);
        goto alive
    }
#endif
}

/*
 * b's data thread: p2p_rx_burst() and p2p_rx_release().
 */
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

inline plan()                                               /* look(), when all has been read. */
{
    if
    :: c == 0 || s == 0 || s != g
    :: c != 0 && s != 0 && s == g && passed[c] != s && cut > nB_next ->
        if
        :: cut > n                                          /* As good as shut. */
        :: else -> add_seg(0, cut); add_seg(1, d)
        fi
    :: else -> passed[c] = s; add_seg(1, d)
    fi;
    add_seg(0, n);
    seg_chan = c;
    n = 0; d = 0; s = 0; g = 0; cut = 0
}

/* At most k packets of what has been planned; 0 only drops what is empty. */
inline serve(k)
{
    n = k;
    do
    :: cur < n_segs && seg_ring[cur] == 0 && nB_next == seg_upto[cur] -> cur++
    :: cur < n_segs && seg_ring[cur] == 1 && D_next[c] == seg_upto[cur] -> cur++
    :: n > 0 && cur < n_segs && seg_ring[cur] == 0 && nB_next != seg_upto[cur] ->
        take(nB[m * PACKETS + nB_next]);
        nB[m * PACKETS + nB_next] = 0;
        nB_next++; n--
    :: n > 0 && cur < n_segs && seg_ring[cur] == 1 && D_next[c] != seg_upto[cur] ->
        MAPPED_B(c);
        take(D[c * PACKETS + D_next[c]]);
        D[c * PACKETS + D_next[c]] = 0;
        D_next[c]++; n--;
        D_tail[c] = D_next[c];                              /* p2p_cons_received() */
        held = 1
    :: else -> break
    od;
    n = 0;
    if
    :: cur == n_segs -> clear_segs()
    :: else
    fi
}

inline leave_b()
{
    in_b = 0; wait_b = 0;
    c = 0; m = 0
}

proctype B()
{
    byte m, c, n, d, s, g, cut;
    bit held;

alive:
    {
        do
        :: atomic {
            d_step {                                        /* p2p_rcu_get(map->rx_chan) */
                !b_stopped && map_b != NONE && (bell_b || n_segs > 0);
                in_b = 1;
                m = map_b;
                c = rx_chan;
                if
                :: n_segs > 0 && seg_chan == c -> g = 1
                :: else ->                                  /* look() */
                    clear_segs();
                    bell_b = 0;
                    n = nB_head[m];                         /* p2p_cons_head(&rq->normal) */
                    if
                    :: c == 0 -> plan(); serve(0); g = 1
                    :: else -> g = 0
                    fi;
                    if
                    :: c == 0 && n_segs == 0 -> g = 2; leave_b()
                    :: else
                    fi
                fi
            }
            if
            :: g == 1 -> g = 0; goto serving
            :: g == 2 -> g = 0; goto served
            :: else
            fi
           }
           atomic {
            d_step {
                MAPPED_B(c);
                d = D_head[c];                              /* p2p_cons_head(d) */
                s = D_start[c];                             /* p2p_load_acquire(&d->ctl->start) */
                g = gate_epoch[m]; cut = gate_cut[m];       /* p2p_load_acquire(&map->sw->gate[i]) */
                plan();
                serve(0);
                if
                :: n_segs == 0 -> leave_b()
                :: else
                fi
            }
            if
            :: n_segs == 0 -> goto served
            :: else
            fi
           }
serving:
           if
           :: d_step { true; serve(1); leave_b() }
           :: d_step { true; serve(2); leave_b() }
           fi;
served:
           skip
        :: d_step { held && !b_stopped; in_b = 1; c = rx_chan } /* p2p_rx_release() */
           d_step {
            if
            :: c != 0 -> MAPPED_B(c); D_freed[c] = D_next[c]
            :: else
            fi;
            held = 0;
            leave_b()
           }
#if STOPS
        :: d_step { !b_stopped; b_stopped = 1; held = 0 }
#endif
        od
    }
#if B_DIES
    unless {
        d_step { b_dead; m = 0; c = 0; n = 0; d = 0; s = 0; g = 0; cut = 0; held = 0; gone++ };
        (!b_dead);
        goto alive
    }
#endif
}

/*
 * b's control thread.
 */
#ifdef M_NO_UNMAP_GRACE
#define SYNC_UNMAP skip
#else
#define SYNC_UNMAP SYNC_B
#endif

#define WANT_OPTIONS_B(l) \
    :: d_step { map_b != NONE && want_b[l] != done[l] && want_b[l] == WANT_MAP; \
        mapped_b[l] = 1; D_next[l] = D_tail[l]; passed[l] = 0; done[l] = WANT_MAP; have_b[l] = HAVE_MAPPED } \
    :: map_b != NONE && want_b[l] != done[l] && want_b[l] != WANT_MAP -> \
       w = want_b[l]; \
       if \
       :: rx_chan == l -> d_step { rx_chan = 0; bell_b = 1 } SYNC_UNMAP \
       :: else \
       fi; \
       d_step { \
        mapped_b[l] = 0; passed[l] = 0; \
        done[l] = w; have_b[l] = (w == WANT_UNMAP -> HAVE_UNMAPPED : HAVE_NONE); w = 0 \
       }

inline enter_b()
{
    session_b[NB_GEN - 1] = 1;
    tx_ready[NB_GEN - 1];
    map_b = NONE;
    SYNC_B;
    d_step {
        mapped_b[1] = 0; mapped_b[LINKS] = 0; done[1] = 0; done[LINKS] = 0; done_rx = 0;
        passed[1] = 0; passed[LINKS] = 0;
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
#define DRAINED (RX_WHAT(RX_WORD) != RX_DRAIN || rx_chan == 0 || D_freed[rx_chan] == D_head[rx_chan])
#endif

proctype CB()
{
    byte done[LINKS + 1], done_rx, w, x;

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
            x = (rx_chan != RX_LINK(w) -> rx_chan : 0);
            rx_chan = RX_LINK(w);
            bell_b = 1
           }
#ifndef M_NO_REPLACE_GRACE
           if
           :: x != 0 -> x = 0; SYNC_B
           :: else
           fi;
#endif
           d_step { x = 0; done_rx = w; rx_link_ack[map_b] = w; w = 0 }
        :: d_step {                                         /* The others; chan_drained() */
            map_b != NONE && RX_WORD != done_rx && RX_WHAT(RX_WORD) != RX_ACTIVE && DRAINED;
            w = RX_WORD;
            x = rx_chan;
            rx_chan = 0;
            bell_b = bell_b || x != 0
           }
           if
           :: x != 0 -> x = 0; SYNC_B
           :: else
           fi;
           d_step { done_rx = w; rx_link_ack[map_b] = w; w = 0 }
#if B_DIES || SW_DIES
        :: d_step { (map_b == NONE || known_b != switch_no) && !sw_dead; asks_b = 1 }
           if
           :: asks_b == 2
           :: asks_b == 3 -> enter_b()
           fi;
           d_step { asks_b = 0; known_b = switch_no }
#endif
        od
    }
#if B_DIES
    unless { d_step { b_dead; done[1] = 0; done[LINKS] = 0; done_rx = 0; w = 0; x = 0; gone++ }; (!b_dead); goto alive }
#endif
}

/*
 * vswitchd's control thread: sw_dir_run(), sw_chan_run(), sw_port_run(), p2p_swport_set_target(), p2p_swport_confirm().
 */
#if SW_DIES
#define THEN_REGION } d_step {      /* The ledger first, then the region. */
#else
#define THEN_REGION ;
#endif

inline set_mode(l, direct)                                  /* sw_port_set_mode() */
{
    d_step {
        mode_seq++;
        l_mode = MODE(mode_seq, l, direct)
    THEN_REGION
        mode[region_a] = l_mode
    }
}

inline set_rx(l, what)                                      /* sw_port_set_rx() */
{
    d_step {
        rx_seq++;
        l_rx_link = RX(rx_seq, l, what)
    THEN_REGION
        rx_link[region_b] = l_rx_link
    }
}

inline set_want_a(l, what)                                  /* set_want() */
{
    d_step {
        l_want_a[l] = what
    THEN_REGION
        want_a[l] = what
    }
}

inline set_want_b(l, what)
{
    d_step {
        l_want_b[l] = what
    THEN_REGION
        want_b[l] = what
    }
}

inline begin_revert()
{
    set_mode(out, 0);
    d_step { confirmed = 0; adopted = 0; state = S_REVERTING }
}

inline settle()
{
    confirmed = 0;
    state = S_NORMAL
}

inline open_rx()
{
#ifndef M_GATES_KEPT
    gate_epoch[region_b] = 0;
#endif
#ifdef M_GATE_EPOCH_LATE
    set_rx(out, RX_ACTIVE);
    l_gate_epoch = 0;
#else
#ifndef M_EPOCH_NOT_REOPENED
    l_gate_epoch = 0;
#endif
    set_rx(out, RX_ACTIVE);
#endif
    d_step { gate_to = region_b; bell_p = 1 }
    stage = ST_STARTING
}

inline close_rx()
{
    if
    :: gate_to != NONE ->
        d_step { gate_to = NONE; bell_p = 1 }
#ifndef M_NO_GATE_GRACE
        SYNC_P
#endif
    :: else
    fi;
    if
    :: stage != ST_OFF -> set_rx(0, RX_NONE)
    :: else
    fi;
    d_step { stage = ST_OFF; to = 0; out = 0; ending = 0; confirmed = 0; adopted = 0 }
}

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
#define NEW_LINK (!EXISTS(1) && !EXISTS(LINKS) && next_link <= LINKS)
#define BEGINS (state == S_NORMAL && !to && WANTED && !MODE_DIRECT(l_mode))

#define BEGIN_WITH(l) to = 1; out = l; ending = 0; state = S_PROVISIONING

/* sw_chan_run(), end_run(), sw_chan_reap() for link region l. */
#define CHAN_OPTIONS(l) \
    :: d_step { \
        end_a[l] != E_NONE && !closing[l] && !IN_USE(l) && end_a[l] != E_AWAITED && end_b[l] != E_AWAITED; \
        closing[l] = 1 \
       } \
    :: d_step { end_a[l] != E_NONE && !closing[l] && !IN_USE(l) && err[l]; closing[l] = 1 } \
    :: d_step { other_way[l]; other_way[l] = 0 } \
    :: d_step { end_a[l] == E_MAPPING && have_a[l] == HAVE_MAPPED; end_a[l] = E_MAPPED } \
    :: d_step { end_b[l] == E_MAPPING && have_b[l] == HAVE_MAPPED; end_b[l] = E_MAPPED } \
    :: (end_a[l] == E_MAPPING && (closing[l] || err[l])) || (end_a[l] == E_MAPPED && closing[l]) -> \
       set_want_a(l, WANT_UNMAP); end_a[l] = E_UNMAPPING \
    :: (end_b[l] == E_MAPPING && (closing[l] || err[l])) || (end_b[l] == E_MAPPED && closing[l]) -> \
       set_want_b(l, WANT_UNMAP); end_b[l] = E_UNMAPPING \
    :: end_a[l] == E_UNMAPPING && (have_a[l] == HAVE_UNMAPPED || !attached_a) -> \
       set_want_a(l, WANT_NONE); end_a[l] = E_GONE \
    :: end_b[l] == E_UNMAPPING && (have_b[l] == HAVE_UNMAPPED || !attached_b) -> \
       set_want_b(l, WANT_NONE); end_b[l] = E_GONE \
    :: d_step { \
        end_a[l] == E_GONE && end_b[l] == E_GONE && !IN_USE(l); \
        end_a[l] = E_NONE; end_b[l] = E_NONE; closing[l] = 0; err[l] = 0 \
       }

proctype SW()
{
    byte mode_seq, rx_seq;

alive:
    {
        do
        /* p2p_swport_set_target() */
        :: d_step { !target && wants < WANTS; wants++; target = 1 }
        :: target && !stays && (state == S_DIRECT || (state == S_SWITCHING && confirmed)) ->
           target = 0;
           begin_revert()
        :: d_step { target && !stays && state != S_DIRECT && !(state == S_SWITCHING && confirmed); target = 0 }
        :: d_step { target && !stays && wants == WANTS; stays = 1 }

        /* sw_dir_run() */
        :: d_step {
            stage == ST_STARTING && attached_b && rx_link_ack[region_b] == l_rx_link;
            stage = ST_ON
           }
        :: d_step { BEGINS && OLD_LINK(1); BEGIN_WITH(1) }
#if LINKS > 1
        :: d_step { BEGINS && OLD_LINK(2); BEGIN_WITH(2) }
#endif
        :: d_step {
            BEGINS && NEW_LINK;
            BEGIN_WITH(next_link);
            next_link++;
            end_a[out] = E_MAPPING; end_b[out] = E_MAPPING  /* begin_map() */
           }
           set_want_a(out, WANT_MAP);
           set_want_b(out, WANT_MAP)
#if BOTH_WAYS
           ;
           if
           :: other_way[out] = 1
           :: true
           fi
#endif
        :: state == S_NORMAL && to && WANTED && !ending && READY(out) ->
           state = (stage == ST_ON -> S_SWITCHING : S_PROVISIONING)
        :: state == S_NORMAL && to && (ending || !WANTED || !READY(out)) -> /* Lingering ends at any time. */
           ending = 1;                                      /* run_ending() */
           if
           :: stage == ST_OFF -> close_rx()
           :: (stage == ST_STARTING || stage == ST_ON) && !attached_b ->
              in_dropped = in_dropped + LEFT;
              close_rx()
           :: (stage == ST_STARTING || stage == ST_ON) && attached_b ->
              set_rx(out, RX_DRAIN);
              stage = ST_DRAINING
           :: stage == ST_DRAINING && attached_b && rx_link_ack[region_b] == l_rx_link -> close_rx()
           :: stage == ST_DRAINING && !attached_b -> in_dropped = in_dropped + LEFT; close_rx()
           :: stage == ST_DRAINING && attached_b && b_stopped ->
#ifdef M_COUNTED_EARLY
              in_dropped = in_dropped + LEFT;
#endif
              set_rx(out, RX_DROP);
              stage = ST_DROPPING
           :: stage == ST_DROPPING && (!attached_b || rx_link_ack[region_b] == l_rx_link) ->
              d_step {
#ifndef M_LEFTOVERS_KEPT
                if
                :: LEFT != 0 -> err[out] = 1
                :: else
                fi;
#endif
#ifndef M_COUNTED_EARLY
                in_dropped = in_dropped + LEFT
#endif
              }
              close_rx()
           fi
        :: d_step { state == S_PROVISIONING && !WANTED; ending = (err[out] || stage == ST_OFF); state = S_NORMAL }
        :: state == S_PROVISIONING && WANTED && stage == ST_OFF && READY(out) -> open_rx()
        :: d_step { state == S_PROVISIONING && WANTED && stage == ST_ON; state = S_SWITCHING }
        :: d_step { state == S_SWITCHING && !confirmed && !WANTED; state = S_NORMAL }
        :: state == S_SWITCHING && !confirmed && WANTED && target -> /* p2p_swport_confirm() */
           confirmed = 1;
           set_mode(out, 1)
        :: state == S_SWITCHING && confirmed && !WANTED -> begin_revert()
        :: d_step { state == S_SWITCHING && confirmed && mode_ack[region_a] == l_mode; state = S_DIRECT }
        :: state == S_DIRECT && !WANTED -> begin_revert()
        :: d_step {
            state == S_REVERTING && mode_ack[region_a] == l_mode;
            assert(direct_packets[region_a] == put_direct[region_a]);
            settle()
           }

        CHAN_OPTIONS(1)
#if LINKS > 1
        CHAN_OPTIONS(2)
#endif

#if A_DIES
        :: hung_up_a ->                                     /* sw_port_detach() */
           hung_up_a = 0;
           attached_a = 0;
           if
           :: to -> set_mode(out, 0); d_step { settle(); ending = 1 }
           :: else
           fi;
           d_step {                                         /* sw_chan_vnf_gone() */
            err[1] = err[1] || HAS_SLOT_A(1);
            err[LINKS] = err[LINKS] || HAS_SLOT_A(LINKS)
           }
#ifdef M_NOT_QUIET
        :: asks_a == 1 && !attached_a && !hung_up_a ->      /* run_waiting(), freshen() */
#else
        :: asks_a == 1 && !attached_a && !hung_up_a && QUIET_A ->
#endif
#ifdef M_RESTART_AT_0
           asks_a = 3;                                      /* The same region, as it was left. */
           session_a[region_a];
#else
           d_step { region_a = 1; bell_p = 1 }
           SYNC_P;
           asks_a = 3;
           session_a[1];                                    /* watch_session(), accept_vnf() */
           l_gate_epoch = 0;
#endif
           d_step { l_mode = 0; l_want_a[1] = 0; l_want_a[LINKS] = 0 }
           d_step { rx_ready[region_a] = 1; bell_p = 1 }
           attached_a = 1
#endif
#if B_DIES
        :: hung_up_b ->
           hung_up_b = 0;
           d_step { attached_b = 0; tx_ready[region_b] = 0 }
           d_step {
            err[1] = err[1] || HAS_SLOT_B(1);
            err[LINKS] = err[LINKS] || HAS_SLOT_B(LINKS)
           }
        :: asks_b == 1 && !attached_b && !hung_up_b && QUIET_B ->
           d_step { region_b = 1; bell_p = 1 }
           SYNC_P;
           asks_b = 3;
           session_b[1];
           d_step { l_rx_link = 0; l_want_b[1] = 0; l_want_b[LINKS] = 0 }
           tx_ready[1] = 1;
           attached_b = 1
#endif
        od
    }
}

#if A_DIES
proctype Killer()
{
    d_step { true; a_dead = 1; hung_up_a = 1; in_a = 0; wait_a = 0 }
    d_step {
        gone == 2;
        map_a = NONE; tx_chan = 0; using_link = 0; a_epoch = 0;
        mapped_a[1] = 0; mapped_a[LINKS] = 0; have_a[1] = 0; have_a[LINKS] = 0;
        asks_a = 0;
        gone = 0; a_dead = 0
    }
}
#endif
#if B_DIES
proctype Killer()
{
    d_step { true; b_dead = 1; hung_up_b = 1; in_b = 0; wait_b = 0 }
    d_step {
        gone == 2;
        map_b = NONE; rx_chan = 0; nB_next = 0; clear_segs();
        D_next[1] = 0; D_next[LINKS] = 0; passed[1] = 0; passed[LINKS] = 0;
        mapped_b[1] = 0; mapped_b[LINKS] = 0; have_b[1] = 0; have_b[LINKS] = 0;
        asks_b = 0;
        gone = 0; b_dead = 0
    }
}
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
        assert(sent == PACKETS);
        assert(taken + left_a + left_b + left_d + dropped + lost_in_hand == sent);
#if !SW_DIES
        assert(left_d == in_dropped + (to -> LEFT : 0) && lost_in_hand == 0);
#endif
#if !SW_DIES && !A_DIES
        assert(left_a == 0);
#endif
#if !SW_DIES && !B_DIES
        assert(b_stopped || (left_b == 0 && left_d == 0));
        assert(dropped == 0);
#endif
        assert(other_way[1] == 0 && other_way[LINKS] == 0);
        if
        :: stays && state == S_DIRECT -> assert(rx_chan == out && tx_chan == out)
        :: stays && state != S_DIRECT -> assert(next_link > LINKS && !to)
        :: else -> assert(!target && state == S_NORMAL && !to && rx_chan == 0)
        fi;
        assert(mapped_a[1] == (to && out == 1) && mapped_b[1] == (to && out == 1));
        assert(mapped_a[LINKS] == (to && out == LINKS) && mapped_b[LINKS] == (to && out == LINKS))
    }
}

init
{
    atomic {
        rx_ready[0] = 1; tx_ready[0] = 1; session_a[0] = 1; session_b[0] = 1;
        run A(); run CA(); run PMD(); run B(); run CB(); run SW();
#if A_DIES || B_DIES
        run Killer();
#endif
        run Rest()
    }
}
