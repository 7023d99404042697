/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/answermerge.h"
#include "support/test.h"

#include <stdio.h>

static bt_prefill_answer first;
static bt_body_plan plan;
static bt_merge merge;
static bt_strbuf out;

static void setup(bt_route route, const char *answer)
{
    memset(&plan, 0, sizeof(plan));
    plan.route = route;
    assert_ok(bt_prefill_answer_read(answer, strlen(answer), &first));
    bt_merge_init(&merge, &plan, &first);
    bt_strbuf_clear(&out);
}

static const char *event(const char *data)
{
    bool is_done, is_error;
    bt_sse_event e = {.raw = bt_slice_of("<raw>"), .data = bt_slice_of(data)};
    bt_strbuf_clear(&out);
    assert_ok(bt_merge_event(&merge, &e, &out, &is_done, &is_error));
    assert_int_equal(is_done, strcmp(data, "[DONE]") == 0);
    assert_int_equal(is_error, strstr(data, "\"error\"") != NULL);
    return bt_strbuf_text(&out);
}

#define P_ANSWER                                                                            \
    "{\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\","      \
    "\"choices\":[{\"index\":0,\"text\":\" a\\u00e9\",\"logprobs\":null,\"finish_reason\":" \
    "\"length\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":4,"  \
    "\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":2}},"             \
    "\"kv_transfer_params\":{\"first_tok\":42}}"

static void first_token_is_the_prefill_engines_choice(void **state)
{
    (void)state;
    setup(BT_ROUTE_COMPLETIONS, P_ANSWER);
    assert_true(first.has_first_token && first.is_text_whole && !first.has_ended);
    assert_int_equal(first.first_token, 42);
    assert_int_equal(first.n_text_chars, 3);
    assert_ok(bt_merge_first_events(&merge, false, &out));
    assert_string_equal(bt_strbuf_text(&out),
                        "data: {\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,"
                        "\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" a\\u00e9\","
                        "\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}]}\n\n");
    bt_strbuf_free(&out);
}

static void last_token_carries_reason_usage_and_done(void **state)
{
    (void)state;
    setup(BT_ROUTE_COMPLETIONS, P_ANSWER);
    merge.include_usage = true;
    assert_ok(bt_merge_first_events(&merge, true, &out));
    assert_non_null(strstr(bt_strbuf_text(&out), "\"finish_reason\":\"length\""));
    assert_non_null(strstr(bt_strbuf_text(&out),
                           "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":4,"
                           "\"completion_tokens\":1,\"prompt_tokens_details\":"
                           "{\"cached_tokens\":2}}}\n\ndata: [DONE]\n\n"));
    bt_strbuf_clear(&out);
    assert_ok(bt_merge_whole(&merge, NULL, 0, &out));
    assert_null(strstr(bt_strbuf_text(&out), "kv_transfer_params"));
    assert_non_null(strstr(bt_strbuf_text(&out), "\"text\":\" a\\u00e9\""));
    bt_strbuf_free(&out);
}

static void events_keep_all_but_names_and_counts(void **state)
{
    (void)state;
    setup(BT_ROUTE_COMPLETIONS, P_ANSWER);
    assert_string_equal(
        event("{\"id\":\"cmpl-D\",\"created\":9,\"x\" : 1.0, \"choices\":[{\"index\":0,"
              "\"text\":\"b\",\"logprobs\":null}]}"),
        "data: {\"id\":\"cmpl-P\",\"created\":5,\"x\" : 1.0, \"choices\":[{\"index\":0,"
        "\"text\":\"b\",\"logprobs\":null}]}\n\n");
    /* 4 prompt tokens with the first token, 7 more made; nearly all was "cached". */
    assert_string_equal(
        event("{\"id\":\"d\",\"created\":9,\"choices\":[],\"usage\":{\"prompt_tokens\":4,"
              "\"total_tokens\":11,\"completion_tokens\":7,\"prompt_tokens_details\":"
              "{\"cached_tokens\":3}}}"),
        "data: {\"id\":\"cmpl-P\",\"created\":5,\"choices\":[],\"usage\":{\"prompt_tokens\":3,"
        "\"total_tokens\":11,\"completion_tokens\":8,\"prompt_tokens_details\":"
        "{\"cached_tokens\":2}}}\n\n");
    assert_string_equal(event("[DONE]"), "<raw>");
    assert_string_equal(event("not json"), "<raw>");
    assert_string_equal(event("{\"error\":{\"message\":\"x\"}}"), "<raw>");
    bt_strbuf_free(&out);
}

