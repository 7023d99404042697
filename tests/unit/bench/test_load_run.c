/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs against a fake server over loopback. */
#include "fake_openai.h"

#include "bench/load/load_summary.h"
#include "core/clock.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static fake_openai *fake;
static bt_load_options options;
static bt_load_runner *runner;
static bt_load_result result;
static bt_load_summary summary;

static int start(void **state)
{
    bt_test_setup(state);
    fake = fake_openai_start();
    options = (bt_load_options){
        .url = "http://127.0.0.1",
        .host = "127.0.0.1",
        .port = fake_openai_port(fake),
        .n_requests = 40,
        .concurrency = 4,
        .input_tokens = {10, 30},
        .output_tokens = {6, 6},
        .chars_per_token = 1,
        .vocab = 256,
        .stream = true,
        .timeout_ms = 60000,
        .connect_timeout_ms = 60000,
        .answers_path = "unused",
        .n_turns = 1,
        .n_prefixes = 1,
        .burst_size = 1,
        .burstiness = 1,
        .quiet = true,
    };
    return 0;
}

static int stop(void **state)
{
    bt_load_runner_destroy(runner);
    runner = NULL;
    bt_load_result_free(&result);
    if (fake != NULL)
        fake_openai_stop(fake, NULL);
    fake = NULL;
    return bt_test_teardown(state);
}

static void run(void)
{
    const bt_load_phase phase = {
        .title = "", .n_requests = options.n_requests, .rate = options.rate};
    assert_ok(bt_load_runner_create(&options, &runner));
    assert_ok(bt_load_warm_up(runner));
    assert_ok(bt_load_run(runner, &phase, &result));
    assert_ok(bt_load_summarize(&options, &result, &summary));
}

static void streams_are_measured_token_by_token(void **state)
{
    (void)state;
    run();
    assert_int_equal(summary.n_ok, 40);
    assert_int_equal(summary.n_errors, 0);
    assert_string_equal(result.model, "fake-1"); /* asked for */
    assert_int_equal(summary.prompt_tokens, 40 * 11);
    assert_int_equal(summary.cached_tokens, 40 * 3);
    assert_int_equal(summary.output_tokens, 40 * 6);
    assert_int_equal(summary.spread[BT_LOAD_TTFT].n, 40);
    assert_int_equal(summary.spread[BT_LOAD_TPOT].n, 40);
    assert_int_equal(summary.spread[BT_LOAD_ITL].n, 40 * 5);
    for (uint32_t i = 0; i < 40; i++) {
        const bt_load_record *record = &result.records[i];
        assert_true(record->start_ns <= record->first_ns && record->first_ns <= record->last_ns &&
                    record->last_ns <= record->end_ns);
        assert_string_equal(bt_strbuf_text(&record->text), "abababababab");
    }
}

static void chat_counts_no_role_event_as_a_token(void **state)
{
    (void)state;
    options.backend = BT_LOAD_CHAT;
    options.model = "given";
    run();
    assert_string_equal(result.model, "given");
    assert_int_equal(summary.n_ok, 40);
    assert_int_equal(summary.spread[BT_LOAD_ITL].n, 40 * 5);
    assert_string_equal(bt_strbuf_text(&result.records[3].text), "abababababab");
}

/* A prompt file that makes the fake server misbehave. */
static void write_prompts(char *path, const char *text)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    options.dataset_path = path;
}

static void reasoning_and_calls_of_tools_are_tokens(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-run-XXXXXX";
    options.backend = BT_LOAD_CHAT;
    write_prompts(path, "think\n");
    run();
    unlink(path);
    assert_int_equal(summary.n_ok, 40);
    assert_int_equal(summary.spread[BT_LOAD_ITL].n, 40 * 5);
    assert_string_equal(bt_strbuf_text(&result.records[3].text), "abababab");
}

static void whole_answers_have_an_end_to_end_time_only(void **state)
{
    (void)state;
    options.stream = false;
    options.token_ids = true;
    run();
    assert_int_equal(summary.n_ok, 40);
    assert_int_equal(summary.spread[BT_LOAD_E2EL].n, 40);
    assert_int_equal(summary.spread[BT_LOAD_TTFT].n + summary.spread[BT_LOAD_TPOT].n +
                         summary.spread[BT_LOAD_ITL].n,
                     0);
    assert_string_equal(bt_strbuf_text(&result.records[0].text), "abababababab");
}

static void a_warm_up_is_not_measured(void **state)
{
    (void)state;
    options.n_warmups = 9;
    run();
    assert_int_equal(summary.n_sent, 40);
    assert_int_equal(summary.output_tokens, 40 * 6);
}

static void phases_follow_each_other(void **state)
{
    (void)state;
    options.n_turns = 2;
    options.turn_delay_ms = 1;
    run();
    for (uint32_t k = 0; k < 30; k++) {
        const bt_load_phase phase = {
            .title = "", .n_requests = 5, .base = 100 * k, .rate = k % 2 == 0 ? 0 : 2000};
        bt_load_result_free(&result);
        assert_ok(bt_load_run(runner, &phase, &result));
        assert_ok(bt_load_summarize(&options, &result, &summary));
        assert_int_equal(summary.n_ok, 5);
    }
}

