/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/fail.h"
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
    uint64_t landed[MAX_PROMPT]; /* KV of the last transfer that was read */
    uint32_t n_landed;
    uint32_t landed_tokens[MAX_PROMPT];
} bench;

static void emit(void *ctx, bt_gen_event *event)
{
    (void)ctx;
    answer *a = event->user_data;
    assert_int_equal(a->n_finished, 0);
    if (event->has_token) {
        assert_true(a->n_output < MAX_OUTPUT);
        a->output[a->n_output++] = event->token.id;
        bt_strbuf_append(&a->text, bt_strbuf_text(&event->text), event->text.length);
    }
    assert_int_equal(event->n_output, a->n_output);
    a->n_cached = event->n_cached;
    if (event->finish != BT_FINISH_NONE) {
        a->finish = event->finish;
        a->status = event->status;
        memcpy(a->error, event->error, sizeof(a->error));
        a->n_finished++;
    }
    bt_gen_event_destroy(event);
}

static baton_status fake_begin(void *ctx, const bt_handoff_target *target, const uint32_t *tokens,
                               uint32_t n_tokens, void *user_data, void **transfer_p)
{
    bench *b = ctx;
    assert_string_equal(target->request, "req-1");
    if (b->begin_fails < 0)
        return bt_fail(b->begin_fails, "fake hand-off: no");
    fake_transfer *t = &b->transfers[b->n_transfers++];
    t->user_data = user_data;
    t->n_tokens = n_tokens;
    t->live = true;
    memcpy(t->tokens, tokens, n_tokens * sizeof(*tokens));
    *transfer_p = t;
    return BATON_OK;
}

static void fake_chunk_ready(void *ctx, void *transfer, uint32_t chunk, const uint32_t *blocks,
                             uint32_t n_blocks)
{
    (void)ctx;
    fake_transfer *t = transfer;
    assert_int_equal(chunk, t->n_ready);
    memcpy(t->chunks[chunk], blocks, n_blocks * sizeof(*blocks));
    t->n_ready++;
}

static void fake_finish(void *ctx, void *transfer)
{
    (void)ctx;
    fake_transfer *t = transfer;
    assert_false(t->finished);
    assert_int_equal(t->n_ready, (t->n_tokens + CHUNK - 1) / CHUNK);
    t->finished = true;
}

static void fake_cancel(void *ctx, void *transfer)
{
    (void)ctx;
    ((fake_transfer *)transfer)->canceled = true;
}

static void fake_progress(void *ctx, bt_handoff_ended_fn ended, void *sink)
{
    bench *b = ctx;
    for (uint32_t i = 0; i < b->n_transfers; i++) {
        fake_transfer *t = &b->transfers[i];
        bool over = b->may_read && (t->finished || t->canceled);
        if (!t->live || (!over && t->fail == 0))
            continue;
        t->live = false;
        if (t->fail < 0 || t->canceled) {
            ended(sink, t->user_data, t->canceled ? BATON_ERR_CANCELED : t->fail, "fake failure");
            continue;
        }
        for (uint32_t p = 0; p < t->n_tokens; p++)
            b->landed[p] = *bt_fake_kv(&b->model, t->chunks[p / CHUNK], p);
        memcpy(b->landed_tokens, t->tokens, sizeof(b->landed_tokens));
        b->n_landed = t->n_tokens;
        ended(sink, t->user_data, BATON_OK, "");
    }
}

static baton_status fake_load(void *ctx, const uint32_t *tokens, uint32_t n_tokens, uint32_t first,
                              const uint32_t *blocks, uint32_t n_blocks, uint32_t *n_loaded)
{
    bench *b = ctx;
    uint32_t n = 0;
    while (n < n_tokens && n < b->n_landed && tokens[n] == b->landed_tokens[n])
        n++;
    assert_true(n <= n_blocks * FAKE_BLOCK_TOKENS);
    for (uint32_t p = first; p < n; p++)
        *bt_fake_kv(&b->model, blocks, p) = b->landed[p];
    *n_loaded = n > first ? n : first;
    return BATON_OK;
}

