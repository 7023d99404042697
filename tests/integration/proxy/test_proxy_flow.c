/* SPDX-License-Identifier: Apache-2.0 */
/* What each engine is sent, byte for byte, and what the client gets. */
#include "core/traceparent.h"
#include "rig.h"

#include <stdio.h>

#define CHUNK(text, finish)                                                                  \
    "data: {\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\"," \
    "\"choices\":[{\"index\":0,\"text\":\"" text "\",\"logprobs\":null,\"finish_reason\":" finish
#define CHAT(delta, finish)                                                              \
    "data: {\"id\":\"chatcmpl-P\",\"object\":\"chat.completion.chunk\",\"created\":5,"   \
    "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{" delta "},\"logprobs\":null," \
    "\"finish_reason\":" finish "}]}\n\n"
#define DONE "data: [DONE]\n\n"

static rig r;

/* The prefill leg's parameters for the attempt that was recorded. */
static const char *params_of(const fake_request *leg, bool is_early)
{
    static char text[512];
    unsigned init, alloc;
    const char *ports = strstr(leg->body, "\"receiver_init_port\"");
    assert_non_null(ports);
    assert_int_equal(
        sscanf(ports, "\"receiver_init_port\":[%u],\"receiver_alloc_port\":[%u]", &init, &alloc),
        2);
    char trace[64] = "";
    const char *header = strcasestr(leg->headers, "traceparent: ");
    assert_non_null(header); /* both say the same */
    assert_int_equal(sscanf(header + strlen("traceparent: "), "%60s", trace), 1);
    snprintf(text, sizeof(text),
             "{%s\"disagg_spec\":{\"req_id\":\"%s\",\"receiver_host\":\"127.0.0.1\","
             "\"receiver_init_port\":[%u],\"receiver_alloc_port\":[%u],\"notice_addr\":\"%s\","
             "\"kv_wait_ms\":35000,\"traceparent\":\"%s\"}}",
             is_early ? "\"ret_first_tok\":true," : "", leg->attempt, init, alloc, r.notice_url,
             trace);
    return text;
}

static void expect_body(const fake_request *leg, const char *path, const char *before,
                        const char *params, const char *after)
{
    char wanted[4096];
    snprintf(wanted, sizeof(wanted), "%s%s%s", before, params, after);
    assert_string_equal(leg->path, path);
    assert_string_equal(leg->body, wanted);
}

static void text_prompt_streams_the_prefill_engines_token_first(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_ranks = 1});
    reply answer = rig_post(&r, "/v1/completions", "",
                            "{\"model\":\"m\",\"prompt\":\"abc\",\"max_tokens\":9,\"stream\":true,"
                            "\"temperature\":0.50}");
    assert_int_equal(answer.status, 200);
    assert_non_null(strcasestr(answer.head, "content-type: text/event-stream"));
    assert_false(answer.is_cut);
    assert_string_equal(answer.body, CHUNK("A", "null,\"stop_reason\":null}]}\n\n") CHUNK(
                                         "B", "null}]}\n\n") CHUNK("C", "\"stop\"}]}\n\n") DONE);
    reply_free(&answer);
    assert_int_equal(fake_count(r.prefill[0]), 2);
    expect_body(fake_nth(r.prefill[0], 0), "/tokenize", "{\"model\":\"m\",\"prompt\":\"abc\"}", "",
                "");
    const fake_request *leg = fake_nth(r.prefill[0], 1);
    expect_body(leg, "/v1/completions",
                "{\"model\":\"m\",\"prompt\":[11,12,13],\"max_tokens\":1,\"stream\":false,"
                "\"temperature\":0.50,\"kv_transfer_params\":",
                params_of(leg, true), "}");
    assert_int_equal(fake_count(r.decode[0]), 1);
    expect_body(fake_nth(r.decode[0], 0), "/v1/completions",
                "{\"model\":\"m\",\"prompt\":[11,12,13,42],\"max_tokens\":8,\"stream\":true,"
                "\"temperature\":0.50}",
                "", "");
    rig_close(&r);
}

