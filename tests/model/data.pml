/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data path of the switchover, direction a to b: a's data threads, the PMDs, b's data threads, and vswitchd
 * changing its mind about 'mode' at any moment.  The link itself stays; how it comes and goes is life.pml's matter.
 *
 * One access to shared memory is one step, in the order of the code; what a thread does with its own memory is
 * merged with the access before it.  docs/protocol.md says which line of code each step stands for, and which
 * acquire and release grants what this model takes for granted: memory is sequentially consistent here.
 *
 * What is checked:
 *  - each packet is taken by b once, after its predecessors of the same queue (deliver());
 *  - while a normal ring is held, the PMD takes nothing that was sent since (barred);
 *  - no packet waits for ever: whenever the PMDs and b have nothing more to do, b has everything that was sent,
 *    whether a goes on some time or never, and wherever it stands (Watch); and in the end everything is sent
 *    (Rest).
 *
 * Bells: a thread that has polled in vain polls again only when a word that it reads has changed.  A poll in
 * between would do what the former did: nothing.  No interleaving is lost by that, since the former poll may have
 * stood still anywhere on its way until the change; and the graph of states has no cycle, so that whatever keeps
 * running, comes to rest.  With -DFREE polls may be made at any time, and the same is asked as a formula, under weak
 * fairness.
 *
 * Bounds are given with -D, and so are mutations, M_...; tests/model/run knows them all.
 */
#ifndef NQA
#define NQA 1           /* a's queues. */
#endif
#ifndef NQB
#define NQB 1           /* b's. */
#endif
#ifndef PACKETS
#define PACKETS 4       /* That each queue of a's sends, at most. */
#endif
#ifndef FLIPS
#define FLIPS 3         /* Stores of mode. */
#endif
#ifndef EMPTIES
#define EMPTIES 0       /* Transmit bursts that put nothing into any ring (but may begin an epoch). */
#endif
#ifndef BURST_A
#define BURST_A 2       /* Packets in a transmit burst, at most. */
#endif
#ifndef BURST_S
#define BURST_S 2       /* Packets that the PMD takes in a poll, at most. */
#endif
#ifndef BURST_B
#define BURST_B 2       /* Budget of a receive burst, at most. */
#endif
#ifndef HOLD
#define HOLD 0          /* 1: a revert holds a's normal rings, for as long as it likes. */
#endif
#ifndef OTHERS
#define OTHERS 0        /* Packets that others send to b's queue 0 through the switch. */
#endif
#ifndef PMDS
#define PMDS 1          /* 2: each of a's queues has its own. */
#endif
#ifndef MOD
#define MOD 16          /* Ring indices are modulo MOD, not 2^32. */
#endif
#ifndef FIRST
#define FIRST (MOD - 2) /* Where they begin. */
#endif
#ifndef CAP
#define CAP MOD         /* Slots in a's rings. */
#endif

#if defined(FREE) && PMDS < NQA
#error "a PMD with two queues need not be fair to both"
#endif

#define NORMAL 0
#define DIRECT 1
#define WRAP(x) ((x) & (MOD - 1))
#define AFTER(x, y) (WRAP((x) - (y)) != 0 && WRAP((x) - (y)) < MOD / 2) /* (int32_t)(x - y) > 0 */
#ifdef M_QUEUE_MIXED
#define QB(q) 0                             /* The switch has forgotten the queue; a's direct queue has not. */
#else
#define QB(q) ((q) % NQB)
#endif
#define NA(q, i) nA[(q) * MOD + WRAP(i)]
#define DR(q, i) D[(q) * MOD + WRAP(i)]
#define NB(r, i) nB[(r) * MOD + WRAP(i)]
#define PKT(q, n) ((q) * 16 + (n))
#define OTHER 255