static void start_bench(bench *b, uint32_t n_blocks, uint32_t chunk_tokens)
{
    bt_scheduler_options options = {
        .forward = bt_fake_forward,
        .forward_ctx = &b->model,
        .n_vocab = FAKE_VOCAB,
        .n_blocks = n_blocks,
        .block_tokens = FAKE_BLOCK_TOKENS,
        .max_running = 8,
        .step_tokens = 32,
        .chunk_tokens = chunk_tokens,
        .ends = {.tokenizer = b->tokenizer},
        .handoff = b->ops.ctx != NULL ? &b->ops : NULL,
        .emit = emit,
    };
    b->options = options;
    bt_fake_model_open(&b->model, n_blocks);
    assert_ok(bt_scheduler_create(&options, &b->scheduler));
}

static bench *open_bench(uint32_t n_blocks, bool prefill, bool decode)
{
    bench *b = bt_calloc(1, sizeof(*b));
    assert_ok(bt_tokenizer_create_bytes(&b->tokenizer));
    b->may_read = true;
    if (prefill || decode)
        b->ops = (bt_handoff_ops){.ctx = b, .chunk_tokens = CHUNK, .progress = fake_progress};
    if (prefill) {
        b->ops.begin = fake_begin;
        b->ops.chunk_ready = fake_chunk_ready;
        b->ops.finish = fake_finish;
        b->ops.cancel = fake_cancel;
    }
    if (decode)
        b->ops.load = fake_load;
    start_bench(b, n_blocks, 16);
    return b;
}

static void close_bench(bench *b)
{
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    if (bt_scheduler_is_empty(b->scheduler))
        assert_int_equal(stats.blocks_available, stats.blocks_total);
    bt_scheduler_destroy(b->scheduler);
    bt_fake_model_close(&b->model);
    bt_tokenizer_destroy(b->tokenizer);
    bt_free(b);
}

static void make_prompt(answer *a, uint64_t seed, uint32_t n)
{
    bt_rng rng = {seed};
    *a = (answer){.n_prompt = n};
    for (uint32_t i = 0; i < n; i++)
        a->prompt[i] = (uint32_t)bt_rng_below(&rng, 250);
}

static bt_generate request_of(answer *a, uint32_t max_tokens)
{
    return (bt_generate){
        .prompt = a->prompt,
        .n_prompt = a->n_prompt,
        .max_tokens = max_tokens,
        .sampling = {.top_p = 1},
        .user_data = a,
    };
}

static void add(bench *b, const bt_generate *request)
{
    bt_sequence *sequence;
    assert_ok(bt_sequence_create(request, FAKE_BLOCK_TOKENS, b->tokenizer, &sequence));
    bt_scheduler_add(b->scheduler, sequence);
}

static void run(bench *b)
{
    while (bt_scheduler_step(b->scheduler)) {
    }
}

static void check_answer(const answer *a, uint32_t n_output, bt_finish finish)
{
    uint32_t wanted[MAX_OUTPUT];
    assert_int_equal(a->n_finished, 1);
    assert_int_equal(a->finish, finish);
    assert_int_equal(a->n_output, n_output);
    bt_fake_continue(a->prompt, a->n_prompt, n_output, wanted);
    assert_memory_equal(a->output, wanted, n_output * sizeof(*wanted));
}

static void clear_answer(answer *a)
{
    bt_strbuf_free(&a->text);
}

static void many_at_once_answer_as_each_alone(void **state)
{
    (void)state;
    enum { N = 20 };
    static answer answers[N];
    bench *b = open_bench(200, false, false);
    for (uint32_t i = 0; i < N; i++) {
        make_prompt(&answers[i], i / 2, 1 + 37 * (i % 5)); /* pairs are equal: prefix reuse */
        bt_generate request = request_of(&answers[i], 1 + i);
        add(b, &request);
    }
    run(b);
    for (uint32_t i = 0; i < N; i++) {
        check_answer(&answers[i], 1 + i, BT_FINISH_LENGTH);
        clear_answer(&answers[i]);
    }
    assert_in_range(b->model.most_items, 5, 8);
    assert_true(b->model.largest_batch <= 32);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    close_bench(b);
}

