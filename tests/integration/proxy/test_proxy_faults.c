/* SPDX-License-Identifier: Apache-2.0 */
/* Engines that fail, clients that leave, input that is no request. */
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>

static const char whole[] = "{\"prompt\":[1],\"max_tokens\":4}";
static const char stream[] = "{\"prompt\":[1],\"max_tokens\":4,\"stream\":true}";
static const char text[] = "{\"prompt\":\"x\",\"max_tokens\":4}";
static rig r;

static void expect(reply answer, unsigned status, const char *code)
{
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "\"code\":\"%s\"", code);
    if (answer.status != status || strstr(answer.body, wanted) == NULL)
        fail_msg("wanted %u %s, found %u %s", status, code, answer.status, answer.body);
    assert_non_null(strstr(answer.body, "{\"error\":{"));
    assert_non_null(strcasestr(answer.head, "content-type: application/json"));
    reply_free(&answer);
}

static void dead_prefill_engine_is_replaced(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_prefill = 2, .options.retries = 1});
    fake_die(r.prefill[0]);
    for (int i = 0; i < 4; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", whole);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    assert_int_equal(fake_count(r.prefill[1]), 4);
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"prefill\"}"), 1);
    rig_close(&r);
}

static void dead_decode_engine_means_prefill_again_for_another(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_decode = 2, .options.retries = 1});
    fake_die(r.decode[0]);
    const char *bodies[] = {whole, stream};
    for (int i = 0; i < 2; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", bodies[i]);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body, "C"));
        assert_null(strstr(answer.body, "error"));
        reply_free(&answer);
    }
    /* The first attempt named the dead engine's receiver, the second the other's. */
    const fake_request *a = fake_nth(r.prefill[0], 0), *b = fake_nth(r.prefill[0], 1);
    assert_string_not_equal(a->attempt, b->attempt);
    assert_string_not_equal(strstr(a->body, "receiver_alloc_port"),
                            strstr(b->body, "receiver_alloc_port"));
    assert_int_equal(fake_count(r.decode[1]), 2);
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"decode\"}"), 1);
    rig_close(&r);
}

static void engine_that_is_down_is_left_alone_until_it_is_healthy(void **state)
{
    (void)state;
    char up[96];
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_decode = 2, .options = {.retries = 1, .ms.probe = 10}});
    snprintf(up, sizeof(up), "baton_proxy_worker_up{worker=\"127.0.0.1:%u\",role=\"decode\"}",
             fake_port(r.decode[0]));
    assert_int_equal(rig_metric(&r, up), 1);
    fake_die(r.decode[0]);
    for (int i = 0; i < 6; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", whole);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    /* One request found out, the others were spared. */
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"decode\"}"), 1);
    assert_int_equal(rig_metric(&r, up), 0);
    fake_revive(r.decode[0]);
    rig_wait_metric(&r, up, 1);
    assert_string_equal(fake_nth(r.decode[0], 0)->path, "/health");
    for (int i = 0; i < 4; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", whole);
        reply_free(&answer);
    }
    assert_string_equal(fake_nth(r.decode[0], 1)->path, "/v1/completions");
    rig_close(&r);
}

static void no_engine_left_is_an_honest_502(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.options.retries = 1});
    fake_die(r.decode[0]);
    expect(rig_post(&r, "/v1/completions", "", whole), 502, "decode_unreachable");
    fake_die(r.prefill[0]);
    expect(rig_post(&r, "/v1/completions", "", whole), 502, "prefill_unreachable");
    expect(rig_post(&r, "/v1/completions", "", text), 502, "prefill_unreachable");
    rig_close(&r);
}

static void dead_decode_engine_ends_a_begun_stream_with_an_error(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.options.retries = 1});
    fake_die(r.decode[0]);
    reply answer = rig_post(&r, "/v1/completions", "", stream);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "\"text\":\"A\""));
    assert_non_null(strstr(answer.body, "\n\ndata: {\"error\":{"));
    assert_non_null(strstr(answer.body, "\"decode_unreachable\""));
    assert_non_null(strstr(answer.body, "data: [DONE]\n\n"));
    assert_false(answer.is_cut);
    reply_free(&answer);
    rig_close(&r);
}

