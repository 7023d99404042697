/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/seal.h"

#include "core/alloc.h"
#include "support/test.h"

static const uint8_t payload[] = {1, 2, 3, 4, 5};
static const bt_seal sample = {.kind = BT_SEAL_KEY,
                               .backend = BT_SEAL_UCX,
                               .major = 1,
                               .minor = 13,
                               .base = 0x1000,
                               .bytes = 0x2000,
                               .memory = BATON_MEMORY_CUDA_HOST,
                               .payload = payload,
                               .payload_bytes = sizeof(payload)};

static uint8_t *pack(const bt_seal *seal, size_t *n)
{
    uint8_t *bytes;
    assert_ok(bt_seal_pack(seal, 4096, &bytes, n));
    return bytes;
}

static baton_status open_as(const bt_seal *wanted, const void *bytes, size_t n, bt_seal *seal)
{
    *seal = (bt_seal){.kind = wanted->kind,
                      .backend = wanted->backend,
                      .major = wanted->major,
                      .minor = wanted->minor};
    return bt_seal_open(bytes, n, seal);
}

static void what_was_sealed_is_opened(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = pack(&sample, &n);
    static const uint8_t start[] = {'B', 'T', 'N', 'K', 1, 0, 2, 0, 1, 0, 13, 0,  5, 0,
                                    0,   0,   0,   16,  0, 0, 0, 0, 0, 0, 0,  32, 0, 0,
                                    0,   0,   0,   0,   2, 0, 0, 0, 0, 0, 0,  0};
    assert_int_equal(n, BT_SEAL_HEADER_BYTES + sizeof(payload));
    assert_memory_equal(bytes, start, sizeof(start));
    bt_seal seal;
    assert_ok(open_as(&sample, bytes, n, &seal));
    assert_int_equal(seal.base, sample.base);
    assert_int_equal(seal.bytes, sample.bytes);
    assert_int_equal(seal.memory, sample.memory);
    assert_int_equal(seal.payload_bytes, sizeof(payload));
    assert_memory_equal(seal.payload, payload, sizeof(payload));
    bt_free(bytes);
}

static void every_flipped_bit_and_every_cut_is_found(void **state)
{
    (void)state;
    size_t n;
    uint8_t *bytes = pack(&sample, &n);
    bt_seal seal;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(open_as(&sample, bytes, n, &seal) < 0);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *guarded = bt_guarded_copy(bytes, cut);
        assert_fails(open_as(&sample, guarded, cut, &seal), BATON_ERR_INVALID_ARG, NULL);
        bt_guarded_free(guarded, cut);
    }
    bt_free(bytes);
}

static void impossible_regions_are_refused_though_the_checksum_fits(void **state)
{
    (void)state;
    bt_seal bad[3] = {sample, sample, sample};
    bad[0].bytes = 0;
    bad[1].base = UINT64_MAX - 5;
    bad[2].memory = (baton_memory_kind)3;
    for (size_t i = 0; i < 3; i++) {
        size_t n;
        uint8_t *bytes = pack(&bad[i], &n);
        bt_seal seal;
        assert_fails(open_as(&sample, bytes, n, &seal), BATON_ERR_INVALID_ARG, "impossible");
        bt_free(bytes);
    }
}

static void too_large_and_no_memory_are_errors(void **state)
{
    (void)state;
    uint8_t *bytes;
    size_t n;
    assert_fails(bt_seal_pack(&sample, BT_SEAL_HEADER_BYTES + sizeof(payload) - 1, &bytes, &n),
                 BATON_ERR_TOO_LARGE, "room");
    bt_alloc_fail_at(1);
    assert_fails(bt_seal_pack(&sample, 4096, &bytes, &n), BATON_ERR_NO_MEMORY, NULL);
    bt_alloc_fail_at(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(what_was_sealed_is_opened),
        bt_test(every_flipped_bit_and_every_cut_is_found),
        bt_test(impossible_regions_are_refused_though_the_checksum_fits),
        bt_test(too_large_and_no_memory_are_errors),
    };
    return bt_run_tests(tests);
}
