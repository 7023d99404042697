/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of all sizes, copied by several threads, are what one thread makes of them. */
#include "support/test.h"

#include "kernels/digest.h"
#include "sender/txcopy.h"

#include <stdlib.h>

enum { SOURCE_BYTES = 3 << 20, PAGE_BYTES = 2 << 20, GUARD = 0x5a };

static uint8_t *source_bytes, *page; /* [SOURCE_BYTES], [PAGE_BYTES + 1] */

static int make_bytes(void **state)
{
    (void)state;
    bt_rng rng = {.state = 3};
    source_bytes = test_malloc(SOURCE_BYTES);
    page = test_malloc(PAGE_BYTES + 1);
    bt_rng_fill(&rng, source_bytes, SOURCE_BYTES);
    return 0;
}

static int free_bytes(void **state)
{
    (void)state;
    test_free(source_bytes);
    test_free(page);
    return 0;
}

static void contiguous_chunks_of_any_size_arrive(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1,
                                     4096,
                                     (512 << 10) - 1,
                                     512 << 10,
                                     (512 << 10) + 1,
                                     (512 << 10) + 4097,
                                     (1 << 20) + 65,
                                     PAGE_BYTES};
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
        bt_tx_copies *copies;
        assert_ok(bt_tx_copies_create(n_threads, &copies));
        for (size_t i = 0; i < 4 * sizeof(sizes) / sizeof(sizes[0]); i++) {
            const bt_tx_source source = {.data = source_bytes + 3 * i};
            uint64_t bytes = sizes[i / 4], digest;
            bool past_cache = i % 2 != 0, has_digest = i / 2 % 2 != 0;
            memset(page, GUARD, PAGE_BYTES + 1);
            assert_ok(bt_tx_copy(copies, &source, page, bytes, past_cache,
                                 (bt_tx_wanted){.digest = has_digest ? &digest : NULL}));
            assert_memory_equal(page, source.data, bytes);
            assert_int_equal(page[bytes], GUARD);
            if (has_digest)
                assert_int_equal(digest, bt_digest(source.data, bytes));
        }
        bt_tx_copies_destroy(copies);
    }
}

enum {
    N_LAYERS = 6,
    BLOCK_TOKENS = 16,
    N_BLOCKS = 16,
    BLOCK_BYTES = 2 * BLOCK_TOKENS * 8 * 64 * 2
};

/* Blocks of 16 KiB for K and as many for V, in reverse; 6 layers of 512 KiB in all. */
typedef struct {
    baton_kv_plane planes[2 * N_LAYERS];
    baton_kv_view view;
    uint32_t blocks[N_BLOCKS];
} paged;

static void make_paged(paged *p)
{
    const baton_kv_shape shape = {.n_layers = N_LAYERS,
                                  .n_blocks = N_BLOCKS,
                                  .block_tokens = BLOCK_TOKENS,
                                  .n_kv_heads = 8,
                                  .head_bytes = 128};
    void *layers[N_LAYERS];
    for (size_t i = 0; i < N_LAYERS; i++)
        layers[i] = source_bytes + i * N_BLOCKS * BLOCK_BYTES;
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        p->blocks[i] = N_BLOCKS - 1 - i;
    assert_ok(baton_kv_view_flash(&shape, layers, p->planes, &p->view));
}

/* Of 1 MiB and less, so that the wanted page fits behind the other. */
static void paged_chunks_arrive_by_layers_and_whole(void **state)
{
    (void)state;
    paged p;
    bt_tx_copies *copies;
    uint8_t *wanted = page + PAGE_BYTES / 2;
    make_paged(&p);
    assert_ok(bt_tx_copies_create(3, &copies));
    for (uint32_t n_tokens = 1; n_tokens <= 84; n_tokens += 1 + n_tokens / 8) {
        bt_tx_source source = {
            .view = &p.view,
            .tokens = {
                .blocks = p.blocks, .n_blocks = N_BLOCKS, .n_tokens = n_tokens, .first_token = 5}};
        uint64_t bytes, digest, wanted_digest;
        assert_ok(baton_kv_chunk_bytes(&p.view, n_tokens, &bytes));
        assert_true(bytes < PAGE_BYTES / 2);
        assert_ok(baton_kv_gather_digest(&p.view, &source.tokens, 0, N_LAYERS, wanted, bytes,
                                         &wanted_digest));
        for (int past_cache = 0; past_cache < 2; past_cache++) {
            for (int has_digest = 0; has_digest < 2; has_digest++) {
                memset(page, GUARD, bytes + 1);
                assert_ok(bt_tx_copy(copies, &source, page, bytes, past_cache != 0,
                                     (bt_tx_wanted){.digest = has_digest ? &digest : NULL}));
                assert_memory_equal(page, wanted, bytes);
                assert_int_equal(page[bytes], GUARD);
                if (has_digest)
                    assert_int_equal(digest, wanted_digest);
            }
        }
    }
    bt_tx_copies_destroy(copies);
}