static void text_offsets_and_token_ids_join(void **state)
{
    (void)state;
    setup(BT_ROUTE_COMPLETIONS,
          "{\"id\":\"cmpl-P\",\"created\":5,\"model\":\"m\",\"choices\":[{\"index\":0,"
          "\"text\":\"ab\",\"logprobs\":{\"tokens\":[\"ab\"],\"token_logprobs\":[-1.5],"
          "\"top_logprobs\":[{\"ab\":-1.5}],\"text_offset\":[0]},\"finish_reason\":\"length\","
          "\"token_ids\":[7],\"prompt_token_ids\":[1,2]}]}");
    assert_true(first.has_first_token); /* from token_ids, when there is no first_tok */
    assert_int_equal(first.first_token, 7);
    const char *decode =
        "{\"id\":\"d\",\"created\":9,\"choices\":[{\"index\":0,\"text\":\"cd\",\"logprobs\":"
        "{\"tokens\":[\"c\",\"d\"],\"token_logprobs\":[-1,-2],\"top_logprobs\":null,"
        "\"text_offset\":[0,1]},\"finish_reason\":\"stop\",\"token_ids\":[8,9],"
        "\"prompt_token_ids\":[1,2,7]}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}";
    assert_ok(bt_merge_whole(&merge, decode, strlen(decode), &out));
    assert_string_equal(
        bt_strbuf_text(&out),
        "{\"id\":\"cmpl-P\",\"created\":5,\"choices\":[{\"index\":0,\"text\":\"abcd\",\"logprobs\":"
        "{\"tokens\":[\"ab\",\"c\",\"d\"],\"token_logprobs\":[-1.5,-1,-2],\"top_logprobs\":null,"
        "\"text_offset\":[0,2,3]},\"finish_reason\":\"stop\",\"token_ids\":[7,8,9],"
        "\"prompt_token_ids\":[1,2]}],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3,"
        "\"total_tokens\":5}}");
    assert_string_equal(event("{\"id\":\"d\",\"choices\":[{\"text\":\"c\",\"logprobs\":{\"tokens\":"
                              "[\"c\"],\"text_offset\":[0]},\"token_ids\":[8],"
                              "\"prompt_token_ids\":[1,2,7]}]}"),
                        "data: {\"id\":\"cmpl-P\",\"choices\":[{\"text\":\"c\",\"logprobs\":"
                        "{\"tokens\":[\"c\"],\"text_offset\":[2]},\"token_ids\":[8],"
                        "\"prompt_token_ids\":null}],\"created\":5}\n\n");
    bt_strbuf_free(&out);
}

