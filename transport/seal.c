/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/seal.h"

#include <string.h>
#include <xxhash.h>

#include "core/alloc.h"
#include "core/fail.h"

enum { SEAL_VERSION = 1, CHECKSUM_OFFSET = 40 };

static const char *const magics[] = {[BT_SEAL_ADDRESS] = "BTNA", [BT_SEAL_KEY] = "BTNK"};
static const char *const nouns[] = {
    [BT_SEAL_ADDRESS] = "worker address", [BT_SEAL_KEY] = "remote key"};

static void put_le(uint8_t *at, uint64_t value, uint32_t n_bytes)
{
    for (uint32_t i = 0; i < n_bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *at, uint32_t n_bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < n_bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static uint64_t checksum(const uint8_t *header, const uint8_t *payload, size_t payload_bytes)
{
    return XXH64(payload, payload_bytes, XXH64(header, CHECKSUM_OFFSET, 0));
}

baton_status bt_seal_pack(const bt_seal *seal, size_t max, uint8_t **bytes_p, size_t *n_bytes)
{
    size_t total = BT_SEAL_HEADER_BYTES + seal->payload_bytes;
    if (seal->payload_bytes > UINT32_MAX || total > max)
        return bt_fail(BATON_ERR_TOO_LARGE, "transport: %s of %zu bytes, room for %zu",
                       nouns[seal->kind], total, max);
    uint8_t *bytes = bt_calloc(1, total);
    if (bytes == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "transport: %zu bytes for a %s", total,
                       nouns[seal->kind]);
    memcpy(bytes, magics[seal->kind], 4);
    put_le(bytes + 4, SEAL_VERSION, 2);
    put_le(bytes + 6, seal->backend, 2);
    put_le(bytes + 8, seal->major, 2);
    put_le(bytes + 10, seal->minor, 2);
    put_le(bytes + 12, seal->payload_bytes, 4);
    put_le(bytes + 16, seal->base, 8);
    put_le(bytes + 24, seal->bytes, 8);
    put_le(bytes + 32, (uint64_t)seal->memory, 4);
    memcpy(bytes + BT_SEAL_HEADER_BYTES, seal->payload, seal->payload_bytes);
    put_le(bytes + CHECKSUM_OFFSET, checksum(bytes, seal->payload, seal->payload_bytes), 8);
    *bytes_p = bytes;
    *n_bytes = total;
    return BATON_OK;
}

static baton_status check_envelope(const uint8_t *at, size_t n_bytes, const char *magic,
                                   const char *noun)
{
    if (n_bytes < BT_SEAL_HEADER_BYTES || memcmp(at, magic, 4) != 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: wanted a %s, found %zu bytes of something else", noun, n_bytes);
    if (get_le(at + 4, 2) != SEAL_VERSION)
        return bt_fail(BATON_ERR_VERSION_MISMATCH, "transport: wanted a %s of version %d, found %u",
                       noun, SEAL_VERSION, (unsigned)get_le(at + 4, 2));
    if (get_le(at + 12, 4) != n_bytes - BT_SEAL_HEADER_BYTES ||
        get_le(at + CHECKSUM_OFFSET, 8) !=
            checksum(at, at + BT_SEAL_HEADER_BYTES, n_bytes - BT_SEAL_HEADER_BYTES))
        return bt_fail(BATON_ERR_INVALID_ARG, "transport: %s of %zu bytes is damaged", noun,
                       n_bytes);
    return BATON_OK;
}

baton_status bt_seal_open(const void *bytes, size_t n_bytes, bt_seal *seal)
{
    const uint8_t *at = bytes;
    const char *noun = nouns[seal->kind];
    BATON_TRY(check_envelope(at, n_bytes, magics[seal->kind], noun));
    unsigned backend = (unsigned)get_le(at + 6, 2);
    unsigned major = (unsigned)get_le(at + 8, 2), minor = (unsigned)get_le(at + 10, 2);
    if (backend != (unsigned)seal->backend || major != seal->major || minor != seal->minor)
        return bt_fail(BATON_ERR_VERSION_MISMATCH,
                       "transport: wanted a %s of backend %u, library %u.%u, found backend %u, "
                       "library %u.%u: both ends need the same",
                       noun, (unsigned)seal->backend, seal->major, seal->minor, backend, major,
                       minor);
    uint64_t base = get_le(at + 16, 8), region_bytes = get_le(at + 24, 8);
    uint64_t memory = get_le(at + 32, 4), rest;
    if (memory > BATON_MEMORY_CUDA_HOST || !bt_add_u64(base, region_bytes, &rest) ||
        (seal->kind == BT_SEAL_KEY && region_bytes == 0))
        return bt_fail(BATON_ERR_INVALID_ARG, "transport: %s names an impossible region", noun);
    seal->base = base;
    seal->bytes = region_bytes;
    seal->memory = (baton_memory_kind)memory;
    seal->payload = at + BT_SEAL_HEADER_BYTES;
    seal->payload_bytes = n_bytes - BT_SEAL_HEADER_BYTES;
    return BATON_OK;
}

bool bt_seal_is_of(const void *bytes, bt_seal_backend backend)
{
    return get_le((const uint8_t *)bytes + 6, 2) == (uint64_t)backend;
}
