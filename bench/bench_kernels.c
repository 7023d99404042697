/* SPDX-License-Identifier: Apache-2.0 */
/* GB/s of gather and scatter, with and without a digest, beside the floors: the barest copy of as
 * many shuffled pieces of 32 KiB from one buffer to the other, past the cache and through it.
 *
 *   bench_kernels [rounds]         on the CPU, one thread
 *   bench_kernels --gpu [rounds]   the CUDA kernels beside the card's own copy
 *
 * A round runs everything once over the whole cache of a shape, one after the other; each figure is
 * the median of the rounds, and a byte moved counts once. */
#include "bench_kernels.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "kernels/digest.h"
#include "kernels/kv_copy.h"
#include "kernels/kv_reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { PIECE_BYTES = 32 << 10, MAX_ROUNDS = 1000, MAX_MOVES = 24, MAX_PIECES = 32 << 10 };

typedef struct {
    const bench_shape *shape;
    baton_kv_view view;
    baton_kv_plane planes[BENCH_LAYERS_MAX];
    uint8_t *cache;
    uint8_t *pages; /* as large as the cache: [n_chunks][chunk_bytes] */
    uint64_t bytes, chunk_bytes;
    uint32_t blocks[BENCH_BLOCKS_MAX];
    uint32_t pieces[MAX_PIECES]; /* shuffled */
    uint64_t last_digest;        /* kept, so that computing it is not optimised away */
} bench;

/* Moves the whole cache. */
typedef struct {
    const char *name;
    void (*run)(bench *b, const bt_rows_ops *ops);
    const bt_rows_ops *ops; /* NULL: what the library chooses, or none is needed */
} move;

#ifdef __x86_64__
__attribute__((target("avx512f"))) static void stream_512(uint8_t *to, const uint8_t *from)
{
    for (size_t i = 0; i < PIECE_BYTES; i += 256) {
        __m512i a = _mm512_loadu_si512(from + i), b = _mm512_loadu_si512(from + i + 64);
        __m512i c = _mm512_loadu_si512(from + i + 128), d = _mm512_loadu_si512(from + i + 192);
        _mm512_stream_si512((__m512i *)(to + i), a);
        _mm512_stream_si512((__m512i *)(to + i + 64), b);
        _mm512_stream_si512((__m512i *)(to + i + 128), c);
        _mm512_stream_si512((__m512i *)(to + i + 192), d);
    }
    _mm_sfence();
}

static void stream_128(uint8_t *to, const uint8_t *from)
{
    for (size_t i = 0; i < PIECE_BYTES; i += 16)
        _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
    _mm_sfence();
}

static void stream_piece(uint8_t *to, const uint8_t *from)
{
    if (__builtin_cpu_supports("avx512f"))
        stream_512(to, from);
    else
        stream_128(to, from);
}
#else
static void stream_piece(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from, PIECE_BYTES);
}
#endif

static void floor_stream(bench *b, const bt_rows_ops *ops)
{
    (void)ops;
    for (uint64_t i = 0; i < b->bytes / PIECE_BYTES; i++)
        stream_piece(b->pages + (uint64_t)b->pieces[i] * PIECE_BYTES,
                     b->cache + (uint64_t)b->pieces[i] * PIECE_BYTES);
}

static void floor_memcpy(bench *b, const bt_rows_ops *ops)
{
    (void)ops;
    for (uint64_t i = 0; i < b->bytes / PIECE_BYTES; i++)
        memcpy(b->pages + (uint64_t)b->pieces[i] * PIECE_BYTES,
               b->cache + (uint64_t)b->pieces[i] * PIECE_BYTES, PIECE_BYTES);
}

static void digest_pages(bench *b, const bt_rows_ops *ops)
{
    (void)ops;
    for (uint32_t c = 0; c < bench_n_chunks(b->shape); c++)
        b->last_digest += bt_digest(b->pages + c * b->chunk_bytes, b->chunk_bytes);
}

