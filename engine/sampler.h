/* SPDX-License-Identifier: Apache-2.0 */
/* The next token from a row of logits. The choice depends on nothing but the logits, the parameters
 * and the position in the sequence: the random number is a function of (seed, position), not of a
 * generator's state. So a decode engine that takes over behind the first token goes on exactly as
 * one engine alone would.
 *
 * Thread rule: owner thread (a sampler holds working memory). */
#ifndef BT_ENGINE_SAMPLER_H
#define BT_ENGINE_SAMPLER_H
#include <baton/status.h>
#include <stdbool.h>

enum { BT_MAX_TOP_LOGPROBS = 20 };

typedef struct bt_sampler bt_sampler;

typedef struct {
    float temperature; /* 0: greedy, the lowest id of equal logits */
    float top_p;       /* (0, 1]; applied after top_k */
    uint32_t top_k;    /* 0: all */
    uint64_t seed;
    bool logprobs;          /* wanted at all */
    uint32_t n_top;         /* most likely tokens wanted, up to BT_MAX_TOP_LOGPROBS */
    const uint32_t *banned; /* [n_banned] ids that must not be chosen; borrowed for the call */
    uint32_t n_banned;
} bt_sampling;

typedef struct {
    uint32_t id;
    float logprob; /* natural logarithm, of the model's own distribution (temperature 1) */
} bt_token_logprob;

typedef struct {
    uint32_t id;
    float logprob;                             /* 0 unless wanted */
    uint32_t n_top;                            /* at most the vocabulary */
    bt_token_logprob top[BT_MAX_TOP_LOGPROBS]; /* the most likely first, lower id first of equals */
} bt_sampled;

/* Errors: INVALID_ARG (n_vocab 0), NO_MEMORY. */
baton_status bt_sampler_create(uint32_t n_vocab, bt_sampler **sampler_p);
/* logits: [n_vocab]; NaN counts as minus infinity. position: of the token to choose, counted from
 * the beginning of the prompt. */
void bt_sampler_pick(bt_sampler *sampler, const float *logits, const bt_sampling *sampling,
                     uint64_t position, bt_sampled *out);
void bt_sampler_destroy(bt_sampler *sampler); /* NULL is allowed. */

#endif
