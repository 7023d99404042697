/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/schedkit.h"

#include "core/alloc.h"
#include "core/fail.h"

static void many_at_once_answer_as_each_alone(void **state)
{
    (void)state;
    enum { N = 20 };
    static answer answers[N];
    bench *b = sched_open(200, false, false);
    for (uint32_t i = 0; i < N; i++) {
        make_prompt(&answers[i], i / 2, 1 + 37 * (i % 5)); /* pairs are equal: prefix reuse */
        bt_generate request = request_of(&answers[i], 1 + i);
        sched_add(b, &request);
    }
    sched_run(b);
    for (uint32_t i = 0; i < N; i++) {
        check_answer(&answers[i], 1 + i, BT_FINISH_LENGTH);
        clear_answer(&answers[i]);
    }
    assert_in_range(b->model.most_items, 5, 8);
    assert_true(b->model.largest_batch <= 32);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    sched_close(b);
}

static void a_small_pool_makes_requests_wait_in_order(void **state)
{
    (void)state;
    enum { N = 6 };
    static answer answers[N];
    bench *b = sched_open(20, false, false); /* 80 tokens */
    for (uint32_t i = 0; i < N; i++) {
        make_prompt(&answers[i], 100 + i, 30);
        bt_generate request = request_of(&answers[i], 10);
        sched_add(b, &request);
    }
    bt_scheduler_stats stats;
    bt_scheduler_step(b->scheduler);
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.n_running, 2);
    assert_int_equal(stats.n_waiting, 4);
    sched_run(b);
    for (uint32_t i = 0; i < N; i++) {
        check_answer(&answers[i], 10, BT_FINISH_LENGTH);
        clear_answer(&answers[i]);
    }
    sched_close(b);
}

static void a_known_prefix_is_not_computed_again(void **state)
{
    (void)state;
    static answer first, again;
    bench *b = sched_open(100, false, false);
    make_prompt(&first, 5, 41);
    bt_generate request = request_of(&first, 5);
    sched_add(b, &request);
    sched_run(b);
    make_prompt(&again, 5, 41);
    request = request_of(&again, 5);
    sched_add(b, &request);
    sched_run(b);
    check_answer(&again, 5, BT_FINISH_LENGTH);
    assert_int_equal(again.n_cached, 40);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.prompt_tokens_computed_total, 41 + 1);
    assert_int_equal(stats.prompt_tokens_cached_total, 40);
    clear_answer(&first);
    clear_answer(&again);
    sched_close(b);
}

static void a_prompt_of_whole_blocks_still_computes_its_last_token(void **state)
{
    (void)state;
    static answer answers[2];
    bench *b = sched_open(100, false, false);
    for (int i = 0; i < 2; i++) {
        make_prompt(&answers[i], 6, 40);
        bt_generate request = request_of(&answers[i], 3);
        sched_add(b, &request);
        sched_run(b);
        check_answer(&answers[i], 3, BT_FINISH_LENGTH);
        clear_answer(&answers[i]);
    }
    assert_int_equal(answers[1].n_cached, 36);
    sched_close(b);
}

static void a_request_larger_than_the_pool_is_refused_with_both_numbers(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(10, false, false);
    make_prompt(&a, 1, 38);
    bt_generate request = request_of(&a, 3);
    sched_add(b, &request);
    assert_int_equal(a.n_finished, 1);
    assert_int_equal(a.status, BATON_ERR_TOO_LARGE);
    assert_string_equal(a.error,
                        "request: prompt and max_tokens need 11 blocks of 4 tokens, the engine "
                        "has 10");
    sched_close(b);
}