static void chat_is_written_anew(void **state)
{
    (void)state;
    setup(BT_ROUTE_CHAT, P_ANSWER);
    assert_ok(bt_merge_first_events(&merge, false, &out));
    assert_string_equal(
        bt_strbuf_text(&out),
        "data: {\"id\":\"chatcmpl-P\",\"object\":\"chat.completion.chunk\",\"created\":5,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
        "\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        "data: {\"id\":\"chatcmpl-P\",\"object\":\"chat.completion.chunk\",\"created\":5,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a\\u00e9\"},"
        "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    assert_string_equal(
        event("{\"id\":\"d\",\"choices\":[{\"index\":0,\"text\":\"b\\\"\",\"finish_reason\":"
              "\"stop\",\"stop_reason\":\"X\"}]}"),
        "data: {\"id\":\"chatcmpl-P\",\"object\":\"chat.completion.chunk\",\"created\":5,"
        "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\\\"\"},"
        "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":\"X\"}]}\n\n");
    const char *decode =
        "{\"id\":\"d\",\"choices\":[{\"index\":0,\"text\":\"bc\",\"finish_reason\":"
        "\"stop\"}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}";
    bt_strbuf_clear(&out);
    assert_ok(bt_merge_whole(&merge, decode, strlen(decode), &out));
    assert_string_equal(
        bt_strbuf_text(&out),
        "{\"id\":\"chatcmpl-P\",\"object\":\"chat.completion\",\"created\":5,\"model\":\"m\","
        "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\" a\\u00e9bc\"}"
        ",\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,"
        "\"completion_tokens\":3,\"total_tokens\":6,\"prompt_tokens_details\":"
        "{\"cached_tokens\":2}}}");
    bt_strbuf_clear(&out);
    assert_ok(bt_merge_whole(&merge, NULL, 0, &out));
    assert_non_null(strstr(bt_strbuf_text(&out), "\"content\":\" a\\u00e9\"}"));
    bt_strbuf_free(&out);
}

/* text of the first token, whether it can stand alone, characters */
static const struct {
    const char *text;
    bool is_whole;
    unsigned n;
} texts[] = {
    {"\"a\"", true, 1},
    {"\"\"", false, 0},
    {"null", false, 0},
    {"\"\\ufffd\"", false, 1},
    {"\"\\uFFFD\"", false, 1},
    {"\"x\xef\xbf\xbd\"", false, 2},
    {"\"\\ud83d\\ude00\"", true, 1},
    {"\"\xf0\x9f\x98\x80\\n\"", true, 2},
    {"\"\\u00e9\\\\\\\"\"", true, 3},
};

static void pieces_of_characters_are_seen(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char json[256];
        snprintf(json, sizeof(json), "{\"choices\":[{\"text\":%s}]}", texts[i].text);
        size_t n = strlen(json);
        uint8_t *copy = bt_guarded_copy(json, n);
        assert_ok(bt_prefill_answer_read((const char *)copy, n, &first));
        if (first.is_text_whole != texts[i].is_whole || first.n_text_chars != texts[i].n)
            fail_msg("%s: whole %d chars %u", texts[i].text, first.is_text_whole,
                     (unsigned)first.n_text_chars);
        bt_guarded_free(copy, n);
    }
}

static void endings_are_seen(void **state)
{
    (void)state;
    setup(BT_ROUTE_COMPLETIONS, "{\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}");
    assert_true(first.has_ended && !first.has_first_token);
    assert_string_equal(merge.id, "\"cmpl-0\"");
    setup(BT_ROUTE_COMPLETIONS, "{\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}");
    assert_false(first.has_ended);
    const char *none = "{\"choices\":[]}", *two = "{\"choices\":[{},{}]}", *bad = "{\"choices\":";
    assert_fails(bt_prefill_answer_read(none, strlen(none), &first), BATON_ERR_BAD_MESSAGE, "0");
    assert_fails(bt_prefill_answer_read(two, strlen(two), &first), BATON_ERR_BAD_MESSAGE, "2");
    assert_fails(bt_prefill_answer_read(bad, strlen(bad), &first), BATON_ERR_BAD_MESSAGE, NULL);
    assert_fails(bt_merge_whole(&merge, none, strlen(none), &out), BATON_ERR_BAD_MESSAGE, "0");
    bt_strbuf_free(&out);
}

static void tokenize_answers_are_checked(void **state)
{
    (void)state;
    bt_tokenize_answer answer;
    const char *good = "{\"count\":2,\"max_model_len\":99,\"tokens\":[5, 6]}";
    const char *bad[] = {"{\"tokens\":[]}", "{\"tokens\":[1,-2]}", "{\"tokens\":1}", "{}", "x"};
    assert_ok(bt_tokenize_answer_read(good, strlen(good), &answer));
    assert_int_equal(answer.n_ids, 2);
    assert_int_equal(answer.max_model_tokens, 99);
    assert_memory_equal(answer.ids.at, "[5, 6]", answer.ids.n);
    for (size_t i = 0; i < 5; i++)
        assert_fails(bt_tokenize_answer_read(bad[i], strlen(bad[i]), &answer),
                     BATON_ERR_BAD_MESSAGE, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(first_token_is_the_prefill_engines_choice),
        bt_test(last_token_carries_reason_usage_and_done),
        bt_test(events_keep_all_but_names_and_counts),
        bt_test(text_offsets_and_token_ids_join),
        bt_test(chat_is_written_anew),
        bt_test(pieces_of_characters_are_seen),
        bt_test(endings_are_seen),
        bt_test(tokenize_answers_are_checked),
    };
    return bt_run_tests(tests);
}