/* a's port region. */
bit mode = NORMAL;
byte start_epoch[NQA], start_cut[NQA];
byte nA_head[NQA] = FIRST, nA_freed[NQA] = FIRST;
byte nA[NQA * MOD];
/* The link region. */
byte D_start[NQA];
byte D_head[NQA] = FIRST, D_tail[NQA] = FIRST;
byte D[NQA * MOD];
/* b's port region. */
byte gate_epoch[NQA], gate_cut[NQA];
byte nB_head[NQB] = FIRST;
byte nB_tail[NQB] = FIRST;
byte nB[NQB * MOD];
/* vswitchd's private memory. */
bit hold = 0;
byte nA_next[NQA] = FIRST;  /* q->ring.next */
byte nA_put[NQA] = FIRST;   /* What lies between it and 'next' is in the output batch. */
byte nB_priv[NQB] = FIRST;  /* Where the next packet goes: moves before nB_head. */
bit locked[NQB];

/* What the properties are about. */
byte sent[NQA], got[NQA], barred[NQA];
byte other_sent, other_got;
#define ALL_SENT (sent[0] == PACKETS && sent[NQA - 1] == PACKETS && other_sent == OTHERS)
#define ALL_GOT (got[0] == sent[0] && got[NQA - 1] == sent[NQA - 1] && other_got == other_sent)

bit bell_a[NQA] = 1, bell_p[NQA] = 1, bell_b[NQB] = 1;
bit busy_p[PMDS], busy_b[NQB];  /* In a poll, or with the segments of one. */
#define AT_REST_P(q) (!bell_p[q] && nA_put[q] == nA_next[q])
#define AT_REST_B(r) (!bell_b[r] && !busy_b[r] && nB_head[r] == nB_priv[r])
#define AT_REST (AT_REST_P(0) && AT_REST_P(NQA - 1) && !busy_p[0] && !busy_p[PMDS - 1] \
                 && AT_REST_B(0) && AT_REST_B(NQB - 1) && !hold)
#if defined(FREE) || defined(M_NO_BELLS)
#define HEARD(bell) true
#else
#define HEARD(bell) (bell)
#endif

/*
 * a's data thread for one of its queues: p2p_tx_burst().
 */
#define USE_NORMAL 0
#define USE_DIRECT 1
#define IS_DRAINED 2

#define ROOM(head, freed, k) (sent[q] + (k) <= PACKETS && WRAP(head - freed) + (k) <= CAP)

inline put_direct(k)
{
    i = 0;
    do
    :: i < k -> sent[q]++; DR(q, D_head[q]) = PKT(q, sent[q]); D_head[q] = WRAP(D_head[q] + 1); i++
    :: else -> break
    od;
    i = 0; way = 0; bell_b[q % NQB] = 1; bell_a[q] = 1
}

inline put_normal(k)
{
    barred[q] = (hold && !barred[q] -> 1 + nA_head[q] : barred[q]);
    i = 0;
    do
    :: i < k -> sent[q]++; NA(q, nA_head[q]) = PKT(q, sent[q]); nA_head[q] = WRAP(nA_head[q] + 1); i++
    :: else -> break
    od;
    i = 0; way = 0; bell_p[q] = 1; bell_a[q] = 1;
#ifndef M_USING_KEPT
    using = 0;
#endif
#ifdef M_VSTART_LAZY
    if
    :: owed -> start_cut[q] = cut; start_epoch[q] = epoch; owed = 0; cut = 0
    :: else -> skip
    fi
#endif
}

