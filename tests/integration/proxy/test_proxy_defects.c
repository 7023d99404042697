/* SPDX-License-Identifier: Apache-2.0 */
/* The eleven defects of LMCache's example proxies, one test each: this proxy has none of them. */
#include "rig.h"

#include <stdio.h>

static rig r;

static void defect_1_answers_sse_though_stream_is_false(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    const char *bodies[] = {"{\"prompt\":\"x\",\"max_tokens\":4}",
                            "{\"prompt\":\"x\",\"max_tokens\":4,\"stream\":false}"};
    for (int i = 0; i < 2; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", bodies[i]);
        assert_non_null(strcasestr(answer.head, "content-type: application/json"));
        assert_int_equal(answer.body[0], '{');
        assert_null(strstr(answer.body, "data:"));
        reply_free(&answer);
    }
    reply answer =
        rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":4,\"stream\":true}");
    assert_non_null(strcasestr(answer.head, "content-type: text/event-stream"));
    reply_free(&answer);
    rig_close(&r);
}

static void defect_2_needs_max_tokens_and_asks_for_none_when_it_is_1(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\"}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_non_null(strstr(fake_nth(r.decode[0], 0)->body, "\"max_tokens\":15"));
    answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":1}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_int_equal(fake_count(r.decode[0]), 1);
    rig_close(&r);
}

static void defect_3_goes_on_after_eos_or_stop_string(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    fake_set(r.prefill[0],
             &(fake_script){.body = "{\"id\":\"cmpl-P\",\"created\":5,\"model\":\"m\",\"choices\":"
                                    "[{\"index\":0,\"text\":\"\",\"finish_reason\":\"stop\","
                                    "\"stop_reason\":\"END\"}],\"kv_transfer_params\":"
                                    "{\"first_tok\":2}}"});
    for (int stream = 0; stream < 2; stream++) {
        char body[128];
        snprintf(body, sizeof(body), "{\"prompt\":\"x\",\"max_tokens\":9,\"stream\":%s}",
                 stream ? "true" : "false");
        reply answer = rig_post(&r, "/v1/completions", "", body);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body, "\"finish_reason\":\"stop\",\"stop_reason\":\"END\""));
        reply_free(&answer);
    }
    assert_int_equal(fake_count(r.decode[0]), 0);
    assert_int_equal(rig_metric(&r, "baton_proxy_answered_by_prefill_total"), 2);
    rig_close(&r);
}

static void defect_4_waits_for_ever_for_a_lost_notice(void **state)
{
    (void)state;
    bt_expect_log("kv_timeout");
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.ms.kv_wait = 50});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":4}");
    assert_int_equal(answer.status, 504);
    assert_non_null(strstr(answer.body, "\"code\":\"kv_timeout\""));
    reply_free(&answer);
    rig_close(&r);
}

static void defect_5_hears_nothing_after_a_malformed_frame(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    static const char *const frames[] = {"\xff",
                                         "\x81\xa4type\x01",
                                         "",
                                         "\xdd\xff\xff\xff\xff",
                                         "\x82\xa4type\xa1X\xa6req_id\xc0",
                                         "not msgpack"};
    for (int i = 0; i < 6; i++)
        notice_send_bytes(r.notice_url, frames[i], strlen(frames[i]));
    rig_wait_metric(&r, "baton_proxy_notice_malformed_total", 6);
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":4}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_close(&r);
}

