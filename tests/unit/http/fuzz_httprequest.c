/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as HTTP requests, one after the other on a connection: reading them whole and byte by
 * byte must give the same messages. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_messages(data, size, false);
    return 0;
}
