/* SPDX-License-Identifier: Apache-2.0 */
/* The fixtures hold what Hugging Face's tokenizers makes of the same texts
 * (scripts/make_tokenizer_fixtures.py). */
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "core/alloc.h"
#include "engine/filetext.h"
#include "engine/tokenizer.h"

static json_t *load_json(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/tokenizer/%s", getenv("BATON_TEST_DATA"), name);
    json_error_t error;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (root == NULL)
        fail_msg("%s: %s", path, error.text);
    return root;
}

static bt_tokenizer *parse_json(json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    bt_tokenizer *tokenizer = NULL;
    assert_ok(bt_tokenizer_parse(text, strlen(text), &tokenizer));
    free(text);
    return tokenizer;
}

static bt_tokenizer *load_fixture(const char *name)
{
    json_t *root = load_json(name);
    bt_tokenizer *tokenizer = parse_json(root);
    json_decref(root);
    return tokenizer;
}

static void check_decoding(const bt_tokenizer *tokenizer, const bt_token_list *list,
                           const json_t *wanted)
{
    bt_decoder decoder = {0};
    bt_strbuf text = {0};
    for (size_t i = 0; i < list->n; i++)
        bt_decoder_push(&decoder, tokenizer, list->ids[i], false, &text);
    bt_decoder_finish(&decoder, &text);
    assert_int_equal(text.length, json_string_length(wanted));
    assert_memory_equal(bt_strbuf_text(&text), json_string_value(wanted), text.length);
    bt_strbuf_free(&text);
}

static void check_case(const bt_tokenizer *tokenizer, const json_t *item)
{
    const json_t *text = json_object_get(item, "text"), *ids = json_object_get(item, "ids");
    bt_token_list list = {0};
    assert_ok(bt_tokenizer_encode(tokenizer, json_string_value(text), json_string_length(text),
                                  BT_ENCODE_SPECIALS | BT_ENCODE_AROUND, &list));
    bool equal = list.n == json_array_size(ids);
    for (size_t i = 0; equal && i < list.n; i++)
        equal = list.ids[i] == json_integer_value(json_array_get(ids, i));
    if (!equal)
        fail_msg("other ids than Hugging Face for '%s'", json_string_value(text));
    check_decoding(tokenizer, &list, json_object_get(item, "decoded"));
    bt_token_list_clear(&list);
}

static void check_fixture(const char *name)
{
    char file[64];
    snprintf(file, sizeof(file), "%s.json", name);
    bt_tokenizer *tokenizer = load_fixture(file);
    snprintf(file, sizeof(file), "%s.cases.json", name);
    json_t *cases = load_json(file);
    assert_true(json_array_size(cases) > 30);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(tokenizer, json_array_get(cases, i));
    json_decref(cases);
    bt_tokenizer_destroy(tokenizer);
}

static void gpt2_agrees_with_hugging_face(void **state)
{
    (void)state;
    check_fixture("gpt2");
}

static void llama3_agrees_with_hugging_face(void **state)
{
    (void)state;
    check_fixture("llama3");
}

static void qwen2_agrees_with_hugging_face(void **state)
{
    (void)state;
    check_fixture("qwen2");
}

static void a_model_folder_has_its_own_tokenizer_or_bytes(void **state)
{
    (void)state;
    char folder[] = "/tmp/baton-tokenizer-XXXXXX", path[64], from[512];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
    bt_tokenizer *tokenizer;
    assert_ok(bt_tokenizer_load(folder, &tokenizer));
    assert_int_equal(bt_tokenizer_n_ids(tokenizer), BT_BYTES_N_TOKENS);
    bt_tokenizer_destroy(tokenizer);

    snprintf(from, sizeof(from), "%s/tokenizer/llama3.json", getenv("BATON_TEST_DATA"));
    assert_int_equal(symlink(from, path), 0);
    assert_ok(bt_tokenizer_load(folder, &tokenizer));
    assert_int_equal(bt_tokenizer_find(tokenizer, "<|begin|>"), 700);
    bt_tokenizer_destroy(tokenizer);

    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_fails(bt_tokenizer_load(folder, &tokenizer), BATON_ERR_INVALID_ARG, "no regular file");
    rmdir(path);
    rmdir(folder);
}

static void bytes_are_their_own_ids(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer;
    assert_ok(bt_tokenizer_load(NULL, &tokenizer));
    bt_token_list list = {0};
    assert_ok(bt_tokenizer_encode(tokenizer, "h\xc3\xa9<|eos|>", 10, BT_ENCODE_SPECIALS, &list));
    static const uint32_t wanted[] = {'h', 0xc3, 0xa9, BT_BYTES_EOS};
    assert_int_equal(list.n, 4);
    assert_memory_equal(list.ids, wanted, sizeof(wanted));
    list.n = 0;
    assert_ok(bt_tokenizer_encode(tokenizer, "<|eos|>", 7, 0, &list));
    assert_int_equal(list.n, 7);
    assert_int_equal(bt_tokenizer_find(tokenizer, "<|im_end|>"), BT_BYTES_IM_END);
    assert_true(bt_tokenizer_is_special(tokenizer, BT_BYTES_BOS));
    assert_int_equal(bt_tokenizer_n_ids(tokenizer), BT_BYTES_N_TOKENS);
    bt_token_list_clear(&list);
    bt_tokenizer_destroy(tokenizer);
}

