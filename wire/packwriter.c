/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/packwriter.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <msgpack/pack.h>
#include <string.h>

enum { FIRST_CAPACITY = 256 };

void bt_pack_init(bt_packwriter *writer, size_t max_bytes)
{
    *writer = (bt_packwriter){.max_bytes = max_bytes, .growable = true, .n_open = 1};
}

void bt_pack_init_fixed(bt_packwriter *writer, void *buffer, size_t n_bytes)
{
    *writer =
        (bt_packwriter){.bytes = buffer, .capacity = n_bytes, .max_bytes = n_bytes, .n_open = 1};
}

void bt_pack_reset(bt_packwriter *writer)
{
    writer->n = 0;
    writer->n_open = 1;
    writer->status = BATON_OK;
}

void bt_pack_release(bt_packwriter *writer)
{
    if (writer->growable)
        bt_free(writer->bytes);
    *writer = (bt_packwriter){0};
}

static baton_status grow(bt_packwriter *writer, size_t needed)
{
    size_t capacity = writer->capacity != 0 ? writer->capacity : FIRST_CAPACITY;
    while (capacity < needed && capacity < writer->max_bytes)
        capacity = capacity > writer->max_bytes / 2 ? writer->max_bytes : capacity * 2;
    if (capacity > writer->max_bytes)
        capacity = writer->max_bytes;
    uint8_t *bytes = bt_realloc(writer->bytes, capacity, 1);
    if (bytes == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "message: buffer of %zu bytes", capacity);
    writer->bytes = bytes;
    writer->capacity = capacity;
    return BATON_OK;
}

/* libmsgpack's write callback: 0 or -1. */
static int append(void *data, const char *bytes, size_t n)
{
    bt_packwriter *writer = data;
    size_t needed = 0;
    if (writer->status < 0)
        return -1;
    if (!bt_add_size(writer->n, n, &needed) || needed > writer->max_bytes)
        writer->status = bt_fail(BATON_ERR_TOO_LARGE, "message: at most %zu bytes, has %zu and %zu",
                                 writer->max_bytes, writer->n, n);
    else if (needed > writer->capacity)
        writer->status = grow(writer, needed);
    if (writer->status < 0)
        return -1;
    if (n > 0)
        memcpy(writer->bytes + writer->n, bytes, n);
    writer->n = needed;
    return 0;
}

/* Every value starts here: takes one of the announced values and gives a packer. */
static msgpack_packer begin_value(bt_packwriter *writer, uint64_t n_inside)
{
    msgpack_packer packer;
    msgpack_packer_init(&packer, writer, append);
    if (writer->status >= 0 && writer->n_open == 0)
        writer->status = bt_fail(BATON_ERR_STATE, "message: a value behind the end");
    writer->n_open += n_inside - 1;
    return packer;
}

/* Lengths above 32 bits have no encoding. */
static bool length_fits(bt_packwriter *writer, size_t n)
{
    if (n <= UINT32_MAX)
        return true;
    if (writer->status >= 0)
        writer->status = bt_fail(BATON_ERR_TOO_LARGE, "message: a string of %zu bytes", n);
    return false;
}

void bt_pack_map(bt_packwriter *writer, uint32_t n_pairs)
{
    msgpack_packer packer = begin_value(writer, 2 * (uint64_t)n_pairs);
    msgpack_pack_map(&packer, n_pairs);
}

void bt_pack_array(bt_packwriter *writer, uint32_t n_values)
{
    msgpack_packer packer = begin_value(writer, n_values);
    msgpack_pack_array(&packer, n_values);
}

void bt_pack_str(bt_packwriter *writer, const char *text)
{
    bt_pack_str_n(writer, text, strlen(text));
}

void bt_pack_str_n(bt_packwriter *writer, const void *text, size_t n)
{
    msgpack_packer packer = begin_value(writer, 0);
    if (length_fits(writer, n) && msgpack_pack_str(&packer, n) == 0)
        append(writer, text, n);
}

void bt_pack_bin(bt_packwriter *writer, const void *bytes, size_t n)
{
    msgpack_packer packer = begin_value(writer, 0);
    if (length_fits(writer, n) && msgpack_pack_bin(&packer, n) == 0)
        append(writer, bytes, n);
}

void bt_pack_u64(bt_packwriter *writer, uint64_t value)
{
    msgpack_packer packer = begin_value(writer, 0);
    msgpack_pack_uint64(&packer, value);
}

void bt_pack_i64(bt_packwriter *writer, int64_t value)
{
    msgpack_packer packer = begin_value(writer, 0);
    msgpack_pack_int64(&packer, value);
}

void bt_pack_f64(bt_packwriter *writer, double value)
{
    msgpack_packer packer = begin_value(writer, 0);
    msgpack_pack_double(&packer, value);
}

void bt_pack_bool(bt_packwriter *writer, bool value)
{
    msgpack_packer packer = begin_value(writer, 0);
    if (value)
        msgpack_pack_true(&packer);
    else
        msgpack_pack_false(&packer);
}

void bt_pack_nil(bt_packwriter *writer)
{
    msgpack_packer packer = begin_value(writer, 0);
    msgpack_pack_nil(&packer);
}

void bt_pack_raw(bt_packwriter *writer, const void *bytes, size_t n)
{
    begin_value(writer, 0);
    append(writer, bytes, n);
}

void bt_pack_key_str(bt_packwriter *writer, const char *key, const char *text)
{
    bt_pack_str(writer, key);
    bt_pack_str(writer, text);
}

void bt_pack_key_bin(bt_packwriter *writer, const char *key, const void *bytes, size_t n)
{
    bt_pack_str(writer, key);
    bt_pack_bin(writer, bytes, n);
}

void bt_pack_key_u64(bt_packwriter *writer, const char *key, uint64_t value)
{
    bt_pack_str(writer, key);
    bt_pack_u64(writer, value);
}

void bt_pack_key_i64(bt_packwriter *writer, const char *key, int64_t value)
{
    bt_pack_str(writer, key);
    bt_pack_i64(writer, value);
}

void bt_pack_key_bool(bt_packwriter *writer, const char *key, bool value)
{
    bt_pack_str(writer, key);
    bt_pack_bool(writer, value);
}

baton_status bt_pack_finish(bt_packwriter *writer)
{
    if (writer->status >= 0 && writer->n_open != 0)
        writer->status = bt_fail(BATON_ERR_STATE, "message: %llu values are missing",
                                 (unsigned long long)writer->n_open);
    return writer->status;
}