static void broken_leg_is_tried_elsewhere(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 2, .n_decode = 2, .options.retries = 1});
    fake_script cuts = {.way = FAKE_CUTS_HEAD, .only_first = 1};
    fake_script breaks = {.status = 500, .body = "{}", .only_first = 1};
    fake_set(r.prefill[0], &cuts);
    fake_set(r.decode[0], &breaks);
    for (int i = 0; i < 6; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", whole);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"prefill\"}"), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"decode\"}"), 1);
    rig_close(&r);
}

static void statuses_of_engines_are_passed_on_honestly(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){0});
    const char own_words[] = "{\"error\":{\"message\":\"too long\",\"code\":400}}";
    fake_set(r.prefill[0], &(fake_script){.status = 400, .body = own_words});
    reply answer = rig_post(&r, "/v1/completions", "", whole);
    assert_int_equal(answer.status, 400);
    assert_string_equal(answer.body, own_words);
    reply_free(&answer);
    fake_set(r.prefill[0], &(fake_script){.status = 500, .body = "Traceback"});
    expect(rig_post(&r, "/v1/completions", "", whole), 502, "prefill_failed");
    fake_set(r.prefill[0], &(fake_script){.status = 429, .body = "{}", .retry_after = "7"});
    answer = rig_post(&r, "/v1/completions", "", whole);
    assert_non_null(strcasestr(answer.head, "retry-after: 7"));
    expect(answer, 503, "overloaded");
    fake_set(r.prefill[0], &(fake_script){0});
    fake_set(r.decode[0], &(fake_script){.status = 422, .body = own_words});
    answer = rig_post(&r, "/v1/completions", "", whole);
    assert_int_equal(answer.status, 422);
    assert_string_equal(answer.body, own_words);
    reply_free(&answer);
    /* Behind a first token there is no status any more, but the words are the same. */
    answer = rig_post(&r, "/v1/completions", "", stream);
    assert_non_null(strstr(answer.body, "data: {\"error\":{\"message\":\"too long\",\"code\":400}}"
                                        "\n\ndata: [DONE]\n\n"));
    assert_false(answer.is_cut);
    reply_free(&answer);
    fake_set(r.decode[0], &(fake_script){.status = 422, .body = "two\nlines"});
    answer = rig_post(&r, "/v1/completions", "", stream);
    assert_non_null(strstr(answer.body, "\"decode_failed\""));
    reply_free(&answer);
    fake_set(r.decode[0], &(fake_script){.status = 503, .body = "{}"});
    expect(rig_post(&r, "/v1/completions", "", whole), 503, "overloaded");
    fake_set(r.decode[0], &(fake_script){.body = "no json"});
    expect(rig_post(&r, "/v1/completions", "", whole), 502, "decode_failed");
    fake_set_tokenize(r.prefill[0], &(fake_script){.status = 500, .body = "{}"});
    expect(rig_post(&r, "/v1/completions", "", text), 502, "tokenize_failed");
    rig_close(&r);
}

static const char *const half[] = {
    "data: {\"id\":\"cmpl-D\",\"choices\":[{\"index\":0,\"text\":\"B\"}]}\n\ndata: {\"id\":", NULL};

/* stream cut by the decode engine, merged and relayed */
static void cut_streams_end_with_an_error_and_done(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.options.retries = 1});
    /* Cut in the middle of an event, and ended properly but without [DONE]. */
    static const char *const no_done[] = {"data: {\"choices\":[{\"text\":\"B\"}]}\n\n", NULL};
    const fake_script scripts[] = {{.way = FAKE_CUTS_BODY, .events = half}, {.events = no_done}};
    const char *bodies[] = {stream, "{\"prompt\":[1],\"stream\":true,\"n\":2}"};
    for (int i = 0; i < 4; i++) {
        fake_set(r.decode[0], &scripts[i / 2]);
        reply answer = rig_post(&r, "/v1/completions", "", bodies[i % 2]);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body, "\"text\":\"B\""));
        assert_non_null(strstr(answer.body, "\n\ndata: {\"error\":{"));
        assert_non_null(strstr(answer.body, "\"decode_failed\""));
        const char *done = strstr(answer.body, "data: [DONE]\n\n");
        assert_non_null(done);
        assert_int_equal(strlen(done), 14);
        assert_false(answer.is_cut);
        reply_free(&answer);
    }
    assert_int_equal(fake_count(r.decode[0]), 4); /* never tried again behind its own bytes */
    rig_close(&r);
}