static void a_small_pool_makes_requests_wait_in_order(void **state)
{
    (void)state;
    enum { N = 6 };
    static answer answers[N];
    bench *b = open_bench(20, false, false); /* 80 tokens */
    for (uint32_t i = 0; i < N; i++) {
        make_prompt(&answers[i], 100 + i, 30);
        bt_generate request = request_of(&answers[i], 10);
        add(b, &request);
    }
    bt_scheduler_stats stats;
    bt_scheduler_step(b->scheduler);
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.n_running, 2);
    assert_int_equal(stats.n_waiting, 4);
    run(b);
    for (uint32_t i = 0; i < N; i++) {
        check_answer(&answers[i], 10, BT_FINISH_LENGTH);
        clear_answer(&answers[i]);
    }
    close_bench(b);
}

static void a_known_prefix_is_not_computed_again(void **state)
{
    (void)state;
    static answer first, again;
    bench *b = open_bench(100, false, false);
    make_prompt(&first, 5, 41);
    bt_generate request = request_of(&first, 5);
    add(b, &request);
    run(b);
    make_prompt(&again, 5, 41);
    request = request_of(&again, 5);
    add(b, &request);
    run(b);
    check_answer(&again, 5, BT_FINISH_LENGTH);
    assert_int_equal(again.n_cached, 40);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.prompt_tokens_computed_total, 41 + 1);
    assert_int_equal(stats.prompt_tokens_cached_total, 40);
    clear_answer(&first);
    clear_answer(&again);
    close_bench(b);
}

static void a_prompt_of_whole_blocks_still_computes_its_last_token(void **state)
{
    (void)state;
    static answer answers[2];
    bench *b = open_bench(100, false, false);
    for (int i = 0; i < 2; i++) {
        make_prompt(&answers[i], 6, 40);
        bt_generate request = request_of(&answers[i], 3);
        add(b, &request);
        run(b);
        check_answer(&answers[i], 3, BT_FINISH_LENGTH);
        clear_answer(&answers[i]);
    }
    assert_int_equal(answers[1].n_cached, 36);
    close_bench(b);
}

static void a_request_larger_than_the_pool_is_refused_with_both_numbers(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(10, false, false);
    make_prompt(&a, 1, 38);
    bt_generate request = request_of(&a, 3);
    add(b, &request);
    assert_int_equal(a.n_finished, 1);
    assert_int_equal(a.status, BATON_ERR_TOO_LARGE);
    assert_string_equal(a.error,
                        "request: prompt and max_tokens need 11 blocks of 4 tokens, the engine "
                        "has 10");
    close_bench(b);
}

static void a_cancel_ends_a_request_in_every_state(void **state)
{
    (void)state;
    static answer running, waiting, other;
    bench *b = open_bench(20, false, false);
    make_prompt(&running, 1, 40);
    make_prompt(&waiting, 2, 60);
    make_prompt(&other, 3, 10);
    bt_generate request = request_of(&running, 20);
    add(b, &request);
    request = request_of(&waiting, 5);
    add(b, &request);
    bt_scheduler_step(b->scheduler);
    bt_scheduler_cancel(b->scheduler, &waiting);
    bt_scheduler_cancel(b->scheduler, &running);
    bt_scheduler_cancel(b->scheduler, &running); /* over already: nothing happens */
    assert_int_equal(running.status, BATON_ERR_CANCELED);
    assert_int_equal(waiting.status, BATON_ERR_CANCELED);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    request = request_of(&other, 5);
    add(b, &request);
    run(b);
    check_answer(&other, 5, BT_FINISH_LENGTH);
    clear_answer(&other);
    clear_answer(&running);
    close_bench(b);
}

static void a_failed_forward_pass_ends_its_requests(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(40, false, false);
    b->model.fail_after = 1;
    make_prompt(&a, 1, 30);
    bt_generate request = request_of(&a, 5);
    add(b, &request);
    bt_expect_log("forward pass of 1 sequences failed");
    run(b);
    assert_int_equal(a.finish, BT_FINISH_ERROR);
    assert_int_equal(a.status, BATON_ERR_IO);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    close_bench(b);
}

