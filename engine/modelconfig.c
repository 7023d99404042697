/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/modelconfig.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/filetext.h"
#include "engine/tokenizer.h"

enum {
    MAX_CONFIG_BYTES = 1 << 20,
    MAX_LAYERS = 1024,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_GROUP = 96, /* BT_ATTENTION_ROWS */
    MAX_WIDTH = 1 << 20,
    MAX_POSITIONS = 1 << 24,
};

/* One value as text for a message. */
static void describe(const json_t *value, char *text, size_t n)
{
    char *dump = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(text, n, "%s", dump != NULL ? dump : "nothing");
    free(dump);
}

static baton_status bad(const char *key, const char *wanted, const json_t *found)
{
    char text[80];
    describe(found, text, sizeof(text));
    return bt_fail(BATON_ERR_CONFIG, "config.json: %s: wanted %s, found %s", key, wanted, text);
}

static bool is_unset(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

/* A whole number from 1 to max; left as it is when the key is not there. */
static baton_status read_count(const json_t *object, const char *key, uint32_t max, uint32_t *out)
{
    const json_t *value = json_object_get(object, key);
    char wanted[48];
    if (is_unset(value))
        return BATON_OK;
    snprintf(wanted, sizeof(wanted), "a whole number from 1 to %u", max);
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > (json_int_t)max)
        return bad(key, wanted, value);
    *out = (uint32_t)json_integer_value(value);
    return BATON_OK;
}

static baton_status read_needed(const json_t *object, const char *key, uint32_t max, uint32_t *out)
{
    if (is_unset(json_object_get(object, key)))
        return bad(key, "a whole number", NULL);
    return read_count(object, key, max, out);
}

static baton_status read_positive(const json_t *object, const char *key, double *out)
{
    const json_t *value = json_object_get(object, key);
    if (is_unset(value))
        return BATON_OK;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number > 0) || !isfinite(number))
        return bad(key, "a number above 0", value);
    *out = number;
    return BATON_OK;
}

static baton_status read_bool(const json_t *object, const char *key, bool *out)
{
    const json_t *value = json_object_get(object, key);
    if (is_unset(value))
        return BATON_OK;
    if (!json_is_boolean(value))
        return bad(key, "true or false", value);
    *out = json_is_true(value);
    return BATON_OK;
}

static baton_status read_sizes(const json_t *root, bt_model_config *c)
{
    BATON_TRY(read_needed(root, "vocab_size", BT_MAX_VOCAB, &c->vocab_size));
    BATON_TRY(read_needed(root, "hidden_size", MAX_WIDTH, &c->hidden_size));
    BATON_TRY(read_needed(root, "intermediate_size", MAX_WIDTH, &c->ffn_size));
    BATON_TRY(read_needed(root, "num_hidden_layers", MAX_LAYERS, &c->n_layers));
    BATON_TRY(read_needed(root, "num_attention_heads", MAX_HEADS, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    c->head_dim = c->hidden_size / c->n_heads;
    c->max_positions = 2048;
    BATON_TRY(read_count(root, "num_key_value_heads", MAX_HEADS, &c->n_kv_heads));
    BATON_TRY(read_count(root, "head_dim", MAX_HEAD_DIM, &c->head_dim));
    return read_count(root, "max_position_embeddings", MAX_POSITIONS, &c->max_positions);
}

/* The architectures differ, as far as they matter here, in their biases. */
static baton_status read_architecture(const json_t *root, bt_model_config *c)
{
    const json_t *type = json_object_get(root, "model_type");
    const char *name = json_string_value(type);
    bool sliding = !is_unset(json_object_get(root, "sliding_window"));
    if (name != NULL && strcmp(name, "llama") == 0) {
        sliding = false;
        BATON_TRY(read_bool(root, "attention_bias", &c->qkv_bias));
        c->output_bias = c->qkv_bias;
        BATON_TRY(read_bool(root, "mlp_bias", &c->mlp_bias));
    } else if (name != NULL && strcmp(name, "qwen2") == 0) {
        c->qkv_bias = true;
        bool used = false;
        BATON_TRY(read_bool(root, "use_sliding_window", &used));
        sliding = sliding && used;
    } else if (name == NULL || strcmp(name, "mistral") != 0) {
        char found[80];
        describe(type, found, sizeof(found));
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "config.json: model_type: wanted llama, mistral or qwen2, found %s", found);
    }
    if (sliding)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "config.json: sliding_window: only full attention is supported");
    const char *act = json_string_value(json_object_get(root, "hidden_act"));
    if (act != NULL && strcmp(act, "silu") != 0)
        return bt_fail(BATON_ERR_UNSUPPORTED, "config.json: hidden_act: wanted silu, found %.40s",
                       act);
    return BATON_OK;
}