static void defect_6_ids_are_small_numbers_that_others_have_too(void **state)
{
    (void)state;
    bt_expect_log("kv_timeout");
    rig_open(&r, &(rig_options){.notices = FAKE_NOTICE_NONE, .options.ms.kv_wait = 300});
    conversation c = rig_begin(&r, "/v1/completions", "{\"prompt\":[1],\"max_tokens\":4}");
    const fake_request *leg = fake_nth(r.prefill[0], 0);
    /* A former life's, another proxy's, one random bit wrong: none of them is ours. */
    char other[64];
    snprintf(other, sizeof(other), "%s", leg->attempt);
    size_t last = strlen(other) - 1;
    other[last] = other[last] == '0' ? '1' : '0';
    notice_send(r.notice_url, other, 0, 1, 0);
    notice_send(r.notice_url, "1", 0, 1, 0);
    snprintf(other, sizeof(other), "0123456789abcdef%s", leg->attempt + 16);
    notice_send(r.notice_url, other, 0, 1, 0);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"unknown\"}", 1);
    rig_wait_metric(&r, "baton_proxy_notice_foreign_total", 2);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 504);
    assert_int_equal(fake_count(r.decode[0]), 0);
    reply_free(&answer);
    /* And what comes for a request that has ended leaves nothing behind. */
    notice_send(r.notice_url, leg->attempt, 0, 1, 0);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"late\"}", 1);
    rig_close(&r);
}

static void defect_7_chat_is_dead(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    const char *bodies[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":4}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":4,\"stream\":true}"};
    for (int i = 0; i < 2; i++) {
        reply answer = rig_post(&r, "/v1/chat/completions", "", bodies[i]);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body, "\"object\":\"chat.completion"));
        reply_free(&answer);
    }
    rig_close(&r);
}

static void defect_8_replaces_the_callers_authorization(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/completions", "Authorization: Bearer secret\r\n",
                            "{\"prompt\":\"x\",\"max_tokens\":4}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    for (unsigned i = 0; i < 2; i++)
        assert_non_null(
            strcasestr(fake_nth(r.prefill[0], i)->headers, "authorization: Bearer secret\n"));
    assert_non_null(
        strcasestr(fake_nth(r.decode[0], 0)->headers, "authorization: Bearer secret\n"));
    answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":4}");
    reply_free(&answer);
    assert_null(strcasestr(fake_nth(r.prefill[0], 2)->headers, "authorization"));
    rig_close(&r);
}

static const char logprobs_answer[] =
    "{\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"text\":\"A\",\"logprobs\":{\"text_offset\":[0],\"token_logprobs\":[-0.5],"
    "\"tokens\":[\"A\"]},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":3,"
    "\"total_tokens\":4,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":2}},"
    "\"kv_transfer_params\":{\"first_tok\":42}}";
static const char *const logprobs_events[] = {
    "data: {\"id\":\"cmpl-D\",\"created\":9,\"choices\":[{\"index\":0,\"text\":\"B\",\"logprobs\":"
    "{\"text_offset\":[0],\"token_logprobs\":[-0.25],\"tokens\":[\"B\"]},\"finish_reason\":"
    "\"stop\"}]}\n\n",
    "data: {\"id\":\"cmpl-D\",\"created\":9,\"choices\":[],\"usage\":{\"prompt_tokens\":4,"
    "\"total_tokens\":5,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":3}}}"
    "\n\ndata: [DONE]\n\n",
    NULL};

static void defect_9_first_chunk_has_no_logprobs_and_usage_is_wrong(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    fake_set(r.prefill[0], &(fake_script){.body = logprobs_answer});
    fake_set(r.decode[0], &(fake_script){.events = logprobs_events});
    reply answer = rig_post(&r, "/v1/completions", "",
                            "{\"prompt\":[1,2,3],\"max_tokens\":4,\"logprobs\":0,\"stream\":true,"
                            "\"stream_options\":{\"include_usage\":true}}");
    assert_non_null(strstr(answer.body, "\"text\":\"A\",\"logprobs\":{\"text_offset\":[0],"
                                        "\"token_logprobs\":[-0.5],\"tokens\":[\"A\"]}"));
    assert_non_null(strstr(answer.body, "\"text\":\"B\",\"logprobs\":{\"text_offset\":[1],"
                                        "\"token_logprobs\":[-0.25],\"tokens\":[\"B\"]}"));
    assert_non_null(strstr(answer.body, "\"usage\":{\"prompt_tokens\":3,\"total_tokens\":5,"
                                        "\"completion_tokens\":2,\"prompt_tokens_details\":"
                                        "{\"cached_tokens\":2}}"));
    reply_free(&answer);
    rig_close(&r);
}