/* Ends: the third token of the fake continuation is made EOS, a stop token, then ignored. */
static void ends_are_honoured_unless_ignored_or_too_early(void **state)
{
    (void)state;
    static answer a;
    make_prompt(&a, 9, 20);
    uint32_t output[5];
    bt_fake_continue(a.prompt, 20, 5, output);
    bench *b = open_bench(40, false, false);
    bt_scheduler_destroy(b->scheduler);
    b->options.ends.eos_ids = &output[2];
    b->options.ends.n_eos_ids = 1;
    assert_ok(bt_scheduler_create(&b->options, &b->scheduler));

    bt_generate request = request_of(&a, 5);
    add(b, &request);
    run(b);
    check_answer(&a, 3, BT_FINISH_STOP);
    clear_answer(&a);

    make_prompt(&a, 9, 20);
    request.ignore_eos = true;
    add(b, &request);
    run(b);
    check_answer(&a, 5, BT_FINISH_LENGTH);
    clear_answer(&a);

    make_prompt(&a, 9, 20);
    request.stop_ids[0] = output[1];
    request.n_stop_ids = 1;
    add(b, &request);
    run(b);
    check_answer(&a, 2, BT_FINISH_STOP);
    clear_answer(&a);

    make_prompt(&a, 9, 20);
    request.min_tokens = 4;
    add(b, &request);
    run(b);
    assert_true(a.n_output >= 4);
    assert_int_not_equal(a.output[1], output[1]);
    clear_answer(&a);
    close_bench(b);
}

static void a_stop_string_ends_the_text_before_it(void **state)
{
    (void)state;
    static answer a;
    make_prompt(&a, 12, 20);
    bench *b = open_bench(100, false, false);
    bt_generate request = request_of(&a, 40);
    add(b, &request);
    run(b);
    char whole[512];
    assert_true(a.text.length > 20 && a.text.length < sizeof(whole));
    memcpy(whole, bt_strbuf_text(&a.text), a.text.length + 1);
    clear_answer(&a);
    make_prompt(&a, 12, 20);
    bt_stops stops = {0};
    size_t at = 10;
    while ((whole[at] & 0xc0) == 0x80)
        at++; /* the beginning of a character */
    char stop[9] = {0};
    memcpy(stop, whole + at, 8);
    const char *found = strstr(whole, stop);
    assert_ok(bt_stops_add(&stops, stop));
    request.stops = &stops;
    add(b, &request);
    run(b);
    assert_int_equal(a.finish, BT_FINISH_STOP);
    assert_int_equal(a.text.length, found - whole);
    assert_memory_equal(bt_strbuf_text(&a.text), whole, a.text.length);
    assert_true(a.n_output < 40);
    clear_answer(&a);
    close_bench(b);
}

/* A character cut by the hand-off comes whole from the engine that goes on. The byte tokenizer's
 * ids are bytes, so the prompt can end inside one. */
static void a_character_goes_on_behind_the_prompt(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer;
    assert_ok(bt_tokenizer_create_bytes(&tokenizer));
    static const uint32_t prompt[] = {'a', 0xf0, 0x9f, 0x98};
    bt_generate request = {
        .prompt = prompt, .n_prompt = 2, .max_tokens = 1, .goes_on = true, .user_data = tokenizer};
    bt_sequence_ends ends = {.tokenizer = tokenizer};
    bt_sequence *sequence;
    bt_sampled sampled = {.id = 0x9f};
    bt_gen_event *event = bt_gen_event_create(NULL);
    assert_ok(bt_sequence_create(&request, FAKE_BLOCK_TOKENS, tokenizer, &sequence));
    assert_ok(bt_sequence_accept(sequence, &ends, &sampled, event));
    assert_int_equal(event->text.length, 0); /* left to the next engine */
    bt_sequence_destroy(sequence);

    request.n_prompt = 4;
    request.goes_on = false;
    sampled.id = 0x80;
    assert_ok(bt_sequence_create(&request, FAKE_BLOCK_TOKENS, tokenizer, &sequence));
    assert_ok(bt_sequence_accept(sequence, &ends, &sampled, event));
    assert_string_equal(bt_strbuf_text(&event->text), "\xf0\x9f\x98\x80");
    bt_sequence_destroy(sequence);
    bt_gen_event_destroy(event);
    bt_tokenizer_destroy(tokenizer);
}