static void whole_answer_is_both_engines_text(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"abc\",\"max_tokens\":9}");
    assert_int_equal(answer.status, 200);
    assert_non_null(strcasestr(answer.head, "content-type: application/json"));
    assert_string_equal(answer.body,
                        "{\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,\"model\":"
                        "\"m\",\"choices\":[{\"index\":0,\"text\":\"ABC\",\"logprobs\":null,"
                        "\"finish_reason\":\"stop\",\"stop_reason\":null}],\"usage\":"
                        "{\"prompt_tokens\":3,\"total_tokens\":6,\"completion_tokens\":3}}");
    reply_free(&answer);
    rig_close(&r);
}

static void token_ids_are_not_tokenised(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[7, 8],\"max_tokens\":3}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    const fake_request *leg = fake_nth(r.prefill[0], 0);
    expect_body(leg, "/v1/completions",
                "{\"prompt\":[7, 8],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":",
                params_of(leg, true), "}");
    expect_body(fake_nth(r.decode[0], 0), "/v1/completions",
                "{\"prompt\":[7, 8,42],\"max_tokens\":2}", "", "");
    rig_close(&r);
}

static void chat_streams_chat_chunks(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/chat/completions", "",
                            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                            "\"stream\":true}");
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body,
                        CHAT("\"role\":\"assistant\",\"content\":\"\"", "null")
                            CHAT("\"content\":\"A\"", "null") CHAT("\"content\":\"B\"", "null")
                                CHAT("\"content\":\"C\"", "\"stop\"") DONE);
    reply_free(&answer);
    expect_body(fake_nth(r.prefill[0], 0), "/tokenize",
                "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "", "");
    /* The model takes 100 tokens, 3 are the prompt's: 97 may be made, as the engine would. */
    expect_body(fake_nth(r.decode[0], 0), "/v1/completions",
                "{\"stream\":true,\"prompt\":[11,12,13,42],\"max_tokens\":96}", "", "");
    answer = rig_post(&r, "/v1/chat/completions", "",
                      "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                      "\"max_completion_tokens\":5}");
    assert_non_null(strstr(answer.body, "\"object\":\"chat.completion\""));
    assert_non_null(
        strstr(answer.body, "\"message\":{\"role\":\"assistant\",\"content\":\"ABC\"}"));
    reply_free(&answer);
    rig_close(&r);
}

static void an_answer_of_one_token_is_the_prefill_engines(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    char id[64];
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[7],\"max_tokens\":1}");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "\"text\":\"A\""));
    assert_null(strstr(answer.body, "kv_transfer_params"));
    reply_free(&answer);
    assert_int_equal(fake_count(r.decode[0]), 0);
    /* Its KV was handed over for nothing, and is given back. */
    assert_string_equal(rig_question(&r, 0, id, -1), "RELEASE");
    assert_string_equal(id, fake_nth(r.prefill[0], 0)->attempt);
    answer = rig_post(&r, "/v1/completions", "",
                      "{\"prompt\":[7],\"max_tokens\":1,\"stream\":true,\"stream_options\":"
                      "{\"include_usage\":true}}");
    assert_string_equal(
        answer.body,
        CHUNK("A", "\"length\",\"stop_reason\":null}]}\n\n") "data: "
                                                             "{\"id\":\"cmpl-P\",\"object\":\"text_"
                                                             "completion\",\"created\":5,"
                                                             "\"model\":\"m\",\"choices\":[],"
                                                             "\"usage\":{\"prompt_tokens\":3,"
                                                             "\"total_tokens\":4,\"completion_"
                                                             "tokens\":1}}\n\n" DONE);
    reply_free(&answer);
    rig_close(&r);
}

/* body, answer of the prefill engine: in all these the decode engine makes the first token, from
 * the client's own body. */
static const struct {
    const char *body, *prefill_answer;
} later[] = {
    {"{\"prompt\":[1],\"max_tokens\":4,\"presence_penalty\":1}", NULL},
    {"{\"prompt\":[1],\"max_tokens\":4,\"n\":2}", NULL},
    {"{\"prompt\":[1],\"max_tokens\":4,\"who_knows\":1}", NULL},
    {"{\"prompt\":[1],\"max_tokens\":4}",
     "{\"choices\":[{\"text\":\"\\ufffd\"}],\"kv_transfer_params\":{\"first_tok\":1}}"},
    {"{\"prompt\":[1],\"max_tokens\":4}",
     "{\"choices\":[{\"text\":\"\"}],\"kv_transfer_params\":{\"first_tok\":1}}"},
    {"{\"prompt\":[1],\"max_tokens\":4}", "{\"choices\":[{\"text\":\"A\"}]}"},
    {"{\"prompt\":[1],\"max_tokens\":4}", "[]"},
    {"{\"prompt\":[1],\"max_tokens\":4,\"stop\":\"AB\"}", NULL},
    {"{\"prompt\":\"x\",\"max_tokens\":98}", NULL}, /* 3 + 98 > 100: the engine's to refuse */
};

