/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as HTTP answers, as fuzz_httprequest.c does for requests. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_messages(data, size, true);
    return 0;
}
