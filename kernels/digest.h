/* SPDX-License-Identifier: Apache-2.0 */
/* Digest of a chunk page: 64-bit XXH3 (xxHash, seed 0), the same on every machine. It finds bytes
 * that were lost or damaged on the way; it is no defence against somebody who forges them.
 * Thread rule: owner thread; bt_digest any thread. */
#ifndef BT_KERNELS_DIGEST_H
#define BT_KERNELS_DIGEST_H
#include <stddef.h>
#include <stdint.h>

/* bytes NULL is allowed when n is 0. */
uint64_t bt_digest(const void *bytes, size_t n);

/* For a page that becomes ready piece by piece, in order; the pieces' borders do not matter. */
typedef struct {
    _Alignas(64) uint8_t state[640]; /* XXH3_state_t, checked when compiling */
} bt_digest_stream;

void bt_digest_init(bt_digest_stream *stream);
void bt_digest_update(bt_digest_stream *stream, const void *bytes, size_t n);
/* Digest of everything so far; more may follow. */
uint64_t bt_digest_final(const bt_digest_stream *stream);

#endif