proctype A(byte q)
{
    bit using;      /* t->using_link */
    byte epoch;     /* t->epoch */
    byte way, empties, i;
#ifdef M_VSTART_LAZY
    bit owed;
    byte cut;
#endif

    do
    :: atomic {
        d_step {                                            /* p2p_load_acquire(&map->sw->mode) */
            sent[q] < PACKETS && HEARD(bell_a[q]);
            bell_a[q] = 0;
            way = (mode == NORMAL -> USE_NORMAL : (using -> USE_DIRECT : IS_DRAINED))
        }
        if
        :: way == IS_DRAINED
        :: else -> goto put
        fi
       }
       atomic {
        d_step {                                            /* p2p_prod_drained(d) */
#ifdef M_EPOCH_NOT_EMPTY
            way = USE_DIRECT
#else
            way = (D_tail[q] == D_head[q] -> USE_DIRECT : USE_NORMAL)
#endif
        }
        if
        :: way == USE_DIRECT
        :: else -> goto put
        fi
       }
#ifdef M_START_LATE
       d_step { put_direct(1) }
#endif
       d_step {                                             /* p2p_store_release(&d->ctl->start, start) */
#ifdef M_SAME_EPOCH
        epoch = 1;
#else
        epoch++;
#endif
        using = 1;
        D_start[q] = epoch;
        bell_b[q % NQB] = 1
       }
#ifdef M_VSTART_LAZY
       owed = 1; cut = nA_head[q];
#else
       d_step {                                             /* p2p_store_release(&map->vnf->txq[queue].start, start) */
        start_epoch[q] = epoch; start_cut[q] = nA_head[q];
        bell_p[q] = 1
       }
#endif
#ifdef M_START_LATE
       goto sent_late;
#endif
put:
       if                                                   /* p2p_store_release(&p->ctl->head, head) */
       :: d_step { way == USE_DIRECT && ROOM(D_head[q], D_tail[q], 1); put_direct(1) }
       :: d_step { way == USE_NORMAL && ROOM(nA_head[q], nA_freed[q], 1); put_normal(1) }
#if BURST_A >= 2
       :: d_step { way == USE_DIRECT && ROOM(D_head[q], D_tail[q], 2); put_direct(2) }
       :: d_step { way == USE_NORMAL && ROOM(nA_head[q], nA_freed[q], 2); put_normal(2) }
#endif
#if CAP < MOD
       :: d_step { way == USE_DIRECT && WRAP(D_head[q] - D_tail[q]) == CAP; skip }
       :: d_step { way == USE_NORMAL && WRAP(nA_head[q] - nA_freed[q]) == CAP; using = 0 }
#endif
#if EMPTIES > 0
       :: d_step { empties < EMPTIES; empties++; using = (way == USE_NORMAL -> 0 : using); bell_a[q] = 1 }
#endif
       fi;
#ifdef M_START_LATE
sent_late:
#endif
       way = 0
    od
}

/*
 * A PMD: p2p_swport_rx_begin() .. p2p_swport_rx_end() for one of its queues, or p2p_swport_tx_burst() of what its
 * output batch holds of one of them.
 */
inline begin_poll(x)
{
    q = x;
    bell_p[q] = 0;
    busy_p[own] = 1;
#ifdef M_START_BEFORE_HEAD
    se = start_epoch[q]; sc = start_cut[q]
#elif defined(M_HOLD_BEFORE_HEAD)
    limit = hold
#else
    h = nA_head[q]                                          /* p2p_cons_head(&q->ring) */
#endif
}

/* How far nA may be taken from: rx_limit(). */
inline find_limit()
{
    if
    :: se == gated[q] || se == 0 -> limit = h
    :: se != gated[q] && se != 0 && AFTER(sc, nA_next[q]) ->
#ifdef M_NA_BEYOND_CUT
        limit = h
#else
        limit = (AFTER(sc, h) -> h : sc)
#endif
#ifndef M_GATE_BEFORE_FLUSH
    :: se != gated[q] && se != 0 && !AFTER(sc, nA_next[q]) && nA_put[q] != nA_next[q] ->
        limit = nA_next[q]                                  /* q->wants_flush */
#endif
    :: else -> open = 1
    fi;
    sc = 0
}

inline take(k)
{
    assert(!barred[q] || !AFTER(nA_next[q] + k, barred[q] - 1)); /* What was sent since the hold, stays. */
    nA_next[q] = WRAP(nA_next[q] + k);
    nA_freed[q] = nA_next[q];
    bell_p[q] = 1; bell_a[q] = 1;
    limit = 0; q = own; busy_p[own] = 0
}

/* To b's ring and the private index. */
inline send_on(x)
{
    do
    :: nA_put[x] != nA_next[x] ->
        NB(QB(x), nB_priv[QB(x)]) = NA(x, nA_put[x]);
        NA(x, nA_put[x]) = 0;
        nA_put[x] = WRAP(nA_put[x] + 1);
        nB_priv[QB(x)] = WRAP(nB_priv[QB(x)] + 1)           /* p2p_store(&p->head, head) */
    :: else -> break
    od
}

