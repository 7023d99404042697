/* SPDX-License-Identifier: Apache-2.0 */
/* What goes into the engine and what comes out: a request to generate, and its events.
 * Thread rule: plain data. */
#ifndef BT_ENGINE_GENERATE_H
#define BT_ENGINE_GENERATE_H
#include "core/strbuf.h"
#include "engine/handoff.h"
#include "engine/sampler.h"
#include "engine/stops.h"

enum { BT_MAX_STOP_IDS = 16, BT_GEN_ERROR_BYTES = 256 };

typedef struct {
    const uint32_t *prompt; /* [n_prompt], copied */
    uint32_t n_prompt;      /* 1 or more */
    uint32_t max_tokens;    /* 1 or more; prompt and these fit into the model's context */
    uint32_t min_tokens;    /* before these, no token and no stop string ends the text */
    bool ignore_eos;
    bool with_specials; /* special tokens appear in the text */
    bool goes_on;       /* another engine goes on behind max_tokens: a character that has begun by
                           then is left to it */
    bt_sampling sampling;
    uint32_t stop_ids[BT_MAX_STOP_IDS]; /* [n_stop_ids] tokens that end the text as EOS does */
    uint32_t n_stop_ids;
    bt_stops *stops;                 /* moved from, also on failure; NULL: none */
    const bt_handoff_target *target; /* where the prompt's KV goes; copied; NULL: nowhere */
    void *user_data; /* echoed in events; names the request while it lives, so it must be unique */
} bt_generate;

typedef enum {
    BT_FINISH_NONE,
    BT_FINISH_STOP,   /* EOS, a stop token or a stop string */
    BT_FINISH_LENGTH, /* max_tokens */
    BT_FINISH_ERROR,  /* .status, .error; CANCELED after a cancel */
} bt_finish;

/* One token, the end, or both at once. A request's events come in order; the one with a `finish`
 * is the last, and comes exactly once. */
typedef struct bt_gen_event {
    struct bt_gen_event *next;
    void *user_data;
    bool has_token;
    bt_sampled token;
    bt_strbuf text; /* what this token made certain; may be empty; freed with the event */
    bt_finish finish;
    baton_status status;
    bool is_transfers; /* the hand-off failed, not the engine's own work */
    char error[BT_GEN_ERROR_BYTES];
    /* so far, right in every event */
    uint32_t n_output;
    uint32_t n_cached; /* prompt tokens that were not computed: prefix cache or hand-off */
} bt_gen_event;

bt_gen_event *bt_gen_event_create(void *user_data); /* NULL: no memory */
void bt_gen_event_destroy(bt_gen_event *event);     /* NULL is allowed. */

#endif
