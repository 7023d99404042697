/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a notice. What is accepted as one of ours must encode again and mean the same. */
#include "wire/messages.h"
#include "wire/notice.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bt_notice notice, again;
    uint8_t buffer[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    baton_status status = bt_notice_decode(data, size, &notice);
    if (status != BATON_OK) {
        require(status == BATON_ERR_BAD_MESSAGE || status == BATON_ERR_VERSION_MISMATCH);
        return 0;
    }
    require(notice.id.bytes >= 1 && notice.id.bytes <= BT_REQUEST_ID_BYTES_MAX);
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    status = notice.legacy ? bt_notice_encode_legacy(notice.id, &writer)
                           : bt_notice_encode(&notice, &writer);
    require(status == BATON_OK);
    require(bt_notice_decode(buffer, writer.n, &again) == BATON_OK);
    require(bt_blob_equals(again.id, notice.id) && bt_blob_equals(again.text, notice.text));
    require(again.status == notice.status && again.rank == notice.rank &&
            again.world == notice.world && again.epoch == notice.epoch &&
            again.legacy == notice.legacy && again.kind == notice.kind);
    return 0;
}
