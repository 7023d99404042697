/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/notice.h"

#include <string.h>

#include "core/fail.h"
#include "wire/messages.h"
#include "wire/packfields.h"

static const bt_unpack_limits limits = {
    .max_elements = 128, .max_blob_bytes = BT_TEXT_BYTES_MAX, .max_depth = 4};

/* What both kinds of frames have; v is 0 in legacy ones. */
typedef struct {
    bt_blob type;
    uint32_t v;
} notice_head;

static const bt_field head_fields[] = {
    {.name = "type", .type = BT_FIELD_STR, .offset = offsetof(notice_head, type)},
    {.name = "v", .type = BT_FIELD_U32, .optional = true, .offset = offsetof(notice_head, v)},
};

static const bt_field fields[] = {
    {.name = "epoch", .type = BT_FIELD_U64, .offset = offsetof(bt_notice, epoch), .min = 1},
    {.name = "id",
     .type = BT_FIELD_NAME,
     .offset = offsetof(bt_notice, id),
     .min = 1,
     .max = BT_REQUEST_ID_BYTES_MAX},
    {.name = "rank",
     .type = BT_FIELD_U32,
     .offset = offsetof(bt_notice, rank),
     .max = BT_WORLD_MAX - 1},
    {.name = "world",
     .type = BT_FIELD_U32,
     .offset = offsetof(bt_notice, world),
     .min = 1,
     .max = BT_WORLD_MAX},
    {.name = "status", .type = BT_FIELD_I32, .offset = offsetof(bt_notice, status)},
    {.name = "text",
     .type = BT_FIELD_STR,
     .optional = true,
     .offset = offsetof(bt_notice, text),
     .max = BT_TEXT_BYTES_MAX},
    {.name = "retry_ms",
     .type = BT_FIELD_U32,
     .optional = true,
     .offset = offsetof(bt_notice, retry_ms)},
};
enum { N_FIELDS = sizeof(fields) / sizeof(fields[0]) };

static const bt_field legacy_fields[] = {
    {.name = "req_id",
     .type = BT_FIELD_NAME,
     .offset = offsetof(bt_notice, id),
     .min = 1,
     .max = BT_REQUEST_ID_BYTES_MAX},
};

static const char *find_fault(const bt_notice *notice)
{
    if (notice->rank >= notice->world)
        return "rank is not below world";
    return notice->status > 0 ? "status is above 0" : NULL;
}

baton_status bt_notice_encode(const bt_notice *notice, bt_packwriter *writer)
{
    const char *fault = find_fault(notice);
    if (fault != NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "notice: %s", fault);
    bt_pack_map(writer, 2 + N_FIELDS);
    bt_pack_key_str(writer, "type", "BatonNotice");
    bt_pack_key_u64(writer, "v", BT_PROTOCOL_VERSION);
    bt_pack_fields(writer, fields, N_FIELDS, notice);
    return bt_pack_finish(writer);
}

baton_status bt_notice_encode_legacy(bt_blob id, bt_packwriter *writer)
{
    const bt_notice notice = {.id = id};
    bt_pack_map(writer, 2);
    bt_pack_key_str(writer, "type", "ProxyNotif");
    bt_pack_fields(writer, legacy_fields, 1, &notice);
    return bt_pack_finish(writer);
}

static bt_notice_kind kind_of(int32_t status)
{
    if (status == 0)
        return BT_NOTICE_READY;
    return status == BATON_ERR_LEASE_EXPIRED ? BT_NOTICE_EXPIRED : BT_NOTICE_FAILED;
}

static baton_status decode_ours(bt_packreader *reader, uint32_t v, bt_notice *notice)
{
    if (v != BT_PROTOCOL_VERSION)
        return bt_fail(BATON_ERR_VERSION_MISMATCH, "notice: we speak version %d, the peer %u",
                       BT_PROTOCOL_VERSION, v);
    BATON_TRY(bt_unpack_fields(reader, fields, N_FIELDS, notice, NULL));
    const char *fault = find_fault(notice);
    if (fault != NULL)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "notice: %s", fault);
    notice->kind = kind_of(notice->status);
    return BATON_OK;
}

baton_status bt_notice_decode(const void *frame, size_t bytes, bt_notice *notice)
{
    bt_packreader start, reader;
    notice_head head = {0};
    *notice = (bt_notice){0};
    BATON_TRY(bt_unpack_open(&start, "notice", frame, bytes, &limits));
    reader = start;
    BATON_TRY(bt_unpack_fields(&reader, head_fields, 2, &head, NULL));
    if (bt_blob_is_text(head.type, "BatonNotice"))
        return decode_ours(&start, head.v, notice);
    if (!bt_blob_is_text(head.type, "NixlProxyNotif") && !bt_blob_is_text(head.type, "ProxyNotif"))
        return bt_fail(BATON_ERR_BAD_MESSAGE, "notice: no such type");
    notice->legacy = true;
    return bt_unpack_fields(&start, legacy_fields, 1, notice, NULL);
}

bool bt_notice_allowed(bt_blob address, const char *own, const char *const *allow, uint32_t n_allow)
{
    if (own != NULL && bt_blob_is_text(address, own))
        return true;
    for (uint32_t i = 0; i < n_allow; i++) {
        if (strcmp(allow[i], "*") == 0 || bt_blob_is_text(address, allow[i]))
            return true;
    }
    static const char loopback[] = "tcp://127.0.0.1:";
    return n_allow == 0 && address.bytes > sizeof(loopback) - 1 &&
           memcmp(address.data, loopback, sizeof(loopback) - 1) == 0;
}
