/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <stdio.h>

#include "engine/modelconfig.h"

#define SIZES                                                                                  \
    "\"vocab_size\":100,\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2," \
    "\"num_attention_heads\":8"
#define LLAMA "\"model_type\":\"llama\"," SIZES

static bt_model_config parse(const char *json)
{
    bt_model_config config;
    assert_ok(bt_model_config_parse(json, strlen(json), &config));
    return config;
}

static void assert_refused(const char *json, baton_status wanted, const char *text)
{
    bt_model_config config = {.vocab_size = 12345};
    assert_fails(bt_model_config_parse(json, strlen(json), &config), wanted, text);
    assert_int_equal(config.vocab_size, 12345); /* set only on success */
}

static void what_is_left_out_has_hugging_faces_default(void **state)
{
    (void)state;
    bt_model_config c = parse("{" LLAMA "}");
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.max_positions, 2048);
    assert_true(c.rms_norm_eps == 1e-6 && c.rope.theta == 10000);
    assert_int_equal(c.rope.type, BT_ROPE_DEFAULT);
    assert_false(c.tied_embeddings || c.qkv_bias || c.mlp_bias || c.has_bos);
    assert_int_equal(c.n_eos_ids, 0);
}

static void old_and_new_forms_of_rope_are_read_alike(void **state)
{
    (void)state;
    bt_model_config a = parse("{" LLAMA ",\"rope_theta\":500000.0,\"rope_scaling\":{"
                              "\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                              "\"high_freq_factor\":4,"
                              "\"original_max_position_embeddings\":8192}}");
    bt_model_config b = parse("{" LLAMA ",\"rope_parameters\":{\"rope_theta\":500000.0,"
                              "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                              "\"high_freq_factor\":4.0,"
                              "\"original_max_position_embeddings\":8192}}");
    assert_memory_equal(&a.rope, &b.rope, sizeof(a.rope));
    assert_int_equal(a.rope.type, BT_ROPE_LLAMA3);
    assert_true(a.rope.factor == 8 && a.rope.theta == 500000);
    bt_model_config c = parse("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}");
    assert_true(c.rope.type == BT_ROPE_LINEAR && c.rope.factor == 2.5);
    assert_int_equal(parse("{" LLAMA ",\"rope_scaling\":null}").rope.type, BT_ROPE_DEFAULT);
}

static void architectures_differ_in_their_biases(void **state)
{
    (void)state;
    bt_model_config c = parse("{" LLAMA ",\"attention_bias\":true,\"mlp_bias\":true}");
    assert_true(c.qkv_bias && c.output_bias && c.mlp_bias);
    c = parse("{\"model_type\":\"qwen2\"," SIZES ",\"sliding_window\":4096,"
              "\"use_sliding_window\":false}");
    assert_true(c.qkv_bias && !c.output_bias);
    c = parse("{\"model_type\":\"mistral\"," SIZES ",\"sliding_window\":null}");
    assert_false(c.qkv_bias || c.output_bias);
}

static void end_ids_are_one_or_a_list(void **state)
{
    (void)state;
    bt_model_config c = parse("{" LLAMA ",\"bos_token_id\":0,\"eos_token_id\":[7,9]}");
    assert_true(c.has_bos && c.bos_id == 0);
    assert_int_equal(c.n_eos_ids, 2);
    assert_int_equal(c.eos_ids[1], 9);
    assert_int_equal(parse("{" LLAMA ",\"eos_token_id\":5}").eos_ids[0], 5);
    assert_refused("{" LLAMA ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", BATON_ERR_CONFIG,
                   "eos_token_id");
    assert_refused("{" LLAMA ",\"eos_token_id\":[\"x\"]}", BATON_ERR_CONFIG, "eos_token_id");
    assert_refused("{" LLAMA ",\"bos_token_id\":-1}", BATON_ERR_CONFIG,
                   "bos_token_id: wanted a token id, found -1");
}

static void errors_name_key_wanted_and_found(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
        baton_status status;
    } cases[] = {
        {"", "config.json:", BATON_ERR_CONFIG},
        {"[1]", "wanted an object", BATON_ERR_CONFIG},
        {"{\"model_type\":\"llama\"", "config.json:1", BATON_ERR_CONFIG},
        {"{\"model_type\":\"gpt2\"}", "wanted llama, mistral or qwen2, found \"gpt2\"",
         BATON_ERR_UNSUPPORTED},
        {"{" SIZES "}", "model_type", BATON_ERR_UNSUPPORTED},
        {"{\"model_type\":\"llama\"}", "vocab_size: wanted a whole number, found nothing",
         BATON_ERR_CONFIG},
        {"{\"model_type\":\"llama\",\"vocab_size\":\"100\"}", "vocab_size", BATON_ERR_CONFIG},
        {"{\"model_type\":\"llama\",\"vocab_size\":0}", "found 0", BATON_ERR_CONFIG},
        {"{\"model_type\":\"llama\",\"vocab_size\":99999999999}", "found 99999999999",
         BATON_ERR_CONFIG},
        {"{" LLAMA ",\"num_key_value_heads\":3}", "num_key_value_heads", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"num_key_value_heads\":16}", "num_key_value_heads", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"head_dim\":7}", "head_dim: wanted an even number, found 7",
         BATON_ERR_CONFIG},
        {"{" LLAMA ",\"hidden_act\":\"gelu\"}", "hidden_act: wanted silu, found gelu",
         BATON_ERR_UNSUPPORTED},
        {"{" LLAMA ",\"rms_norm_eps\":0}", "rms_norm_eps", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"rope_theta\":-1}", "rope_theta", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"rope_scaling\":[]}", "rope_scaling: wanted an object", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"yarn\"}}", "found \"yarn\"",
         BATON_ERR_UNSUPPORTED},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"linear\"}}", "factor", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}",
         "original_max_position_embeddings", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,"
         "\"low_freq_factor\":4,\"high_freq_factor\":1,\"original_max_position_embeddings\":9}}",
         "low_freq_factor < high_freq_factor", BATON_ERR_CONFIG},
        {"{" LLAMA ",\"tie_word_embeddings\":1}", "tie_word_embeddings: wanted true or false",
         BATON_ERR_CONFIG},
        {"{\"model_type\":\"mistral\"," SIZES ",\"sliding_window\":4096}", "sliding_window",
         BATON_ERR_UNSUPPORTED},
        {"{" LLAMA ",\"vocab_size\":5}", "duplicate", BATON_ERR_CONFIG},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_refused(cases[i].json, cases[i].status, cases[i].text);
}

static void the_small_shape_is_valid(void **state)
{
    (void)state;
    bt_model_config config;
    bt_model_config_small(&config);
    assert_ok(bt_model_config_check(&config));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(what_is_left_out_has_hugging_faces_default),
        bt_test(old_and_new_forms_of_rope_are_read_alike),
        bt_test(architectures_differ_in_their_biases),
        bt_test(end_ids_are_one_or_a_list),
        bt_test(errors_name_key_wanted_and_found),
        bt_test(the_small_shape_is_valid),
    };
    return bt_run_tests(tests);
}