static void every_failed_allocation_of_a_request_is_reported(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer;
    assert_ok(bt_tokenizer_create_bytes(&tokenizer));
    static const uint32_t prompt[] = {1, 2, 3};
    static const bt_handoff_target somewhere = {.request = "r"};
    bt_generate request = {.prompt = prompt, .n_prompt = 3, .max_tokens = 2, .target = &somewhere};
    for (uint64_t nth = 1;; nth++) {
        bt_sequence *sequence;
        bt_alloc_fail_at(nth);
        baton_status status = bt_sequence_create(&request, FAKE_BLOCK_TOKENS, tokenizer, &sequence);
        bt_alloc_fail_at(0);
        if (status == BATON_OK) {
            bt_sequence_destroy(sequence);
            assert_true(nth > 5);
            break;
        }
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
    bt_tokenizer_destroy(tokenizer);
}

static void every_failed_allocation_of_a_scheduler_is_reported(void **state)
{
    (void)state;
    bench *b = open_bench(20, false, false);
    for (uint64_t nth = 1;; nth++) {
        bt_scheduler *scheduler;
        bt_alloc_fail_at(nth);
        baton_status status = bt_scheduler_create(&b->options, &scheduler);
        bt_alloc_fail_at(0);
        if (status == BATON_OK) {
            bt_scheduler_destroy(scheduler);
            assert_true(nth > 10);
            break;
        }
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
    close_bench(b);
}

/* No memory for an event: the request ends with the one that was made in advance. */
static void a_token_that_cannot_be_told_ends_the_request(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(20, false, false);
    make_prompt(&a, 1, 3);
    bt_generate request = request_of(&a, 5);
    add(b, &request);
    bt_alloc_fail_at(1);
    bt_scheduler_step(b->scheduler);
    bt_alloc_fail_at(0);
    assert_int_equal(a.n_finished, 1);
    assert_int_equal(a.status, BATON_ERR_NO_MEMORY);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    close_bench(b);
}

static const bt_handoff_target target = {.request = "req-1", .host = "h", .n_ranks = 1};

static void prefill_then_decode_computes_one_prompt_token(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 7, 8, 9, 63, 64, 65, 130};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        static answer p, d;
        bench *prefill = open_bench(100, true, false), *decode = open_bench(100, false, true);
        make_prompt(&p, 40 + i, lengths[i]);
        bt_generate request = request_of(&p, 1);
        request.target = &target;
        add(prefill, &request);
        run(prefill);
        bt_scheduler_step(prefill->scheduler);
        check_answer(&p, 1, BT_FINISH_LENGTH);
        assert_true(bt_scheduler_is_empty(prefill->scheduler));

        memcpy(decode->landed, prefill->landed, sizeof(decode->landed));
        memcpy(decode->landed_tokens, prefill->landed_tokens, sizeof(decode->landed_tokens));
        decode->n_landed = prefill->n_landed;
        make_prompt(&d, 40 + i, lengths[i]);
        d.prompt[d.n_prompt++] = p.output[0];
        request = request_of(&d, 10);
        add(decode, &request);
        run(decode);
        check_answer(&d, 10, BT_FINISH_LENGTH);
        assert_int_equal(d.n_cached, lengths[i]);
        bt_scheduler_stats stats;
        bt_scheduler_get_stats(decode->scheduler, &stats);
        assert_int_equal(stats.prompt_tokens_computed_total, 1);
        assert_int_equal(stats.load_misses_total, 0);
        clear_answer(&p);
        clear_answer(&d);
        close_bench(prefill);
        close_bench(decode);
    }
}

static void chunks_go_out_while_the_next_is_computed(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(100, true, false);
    make_prompt(&a, 3, 50); /* computed 16 at a time, chunks of 8 */
    bt_generate request = request_of(&a, 1);
    request.target = &target;
    add(b, &request);
    for (uint32_t step = 1; step <= 3; step++) {
        bt_scheduler_step(b->scheduler);
        assert_int_equal(b->transfers[0].n_ready, 2 * step);
        assert_false(b->transfers[0].finished);
    }
    bt_scheduler_step(b->scheduler);
    assert_int_equal(b->transfers[0].n_ready, 7);
    assert_true(b->transfers[0].finished);
    run(b);
    clear_answer(&a);
    close_bench(b);
}

