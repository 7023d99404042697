/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/digest.h"

#include <assert.h>

/* The state's size is only known with this; it is in no header of ours, because it exposes the
 * inside of the library. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

static_assert(sizeof(XXH3_state_t) <= sizeof(bt_digest_stream), "the stream holds the state");
static_assert(_Alignof(XXH3_state_t) <= _Alignof(bt_digest_stream), "and is aligned as it is");

static XXH3_state_t *state_of(bt_digest_stream *stream)
{
    return (XXH3_state_t *)(void *)stream->state;
}

uint64_t bt_digest(const void *bytes, size_t n)
{
    return XXH3_64bits(bytes, n);
}

void bt_digest_init(bt_digest_stream *stream)
{
    XXH3_INITSTATE(state_of(stream));
    XXH3_64bits_reset(state_of(stream));
}

void bt_digest_update(bt_digest_stream *stream, const void *bytes, size_t n)
{
    if (n > 0)
        XXH3_64bits_update(state_of(stream), bytes, n);
}

uint64_t bt_digest_final(const bt_digest_stream *stream)
{
    return XXH3_64bits_digest((const XXH3_state_t *)(const void *)stream->state);
}