static void cut_json_is_seen_as_cut_or_made_again(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.n_decode = 2, .options.retries = 1});
    fake_script cuts = {.way = FAKE_CUTS_BODY, .body = "{\"id\":", .only_first = 1};
    /* Merged: nothing has been sent, so another engine makes it. */
    fake_set(r.decode[0], &cuts);
    fake_set(r.decode[1], &(fake_script){0});
    for (int i = 0; i < 2; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", whole);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body, "\"text\":\"ABC\""));
        reply_free(&answer);
    }
    /* Relayed: the client must not take it for a whole answer. */
    cuts.only_first = 0;
    fake_set(r.decode[0], &cuts);
    fake_set(r.decode[1], &cuts);
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[1],\"n\":2}");
    assert_true(answer.is_cut);
    reply_free(&answer);
    rig_close(&r);
}

/* Only the deadline that is meant is short: on a busy machine others would come first. */
static void every_phase_has_its_own_deadline(void **state)
{
    (void)state;
    const fake_script holds = {.way = FAKE_HOLDS};
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.options = {.retries = 1, .ms.tokenize = 40}});
    fake_set_tokenize(r.prefill[0], &holds);
    expect(rig_post(&r, "/v1/completions", "", text), 504, "tokenize_timeout");
    rig_close(&r);
    rig_open(&r, &(rig_options){.options = {.retries = 1, .ms.prefill = 60}});
    fake_set(r.prefill[0], &holds);
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "prefill_timeout");
    rig_close(&r);
    rig_open(&r, &(rig_options){.options = {.retries = 1, .ms.kv_wait = 60}});
    fake_set_notices(r.prefill[0], FAKE_NOTICE_NONE, 1, NULL);
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "kv_timeout");
    rig_close(&r);
    rig_open(&r, &(rig_options){.options = {.retries = 1, .ms.first_byte = 60}});
    fake_set(r.decode[0], &holds);
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "first_byte_timeout");
    rig_close(&r);
    rig_open(&r, &(rig_options){.options = {.retries = 1, .ms.gap = 60}});
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS_BODY, .body = "{\"id\":"});
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "gap_timeout");
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS_BODY, .events = half});
    reply answer = rig_post(&r, "/v1/completions", "", stream);
    assert_non_null(strstr(answer.body, "\"gap_timeout\""));
    assert_non_null(strstr(answer.body, "[DONE]"));
    reply_free(&answer);
    rig_close(&r);
}

static void total_deadline_bounds_all_phases(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.options.ms.total = 80});
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS});
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "total_timeout");
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "total_timeout");
    rig_close(&r);
}

/* An engine that is stopped keeps its connections, and takes new ones. */
static void silent_prefill_engine_is_replaced(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_prefill = 2,
                                .options = {.retries = 1, .ms = {.probe = 40, .silent = 80}}});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    for (int i = 0; i < 3; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", whole);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"prefill\"}"), 1);
    assert_int_equal(fake_count(r.prefill[1]), 3);
    rig_close(&r);
}

