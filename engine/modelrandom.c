/* SPDX-License-Identifier: Apache-2.0 */
/* bt_model_create_random: weights drawn from a seed, the same on every machine, for which greedy
 * output neither repeats itself soon nor leaves printable text. */
#include <string.h>

#include <xxhash.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/half.h"
#include "engine/modelweights.h"
#include "engine/tokenizer.h"

typedef struct {
    const bt_model_config *config;
    uint64_t seed;
    uint16_t *values; /* [capacity], bf16, of the tensor asked for last */
    size_t capacity;
} random_source;

/* Number `index` of the stream `seed`: splitmix64 (Steele, Lea, Flood 2014), which is a hash of a
 * counter, so that any value can be had without those before it. */
static uint64_t bits_at(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Nearly normal, of variance 1: the sum of four uniform 16-bit numbers. Exact in f32, and no libm
 * that could differ between machines. */
static float normal_at(uint64_t seed, uint64_t index)
{
    uint64_t bits = bits_at(seed, index);
    int32_t sum = 0;
    for (unsigned i = 0; i < 4; i++)
        sum += (int32_t)((bits >> (16 * i)) & 0xffff);
    return (float)(sum - 2 * 65535) * (1.7320508f / 65535.0f);
}

static uint64_t seed_of(const random_source *s, const char *name)
{
    return XXH3_64bits_withSeed(name, strlen(name), s->seed);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* 1 / sqrt(n) with IEEE arithmetic alone. */
static float inverse_root(uint32_t n)
{
    double root = n;
    for (int i = 0; i < 64; i++)
        root = 0.5 * (root + n / root);
    return (float)(1.0 / root);
}

/* Standard deviation of a tensor's values. Sharp attention and strong blocks make the next token
 * depend on all of the prefix, not on the last token alone. */
static float spread(const char *name, uint32_t n_columns)
{
    if (ends_with(name, "embed_tokens.weight"))
        return 1.0f;
    float unit = inverse_root(n_columns);
    if (ends_with(name, "q_proj.weight") || ends_with(name, "k_proj.weight"))
        return 1.8f * unit;
    if (ends_with(name, "o_proj.weight") || ends_with(name, "down_proj.weight"))
        return 2.0f * unit;
    return unit;
}

/* Ids that are no printable byte get small logits, so that answers are readable text. */
static bool is_quiet_row(const random_source *s, const char *name, uint32_t row)
{
    bool is_bytes = s->config->vocab_size == BT_BYTES_N_TOKENS && ends_with(name, "lm_head.weight");
    return is_bytes && (row < 0x20 || row > 0x7e);
}

static baton_status reserve(random_source *s, size_t n)
{
    if (n <= s->capacity)
        return BATON_OK;
    uint16_t *values = bt_realloc(s->values, n, sizeof(*values));
    if (values == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "random weights: %zu values", n);
    s->values = values;
    s->capacity = n;
    return BATON_OK;
}

/* --- against repetition ---------------------------------------------------------------------
 * Random weights alone fall into loops: once all tokens that matter are equal, so are their values,
 * and attention cannot tell positions apart. So the first head of the first layer is made by hand:
 *   - column 0 of every embedding is CONSTANT, and the head's q and k see only that: by RoPE its
 *     scores fall with the distance, about as a power of it;
 *   - its values are the embedding's next head_dim columns, and its output is taken away from
 * these: what is left there is minus the tokens of late;
 *   - lm_head's rows hold some of their token's embedding in these columns.
 * So a token that was just said is not said again soon. */
#define CONSTANT 4.0f
#define NEARNESS 0.63f /* of q and k: exponent of the power */
#define REMOVAL 8.0f
#define LIKENESS 0.5f

/* The columns that the head looks at: [1, 1 + n). */
static uint32_t n_seen(const random_source *s)
{
    uint32_t columns = s->config->hidden_size - 1;
    return columns < s->config->head_dim ? columns : s->config->head_dim;
}

static void set(random_source *s, uint32_t n_columns, uint32_t row, uint32_t column, float value)
{
    s->values[(size_t)row * n_columns + column] = bt_f32_to_bf16(value);
}

/* Makes rows [0, n_rows) and columns [0, n_columns) of a matrix of width n_all zero. */
static void clear(random_source *s, uint32_t n_rows, uint32_t n_columns, uint32_t n_all)
{
    for (uint32_t row = 0; row < n_rows; row++)
        memset(s->values + (size_t)row * n_all, 0, n_columns * sizeof(*s->values));
}

static void make_first_head(random_source *s, const char *name, uint32_t n_rows, uint32_t n_columns)
{
    uint32_t head_dim = s->config->head_dim;
    if (strstr(name, ".layers.0.self_attn.") == NULL)
        return;
    if (ends_with(name, "o_proj.weight")) {
        clear(s, n_rows, head_dim, n_columns);
        for (uint32_t i = 0; i < n_seen(s); i++)
            set(s, n_columns, 1 + i, i, -REMOVAL);
        return;
    }
    clear(s, head_dim, n_columns, n_columns);
    if (ends_with(name, "v_proj.weight"))
        for (uint32_t i = 0; i < n_seen(s); i++)
            set(s, n_columns, i, 1 + i, 1.0f);
    else
        for (uint32_t i = 0; i < head_dim / 2; i++) /* the first of each pair that RoPE turns */
            set(s, n_columns, i, 0, NEARNESS);
}

/* What a row of lm_head has of its token's embedding. */
static float likeness(const random_source *s, uint64_t embedding_seed, uint32_t row,
                      uint32_t column)
{
    if (column == 0 || column > n_seen(s))
        return 0;
    uint64_t index = (uint64_t)row * s->config->hidden_size + column;
    return LIKENESS * normal_at(embedding_seed, index);
}

static void fill_matrix(random_source *s, const char *name, uint32_t n_rows, uint32_t n_columns)
{
    uint64_t seed = seed_of(s, name), embedding_seed = seed_of(s, "model.embed_tokens.weight");
    float scale = spread(name, n_columns);
    bool is_head = ends_with(name, "lm_head.weight");
    for (uint32_t row = 0; row < n_rows; row++) {
        float quiet = is_quiet_row(s, name, row) ? 0.1f : 1.0f;
        for (uint32_t i = 0; i < n_columns; i++) {
            float value = normal_at(seed, (uint64_t)row * n_columns + i) * scale;
            if (is_head)
                value += likeness(s, embedding_seed, row, i);
            set(s, n_columns, row, i, value * quiet);
        }
        if (ends_with(name, "embed_tokens.weight"))
            set(s, n_columns, row, 0, CONSTANT);
    }
    make_first_head(s, name, n_rows, n_columns);
}

static baton_status get(void *ctx, const char *name, uint32_t n_rows, uint32_t n_columns,
                        bt_tensor_data *out)
{
    random_source *s = ctx;
    BATON_TRY(reserve(s, (size_t)n_rows * (n_columns != 0 ? n_columns : 1)));
    if (n_columns != 0)
        fill_matrix(s, name, n_rows, n_columns);
    else
        for (uint32_t i = 0; i < n_rows; i++) /* norms are 1, biases 0 */
            s->values[i] = bt_f32_to_bf16(ends_with(name, "bias") ? 0.0f : 1.0f);
    *out = (bt_tensor_data){.data = s->values, .dtype = BATON_DTYPE_BF16};
    return BATON_OK;
}

baton_status bt_model_create_random(const bt_model_config *config, uint64_t seed,
                                    bt_model **model_p)
{
    random_source source = {.config = config, .seed = seed};
    baton_status status =
        bt_model_build(config, &(bt_tensor_source){.get = get, .ctx = &source}, model_p);
    bt_free(source.values);
    return status;
}
