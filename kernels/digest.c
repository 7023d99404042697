/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/digest.h"

#include <xxhash.h>

uint64_t bt_digest(const void *bytes, size_t n)
{
    return XXH3_64bits(bytes, n);
}
