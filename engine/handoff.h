/* SPDX-License-Identifier: Apache-2.0 */
/* The seam between the engine and the libraries that move KV. The scheduler knows this table only;
 * handoff_sender.c and handoff_receiver.c fill it, and tests fill it with fakes.
 *
 *   prefill   begin ─▶ chunk_ready 0, 1, ... ─▶ finish     cancel at any time
 *             or, for a chunk, layers_ready for all of its layers, while they are computed
 *             ended comes exactly once for every begin that succeeded, out of progress, and only
 *             when nothing reads the sequence's blocks any more: until then they are not reused
 *   decode    load, before the prompt is computed
 *
 * Thread rule: owner thread (the engine's). */
#ifndef BT_ENGINE_HANDOFF_H
#define BT_ENGINE_HANDOFF_H
#include <baton/status.h>
#include <stdbool.h>

enum {
    BT_HANDOFF_ID_BYTES = 256,
    BT_HANDOFF_HOST_BYTES = 256,
    BT_HANDOFF_NOTICE_BYTES = 300,
    BT_HANDOFF_TRACE_BYTES = 256,
    BT_HANDOFF_MAX_RANKS = 64,
};

/* Where a prompt's KV goes: `disagg_spec` of the request. */
typedef struct {
    char request[BT_HANDOFF_ID_BYTES + 1];
    char host[BT_HANDOFF_HOST_BYTES];
    char notice[BT_HANDOFF_NOTICE_BYTES];     /* "": the sender's own */
    char traceparent[BT_HANDOFF_TRACE_BYTES]; /* W3C Trace Context; "": none */
    uint32_t wait_ms;                         /* that somebody waits from finish on; 0: for long */
    uint32_t n_ranks;
    uint16_t init_ports[BT_HANDOFF_MAX_RANKS], alloc_ports[BT_HANDOFF_MAX_RANKS]; /* [n_ranks] */
} bt_handoff_target;

/* A transfer is over: every chunk has landed (BATON_OK) or it failed. text is borrowed. */
typedef void (*bt_handoff_ended_fn)(void *sink, void *user_data, baton_status status,
                                    const char *text);

typedef struct {
    void *ctx;
    uint32_t chunk_tokens; /* tokens of a chunk; the last of a prompt may have fewer */

    /* Prefill; NULL on engines that do not send. */

    /* Starts moving the KV of tokens[n_tokens]; *transfer_p names it until ended. */
    baton_status (*begin)(void *ctx, const bt_handoff_target *target, const uint32_t *tokens,
                          uint32_t n_tokens, void *user_data, void **transfer_p);
    /* The KV of a chunk is complete in blocks[n_blocks], the sequence's block table, which is
     * borrowed for the call. Chunks come in order. */
    void (*chunk_ready)(void *ctx, void *transfer, uint32_t chunk, const uint32_t *blocks,
                        uint32_t n_blocks);
    /* Layers of each layers_ready, for a prompt of n_tokens; n_layers: chunk_ready. NULL: the
     * same. */
    uint32_t (*layer_group)(void *ctx, uint32_t n_tokens);
    uint32_t n_layers; /* of the model */
    /* As chunk_ready, for these layers of the chunk only. */
    void (*layers_ready)(void *ctx, void *transfer, uint32_t chunk, uint32_t first_layer,
                         uint32_t n_layers, const uint32_t *blocks, uint32_t n_blocks);
    void (*finish)(void *ctx, void *transfer); /* every chunk was ready */
    void (*cancel)(void *ctx, void *transfer);

    /* Decode; NULL on engines that do not receive. */

    /* Copies what has landed of tokens[n_tokens] into blocks, from position `first` on: what lies
     * before it is there already, in blocks that others share and that must not be written.
     * *n_loaded: positions [0, n_loaded) are in the blocks now, at least `first`. */
    baton_status (*load)(void *ctx, const uint32_t *tokens, uint32_t n_tokens, uint32_t first,
                         const uint32_t *blocks, uint32_t n_blocks, uint32_t *n_loaded);

    /* Both. */

    /* Looks for news, without blocking, and calls ended for what is over. */
    void (*progress)(void *ctx, bt_handoff_ended_fn ended, void *sink);
    /* Writes the fds that are readable when progress has something to do; returns how many. */
    uint32_t (*fds)(void *ctx, int *fds, uint32_t max);
} bt_handoff_ops;

#endif
