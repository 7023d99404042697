/* SPDX-License-Identifier: Apache-2.0 */
/* How bytes go to a peer: stores into its mapped pages, puts from where the source lies, or puts
 * from a staging page. Figures come from a short measurement (txmeasure.c) between MEMREG and
 * READY; the choice, what forbids it and the line that says so are txpath.c's.
 *
 *   MEMREG_ANSWER ─▶ copy, stage ─▶ warm up ─▶ post ─▶ wire ─▶ settled: READY, or refused
 *                    slices of a     one tiny    tiny    up to whole
 *                    turn each       put         puts    scratch areas
 *
 * Thread rule: owner thread of the bt_tx. */
#ifndef BT_SENDER_TXPATH_H
#define BT_SENDER_TXPATH_H
#include <baton/sender.h>

#include "core/process.h"
#include "transport/transport.h"
#include "wire/messages.h"

struct bt_tx;
struct bt_tx_peer;

/* GB/s of 10^9 bytes, the best of several rounds from memory that is in no cache; 0: not measured.
 */
typedef struct {
    double copy_gbps;  /* stores into the peer's memory, by all copy_threads */
    double stage_gbps; /* copies into registered memory of ours, by one thread */
    double wire_gbps;  /* puts, from the first post to the flush, without the latency below */
    double post_us;    /* of one put call */
    double flush_us;   /* a tiny put and its flush: there and back */
} bt_tx_figures;

typedef enum {
    BT_TX_MEASURE_OFF, /* not begun, or over */
    BT_TX_MEASURE_COPY,
    BT_TX_MEASURE_STAGE,
    BT_TX_MEASURE_WARM_UP, /* the first put on a connection also makes it */
    BT_TX_MEASURE_POST,
    BT_TX_MEASURE_WIRE,
} bt_tx_measure_state;

typedef struct {
    bt_tx_measure_state state;
    uint32_t id;         /* of its events' user_data; others' are ignored */
    uint32_t round;      /* of this state, and of puts of one size */
    uint32_t n_out;      /* puts and flushes of this round without their event */
    uint64_t round_ns;   /* when the round began */
    uint64_t posted_ns;  /* how long its posts took */
    uint64_t wire_bytes; /* of a put of this round */
    uint64_t quick_ns;   /* no round begins that would end later, but the first of puts */
    uint64_t limit_ns;   /* when it ends, whatever it has */
    bt_remote *scratch;  /* NULL: there is none */
    uint64_t base;       /* of the scratch area, in the peer's address space */
    uint64_t bytes;      /* of it that are used */
    uint8_t *mapped;     /* it, from here; NULL: it cannot be mapped */
    bt_tx_figures found; /* so far */
} bt_tx_measure;

/* Begins; an area that makes no sense is the peer's fault. Without one, or with measuring switched
 * off, it is over at once, unless the peer may be turned down: then the connection is made whole
 * first, because UCX 1.13 aborts a receiver that cannot answer an endpoint any more (openucx/ucx
 * pull request 8175). Errors: BAD_MESSAGE, VERSION_MISMATCH. */
baton_status bt_tx_measure_start(struct bt_tx *tx, struct bt_tx_peer *peer,
                                 const bt_msg_scratch *scratch);
/* A turn: at most one slice of copying, or a few posts. True when the measurement is over. */
bool bt_tx_measure_turn(struct bt_tx *tx, struct bt_tx_peer *peer, uint64_t now_ns);
/* When it wants its next turn at the latest. */
uint64_t bt_tx_measure_wake_ns(const bt_tx_measure *measure, uint64_t now_ns);
/* One of its puts or flushes is done. False: the event is nobody's. */
bool bt_tx_measure_event(struct bt_tx *tx, const bt_event *event);
/* Forgets it; late events are ignored. The endpoint is still there. */
void bt_tx_measure_stop(bt_tx_measure *measure);

/* What decides between the paths. */
typedef struct {
    baton_path_choice wanted;
    bool can_map, has_registered, require_rdma;
    uint64_t page_bytes;
} bt_tx_path_question;

/* Never AUTO. By put it is from registered memory when there is some, without a copy, else from a
 * staging page; that, or stores into mapped pages, whichever is faster by the figures. */
baton_path_choice bt_tx_path_choose(const bt_tx_path_question *question,
                                    const bt_tx_figures *figures);
/* "auto", "mapped", "put", "staged". */
const char *bt_tx_path_name(baton_path_choice path);
/* What the path can carry; 0: not measured. Staging and putting overlap: the slower one decides. */
double bt_tx_path_gbps(baton_path_choice path, double copy_gbps, double stage_gbps,
                       double wire_gbps);
/* Bytes over these transports go by RDMA; cuda_ipc counts for device memory. */
bool bt_tx_path_is_rdma(const bt_path *path, baton_memory_kind memory);
/* Maps a region that was just imported, where that is wanted. Errors: UNREACHABLE (a READY peer's
 * fresh region; mapped is forced and cannot be had). */
struct bt_tx_region;
baton_status bt_tx_path_map(struct bt_tx *tx, struct bt_tx_peer *peer, const bt_msg_region *from,
                            struct bt_tx_region *region);
/* Shared memory of the one may be attached to by the other: UCX makes it for its own user (and
 * group, which is not looked at). True when that is not known. */
bool bt_tx_path_may_attach(const bt_process *ours, const bt_process *theirs);
/* The peer may be turned down when its figures are in. */
bool bt_tx_path_may_fail(const struct bt_tx *tx, const struct bt_tx_peer *peer);
/* Chooses, checks the floors, and tells. Errors: PATH; UNREACHABLE (mapped is forced and cannot be
 * had; the text says why). */
baton_status bt_tx_path_settle(struct bt_tx *tx, struct bt_tx_peer *peer);
/* The floors that hold for a peer: ours or its own, whichever is higher. */
void bt_tx_path_floors(struct bt_tx *tx, struct bt_tx_peer *peer, const bt_msg_init *init);
/* What baton_sender_peers tells of this peer is out of date. */
void bt_tx_path_publish(struct bt_tx *tx, struct bt_tx_peer *peer, baton_status status,
                        const char *text);

#endif
