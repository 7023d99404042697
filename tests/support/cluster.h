/* SPDX-License-Identifier: Apache-2.0 */
/* Engines and a proxy as processes, and what a test asks of them: hand-offs, metrics, whether all
 * counts add up. All share one small random model. Thread rule: the test's thread. */
#ifndef BT_TESTS_CLUSTER_H
#define BT_TESTS_CLUSTER_H
#include "core/strbuf.h"
#include "support/children.h"
#include "support/httpask.h"

enum { BT_CLUSTER_CHUNK_TOKENS = 16, BT_CLUSTER_RANKS_MAX = 4 };

typedef struct {
    bt_child *child;
    uint16_t port;
    uint32_t n_ranks; /* of a decode engine's receivers; 0: it has none */
    uint16_t init_ports[BT_CLUSTER_RANKS_MAX], alloc_ports[BT_CLUSTER_RANKS_MAX];
} bt_node;

/* An engine with one thread and chunks of BT_CLUSTER_CHUNK_TOKENS; more: further arguments, which
 * win, ends with NULL; NULL: none. */
void bt_node_start(bt_node *node, const char *role, const char *const *more);
/* A proxy in front of prefill[n_prefill] and decode[n_decode]. */
void bt_proxy_start(bt_node *proxy, const bt_node *prefill, unsigned n_prefill,
                    const bt_node *decode, unsigned n_decode, const char *const *more);

/* Value of the metric line that begins with name; -1: there is none. */
double bt_metric(const bt_node *node, const char *name);
/* Until it is at least, at most, or exactly, value. */
void bt_wait_metric(const bt_node *node, const char *name, double value);
void bt_wait_metric_at_most(const bt_node *node, const char *name, double value);
void bt_wait_metric_is(const bt_node *node, const char *name, double value);

/* A prompt of n token ids that only depends on seed, as JSON. */
void bt_prompt_put(bt_strbuf *out, uint64_t seed, uint32_t n_tokens);
/* Body of a completion, freed with bt_strbuf_free. */
bt_strbuf bt_completion(uint64_t seed, uint32_t n_tokens, uint32_t max_tokens, bool stream);
/* Body of a prefill leg whose KV goes to decode, under the name `attempt`; notice: where notices
 * go, NULL: nowhere. */
bt_strbuf bt_prefill_leg(uint64_t seed, uint32_t n_tokens, const bt_node *decode,
                         const char *attempt, const char *notice);
/* Sends a prefill leg; the answer is read with bt_http_finish. */
int bt_prefill_open(const bt_node *prefill, uint64_t seed, uint32_t n_tokens, const bt_node *decode,
                    const char *attempt, const char *notice);
/* One whole, good hand-off: prefill leg, transfer, and a decode leg whose prompt is all loaded. */
void bt_check_hand_off(const bt_node *prefill, const bt_node *decode, uint64_t seed,
                       const char *attempt);
/* A completion at node (a proxy or an engine) is answered with the tokens that `alone` gives. */
void bt_check_completion(const bt_node *node, const bt_node *alone, uint64_t seed,
                         uint32_t n_tokens);
/* A 200 answer to body has the tokens that `alone` gives. */
void bt_check_same_tokens(const bt_http_answer *answer, const bt_node *alone, const char *body);

/* The status, and an OpenAI error body whose text has `text` (NULL: not looked at). Clears it. */
void bt_check_error(bt_http_answer *answer, unsigned status, const char *text);

/* Nothing runs, moves, waits or is held any more, and every count adds up. */
void bt_check_idle_prefill(const bt_node *node);
void bt_check_idle_decode(const bt_node *node);

#endif
