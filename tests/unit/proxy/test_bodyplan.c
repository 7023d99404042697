/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/bodyplan.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

static bt_body_plan plan;
static bt_leg_body leg;
static const char *param;

static void make(bt_route route, const char *body)
{
    baton_status status = bt_body_plan_make(route, body, strlen(body), &plan, &param);
    if (status != BATON_OK)
        print_error("%s\n", body);
    assert_ok(status);
}

static const char *text_of_leg(void)
{
    static char text[4096];
    size_t n = 0;
    for (size_t i = 0; i < leg.n_slices; i++) {
        memcpy(text + n, leg.slices[i].at, leg.slices[i].n);
        n += leg.slices[i].n;
    }
    text[n] = 0;
    return text;
}

/* kv_transfer_params, as a dialect adds them. */
static const bt_leg_members *params(const char *json)
{
    static bt_leg_members members;
    bt_strbuf_clear(&members.text);
    bt_strbuf_puts(&members.text, json);
    members.n = json[0] != 0;
    members.values[0].key = "kv_transfer_params";
    members.values[0].at = 0;
    members.values[0].n = strlen(json);
    return &members;
}

static bt_slice slice(const char *text)
{
    return bt_slice_of(text);
}

/* body (completions), and the four legs made of it. NULL: as the body. */
static const struct {
    const char *body, *prefill_early, *decode_early, *prefill_plain, *decode_plain;
} completions[] = {
    /* Nothing but what must change: spaces, order, long numbers and unknown spelling stay. */
    {"{ \"model\" : \"m\",\"prompt\":\"hi\", \"max_tokens\":10, \"temperature\":1.50e0 }",
     "{ \"model\" : \"m\",\"prompt\":[1,2], \"max_tokens\":1, \"temperature\":1.50e0 "
     ",\"stream\":false,\"kv_transfer_params\":{}}",
     "{ \"model\" : \"m\",\"prompt\":[1,2,7], \"max_tokens\":9, \"temperature\":1.50e0 }",
     "{ \"model\" : \"m\",\"prompt\":\"hi\", \"max_tokens\":1, \"temperature\":1.50e0 "
     ",\"stream\":false,\"kv_transfer_params\":{}}",
     NULL},
    /* max_completion_tokens wins where engines know it, so it is lowered whenever it is there. */
    {"{\"prompt\":\"hi\",\"max_completion_tokens\":5,\"stream\":true,"
     "\"stream_options\":{\"include_usage\":true},\"min_tokens\":3}",
     NULL, NULL,
     "{\"prompt\":\"hi\",\"max_completion_tokens\":1,\"stream\":false,\"max_tokens\":1,"
     "\"kv_transfer_params\":{}}",
     NULL},
    /* A client's own kv_transfer_params never pass, however the key is spelt. */
    {"{\"prompt\":[1,2],\"max_tokens\":4,\"kv_transfer_params\":{\"disagg_spec\":1},"
     "\"kv_transfer_par\\u0061ms\":{\"evil\":2}}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"kv_transfer_par\\u0061ms\":{},\"stream\":false}",
     "{\"prompt\":[1,2,7],\"max_tokens\":3}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"kv_transfer_par\\u0061ms\":{},\"stream\":false}",
     "{\"prompt\":[1,2],\"max_tokens\":4}"},
    /* Of two, the last counts, and no reader sees the other. */
    {"{\"max_tokens\":100,\"prompt\":[1,2],\"max_tokens\":4}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}",
     "{\"prompt\":[1,2,7],\"max_tokens\":3}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}", NULL},
    /* stream_options go back to the decode leg. */
    {"{\"prompt\":[1,2],\"max_tokens\":4,\"stream\":true,\"stream_options\":{\"a\":1}}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}",
     "{\"prompt\":[1,2,7],\"max_tokens\":3,\"stream\":true,\"stream_options\":{\"a\":1}}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}", NULL},
    /* The prefill leg makes one answer, whatever n says. */
    {"{\"prompt\":[1,2],\"n\":3,\"best_of\":4,\"prompt_logprobs\":5,\"max_tokens\":4}", NULL, NULL,
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}", NULL},
    /* No limit said: 16 in completions. */
    {"{\"prompt\":[1,2]}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}",
     "{\"prompt\":[1,2,7],\"max_tokens\":15}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}", NULL},
    /* null is "until the model ends", or the default: the decode engine knows. */
    {"{\"prompt\":[1,2],\"max_tokens\":null}", NULL, NULL,
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}", NULL},
    /* One prompt in a list. */
    {"{\"prompt\":[[1,2]],\"max_tokens\":2}",
     "{\"prompt\":[1,2],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}",
     "{\"prompt\":[1,2,7],\"max_tokens\":1}",
     "{\"prompt\":[[1,2]],\"max_tokens\":1,\"stream\":false,\"kv_transfer_params\":{}}", NULL},
};

