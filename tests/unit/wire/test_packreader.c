/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "wire/oracle.h"
#include "wire/packwriter.h"

#include <stdio.h>

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

static const bt_unpack_limits limits = {
    .max_elements = 200, .max_blob_bytes = 70000, .max_depth = BT_UNPACK_MAX_DEPTH};

static baton_status open_with(bt_packreader *reader, const uint8_t *bytes, size_t n)
{
    return bt_unpack_open(reader, "test", bytes, n, &limits);
}

/* bytes[n] as one frame is refused, with text in the error, and no byte behind it is read. */
static void assert_refused(const uint8_t *bytes, size_t n, const char *text)
{
    uint8_t *guarded = bt_guarded_copy(bytes, n);
    bt_packreader reader;
    assert_fails(open_with(&reader, guarded, n), BATON_ERR_BAD_MESSAGE, text);
    bt_guarded_free(guarded, n);
}

static uint64_t u64_of(const uint8_t *bytes, size_t n)
{
    bt_packreader reader;
    uint64_t value = 0;
    assert_ok(open_with(&reader, bytes, n));
    assert_ok(bt_unpack_u64(&reader, UINT64_MAX, &value));
    assert_ok(bt_unpack_finish(&reader));
    return value;
}

static int64_t i64_of(const uint8_t *bytes, size_t n)
{
    bt_packreader reader;
    int64_t value = 0;
    assert_ok(open_with(&reader, bytes, n));
    assert_ok(bt_unpack_i64(&reader, &value));
    return value;
}

static void integers_are_read_in_every_width(void **state)
{
    (void)state;
    assert_int_equal(u64_of(BYTES(0x7f)), 127);
    assert_int_equal(u64_of(BYTES(0xcc, 1)), 1);
    assert_int_equal(u64_of(BYTES(0xcd, 1, 2)), 0x102);
    assert_int_equal(u64_of(BYTES(0xce, 1, 2, 3, 4)), 0x1020304);
    assert_true(u64_of(BYTES(0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)) == UINT64_MAX);
    assert_int_equal(u64_of(BYTES(0xd0, 5)), 5);
    assert_int_equal(u64_of(BYTES(0xd3, 0, 0, 0, 0, 0, 0, 0, 9)), 9);
    assert_int_equal(i64_of(BYTES(0xe0)), -32);
    assert_int_equal(i64_of(BYTES(0xd0, 0x80)), -128);
    assert_int_equal(i64_of(BYTES(0xd1, 0xff, 0xfe)), -2);
    assert_int_equal(i64_of(BYTES(0xd2, 0x80, 0, 0, 0)), INT32_MIN);
    assert_true(i64_of(BYTES(0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0)) == INT64_MIN);
    assert_int_equal(i64_of(BYTES(0xcc, 200)), 200);
}

static void integers_out_of_range_are_refused(void **state)
{
    (void)state;
    bt_packreader reader;
    uint64_t u64 = 0;
    uint32_t u32 = 7;
    int64_t i64 = 0;
    assert_ok(open_with(&reader, BYTES(0xcd, 1, 0)));
    assert_fails(bt_unpack_u32(&reader, 255, &u32), BATON_ERR_BAD_MESSAGE, "256 is above 255");
    assert_int_equal(u32, 7);
    assert_ok(open_with(&reader, BYTES(0xff)));
    assert_fails(bt_unpack_u64(&reader, UINT64_MAX, &u64), BATON_ERR_BAD_MESSAGE,
                 "wanted an integer, found a negative integer");
    assert_ok(open_with(&reader, BYTES(0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0)));
    assert_fails(bt_unpack_i64(&reader, &i64), BATON_ERR_BAD_MESSAGE, "is above");
}

static void floats_of_both_widths_are_read(void **state)
{
    (void)state;
    bt_packreader reader;
    double value = 0;
    assert_ok(open_with(&reader, BYTES(0xca, 0x3f, 0xc0, 0, 0)));
    assert_ok(bt_unpack_f64(&reader, &value));
    assert_true(value > 1.49 && value < 1.51);
    assert_ok(open_with(&reader, BYTES(0xcb, 0xc0, 0, 0, 0, 0, 0, 0, 0)));
    assert_ok(bt_unpack_f64(&reader, &value));
    assert_true(value > -2.01 && value < -1.99);
}