static void unsafe_bodies_and_tokens_are_left_to_the_decode_engine(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    for (unsigned i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
        fake_set(r.prefill[0], &(fake_script){.body = later[i].prefill_answer});
        reply answer = rig_post(&r, "/v1/completions", "", later[i].body);
        assert_int_equal(answer.status, 200);
        assert_non_null(strstr(answer.body, "\"id\":\"cmpl-D\""));
        reply_free(&answer);
        assert_string_equal(fake_nth(r.decode[0], i)->body, later[i].body);
    }
    assert_int_equal(rig_metric(&r, "baton_proxy_first_token_later_total{reason=\"body\"}"), 3);
    assert_int_equal(rig_metric(&r, "baton_proxy_first_token_later_total{reason=\"token\"}"), 4);
    assert_int_equal(rig_metric(&r, "baton_proxy_first_token_later_total{reason=\"stop\"}"), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_first_token_later_total{reason=\"tokenize\"}"), 1);
    rig_close(&r);
}

static void decode_first_relays_the_clients_body_and_the_engines_answer(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){
                     .options = {.mode = BT_MODE_DECODE_FIRST, .chat_mode = BT_MODE_DECODE_FIRST}});
    const char *body = "{ \"messages\":[{\"role\":\"user\",\"content\":\"\\u0078\"}],\"tools\":[1],"
                       "\n\"stream\":true, \"seed\":12345678901234567890123}";
    reply answer = rig_post(&r, "/v1/chat/completions", "", body);
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(answer.body, "\"id\":\"cmpl-D\""));
    assert_non_null(strstr(answer.body, DONE));
    assert_false(answer.is_cut);
    reply_free(&answer);
    const fake_request *leg = fake_nth(r.prefill[0], 0);
    expect_body(leg, "/v1/chat/completions",
                "{ \"messages\":[{\"role\":\"user\",\"content\":\"\\u0078\"}],\"tools\":[1],"
                "\n\"stream\":false, \"seed\":12345678901234567890123,\"max_tokens\":1,"
                "\"kv_transfer_params\":",
                params_of(leg, false), "}");
    expect_body(fake_nth(r.decode[0], 0), "/v1/chat/completions", body, "", "");
    answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\"}");
    assert_non_null(strcasestr(answer.head, "content-length:"));
    assert_non_null(strstr(answer.body, "\"text\":\"BC\""));
    reply_free(&answer);
    rig_close(&r);
}

static void without_receivers_ports_nothing_is_waited_for(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.no_ports = true,
                                .notices = FAKE_NOTICE_NONE,
                                .options = {.mode = BT_MODE_DECODE_FIRST}});
    reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":\"x\",\"max_tokens\":4}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_string_equal(fake_nth(r.prefill[0], 0)->body,
                        "{\"prompt\":\"x\",\"max_tokens\":1,\"stream\":false}");
    rig_close(&r);
}

static void several_prompts_go_to_a_decode_engine_alone(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    const char *body = "{\"prompt\":[\"a\",\"b\"],\"max_tokens\":4}";
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_int_equal(fake_count(r.prefill[0]), 0);
    assert_string_equal(fake_nth(r.decode[0], 0)->body, body);
    assert_int_equal(rig_metric(&r, "baton_proxy_bypass_total{reason=\"several\"}"), 1);
    rig_close(&r);
}

static void an_engine_that_does_not_tokenise_is_no_obstacle(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    fake_set_tokenize(r.prefill[0], &(fake_script){.status = 404, .body = "{}"});
    const char *body = "{\"prompt\":\"abc\",\"max_tokens\":9}";
    reply answer = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    assert_string_equal(fake_nth(r.decode[0], 0)->body, body);
    rig_close(&r);
}

