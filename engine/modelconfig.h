/* SPDX-License-Identifier: Apache-2.0 */
/* Shape of a Llama-family decoder, as Hugging Face's config.json states it: model_type llama,
 * mistral (without sliding window) or qwen2 (without sliding window).
 * Thread rule: plain data; parsing from any thread. */
#ifndef BT_ENGINE_MODELCONFIG_H
#define BT_ENGINE_MODELCONFIG_H
#include <baton/status.h>
#include <stdbool.h>

enum { BT_MAX_EOS_IDS = 8 };

typedef enum {
    BT_ROPE_DEFAULT,
    BT_ROPE_LINEAR, /* every frequency divided by factor */
    BT_ROPE_LLAMA3, /* low frequencies divided by factor, with a smooth passage */
} bt_rope_type;

typedef struct {
    bt_rope_type type;
    double theta;
    double factor;                            /* linear, llama3 */
    double low_freq_factor, high_freq_factor; /* llama3 */
    uint32_t original_max_positions;          /* llama3 */
} bt_rope_config;

typedef struct {
    uint32_t vocab_size;
    uint32_t hidden_size;
    uint32_t ffn_size; /* intermediate_size */
    uint32_t n_layers;
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* even; need not be hidden_size / n_heads */
    uint32_t max_positions;
    double rms_norm_eps;
    bt_rope_config rope;
    bool tied_embeddings;
    bool qkv_bias, output_bias, mlp_bias;
    bool has_bos;
    uint32_t bos_id;
    uint32_t n_eos_ids;
    uint32_t eos_ids[BT_MAX_EOS_IDS];
} bt_model_config;

/* json[n]: the contents of a config.json. *config is set only on success. Errors: CONFIG, which
 * name the key, what was wanted and what was found; UNSUPPORTED (another architecture, activation,
 * rope type), NO_MEMORY. */
baton_status bt_model_config_parse(const char *json, size_t n, bt_model_config *config);
/* As above for model_dir/config.json. Errors: also NOT_FOUND, IO, TOO_LARGE. */
baton_status bt_model_config_load(const char *model_dir, bt_model_config *config);
/* The shape is one that the engine can compute. Errors: CONFIG, naming the field. */
baton_status bt_model_config_check(const bt_model_config *config);
/* The built-in shape for random weights: small enough that several engines share two cores, with
 * the byte tokenizer's ids as vocabulary. */
void bt_model_config_small(bt_model_config *config);

#endif
