/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/oracle.h"

#include <msgpack/unpack.h>
#include <string.h>

/* libmsgpack allocates what a 32-bit count claims before it looks for the elements, so it gets to
 * see such a frame only when our reader has accepted it. */
static bool may_claim_much(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == 0xdd || bytes[i] == 0xdf)
            return true;
    }
    return false;
}

static bool has_twin_key(const msgpack_object_map *map, uint32_t idx)
{
    const msgpack_object_str *key = &map->ptr[idx].key.via.str;
    for (uint32_t i = 0; i < idx; i++) {
        const msgpack_object_str *other = &map->ptr[i].key.via.str;
        if (other->size == key->size &&
            (key->size == 0 || memcmp(other->ptr, key->ptr, key->size) == 0))
            return true;
    }
    return false;
}

static bool within_limits(const msgpack_object *object, const bt_unpack_limits *limits,
                          uint32_t depth, uint32_t *n_elements);

static bool map_within_limits(const msgpack_object_map *map, const bt_unpack_limits *limits,
                              uint32_t depth, uint32_t *n_elements)
{
    if (depth == limits->max_depth || map->size > BT_UNPACK_MAX_KEYS)
        return false;
    for (uint32_t i = 0; i < map->size; i++) {
        if (map->ptr[i].key.type != MSGPACK_OBJECT_STR || has_twin_key(map, i) ||
            !within_limits(&map->ptr[i].key, limits, depth + 1, n_elements) ||
            !within_limits(&map->ptr[i].val, limits, depth + 1, n_elements))
            return false;
    }
    return true;
}

static bool within_limits(const msgpack_object *object, const bt_unpack_limits *limits,
                          uint32_t depth, uint32_t *n_elements)
{
    if (++*n_elements > limits->max_elements)
        return false;
    switch (object->type) {
    case MSGPACK_OBJECT_EXT:
        return false;
    case MSGPACK_OBJECT_STR:
    case MSGPACK_OBJECT_BIN:
        return object->via.str.size <= limits->max_blob_bytes;
    case MSGPACK_OBJECT_MAP:
        return map_within_limits(&object->via.map, limits, depth, n_elements);
    case MSGPACK_OBJECT_ARRAY:
        if (depth == limits->max_depth)
            return false;
        for (uint32_t i = 0; i < object->via.array.size; i++) {
            if (!within_limits(&object->via.array.ptr[i], limits, depth + 1, n_elements))
                return false;
        }
        return true;
    default:
        return true;
    }
}

static bool same_value(bt_packreader *reader, const msgpack_object *object);

static bool same_map(bt_packreader *reader, const msgpack_object_map *map)
{
    uint32_t count = 0;
    if (bt_unpack_map(reader, &count) < 0 || count != map->size)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!same_value(reader, &map->ptr[i].key) || !same_value(reader, &map->ptr[i].val))
            return false;
    }
    return true;
}

static bool same_array(bt_packreader *reader, const msgpack_object_array *array)
{
    uint32_t count = 0;
    if (bt_unpack_array(reader, &count) < 0 || count != array->size)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!same_value(reader, &array->ptr[i]))
            return false;
    }
    return true;
}

static bool same_blob(bt_packreader *reader, bool is_str, const char *bytes, size_t n)
{
    bt_blob blob = {0};
    baton_status status = is_str ? bt_unpack_str(reader, &blob) : bt_unpack_bin(reader, &blob);
    return status == BATON_OK && blob.bytes == n && (n == 0 || memcmp(blob.data, bytes, n) == 0);
}

static bool same_value(bt_packreader *reader, const msgpack_object *object)
{
    uint64_t u64 = 0;
    int64_t i64 = 0;
    double f64 = 0;
    bool flag = false;
    switch (object->type) {
    case MSGPACK_OBJECT_NIL:
        return bt_unpack_nil(reader) == BATON_OK;
    case MSGPACK_OBJECT_BOOLEAN:
        return bt_unpack_bool(reader, &flag) == BATON_OK && flag == object->via.boolean;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        return bt_unpack_u64(reader, UINT64_MAX, &u64) == BATON_OK && u64 == object->via.u64;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return bt_unpack_i64(reader, &i64) == BATON_OK && i64 == object->via.i64;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64: /* bits, so that NaN equals itself */
        return bt_unpack_f64(reader, &f64) == BATON_OK &&
               (memcmp(&f64, &object->via.f64, sizeof(f64)) == 0 || (f64 != f64));
    case MSGPACK_OBJECT_STR:
        return same_blob(reader, true, object->via.str.ptr, object->via.str.size);
    case MSGPACK_OBJECT_BIN:
        return same_blob(reader, false, object->via.bin.ptr, object->via.bin.size);
    case MSGPACK_OBJECT_ARRAY:
        return same_array(reader, &object->via.array);
    case MSGPACK_OBJECT_MAP:
        return same_map(reader, &object->via.map);
    default:
        return false;
    }
}

static oracle_verdict judge(const msgpack_object *object, bt_packreader *reader, bool ours,
                            const bt_unpack_limits *limits)
{
    uint32_t n_elements = 0;
    if (!ours)
        return within_limits(object, limits, 0, &n_elements) ? ORACLE_WE_REFUSE_ONLY : ORACLE_AGREE;
    if (!within_limits(object, limits, 0, &n_elements))
        return ORACLE_WE_ACCEPT_ONLY;
    return same_value(reader, object) && bt_unpack_finish(reader) == BATON_OK ? ORACLE_AGREE
                                                                              : ORACLE_OTHER_VALUES;
}

oracle_verdict oracle_compare(const uint8_t *bytes, size_t n, const bt_unpack_limits *limits)
{
    bt_packreader reader;
    bool ours = bt_unpack_open(&reader, "oracle", bytes, n, limits) == BATON_OK;
    if (!ours && may_claim_much(bytes, n))
        return ORACLE_AGREE;
    msgpack_unpacked theirs;
    msgpack_unpacked_init(&theirs);
    size_t end = 0;
    msgpack_unpack_return found = msgpack_unpack_next(&theirs, (const char *)bytes, n, &end);
    oracle_verdict verdict = ours ? ORACLE_WE_ACCEPT_ONLY : ORACLE_AGREE;
    if (found == MSGPACK_UNPACK_SUCCESS && end == n)
        verdict = judge(&theirs.data, &reader, ours, limits);
    msgpack_unpacked_destroy(&theirs);
    return verdict;
}
