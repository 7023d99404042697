/* SPDX-License-Identifier: Apache-2.0 */
/* The sampled digest against its definition, and what it finds: pages of another chunk, of another
 * day, and torn ones. */
#include "support/test.h"

#include "core/alloc.h"
#include "kernels/digest.h"
#include "kernels/sample.h"
#include "kv_case.h"

#include <string.h>

enum {
    LAYERS = 8,
    PLANES = 2,
    TOKENS = 128,
    ROW = 1024, /* of all pieces together: a stratum */
    PIECE = TOKENS * ROW,
    PAGE = LAYERS * PLANES * PIECE,
    N_SEEDS = 40,
    LINE = BT_SAMPLE_LINE_BYTES,
    STRATUM = BT_SAMPLE_STRATUM_LINES,
};

static uint8_t *today, *yesterday, *page; /* [PAGE] */

static void fill(uint64_t seed, uint8_t *bytes, size_t n)
{
    bt_rng rng = {seed};
    bt_rng_fill(&rng, bytes, n);
}

/* docs/protocol.md, Sampled digests, word by word. */
static uint64_t defined(const uint8_t *bytes, uint64_t n_pieces, uint64_t piece, uint64_t seed)
{
    uint64_t n_full = piece / LINE, n = 0, last = (piece - 1) / LINE * LINE;
    uint8_t *sample = test_calloc(n_pieces, piece + 3 * (size_t)LINE);
    for (uint64_t q = 0; q < n_pieces; q++, bytes += piece) {
        uint64_t first = piece < LINE ? piece : LINE;
        memcpy(sample + n, bytes, first);
        n += first;
        for (uint64_t c = 0; c * STRATUM < n_full; c++) {
            uint64_t left = n_full - c * STRATUM, of = left < STRATUM ? left : STRATUM;
            uint64_t x = seed + (c + 1) * UINT64_C(0x9e3779b97f4a7c15);
            x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
            x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
            x = (x ^ (x >> 31)) >> 32;
            memcpy(sample + n, bytes + LINE * (c * STRATUM + (x + q * of / n_pieces) % of), LINE);
            n += LINE;
        }
        memcpy(sample + n, bytes + last, piece - last);
        n += piece - last;
    }
    uint64_t digest = bt_digest(sample, n);
    test_free(sample);
    return digest;
}

static void samples_are_what_the_protocol_says(void **state)
{
    (void)state;
    static const uint64_t pieces[] = {1,   7,     63,    64,        65,    127,   128,  130,
                                      448, 16384, 16448, 16384 + 1, 40000, 65536, PIECE};
    static const uint32_t layers[] = {1, 3, LAYERS};
    for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
        for (uint32_t i = 0; i < 6; i++) {
            uint32_t n_layers = layers[i / 2], n_planes = 1 + i % 2;
            uint64_t bytes = pieces[p] * n_layers * n_planes;
            uint8_t *copy = bt_guarded_copy(today, bytes); /* nothing behind it is read */
            bt_sample *sample;
            assert_ok(bt_sample_create(n_layers, n_planes, bytes, p + i, &sample));
            assert_int_equal(bt_sample_digest_page(sample, copy),
                             defined(today, (uint64_t)n_layers * n_planes, pieces[p], p + i));
            assert_true(bt_sample_bytes(sample, n_layers) <=
                        bt_sample_most_bytes(n_layers, n_planes, bytes));
            bt_sample_expect(sample, copy);
            bt_sample_destroy(sample);
            bt_guarded_free(copy, bytes);
        }
    }
}

/* docs/protocol.md gives these, for whoever implements it anew. */
static void known_values_stay(void **state)
{
    (void)state;
    uint8_t nonce[16];
    bt_sample *sample;
    for (uint8_t i = 0; i < 16; i++)
        nonce[i] = i;
    uint64_t seed = bt_sample_seed(nonce, 5, 3);
    for (size_t i = 0; i < 40000; i++)
        page[i] = (uint8_t)(i * 7 + i / 256);
    assert_ok(bt_sample_create(2, 1, 40000, seed, &sample));
    assert_int_equal(seed, UINT64_C(0xf88baf1b74583939));
    assert_int_equal(bt_sample_digest_page(sample, page), UINT64_C(0xce09a0e40296cdbc));
    bt_sample_destroy(sample);
}

