/* SPDX-License-Identifier: Apache-2.0 */
/* A whole engine in one object: weights, KV cache, tokenizer, hand-off, scheduler thread, HTTP.
 * baton_engine.c is its command line; tests make several in one process.
 *
 *   model ─┬─ compute ─┬─ scheduler thread ─── api ─── loop (the caller's thread)
 *          └─ KV cache ┴─ hand-off: tp senders (prefill) or receivers (decode)
 *
 * Thread rule: owner thread (the loop's). */
#ifndef BT_ENGINE_ENGINESERVER_H
#define BT_ENGINE_ENGINESERVER_H
#include "engine/engineapi.h"

typedef enum { BT_ROLE_BOTH, BT_ROLE_PREFILL, BT_ROLE_DECODE } bt_engine_role;
const char *bt_engine_role_name(bt_engine_role role);

/* Zero means the default in brackets. Strings are borrowed as long as the server lives. */
typedef struct {
    bt_engine_role role;
    const char *model;        /* folder; NULL: random weights */
    uint64_t seed;            /* of random weights */
    const char *host;         /* ["127.0.0.1"] */
    uint16_t port;            /* [any free one] */
    uint32_t tp;              /* ranks that share the KV heads [1] */
    uint32_t threads;         /* [as many as the process may use, at most 16] */
    uint32_t chunk_tokens;    /* prompt tokens per step, and of a hand-off chunk [256] */
    uint32_t step_tokens;     /* tokens per forward pass [chunk_tokens + max_running] */
    uint32_t max_running;     /* sequences in a batch [32] */
    uint32_t max_queued;      /* [256] */
    uint32_t max_model_len;   /* [what model and cache allow] */
    uint32_t kv_blocks;       /* [from kv_bytes] */
    uint64_t kv_bytes;        /* [256 MiB] */
    uint32_t block_tokens;    /* [16] */
    int kv_dtype;             /* a baton_dtype [BF16] */
    const char *const *names; /* [n_names], of the model in the API [the folder's] */
    uint32_t n_names;
    const char *chat_template;    /* [what the tokenizer suggests] */
    uint32_t spoil_layer;         /* 1 + a layer that decode overwrites after every load [none] */
    bool spoil_byte;              /* prefill changes a byte of what it hands over [no] */
    const char *hash_seed;        /* of the names of KV chunks [none] */
    const char *config;           /* sender's or receiver's YAML file [none] */
    const char *const *overrides; /* [n_overrides] "key=value", go over the file */
    uint32_t n_overrides;
} bt_engine_options;

typedef struct bt_engine_server bt_engine_server;

/* Loads, starts and listens. Errors: those of the model, tokenizer, hand-off libraries and HTTP
 * server; INVALID_ARG, CONFIG. */
baton_status bt_engine_server_create(bt_loop *loop, const bt_engine_options *options,
                                     bt_engine_server **server_p);
bt_api *bt_engine_server_api(bt_engine_server *server); /* borrowed */
/* "role=decode host=127.0.0.1 port=8100 ...": for scripts. */
void bt_engine_server_describe(const bt_engine_server *server, bt_strbuf *out);
/* bt_api_stop, then everything goes. NULL is allowed. */
void bt_engine_server_destroy(bt_engine_server *server, uint32_t drain_ms);

#endif