static void a_character_is_held_back_until_it_is_whole(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer;
    assert_ok(bt_tokenizer_create_bytes(&tokenizer));
    bt_decoder decoder = {0};
    bt_strbuf text = {0};
    static const uint8_t bytes[] = {0xf0, 0x9f, 0x98};
    for (size_t i = 0; i < sizeof(bytes); i++)
        bt_decoder_push(&decoder, tokenizer, bytes[i], false, &text);
    assert_int_equal(text.length, 0);
    bt_decoder_push(&decoder, tokenizer, 0x80, false, &text);
    assert_string_equal(bt_strbuf_text(&text), "\xf0\x9f\x98\x80");
    bt_strbuf_clear(&text);
    bt_decoder_push(&decoder, tokenizer, 0xe2, false, &text);
    bt_decoder_push(&decoder, tokenizer, 'x', false, &text);
    assert_string_equal(bt_strbuf_text(&text), "\xef\xbf\xbdx");
    bt_strbuf_clear(&text);
    bt_decoder_push(&decoder, tokenizer, 0xc3, false, &text);
    bt_decoder_push(&decoder, tokenizer, BT_BYTES_EOS, false, &text);
    bt_decoder_push(&decoder, tokenizer, 99999, false, &text);
    assert_int_equal(text.length, 0);
    bt_decoder_finish(&decoder, &text);
    assert_string_equal(bt_strbuf_text(&text), "\xef\xbf\xbd");
    bt_strbuf_free(&text);
    bt_tokenizer_destroy(tokenizer);
}

/* Sets a field of the fixture, given as "outer.inner", and expects a refusal. */
static void check_refused(const char *fixture, const char *outer, const char *inner,
                          const char *value, const char *text)
{
    json_t *root = load_json(fixture);
    json_t *at = outer != NULL ? json_object_get(root, outer) : root;
    json_object_set_new(at, inner, json_loads(value, JSON_DECODE_ANY, NULL));
    char *json = json_dumps(root, JSON_COMPACT);
    bt_tokenizer *tokenizer;
    baton_status status = bt_tokenizer_parse(json, strlen(json), &tokenizer);
    assert_true(status == BATON_ERR_UNSUPPORTED || status == BATON_ERR_CORRUPT);
    assert_fails(status, status, text);
    free(json);
    json_decref(root);
}

static void what_it_cannot_do_exactly_is_refused(void **state)
{
    (void)state;
    check_refused("gpt2.json", "model", "type", "\"Unigram\"", "model.type");
    check_refused("gpt2.json", "model", "byte_fallback", "true", "byte_fallback");
    check_refused("gpt2.json", "model", "merges", "[\"zz qq\"]", "merge 0");
    check_refused("gpt2.json", "model", "merges", "[7]", "merge 0");
    check_refused("gpt2.json", "model", "vocab", "{\"a\":-1}", "id of 'a'");
    check_refused("gpt2.json", "model", "vocab", "{\"a\":4000000000}", "id of 'a'");
    check_refused("gpt2.json", "model", "vocab", "{\"a\":1,\"b\":1}", "id 1 is given twice");
    check_refused("gpt2.json", "pre_tokenizer", "type", "\"Metaspace\"", "Metaspace");
    check_refused("gpt2.json", "pre_tokenizer", "add_prefix_space", "true", "add_prefix_space");
    check_refused("gpt2.json", "decoder", "type", "\"Metaspace\"", "decoder");
    check_refused("gpt2.json", NULL, "normalizer", "{\"type\":\"Lowercase\"}", "Lowercase");
    check_refused("gpt2.json", NULL, "post_processor", "{\"type\":\"BertProcessing\"}", "Bert");
    bt_tokenizer *tokenizer;
    assert_fails(bt_tokenizer_parse("{", 1, &tokenizer), BATON_ERR_CORRUPT, "tokenizer.json:1");
    assert_fails(bt_tokenizer_parse("[]", 2, &tokenizer), BATON_ERR_UNSUPPORTED, "pre_tokenizer");
}

static void merges_of_a_long_word_take_no_quadratic_time(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer = load_fixture("llama3.json");
    enum { N = 1 << 20 };
    char *text = bt_calloc(N, 1);
    memset(text, 'a', N);
    bt_token_list list = {0};
    assert_ok(bt_tokenizer_encode(tokenizer, text, N, 0, &list)); /* the hang guard is ctest's */
    assert_in_range(list.n, 1, N);
    bt_token_list_clear(&list);
    bt_free(text);
    bt_tokenizer_destroy(tokenizer);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        bt_tokenizer *tokenizer;
        bt_alloc_fail_at(nth);
        baton_status status = bt_tokenizer_create_bytes(&tokenizer);
        bt_alloc_fail_at(0);
        if (status == BATON_OK) {
            bt_tokenizer_destroy(tokenizer);
            assert_true(nth > 3);
            return;
        }
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(gpt2_agrees_with_hugging_face),
        bt_test(llama3_agrees_with_hugging_face),
        bt_test(qwen2_agrees_with_hugging_face),
        bt_test(a_model_folder_has_its_own_tokenizer_or_bytes),
        bt_test(bytes_are_their_own_ids),
        bt_test(a_character_is_held_back_until_it_is_whole),
        bt_test(what_it_cannot_do_exactly_is_refused),
        bt_test(merges_of_a_long_word_take_no_quadratic_time),
        bt_test(every_failed_allocation_is_reported),
    };
    return bt_run_tests(tests);
}
