/* SPDX-License-Identifier: Apache-2.0 */
/* The table-driven map reader of wire/packreader.h. */
#include "wire/packreader.h"

#include "core/fail.h"

#include <assert.h>

static uint64_t upper_bound(const bt_field *field, uint64_t type_max)
{
    return field->max != 0 && field->max < type_max ? field->max : type_max;
}

static baton_status check_range(const bt_packreader *reader, const bt_field *field,
                                const char *unit, uint64_t found, uint64_t type_max)
{
    uint64_t max = upper_bound(field, type_max);
    if (found >= field->min && found <= max)
        return BATON_OK;
    return bt_unpack_fail(reader, "wanted %llu to %llu%s, found %llu",
                          (unsigned long long)field->min, (unsigned long long)max, unit,
                          (unsigned long long)found);
}

static baton_status read_uint(bt_packreader *reader, const bt_field *field, void *value)
{
    uint64_t type_max = field->type == BT_FIELD_U32 ? UINT32_MAX : UINT64_MAX;
    uint64_t number = 0;
    BATON_TRY(bt_unpack_u64(reader, UINT64_MAX, &number));
    BATON_TRY(check_range(reader, field, "", number, type_max));
    if (field->type == BT_FIELD_U32)
        *(uint32_t *)value = (uint32_t)number;
    else
        *(uint64_t *)value = number;
    return BATON_OK;
}

static baton_status read_bytes(bt_packreader *reader, const bt_field *field, bt_blob *value)
{
    bt_blob blob;
    BATON_TRY(field->type == BT_FIELD_STR ? bt_unpack_str(reader, &blob)
                                          : bt_unpack_bin(reader, &blob));
    BATON_TRY(check_range(reader, field, " bytes", blob.bytes, UINT32_MAX));
    *value = blob;
    return BATON_OK;
}

static baton_status read_field(bt_packreader *reader, const bt_field *field, void *value)
{
    switch (field->type) {
    case BT_FIELD_U32:
    case BT_FIELD_U64:
        return read_uint(reader, field, value);
    case BT_FIELD_I64:
        return bt_unpack_i64(reader, value);
    case BT_FIELD_BOOL:
        return bt_unpack_bool(reader, value);
    case BT_FIELD_F64:
        return bt_unpack_f64(reader, value);
    case BT_FIELD_STR:
    case BT_FIELD_BIN:
        return read_bytes(reader, field, value);
    case BT_FIELD_RAW:
        return bt_unpack_raw(reader, value);
    case BT_FIELD_CALL:
        return field->read(reader, value);
    }
    assert(!"field type");
    return BATON_ERR_INVALID_ARG;
}

/* Index of the field named key, or n_fields. */
static size_t find_field(const bt_field *fields, size_t n_fields, bt_blob key)
{
    size_t i = 0;
    while (i < n_fields && !bt_blob_is_text(key, fields[i].name))
        i++;
    return i;
}

/* A wrong type or range says which field it was. */
static baton_status name_failure(const bt_field *field, baton_status status)
{
    char detail[BT_ERROR_TEXT_BYTES];
    size_t n = 0;
    for (const char *text = baton_last_error(); *text != 0 && n + 1 < sizeof(detail); text++)
        detail[n++] = *text;
    detail[n] = 0;
    return bt_fail(status, "%s (field %s)", detail, field->name);
}

baton_status bt_unpack_fields(bt_packreader *reader, const bt_field *fields, size_t n_fields,
                              void *out, bt_field_result *result)
{
    assert(n_fields <= BT_UNPACK_MAX_FIELDS);
    bt_field_result seen = {0};
    uint32_t n_pairs = 0;
    BATON_TRY(bt_unpack_map(reader, &n_pairs));
    for (uint32_t i = 0; i < n_pairs; i++) {
        bt_blob key;
        BATON_TRY(bt_unpack_str(reader, &key));
        size_t idx = find_field(fields, n_fields, key);
        if (idx == n_fields) {
            seen.n_unknown++;
            BATON_TRY(bt_unpack_skip(reader));
            continue;
        }
        baton_status status = read_field(reader, &fields[idx], (char *)out + fields[idx].offset);
        if (status < 0)
            return name_failure(&fields[idx], status);
        seen.present |= UINT64_C(1) << idx;
    }
    for (size_t i = 0; i < n_fields; i++) {
        if (fields[i].required && (seen.present >> i & 1) == 0)
            return bt_unpack_fail(reader, "field %s is missing", fields[i].name);
    }
    if (result != NULL)
        *result = seen;
    return BATON_OK;
}