static baton_kv_tokens chunk_tokens(const bench *b, uint32_t chunk)
{
    return (baton_kv_tokens){.n_tokens = BENCH_CHUNK_TOKENS,
                             .blocks = b->blocks,
                             .n_blocks = b->shape->n_blocks,
                             .first_token = (uint64_t)chunk * BENCH_CHUNK_TOKENS};
}

typedef baton_status (*digest_fn)(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                  uint32_t first_layer, uint32_t n_layers, void *page,
                                  uint64_t page_bytes, uint64_t *digest);

static void move_digest(bench *b, digest_fn fn)
{
    for (uint32_t c = 0; c < bench_n_chunks(b->shape); c++) {
        baton_kv_tokens tokens = chunk_tokens(b, c);
        fn(&b->view, &tokens, 0, b->shape->n_layers, b->pages + c * b->chunk_bytes, b->chunk_bytes,
           &b->last_digest);
    }
}

static void gather_digest(bench *b, const bt_rows_ops *ops)
{
    (void)ops;
    move_digest(b, baton_kv_gather_stream_digest);
}

static baton_status scatter_digest_fn(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                      uint32_t first_layer, uint32_t n_layers, void *page,
                                      uint64_t page_bytes, uint64_t *digest)
{
    return baton_kv_scatter_digest(view, tokens, first_layer, n_layers, page, page_bytes, digest);
}

static void scatter_digest(bench *b, const bt_rows_ops *ops)
{
    (void)ops;
    move_digest(b, scatter_digest_fn);
}

static void gather(bench *b, const bt_rows_ops *ops)
{
    for (uint32_t c = 0; c < bench_n_chunks(b->shape); c++) {
        baton_kv_tokens tokens = chunk_tokens(b, c);
        uint8_t *page = b->pages + c * b->chunk_bytes;
        if (ops == NULL)
            baton_kv_gather_stream(&b->view, &tokens, 0, b->shape->n_layers, page, b->chunk_bytes);
        else
            bt_kv_gather_with(ops, &b->view, &tokens, 0, b->shape->n_layers, page, b->chunk_bytes);
    }
}

static void gather_reference(bench *b, const bt_rows_ops *ops)
{
    (void)ops;
    for (uint32_t c = 0; c < bench_n_chunks(b->shape); c++) {
        baton_kv_tokens tokens = chunk_tokens(b, c);
        bt_kv_gather_reference(&b->view, &tokens, 0, b->shape->n_layers,
                               b->pages + c * b->chunk_bytes, b->chunk_bytes);
    }
}

static void scatter(bench *b, const bt_rows_ops *ops)
{
    for (uint32_t c = 0; c < bench_n_chunks(b->shape); c++) {
        baton_kv_tokens tokens = chunk_tokens(b, c);
        const uint8_t *page = b->pages + c * b->chunk_bytes;
        if (ops == NULL)
            baton_kv_scatter(&b->view, &tokens, 0, b->shape->n_layers, page, b->chunk_bytes);
        else
            bt_kv_scatter_with(ops, &b->view, &tokens, 0, b->shape->n_layers, page, b->chunk_bytes);
    }
}

static uint32_t make_moves(move moves[MAX_MOVES])
{
    uint32_t n = 0;
    moves[n++] = (move){"floor: stream", floor_stream, NULL};
    moves[n++] = (move){"floor: memcpy", floor_memcpy, NULL};
    moves[n++] = (move){"gather", gather, NULL};
    moves[n++] = (move){"gather + digest", gather_digest, NULL};
    moves[n++] = (move){"digest alone", digest_pages, NULL};
    moves[n++] = (move){"scatter", scatter, NULL};
    moves[n++] = (move){"scatter + digest", scatter_digest, NULL};
    moves[n++] = (move){"gather, reference", gather_reference, NULL};
    size_t n_versions;
    const bt_rows_ops *versions = bt_rows_versions(&n_versions);
    for (size_t i = 0; i < n_versions; i++) {
        if (versions[i].is_supported()) {
            moves[n++] = (move){"gather,", gather, &versions[i]};
            moves[n++] = (move){"scatter,", scatter, &versions[i]};
        }
    }
    return n;
}

