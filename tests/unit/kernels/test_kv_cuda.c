/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA copies against the reference, in managed memory so that both sides can look. Needs a
 * GPU; skipped without one. */
#include "kv_case.h"

#include "kernels/digest.h"
#include "kernels/digest_tiles.h"
#include "kernels/kv_kernels.h"
#include "kernels/kv_reference.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

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

/* Copies, with and without a digest on the way. */
static void gather(const baton_kv_view *view, const kv_case *c, uint8_t *page, uint64_t *digest)
{
    if (digest == NULL)
        assert_ok(baton_kv_gather_cuda(view, &c->tokens, c->first_layer, c->n_layers, page,
                                       c->page_bytes, NULL));
    else
        assert_ok(baton_kv_gather_digest_cuda(view, &c->tokens, c->first_layer, c->n_layers, page,
                                              c->page_bytes, digest, NULL));
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

static void scatter(const baton_kv_view *view, const kv_case *c, uint8_t *page, uint64_t *digest)
{
    if (digest == NULL)
        assert_ok(baton_kv_scatter_cuda(view, &c->tokens, c->first_layer, c->n_layers, page,
                                        c->page_bytes, NULL));
    else
        assert_ok(baton_kv_scatter_digest_cuda(view, &c->tokens, c->first_layer, c->n_layers, page,
                                               c->page_bytes, digest, NULL));
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
}

static void check_tiles(const kv_case *c, const baton_kv_view *view, uint8_t *page,
                        const uint8_t *wanted)
{
    uint64_t n_tiles = bt_digest_n_tiles(c->page_bytes);
    uint8_t *zeros = test_calloc(n_tiles, sizeof(uint64_t));
    uint64_t *tiles = (uint64_t *)(void *)managed_copy(zeros, n_tiles * sizeof(*tiles));
    memcpy(page, wanted, c->page_bytes); /* tokens that are skipped keep theirs */
    assert_ok(bt_kv_kernels_built()->gather_tiles(view, &c->tokens, c->first_layer, c->n_layers,
                                                  page, c->page_bytes, tiles, NULL));
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    assert_memory_equal(page, wanted, c->page_bytes);
    assert_true(bt_digest_of_tiles(tiles, n_tiles) == bt_digest(wanted, c->page_bytes));
    cudaFree(tiles);
    test_free(zeros);
}

static void check_case(kv_case *c, bt_rng *rng, bool digests)
{
    const uint64_t zero = 0;
    uint64_t *digest = digests ? (uint64_t *)(void *)managed_copy(&zero, sizeof(zero)) : NULL;
    uint8_t *random = test_calloc(c->page_bytes + 1, 1);
    bt_rng_fill(rng, random, c->page_bytes);
    uint8_t *page = managed_copy(random, c->page_bytes);
    uint8_t *arena = managed_copy(c->arena, c->arena_bytes);
    baton_kv_plane planes[MAX_LAYERS];
    baton_kv_view view = managed_view(c, arena, planes);

    gather(&view, c, page, digest);
    assert_ok(bt_kv_gather_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, random,
                                     c->page_bytes));
    assert_memory_equal(page, random, c->page_bytes);
    assert_true(digest == NULL || *digest == bt_digest(random, c->page_bytes));
    if (digest != NULL)
        check_tiles(c, &view, page, random);

    bt_rng_fill(rng, random, c->page_bytes);
    memcpy(page, random, c->page_bytes);
    scatter(&view, c, page, digest);
    assert_ok(bt_kv_scatter_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, random,
                                      c->page_bytes));
    assert_memory_equal(arena, c->arena, c->arena_bytes);
    assert_true(digest == NULL || *digest == bt_digest(random, c->page_bytes));

    cudaFree(digest);
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
        if (c.page_bytes > 0)
            check_case(&c, &rng, round % 2 == 1);
        kv_case_free(&c);
    }
}

/* 32 layers of 8 heads of 128 bf16, 256 tokens: 32 MiB, thousands of thread blocks. 512 tokens are
 * more than travel with a launch. */
