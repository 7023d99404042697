/* SPDX-License-Identifier: Apache-2.0 */
/* Sends the demo's requests to one server and keeps the answers' token ids.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_DEMO_RUN_H
#define BT_BENCH_DEMO_RUN_H
#include "core/strbuf.h"

#include <stdbool.h>

enum { BT_DEMO_MAX_TOKENS = 1024, BT_DEMO_ERROR_BYTES = 240 };

/* What one server said to one request. */
typedef struct {
    uint32_t tokens[BT_DEMO_MAX_TOKENS];
    uint32_t n_tokens;
    uint32_t prompt_tokens; /* as its usage says */
    uint64_t start_ns, first_ns, end_ns;
    char finish[16];                 /* finish_reason */
    char error[BT_DEMO_ERROR_BYTES]; /* "": none */
} bt_demo_answer;

typedef struct {
    char id[32];      /* X-Request-Id */
    bt_strbuf prompt; /* owned by the caller */
    uint32_t seed;    /* 0: greedy; else sampled with this seed */
    uint32_t max_tokens;
} bt_demo_request;

/* Streams requests[n], `concurrency` at a time, and fills answers[n] (zeroed). A request that fails
 * has its error in its answer. Errors: INVALID_ARG (url), NO_MEMORY, IO. */
baton_status bt_demo_run(const char *url, const bt_demo_request *requests, uint32_t n,
                         uint32_t concurrency, bt_demo_answer *answers);

/* Both ended well, with the same tokens for the same reason. */
bool bt_demo_same(const bt_demo_answer *a, const bt_demo_answer *b);

#endif
