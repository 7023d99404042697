/* SPDX-License-Identifier: Apache-2.0 */
/* Our reader against libmsgpack's, on any bytes: they must agree. */
#include "wire/oracle.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const bt_unpack_limits wide = {
        .max_elements = 4096, .max_blob_bytes = 65536, .max_depth = BT_UNPACK_MAX_DEPTH};
    static const bt_unpack_limits narrow = {.max_elements = 8, .max_blob_bytes = 8, .max_depth = 2};
    if (oracle_compare(data, size, &wide) != ORACLE_AGREE ||
        oracle_compare(data, size, &narrow) != ORACLE_AGREE)
        abort();
    return 0;
}
