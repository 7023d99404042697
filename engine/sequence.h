/* SPDX-License-Identifier: Apache-2.0 */
/* One request inside the scheduler: its tokens, blocks, transfer, and the text coming out.
 *
 *   WAITING ─admit─▶ RUNNING ─last token, failure, cancel─▶ DRAINING ─transfer over─▶ destroyed
 *      └────────────────── cancel, failure: destroyed        (at once when there is no transfer)
 *
 *   tokens   | prompt ...................... | output ....... | room up to n_total
 *            | 0 .. n_computed: KV in blocks | ...
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_SEQUENCE_H
#define BT_ENGINE_SEQUENCE_H
#include "engine/generate.h"
#include "engine/prefixcache.h"
#include "engine/tokenizer.h"

typedef enum { BT_SEQ_WAITING, BT_SEQ_RUNNING, BT_SEQ_DRAINING } bt_seq_state;

typedef struct bt_sequence {
    struct bt_sequence *prev, *next; /* in the scheduler's list of its state */
    bt_seq_state state;
    void *user_data;

    uint32_t *tokens; /* [n_total] */
    uint32_t n_prompt, n_tokens, n_total;
    uint32_t n_computed;

    uint32_t *blocks; /* [n_blocks], each with a reference, once admitted */
    uint32_t n_blocks;
    uint32_t n_known;    /* full blocks that the prefix cache knows */
    bt_prefix_link link; /* behind them */
    uint32_t n_cached;   /* prompt tokens found in the prefix cache or handed over */

    bt_sampling sampling;
    uint32_t min_tokens;
    bool ignore_eos, with_specials, goes_on;
    uint32_t stop_ids[BT_MAX_STOP_IDS], n_stop_ids;
    bt_stops stops;
    bt_decoder decoder;
    bt_strbuf held; /* text not given out yet: it may become a stop string */

    bt_handoff_target *target; /* NULL: none */
    void *transfer;            /* NULL: not begun, or over */
    uint32_t n_chunks_ready;
    uint32_t layer_group;      /* layers handed over at a time; 0: whole chunks */
    uint32_t n_chunks_layered; /* chunks before this one need no chunk_ready */

    bt_gen_event *last_event; /* made in advance, so that the end can always be told */
    uint64_t added_ns;
} bt_sequence;

/* A copy of the request. A character that the prompt's last tokens begin belongs to the output when
 * that ends it: so the text behind a hand-off is the text of one engine alone. Errors: INVALID_ARG,
 * TOO_LARGE, NO_MEMORY; request->stops is moved from in every case. */
baton_status bt_sequence_create(const bt_generate *request, uint32_t block_tokens,
                                const bt_tokenizer *tokenizer, bt_sequence **sequence_p);
/* It holds no block references any more. NULL is allowed. */
void bt_sequence_destroy(bt_sequence *sequence);

/* What a model and a tokenizer say about ends. */
typedef struct {
    const bt_tokenizer *tokenizer;
    const uint32_t *eos_ids; /* [n_eos_ids] */
    uint32_t n_eos_ids;
} bt_sequence_ends;

/* Ids that must not be sampled next, in banned[BT_MAX_STOP_IDS + n_eos_ids]; returns how many. */
uint32_t bt_sequence_banned(const bt_sequence *sequence, const bt_sequence_ends *ends,
                            uint32_t *banned);
/* Appends the sampled token and fills the event with it, the text that it makes certain, and the
 * finish. Errors: NO_MEMORY. */
baton_status bt_sequence_accept(bt_sequence *sequence, const bt_sequence_ends *ends,
                                const bt_sampled *sampled, bt_gen_event *event);

#endif
