/* SPDX-License-Identifier: Apache-2.0 */
/* Digest of a chunk page: 64-bit XXH3 (xxHash, seed 0), the same on every machine. It finds bytes
 * that were lost or damaged on the way; it is no defence against somebody who forges them.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_DIGEST_H
#define BT_KERNELS_DIGEST_H
#include <stddef.h>
#include <stdint.h>

/* bytes NULL is allowed when n is 0. */
uint64_t bt_digest(const void *bytes, size_t n);

#endif
