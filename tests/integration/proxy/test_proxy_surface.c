/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include "core/alloc.h"

#include <stdio.h>

static rig r;

static void expect(const char *path, unsigned status, const char *piece)
{
    reply answer = rig_get(&r, path);
    if (answer.status != status || strstr(answer.body, piece) == NULL)
        fail_msg("%s: wanted %u \"%s\", found %u %s", path, status, piece, answer.status,
                 answer.body);
    reply_free(&answer);
}

static void routes_answer(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    expect("/health", 200, "ok");
    expect("/healthz", 200, "ok");
    expect("/version", 200, BATON_VERSION);
    expect("/readyz", 200, "\"prefill\":{\"up\":1,\"of\":1}");
    expect("/no/such", 404, "\"error\"");
    expect("/v1/completions", 405, "\"error\"");
    reply answer = rig_post(&r, "/health", "", "");
    assert_int_equal(answer.status, 405);
    assert_non_null(strcasestr(answer.head, "allow: GET"));
    reply_free(&answer);
    rig_close(&r);
}

static void ready_says_which_role_is_missing(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_decode = 2});
    fake_die(r.decode[0]);
    expect("/readyz", 200, "\"decode\":{\"up\":1,\"of\":2}");
    fake_set(r.decode[1], &(fake_script){.status = 500, .body = "{}"});
    expect("/readyz", 503, "\"decode\":{\"up\":0,\"of\":2}");
    rig_close(&r);
}

static void models_of_all_engines_are_named_once(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 2});
    reply answer = rig_get(&r, "/v1/models");
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body, "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"x\":1},"
                                     "{\"id\":\"lora\"}]}");
    reply_free(&answer);
    fake_die(r.prefill[0]);
    expect("/v1/models", 200, "lora");
    fake_die(r.prefill[1]);
    fake_die(r.decode[0]);
    expect("/v1/models", 503, "no_worker");
    rig_close(&r);
}

static void tokenize_and_detokenize_pass_through(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_prefill = 2, .options.retries = 1});
    const char *body = "{\"prompt\" : \"x\"}";
    reply answer = rig_post(&r, "/tokenize", "", body);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "[11,12,13]"));
    reply_free(&answer);
    assert_string_equal(fake_nth(r.prefill[0], 0)->body, body);
    fake_die(r.prefill[1]);
    answer = rig_post(&r, "/detokenize", "", "{\"tokens\":[1]}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_string_equal(fake_nth(r.prefill[0], 1)->path, "/detokenize");
    rig_close(&r);
}

static void client_that_leaves_a_question_to_all_engines_is_no_trouble(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 2});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation c = rig_begin_get(&r, "/v1/models");
    fake_nth(r.prefill[0], 0);
    fake_nth(r.prefill[1], 0);
    rig_leave(&c);
    fake_wait_gone(r.prefill[0], 1);
    /* And a proxy that ends meanwhile ends the question too. */
    c = rig_begin_get(&r, "/readyz");
    fake_nth(r.prefill[0], 1);
    bt_proxy_destroy(r.proxy);
    r.proxy = NULL;
    fake_wait_gone(r.prefill[0], 2);
    rig_leave(&c);
    rig_close(&r);
}

static void metrics_count_what_happened(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[1],\"max_tokens\":4}");
    reply_free(&answer);
    answer = rig_post(&r, "/v1/completions", "", "{");
    reply_free(&answer);
    assert_int_equal(
        rig_metric(&r, "baton_proxy_requests_total{route=\"completions\",code=\"200\"}"), 1);
    assert_int_equal(
        rig_metric(&r, "baton_proxy_requests_total{route=\"completions\",code=\"400\"}"), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_ttft_seconds_count"), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_duration_seconds_count"), 2);
    const char *phases[] = {"prefill", "decode_first"};
    for (int i = 0; i < 2; i++) {
        char name[96];
        snprintf(name, sizeof(name), "baton_proxy_phase_seconds_count{phase=\"%s\"}", phases[i]);
        assert_int_equal(rig_metric(&r, name), 1);
    }
    char name[128];
    snprintf(name, sizeof(name),
             "baton_proxy_worker_requests_total{worker=\"127.0.0.1:%u\",role=\"decode\"}",
             fake_port(r.decode[0]));
    assert_int_equal(rig_metric(&r, name), 1);
    assert_true(rig_metric(&r, "baton_proxy_cpu_seconds_total") > 0);
    assert_int_equal(rig_metric(&r, "baton_proxy_inflight"), 0);
    rig_close(&r);
}

static void draining_says_so_and_lets_requests_end(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options.threads = 1});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation c = rig_begin(&r, "/v1/completions", "{\"prompt\":[1],\"max_tokens\":4}");
    fake_nth(r.prefill[0], 0);
    bt_proxy_drain(r.proxy);
    fake_release(r.prefill[0]);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    bt_proxy *proxy = NULL;
    bt_proxy_options options = {.notices = BT_NOTICES_AUTO};
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_INVALID_ARG, "found 0 and 0");
    rig_open(&r, &(rig_options){0});
    bt_worker_address at = {.host = "127.0.0.1", .port = 1};
    options = (bt_proxy_options){
        .prefill = &at, .decode = &at, .n_prefill = 1, .n_decode = 1, .threads = 1};
    options.notice_port = bt_proxy_notice_port(r.proxy);
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_ADDRESS_IN_USE, NULL);
    options.notice_port = 0;
    options.notices = 65;
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_OUT_OF_RANGE, "notices");
    options.notices = 0;
    options.threads = 65;
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_OUT_OF_RANGE, "threads");
    options.threads = 1;
    options.receiver_key = "receiver.pub";
    assert_fails(bt_proxy_start(&options, &proxy), BATON_ERR_CONFIG, "key_file is not set");
    rig_close(&r);
}

static void every_failed_allocation_at_start_is_an_error(void **state)
{
    (void)state;
    bt_worker_address at = {.host = "127.0.0.1", .port = 1};
    bt_proxy_options options = {
        .prefill = &at, .decode = &at, .n_prefill = 1, .n_decode = 1, .threads = 2};
    baton_status status = BATON_ERR_NO_MEMORY;
    uint64_t nth = 0;
    while (status != BATON_OK) {
        bt_proxy *proxy = NULL;
        bt_alloc_fail_at(++nth);
        status = bt_proxy_start(&options, &proxy);
        bt_alloc_fail_at(0);
        if (status != BATON_OK)
            assert_int_equal(status, BATON_ERR_NO_MEMORY);
        bt_proxy_destroy(proxy);
    }
    assert_true(nth > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(routes_answer),
        bt_test(ready_says_which_role_is_missing),
        bt_test(models_of_all_engines_are_named_once),
        bt_test(tokenize_and_detokenize_pass_through),
        bt_test(client_that_leaves_a_question_to_all_engines_is_no_trouble),
        bt_test(metrics_count_what_happened),
        bt_test(draining_says_so_and_lets_requests_end),
        bt_test(every_failed_allocation_at_start_is_an_error),
        bt_test(wrong_options_are_refused),
    };
    return bt_run_tests(tests);
}
