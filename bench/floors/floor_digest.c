/* SPDX-License-Identifier: Apache-2.0 */
/* A writer and a reader, a thread each: the writer copies pages from shuffled slots to shuffled
 * slots with non-temporal stores and sums what it has in its registers as XXH3 does, the reader
 * sums every page as soon as it is written, and the two sums must be equal.
 *
 *   writer  | page 0 | page 1 | page 2 | ...            load, sum, store
 *   reader           | page 0 | page 1 | page 2 | ...   load, sum
 *
 * What hands pages over with digests that are taken on the way, and checked at the other end, can
 * at best be as fast. The sums are XXH3's over stripes of 64 bytes with a scramble every 1,024; the
 * few steps at the end of a hash are left out, so that the floor is not above what it is for. */
#include "floor_common.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { STRIPE = 64, BLOCK_STRIPES = 16, LANES = 8, SECRET_WORDS = LANES + BLOCK_STRIPES };
#define PRIME32 UINT64_C(0x9e3779b1)

static uint64_t secret[SECRET_WORDS]; /* any: what is measured does not depend on it */

/* Of a page of whole stripes; to NULL: it is only read. */
typedef uint64_t (*sum_fn)(uint8_t *to, const uint8_t *from, size_t bytes);

static uint64_t merge(const uint64_t acc[LANES])
{
    uint64_t sum = 0;
    for (int i = 0; i < LANES; i++)
        sum = (sum ^ acc[i]) * UINT64_C(0x9e3779b185ebca87);
    return sum;
}

static uint64_t sum_plain(uint8_t *to, const uint8_t *from, size_t bytes)
{
    uint64_t acc[LANES] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (size_t at = 0; at < bytes; at += STRIPE) {
        size_t in_block = at / STRIPE % BLOCK_STRIPES;
        uint64_t data[LANES];
        memcpy(data, from + at, STRIPE);
        for (size_t i = 0; i < LANES; i++) {
            uint64_t key = data[i] ^ secret[in_block + i];
            acc[i] += (key & UINT32_MAX) * (key >> 32);
            acc[i ^ 1] += data[i];
        }
        if (to != NULL)
            memcpy(to + at, data, STRIPE);
        for (size_t i = 0; in_block == BLOCK_STRIPES - 1 && i < LANES; i++)
            acc[i] = (acc[i] ^ acc[i] >> 47 ^ secret[BLOCK_STRIPES + i]) * PRIME32;
    }
    return merge(acc);
}

#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f,avx512dq")))

AVX512 __attribute__((always_inline)) static inline uint64_t
sum_512(uint8_t *to, const uint8_t *from, size_t bytes, bool copies)
{
    __m512i acc = _mm512_setr_epi64(1, 2, 3, 4, 5, 6, 7, 8);
    for (size_t at = 0; at < bytes; at += STRIPE) {
        size_t in_block = at / STRIPE % BLOCK_STRIPES;
        __m512i data = _mm512_loadu_si512(from + at);
        if (copies)
            _mm512_stream_si512((void *)(to + at), data);
        __m512i key = _mm512_xor_si512(data, _mm512_loadu_si512(secret + in_block));
        __m512i product = _mm512_mul_epu32(key, _mm512_srli_epi64(key, 32));
        acc = _mm512_add_epi64(
            acc, _mm512_add_epi64(product, _mm512_shuffle_epi32(data, _MM_PERM_BADC)));
        if (in_block < BLOCK_STRIPES - 1)
            continue;
        acc = _mm512_xor_si512(acc, _mm512_srli_epi64(acc, 47));
        acc = _mm512_xor_si512(acc, _mm512_loadu_si512(secret + BLOCK_STRIPES));
        acc = _mm512_mullo_epi64(acc, _mm512_set1_epi64((long long)PRIME32));
    }
    if (copies)
        _mm_sfence();
    uint64_t lanes[LANES];
    _mm512_storeu_si512(lanes, acc);
    return merge(lanes);
}

AVX512 static uint64_t sum_avx512(uint8_t *to, const uint8_t *from, size_t bytes)
{
    return to != NULL ? sum_512(to, from, bytes, true) : sum_512(NULL, from, bytes, false);
}
#endif

static sum_fn choose(const char **name)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
        *name = "NT stores, AVX-512";
        return sum_avx512;
    }
#endif
    *name = "plain C";
    return sum_plain;
}

typedef struct {
    const floor_work *work;
    sum_fn sum;
    const uint8_t *target;
    uint64_t *sums;          /* [n_pages] the writer's; read behind `written` */
    _Atomic size_t written;  /* pages, of all iterations; released by the writer */
    _Atomic size_t verified; /* released by the reader */
} hand_over;

static void *read_pages(void *ctx)
{
    hand_over *h = ctx;
    const floor_work *work = h->work;
    size_t n = work->n_pages * (FLOOR_WARMUP + work->n_iterations);
    for (size_t i = 0; i < n; i++) {
        while (atomic_load_explicit(&h->written, memory_order_acquire) == i) /* write_pages */
            ;
        size_t page = i % work->n_pages;
        const uint8_t *from = h->target + work->to[page] * work->page_bytes;
        if (h->sum(NULL, from, work->page_bytes) != h->sums[page]) {
            fprintf(stderr, "floor: page %zu: the reader's sum is not the writer's\n", page);
            exit(1);
        }
        atomic_store_explicit(&h->verified, i + 1, memory_order_release); /* write_pages */
    }
    return NULL;
}

/* One iteration: until the reader has read its last page. */
static void write_pages(hand_over *h, unsigned iteration, const uint8_t *source, uint8_t *target)
{
    const floor_work *work = h->work;
    size_t before = (size_t)iteration * work->n_pages;
    for (size_t page = 0; page < work->n_pages; page++) {
        h->sums[page] = h->sum(target + work->to[page] * work->page_bytes,
                               source + work->from[page] * work->page_bytes, work->page_bytes);
        atomic_store_explicit(&h->written, before + page + 1, memory_order_release);
    }
    while (atomic_load_explicit(&h->verified, memory_order_acquire) < before + work->n_pages)
        ;
}

int main(int argc, char **argv)
{
    floor_work work;
    floor_parse(argc, argv, &work);
    const char *name;
    hand_over h = {.work = &work, .sum = choose(&name)};
    for (size_t i = 0; i < SECRET_WORDS; i++)
        secret[i] = (i + 1) * UINT64_C(0xd1342543de82ef95);
    uint8_t *source = floor_memory(&work, false), *target = floor_memory(&work, true);
    h.target = target;
    h.sums = calloc(work.n_pages, sizeof(*h.sums));
    pthread_t reader;
    if (h.sums == NULL || pthread_create(&reader, NULL, read_pages, &h) != 0)
        floor_die("floor: reader");
    for (unsigned i = 0; i < FLOOR_WARMUP + work.n_iterations; i++) {
        floor_fill(&work, i, source);
        uint64_t start_ns = floor_now_ns();
        write_pages(&h, i, source, target);
        uint64_t wall_ns = floor_now_ns() - start_ns;
        if (!floor_check(&work, i, target))
            return 1;
        if (i >= FLOOR_WARMUP)
            work.wall_us[i - FLOOR_WARMUP] = (double)wall_ns / 1e3;
    }
    pthread_join(reader, NULL);
    char config[128];
    snprintf(config, sizeof(config), "%s, summed on the way, and by a reader behind it", name);
    munmap(source, work.n_pages * work.page_bytes);
    munmap(target, work.n_pages * work.page_bytes);
    free(h.sums);
    floor_report(&work, config);
    return 0;
}
