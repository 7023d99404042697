/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_rows.h"

#include <string.h>

static bool always(void)
{
    return true;
}

static void nothing_to_finish(void)
{
}

static void copy_plain(uint8_t *to, uint64_t to_step, const uint8_t *from, uint64_t from_step,
                       uint64_t row_bytes, uint64_t n_rows)
{
    for (uint64_t i = 0; i < n_rows; i++)
        memcpy(to + i * to_step, from + i * from_step, row_bytes);
}

#ifdef __x86_64__
#include <immintrin.h>

/* Above this, the C library's memcpy (also chosen by CPU) is at least as good as a loop. */
enum { LOOP_MAX_BYTES = 1024, LINE_BYTES = 64 };

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

static void fence_streams(void)
{
    _mm_sfence();
}

__attribute__((target("avx2"))) static void copy_row_avx2(uint8_t *to, const uint8_t *from,
                                                          uint64_t bytes)
{
    uint64_t i = 0;
    for (; i + 64 <= bytes; i += 64) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(from + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(from + i + 32));
        _mm256_storeu_si256((__m256i *)(to + i), a);
        _mm256_storeu_si256((__m256i *)(to + i + 32), b);
    }
    if (i < bytes)
        memcpy(to + i, from + i, bytes - i);
}

__attribute__((target("avx2"))) static void copy_avx2(uint8_t *to, uint64_t to_step,
                                                      const uint8_t *from, uint64_t from_step,
                                                      uint64_t row_bytes, uint64_t n_rows)
{
    if (row_bytes > LOOP_MAX_BYTES) {
        copy_plain(to, to_step, from, from_step, row_bytes, n_rows);
        return;
    }
    for (uint64_t i = 0; i < n_rows; i++)
        copy_row_avx2(to + i * to_step, from + i * from_step, row_bytes);
}

__attribute__((target("avx512f,avx512bw"))) static void
copy_row_avx512(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    uint64_t i = 0;
    for (; i + 128 <= bytes; i += 128) {
        __m512i a = _mm512_loadu_si512(from + i);
        __m512i b = _mm512_loadu_si512(from + i + 64);
        _mm512_storeu_si512(to + i, a);
        _mm512_storeu_si512(to + i + 64, b);
    }
    for (; i < bytes; i += 64) {
        uint64_t left = bytes - i;
        __mmask64 mask = left >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << left) - 1;
        _mm512_mask_storeu_epi8(to + i, mask, _mm512_maskz_loadu_epi8(mask, from + i));
    }
}

__attribute__((target("avx512f,avx512bw"))) static void
copy_avx512(uint8_t *to, uint64_t to_step, const uint8_t *from, uint64_t from_step,
            uint64_t row_bytes, uint64_t n_rows)
{
    if (row_bytes > LOOP_MAX_BYTES) {
        copy_plain(to, to_step, from, from_step, row_bytes, n_rows);
        return;
    }
    for (uint64_t i = 0; i < n_rows; i++)
        copy_row_avx512(to + i * to_step, from + i * from_step, row_bytes);
}

/* Bytes before the first whole cache line of `to`, at most `bytes`: streaming stores want aligned,
 * whole lines; the rest is stored as usual. */
static uint64_t unaligned_bytes(const uint8_t *to, uint64_t bytes)
{
    uint64_t head = (0 - (uintptr_t)to) % LINE_BYTES;
    return head < bytes ? head : bytes;
}

__attribute__((target("avx2"))) static void stream_lines_avx2(uint8_t *to, const uint8_t *from,
                                                              uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += LINE_BYTES) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(from + i));
        __m256i b = _mm256_loadu_si256((const __m256i *)(from + i + 32));
        _mm256_stream_si256((__m256i *)(to + i), a);
        _mm256_stream_si256((__m256i *)(to + i + 32), b);
    }
}

__attribute__((target("avx2"))) static void stream_row_avx2(uint8_t *to, const uint8_t *from,
                                                            uint64_t bytes)
{
    uint64_t i = unaligned_bytes(to, bytes);
    memcpy(to, from, i);
    for (; i + 2 * BT_ROWS_PAGE_BYTES <= bytes; i += BT_ROWS_PAGE_BYTES) {
        bt_rows_expect(to + i + BT_ROWS_PAGE_BYTES, from + i + BT_ROWS_PAGE_BYTES);
        stream_lines_avx2(to + i, from + i, BT_ROWS_PAGE_BYTES);
    }
    uint64_t lines = (bytes - i) / LINE_BYTES * LINE_BYTES;
    stream_lines_avx2(to + i, from + i, lines);
    i += lines;
    memcpy(to + i, from + i, bytes - i);
}

__attribute__((target("avx2"))) static void stream_avx2(uint8_t *to, uint64_t to_step,
                                                        const uint8_t *from, uint64_t from_step,
                                                        uint64_t row_bytes, uint64_t n_rows)
{
    for (uint64_t i = 0; i < n_rows; i++)
        stream_row_avx2(to + i * to_step, from + i * from_step, row_bytes);
}

__attribute__((target("avx512f"))) static void stream_lines_avx512(uint8_t *to, const uint8_t *from,
                                                                   uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += LINE_BYTES)
        _mm512_stream_si512((__m512i *)(to + i), _mm512_loadu_si512(from + i));
}

__attribute__((target("avx512f"))) static void stream_row_avx512(uint8_t *to, const uint8_t *from,
                                                                 uint64_t bytes)
{
    uint64_t i = unaligned_bytes(to, bytes);
    memcpy(to, from, i);
    for (; i + 2 * BT_ROWS_PAGE_BYTES <= bytes; i += BT_ROWS_PAGE_BYTES) {
        bt_rows_expect(to + i + BT_ROWS_PAGE_BYTES, from + i + BT_ROWS_PAGE_BYTES);
        stream_lines_avx512(to + i, from + i, BT_ROWS_PAGE_BYTES);
    }
    uint64_t lines = (bytes - i) / LINE_BYTES * LINE_BYTES;
    stream_lines_avx512(to + i, from + i, lines);
    i += lines;
    memcpy(to + i, from + i, bytes - i);
}

__attribute__((target("avx512f"))) static void stream_avx512(uint8_t *to, uint64_t to_step,
                                                             const uint8_t *from,
                                                             uint64_t from_step, uint64_t row_bytes,
                                                             uint64_t n_rows)
{
    for (uint64_t i = 0; i < n_rows; i++)
        stream_row_avx512(to + i * to_step, from + i * from_step, row_bytes);
}
#endif

static const bt_rows_ops versions[] = {
#ifdef __x86_64__
    {"avx512-stream", has_avx512, true, stream_avx512, fence_streams},
    {"avx2-stream", has_avx2, true, stream_avx2, fence_streams},
    {"avx512", has_avx512, false, copy_avx512, nothing_to_finish},
    {"avx2", has_avx2, false, copy_avx2, nothing_to_finish},
#endif
    {"plain", always, false, copy_plain, nothing_to_finish},
};

const bt_rows_ops *bt_rows_versions(size_t *n)
{
    *n = sizeof(versions) / sizeof(versions[0]);
    return versions;
}

const bt_rows_ops *bt_rows_best(bool streams)
{
    size_t n;
    const bt_rows_ops *ops = bt_rows_versions(&n);
    size_t last = n - 1;
    for (size_t i = 0; i < last; i++) {
        if ((streams || !ops[i].streams) && ops[i].is_supported())
            return &ops[i];
    }
    return &ops[last];
}