static void a_cancel_ends_a_request_in_every_state(void **state)
{
    (void)state;
    static answer running, waiting, other;
    bench *b = sched_open(20, false, false);
    make_prompt(&running, 1, 40);
    make_prompt(&waiting, 2, 60);
    make_prompt(&other, 3, 10);
    bt_generate request = request_of(&running, 20);
    sched_add(b, &request);
    request = request_of(&waiting, 5);
    sched_add(b, &request);
    bt_scheduler_step(b->scheduler);
    bt_scheduler_cancel(b->scheduler, &waiting);
    bt_scheduler_cancel(b->scheduler, &running);
    bt_scheduler_cancel(b->scheduler, &running); /* over already: nothing happens */
    assert_int_equal(running.status, BATON_ERR_CANCELED);
    assert_int_equal(waiting.status, BATON_ERR_CANCELED);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    request = request_of(&other, 5);
    sched_add(b, &request);
    sched_run(b);
    check_answer(&other, 5, BT_FINISH_LENGTH);
    clear_answer(&other);
    clear_answer(&running);
    sched_close(b);
}

static void a_failed_forward_pass_ends_its_requests(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(40, false, false);
    b->model.fail_after = 1;
    make_prompt(&a, 1, 30);
    bt_generate request = request_of(&a, 5);
    sched_add(b, &request);
    bt_expect_log("forward pass of 1 sequences failed");
    sched_run(b);
    assert_int_equal(a.finish, BT_FINISH_ERROR);
    assert_int_equal(a.status, BATON_ERR_IO);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    sched_close(b);
}

/* Ends: the third token of the fake continuation is made EOS, a stop token, then ignored. */
static void ends_are_honoured_unless_ignored_or_too_early(void **state)
{
    (void)state;
    static answer a;
    make_prompt(&a, 9, 20);
    uint32_t output[5];
    bt_fake_continue(a.prompt, 20, 5, output);
    bench *b = sched_open(40, false, false);
    bt_scheduler_destroy(b->scheduler);
    b->options.ends.eos_ids = &output[2];
    b->options.ends.n_eos_ids = 1;
    assert_ok(bt_scheduler_create(&b->options, &b->scheduler));

    bt_generate request = request_of(&a, 5);
    sched_add(b, &request);
    sched_run(b);
    check_answer(&a, 3, BT_FINISH_STOP);
    clear_answer(&a);

    make_prompt(&a, 9, 20);
    request.ignore_eos = true;
    sched_add(b, &request);
    sched_run(b);
    check_answer(&a, 5, BT_FINISH_LENGTH);
    clear_answer(&a);

    make_prompt(&a, 9, 20);
    request.stop_ids[0] = output[1];
    request.n_stop_ids = 1;
    sched_add(b, &request);
    sched_run(b);
    check_answer(&a, 2, BT_FINISH_STOP);
    clear_answer(&a);

    make_prompt(&a, 9, 20);
    request.min_tokens = 4;
    sched_add(b, &request);
    sched_run(b);
    assert_true(a.n_output >= 4);
    assert_int_not_equal(a.output[1], output[1]);
    clear_answer(&a);
    sched_close(b);
}

static void a_stop_string_ends_the_text_before_it(void **state)
{
    (void)state;
    static answer a;
    make_prompt(&a, 12, 20);
    bench *b = sched_open(100, false, false);
    bt_generate request = request_of(&a, 40);
    sched_add(b, &request);
    sched_run(b);
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
    sched_add(b, &request);
    sched_run(b);
    assert_int_equal(a.finish, BT_FINISH_STOP);
    assert_int_equal(a.text.length, found - whole);
    assert_memory_equal(bt_strbuf_text(&a.text), whole, a.text.length);
    assert_true(a.n_output < 40);
    clear_answer(&a);
    sched_close(b);
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
    bench *b = sched_open(20, false, false);
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
    sched_close(b);
}

/* No memory for an event: the request ends with the one that was made in advance. */
static void a_token_that_cannot_be_told_ends_the_request(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(20, false, false);
    make_prompt(&a, 1, 3);
    bt_generate request = request_of(&a, 5);
    sched_add(b, &request);
    bt_alloc_fail_at(1);
    bt_scheduler_step(b->scheduler);
    bt_alloc_fail_at(0);
    assert_int_equal(a.n_finished, 1);
    assert_int_equal(a.status, BATON_ERR_NO_MEMORY);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    sched_close(b);
}

