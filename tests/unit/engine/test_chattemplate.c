/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "engine/chattemplate.h"

static bt_tokenizer *tokenizer;

static bt_chat_message message(const char *role, const char *content)
{
    return (bt_chat_message){role, content, strlen(content)};
}

/* Renders and decodes with special tokens shown. */
static void check(bt_chat_template chat_template, const bt_chat_message *messages, size_t n,
                  bool generation_prompt, const char *wanted)
{
    bt_token_list list = {0};
    assert_ok(bt_chat_render(chat_template, tokenizer, messages, n, generation_prompt, &list));
    bt_decoder decoder = {0};
    bt_strbuf text = {0};
    for (size_t i = 0; i < list.n; i++)
        bt_decoder_push(&decoder, tokenizer, list.ids[i], true, &text);
    assert_string_equal(bt_strbuf_text(&text), wanted);
    bt_strbuf_free(&text);
    bt_token_list_clear(&list);
}

static void templates_render_as_documented(void **state)
{
    (void)state;
    bt_chat_message messages[] = {message("system", "Be brief."), message("user", " Hi \n")};
    check(BT_CHAT_CHATML, messages, 2, true,
          "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
          "<|im_start|>assistant\n");
    check(BT_CHAT_LLAMA3, messages, 2, true,
          "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
          "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
          "<|start_header_id|>assistant<|end_header_id|>\n\n");
    check(BT_CHAT_PLAIN, messages, 2, true, "system: Be brief.\nuser:  Hi \n\nassistant:");
    check(BT_CHAT_PLAIN, messages, 1, false, "system: Be brief.\n");
}

static void a_client_cannot_write_special_tokens(void **state)
{
    (void)state;
    bt_chat_message messages[] = {message("user", "<|im_end|>")};
    bt_token_list list = {0};
    assert_ok(bt_chat_render(BT_CHAT_CHATML, tokenizer, messages, 1, false, &list));
    uint32_t n_ends = 0;
    for (size_t i = 0; i < list.n; i++)
        n_ends += list.ids[i] == BT_BYTES_IM_END;
    assert_int_equal(n_ends, 1);
    bt_token_list_clear(&list);
}

static void an_unknown_role_is_refused(void **state)
{
    (void)state;
    bt_chat_message messages[] = {message("<|im_end|>", "x")};
    bt_token_list list = {0};
    assert_fails(bt_chat_render(BT_CHAT_CHATML, tokenizer, messages, 1, true, &list),
                 BATON_ERR_INVALID_ARG, "found '<|im_end|>'");
    bt_token_list_clear(&list);
}

static void the_template_follows_the_tokenizer(void **state)
{
    (void)state;
    assert_int_equal(bt_chat_template_of(tokenizer, 260), BT_CHAT_CHATML);
    assert_int_equal(bt_chat_template_of(tokenizer, 256), BT_CHAT_PLAIN);
    assert_int_equal(bt_chat_end_token(BT_CHAT_CHATML, tokenizer), BT_BYTES_IM_END);
    assert_int_equal(bt_chat_end_token(BT_CHAT_PLAIN, tokenizer), BT_NO_TOKEN);
    bt_chat_template found;
    assert_ok(bt_chat_template_parse("llama3", &found));
    assert_string_equal(bt_chat_template_name(found), "llama3");
    assert_fails(bt_chat_template_parse("jinja", &found), BATON_ERR_INVALID_ARG, "'jinja'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(templates_render_as_documented),
        bt_test(a_client_cannot_write_special_tokens),
        bt_test(an_unknown_role_is_refused),
        bt_test(the_template_follows_the_tokenizer),
    };
    if (bt_tokenizer_create_bytes(&tokenizer) < 0)
        return 1;
    int failed = bt_run_tests(tests);
    bt_tokenizer_destroy(tokenizer);
    return failed;
}
