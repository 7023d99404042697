/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/tensorops.h"
#include "engine/tensorops_simd.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/half.h"

#define BT_TARGET
#include "engine/tensorops_rows.h"

static float element(const void *elements, baton_dtype dtype, size_t i)
{
    switch (dtype) {
    case BATON_DTYPE_BF16:
        return bt_bf16_to_f32(((const uint16_t *)elements)[i]);
    case BATON_DTYPE_F16:
        return bt_f16_to_f32(((const uint16_t *)elements)[i]);
    default:
        return ((const float *)elements)[i];
    }
}

static void tile_row(const bt_tile *tile, uint32_t row, baton_dtype dtype)
{
    const float *x = tile->x + row * tile->x_stride;
    float *out = tile->out + row * tile->out_stride;
    for (uint32_t c = 0; c < BT_PANEL; c++) {
        float sum = tile->accumulate ? out[c] : 0.0f;
        for (uint32_t i = 0; i < tile->n_in; i++)
            sum = fmaf(x[i], element(tile->w, dtype, i * tile->w_stride + c), sum);
        out[c] = sum;
    }
}

static void tile_f32(const bt_tile *tile)
{
    for (uint32_t row = 0; row < tile->n_rows; row++)
        tile_row(tile, row, BATON_DTYPE_F32);
}

static void tile_bf16(const bt_tile *tile)
{
    for (uint32_t row = 0; row < tile->n_rows; row++)
        tile_row(tile, row, BATON_DTYPE_BF16);
}

static void tile_f16(const bt_tile *tile)
{
    for (uint32_t row = 0; row < tile->n_rows; row++)
        tile_row(tile, row, BATON_DTYPE_F16);
}

static const bt_ops generic_ops = {"generic", tile_f32,      tile_bf16,  tile_f16, max_block,
                                   exp_block, silu_multiply, widen_bf16, transpose};

const bt_ops *bt_ops_of(bt_simd level)
{
    switch (level) {
    case BT_SIMD_GENERIC:
        return &generic_ops;
    case BT_SIMD_AVX2:
        return bt_ops_avx2();
    case BT_SIMD_AVX512:
        return bt_ops_avx512();
    default:
        return NULL;
    }
}

const bt_ops *bt_ops_best(void)
{
    for (unsigned level = BT_N_SIMD; level-- > 0;) {
        const bt_ops *ops = bt_ops_of((bt_simd)level);
        if (ops != NULL)
            return ops;
    }
    return &generic_ops;
}

baton_status bt_ops_named(const char *name, const bt_ops **ops_p)
{
    static const char *const names[BT_N_SIMD] = {"generic", "avx2", "avx512"};
    if (name == NULL) {
        *ops_p = bt_ops_best();
        return BATON_OK;
    }
    for (unsigned level = 0; level < BT_N_SIMD; level++) {
        if (strcmp(name, names[level]) != 0)
            continue;
        const bt_ops *ops = bt_ops_of((bt_simd)level);
        if (ops == NULL)
            return bt_fail(BATON_ERR_UNSUPPORTED, "simd: this CPU has no %s", name);
        *ops_p = ops;
        return BATON_OK;
    }
    return bt_fail(BATON_ERR_INVALID_ARG, "simd: wanted generic, avx2 or avx512, found %.40s",
                   name);
}

size_t bt_element_bytes(baton_dtype dtype)
{
    switch (dtype) {
    case BATON_DTYPE_F32:
        return 4;
    case BATON_DTYPE_BF16:
    case BATON_DTYPE_F16:
        return 2;
    default:
        return 0;
    }
}

size_t bt_matrix_bytes(const bt_matrix *matrix)
{
    return (size_t)bt_panels(matrix->n_out) * matrix->n_in * BT_PANEL *
           bt_element_bytes(matrix->dtype);
}

baton_status bt_matrix_create(baton_dtype dtype, uint32_t n_out, uint32_t n_in, bt_matrix *matrix)
{
    bt_matrix made = {.dtype = dtype, .n_out = n_out, .n_in = n_in};
    size_t row_bytes, bytes;
    if (!bt_mul_size((size_t)n_in * BT_PANEL, bt_element_bytes(dtype), &row_bytes) ||
        !bt_mul_size(row_bytes, bt_panels(n_out), &bytes))
        return bt_fail(BATON_ERR_NO_MEMORY, "weights: a matrix of %u x %u", n_out, n_in);
    made.panels = bt_aligned_alloc(64, bytes != 0 ? bytes : 64);
    if (made.panels == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "weights: %zu bytes for a matrix of %u x %u", bytes,
                       n_out, n_in);
    memset(made.panels, 0, bytes);
    *matrix = made;
    return BATON_OK;
}