static void end_to_end_headers_reach_both_engines(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){0});
    reply answer = rig_post(&r, "/v1/completions",
                            "Authorization: Bearer k\r\nbaggage: a=b\r\n"
                            "X-Request-Id: mine\r\nAccept-Encoding: gzip\r\nTE: trailers\r\n",
                            "{\"prompt\":[7],\"max_tokens\":3}");
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    const fake_request *legs[] = {fake_nth(r.prefill[0], 0), fake_nth(r.decode[0], 0)};
    for (int i = 0; i < 2; i++) {
        assert_non_null(strcasestr(legs[i]->headers, "authorization: Bearer k\n"));
        assert_non_null(strcasestr(legs[i]->headers, "baggage: a=b\n"));
        assert_non_null(strcasestr(legs[i]->headers, "x-request-id: mine\n"));
        assert_null(strcasestr(legs[i]->headers, "gzip"));
        assert_null(strcasestr(legs[i]->headers, "trailers"));
        char host[64];
        snprintf(host, sizeof(host), "127.0.0.1:%u",
                 fake_port(i == 0 ? r.prefill[0] : r.decode[0]));
        assert_non_null(strstr(legs[i]->headers, host));
    }
    rig_close(&r);
}

/* The traceparent that an engine got, and the tracestate; "" for none. */
static void trace_headers(const fake_request *leg, char trace[64], char state[64])
{
    const char *at = strcasestr(leg->headers, "traceparent: ");
    trace[0] = state[0] = 0;
    if (at != NULL)
        assert_int_equal(sscanf(at + strlen("traceparent: "), "%60s", trace), 1);
    at = strcasestr(leg->headers, "tracestate: ");
    if (at != NULL)
        assert_int_equal(sscanf(at + strlen("tracestate: "), "%60s", state), 1);
}

static void a_trace_goes_on_through_both_legs(void **state)
{
    (void)state;
    static const char given[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    char headers[256], trace[2][64], more[2][64];
    bt_traceparent read;
    for (int is_valid = 0; is_valid < 2; is_valid++) {
        rig_open(&r, &(rig_options){0});
        snprintf(headers, sizeof(headers), "traceparent: %s%s\r\ntracestate: a=b\r\n", given,
                 is_valid ? "" : "x");
        reply answer =
            rig_post(&r, "/v1/completions", headers, "{\"prompt\":[7],\"max_tokens\":3}");
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
        trace_headers(fake_nth(r.prefill[0], 0), trace[0], more[0]);
        trace_headers(fake_nth(r.decode[0], 0), trace[1], more[1]);
        assert_string_equal(trace[0], trace[1]);
        assert_true(bt_traceparent_read(trace[0], strlen(trace[0]), &read));
        assert_string_not_equal(read.parent, "00f067aa0ba902b7"); /* it went through us */
        if (is_valid) {
            assert_string_equal(read.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_int_equal(read.flags, 0);
        } else {
            assert_string_not_equal(read.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        }
        assert_string_equal(more[0], is_valid ? "a=b" : "");
        rig_close(&r);
    }
}

static void requests_are_spread_over_all_pairs(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 2, .n_decode = 2});
    unsigned pairs = 0;
    for (int i = 0; i < 8; i++) {
        unsigned before = fake_count(r.prefill[0]), before_d = fake_count(r.decode[0]);
        reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[7],\"max_tokens\":3}");
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
        bool p0 = fake_count(r.prefill[0]) > before, d0 = fake_count(r.decode[0]) > before_d;
        pairs |= 1u << (2 * p0 + d0);
    }
    assert_int_equal(pairs, 15);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(text_prompt_streams_the_prefill_engines_token_first),
        bt_test(whole_answer_is_both_engines_text),
        bt_test(token_ids_are_not_tokenised),
        bt_test(chat_streams_chat_chunks),
        bt_test(an_answer_of_one_token_is_the_prefill_engines),
        bt_test(unsafe_bodies_and_tokens_are_left_to_the_decode_engine),
        bt_test(decode_first_relays_the_clients_body_and_the_engines_answer),
        bt_test(without_receivers_ports_nothing_is_waited_for),
        bt_test(several_prompts_go_to_a_decode_engine_alone),
        bt_test(an_engine_that_does_not_tokenise_is_no_obstacle),
        bt_test(end_to_end_headers_reach_both_engines),
        bt_test(a_trace_goes_on_through_both_legs),
        bt_test(requests_are_spread_over_all_pairs),
    };
    return bt_run_tests(tests);
}
