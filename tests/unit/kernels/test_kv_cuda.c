/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA copies against the reference, in managed memory so that both sides can look. Needs a
 * GPU; skipped without one. */
#include "kv_case.h"

#include "kernels/kv_reference.h"

#include <cuda_runtime_api.h>

enum { ROUNDS = 150 };

static uint8_t *managed_copy(const void *bytes, uint64_t n)
{
    void *copy = NULL;
    assert_int_equal(cudaMallocManaged(&copy, n + 1, cudaMemAttachGlobal), cudaSuccess);
    memcpy(copy, bytes, n);
    return copy;
}

/* The case's view, in managed memory: the same offsets from another base. */
static baton_kv_view managed_view(const kv_case *c, uint8_t *arena,
                                  baton_kv_plane planes[MAX_LAYERS])
{
    baton_kv_view view = c->view;
    for (uint32_t layer = 0; layer < c->shape.n_layers; layer++) {
        const baton_kv_plane *from = &c->view.planes[layer];
        planes[layer].k = arena + ((uint8_t *)from->k - c->arena);
        planes[layer].v = from->v == NULL ? NULL : arena + ((uint8_t *)from->v - c->arena);
    }
    view.planes = planes;
    view.memory = BATON_MEMORY_CUDA_DEVICE;
    return view;
}

static void check_case(kv_case *c, bt_rng *rng)
{
    uint8_t *random = test_calloc(c->page_bytes + 1, 1);
    bt_rng_fill(rng, random, c->page_bytes);
    uint8_t *page = managed_copy(random, c->page_bytes);
    uint8_t *arena = managed_copy(c->arena, c->arena_bytes);
    baton_kv_plane planes[MAX_LAYERS];
    baton_kv_view view = managed_view(c, arena, planes);

    assert_ok(baton_kv_gather_cuda(&view, &c->tokens, c->first_layer, c->n_layers, page,
                                   c->page_bytes, NULL));
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    assert_ok(bt_kv_gather_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, random,
                                     c->page_bytes));
    assert_memory_equal(page, random, c->page_bytes);

    bt_rng_fill(rng, random, c->page_bytes);
    memcpy(page, random, c->page_bytes);
    assert_ok(baton_kv_scatter_cuda(&view, &c->tokens, c->first_layer, c->n_layers, page,
                                    c->page_bytes, NULL));
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    assert_ok(bt_kv_scatter_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, random,
                                      c->page_bytes));
    assert_memory_equal(arena, c->arena, c->arena_bytes);

    cudaFree(arena);
    cudaFree(page);
    test_free(random);
}

static void the_gpu_moves_what_the_reference_moves(void **state)
{
    (void)state;
    bt_rng rng = {.state = 31};
    for (unsigned round = 0; round < ROUNDS; round++) {
        kv_case c;
        kv_case_create(&c, &rng);
        check_case(&c, &rng);
        kv_case_free(&c);
    }
}

static void ordinary_host_memory_is_refused(void **state)
{
    (void)state;
    bt_rng rng = {.state = 32};
    kv_case c;
    kv_case_create(&c, &rng);
    const int64_t slots[] = {0};
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 1};
    uint8_t *page = test_malloc(1 << 20);
    assert_fails(baton_kv_gather_cuda(&c.view, &tokens, 0, 1, page, 1 << 20, NULL),
                 BATON_ERR_UNSUPPORTED, "ordinary host memory");
    c.view.memory = BATON_MEMORY_CUDA_HOST;
    assert_fails(baton_kv_gather_cuda(&c.view, &tokens, 0, 1, page, 1 << 20, NULL),
                 BATON_ERR_INVALID_ARG, "cudaHostRegister");
    test_free(page);
    kv_case_free(&c);
}

int main(void)
{
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0)
        bt_test_skip("no CUDA device");
    const struct CMUnitTest tests[] = {
        bt_test(the_gpu_moves_what_the_reference_moves),
        bt_test(ordinary_host_memory_is_refused),
    };
    return bt_run_tests(tests);
}