static baton_status read_scaling(const json_t *scaling, bt_rope_config *rope)
{
    const json_t *type = json_object_get(scaling, "rope_type");
    if (is_unset(type))
        type = json_object_get(scaling, "type");
    const char *name = is_unset(type) ? "default" : json_string_value(type);
    if (name != NULL && strcmp(name, "default") == 0)
        return BATON_OK;
    if (name == NULL || (strcmp(name, "linear") != 0 && strcmp(name, "llama3") != 0)) {
        char found[80];
        describe(type, found, sizeof(found));
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "config.json: rope_type: wanted default, linear or llama3, found %s", found);
    }
    BATON_TRY(read_positive(scaling, "factor", &rope->factor));
    if (rope->factor == 0)
        return bad("rope_scaling.factor", "a number above 0", NULL);
    if (strcmp(name, "linear") == 0) {
        rope->type = BT_ROPE_LINEAR;
        return BATON_OK;
    }
    rope->type = BT_ROPE_LLAMA3;
    BATON_TRY(read_positive(scaling, "low_freq_factor", &rope->low_freq_factor));
    BATON_TRY(read_positive(scaling, "high_freq_factor", &rope->high_freq_factor));
    return read_needed(scaling, "original_max_position_embeddings", MAX_POSITIONS,
                       &rope->original_max_positions);
}

/* Older files: rope_theta and rope_scaling. Newer ones: both in rope_parameters. */
static baton_status read_rope(const json_t *root, bt_rope_config *rope)
{
    rope->theta = 10000;
    BATON_TRY(read_positive(root, "rope_theta", &rope->theta));
    const char *const keys[] = {"rope_scaling", "rope_parameters"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *object = json_object_get(root, keys[i]);
        if (is_unset(object))
            continue;
        if (!json_is_object(object))
            return bad(keys[i], "an object", object);
        BATON_TRY(read_positive(object, "rope_theta", &rope->theta));
        BATON_TRY(read_scaling(object, rope));
    }
    return BATON_OK;
}

static baton_status read_id(const json_t *value, const char *key, uint32_t *id)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= BT_MAX_VOCAB)
        return bad(key, "a token id", value);
    *id = (uint32_t)json_integer_value(value);
    return BATON_OK;
}

static baton_status read_special_ids(const json_t *root, bt_model_config *c)
{
    const json_t *bos = json_object_get(root, "bos_token_id");
    const json_t *eos = json_object_get(root, "eos_token_id");
    if (!is_unset(bos)) {
        BATON_TRY(read_id(bos, "bos_token_id", &c->bos_id));
        c->has_bos = true;
    }
    if (is_unset(eos))
        return BATON_OK;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    if (n > BT_MAX_EOS_IDS)
        return bad("eos_token_id", "at most 8 ids", eos);
    for (size_t i = 0; i < n; i++)
        BATON_TRY(read_id(json_is_array(eos) ? json_array_get(eos, i) : eos, "eos_token_id",
                          &c->eos_ids[c->n_eos_ids++]));
    return BATON_OK;
}

static baton_status read_config(const json_t *root, bt_model_config *c)
{
    c->rms_norm_eps = 1e-6;
    BATON_TRY(read_architecture(root, c));
    BATON_TRY(read_sizes(root, c));
    BATON_TRY(read_positive(root, "rms_norm_eps", &c->rms_norm_eps));
    BATON_TRY(read_rope(root, &c->rope));
    BATON_TRY(read_bool(root, "tie_word_embeddings", &c->tied_embeddings));
    BATON_TRY(read_special_ids(root, c));
    return bt_model_config_check(c);
}

baton_status bt_model_config_parse(const char *json, size_t n, bt_model_config *config)
{
    json_error_t error;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return bt_fail(BATON_ERR_CONFIG, "config.json:%d: %s", error.line, error.text);
    bt_model_config read = {0};
    baton_status status = json_is_object(root)
                              ? read_config(root, &read)
                              : bt_fail(BATON_ERR_CONFIG, "config.json: wanted an object");
    json_decref(root);
    BATON_TRY(status);
    *config = read;
    return BATON_OK;
}