static void blocks_are_not_reused_before_the_transfer_is_over(void **state)
{
    (void)state;
    static answer first, second;
    bench *b = open_bench(20, true, false); /* 80 tokens */
    b->may_read = false;
    make_prompt(&first, 1, 60);
    bt_generate request = request_of(&first, 1);
    request.target = &target;
    add(b, &request);
    run(b);
    check_answer(&first, 1, BT_FINISH_LENGTH); /* answered, although the KV has not left */
    make_prompt(&second, 2, 60);
    request = request_of(&second, 1);
    request.target = &target;
    add(b, &request);
    run(b);
    assert_int_equal(second.n_finished, 0);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.n_draining, 1);
    assert_int_equal(stats.n_waiting, 1);
    b->may_read = true;
    run(b);
    bt_scheduler_step(b->scheduler);
    check_answer(&second, 1, BT_FINISH_LENGTH);
    assert_int_equal(b->n_landed, 60);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    clear_answer(&first);
    clear_answer(&second);
    close_bench(b);
}

static void a_cancelled_prefill_keeps_its_blocks_until_the_transfer_is_over(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(20, true, false);
    b->may_read = false;
    make_prompt(&a, 1, 60);
    bt_generate request = request_of(&a, 1);
    request.target = &target;
    add(b, &request);
    bt_scheduler_step(b->scheduler);
    bt_scheduler_cancel(b->scheduler, &a);
    assert_int_equal(a.status, BATON_ERR_CANCELED);
    assert_true(b->transfers[0].canceled);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.n_draining, 1);
    assert_true(stats.blocks_available <= 4);
    b->may_read = true;
    bt_scheduler_step(b->scheduler);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    clear_answer(&a);
    close_bench(b);
}

static void a_failed_transfer_fails_the_request_that_still_runs(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(100, true, false);
    make_prompt(&a, 1, 60);
    bt_generate request = request_of(&a, 1);
    request.target = &target;
    add(b, &request);
    bt_scheduler_step(b->scheduler);
    b->transfers[0].fail = BATON_ERR_PEER_GONE;
    run(b);
    assert_int_equal(a.finish, BT_FINISH_ERROR);
    assert_int_equal(a.status, BATON_ERR_PEER_GONE);
    assert_string_equal(a.error, "fake failure");
    assert_true(bt_scheduler_is_empty(b->scheduler));

    make_prompt(&a, 2, 60);
    b->begin_fails = BATON_ERR_PERMISSION;
    add(b, &request);
    run(b);
    assert_int_equal(a.status, BATON_ERR_PERMISSION);
    close_bench(b);

    b = open_bench(100, false, false);
    make_prompt(&a, 2, 60);
    add(b, &request);
    run(b);
    assert_int_equal(a.status, BATON_ERR_UNSUPPORTED);
    close_bench(b);
}

static void missing_chunks_are_computed_and_counted(void **state)
{
    (void)state;
    static answer a;
    bench *b = open_bench(100, false, true);
    make_prompt(&a, 1, 60);
    b->n_landed = 0; /* nothing came */
    bt_generate request = request_of(&a, 4);
    add(b, &request);
    run(b);
    check_answer(&a, 4, BT_FINISH_LENGTH);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.prompt_tokens_computed_total, 60);
    assert_int_equal(stats.load_misses_total, 1);
    clear_answer(&a);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(many_at_once_answer_as_each_alone),
        bt_test(a_small_pool_makes_requests_wait_in_order),
        bt_test(a_known_prefix_is_not_computed_again),
        bt_test(a_prompt_of_whole_blocks_still_computes_its_last_token),
        bt_test(a_request_larger_than_the_pool_is_refused_with_both_numbers),
        bt_test(a_cancel_ends_a_request_in_every_state),
        bt_test(a_failed_forward_pass_ends_its_requests),
        bt_test(ends_are_honoured_unless_ignored_or_too_early),
        bt_test(a_stop_string_ends_the_text_before_it),
        bt_test(a_character_goes_on_behind_the_prompt),
        bt_test(every_failed_allocation_of_a_request_is_reported),
        bt_test(every_failed_allocation_of_a_scheduler_is_reported),
        bt_test(a_token_that_cannot_be_told_ends_the_request),
        bt_test(prefill_then_decode_computes_one_prompt_token),
        bt_test(chunks_go_out_while_the_next_is_computed),
        bt_test(blocks_are_not_reused_before_the_transfer_is_over),
        bt_test(a_cancelled_prefill_keeps_its_blocks_until_the_transfer_is_over),
        bt_test(a_failed_transfer_fails_the_request_that_still_runs),
        bt_test(missing_chunks_are_computed_and_counted),
    };
    return bt_run_tests(tests);
}
