/* SPDX-License-Identifier: Apache-2.0 */
/* Gather and scatter with a digest on the way: the bytes of the reference, and the digest of the
 * page, in all layouts. test_digest.c says that bt_digest is right. */
#include "kv_case.h"

#include "core/alloc.h"
#include "kernels/digest.h"
#include "kernels/kv_reference.h"

enum { ROUNDS = 400, EXTRA_BYTES = 7 };

typedef baton_status (*gather_fn)(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                  uint32_t first_layer, uint32_t n_layers, void *page,
                                  uint64_t page_bytes, uint64_t *digest);

static uint8_t *random_page(bt_rng *rng, uint64_t bytes)
{
    uint8_t *plain = bt_calloc(bytes, 1);
    assert_non_null(plain);
    bt_rng_fill(rng, plain, bytes);
    uint8_t *page = bt_guarded_copy(plain, bytes);
    bt_free(plain);
    return page;
}

static void check_gather(const kv_case *c, gather_fn gather, bt_rng *rng)
{
    uint64_t bytes = c->page_bytes + bt_rng_below(rng, EXTRA_BYTES), digest = 1;
    uint8_t *page = random_page(rng, bytes);
    uint8_t *wanted = bt_guarded_copy(page, bytes);
    assert_ok(
        bt_kv_gather_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, wanted, bytes));
    assert_ok(gather(&c->view, &c->tokens, c->first_layer, c->n_layers, page, bytes, &digest));
    assert_memory_equal(page, wanted, bytes);
    assert_int_equal(digest, bt_digest(wanted, c->page_bytes));
    bt_guarded_free(wanted, bytes);
    bt_guarded_free(page, bytes);
}

static void check_scatter(const kv_case *c, bt_rng *rng)
{
    kv_case wanted, found;
    kv_case_clone(c, &wanted);
    kv_case_clone(c, &found);
    uint64_t digest = 1;
    uint8_t *page = random_page(rng, c->page_bytes);
    assert_ok(bt_kv_scatter_reference(&wanted.view, &c->tokens, c->first_layer, c->n_layers, page,
                                      c->page_bytes));
    assert_ok(baton_kv_scatter_digest(&found.view, &c->tokens, c->first_layer, c->n_layers, page,
                                      c->page_bytes, &digest));
    assert_memory_equal(found.arena, wanted.arena, c->arena_bytes);
    assert_int_equal(digest, bt_digest(page, c->page_bytes));
    bt_guarded_free(page, c->page_bytes);
    kv_case_free(&wanted);
    kv_case_free(&found);
}

static void every_layout_gives_the_bytes_and_their_digest(void **state)
{
    (void)state;
    bt_rng rng = {.state = 20261121};
    for (unsigned round = 0; round < ROUNDS; round++) {
        kv_case c;
        kv_case_create(&c, &rng);
        check_gather(&c, baton_kv_gather_digest, &rng);
        check_gather(&c, baton_kv_gather_stream_digest, &rng);
        check_scatter(&c, &rng);
        kv_case_free(&c);
    }
}

/* More lone tokens than one batch of runs holds, with skipped ones at both ends and between. */
static void long_lists_keep_the_pages_order(void **state)
{
    (void)state;
    enum { N = 900, HEAD = 64 };
    static uint8_t cache[2][N][HEAD], wanted[2][N][HEAD], back[2][N][HEAD];
    static alignas(64) uint8_t page[2][N][HEAD];
    static int64_t slots[N];
    bt_rng rng = {.state = 7};
    bt_rng_fill(&rng, cache, sizeof(cache));
    for (int t = 0; t < N; t++)
        slots[t] = t % 5 == 0 || t > N - 4 ? -1 : N - 1 - t;
    baton_kv_shape shape = {1, N, 1, 1, HEAD, BATON_MEMORY_HOST};
    baton_kv_plane plane;
    baton_kv_view view;
    void *layers[] = {cache};
    uint64_t digest;
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = N};
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    assert_ok(bt_kv_gather_reference(&view, &tokens, 0, 1, wanted, sizeof(wanted)));
    assert_ok(baton_kv_gather_stream_digest(&view, &tokens, 0, 1, page, sizeof(page), &digest));
    assert_memory_equal(page, wanted, sizeof(page));
    assert_int_equal(digest, bt_digest(page, sizeof(page)));

    layers[0] = back;
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    assert_ok(baton_kv_scatter_digest(&view, &tokens, 0, 1, page, sizeof(page), &digest));
    assert_int_equal(digest, bt_digest(page, sizeof(page)));
    for (int t = 0; t < N; t++)
        assert_true(slots[t] < 0 || memcmp(back[1][slots[t]], page[1][t], HEAD) == 0);
}

static void what_a_copy_refuses_sets_no_digest(void **state)
{
    (void)state;
    uint8_t cache[2][4] = {{0}}, page[8] = {0};
    const int64_t slots[] = {4};
    baton_kv_shape shape = {1, 1, 4, 1, 1, BATON_MEMORY_HOST};
    baton_kv_plane plane;
    baton_kv_view view;
    void *layers[] = {cache};
    uint64_t digest = 77;
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 1};
    assert_fails(baton_kv_gather_digest(&view, &tokens, 0, 1, page, sizeof(page), &digest),
                 BATON_ERR_OUT_OF_RANGE, "slot below 4");
    assert_fails(baton_kv_scatter_digest(&view, &tokens, 0, 1, page, 1, &digest),
                 BATON_ERR_TOO_LARGE, "page of 2 bytes");
    view.memory = BATON_MEMORY_CUDA_DEVICE;
    tokens.n_tokens = 0;
    assert_fails(baton_kv_gather_stream_digest(&view, &tokens, 0, 1, page, sizeof(page), &digest),
                 BATON_ERR_UNSUPPORTED, "device memory");
    assert_int_equal(digest, 77);
    view.memory = BATON_MEMORY_HOST;
    assert_ok(baton_kv_gather_digest(&view, &tokens, 0, 1, NULL, 0, &digest));
    assert_int_equal(digest, bt_digest(NULL, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_layout_gives_the_bytes_and_their_digest),
        bt_test(long_lists_keep_the_pages_order),
        bt_test(what_a_copy_refuses_sets_no_digest),
    };
    return bt_run_tests(tests);
}