/* Calls damage with a page of today's bytes and every seed; all of them notice. */
static void assert_found(void (*damage)(uint32_t i), uint32_t n)
{
    for (uint32_t seed = 0; seed < N_SEEDS; seed++) {
        bt_sample *sample;
        assert_ok(bt_sample_create(LAYERS, PLANES, PAGE, bt_sample_seed(today, seed, 1), &sample));
        uint64_t wanted = bt_sample_digest_page(sample, today);
        memcpy(page, today, PAGE);
        assert_int_equal(bt_sample_digest_page(sample, page), wanted);
        for (uint32_t i = seed % 7; i<n; i += n> 64 ? 7 : 1) {
            memcpy(page, today, PAGE);
            damage(i);
            if (bt_sample_digest_page(sample, page) == wanted)
                fail_msg("seed %u: damage %u was not seen", seed, i);
        }
        bt_sample_destroy(sample);
    }
}

static void another_chunk(uint32_t i)
{
    (void)i;
    memcpy(page, yesterday, PAGE);
}

static void without_a_layer(uint32_t layer)
{
    size_t at = (size_t)layer * PLANES * PIECE;
    memcpy(page + at, yesterday + at, PLANES * PIECE);
}

static void without_a_piece(uint32_t piece)
{
    size_t at = (size_t)piece * PIECE;
    memcpy(page + at, yesterday + at, PIECE);
}

static void without_a_token(uint32_t token)
{
    for (size_t at = (size_t)token * ROW; at < PAGE; at += PIECE)
        memcpy(page + at, yesterday + at, ROW);
}

/* Torn after 1/500, 2/500 ... of it; from behind, too. */
static void torn(uint32_t i)
{
    size_t at = (size_t)PAGE * (i / 2 + 1) / 500;
    if (i % 2 == 0)
        memcpy(page + at, yesterday + at, PAGE - at);
    else
        memcpy(page, yesterday, at);
}

/* A run of 32 KiB somewhere, as a lost put leaves it. */
static void with_a_hole(uint32_t i)
{
    size_t at = (size_t)i * 4999 * LINE % (PAGE - 2 * STRATUM * LINE);
    memcpy(page + at, yesterday + at, 2 * STRATUM * LINE);
}

static void two_layers_exchanged(uint32_t i)
{
    size_t a = (size_t)(i % LAYERS) * PLANES * PIECE;
    size_t b = (size_t)((i + 1) % LAYERS) * PLANES * PIECE;
    memcpy(page + a, today + b, PLANES * PIECE);
    memcpy(page + b, today + a, PLANES * PIECE);
}

static void swapped_stale_and_torn_pages_are_found(void **state)
{
    (void)state;
    assert_found(another_chunk, 1);
    assert_found(without_a_layer, LAYERS);
    assert_found(without_a_piece, LAYERS * PLANES);
    assert_found(without_a_token, TOKENS);
    assert_found(torn, 2 * 499);
    assert_found(with_a_hole, 200);
    assert_found(two_layers_exchanged, LAYERS);
}

/* What no sample can promise, which is what `full` is for; and that places follow the seed. */
static void one_byte_is_found_by_some_seeds_only(void **state)
{
    (void)state;
    uint32_t n_found = 0;
    for (uint32_t seed = 0; seed < 2000; seed++) {
        bt_sample *sample;
        assert_ok(bt_sample_create(LAYERS, PLANES, PAGE, seed, &sample));
        memcpy(page, today, PAGE);
        page[5 * PIECE + 20000] ^= 1;
        n_found += bt_sample_digest_page(sample, page) != bt_sample_digest_page(sample, today);
        bt_sample_destroy(sample);
    }
    assert_in_range(n_found, 1, 40); /* of 2,000, one line of 256: 8 are to be expected */
}