/* The shared index. */
inline publish(x)
{
    nB_head[QB(x)] = nB_priv[QB(x)];                        /* p2p_store_release(&p->ctl->head, head) */
    bell_b[QB(x)] = 1; bell_p[x] = 1
}

proctype PMD(byte own)
{
    byte gated[NQA];        /* q->gate_epoch */
    byte q = own;           /* Queue of the poll under way. */
    byte h, se, sc, limit;
    bit open;

    do
    :: if
#ifdef FREE
       :: d_step { nA_put[own] == nA_next[own]; begin_poll(own) }
#else
       :: d_step { bell_p[own]; begin_poll(own) }
#if PMDS == 1 && NQA > 1
       :: d_step { bell_p[1]; begin_poll(1) }
#endif
#endif
       fi;
#if HOLD
       atomic {
        if                                                  /* held(port) */
#ifdef M_HOLD_BEFORE_HEAD
        :: d_step { limit; limit = 0; q = own; busy_p[own] = 0 }; goto polled
        :: else -> h = nA_head[q]
#else
        :: d_step { hold; h = 0; q = own; busy_p[own] = 0 }; goto polled
        :: else
#endif
        fi
       }
#endif
       atomic {
        d_step {                                            /* p2p_load_acquire(&r->vnf->txq[queue].start) */
#ifdef M_START_BEFORE_HEAD
            h = nA_head[q];
#else
            se = start_epoch[q]; sc = start_cut[q];
#endif
            find_limit();
            if
            :: !open -> h = 0; se = 0
            :: else
            fi
        }
        if
        :: !open && limit == nA_next[q] -> d_step { limit = 0; q = own; busy_p[own] = 0 }; goto polled
        :: !open && limit != nA_next[q] -> goto taking
        :: else
        fi
       }
#if OTHERS < MOD / 2
       sc = nB_priv[QB(q)];                                 /* b_cut = ...tx[queue % to->n_queues].ring.head */
       atomic {
        d_step {                                            /* p2p_store_release(&to->sw->gate[queue], ...) */
#else
       atomic {
        d_step {                                            /* Half of all numbers do not pass by in between. */
            sc = nB_priv[QB(q)];
#endif
            gate_epoch[q] = se; gate_cut[q] = sc;
            gated[q] = se;
            limit = h;
            bell_b[q % NQB] = 1; bell_p[q] = 1;
            sc = 0; open = 0; h = 0; se = 0
        }
        if
        :: limit == nA_next[q] -> d_step { limit = 0; q = own; busy_p[own] = 0 }; goto polled
        :: else
        fi
       }
taking:
       if                                                   /* p2p_cons_take(), p2p_cons_release() */
       :: d_step { true; take(1) }
#if BURST_S >= 2
       :: d_step { limit != WRAP(nA_next[q] + 1); take(2) }
#endif
       fi;
polled:
       skip
#if PMDS == 1 && OTHERS == 0
    :: d_step { nA_put[own] != nA_next[own]; send_on(own); publish(own) }
#if NQA > 1
    :: d_step { nA_put[1] != nA_next[1]; send_on(1); publish(1) }
#endif
#else
    :: d_step { nA_put[own] != nA_next[own] && !locked[QB(own)]; send_on(own); locked[QB(own)] = 1 };
       d_step { publish(own); locked[QB(own)] = 0 }
#endif
    od
}

/* Others, whose packets reach b's queue 0 through the switch. */
proctype O()
{
    do
    :: d_step {
        other_sent < OTHERS && !locked[0] && nB_priv[0] == nB_tail[0]; /* Only when b has nothing to take. */
        locked[0] = 1;
        NB(0, nB_priv[0]) = OTHER;
        nB_priv[0] = WRAP(nB_priv[0] + 1);
        other_sent++
       }
       d_step { nB_head[0] = nB_priv[0]; locked[0] = 0; bell_b[0] = 1 }
    od
}

/*
 * b's data thread for one of its queues: p2p_rx_burst() and p2p_rx_release().
 */
#define NO_QUEUE 255
#define SEGS (2 * NQA + 1)

inline deliver(p)
{
    if
    :: p == OTHER -> other_got++
    :: else ->
        assert(p % 16 == got[p / 16] + 1);                  /* Neither lost, nor doubled, nor reordered. */
        got[p / 16] = p % 16
    fi
}

inline add_seg(ring, end)
{
    seg_ring[n_segs] = ring;                                /* 0: nB; 1 + q: a direct ring. */
    seg_upto[n_segs] = end;
    n_segs++
}

/* look(), what follows when all words of the direct ring of queue x have been read. */
inline consider(x)
{
    if
    :: s == 0 || s != g                                     /* Shut. */
#ifdef M_NO_PASSED
    :: s != 0 && s == g && AFTER(cut, nB_next) ->
#else
    :: s != 0 && s == g && passed[x] != s && AFTER(cut, nB_next) ->
#endif
        if
        :: AFTER(cut, n) ->                                 /* Newer than our look at nB: as good as shut. */
#ifdef M_CUT_BEYOND_N
            w = (wait[0] == NO_QUEUE -> 0 : 1);
            wait[w] = x; wait_cut[w] = n; wait_upto[w] = d
#else
            skip
#endif
        :: else ->
            w = (wait[0] == NO_QUEUE -> 0 : 1);
#ifndef M_GATES_UNSORTED
            if
            :: w == 1 && AFTER(wait_cut[0], cut) ->
                wait[1] = wait[0]; wait_cut[1] = wait_cut[0]; wait_upto[1] = wait_upto[0];
                w = 0
            :: else
            fi;
#endif
            wait[w] = x; wait_upto[w] = d;
#ifdef M_NB_UPTO_N
            wait_cut[w] = n
#else
            wait_cut[w] = cut
#endif
        fi
    :: else ->
        passed[x] = s;
        if
        :: d != D_next[x] -> add_seg(1 + x, d)
        :: else
        fi
    fi;
    d = 0; s = 0; g = 0; cut = 0; w = 0
}

/* What the look comes to: which rings to serve, how far, in which order. */
inline plan()
{
    w = 0;
    do
    :: w < 2 && wait[w] != NO_QUEUE ->
        add_seg(0, wait_cut[w]);
        if
        :: wait_upto[w] != D_next[wait[w]] -> add_seg(1 + wait[w], wait_upto[w])
        :: else
        fi;
        wait[w] = NO_QUEUE; wait_cut[w] = 0; wait_upto[w] = 0;
        w++
    :: else -> break
    od;
    add_seg(0, n);
    n = 0; w = 0
}

/* The rest of a burst: at most k packets.  (What need not be looked at any more, goes at once.) */
inline serve(k)
{
    w = k;
    do
    :: cur < n_segs && seg_ring[cur] == 0 && nB_next == seg_upto[cur] -> cur++
    :: cur < n_segs && seg_ring[cur] != 0 && D_next[seg_ring[cur] - 1] == seg_upto[cur] -> cur++
    :: w > 0 && cur < n_segs && seg_ring[cur] == 0 && nB_next != seg_upto[cur] ->
        deliver(NB(r, nB_next));
        NB(r, nB_next) = 0;
        nB_next = WRAP(nB_next + 1);
        nB_tail[r] = nB_next;
        w--
    :: w > 0 && cur < n_segs && seg_ring[cur] != 0 && D_next[seg_ring[cur] - 1] != seg_upto[cur] ->
        x = seg_ring[cur] - 1;
        deliver(DR(x, D_next[x]));
        DR(x, D_next[x]) = 0;
        D_next[x] = WRAP(D_next[x] + 1);
        x = 0;
        w--
    :: else -> break
    od;
#ifdef M_BUDGET_SKIPS
    if
    :: k > 0 && cur < n_segs -> cur++; bell_b[r] = 1
    :: else
    fi;
#endif
    if
    :: cur == n_segs ->
        do
        :: n_segs > 0 -> n_segs--; seg_ring[n_segs] = 0; seg_upto[n_segs] = 0
        :: else -> break
        od;
        cur = 0;
        busy_b[r] = 0
    :: else
    fi;
    w = 0
}

proctype B(byte r)
{
    byte nB_next = FIRST, D_next[NQA] = FIRST, passed[NQA];
    byte seg_ring[SEGS], seg_upto[SEGS], n_segs, cur;
    byte n, d, s, g, cut, x, w;
    byte wait[2] = NO_QUEUE, wait_cut[2], wait_upto[2];

    do
    :: d_step {
        cur == n_segs && HEARD(bell_b[r]);
        bell_b[r] = 0;
        busy_b[r] = 1;
        x = r;
#ifdef M_D_BEFORE_N
        d = D_head[r]
       }
       d_step {
#endif
#ifdef M_GATE_BEFORE_N
        g = gate_epoch[r]; cut = gate_cut[r]
       }
       d_step {
#endif
        n = nB_head[r]                                      /* p2p_cons_head(&rq->normal) */
       }
       do
       :: true ->
#ifdef M_D_AFTER_START
            s = D_start[x];
            d = D_head[x];
#else
#ifndef M_D_BEFORE_N
            d = D_head[x];                                  /* p2p_cons_head(d) */
#endif
            s = D_start[x];                                 /* p2p_load_acquire(&d->ctl->start) */
#endif
            atomic {
                d_step {                                    /* p2p_load_acquire(&map->sw->gate[i]) */
#ifndef M_GATE_BEFORE_N
                    g = gate_epoch[x]; cut = gate_cut[x];
#endif
                    consider(x);
                    x = x + NQB;
                    if
                    :: x >= NQA -> plan(); x = 0; serve(0)
                    :: else -> w = 1
                    fi
                }
                if
                :: w -> w = 0
                :: else -> break
                fi
            }
       od
    :: d_step { cur < n_segs; serve(1) }
#if BURST_B >= 2
    :: d_step { cur < n_segs; serve(2) }
#endif
    :: d_step {                                             /* p2p_store_release(&c->ctl->tail, c->next) */
        D_tail[r] != D_next[r];
        D_tail[r] = D_next[r];
        bell_a[r] = 1
       }
#if NQA > NQB
    :: d_step { D_tail[r + NQB] != D_next[r + NQB]; D_tail[r + NQB] = D_next[r + NQB]; bell_a[r + NQB] = 1 }
#endif
    od
}

/*
 * vswitchd's control thread, at its most whimsical: begin_revert(), p2p_swport_confirm(), p2p_swport_unhold().
 */
proctype Switch()
{
    byte flips;

    do
    :: flips < FLIPS ->
        flips++;
        if
        :: mode == DIRECT ->
#if HOLD
            d_step { hold = 1 }                             /* atomic_store(&from->hold_until, ...) */
#endif
            d_step { mode = NORMAL; bell_a[0] = 1; bell_a[NQA - 1] = 1 }
        :: else ->
            d_step { mode = DIRECT; bell_a[0] = 1; bell_a[NQA - 1] = 1 }
        fi
#if HOLD
    :: d_step {                                             /* atomic_store(&from->hold_until, 0) */
        hold;
        hold = 0;
        barred[0] = 0; barred[NQA - 1] = 0;
        bell_p[0] = 1; bell_p[NQA - 1] = 1
       }
#endif
    od
}

#ifndef FREE
proctype Watch()
{
    d_step { AT_REST && !ALL_GOT; assert(false) }           /* A packet waits for ever. */
}

/* Nothing can happen any more. */
proctype Rest()
{
    timeout -> assert(AT_REST && ALL_SENT)
}
#else
ltl all_arrives { <> (ALL_SENT && ALL_GOT) }
#endif

init
{
    byte i;

    atomic {
        for (i : 0 .. NQA - 1) { run A(i) }
        for (i : 0 .. PMDS - 1) { run PMD(i) }
        for (i : 0 .. NQB - 1) { run B(i) }
        run Switch();
#if OTHERS > 0
        run O();
#endif
#ifndef FREE
        run Watch();
        run Rest()
#endif
    }
}
