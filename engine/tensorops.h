/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic of the decoder, with a result that is fixed to the bit.
 *
 * Every output element of a product is one chain of fused multiply-adds over the inner index in
 * ascending order, whatever the shape of the call:
 *
 *   out[r][c] = fma(x[r][d-1], w[d-1][c], ... fma(x[r][1], w[1][c], fma(x[r][0], w[0][c], start)))
 *
 * SIMD lanes run along c (and rows are unrolled), never along the inner index, so that a lane's
 * width, the number of rows in a call and the cut between calls cannot show in the result. Weights
 * are stored so that this is a sequential read: in panels of BT_PANEL outputs,
 * [n_panels][n_in][BT_PANEL]. Sums that do run along a vector (norm, softmax) have 16 lanes and a
 * fixed tree. exp is our own polynomial, in the same operations on every level. Everything is
 * compiled without contraction: a fused operation is one that says so.
 *
 * Thread rule: any thread. */
#ifndef BT_ENGINE_TENSOROPS_H
#define BT_ENGINE_TENSOROPS_H
#include <baton/layout.h>
#include <baton/status.h>
#include <stdbool.h>

enum {
    BT_PANEL = 32,     /* output columns of a panel */
    BT_KEY_BLOCK = 64, /* key positions that softmax and attention take at a time */
    BT_LANES = 16,     /* of sums along a vector */
};

/* out[r][c] = (accumulate ? out[r][c] : 0) + sum over i of x[r][i] * w[i][c], c < BT_PANEL.
 * Strides in elements. out must not overlap x or w. */
typedef struct {
    const float *x; /* [n_rows][n_in] */
    size_t x_stride;
    const void *w; /* [n_in][BT_PANEL] */
    size_t w_stride;
    float *out; /* [n_rows][BT_PANEL] */
    size_t out_stride;
    uint32_t n_rows, n_in;
    bool accumulate;
} bt_tile;

typedef enum { BT_SIMD_GENERIC, BT_SIMD_AVX2, BT_SIMD_AVX512, BT_N_SIMD } bt_simd;

/* The functions that exist once per level, with equal bits. */
typedef struct {
    const char *name;
    void (*tile_f32)(const bt_tile *tile);
    void (*tile_bf16)(const bt_tile *tile);
    void (*tile_f16)(const bt_tile *tile);
    /* Largest of scores[n], n <= BT_KEY_BLOCK; sets the scores from n on to -infinity. */
    float (*max_block)(float scores[BT_KEY_BLOCK], uint32_t n);
    /* scores[i] = exp(scores[i] - shift) for i < n, 0 from there on. Returns their sum. */
    float (*exp_block)(float scores[BT_KEY_BLOCK], uint32_t n, float shift);
    /* gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i] */
    void (*silu_multiply)(float *gate, const float *up, size_t n);
    /* bf16 to f32 */
    void (*widen_bf16)(float *out, const uint16_t *in, size_t n);
    /* out[c * out_stride + r] = in[r * in_stride + c] for r and c below BT_LANES */
    void (*transpose)(float *out, size_t out_stride, const float *in, size_t in_stride);
} bt_ops;

/* The level's functions, or NULL where this CPU or build lacks it. GENERIC is always there. */
const bt_ops *bt_ops_of(bt_simd level);
/* The highest level that is there. */
const bt_ops *bt_ops_best(void);
/* The level of that name, NULL for the best. Errors: INVALID_ARG, UNSUPPORTED. */
baton_status bt_ops_named(const char *name, const bt_ops **ops_p);

/* A weight matrix in panels. Rows past n_out in the last panel are 0. */
typedef struct {
    void *panels; /* [n_panels][n_in][BT_PANEL] elements, owned */
    baton_dtype dtype;
    uint32_t n_out, n_in;
} bt_matrix;

/* Zeroed. Errors: NO_MEMORY. */
baton_status bt_matrix_create(baton_dtype dtype, uint32_t n_out, uint32_t n_in, bt_matrix *matrix);
/* Copies rows[n_rows][n_in], of the matrix' element type and any alignment, to its rows from
 * first_row on, which must be there. */
void bt_matrix_set_rows(bt_matrix *matrix, uint32_t first_row, const void *rows, uint32_t n_rows);
void bt_matrix_clear(bt_matrix *matrix);
size_t bt_matrix_bytes(const bt_matrix *matrix);
static inline uint32_t bt_panels(uint32_t n_out)
{
    return n_out / BT_PANEL + (n_out % BT_PANEL != 0);
}
/* One panel's product with x[n_rows][n_in]. out is where the panel's first column goes; columns
 * past n_out are not written. */
void bt_matrix_panel(const bt_ops *ops, const bt_matrix *matrix, uint32_t panel, const float *x,
                     size_t x_stride, uint32_t n_rows, float *out, size_t out_stride,
                     bool accumulate);

/* Bytes of an element: 4 for F32, 2 for BF16 and F16, 0 for others. */
size_t bt_element_bytes(baton_dtype dtype);
/* Elements of any alignment to f32, exactly. */
void bt_widen(const bt_ops *ops, float *out, const void *in, baton_dtype dtype, size_t n);
/* f32 to elements, rounded to nearest even. */
void bt_narrow(void *out, const float *in, baton_dtype dtype, size_t n);
/* out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i] */
void bt_rms_norm(float *out, const float *x, const float *weight, size_t n, double epsilon);
/* Rotates the pairs (x[i], x[i + n]) by the angles of cosine[n], sine[n]: Hugging Face's
 * "rotate half" form of RoPE. x is [2 * n]. */
void bt_rope(float *x, const float *cosine, const float *sine, size_t n);
/* x[i] += by[i] */
void bt_add(float *x, const float *by, size_t n);
/* x[i] *= by */
void bt_scale(float *x, float by, size_t n);

#endif
