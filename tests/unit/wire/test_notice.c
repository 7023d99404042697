/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "wire/messages.h"
#include "wire/notice.h"

/* Measured from an existing sender, id "12" (source: the proxy's dialect notes). */
static const uint8_t nixl_frame[] = "\x82\xa4type\xaeNixlProxyNotif\xa6req_id\xa2"
                                    "12";

static const bt_notice ours = {.epoch = 5,
                               .rank = 1,
                               .world = 2,
                               .status = BATON_ERR_PUT_TIMEOUT,
                               .retry_ms = 1500,
                               .id = {(const uint8_t *)"cmpl-1", 6},
                               .text = {(const uint8_t *)"10 s", 4}};

static uint8_t buffer[2048];

static size_t encode(const bt_notice *notice)
{
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, BT_NOTICE_BYTES_MAX);
    assert_ok(bt_notice_encode(notice, &writer));
    return writer.n;
}

static void a_notice_survives_a_round_trip(void **state)
{
    (void)state;
    bt_notice back;
    size_t n = encode(&ours);
    uint8_t *guarded = bt_guarded_copy(buffer, n);
    assert_ok(bt_notice_decode(guarded, n, &back));
    assert_true(bt_blob_is_text(back.id, "cmpl-1"));
    assert_true(bt_blob_is_text(back.text, "10 s"));
    assert_int_equal(back.epoch, 5);
    assert_int_equal(back.rank, 1);
    assert_int_equal(back.world, 2);
    assert_int_equal(back.status, BATON_ERR_PUT_TIMEOUT);
    assert_int_equal(back.retry_ms, 1500);
    assert_int_equal(back.kind, BT_NOTICE_FAILED);
    assert_false(back.legacy);
    bt_guarded_free(guarded, n);
}

static void status_decides_the_kind(void **state)
{
    (void)state;
    bt_notice notice = ours, back;
    notice.status = 0;
    assert_ok(bt_notice_decode(buffer, encode(&notice), &back));
    assert_int_equal(back.kind, BT_NOTICE_READY);
    notice.status = BATON_ERR_LEASE_EXPIRED;
    assert_ok(bt_notice_decode(buffer, encode(&notice), &back));
    assert_int_equal(back.kind, BT_NOTICE_EXPIRED);
}

static void frames_of_existing_senders_are_accepted(void **state)
{
    (void)state;
    bt_notice back;
    uint8_t *guarded = bt_guarded_copy(nixl_frame, sizeof(nixl_frame) - 1);
    assert_ok(bt_notice_decode(guarded, sizeof(nixl_frame) - 1, &back));
    assert_true(back.legacy);
    assert_int_equal(back.kind, BT_NOTICE_READY);
    assert_true(bt_blob_is_text(back.id, "12"));
    bt_guarded_free(guarded, sizeof(nixl_frame) - 1);

    const char other_order[] = "\x82\xa6req_id\xda\x00\x03"
                               "abc\xa4type\xd9\x0aProxyNotif";
    assert_ok(bt_notice_decode(other_order, sizeof(other_order) - 1, &back));
    assert_true(back.legacy);
    assert_true(bt_blob_is_text(back.id, "abc"));
}

static void legacy_frames_can_be_made(void **state)
{
    (void)state;
    const char golden[] = "\x82\xa4type\xaaProxyNotif\xa6req_id\xa2"
                          "12";
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    assert_ok(bt_notice_encode_legacy(bt_blob_of_text("12"), &writer));
    assert_int_equal(writer.n, sizeof(golden) - 1);
    assert_memory_equal(buffer, golden, writer.n);
}

static void a_frame_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    bt_notice back;
    size_t n = encode(&ours);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *guarded = bt_guarded_copy(buffer, cut);
        assert_fails(bt_notice_decode(guarded, cut, &back), BATON_ERR_BAD_MESSAGE, NULL);
        bt_guarded_free(guarded, cut);
    }
    for (size_t cut = 0; cut < sizeof(nixl_frame) - 1; cut++)
        assert_fails(bt_notice_decode(nixl_frame, cut, &back), BATON_ERR_BAD_MESSAGE, NULL);
}

static void ids_are_bounded(void **state)
{
    (void)state;
    static uint8_t long_id[257];
    memset(long_id, 'x', sizeof(long_id));
    bt_notice notice = ours, back;
    notice.id = bt_blob_of(long_id, 256);
    assert_ok(bt_notice_decode(buffer, encode(&notice), &back));
    assert_int_equal(back.id.bytes, 256);

    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 2);
    bt_pack_key_str(&writer, "type", "ProxyNotif");
    bt_pack_str(&writer, "req_id");
    bt_pack_str_n(&writer, long_id, 257);
    assert_ok(bt_pack_finish(&writer));
    assert_fails(bt_notice_decode(buffer, writer.n, &back), BATON_ERR_BAD_MESSAGE,
                 "wanted 1 to 256 bytes, found 257");
    bt_pack_reset(&writer);
    notice.id = bt_blob_of(long_id, 257);
    assert_fails(bt_notice_encode(&notice, &writer), BATON_ERR_INVALID_ARG, "found 257");
    bt_pack_reset(&writer);
    notice.id = bt_blob_of_text("");
    assert_fails(bt_notice_encode(&notice, &writer), BATON_ERR_INVALID_ARG, "found 0");
    bt_pack_reset(&writer);
    notice.id = bt_blob_of_text("a\nb");
    assert_fails(bt_notice_encode(&notice, &writer), BATON_ERR_INVALID_ARG, "control character");
}

static void wrong_notices_are_refused(void **state)
{
    (void)state;
    bt_notice notice = ours, back;
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    notice.rank = 2;
    assert_fails(bt_notice_encode(&notice, &writer), BATON_ERR_INVALID_ARG, "rank is not below");
    notice = ours;
    notice.status = BATON_IN_PROGRESS;
    assert_fails(bt_notice_encode(&notice, &writer), BATON_ERR_INVALID_ARG, "status is above 0");

    const char foreign[] = "\x82\xa4type\xa5Other\xa6req_id\xa1x";
    assert_fails(bt_notice_decode(foreign, sizeof(foreign) - 1, &back), BATON_ERR_BAD_MESSAGE,
                 "no such type");
    const char newer[] = "\x82\xa4type\xab"
                         "BatonNotice\xa1v\x02";
    assert_fails(bt_notice_decode(newer, sizeof(newer) - 1, &back), BATON_ERR_VERSION_MISMATCH,
                 "we speak version 1, the peer 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_notice_survives_a_round_trip),
        bt_test(status_decides_the_kind),
        bt_test(frames_of_existing_senders_are_accepted),
        bt_test(legacy_frames_can_be_made),
        bt_test(a_frame_cut_at_any_byte_is_refused),
        bt_test(ids_are_bounded),
        bt_test(wrong_notices_are_refused),
    };
    return bt_run_tests(tests);
}
