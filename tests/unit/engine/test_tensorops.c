/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <math.h>

#include "core/alloc.h"
#include "engine/half.h"
#include "engine/tensorops.h"

enum { MAX_ROWS = 27, MAX_IN = 70, STRIDE = 40 };

static float small_float(bt_rng *rng)
{
    return (float)(int64_t)(bt_rng_next(rng) >> 40) * 0x1p-23f - 1.0f;
}

static void fill(bt_rng *rng, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = small_float(rng);
}

static void (*tile_of(const bt_ops *ops, baton_dtype dtype))(const bt_tile *)
{
    return dtype == BATON_DTYPE_F32    ? ops->tile_f32
           : dtype == BATON_DTYPE_BF16 ? ops->tile_bf16
                                       : ops->tile_f16;
}

/* The definition in tensorops.h, word for word. */
static float chain(const float *x, const float *w, size_t w_stride, uint32_t n_in, float start)
{
    float sum = start;
    for (uint32_t i = 0; i < n_in; i++)
        sum = fmaf(x[i], w[i * w_stride], sum);
    return sum;
}

static void check_tile(const bt_ops *ops, baton_dtype dtype, uint32_t n_rows, uint32_t n_in,
                       bool accumulate)
{
    static float x[MAX_ROWS * MAX_IN], w[MAX_IN * STRIDE], wide[MAX_IN * STRIDE];
    static float out[MAX_ROWS * STRIDE], before[MAX_ROWS * STRIDE];
    static uint16_t narrow[MAX_IN * STRIDE];
    bt_rng rng = {.state = n_rows * 1000 + n_in};
    fill(&rng, x, MAX_ROWS * MAX_IN);
    fill(&rng, w, MAX_IN * STRIDE);
    fill(&rng, out, MAX_ROWS * STRIDE);
    memcpy(before, out, sizeof(out));
    const void *weights = w;
    if (dtype != BATON_DTYPE_F32) {
        bt_narrow(narrow, w, dtype, MAX_IN * STRIDE);
        weights = narrow;
    }
    bt_widen(ops, wide, weights, dtype, MAX_IN * STRIDE);
    bt_tile tile = {.x = x,
                    .x_stride = MAX_IN,
                    .w = weights,
                    .w_stride = STRIDE,
                    .out = out,
                    .out_stride = STRIDE,
                    .n_rows = n_rows,
                    .n_in = n_in,
                    .accumulate = accumulate};
    tile_of(ops, dtype)(&tile);
    for (uint32_t r = 0; r < MAX_ROWS; r++)
        for (uint32_t c = 0; c < STRIDE; c++) {
            float was = before[r * STRIDE + c], wanted = was;
            if (r < n_rows && c < BT_PANEL)
                wanted = chain(x + r * MAX_IN, wide + c, STRIDE, n_in, accumulate ? was : 0);
            assert_memory_equal(&out[r * STRIDE + c], &wanted, sizeof(wanted));
        }
}

static void tiles_of_every_level_are_the_chain_of_the_definition(void **state)
{
    (void)state;
    static const baton_dtype dtypes[] = {BATON_DTYPE_F32, BATON_DTYPE_BF16, BATON_DTYPE_F16};
    for (unsigned level = 0; level < BT_N_SIMD; level++) {
        const bt_ops *ops = bt_ops_of((bt_simd)level);
        for (unsigned d = 0; ops != NULL && d < 3; d++)
            for (uint32_t rows = 1; rows <= MAX_ROWS; rows += rows < 14 ? 1 : 13)
                for (uint32_t n_in = 1; n_in <= MAX_IN; n_in += 23)
                    check_tile(ops, dtypes[d], rows, n_in, (rows + n_in) % 2 == 0);
    }
}

