/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens of which requests are computed next: continuous batching with chunked prefill.
 *
 *   add ─▶ waiting ─admit─▶ running ─────▶ finished; draining while its KV is still being read
 *             │ first come first served; a request is admitted when every block that it can ever
 *             │ need is there, so nothing that runs is ever preempted
 *
 *   a step: what the hand-off has to tell; admit; one token of every sequence that generates, then
 *           prompt pieces of at most chunk_tokens until step_tokens are full; one forward pass;
 *           chunks that became complete go out; logits are sampled; events
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_SCHEDULER_H
#define BT_ENGINE_SCHEDULER_H
#include "core/clock.h"
#include "core/histogram.h"
#include "engine/model.h"
#include "engine/sequence.h"

typedef struct bt_scheduler bt_scheduler;

typedef struct {
    /* bt_compute_forward with its compute and cache, or a fake. */
    baton_status (*forward)(void *ctx, const bt_batch_item *items, uint32_t n_items, float *logits);
    void *forward_ctx;
    /* Called once: from then on, a forward calls layer_done(sink, layer) on its own thread when the
     * KV of a layer is written, for all items, in the order of layers. NULL: it does not, and
     * chunks are handed over whole. */
    void (*watch)(void *ctx, void (*layer_done)(void *sink, uint32_t layer), void *sink);
    uint32_t n_vocab;
    uint32_t n_blocks, block_tokens; /* of the cache */
    uint64_t block_seed;             /* of the order in which blocks are handed out */
    uint32_t max_running;            /* sequences in a batch */
    uint32_t step_tokens;            /* tokens of a batch; more than max_running */
    uint32_t chunk_tokens;           /* prompt tokens of one sequence in a batch */
    bt_sequence_ends ends;           /* borrowed, as what it points to */
    const bt_handoff_ops *handoff;   /* borrowed; NULL: none */
    /* Called for every event, which it owns from then on. It must not call back. */
    void (*emit)(void *ctx, bt_gen_event *event);
    void *emit_ctx;
    const bt_clock *clock; /* NULL: monotonic */
} bt_scheduler_options;

typedef struct {
    uint64_t requests_total;
    uint64_t finished_stop_total, finished_length_total, finished_error_total, canceled_total;
    uint64_t prompt_tokens_total;
    uint64_t prompt_tokens_computed_total; /* by the model, here */
    uint64_t prompt_tokens_cached_total;   /* found in the prefix cache */
    uint64_t prompt_tokens_loaded_total;   /* handed over by a prefill engine */
    uint64_t output_tokens_total;
    uint64_t steps_total, step_tokens_total;
    uint64_t transfers_begun_total, transfers_done_total, transfers_failed_total;
    uint64_t chunks_ready_total;
    uint64_t chunks_layered_total;           /* of them, handed over while they were computed */
    uint64_t loads_total, load_misses_total; /* misses: at least one token was left to compute
                                                besides the last */
    uint32_t n_waiting, n_running, n_draining;
    uint32_t blocks_total, blocks_available, blocks_idle;
    bt_histogram ttft_ns, queue_ns, step_ns;
} bt_scheduler_stats;

/* Errors: INVALID_ARG, NO_MEMORY. */
baton_status bt_scheduler_create(const bt_scheduler_options *options, bt_scheduler **scheduler_p);
/* Takes the sequence over; what becomes of it comes as events. */
void bt_scheduler_add(bt_scheduler *scheduler, bt_sequence *sequence);
/* The request ends with CANCELED, unless it is over already. */
void bt_scheduler_cancel(bt_scheduler *scheduler, const void *user_data);
void bt_scheduler_cancel_all(bt_scheduler *scheduler);
/* One step. True when something was computed: step again at once. False: nothing to do until a
 * request is added or a hand-off fd is readable. */
bool bt_scheduler_step(bt_scheduler *scheduler);
/* No request and no transfer is left. */
bool bt_scheduler_is_empty(const bt_scheduler *scheduler);
void bt_scheduler_get_stats(const bt_scheduler *scheduler, bt_scheduler_stats *stats);
/* Transfers must be over, or the hand-off's owner destroyed with its threads. NULL is allowed. */
void bt_scheduler_destroy(bt_scheduler *scheduler);

#endif