static const bt_handoff_target target = {.request = "req-1", .host = "h", .n_ranks = 1};

static void prefill_then_decode_computes_one_prompt_token(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {1, 7, 8, 9, 63, 64, 65, 130};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        static answer p, d;
        bench *prefill = sched_open(100, true, false), *decode = sched_open(100, false, true);
        make_prompt(&p, 40 + i, lengths[i]);
        bt_generate request = request_of(&p, 1);
        request.target = &target;
        sched_add(prefill, &request);
        sched_run(prefill);
        bt_scheduler_step(prefill->scheduler);
        check_answer(&p, 1, BT_FINISH_LENGTH);
        assert_true(bt_scheduler_is_empty(prefill->scheduler));

        memcpy(decode->landed, prefill->landed, sizeof(decode->landed));
        memcpy(decode->landed_tokens, prefill->landed_tokens, sizeof(decode->landed_tokens));
        decode->n_landed = prefill->n_landed;
        make_prompt(&d, 40 + i, lengths[i]);
        d.prompt[d.n_prompt++] = p.output[0];
        request = request_of(&d, 10);
        sched_add(decode, &request);
        sched_run(decode);
        check_answer(&d, 10, BT_FINISH_LENGTH);
        assert_int_equal(d.n_cached, lengths[i]);
        bt_scheduler_stats stats;
        bt_scheduler_get_stats(decode->scheduler, &stats);
        assert_int_equal(stats.prompt_tokens_computed_total, 1);
        assert_int_equal(stats.load_misses_total, 0);
        clear_answer(&p);
        clear_answer(&d);
        sched_close(prefill);
        sched_close(decode);
    }
}

static void chunks_go_out_while_the_next_is_computed(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(100, true, false);
    make_prompt(&a, 3, 50); /* computed 16 at a time, chunks of 8 */
    bt_generate request = request_of(&a, 1);
    request.target = &target;
    sched_add(b, &request);
    for (uint32_t step = 1; step <= 3; step++) {
        bt_scheduler_step(b->scheduler);
        assert_int_equal(b->transfers[0].n_ready, 2 * step);
        assert_false(b->transfers[0].finished);
    }
    bt_scheduler_step(b->scheduler);
    assert_int_equal(b->transfers[0].n_ready, 7);
    assert_true(b->transfers[0].finished);
    sched_run(b);
    clear_answer(&a);
    sched_close(b);
}

static void blocks_are_not_reused_before_the_transfer_is_over(void **state)
{
    (void)state;
    static answer first, second;
    bench *b = sched_open(20, true, false); /* 80 tokens */
    b->may_read = false;
    make_prompt(&first, 1, 60);
    bt_generate request = request_of(&first, 1);
    request.target = &target;
    sched_add(b, &request);
    sched_run(b);
    check_answer(&first, 1, BT_FINISH_LENGTH); /* answered, although the KV has not left */
    make_prompt(&second, 2, 60);
    request = request_of(&second, 1);
    request.target = &target;
    sched_add(b, &request);
    sched_run(b);
    assert_int_equal(second.n_finished, 0);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.n_draining, 1);
    assert_int_equal(stats.n_waiting, 1);
    b->may_read = true;
    sched_run(b);
    bt_scheduler_step(b->scheduler);
    check_answer(&second, 1, BT_FINISH_LENGTH);
    assert_int_equal(b->n_landed, 60);
    assert_true(bt_scheduler_is_empty(b->scheduler));
    clear_answer(&first);
    clear_answer(&second);
    sched_close(b);
}