static void completion_legs_are_the_body_with_few_bytes_changed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(completions) / sizeof(completions[0]); i++) {
        const char *body = completions[i].body;
        make(BT_ROUTE_COMPLETIONS, body);
        uint64_t left = plan.has_limit ? plan.limit - 1 : 0;
        assert_int_equal(plan.is_early_safe, completions[i].prefill_early != NULL);
        if (plan.is_early_safe) {
            assert_ok(bt_leg_prefill_early(&plan, slice("[1,2]"), params("{}"), &leg));
            assert_string_equal(text_of_leg(), completions[i].prefill_early);
            assert_ok(bt_leg_decode_early(&plan, slice("[1,2,7]"), left, NULL, &leg));
            assert_string_equal(text_of_leg(), completions[i].decode_early);
        }
        assert_ok(bt_leg_prefill_plain(&plan, params("{}"), &leg));
        assert_string_equal(text_of_leg(), completions[i].prefill_plain);
        assert_ok(bt_leg_plain(&plan, NULL, &leg));
        const char *plain = completions[i].decode_plain;
        assert_string_equal(text_of_leg(), plain != NULL ? plain : body);
    }
}

static void chat_goes_to_completions_without_its_own_keys(void **state)
{
    (void)state;
    const char *body =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
        "\"max_completion_tokens\":8,\"logprobs\":false,\"temperature\":0,\"stream\":true,"
        "\"chat_template_kwargs\":{\"a\":1}}";
    make(BT_ROUTE_CHAT, body);
    assert_true(plan.is_early_safe && plan.stream && plan.limit == 8);
    assert_ok(bt_leg_tokenize(&plan, &leg));
    assert_string_equal(text_of_leg(),
                        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                        "\"chat_template_kwargs\":{\"a\":1}}");
    assert_ok(bt_leg_prefill_early(&plan, slice("[1,2]"), params("{\"k\":1}"), &leg));
    assert_string_equal(text_of_leg(), "{\"model\":\"m\",\"temperature\":0,\"stream\":false,"
                                       "\"max_tokens\":1,\"kv_transfer_params\":{\"k\":1},"
                                       "\"prompt\":[1,2]}");
    assert_ok(bt_leg_decode_early(&plan, slice("[1,2,7]"), 7, NULL, &leg));
    assert_string_equal(text_of_leg(), "{\"model\":\"m\",\"temperature\":0,\"stream\":true,"
                                       "\"prompt\":[1,2,7],\"max_tokens\":7}");
    assert_ok(bt_leg_prefill_plain(&plan, params(""), &leg));
    assert_string_equal(
        text_of_leg(),
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
        "\"max_completion_tokens\":1,\"logprobs\":false,\"temperature\":0,\"stream\":false,"
        "\"chat_template_kwargs\":{\"a\":1},\"max_tokens\":1}");
    assert_ok(bt_leg_plain(&plan, NULL, &leg));
    assert_string_equal(text_of_leg(), body);
}

static void text_prompt_is_tokenised_with_what_decides_its_tokens(void **state)
{
    (void)state;
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[\"a\\n\"],\"add_special_tokens\":false,\"top_p\":1}");
    assert_int_equal(plan.form, BT_PROMPT_TEXT);
    assert_ok(bt_leg_tokenize(&plan, &leg));
    assert_string_equal(text_of_leg(), "{\"prompt\":\"a\\n\",\"add_special_tokens\":false}");
}

