/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/packfields.h"

#include "core/fail.h"

#include <assert.h>

static uint64_t upper_bound(const bt_field *field)
{
    uint64_t type_max = field->type == BT_FIELD_U64 ? UINT64_MAX : UINT32_MAX;
    return field->max != 0 && field->max < type_max ? field->max : type_max;
}

static bool in_range(const bt_field *field, uint64_t found)
{
    return found >= field->min && found <= upper_bound(field);
}

static baton_status range_failure(const bt_packreader *reader, const bt_field *field,
                                  const char *unit, uint64_t found)
{
    return bt_unpack_fail(reader, "wanted %llu to %llu%s, found %llu",
                          (unsigned long long)field->min, (unsigned long long)upper_bound(field),
                          unit, (unsigned long long)found);
}

static baton_status read_uint(bt_packreader *reader, const bt_field *field, void *value)
{
    uint64_t number = 0;
    BATON_TRY(bt_unpack_u64(reader, UINT64_MAX, &number));
    if (!in_range(field, number))
        return range_failure(reader, field, "", number);
    if (field->type == BT_FIELD_U32)
        *(uint32_t *)value = (uint32_t)number;
    else
        *(uint64_t *)value = number;
    return BATON_OK;
}

static baton_status read_i32(bt_packreader *reader, int32_t *value)
{
    int64_t number = 0;
    BATON_TRY(bt_unpack_i64(reader, &number));
    if (number < INT32_MIN || number > INT32_MAX)
        return bt_unpack_fail(reader, "number %lld does not fit 32 bits", (long long)number);
    *value = (int32_t)number;
    return BATON_OK;
}

static baton_status read_bytes(bt_packreader *reader, const bt_field *field, bt_blob *value)
{
    bt_blob blob;
    BATON_TRY(field->type == BT_FIELD_BIN ? bt_unpack_bin(reader, &blob)
                                          : bt_unpack_str(reader, &blob));
    if (!in_range(field, blob.bytes))
        return range_failure(reader, field, " bytes", blob.bytes);
    if (field->type == BT_FIELD_NAME && !bt_blob_is_name(blob))
        return bt_unpack_fail(reader, "a control character in a name");
    *value = blob;
    return BATON_OK;
}

static baton_status read_field(bt_packreader *reader, const bt_field *field, void *value)
{
    switch (field->type) {
    case BT_FIELD_U32:
    case BT_FIELD_U64:
        return read_uint(reader, field, value);
    case BT_FIELD_I32:
        return read_i32(reader, value);
    case BT_FIELD_I64:
        return bt_unpack_i64(reader, value);
    case BT_FIELD_BOOL:
        return bt_unpack_bool(reader, value);
    case BT_FIELD_F64:
        return bt_unpack_f64(reader, value);
    case BT_FIELD_STR:
    case BT_FIELD_NAME:
    case BT_FIELD_BIN:
        return read_bytes(reader, field, value);
    case BT_FIELD_RAW:
        return bt_unpack_raw(reader, value);
    case BT_FIELD_CALL:
        return field->read(reader, value);
    }
    return bt_fail(BATON_ERR_INVALID_ARG, "field %s: type %d", field->name, (int)field->type);
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
    char detail[BT_ERROR_TEXT_BYTES]; /* a copy: bt_fail writes where the text is now */
    bt_blob_to_text(bt_blob_of_text(baton_last_error()), detail, sizeof(detail));
    return bt_fail(status, "%s (field %s)", detail, field->name);
}

baton_status bt_unpack_fields(bt_packreader *reader, const bt_field *fields, size_t n_fields,
                              void *out, bt_field_result *result)
{
    assert(n_fields <= BT_FIELDS_MAX);
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
        if (!fields[i].optional && (seen.present >> i & 1) == 0)
            return bt_unpack_fail(reader, "field %s is missing", fields[i].name);
    }
    if (result != NULL)
        *result = seen;
    return BATON_OK;
}

static void refuse_to_write(bt_packwriter *writer, const bt_field *field, const char *unit,
                            uint64_t found)
{
    if (writer->status < 0)
        return;
    writer->status =
        bt_fail(BATON_ERR_INVALID_ARG, "message: field %s: wanted %llu to %llu%s, found %llu",
                field->name, (unsigned long long)field->min, (unsigned long long)upper_bound(field),
                unit, (unsigned long long)found);
}

static void write_uint(bt_packwriter *writer, const bt_field *field, const void *value)
{
    uint64_t number =
        field->type == BT_FIELD_U32 ? *(const uint32_t *)value : *(const uint64_t *)value;
    if (!in_range(field, number))
        refuse_to_write(writer, field, "", number);
    bt_pack_u64(writer, number);
}

static void write_bytes(bt_packwriter *writer, const bt_field *field, const bt_blob *value)
{
    if (!in_range(field, value->bytes))
        refuse_to_write(writer, field, " bytes", value->bytes);
    if (field->type == BT_FIELD_NAME && !bt_blob_is_name(*value) && writer->status >= 0)
        writer->status = bt_fail(BATON_ERR_INVALID_ARG,
                                 "message: field %s: a control character in a name", field->name);
    if (field->type == BT_FIELD_BIN)
        bt_pack_bin(writer, value->data, value->bytes);
    else
        bt_pack_str_n(writer, value->data, value->bytes);
}

static void write_field(bt_packwriter *writer, const bt_field *field, const void *value)
{
    const bt_blob *blob = value;
    switch (field->type) {
    case BT_FIELD_U32:
    case BT_FIELD_U64:
        write_uint(writer, field, value);
        break;
    case BT_FIELD_I32:
        bt_pack_i64(writer, *(const int32_t *)value);
        break;
    case BT_FIELD_I64:
        bt_pack_i64(writer, *(const int64_t *)value);
        break;
    case BT_FIELD_BOOL:
        bt_pack_bool(writer, *(const bool *)value);
        break;
    case BT_FIELD_F64:
        bt_pack_f64(writer, *(const double *)value);
        break;
    case BT_FIELD_STR:
    case BT_FIELD_NAME:
    case BT_FIELD_BIN:
        write_bytes(writer, field, value);
        break;
    case BT_FIELD_RAW:
        bt_pack_raw(writer, blob->data, blob->bytes);
        break;
    case BT_FIELD_CALL:
        field->write(writer, value);
        break;
    }
}

void bt_pack_fields(bt_packwriter *writer, const bt_field *fields, size_t n_fields, const void *in)
{
    for (size_t i = 0; i < n_fields && writer->status >= 0; i++) {
        bt_pack_str(writer, fields[i].name);
        write_field(writer, &fields[i], (const char *)in + fields[i].offset);
    }
}
