/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "wire/packwriter.h"

static void a_frame_has_the_canonical_bytes(void **state)
{
    (void)state;
    const uint8_t golden[] = {0x86, 0xa1, 'u',  0xcd, 0x01, 0x00, 0xa1, 'i',  0xff, 0xa1,
                              's',  0xa2, 'h',  'i',  0xa1, 'b',  0xc4, 2,    1,    2,
                              0xa1, 't',  0xc3, 0xa1, 'a',  0x93, 0xc0, 0xc2, 0xcb, 0x3f,
                              0xf0, 0,    0,    0,    0,    0,    0};
    uint8_t buffer[64];
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 6);
    bt_pack_key_u64(&writer, "u", 256);
    bt_pack_key_i64(&writer, "i", -1);
    bt_pack_key_str(&writer, "s", "hi");
    bt_pack_key_bin(&writer, "b", "\x01\x02", 2);
    bt_pack_key_bool(&writer, "t", true);
    bt_pack_str(&writer, "a");
    bt_pack_array(&writer, 3);
    bt_pack_nil(&writer);
    bt_pack_bool(&writer, false);
    bt_pack_f64(&writer, 1.0);
    assert_ok(bt_pack_finish(&writer));
    assert_int_equal(writer.n, sizeof(golden));
    assert_memory_equal(writer.bytes, golden, sizeof(golden));
}

static void a_growing_frame_stops_at_its_cap(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_pack_init(&writer, 1000);
    bt_pack_array(&writer, 999);
    for (unsigned i = 0; i < 997; i++)
        bt_pack_u64(&writer, 1);
    assert_int_equal(writer.n, 1000);
    bt_pack_u64(&writer, 1);
    bt_pack_u64(&writer, 1);
    assert_fails(bt_pack_finish(&writer), BATON_ERR_TOO_LARGE, "at most 1000 bytes");
    assert_int_equal(writer.n, 1000);
    bt_pack_reset(&writer);
    bt_pack_u64(&writer, 1);
    assert_ok(bt_pack_finish(&writer));
    bt_pack_release(&writer);
    bt_pack_release(&writer);
}

static void a_fixed_buffer_is_never_overrun(void **state)
{
    (void)state;
    uint8_t *buffer = bt_guarded_copy("0123456789", 10);
    for (size_t n = 0; n < 11; n++) {
        bt_packwriter writer;
        bt_pack_init_fixed(&writer, buffer + (10 - n), n);
        bt_pack_str(&writer, "0123456789");
        assert_fails(bt_pack_finish(&writer), BATON_ERR_TOO_LARGE, NULL);
        bt_pack_release(&writer);
    }
    bt_guarded_free(buffer, 10);
}

static void announced_and_written_values_must_match(void **state)
{
    (void)state;
    uint8_t buffer[64];
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 2);
    bt_pack_key_u64(&writer, "a", 1);
    assert_fails(bt_pack_finish(&writer), BATON_ERR_STATE, "2 values are missing");
    bt_pack_reset(&writer);
    bt_pack_nil(&writer);
    bt_pack_nil(&writer);
    assert_fails(bt_pack_finish(&writer), BATON_ERR_STATE, "behind the end");
}

static void no_memory_is_reported_at_the_end(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_pack_init(&writer, 1000);
    bt_alloc_fail_at(1);
    bt_pack_array(&writer, 1);
    bt_pack_nil(&writer);
    bt_alloc_fail_at(0);
    assert_fails(bt_pack_finish(&writer), BATON_ERR_NO_MEMORY, NULL);
    bt_pack_release(&writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_frame_has_the_canonical_bytes),  bt_test(a_growing_frame_stops_at_its_cap),
        bt_test(a_fixed_buffer_is_never_overrun),  bt_test(announced_and_written_values_must_match),
        bt_test(no_memory_is_reported_at_the_end),
    };
    return bt_run_tests(tests);
}