/* A member to add to a safe body, and whether it stays safe. */
static const struct {
    bt_route route;
    const char *member;
    bool is_safe;
} members[] = {
    {BT_ROUTE_COMPLETIONS, "\"n\":1", true},
    {BT_ROUTE_COMPLETIONS, "\"n\":2", false},
    {BT_ROUTE_COMPLETIONS, "\"best_of\":1", true},
    {BT_ROUTE_COMPLETIONS, "\"best_of\":2", false},
    {BT_ROUTE_COMPLETIONS, "\"presence_penalty\":0.0", true},
    {BT_ROUTE_COMPLETIONS, "\"presence_penalty\":0.1", false},
    {BT_ROUTE_COMPLETIONS, "\"frequency_penalty\":-1", false},
    {BT_ROUTE_COMPLETIONS, "\"repetition_penalty\":1.1", true},
    {BT_ROUTE_COMPLETIONS, "\"min_tokens\":0", true},
    {BT_ROUTE_COMPLETIONS, "\"min_tokens\":1", false},
    {BT_ROUTE_COMPLETIONS, "\"echo\":false", true},
    {BT_ROUTE_COMPLETIONS, "\"echo\":true", false},
    {BT_ROUTE_COMPLETIONS, "\"suffix\":null", true},
    {BT_ROUTE_COMPLETIONS, "\"suffix\":\"x\"", false},
    {BT_ROUTE_COMPLETIONS, "\"seed\":1", false},
    {BT_ROUTE_COMPLETIONS, "\"seed\":1,\"temperature\":0", true},
    {BT_ROUTE_COMPLETIONS, "\"seed\":null", true},
    {BT_ROUTE_COMPLETIONS, "\"logprobs\":3", true},
    {BT_ROUTE_COMPLETIONS, "\"prompt_logprobs\":1", false},
    {BT_ROUTE_COMPLETIONS, "\"use_beam_search\":true", false},
    {BT_ROUTE_COMPLETIONS, "\"return_token_ids\":true", true},
    {BT_ROUTE_COMPLETIONS, "\"response_format\":{\"type\":\"text\"}", true},
    {BT_ROUTE_COMPLETIONS, "\"response_format\":{\"type\":\"json_object\"}", false},
    {BT_ROUTE_COMPLETIONS, "\"guided_regex\":\"a\"", false},
    {BT_ROUTE_COMPLETIONS, "\"never_heard_of\":null", false},
    {BT_ROUTE_COMPLETIONS, "\"max_completion_tokens\":3", false},
    {BT_ROUTE_COMPLETIONS, "\"stop\":[\"a\",\"b\"]", true},
    {BT_ROUTE_COMPLETIONS, "\"ignore_eos\":true,\"user\":\"u\"", true},
    {BT_ROUTE_CHAT, "\"logprobs\":true", false},
    {BT_ROUTE_CHAT, "\"logprobs\":false", true},
    {BT_ROUTE_CHAT, "\"top_logprobs\":2", false},
    {BT_ROUTE_CHAT, "\"tools\":[]", false},
    {BT_ROUTE_CHAT, "\"tools\":null", true},
    {BT_ROUTE_CHAT, "\"tool_choice\":\"auto\"", false},
    {BT_ROUTE_CHAT, "\"functions\":[1]", false},
    {BT_ROUTE_CHAT, "\"return_token_ids\":true", false},
    {BT_ROUTE_CHAT, "\"response_format\":{\"type\":\"json_schema\"}", false},
    {BT_ROUTE_CHAT, "\"reasoning_effort\":\"low\"", false},
    {BT_ROUTE_CHAT, "\"max_completion_tokens\":3", true},
};

static void first_token_comes_early_only_where_every_key_is_known_to_be_safe(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        char body[256];
        bool is_chat = members[i].route == BT_ROUTE_CHAT;
        snprintf(body, sizeof(body), "{%s,%s}",
                 is_chat ? "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                         : "\"prompt\":[1]",
                 members[i].member);
        make(members[i].route, body);
        if (plan.is_early_safe != members[i].is_safe)
            fail_msg("%s: early %d", members[i].member, plan.is_early_safe);
        assert_int_equal(plan.unsafe_key == NULL, members[i].is_safe);
    }
}