static void softmax_and_silu_have_equal_bits_on_every_level(void **state)
{
    (void)state;
    const bt_ops *generic = bt_ops_of(BT_SIMD_GENERIC);
    bt_rng rng = {.state = 5};
    for (unsigned round = 0; round < 200; round++) {
        float scores[BT_KEY_BLOCK], gate[BT_KEY_BLOCK], up[BT_KEY_BLOCK];
        uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, BT_KEY_BLOCK);
        fill(&rng, scores, BT_KEY_BLOCK);
        fill(&rng, up, BT_KEY_BLOCK);
        bt_scale(scores, (float)(round + 1), BT_KEY_BLOCK);
        float wanted[BT_KEY_BLOCK], silu[BT_KEY_BLOCK];
        memcpy(wanted, scores, sizeof(wanted));
        memcpy(silu, scores, sizeof(silu));
        float max = generic->max_block(wanted, n), sum = generic->exp_block(wanted, n, max);
        generic->silu_multiply(silu, up, BT_KEY_BLOCK);
        for (unsigned level = 1; level < BT_N_SIMD; level++) {
            const bt_ops *ops = bt_ops_of((bt_simd)level);
            if (ops == NULL)
                continue;
            float found[BT_KEY_BLOCK];
            memcpy(found, scores, sizeof(found));
            assert_true(ops->max_block(found, n) == max);
            assert_true(ops->exp_block(found, n, max) == sum);
            assert_memory_equal(found, wanted, sizeof(found));
            memcpy(gate, scores, sizeof(gate));
            ops->silu_multiply(gate, up, BT_KEY_BLOCK);
            assert_memory_equal(gate, silu, sizeof(gate));
        }
    }
}

/* exp by polynomial: 2 units in the last place, and exactly 1 at 0. */
static void exp_is_near_the_c_librarys(void **state)
{
    (void)state;
    const bt_ops *ops = bt_ops_best();
    for (float x = 0; x > -86.0f; x -= 0.37f) {
        float scores[BT_KEY_BLOCK] = {x};
        float found = ops->exp_block(scores, 1, 0.0f);
        double wanted = exp((double)x);
        assert_true(fabs((double)found - wanted) <= 2.4e-7 * wanted);
    }
    float zero[BT_KEY_BLOCK] = {3.5f};
    assert_true(ops->exp_block(zero, 1, 3.5f) == 1.0f);
    float far[BT_KEY_BLOCK] = {-INFINITY};
    assert_true(ops->exp_block(far, 1, 0.0f) < 1e-37f);
    float gate = -1000.0f, up = 1.0f;
    ops->silu_multiply(&gate, &up, 1);
    assert_true(fabsf(gate) < 1e-30f);
}

static void moves_are_exact_on_every_level(void **state)
{
    (void)state;
    enum { N = 16, IN_STRIDE = 21, OUT_STRIDE = 19 };
    float in[N * IN_STRIDE], out[N * OUT_STRIDE], wide[43];
    uint16_t halves[43];
    bt_rng rng = {.state = 11};
    fill(&rng, in, N * IN_STRIDE);
    bt_rng_fill(&rng, halves, sizeof(halves));
    for (unsigned level = 0; level < BT_N_SIMD; level++) {
        const bt_ops *ops = bt_ops_of((bt_simd)level);
        if (ops == NULL)
            continue;
        memset(out, 0, sizeof(out));
        ops->transpose(out, OUT_STRIDE, in, IN_STRIDE);
        for (uint32_t r = 0; r < OUT_STRIDE; r++)
            for (uint32_t c = 0; c < N; c++)
                assert_true(out[c * OUT_STRIDE + r] == (r < N ? in[r * IN_STRIDE + c] : 0));
        for (uint32_t n = 0; n < 43; n++) {
            memset(wide, 0x11, sizeof(wide));
            ops->widen_bf16(wide, halves, n);
            for (uint32_t i = 0; i < 43; i++)
                assert_int_equal(bt_bits_of_f32(wide[i]),
                                 i < n ? (uint32_t)halves[i] << 16 : 0x11111111u);
        }
    }
}

