/* SPDX-License-Identifier: Apache-2.0 */
/* Worker addresses and remote keys, as a peer may send them. */
#include <stdlib.h>

#include "transport/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int kind = BT_SEAL_ADDRESS; kind <= BT_SEAL_KEY; kind++) {
        bt_seal seal = {
            .kind = (bt_seal_kind)kind, .backend = BT_SEAL_UCX, .major = 1, .minor = 13};
        if (bt_seal_open(data, size, &seal) == BATON_OK &&
            (seal.payload < data || seal.payload + seal.payload_bytes != data + size))
            abort();
    }
    return 0;
}
