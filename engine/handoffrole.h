/* SPDX-License-Identifier: Apache-2.0 */
/* The hand-off of one engine: tp senders, or tp receivers, behind bt_handoff_ops. Rank r of n owns
 * KV heads [r * heads / n, (r + 1) * heads / n) of the one KV cache.
 *
 * Thread rule: owner thread; ops belong to the engine's thread once it runs, metrics may be asked
 * for from any thread. */
#ifndef BT_ENGINE_HANDOFFROLE_H
#define BT_ENGINE_HANDOFFROLE_H
#include <baton/layout.h>

#include "core/promtext.h"
#include "engine/handoff.h"
#include "engine/kvcache.h"

typedef struct {
    const bt_kv_cache *cache; /* borrowed, as all */
    uint64_t fingerprint;     /* of the model: peers must have the same */
    uint32_t tp;              /* ranks; divides the KV heads */
    uint32_t chunk_tokens;
    uint32_t max_model_len;
    const char *key_seed; /* of the chunks' names, equal on both sides; NULL: none */
    uint32_t spoil_layer; /* receivers: 1 + a layer that is overwritten after every load, which
                             proves that moved KV is what decode computes with; 0: none */
    bool spoil_byte;      /* senders: a byte of every transfer's first chunk is changed on its way,
                             which proves that digests are checked */
    const char *config;   /* YAML file; NULL: none */
    const char *const *overrides;
    uint32_t n_overrides;
} bt_handoff_options;

typedef struct bt_handoff_sender bt_handoff_sender;
typedef struct bt_handoff_receiver bt_handoff_receiver;

/* Errors: those of baton_sender_create_from_file; INVALID_ARG (tp does not divide the heads). */
baton_status bt_handoff_sender_create(const bt_handoff_options *options,
                                      bt_handoff_sender **sender_p);
void bt_handoff_sender_ops(bt_handoff_sender *sender, bt_handoff_ops *ops);
/* Appends the libraries' counters, summed over ranks. */
void bt_handoff_sender_metrics(void *sender, bt_strbuf *out);
void bt_handoff_sender_destroy(bt_handoff_sender *sender); /* NULL is allowed. */

baton_status bt_handoff_receiver_create(const bt_handoff_options *options,
                                        bt_handoff_receiver **receiver_p);
void bt_handoff_receiver_ops(bt_handoff_receiver *receiver, bt_handoff_ops *ops);
void bt_handoff_receiver_metrics(void *receiver, bt_strbuf *out);
/* Appends " init_ports=7300,7301 alloc_ports=7400,7401". */
void bt_handoff_receiver_describe(bt_handoff_receiver *receiver, bt_strbuf *out);
void bt_handoff_receiver_destroy(bt_handoff_receiver *receiver); /* NULL is allowed. */

/* A counter of the libraries: a uint64_t at `offset` of their statistics, which hold nothing else.
 */
typedef struct {
    const char *name, *help;
    size_t offset;
    bt_prom_type type;
} bt_handoff_metric;
/* sum += stats, field by field. */
void bt_handoff_add_stats(void *sum, const void *stats, size_t bytes);
void bt_handoff_put_metrics(bt_strbuf *out, const bt_handoff_metric *metrics, size_t n,
                            const void *stats);

/* Shape of one rank's KV, for its sender or receiver. Errors: INVALID_ARG. */
baton_status bt_handoff_layout(const bt_handoff_options *options, baton_layout *layout);

/* One rank's share of the KV cache; planes are the view's. */
typedef struct {
    baton_kv_view kv;
    baton_kv_plane *planes; /* [n_layers], owned */
} bt_handoff_view;
/* view is zeroed memory, to be closed in every case. Errors: NO_MEMORY. */
baton_status bt_handoff_view_open(const bt_handoff_options *options, uint32_t rank,
                                  bt_handoff_view *view);
void bt_handoff_view_close(bt_handoff_view *view);

#endif