static void matrix_panels_give_every_row_its_place(void **state)
{
    (void)state;
    enum { N_OUT = 45, N_IN = 7, N_ROWS = 3 };
    float rows[N_OUT * N_IN], x[N_ROWS * N_IN], out[N_ROWS][N_OUT + 1];
    bt_rng rng = {.state = 9};
    fill(&rng, rows, N_OUT * N_IN);
    fill(&rng, x, N_ROWS * N_IN);
    bt_matrix matrix;
    assert_ok(bt_matrix_create(BATON_DTYPE_F32, N_OUT, N_IN, &matrix));
    bt_matrix_set_rows(&matrix, 0, rows, 40);
    bt_matrix_set_rows(&matrix, 40, rows + 40 * N_IN, N_OUT - 40);
    for (uint32_t r = 0; r < N_ROWS; r++)
        out[r][N_OUT] = 77;
    for (uint32_t panel = 0; panel < bt_panels(N_OUT); panel++)
        bt_matrix_panel(bt_ops_best(), &matrix, panel, x, N_IN, N_ROWS, &out[0][panel * BT_PANEL],
                        N_OUT + 1, false);
    for (uint32_t r = 0; r < N_ROWS; r++) {
        for (uint32_t c = 0; c < N_OUT; c++)
            assert_true(out[r][c] == chain(x + r * N_IN, rows + c * N_IN, 1, N_IN, 0));
        assert_true(out[r][N_OUT] == 77); /* behind the row: not ours */
    }
    bt_matrix_clear(&matrix);
}

static void every_half_survives_the_way_to_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t bits = (uint16_t)i;
        float bf16 = bt_bf16_to_f32(bits), f16 = bt_f16_to_f32(bits);
        if (!isnan(bf16))
            assert_int_equal(bt_f32_to_bf16(bf16), bits);
        else
            assert_true(isnan(bt_bf16_to_f32(bt_f32_to_bf16(bf16))));
        if (!isnan(f16))
            assert_int_equal(bt_f32_to_f16(f16), bits);
        else
            assert_true(isnan(bt_f16_to_f32(bt_f32_to_f16(f16))));
    }
}

/* Halfway between two neighbours goes to the even one, a little more or less to the nearer. */
static void narrowing_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 0x7bff; i++) { /* f16 up to the largest finite but one */
        float low = bt_f16_to_f32((uint16_t)i), high = bt_f16_to_f32((uint16_t)(i + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(bt_f32_to_f16(middle), i + i % 2);
        assert_int_equal(bt_f32_to_f16(nextafterf(middle, 0.0f)), i);
        assert_int_equal(bt_f32_to_f16(-nextafterf(middle, INFINITY)), (i + 1) | 0x8000);
    }
    for (uint32_t i = 0; i < 0x7f7f; i += 3) {
        float low = bt_bf16_to_f32((uint16_t)i), high = bt_bf16_to_f32((uint16_t)(i + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(bt_f32_to_bf16(middle), i + i % 2);
        assert_int_equal(bt_f32_to_bf16(nextafterf(middle, INFINITY)), i + 1);
    }
    assert_int_equal(bt_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(bt_f32_to_f16(65519.0f), 0x7bff);
}

static void norm_divides_by_the_root_of_the_mean_square(void **state)
{
    (void)state;
    enum { N = 37 };
    float x[N], weight[N], out[N];
    bt_rng rng = {.state = 1};
    fill(&rng, x, N);
    fill(&rng, weight, N);
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += (double)x[i] * (double)x[i];
    bt_rms_norm(out, x, weight, N, 1e-5);
    for (int i = 0; i < N; i++) {
        double wanted = (double)x[i] / sqrt(sum / N + 1e-5) * (double)weight[i];
        assert_true(fabs((double)out[i] - wanted) <= 1e-6);
    }
}

static void unknown_and_missing_levels_are_named(void **state)
{
    (void)state;
    const bt_ops *ops;
    assert_fails(bt_ops_named("sse9", &ops), BATON_ERR_INVALID_ARG, "sse9");
    assert_ok(bt_ops_named("generic", &ops));
    assert_string_equal(ops->name, "generic");
    assert_ok(bt_ops_named(NULL, &ops));
    print_message("best level: %s\n", ops->name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(tiles_of_every_level_are_the_chain_of_the_definition),
        bt_test(softmax_and_silu_have_equal_bits_on_every_level),
        bt_test(exp_is_near_the_c_librarys),
        bt_test(moves_are_exact_on_every_level),
        bt_test(matrix_panels_give_every_row_its_place),
        bt_test(every_half_survives_the_way_to_f32_and_back),
        bt_test(narrowing_rounds_to_nearest_even),
        bt_test(norm_divides_by_the_root_of_the_mean_square),
        bt_test(unknown_and_missing_levels_are_named),
    };
    return bt_run_tests(tests);
}