static void blobs_are_borrowed_from_the_frame(void **state)
{
    (void)state;
    const uint8_t frame[] = {0x93, 0xa2, 'h', 'i', 0xd9, 2, 'h', 'o', 0xc4, 1, 0xff};
    bt_packreader reader;
    uint32_t count = 0;
    bt_blob blob;
    assert_ok(open_with(&reader, frame, sizeof(frame)));
    assert_ok(bt_unpack_array(&reader, &count));
    assert_int_equal(count, 3);
    assert_ok(bt_unpack_str(&reader, &blob));
    assert_ptr_equal(blob.data, frame + 2);
    assert_true(bt_blob_is_text(blob, "hi"));
    assert_false(bt_blob_is_text(blob, "hit"));
    assert_ok(bt_unpack_str(&reader, &blob));
    assert_true(bt_blob_is_text(blob, "ho"));
    assert_ok(bt_unpack_bin(&reader, &blob));
    assert_int_equal(blob.bytes, 1);
    assert_ok(bt_unpack_finish(&reader));
}

static void a_claim_beyond_the_frame_is_refused_at_once(void **state)
{
    (void)state;
    assert_refused(BYTES(0xdd, 0xff, 0xff, 0xff, 0xff), "needs 4294967295 bytes, 0 left");
    assert_refused(BYTES(0xdf, 0xff, 0xff, 0xff, 0xff), "keys, at most 64");
    assert_refused(BYTES(0x82, 0xa1, 'a', 1), "a map needs 4 bytes, 3 left");
    assert_refused(BYTES(0xdb, 0xff, 0xff, 0xff, 0xff), "at most 70000 allowed");
    assert_refused(BYTES(0xc6, 0, 0, 1, 0), "a binary needs 256 bytes, 0 left");
    assert_refused(BYTES(0xa3, 'a', 'b'), "a string needs 3 bytes, 2 left");
}

static void malformed_frames_are_refused_with_the_place(void **state)
{
    (void)state;
    assert_refused((const uint8_t *)"", 0, "truncated: wanted 1 more bytes, at byte 0 of 0");
    assert_refused(BYTES(0xc1), "unused tag 0xc1, at byte 0 of 1");
    assert_refused(BYTES(0x91, 0xd4, 1, 2), "extension 0xd4, at byte 1 of 4");
    assert_refused(BYTES(0xc7, 0, 1), "extension 0xc7");
    assert_refused(BYTES(0xcf, 1, 2, 3), "truncated: wanted 8 more bytes");
    assert_refused(BYTES(1, 2), "1 bytes behind the end, at byte 1 of 2");
    assert_refused(BYTES(0x81, 1, 1), "wanted a string, found an integer, at byte 1");
    assert_refused(BYTES(0x81, 0xc4, 1, 'a', 1), "wanted a string, found a binary");
}

static void a_key_twice_is_refused_at_any_depth(void **state)
{
    (void)state;
    assert_refused(BYTES(0x82, 0xa1, 'a', 1, 0xa1, 'a', 1), "a key twice, at byte 4");
    assert_refused(BYTES(0x82, 0xa1, 'a', 1, 0xd9, 1, 'a', 1), "a key twice");
    assert_refused(BYTES(0x91, 0x81, 0xa1, 'x', 0x82, 0xa0, 1, 0xa0, 1), "a key twice");
}

static void nesting_is_limited(void **state)
{
    (void)state;
    uint8_t frame[BT_UNPACK_MAX_DEPTH + 2];
    memset(frame, 0x91, sizeof(frame));
    frame[BT_UNPACK_MAX_DEPTH] = 0;
    bt_packreader reader;
    assert_ok(open_with(&reader, frame, BT_UNPACK_MAX_DEPTH + 1));
    frame[BT_UNPACK_MAX_DEPTH] = 0x91;
    frame[BT_UNPACK_MAX_DEPTH + 1] = 0;
    assert_refused(frame, sizeof(frame), "nested deeper than 8");
}

static void elements_and_blobs_are_limited(void **state)
{
    (void)state;
    uint8_t frame[3 + 200] = {0xdc, 0, 199};
    bt_packreader reader;
    assert_ok(open_with(&reader, frame, 3 + 199));
    frame[2] = 200;
    assert_refused(frame, 3 + 200, "more than 200 elements");

    const bt_unpack_limits narrow = {.max_elements = 9, .max_blob_bytes = 2, .max_depth = 1};
    assert_ok(bt_unpack_open(&reader, "test", BYTES(0xa2, 'a', 'b'), &narrow));
    assert_fails(bt_unpack_open(&reader, "test", BYTES(0xa3, 'a', 'b', 'c'), &narrow),
                 BATON_ERR_BAD_MESSAGE, "a string of 3 bytes, at most 2 allowed");
}