static void silent_engines_end_requests_with_an_error_of_their_own(void **state)
{
    (void)state;
    const fake_script holds = {.way = FAKE_HOLDS};
    char up[96];
    bt_expect_log("request failed");
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.options.ms = {.probe = 40, .silent = 80}});
    snprintf(up, sizeof(up), "baton_proxy_worker_up{worker=\"127.0.0.1:%u\",role=\"decode\"}",
             fake_port(r.decode[0]));
    fake_set(r.decode[0], &holds);
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "decode_silent");
    assert_int_equal(rig_metric(&r, up), 0);
    fake_set(r.decode[0], &(fake_script){0});
    rig_wait_metric(&r, up, 1); /* it goes on, and is asked often */
    fake_set(r.prefill[0], &holds);
    expect(rig_post(&r, "/v1/completions", "", whole), 504, "prefill_silent");
    rig_close(&r);
    rig_open(&r, &(rig_options){.options.ms = {.probe = 40, .silent = 80}});
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS_BODY, .events = half});
    conversation c = rig_begin(&r, "/v1/completions", stream);
    rig_read_until(&c, "\"text\":\"B\"");
    fake_set(r.decode[0], &holds);
    reply answer = rig_finish(&c);
    assert_non_null(strstr(answer.body, "\"decode_silent\""));
    assert_non_null(strstr(answer.body, "[DONE]"));
    reply_free(&answer);
    rig_close(&r);
}

static void an_engine_that_answers_for_its_health_may_compute_for_long(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options.ms = {.probe = 20, .silent = 2000}});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_COMPUTES});
    conversation c = rig_begin(&r, "/v1/completions", whole);
    for (unsigned i = 1; i <= 5; i++)
        assert_string_equal(fake_nth(r.prefill[0], i)->path, "/health");
    fake_release(r.prefill[0]);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

/* The client leaves in each phase: the engine at work is hung up on, and the KV given back. */
static void client_that_leaves_cancels_the_legs_and_releases_the_kv(void **state)
{
    (void)state;
    char id[64];
    const fake_script holds = {.way = FAKE_HOLDS}, good = {0};
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE});

    fake_set_tokenize(r.prefill[0], &holds);
    conversation c = rig_begin(&r, "/v1/completions", text);
    fake_nth(r.prefill[0], 0);
    rig_leave(&c);
    fake_wait_gone(r.prefill[0], 1);
    rig_wait_metric(&r, "baton_proxy_cancels_total{phase=\"tokenize\"}", 1);

    fake_set(r.prefill[0], &holds);
    c = rig_begin(&r, "/v1/completions", whole);
    const fake_request *leg = fake_nth(r.prefill[0], 1);
    rig_leave(&c);
    fake_wait_gone(r.prefill[0], 2);
    assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
    assert_string_equal(id, leg->attempt);
    rig_wait_metric(&r, "baton_proxy_cancels_total{phase=\"prefill\"}", 1);

    fake_set(r.prefill[0], &good);
    c = rig_begin(&r, "/v1/completions", stream);
    rig_read_until(&c, "\"text\":\"A\"");
    leg = fake_nth(r.prefill[0], 2);
    rig_leave(&c);
    assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
    assert_string_equal(id, leg->attempt);
    rig_wait_metric(&r, "baton_proxy_cancels_total{phase=\"kv_wait\"}", 1);

    fake_set_notices(r.prefill[0], FAKE_NOTICE_READY, 1, NULL);
    fake_set(r.decode[0], &holds);
    c = rig_begin(&r, "/v1/completions", whole);
    fake_nth(r.decode[0], 0);
    rig_leave(&c);
    fake_wait_gone(r.decode[0], 1);
    assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
    rig_wait_metric(&r, "baton_proxy_cancels_total{phase=\"decode_first\"}", 1);

    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS_BODY, .events = half});
    c = rig_begin(&r, "/v1/completions", stream);
    rig_read_until(&c, "\"text\":\"B\"");
    rig_leave(&c);
    fake_wait_gone(r.decode[0], 2);
    rig_wait_metric(&r, "baton_proxy_cancels_total{phase=\"decode\"}", 1);
    rig_close(&r);
}