/* route, body, the parameter that the error names (NULL: none) */
static const struct {
    bt_route route;
    const char *body, *param;
} bad[] = {
    {BT_ROUTE_COMPLETIONS, "", NULL},
    {BT_ROUTE_COMPLETIONS, "[]", NULL},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":", NULL},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\"}}", NULL},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"\xff\"}", NULL},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"temperature\":NaN}", NULL},
    {BT_ROUTE_COMPLETIONS, "{}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":null}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[-1]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[1.5]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[1e2]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[2147483648]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[true]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[{}]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":[[]]}", "prompt"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"max_tokens\":-1}", "max_tokens"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"max_tokens\":\"5\"}", "max_tokens"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"stream\":\"yes\"}", "stream"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"stream_options\":1}", "stream_options"},
    {BT_ROUTE_COMPLETIONS, "{\"prompt\":\"a\",\"stop\":[1]}", "stop"},
    {BT_ROUTE_CHAT, "{\"prompt\":\"a\"}", "messages"},
    {BT_ROUTE_CHAT, "{\"messages\":[]}", "messages"},
    {BT_ROUTE_CHAT, "{\"messages\":\"a\"}", "messages"},
    {BT_ROUTE_CHAT, "{\"messages\":[{}],\"max_completion_tokens\":0}", "max_completion_tokens"},
};

static void malformed_bodies_are_refused_with_the_parameter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        size_t n = strlen(bad[i].body);
        uint8_t *body = bt_guarded_copy(bad[i].body, n);
        baton_status status = bt_body_plan_make(bad[i].route, (const char *)body, n, &plan, &param);
        bt_guarded_free(body, n);
        if (status == BATON_OK)
            fail_msg("accepted: %s", bad[i].body);
        if (bad[i].param == NULL)
            assert_null(param);
        else
            assert_string_equal(param, bad[i].param);
    }
}

static void several_prompts_are_a_batch(void **state)
{
    (void)state;
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[\"a\",\"b\"]}");
    assert_int_equal(plan.form, BT_PROMPT_BATCH);
    assert_false(plan.is_early_safe);
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[[1],[2]]}");
    assert_int_equal(plan.form, BT_PROMPT_BATCH);
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[1,[2]]}");
    assert_int_equal(plan.form, BT_PROMPT_BATCH);
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[ 1 ,\n23]}");
    assert_int_equal(plan.form, BT_PROMPT_IDS);
    assert_int_equal(plan.n_prompt_tokens, 2);
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[1,2]}");
    assert_int_equal(plan.form, BT_PROMPT_IDS);
    assert_int_equal(plan.n_prompt_tokens, 2);
}

static bool may_begin(const char *text)
{
    return bt_plan_may_begin_stop(&plan, text, strlen(text));
}

static void beginnings_of_stop_strings_are_seen(void **state)
{
    (void)state;
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[1],\"stop\":[\"END\",\"\\n\\n\"]}");
    assert_true(may_begin("xE"));
    assert_true(may_begin("EN"));
    assert_true(may_begin("a\n"));
    assert_false(may_begin("ENX"));
    assert_false(may_begin("x"));
    assert_false(may_begin(""));
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[1],\"stop\":\"ab\"}");
    assert_true(may_begin("a"));
    assert_false(may_begin("b"));
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[1],\"stop\":null}");
    assert_false(may_begin("a"));
    make(BT_ROUTE_COMPLETIONS, "{\"prompt\":[1]}");
    assert_false(may_begin("a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(completion_legs_are_the_body_with_few_bytes_changed),
        bt_test(chat_goes_to_completions_without_its_own_keys),
        bt_test(text_prompt_is_tokenised_with_what_decides_its_tokens),
        bt_test(first_token_comes_early_only_where_every_key_is_known_to_be_safe),
        bt_test(malformed_bodies_are_refused_with_the_parameter),
        bt_test(several_prompts_are_a_batch),
        bt_test(beginnings_of_stop_strings_are_seen),
    };
    return bt_run_tests(tests);
}
