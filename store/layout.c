/* SPDX-License-Identifier: Apache-2.0 */
#include <baton/layout.h>

#include "core/alloc.h"
#include "core/fail.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    baton_dtype dtype;
    uint32_t bytes;
    const char *name;
} dtypes[] = {
    {BATON_DTYPE_F32, 4, "f32"},         {BATON_DTYPE_F16, 2, "f16"},
    {BATON_DTYPE_BF16, 2, "bf16"},       {BATON_DTYPE_F8_E4M3, 1, "f8_e4m3"},
    {BATON_DTYPE_F8_E5M2, 1, "f8_e5m2"}, {BATON_DTYPE_U8, 1, "u8"},
};

/* The number fields, so that check and match treat each alike. compared: block_tokens may differ.
 */
static const struct {
    const char *name;
    size_t offset;
    int compared;
} fields[] = {
    {"n_layers", offsetof(baton_layout, n_layers), 1},
    {"n_planes", offsetof(baton_layout, n_planes), 1},
    {"n_kv_heads", offsetof(baton_layout, n_kv_heads), 1},
    {"head_dim", offsetof(baton_layout, head_dim), 1},
    {"chunk_tokens", offsetof(baton_layout, chunk_tokens), 1},
    {"block_tokens", offsetof(baton_layout, block_tokens), 0},
    {"tp_size", offsetof(baton_layout, tp_size), 1},
    {"pp_size", offsetof(baton_layout, pp_size), 1},
};
enum {
    N_FIELDS = sizeof(fields) / sizeof(fields[0]),
    N_DTYPES = sizeof(dtypes) / sizeof(dtypes[0])
};

static uint32_t field(const baton_layout *layout, size_t i)
{
    uint32_t value;
    memcpy(&value, (const char *)layout + fields[i].offset, sizeof(value));
    return value;
}

uint32_t baton_dtype_bytes(baton_dtype dtype)
{
    for (size_t i = 0; i < N_DTYPES; i++) {
        if (dtypes[i].dtype == dtype)
            return dtypes[i].bytes;
    }
    return 0;
}

const char *baton_dtype_name(baton_dtype dtype)
{
    for (size_t i = 0; i < N_DTYPES; i++) {
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    }
    return "?";
}

baton_status baton_layout_check(const baton_layout *layout)
{
    if (memchr(layout->model, 0, sizeof(layout->model)) == NULL || layout->model[0] == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "layout: model: wanted a name of 1 to %d bytes",
                       BATON_MODEL_NAME_BYTES - 1);
    if (baton_dtype_bytes(layout->dtype) == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "layout: dtype: wanted 1 to %d, found %d",
                       BATON_DTYPE_U8, (int)layout->dtype);
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (field(layout, i) == 0)
            return bt_fail(BATON_ERR_INVALID_ARG, "layout: %s: wanted at least 1, found 0",
                           fields[i].name);
    }
    if (layout->n_planes > 2)
        return bt_fail(BATON_ERR_INVALID_ARG, "layout: n_planes: wanted 1 or 2, found %u",
                       layout->n_planes);
    uint64_t bytes;
    return baton_layout_token_bytes(layout, &bytes);
}

baton_status baton_layout_match(const baton_layout *ours, const baton_layout *theirs)
{
    char text[BT_ERROR_TEXT_BYTES] = "";
    size_t used = 0;
    if (strncmp(ours->model, theirs->model, sizeof(ours->model)) != 0)
        used += (size_t)snprintf(text, sizeof(text), ", model ours '%.100s' theirs '%.100s'",
                                 ours->model, theirs->model);
    if (ours->dtype != theirs->dtype)
        used += (size_t)snprintf(text + used, sizeof(text) - used, ", dtype ours %s theirs %s",
                                 baton_dtype_name(ours->dtype), baton_dtype_name(theirs->dtype));
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (fields[i].compared && field(ours, i) != field(theirs, i) && used < sizeof(text))
            used += (size_t)snprintf(text + used, sizeof(text) - used, ", %s ours %u theirs %u",
                                     fields[i].name, field(ours, i), field(theirs, i));
    }
    if (used == 0)
        return BATON_OK;
    return bt_fail(BATON_ERR_LAYOUT_MISMATCH, "layout: %s", text + 2);
}

baton_status baton_layout_token_bytes(const baton_layout *layout, uint64_t *bytes)
{
    uint64_t n = baton_dtype_bytes(layout->dtype);
    if (n == 0 || !bt_mul_u64(n, layout->n_layers, &n) || !bt_mul_u64(n, layout->n_planes, &n) ||
        !bt_mul_u64(n, layout->n_kv_heads, &n) || !bt_mul_u64(n, layout->head_dim, &n) || n == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "layout: bytes of a token: a field is 0 or too large");
    uint64_t chunk;
    if (!bt_mul_u64(n, layout->chunk_tokens, &chunk) || chunk > (UINT64_C(1) << 40))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "layout: bytes of a chunk: wanted at most 1 TiB, found %" PRIu64 " x %u", n,
                       layout->chunk_tokens);
    *bytes = n;
    return BATON_OK;
}