static void seeds_tell_tickets_apart(void **state)
{
    (void)state;
    uint8_t nonce[16] = {1};
    uint64_t seed = bt_sample_seed(nonce, 1, 1);
    assert_true(bt_sample_seed(nonce, 2, 1) != seed);
    assert_true(bt_sample_seed(nonce, 1, 2) != seed);
    nonce[15] ^= 1;
    assert_true(bt_sample_seed(nonce, 1, 1) != seed);
}

/* Every layout, skipped tokens and all: what is read from paged KV is what gather puts there.
 * Whole, and by groups of layers, in any order. */
static void paged_sources_give_the_page_s_digest(void **state)
{
    (void)state;
    bt_rng rng = {7};
    for (uint32_t i = 0; i < 300; i++) {
        kv_case c;
        bt_sample *sample;
        uint64_t bytes, layer_bytes;
        kv_case_create(&c, &rng);
        assert_ok(baton_kv_chunk_bytes(&c.view, c.tokens.n_tokens, &bytes));
        if (bytes == 0 || bytes > PAGE) {
            kv_case_free(&c);
            continue;
        }
        fill(i, page, bytes);
        layer_bytes = bytes / c.view.n_layers;
        assert_ok(baton_kv_gather(&c.view, &c.tokens, 0, c.view.n_layers, page, bytes));
        assert_ok(bt_sample_create(c.view.n_layers, c.view.n_planes, bytes, i, &sample));
        const bt_sample_source all = {
            .n_layers = c.view.n_layers, .bytes = page, .view = &c.view, .tokens = &c.tokens};
        uint64_t wanted = bt_sample_digest_page(sample, page);
        assert_int_equal(bt_sample_digest(sample, &all), wanted);
        size_t n = bt_sample_bytes(sample, c.view.n_layers);
        uint8_t *lines = test_calloc(n, 1);
        for (uint32_t layer = c.view.n_layers; layer-- > 0;) {
            bt_sample_source one = all;
            one.first_layer = layer;
            one.n_layers = 1;
            one.bytes = page + layer * layer_bytes;
            if (layer % 2 == 0)
                one.view = NULL;
            bt_sample_take(sample, &one, lines);
        }
        assert_int_equal(bt_digest(lines, n), wanted);
        test_free(lines);
        bt_sample_destroy(sample);
        kv_case_free(&c);
    }
}

static void without_memory_there_is_no_sample(void **state)
{
    (void)state;
    bt_samples samples = {0};
    const bt_sample *first, *again, *last;
    bt_alloc_fail_at(1);
    assert_int_equal(bt_samples_get(&samples, false, 1, 1, 100, 1, &first), BATON_ERR_NO_MEMORY);
    bt_alloc_fail_at(0);
    assert_ok(bt_samples_get(&samples, false, 1, 1, 100, 1, &first));
    assert_ok(bt_samples_get(&samples, false, 1, 1, 100, 1, &again));
    assert_ok(bt_samples_get(&samples, true, 1, 1, 30, 1, &last));
    assert_true(first == again && first != last);
    bt_samples_clear(&samples);
    assert_null(samples.whole);
}

static int set_up(void **state)
{
    (void)state;
    today = bt_aligned_alloc(64, PAGE);
    yesterday = bt_aligned_alloc(64, PAGE);
    page = bt_aligned_alloc(64, PAGE);
    fill(1, today, PAGE);
    fill(2, yesterday, PAGE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bt_free(today);
    bt_free(yesterday);
    bt_free(page);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(samples_are_what_the_protocol_says),
        bt_test(known_values_stay),
        bt_test(swapped_stale_and_torn_pages_are_found),
        bt_test(one_byte_is_found_by_some_seeds_only),
        bt_test(seeds_tell_tickets_apart),
        bt_test(paged_sources_give_the_page_s_digest),
        bt_test(without_memory_there_is_no_sample),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
