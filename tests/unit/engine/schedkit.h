/* SPDX-License-Identifier: Apache-2.0 */
/* What the scheduler's tests share: a scheduler over the fake model, hand-offs that read or bring
 * the fake KV, and requests whose answers are collected.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_SCHEDKIT_H
#define BT_TESTS_SCHEDKIT_H
#include "support/test.h"

#include "engine/fakemodel.h"

enum { MAX_OUTPUT = 64, MAX_PROMPT = 200, CHUNK = 8 };

/* What came back for one request. */
typedef struct {
    uint32_t prompt[MAX_PROMPT], n_prompt;
    uint32_t output[MAX_OUTPUT], n_output, n_cached;
    bt_strbuf text;
    bt_finish finish;
    baton_status status;
    uint32_t n_finished;
    char error[BT_GEN_ERROR_BYTES];
} answer;

/* A transfer that reads its blocks only when the test lets it: too early reuse is seen. */
typedef struct {
    void *user_data;
    uint32_t chunks[MAX_PROMPT / CHUNK + 1][MAX_PROMPT / FAKE_BLOCK_TOKENS + 20];
    uint32_t n_ready, n_tokens;
    uint32_t n_layers[MAX_PROMPT / CHUNK + 1]; /* given by themselves, of each chunk */
    uint32_t tokens[MAX_PROMPT];
    bool finished, canceled, live;
    baton_status fail;
} fake_transfer;

typedef struct {
    bt_fake_model model;
    bt_tokenizer *tokenizer;
    bt_scheduler *scheduler;
    bt_scheduler_options options;
    bt_handoff_ops ops;
    fake_transfer transfers[8];
    uint32_t n_transfers;
    bool may_read; /* transfers go on */
    baton_status begin_fails;
    uint32_t layer_group;        /* layers that transfers want at a time; 0: whole chunks */
    uint32_t n_groups, n_whole;  /* given */
    uint64_t landed[MAX_PROMPT]; /* KV of the last transfer that was read */
    uint32_t n_landed;
    uint32_t landed_tokens[MAX_PROMPT];
} bench;

/* Opens model and scheduler anew, on a bench without them. */
void sched_start(bench *b, uint32_t n_blocks, uint32_t chunk_tokens);
/* The bench's hand-off sends (prefill) or brings (decode) KV, or there is none. */
bench *sched_open(uint32_t n_blocks, bool prefill, bool decode);
/* Every block is back, where the scheduler is empty. */
void sched_close(bench *b);
/* n tokens drawn from seed, and no answer yet. */
void make_prompt(answer *a, uint64_t seed, uint32_t n);
/* Greedy. a->prompt is borrowed, and a collects the answer. */
bt_generate request_of(answer *a, uint32_t max_tokens);
void sched_add(bench *b, const bt_generate *request);
/* Until there is nothing to do. */
void sched_run(bench *b);
/* a ended once, with the n_output tokens that the model defines. */
void check_answer(const answer *a, uint32_t n_output, bt_finish finish);
void clear_answer(answer *a);

#endif