static bool set_up(bench *b, const bench_shape *shape)
{
    b->shape = shape;
    b->bytes = bench_bytes(shape);
    bench_blocks(shape, b->blocks);
    uint64_t n_pieces = b->bytes / PIECE_BYTES;
    for (uint32_t i = 0; i < n_pieces; i++) /* odd times power of two: each once, far apart */
        b->pieces[i] = (uint32_t)(i * UINT64_C(2654435761) % n_pieces);
    return bench_view(shape, b->cache, BATON_MEMORY_HOST, b->planes, &b->view) == BATON_OK &&
           baton_kv_chunk_bytes(&b->view, BENCH_CHUNK_TOKENS, &b->chunk_bytes) == BATON_OK;
}

static int run_shape(bench *b, uint32_t n_rounds)
{
    move moves[MAX_MOVES];
    uint32_t n = make_moves(moves);
    double *gbps = bt_calloc((size_t)n * n_rounds, sizeof(*gbps)), floor_gbps = 0;
    if (gbps == NULL)
        return 1;
    for (uint32_t r = 0; r < n_rounds; r++) {
        for (uint32_t i = 0; i < n; i++) {
            uint64_t start = bt_now_ns(&bt_clock_monotonic);
            moves[i].run(b, moves[i].ops);
            gbps[i * n_rounds + r] =
                (double)b->bytes / (double)(bt_now_ns(&bt_clock_monotonic) - start);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        double median = bench_median(gbps + i * n_rounds, n_rounds);
        floor_gbps = i == 0 ? median : floor_gbps;
        printf("%-15s %-18s %-14s %6.1f %6.2f\n", b->shape->name, moves[i].name,
               moves[i].ops != NULL ? moves[i].ops->name : "", median, median / floor_gbps);
    }
    bt_free(gbps);
    return 0;
}

static int bench_cpu(uint32_t n_rounds)
{
    static bench b;
    uint32_t n_shapes;
    const bench_shape *shapes = bench_shapes(&n_shapes);
    printf("%-33s %-14s %6s %6s\n", "one thread", "version", "GB/s", "floor");
    for (uint32_t i = 0; i < n_shapes; i++) {
        uint64_t bytes = bench_bytes(&shapes[i]);
        b.cache = bt_aligned_alloc(4096, bytes);
        b.pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (b.cache == NULL || b.pages == MAP_FAILED || !set_up(&b, &shapes[i])) {
            fprintf(stderr, "bench_kernels: %s\n", baton_last_error());
            return 1;
        }
        memset(b.cache, 1, bytes);
        memset(b.pages, 2, bytes);
        if (run_shape(&b, n_rounds) != 0)
            return 1;
        munmap(b.pages, bytes);
        bt_free(b.cache);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "usage: bench_kernels [--gpu] [ROUNDS]\n\n"
        "Gathers and scatters whole caches of shuffled blocks, in turns with the barest loop that\n"
        "moves as much; ROUNDS (1 to 1000, default 5). --gpu: on a card, beside its own copy\n"
        "(in builds of the preset cuda).\n";
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(usage, stdout);
        return 0;
    }
    bool gpu = argc > 1 && strcmp(argv[1], "--gpu") == 0;
    const char *rounds = argc > 1 + gpu ? argv[1 + gpu] : "5";
    char *end;
    unsigned long n_rounds = strtoul(rounds, &end, 10);
    if (*end != '\0' || n_rounds == 0 || n_rounds > MAX_ROUNDS || argc > 2 + gpu) {
        fputs(usage, stderr);
        return 2;
    }
    return gpu ? bench_gpu((uint32_t)n_rounds) : bench_cpu((uint32_t)n_rounds);
}
