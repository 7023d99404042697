/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/fail.h"
#include "wire/packfields.h"

typedef struct {
    uint32_t rank;
    uint64_t epoch;
    int64_t status;
    bool last;
    double share;
    bt_blob name, nonce, pages;
    uint32_t sum;
} sample;

/* An array of small numbers, added up. */
static baton_status read_sum(bt_packreader *reader, void *value)
{
    uint32_t count = 0, total = 0;
    BATON_TRY(bt_unpack_array(reader, &count));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = 0;
        BATON_TRY(bt_unpack_u32(reader, 9, &number));
        total += number;
    }
    *(uint32_t *)value = total;
    return BATON_OK;
}

static const bt_field fields[] = {
    {.name = "rank",
     .type = BT_FIELD_U32,

     .offset = offsetof(sample, rank),
     .min = 1,
     .max = 8},
    {.name = "epoch", .type = BT_FIELD_U64, .offset = offsetof(sample, epoch)},
    {.name = "status", .type = BT_FIELD_I64, .optional = true, .offset = offsetof(sample, status)},
    {.name = "last", .type = BT_FIELD_BOOL, .optional = true, .offset = offsetof(sample, last)},
    {.name = "share", .type = BT_FIELD_F64, .optional = true, .offset = offsetof(sample, share)},
    {.name = "name",
     .type = BT_FIELD_STR,
     .optional = true,
     .offset = offsetof(sample, name),
     .min = 1,
     .max = 4},
    {.name = "nonce",
     .type = BT_FIELD_BIN,
     .optional = true,
     .offset = offsetof(sample, nonce),
     .min = 2,
     .max = 2},
    {.name = "pages", .type = BT_FIELD_RAW, .optional = true, .offset = offsetof(sample, pages)},
    {.name = "sum",
     .type = BT_FIELD_CALL,
     .optional = true,
     .offset = offsetof(sample, sum),
     .read = read_sum},
};
enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]) };

static const bt_unpack_limits limits = {.max_elements = 100, .max_blob_bytes = 100, .max_depth = 4};

static uint8_t buffer[512];

static baton_status read_frame(bt_packwriter *writer, sample *out, bt_field_result *result)
{
    bt_packreader reader;
    assert_ok(bt_pack_finish(writer));
    BATON_TRY(bt_unpack_open(&reader, "sample", writer->bytes, writer->n, &limits));
    BATON_TRY(bt_unpack_fields(&reader, fields, N_FIELDS, out, result));
    return bt_unpack_finish(&reader);
}

static void known_fields_are_read_in_any_order(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 9);
    bt_pack_str(&writer, "sum");
    bt_pack_array(&writer, 2);
    bt_pack_u64(&writer, 4);
    bt_pack_u64(&writer, 5);
    bt_pack_str(&writer, "pages");
    bt_pack_array(&writer, 1);
    bt_pack_nil(&writer);
    bt_pack_key_bin(&writer, "nonce", "ab", 2);
    bt_pack_key_str(&writer, "name", "abcd");
    bt_pack_str(&writer, "share");
    bt_pack_f64(&writer, 0.5);
    bt_pack_key_bool(&writer, "last", true);
    bt_pack_key_i64(&writer, "status", -3);
    bt_pack_key_u64(&writer, "epoch", UINT64_MAX);
    bt_pack_key_u64(&writer, "rank", 8);
    sample out = {0};
    bt_field_result result;
    assert_ok(read_frame(&writer, &out, &result));
    assert_int_equal(result.present, (1 << N_FIELDS) - 1);
    assert_int_equal(result.n_unknown, 0);
    assert_int_equal(out.rank, 8);
    assert_true(out.epoch == UINT64_MAX);
    assert_int_equal(out.status, -3);
    assert_true(out.last);
    assert_true(out.share > 0.4 && out.share < 0.6);
    assert_true(bt_blob_is_text(out.name, "abcd"));
    assert_true(bt_blob_is_text(out.nonce, "ab"));
    assert_int_equal(out.pages.bytes, 2);
    assert_int_equal(out.sum, 9);
}

static void absent_optional_fields_leave_the_struct_alone(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 2);
    bt_pack_key_u64(&writer, "rank", 1);
    bt_pack_key_u64(&writer, "epoch", 2);
    sample out = {.status = 77};
    assert_ok(read_frame(&writer, &out, NULL));
    assert_int_equal(out.status, 77);
}

static void unknown_fields_are_skipped_and_counted(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 4);
    bt_pack_str(&writer, "from_the_future");
    bt_pack_map(&writer, 1);
    bt_pack_key_u64(&writer, "rank", 99);
    bt_pack_key_u64(&writer, "epoch", 2);
    bt_pack_key_u64(&writer, "ran", 3);
    bt_pack_key_u64(&writer, "rank", 3);
    sample out = {0};
    bt_field_result result;
    assert_ok(read_frame(&writer, &out, &result));
    assert_int_equal(result.n_unknown, 2);
    assert_int_equal(out.rank, 3);
}

static void a_missing_required_field_is_named(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 1);
    bt_pack_key_u64(&writer, "rank", 1);
    sample out = {0};
    assert_fails(read_frame(&writer, &out, NULL), BATON_ERR_BAD_MESSAGE,
                 "sample: field epoch is missing");
}

static void assert_field_refused(void (*pack)(bt_packwriter *writer), const char *text)
{
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 1);
    pack(&writer);
    sample out = {0};
    assert_fails(read_frame(&writer, &out, NULL), BATON_ERR_BAD_MESSAGE, text);
}

static void rank_too_large(bt_packwriter *writer)
{
    bt_pack_key_u64(writer, "rank", 9);
}

static void rank_too_small(bt_packwriter *writer)
{
    bt_pack_key_u64(writer, "rank", 0);
}

static void rank_of_another_type(bt_packwriter *writer)
{
    bt_pack_key_str(writer, "rank", "1");
}

static void name_too_long(bt_packwriter *writer)
{
    bt_pack_key_str(writer, "name", "abcde");
}

static void nonce_too_short(bt_packwriter *writer)
{
    bt_pack_key_bin(writer, "nonce", "a", 1);
}

static void sum_with_a_large_number(bt_packwriter *writer)
{
    bt_pack_str(writer, "sum");
    bt_pack_array(writer, 1);
    bt_pack_u64(writer, 10);
}

static void values_out_of_range_are_refused_with_the_field(void **state)
{
    (void)state;
    assert_field_refused(rank_too_large, "wanted 1 to 8, found 9, at byte 7 of 7 (field rank)");
    assert_field_refused(rank_too_small, "wanted 1 to 8, found 0");
    assert_field_refused(rank_of_another_type, "wanted an integer, found a string");
    assert_field_refused(name_too_long, "wanted 1 to 4 bytes, found 5");
    assert_field_refused(nonce_too_short, "wanted 2 to 2 bytes, found 1");
    assert_field_refused(sum_with_a_large_number, "10 is above 9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(known_fields_are_read_in_any_order),
        bt_test(absent_optional_fields_leave_the_struct_alone),
        bt_test(unknown_fields_are_skipped_and_counted),
        bt_test(a_missing_required_field_is_named),
        bt_test(values_out_of_range_are_refused_with_the_field),
    };
    return bt_run_tests(tests);
}