static void turns_follow_each_other(void **state)
{
    (void)state;
    options.n_turns = 3;
    options.turn_delay_ms = 1;
    options.n_requests = 11;
    options.rate = 1000;
    options.concurrency = 2;
    run();
    assert_int_equal(summary.n_ok, 11);
    for (uint32_t i = 0; i < 11; i++) {
        if (i % 3 != 0)
            assert_true(result.records[i].start_ns >= result.records[i - 1].end_ns + BT_NS_PER_MS);
    }
    assert_in_range(summary.peak_running, 1, 2);
}

static void a_turn_that_failed_does_not_end_a_conversation(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-run-XXXXXX";
    write_prompts(path, "fine\nrefuse\nfine\n");
    options.n_turns = 3;
    options.n_requests = 9;
    run();
    unlink(path);
    assert_int_equal(summary.n_ok, 6);
    assert_int_equal(summary.n_sent, 9);
}

static void concurrency_is_a_limit(void **state)
{
    (void)state;
    options.concurrency = 3;
    options.rate = 1e6; /* all due at once */
    run();
    assert_int_equal(summary.n_ok, 40);
    uint32_t most;
    fake_openai_stop(fake, &most);
    fake = NULL;
    assert_in_range(most, 1, 3);
}

static uint32_t errors_called(const char *kind)
{
    for (size_t i = 0; i < summary.n_errors; i++) {
        if (strcmp(summary.errors[i].kind, kind) == 0)
            return summary.errors[i].n;
    }
    return 0;
}

static void every_kind_of_failure_is_counted(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-run-XXXXXX";
    write_prompts(path, "fine\nrefuse\ncut\ncomplain\ngarble\n");
    run();
    unlink(path);
    assert_int_equal(summary.n_ok, 8);
    assert_int_equal(errors_called("http 503"), 8);
    assert_int_equal(errors_called("stream cut"), 8);
    assert_int_equal(errors_called("error in stream"), 8);
    assert_int_equal(errors_called("bad answer"), 8);
    assert_int_equal(summary.n_errors, 4);
    assert_int_equal(summary.spread[BT_LOAD_TTFT].n, 8); /* failures do not flatter the figures */
}

static void a_server_that_is_silent_runs_into_the_timeout(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-run-XXXXXX";
    write_prompts(path, "hang\n");
    options.model = "m";
    options.n_requests = 4;
    options.timeout_ms = 100;
    run();
    unlink(path);
    assert_int_equal(summary.n_ok, 0);
    assert_int_equal(summary.n_errors, 1);
    assert_int_equal(summary.errors[0].n, 4);
    assert_non_null(strstr(summary.errors[0].kind, baton_strerror(BATON_ERR_DEADLINE)));
}

static void an_interrupted_run_ends_early_and_is_reported(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-run-XXXXXX";
    write_prompts(path, "fine\nfine\nfine\nfine\nhang\nfine\ninterrupt\n");
    run();
    unlink(path);
    assert_true(result.interrupted);
    assert_in_range(summary.n_sent, 7, 39);
    assert_in_range(summary.n_ok, 1, summary.n_sent - 2);
    assert_int_equal(summary.n_errors, 1);
    assert_non_null(strstr(summary.errors[0].kind, baton_strerror(BATON_ERR_CANCELED)));
}

static void nobody_there_is_said_before_anything_is_sent(void **state)
{
    (void)state;
    fake_openai_stop(fake, NULL);
    fake = NULL;
    assert_fails(bt_load_runner_create(&options, &runner), BATON_ERR_UNREACHABLE, "/v1/models");
    options.model = "m"; /* not asked for: then every request fails */
    run();
    assert_int_equal(summary.n_ok, 0);
    assert_int_equal(summary.errors[0].n, 40);
    assert_non_null(strstr(summary.errors[0].kind, "connect"));
}

#define load_test(fn) cmocka_unit_test_setup_teardown(fn, start, stop)

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        load_test(streams_are_measured_token_by_token),
        load_test(chat_counts_no_role_event_as_a_token),
        load_test(reasoning_and_calls_of_tools_are_tokens),
        load_test(whole_answers_have_an_end_to_end_time_only),
        load_test(a_warm_up_is_not_measured),
        load_test(phases_follow_each_other),
        load_test(turns_follow_each_other),
        load_test(a_turn_that_failed_does_not_end_a_conversation),
        load_test(concurrency_is_a_limit),
        load_test(every_kind_of_failure_is_counted),
        load_test(a_server_that_is_silent_runs_into_the_timeout),
        load_test(an_interrupted_run_ends_early_and_is_reported),
        load_test(nobody_there_is_said_before_anything_is_sent),
    };
    return bt_run_tests(tests);
}