static void skip_and_raw_pass_over_whole_values(void **state)
{
    (void)state;
    const uint8_t frame[] = {0x93, 0x81, 0xa1, 'k', 0x92, 1, 0xc4, 1, 2, 0x91, 0xc0, 0xc3};
    bt_packreader reader, inner;
    uint32_t count = 0;
    bt_blob raw;
    bool flag = false;
    assert_ok(open_with(&reader, frame, sizeof(frame)));
    assert_ok(bt_unpack_array(&reader, &count));
    assert_ok(bt_unpack_skip(&reader));
    assert_ok(bt_unpack_raw(&reader, &raw));
    assert_int_equal(raw.bytes, 2);
    assert_ok(open_with(&inner, raw.data, raw.bytes));
    assert_ok(bt_unpack_array(&inner, &count));
    assert_ok(bt_unpack_nil(&inner));
    assert_fails(bt_unpack_finish(&reader), BATON_ERR_BAD_MESSAGE, "1 bytes behind the end");
    bt_pack_type type;
    assert_ok(bt_unpack_peek(&reader, &type));
    assert_int_equal(type, BT_PACK_BOOL);
    assert_ok(bt_unpack_bool(&reader, &flag));
    assert_true(flag);
    assert_ok(bt_unpack_finish(&reader));
    assert_fails(bt_unpack_skip(&reader), BATON_ERR_BAD_MESSAGE, "truncated");
}

/* Writes a random value with the packer; the reader and libmsgpack then judge it. */
static void pack_random(bt_packwriter *writer, bt_rng *rng, uint32_t depth)
{
    uint8_t noise[40];
    char key[24];
    uint32_t count = (uint32_t)bt_rng_below(rng, 5);
    bt_rng_fill(rng, noise, sizeof(noise));
    switch (bt_rng_below(rng, depth < 4 ? 9 : 7)) {
    case 0:
        bt_pack_nil(writer);
        break;
    case 1:
        bt_pack_bool(writer, count & 1);
        break;
    case 2:
        bt_pack_u64(writer, bt_rng_next(rng) >> bt_rng_below(rng, 64));
        break;
    case 3:
        bt_pack_i64(writer, (int64_t)bt_rng_next(rng) >> bt_rng_below(rng, 64));
        break;
    case 4:
        bt_pack_f64(writer, (double)bt_rng_next(rng) / 3);
        break;
    case 5:
        bt_pack_str_n(writer, noise, bt_rng_below(rng, sizeof(noise)));
        break;
    case 6:
        bt_pack_bin(writer, noise, bt_rng_below(rng, sizeof(noise)));
        break;
    case 7:
        bt_pack_array(writer, count);
        for (uint32_t i = 0; i < count; i++)
            pack_random(writer, rng, depth + 1);
        break;
    default:
        bt_pack_map(writer, count);
        for (uint32_t i = 0; i < count; i++) {
            snprintf(key, sizeof(key), "k%u", i);
            bt_pack_str(writer, key);
            pack_random(writer, rng, depth + 1);
        }
    }
}

static void random_and_mutated_frames_agree_with_libmsgpack(void **state)
{
    (void)state;
    bt_rng rng = {.state = 1};
    uint8_t buffer[4096];
    unsigned n_accepted = 0;
    for (unsigned round = 0; round < 20000; round++) {
        bt_packwriter writer;
        bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
        pack_random(&writer, &rng, 0);
        if (bt_pack_finish(&writer) < 0)
            continue;
        assert_int_equal(oracle_compare(buffer, writer.n, &limits), ORACLE_AGREE);
        buffer[bt_rng_below(&rng, writer.n)] = (uint8_t)bt_rng_next(&rng);
        size_t n = writer.n - bt_rng_below(&rng, 2);
        assert_int_equal(oracle_compare(buffer, n, &limits), ORACLE_AGREE);
        bt_packreader reader;
        n_accepted += open_with(&reader, buffer, n) == BATON_OK;
    }
    assert_true(n_accepted > 500); /* the mutations must not all be refused */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(integers_are_read_in_every_width),
        bt_test(integers_out_of_range_are_refused),
        bt_test(floats_of_both_widths_are_read),
        bt_test(blobs_are_borrowed_from_the_frame),
        bt_test(a_claim_beyond_the_frame_is_refused_at_once),
        bt_test(malformed_frames_are_refused_with_the_place),
        bt_test(a_key_twice_is_refused_at_any_depth),
        bt_test(nesting_is_limited),
        bt_test(elements_and_blobs_are_limited),
        bt_test(skip_and_raw_pass_over_whole_values),
        bt_test(random_and_mutated_frames_agree_with_libmsgpack),
    };
    return bt_run_tests(tests);
}