static void defect_10_goes_on_after_the_first_of_several_ranks(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_ranks = 2, .notices = FAKE_NOTICE_NONE});
    conversation c = rig_begin(&r, "/v1/completions", "{\"prompt\":[1],\"max_tokens\":4}");
    const char *id = fake_nth(r.prefill[0], 0)->attempt;
    notice_send_legacy(r.notice_url, "NixlProxyNotif", id);
    rig_wait_metric(&r, "baton_proxy_kv_notices_total{result=\"matched\"}", 1);
    assert_int_equal(fake_count(r.decode[0]), 0);
    notice_send_legacy(r.notice_url, "ProxyNotif", id);
    reply answer = rig_finish(&c);
    assert_int_equal(answer.status, 200);
    assert_int_equal(fake_count(r.decode[0]), 1);
    reply_free(&answer);
    rig_close(&r);
}

static void defect_11_chat_reads_are_taken_for_events_and_tool_calls_get_lost(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    /* The second event comes in two pieces: it is one chunk all the same. */
    static const char *const split[] = {
        "data: {\"id\":\"cmpl-D\",\"choices\":[{\"index\":0,\"te",
        "xt\":\"B\",\"finish_reason\":", "null}]}\n",
        "\ndata: {\"id\":\"cmpl-D\",\"choices\":[{\"index\":0,\"text\":\"C\","
        "\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        NULL};
    fake_set(r.decode[0], &(fake_script){.events = split});
    reply answer = rig_post(&r, "/v1/chat/completions", "",
                            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                            "\"max_tokens\":4,\"stream\":true}");
    unsigned n_chunks = 0;
    for (const char *at = answer.body; (at = strstr(at, "chat.completion.chunk")) != NULL; at++)
        n_chunks++;
    assert_int_equal(n_chunks, 4); /* role, first token, and two */
    reply_free(&answer);
    /* Tools: the decode engine writes the whole answer, and it passes as it is. */
    static const char *const tool_call[] = {
        "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"r\",\"tool_calls\":[{\"x\":1}]}}]}"
        "\n\n",
        "data: [DONE]\n\n", NULL};
    fake_set(r.decode[0], &(fake_script){.events = tool_call});
    const char *body = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}],"
                       "\"stream\":true}";
    answer = rig_post(&r, "/v1/chat/completions", "", body);
    assert_string_equal(answer.body, "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"r\","
                                     "\"tool_calls\":[{\"x\":1}]}}]}\n\ndata: [DONE]\n\n");
    reply_free(&answer);
    assert_string_equal(fake_nth(r.decode[0], 1)->path, "/v1/chat/completions");
    assert_string_equal(fake_nth(r.decode[0], 1)->body, body);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(defect_1_answers_sse_though_stream_is_false),
        bt_test(defect_2_needs_max_tokens_and_asks_for_none_when_it_is_1),
        bt_test(defect_3_goes_on_after_eos_or_stop_string),
        bt_test(defect_4_waits_for_ever_for_a_lost_notice),
        bt_test(defect_5_hears_nothing_after_a_malformed_frame),
        bt_test(defect_6_ids_are_small_numbers_that_others_have_too),
        bt_test(defect_7_chat_is_dead),
        bt_test(defect_8_replaces_the_callers_authorization),
        bt_test(defect_9_first_chunk_has_no_logprobs_and_usage_is_wrong),
        bt_test(defect_10_goes_on_after_the_first_of_several_ranks),
        bt_test(defect_11_chat_reads_are_taken_for_events_and_tool_calls_get_lost),
    };
    return bt_run_tests(tests);
}