baton_status bt_model_config_load(const char *model_dir, bt_model_config *config)
{
    char path[4096];
    if (snprintf(path, sizeof(path), "%s/config.json", model_dir) >= (int)sizeof(path))
        return bt_fail(BATON_ERR_TOO_LARGE, "model: path of the directory is too long");
    char *text;
    size_t n;
    BATON_TRY(bt_file_read(path, MAX_CONFIG_BYTES, &text, &n));
    baton_status status = bt_model_config_parse(text, n, config);
    bt_free(text);
    return status;
}

static baton_status check_range(const char *field, uint32_t value, uint32_t max)
{
    if (value >= 1 && value <= max)
        return BATON_OK;
    return bt_fail(BATON_ERR_CONFIG, "model: %s: wanted 1 to %u, found %u", field, max, value);
}

static baton_status check_rope(const bt_rope_config *rope)
{
    if (!(rope->theta > 0))
        return bt_fail(BATON_ERR_CONFIG, "model: rope_theta: wanted above 0, found %g",
                       rope->theta);
    if (rope->type != BT_ROPE_DEFAULT && !(rope->factor > 0))
        return bt_fail(BATON_ERR_CONFIG, "model: rope factor: wanted above 0, found %g",
                       rope->factor);
    if (rope->type != BT_ROPE_LLAMA3)
        return BATON_OK;
    if (!(rope->low_freq_factor > 0 && rope->high_freq_factor > rope->low_freq_factor))
        return bt_fail(BATON_ERR_CONFIG,
                       "model: rope_scaling: wanted 0 < low_freq_factor < high_freq_factor, found "
                       "%g and %g",
                       rope->low_freq_factor, rope->high_freq_factor);
    return check_range("original_max_position_embeddings", rope->original_max_positions,
                       MAX_POSITIONS);
}

baton_status bt_model_config_check(const bt_model_config *c)
{
    BATON_TRY(check_range("vocab_size", c->vocab_size, BT_MAX_VOCAB));
    BATON_TRY(check_range("hidden_size", c->hidden_size, MAX_WIDTH));
    BATON_TRY(check_range("intermediate_size", c->ffn_size, MAX_WIDTH));
    BATON_TRY(check_range("num_hidden_layers", c->n_layers, MAX_LAYERS));
    BATON_TRY(check_range("num_attention_heads", c->n_heads, MAX_HEADS));
    BATON_TRY(check_range("num_key_value_heads", c->n_kv_heads, c->n_heads));
    BATON_TRY(check_range("head_dim", c->head_dim, MAX_HEAD_DIM));
    BATON_TRY(check_range("max_position_embeddings", c->max_positions, MAX_POSITIONS));
    if (c->n_heads % c->n_kv_heads != 0 || c->n_heads / c->n_kv_heads > MAX_GROUP)
        return bt_fail(BATON_ERR_CONFIG,
                       "model: num_key_value_heads: wanted a divisor of num_attention_heads %u, at "
                       "most %d times smaller, found %u",
                       c->n_heads, MAX_GROUP, c->n_kv_heads);
    if (c->head_dim % 2 != 0)
        return bt_fail(BATON_ERR_CONFIG, "model: head_dim: wanted an even number, found %u",
                       c->head_dim);
    if (!(c->rms_norm_eps > 0))
        return bt_fail(BATON_ERR_CONFIG, "model: rms_norm_eps: wanted above 0, found %g",
                       c->rms_norm_eps);
    return check_rope(&c->rope);
}

void bt_model_config_small(bt_model_config *config)
{
    *config = (bt_model_config){
        .vocab_size = BT_BYTES_N_TOKENS,
        .hidden_size = 128,
        .ffn_size = 256,
        .n_layers = 4,
        .n_heads = 4,
        .n_kv_heads = 2,
        .head_dim = 32,
        .max_positions = 16384,
        .rms_norm_eps = 1e-5,
        .rope = {.type = BT_ROPE_DEFAULT, .theta = 10000},
        .has_bos = true,
        .bos_id = BT_BYTES_BOS,
        .n_eos_ids = 1,
        .eos_ids = {BT_BYTES_EOS},
    };
}