void bt_matrix_set_rows(bt_matrix *matrix, uint32_t first_row, const void *rows, uint32_t n_rows)
{
    size_t bytes = bt_element_bytes(matrix->dtype), n_in = matrix->n_in;
    for (uint32_t r = 0; r < n_rows; r++) {
        uint32_t row = first_row + r;
        const uint8_t *from = (const uint8_t *)rows + r * n_in * bytes;
        uint8_t *to =
            (uint8_t *)matrix->panels + (row / BT_PANEL * n_in * BT_PANEL + row % BT_PANEL) * bytes;
        if (bytes == 2)
            for (size_t i = 0; i < n_in; i++)
                memcpy(to + i * BT_PANEL * 2, from + i * 2, 2);
        else
            for (size_t i = 0; i < n_in; i++)
                memcpy(to + i * BT_PANEL * 4, from + i * 4, 4);
    }
}

void bt_matrix_clear(bt_matrix *matrix)
{
    bt_free(matrix->panels);
    matrix->panels = NULL;
}

static void run_tile(const bt_ops *ops, const bt_tile *tile, baton_dtype dtype)
{
    if (dtype == BATON_DTYPE_BF16)
        ops->tile_bf16(tile);
    else if (dtype == BATON_DTYPE_F16)
        ops->tile_f16(tile);
    else
        ops->tile_f32(tile);
}

void bt_matrix_panel(const bt_ops *ops, const bt_matrix *matrix, uint32_t panel, const float *x,
                     size_t x_stride, uint32_t n_rows, float *out, size_t out_stride,
                     bool accumulate)
{
    uint32_t first = panel * BT_PANEL;
    size_t offset = (size_t)first * matrix->n_in * bt_element_bytes(matrix->dtype);
    bt_tile tile = {.x = x,
                    .x_stride = x_stride,
                    .w = (const uint8_t *)matrix->panels + offset,
                    .w_stride = BT_PANEL,
                    .out = out,
                    .out_stride = out_stride,
                    .n_rows = n_rows,
                    .n_in = matrix->n_in,
                    .accumulate = accumulate};
    if (matrix->n_out - first >= BT_PANEL) {
        run_tile(ops, &tile, matrix->dtype);
        return;
    }
    /* The last panel may be wider than what is left of a row: by way of a row of its own. */
    size_t row_bytes = (matrix->n_out - first) * sizeof(float);
    for (uint32_t row = 0; row < n_rows; row++) {
        float whole[BT_PANEL] = {0};
        bt_tile one = tile;
        one.x = x + row * x_stride;
        one.out = whole;
        one.n_rows = 1;
        memcpy(whole, out + row * out_stride, row_bytes);
        run_tile(ops, &one, matrix->dtype);
        memcpy(out + row * out_stride, whole, row_bytes);
    }
}

void bt_widen(const bt_ops *ops, float *out, const void *in, baton_dtype dtype, size_t n)
{
    if (dtype == BATON_DTYPE_F32) {
        memcpy(out, in, n * sizeof(float));
        return;
    }
    if (dtype == BATON_DTYPE_BF16 && (uintptr_t)in % sizeof(uint16_t) == 0) {
        ops->widen_bf16(out, in, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, (const uint8_t *)in + i * sizeof(bits), sizeof(bits));
        out[i] = dtype == BATON_DTYPE_BF16 ? bt_bf16_to_f32(bits) : bt_f16_to_f32(bits);
    }
}

void bt_narrow(void *out, const float *in, baton_dtype dtype, size_t n)
{
    uint16_t *halves = out;
    if (dtype == BATON_DTYPE_F32)
        memcpy(out, in, n * sizeof(float));
    else if (dtype == BATON_DTYPE_BF16)
        for (size_t i = 0; i < n; i++)
            halves[i] = bt_f32_to_bf16(in[i]);
    else
        for (size_t i = 0; i < n; i++)
            halves[i] = bt_f32_to_f16(in[i]);
}

/* Sum of squares in lanes: element i belongs to lane i % BT_LANES. */
static float sum_of_squares(const float *x, size_t n)
{
    float lanes[BT_LANES] = {0};
    size_t i = 0;
    for (; i + BT_LANES <= n; i += BT_LANES)
        for (size_t lane = 0; lane < BT_LANES; lane++)
            lanes[lane] += x[i + lane] * x[i + lane];
    for (; i < n; i++)
        lanes[i % BT_LANES] += x[i] * x[i];
    for (size_t width = BT_LANES / 2; width > 0; width /= 2)
        for (size_t lane = 0; lane < width; lane++)
            lanes[lane] += lanes[lane + width];
    return lanes[0];
}

void bt_rms_norm(float *restrict out, const float *restrict x, const float *restrict weight,
                 size_t n, double epsilon)
{
    double mean = (double)sum_of_squares(x, n) / (double)n;
    float scale = (float)(1.0 / sqrt(mean + epsilon));
    for (size_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

void bt_rope(float *restrict x, const float *restrict cosine, const float *restrict sine, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float a = x[i], b = x[i + n];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + n] = b * cosine[i] + a * sine[i];
    }
}

void bt_add(float *restrict x, const float *restrict by, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += by[i];
}

void bt_scale(float *x, float by, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= by;
}