static void samples_are_of_the_source_however_it_is_divided(void **state)
{
    (void)state;
    paged p;
    make_paged(&p);
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads += 2) {
        bt_tx_copies *copies;
        assert_ok(bt_tx_copies_create(n_threads, &copies));
        for (uint32_t n_tokens = 1; n_tokens <= 84; n_tokens += 1 + n_tokens / 8) {
            const bt_tx_source paged_source = {
                .view = &p.view,
                .tokens = {.blocks = p.blocks, .n_blocks = N_BLOCKS, .n_tokens = n_tokens}};
            const bt_tx_source flat = {.data = source_bytes + n_tokens};
            uint64_t bytes, digest;
            bt_sample *sample;
            assert_ok(baton_kv_chunk_bytes(&p.view, n_tokens, &bytes));
            assert_ok(bt_sample_create(N_LAYERS, 2, bytes, n_tokens, &sample));
            for (int i = 0; i < 4; i++) {
                digest = 0;
                assert_ok(bt_tx_copy(copies, i < 2 ? &flat : &paged_source, page, bytes, i % 2 != 0,
                                     (bt_tx_wanted){.digest = &digest, .sample = sample}));
                assert_int_equal(digest, bt_sample_digest_page(sample, page));
            }
            bt_sample_destroy(sample);
        }
        bt_tx_copies_destroy(copies);
    }
}

static void what_gather_refuses_is_refused(void **state)
{
    (void)state;
    paged p;
    bt_tx_copies *copies;
    make_paged(&p);
    assert_ok(bt_tx_copies_create(3, &copies));
    uint64_t bytes;
    assert_ok(baton_kv_chunk_bytes(&p.view, 80, &bytes));
    const bt_tx_source whole = {.data = source_bytes};
    bt_tx_source source = {.view = &p.view,
                           .tokens = {.blocks = p.blocks, .n_blocks = N_BLOCKS, .n_tokens = 80}};
    p.blocks[4] = N_BLOCKS; /* in reach of the last tokens only */
    bt_tx_copies_add(copies, 0, &whole, page, bytes, true, (bt_tx_wanted){0});
    bt_tx_copies_add(copies, 1, &source, page + bytes, bytes, true, (bt_tx_wanted){0});
    assert_fails(bt_tx_copies_run(copies), BATON_ERR_OUT_OF_RANGE, "block");
    bt_tx_copies_clear(copies);
    uint64_t digest;
    bt_sample *sample;
    assert_ok(bt_sample_create(N_LAYERS, 2, bytes, 1, &sample));
    assert_fails(bt_tx_copy(copies, &source, page, bytes, true,
                            (bt_tx_wanted){.digest = &digest, .sample = sample}),
                 BATON_ERR_OUT_OF_RANGE, "block");
    bt_sample_destroy(sample);
    source.tokens.n_tokens = 81; /* more than the page has room for */
    p.blocks[4] = 0;
    assert_fails(bt_tx_copy(copies, &source, page, bytes, true, (bt_tx_wanted){0}),
                 BATON_ERR_TOO_LARGE, NULL);
    bt_tx_copies_destroy(copies);
}

/* As many small chunks and one large as there is room for, at every offset in a job. */
static void many_chunks_of_a_run_arrive(void **state)
{
    (void)state;
    enum { SMALL = 1000, LARGE = (1 << 20) + 7 };
    bt_tx_copies *copies;
    assert_ok(bt_tx_copies_create(3, &copies));
    for (uint32_t n = 0; n <= 400; n += 50) {
        static bt_tx_source sources[401];
        memset(page, GUARD, PAGE_BYTES + 1);
        for (uint32_t i = 0; i <= n; i++) {
            sources[i] = (bt_tx_source){.data = source_bytes + (size_t)i * SMALL};
            assert_true(bt_tx_copies_have_room(copies));
            bt_tx_copies_add(copies, i, &sources[i], page + (size_t)i * SMALL,
                             i < n ? SMALL : LARGE, true, (bt_tx_wanted){0});
        }
        assert_ok(bt_tx_copies_run(copies));
        assert_memory_equal(page, source_bytes, (size_t)n * SMALL + LARGE);
        assert_int_equal(page[(size_t)n * SMALL + LARGE], GUARD);
        assert_int_equal(copies->n_chunks, n + 1);
        for (uint32_t i = 0; i <= n; i++)
            assert_int_equal(copies->chunks[i].chunk, i);
        bt_tx_copies_clear(copies);
    }
    bt_tx_copies_destroy(copies);
}

static void room_ends_before_the_largest_chunk_does_not_fit(void **state)
{
    (void)state;
    bt_tx_copies *copies;
    const bt_tx_source source = {.data = source_bytes};
    assert_ok(bt_tx_copies_create(2, &copies));
    uint32_t n = 0;
    for (; bt_tx_copies_have_room(copies); n++)
        bt_tx_copies_add(copies, n, &source, page, UINT64_C(1) << 40, true, (bt_tx_wanted){0});
    assert_int_equal(n, BT_TX_COPY_PIECES / BT_TX_COPY_PARTS);
    assert_true(copies->n_pieces <= BT_TX_COPY_PIECES);
    bt_tx_copies_destroy(copies); /* never run: it has no such memory */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(contiguous_chunks_of_any_size_arrive),
        bt_test(paged_chunks_arrive_by_layers_and_whole),
        bt_test(samples_are_of_the_source_however_it_is_divided),
        bt_test(what_gather_refuses_is_refused),
        bt_test(many_chunks_of_a_run_arrive),
        bt_test(room_ends_before_the_largest_chunk_does_not_fit),
    };
    return cmocka_run_group_tests(tests, make_bytes, free_bytes);
}
