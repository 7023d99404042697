/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the body of every route that takes one. What is accepted must keep its promises. */
#include <stdlib.h>

#include "engine/apirequest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_VOCAB = 110, MAX_LEN = 300 };

static void check(const bt_api_params *params)
{
    const bt_generate *g = &params->generate;
    if (g->n_prompt == 0 || g->max_tokens == 0 || g->n_prompt + g->max_tokens > MAX_LEN ||
        g->min_tokens > g->max_tokens || g->sampling.n_top > BT_MAX_TOP_LOGPROBS ||
        !(g->sampling.top_p > 0) || !(g->sampling.temperature >= 0))
        abort();
    for (uint32_t i = 0; i < g->n_prompt; i++)
        if (g->prompt[i] >= N_VOCAB)
            abort();
    if (g->target != NULL && (g->target->n_ranks == 0 || g->target->host[0] == 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bt_tokenizer *tokenizer;
    static const char *const names[] = {"m"};
    if (tokenizer == NULL && bt_tokenizer_create_bytes(&tokenizer) < 0)
        return 0;
    bt_api_limits limits = {.tokenizer = tokenizer,
                            .model_names = names,
                            .n_model_names = 1,
                            .n_vocab = N_VOCAB,
                            .max_len = MAX_LEN,
                            .sends_kv = true};
    for (int kind = 0; kind < 4; kind++) {
        bt_api_params params = {0};
        bt_api_error error = {0};
        const char *body = (const char *)data;
        bool ok = kind < 2    ? bt_api_parse(&limits, kind == 1, body, size, &params, &error)
                  : kind == 2 ? bt_api_parse_tokenize(&limits, body, size, &params, &error)
                              : bt_api_parse_detokenize(&limits, body, size, &params, &error);
        if (ok && kind < 2)
            check(&params);
        if (!ok && (error.status < 400 || error.message[0] == 0))
            abort();
        bt_api_params_clear(&params);
    }
    return 0;
}