static void layers_go_out_while_they_are_computed_and_never_twice(void **state)
{
    (void)state;
    for (uint32_t group = 1; group < FAKE_LAYERS; group++) {
        for (uint32_t n = 1; n < 70; n += 3) {
            bench *b = sched_open(100, true, false);
            b->layer_group = group;
            answer first, again;
            make_prompt(&first, 5, n);
            bt_generate request = request_of(&first, 1);
            request.target = &target;
            sched_add(b, &request);
            sched_run(b);
            bt_scheduler_step(b->scheduler);
            check_answer(&first, 1, BT_FINISH_LENGTH);
            uint32_t n_chunks = (n + CHUNK - 1) / CHUNK;
            uint32_t n_groups = (FAKE_LAYERS + group - 1) / group;
            assert_int_equal(b->transfers[0].n_ready, n_chunks);
            assert_int_equal(b->n_whole, 0);
            assert_int_equal(b->n_groups, n_chunks * n_groups);
            /* What the prefix cache has was computed before: those chunks go whole. */
            make_prompt(&again, 5, n);
            request = request_of(&again, 1);
            request.target = &target;
            sched_add(b, &request);
            sched_run(b);
            bt_scheduler_step(b->scheduler);
            check_answer(&again, 1, BT_FINISH_LENGTH);
            uint32_t n_cached = (n - 1) / FAKE_BLOCK_TOKENS * FAKE_BLOCK_TOKENS / CHUNK;
            assert_int_equal(b->transfers[1].n_ready, n_chunks);
            assert_int_equal(b->n_whole, n_cached);
            assert_int_equal(b->n_groups, (2 * n_chunks - n_cached) * n_groups);
            clear_answer(&first);
            clear_answer(&again);
            sched_close(b);
        }
    }
}

static void a_cancelled_prefill_keeps_its_blocks_until_the_transfer_is_over(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(20, true, false);
    b->may_read = false;
    make_prompt(&a, 1, 60);
    bt_generate request = request_of(&a, 1);
    request.target = &target;
    sched_add(b, &request);
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
    sched_close(b);
}

static void a_failed_transfer_fails_the_request_that_still_runs(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(100, true, false);
    make_prompt(&a, 1, 60);
    bt_generate request = request_of(&a, 1);
    request.target = &target;
    sched_add(b, &request);
    bt_scheduler_step(b->scheduler);
    b->transfers[0].fail = BATON_ERR_PEER_GONE;
    sched_run(b);
    assert_int_equal(a.finish, BT_FINISH_ERROR);
    assert_int_equal(a.status, BATON_ERR_PEER_GONE);
    assert_string_equal(a.error, "fake failure");
    assert_true(bt_scheduler_is_empty(b->scheduler));

    make_prompt(&a, 2, 60);
    b->begin_fails = BATON_ERR_PERMISSION;
    sched_add(b, &request);
    sched_run(b);
    assert_int_equal(a.status, BATON_ERR_PERMISSION);
    sched_close(b);

    b = sched_open(100, false, false);
    make_prompt(&a, 2, 60);
    sched_add(b, &request);
    sched_run(b);
    assert_int_equal(a.status, BATON_ERR_UNSUPPORTED);
    sched_close(b);
}

static void missing_chunks_are_computed_and_counted(void **state)
{
    (void)state;
    static answer a;
    bench *b = sched_open(100, false, true);
    make_prompt(&a, 1, 60);
    b->n_landed = 0; /* nothing came */
    bt_generate request = request_of(&a, 4);
    sched_add(b, &request);
    sched_run(b);
    check_answer(&a, 4, BT_FINISH_LENGTH);
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    assert_int_equal(stats.prompt_tokens_computed_total, 60);
    assert_int_equal(stats.load_misses_total, 1);
    clear_answer(&a);
    sched_close(b);
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
        bt_test(layers_go_out_while_they_are_computed_and_never_twice),
        bt_test(a_cancelled_prefill_keeps_its_blocks_until_the_transfer_is_over),
        bt_test(a_failed_transfer_fails_the_request_that_still_runs),
        bt_test(missing_chunks_are_computed_and_counted),
    };
    return bt_run_tests(tests);
}
