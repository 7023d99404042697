/* SPDX-License-Identifier: Apache-2.0 */
/* The loop backend's network: both ends live in one process, and what goes wrong between them is
 * ordered here.
 *
 *   put ---> [posted] -- issuer's progress --> [in flight] -- due, any progress --> target memory
 *             local bytes are still read here    PUT is reported; bytes are the net's own
 *
 * So a put is reported long before it arrives, and bytes in flight outlive a forced close of the
 * endpoint, the death of the writer and a revoked ticket, as they do on a real network. Only
 * destroying the target's worker drops what is on its way to it.
 *
 * Links are numbered from 0 in the order their endpoints were connected, for the life of the net.
 * Thread rule: any thread, one lock inside. */
#ifndef BT_TRANSPORT_LOOP_H
#define BT_TRANSPORT_LOOP_H
#include "transport/transport.h"

typedef struct bt_loop_net bt_loop_net;

/* Stands for every link there is and every one to come. */
#define BT_LOOP_ALL_LINKS UINT32_MAX

/* What a link does to puts posted from now on, and to messages: those are delayed, stuck, dropped
 * and repeated too, but stay in order and behind the puts. All zero: nothing. */
typedef struct {
    uint64_t delay_ns;           /* from posting to arrival */
    uint64_t jitter_ns;          /* plus a seeded random time below this, in order unless reorder */
    uint64_t bytes_per_s;        /* one run after the other, before the delay; 0: at once */
    bool reorder;                /* runs in flight arrive in seeded random order */
    bool stuck;                  /* nothing arrives before bt_loop_release */
    uint32_t drop_percent;       /* of the runs never arrive; a flush behind one never ends */
    uint64_t drop_nth_put;       /* all runs of the nth put call from now, 1 the next */
    uint64_t drop_nth_message;   /* the nth message from now, 1 the next */
    uint32_t duplicate_percent;  /* of the runs are written twice */
    uint64_t duplicate_delay_ns; /* the second time this much after the first; no flush waits */
    uint64_t fail_nth_put;       /* the nth put call from now fails, 1 the next */
    uint64_t fail_from_put;      /* every put call from the nth on fails */
    baton_status fail_status;    /* with this status; 0: ERR_TRANSPORT */
    bool fail_in_call;           /* as the return value; otherwise as BT_EVENT_PUT */
    bool hangs;                  /* puts stay with the issuer, and a close by force does not end,
                                    before the fault is taken back or the link is cut */
    bool unreachable;            /* new endpoints fail at once; only for BT_LOOP_ALL_LINKS */
} bt_loop_faults;

typedef struct {
    uint32_t n_links;     /* connected so far */
    uint32_t n_in_flight; /* runs and messages on their way, without lost ones */
    uint64_t runs_delivered_total;
    uint64_t runs_lost_total;            /* dropped by a fault */
    uint64_t messages_lost_total;        /* also behind a put that failed as ordered */
    uint64_t bytes_populated_total;      /* of mapped memory */
    uint64_t runs_dropped_total;         /* because the target's worker was gone */
    uint64_t runs_to_freed_memory_total; /* the target freed memory that a peer could still put to:
                                            on a real network these bytes land somewhere */
} bt_loop_stats;

/* clock NULL: monotonic. Borrowed while the net lives. Errors: NO_MEMORY. */
baton_status bt_loop_net_create(uint64_t seed, const bt_clock *clock, bt_loop_net **net_p);
/* After every transport on it. NULL is allowed. */
void bt_loop_net_destroy(bt_loop_net *net);

/* Replaces the faults of a link, or of all (which forgets those of single links); counts of nth
 * start anew. NULL: none. Runs in flight keep what they were posted with. Errors: OUT_OF_RANGE. */
baton_status bt_loop_set_faults(bt_loop_net *net, uint32_t link, const bt_loop_faults *faults);
/* Lets stuck runs arrive. */
void bt_loop_release(bt_loop_net *net, uint32_t link);
/* Breaks the connection: the endpoint reports FAILED, what was posted fails; runs in flight still
 * arrive. */
void bt_loop_cut(bt_loop_net *net, uint32_t link);
/* can_map: bt_remote_map gives addresses, which stay good until the net goes, as shared memory does
 * (default: UNREACHABLE). puts_are_mapped: what bt_path
 * says, and then destroying the target's worker stops nothing either (default: no). */
void bt_loop_set_mapping(bt_loop_net *net, bool can_map, bool puts_are_mapped);

/* Transports that are opened from now on read and write CUDA device memory (default: no). */
void bt_loop_set_device(bt_loop_net *net, bool reaches_device);

/* Delivers what is due by now, without waiting for somebody's progress: for tests that advance a
 * manual clock while the owners of workers sleep. */
void bt_loop_deliver(bt_loop_net *net);
/* When the next run arrives; BT_NEVER_NS when none is on its way. */
uint64_t bt_loop_next_due_ns(bt_loop_net *net);
void bt_loop_get_stats(bt_loop_net *net, bt_loop_stats *out);

#endif