static void a_slow_client_slows_the_engine_and_gets_everything(void **state)
{
    (void)state;
    enum { N_EVENTS = 4000, EVENT_BYTES = 1200 };
    static char event[EVENT_BYTES + 64];
    static const char *events[N_EVENTS + 2];
    char filler[EVENT_BYTES + 1];
    memset(filler, 'x', EVENT_BYTES);
    filler[EVENT_BYTES] = 0;
    snprintf(event, sizeof(event), "data: {\"x\":\"%s\"}\n\n", filler);
    for (int i = 0; i < N_EVENTS; i++)
        events[i] = event;
    events[N_EVENTS] = "data: [DONE]\n\n";
    rig_open(&r, &(rig_options){0});
    fake_set(r.decode[0], &(fake_script){.events = events});
    const char *bodies[] = {stream, "{\"prompt\":[1],\"stream\":true,\"n\":2}"};
    for (int i = 0; i < 2; i++) {
        conversation c = rig_begin(&r, "/v1/completions", bodies[i]);
        fake_nth(r.decode[0], (unsigned)i);
        reply answer = rig_finish(&c);
        assert_false(answer.is_cut);
        assert_true(answer.n > N_EVENTS * (size_t)EVENT_BYTES);
        assert_non_null(strstr(answer.body + answer.n - 20, "[DONE]"));
        reply_free(&answer);
    }
    rig_close(&r);
}

static void what_is_no_request_touches_no_engine(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    const char *bodies[] = {"",
                            "{",
                            "[]",
                            "{\"prompt\":",
                            "{\"prompt\":\"x\",\"max_tokens\":0}",
                            "{\"prompt\":\"\xff\"}"};
    for (int i = 0; i < 6; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", bodies[i]);
        assert_int_equal(answer.status, 400);
        assert_non_null(strstr(answer.body, "\"type\":\"invalid_request_error\""));
        reply_free(&answer);
    }
    const char *raw[] = {
        "POST  HTTP/1.1\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: "
        "6\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        "Transfer-Encoding: chunked\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    };
    for (int i = 0; i < 4; i++) {
        reply answer = rig_raw(&r, raw[i], strlen(raw[i]));
        assert_int_equal(answer.status, 400);
        reply_free(&answer);
    }
    assert_int_equal(fake_count(r.prefill[0]) + fake_count(r.decode[0]), 0);
    rig_close(&r);
}

static void too_many_requests_are_shed(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options.max_inflight = 1});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation c = rig_begin(&r, "/v1/completions", whole);
    fake_nth(r.prefill[0], 0);
    reply answer = rig_post(&r, "/v1/completions", "", whole);
    assert_non_null(strcasestr(answer.head, "retry-after: 1"));
    expect(answer, 503, "overloaded");
    fake_release(r.prefill[0]);
    answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void stopping_ends_what_still_runs(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options.ms.drain = 30});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation c = rig_begin(&r, "/v1/completions", whole);
    fake_nth(r.prefill[0], 0);
    bt_proxy_stop(r.proxy);
    fake_wait_gone(r.prefill[0], 1);
    rig_leave(&c);
    r.proxy = NULL;
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(dead_prefill_engine_is_replaced),
        bt_test(dead_decode_engine_means_prefill_again_for_another),
        bt_test(engine_that_is_down_is_left_alone_until_it_is_healthy),
        bt_test(no_engine_left_is_an_honest_502),
        bt_test(dead_decode_engine_ends_a_begun_stream_with_an_error),
        bt_test(broken_leg_is_tried_elsewhere),
        bt_test(statuses_of_engines_are_passed_on_honestly),
        bt_test(cut_streams_end_with_an_error_and_done),
        bt_test(cut_json_is_seen_as_cut_or_made_again),
        bt_test(every_phase_has_its_own_deadline),
        bt_test(total_deadline_bounds_all_phases),
        bt_test(silent_prefill_engine_is_replaced),
        bt_test(silent_engines_end_requests_with_an_error_of_their_own),
        bt_test(an_engine_that_answers_for_its_health_may_compute_for_long),
        bt_test(client_that_leaves_cancels_the_legs_and_releases_the_kv),
        bt_test(a_slow_client_slows_the_engine_and_gets_everything),
        bt_test(what_is_no_request_touches_no_engine),
        bt_test(too_many_requests_are_shed),
        bt_test(stopping_ends_what_still_runs),
    };
    return bt_run_tests(tests);
}