static void a_chunk_of_a_real_model_moves(void **state)
{
    (void)state;
    enum { LAYERS = 32, HEADS = 8, HEAD = 256, BLOCK = 16, SLOTS = 1024, MAX_TOKENS_HERE = 512 };
    const uint64_t layer_bytes = UINT64_C(2) * SLOTS * HEADS * HEAD;
    uint64_t page_bytes = UINT64_C(2) * LAYERS * MAX_TOKENS_HERE * HEADS * HEAD;
    uint8_t *random = test_malloc(LAYERS * layer_bytes), *wanted = test_malloc(page_bytes);
    bt_rng rng = {.state = 33};
    bt_rng_fill(&rng, random, LAYERS * layer_bytes);
    uint8_t *arena = managed_copy(random, LAYERS * layer_bytes);
    uint8_t *page = managed_copy(random, page_bytes);
    uint64_t *digest = (uint64_t *)(void *)managed_copy(random, sizeof(*digest));
    static baton_kv_plane planes[LAYERS];
    static int64_t slots[MAX_TOKENS_HERE];
    void *layers[LAYERS];
    for (unsigned i = 0; i < LAYERS; i++)
        layers[i] = arena + i * layer_bytes;
    for (int64_t t = 0; t < MAX_TOKENS_HERE; t++)
        slots[t] = (t * 389 + 11) % SLOTS;
    baton_kv_shape shape = {LAYERS, SLOTS / BLOCK, BLOCK, HEADS, HEAD, BATON_MEMORY_CUDA_DEVICE};
    for (uint32_t n = 256; n <= MAX_TOKENS_HERE; n *= 2) {
        baton_kv_view view;
        baton_kv_tokens tokens = {.slots = slots, .n_tokens = n};
        assert_ok(baton_kv_view_hnd(&shape, layers, NULL, planes, &view));
        assert_ok(baton_kv_chunk_bytes(&view, n, &page_bytes));
        assert_ok(
            baton_kv_gather_digest_cuda(&view, &tokens, 0, LAYERS, page, page_bytes, digest, NULL));
        assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
        view.memory = BATON_MEMORY_CUDA_HOST; /* managed memory is the CPU's too */
        assert_ok(bt_kv_gather_reference(&view, &tokens, 0, LAYERS, wanted, page_bytes));
        assert_int_equal(memcmp(page, wanted, page_bytes), 0);
        assert_true(*digest == bt_digest(wanted, page_bytes));
    }
    cudaFree(digest);
    cudaFree(page);
    cudaFree(arena);
    test_free(wanted);
    test_free(random);
}

/* As the library uses it: bytes on the device, the digest in registered host memory. */
static void bytes_on_the_device_have_the_cpus_digest(void **state)
{
    (void)state;
    enum { PAGE = 4096, MOST = 40 * BT_DIGEST_TILE_BYTES };
    bt_rng rng = {.state = 34};
    const bt_kv_kernels *kernels = bt_kv_kernels_built();
    assert_true(kernels->can_run(true));
    uint8_t *random = test_malloc(MOST), *device = NULL;
    uint64_t *digests = aligned_alloc(PAGE, PAGE);
    assert_non_null(digests);
    bt_rng_fill(&rng, random, MOST);
    assert_int_equal(cudaMalloc((void **)&device, MOST), cudaSuccess);
    assert_int_equal(cudaMemcpy(device, random, MOST, cudaMemcpyHostToDevice), cudaSuccess);
    assert_int_equal(
        cudaHostRegister(digests, PAGE, cudaHostRegisterPortable | cudaHostRegisterMapped),
        cudaSuccess);
    for (uint32_t i = 0; i < PAGE / sizeof(*digests); i++) {
        uint64_t at = i % 17, n = 1 + bt_rng_below(&rng, i % 4 == 0 ? MOST - at : 600);
        assert_ok(kernels->digest(device + at, n, &digests[i], NULL));
        assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
        assert_true(digests[i] == bt_digest(random + at, n));
    }
    for (uint32_t i = 0; i < 100; i++) { /* those of tiles, which come back one by one */
        uint64_t n = 1 + bt_rng_below(&rng, MOST);
        assert_ok(kernels->digest_tiles(device, n, digests, NULL));
        assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
        assert_true(bt_digest_of_tiles(digests, bt_digest_n_tiles(n)) == bt_digest(random, n));
    }
    cudaHostUnregister(digests);
    free(digests);
    cudaFree(device);
    test_free(random);
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
        bt_test(a_chunk_of_a_real_model_moves),
        bt_test(bytes_on_the_device_have_the_cpus_digest),
        bt_test(ordinary_host_memory_is_refused),
    };
    return bt_run_tests(tests);
}
