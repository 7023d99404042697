/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/packreader.h"

#include "core/fail.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* First bytes that carry a type alone; the fix forms are ranges, see read_head. */
enum {
    TAG_NIL = 0xc0,
    TAG_UNUSED = 0xc1,
    TAG_FALSE = 0xc2,
    TAG_TRUE = 0xc3,
    TAG_BIN8 = 0xc4,
    TAG_BIN32 = 0xc6,
    TAG_F32 = 0xca,
    TAG_F64 = 0xcb,
    TAG_UINT8 = 0xcc,
    TAG_UINT64 = 0xcf,
    TAG_INT8 = 0xd0,
    TAG_INT64 = 0xd3,
    TAG_STR8 = 0xd9,
    TAG_STR32 = 0xdb,
    TAG_ARRAY16 = 0xdc,
    TAG_ARRAY32 = 0xdd,
    TAG_MAP16 = 0xde,
    TAG_MAP32 = 0xdf,
    TAG_NEGATIVE_FIXINT = 0xe0
};

/* A value's first bytes: its type and number, or its length or count, or, for floats, its bits. */
typedef struct {
    bt_pack_type type;
    uint64_t bits;
    bool is_f32;
} head;

static const char *const type_names[] = {
    [BT_PACK_NIL] = "nil",         [BT_PACK_BOOL] = "a boolean",
    [BT_PACK_UINT] = "an integer", [BT_PACK_INT] = "a negative integer",
    [BT_PACK_F64] = "a float",     [BT_PACK_STR] = "a string",
    [BT_PACK_BIN] = "a binary",    [BT_PACK_ARRAY] = "an array",
    [BT_PACK_MAP] = "a map",
};

baton_status bt_unpack_fail(const bt_packreader *reader, const char *format, ...)
{
    char detail[256];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    return bt_fail(BATON_ERR_BAD_MESSAGE, "%s: %s, at byte %zu of %zu", reader->what, detail,
                   reader->pos, reader->n);
}

/* Takes width bytes as a big-endian number. */
static baton_status read_number(bt_packreader *reader, size_t width, uint64_t *value)
{
    if (reader->n - reader->pos < width)
        return bt_unpack_fail(reader, "truncated: wanted %zu more bytes", width);
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++)
        number = number << 8 | reader->bytes[reader->pos++];
    *value = number;
    return BATON_OK;
}

/* The sign bit of a width-byte number decides between BT_PACK_UINT and BT_PACK_INT; the bits of a
 * negative one are extended to 64. */
static void set_signed(head *out, size_t width)
{
    unsigned shift = 64 - 8 * (unsigned)width;
    bool negative = out->bits >> (8 * width - 1) & 1;
    out->type = negative ? BT_PACK_INT : BT_PACK_UINT;
    if (negative && shift != 0)
        out->bits |= UINT64_MAX << (64 - shift);
}

/* Heads of 0xc0 to 0xdf. */
static baton_status read_tagged(bt_packreader *reader, uint8_t tag, head *out)
{
    size_t width = 0;
    if (tag == TAG_NIL || tag == TAG_FALSE || tag == TAG_TRUE) {
        out->type = tag == TAG_NIL ? BT_PACK_NIL : BT_PACK_BOOL;
        out->bits = tag == TAG_TRUE;
        return BATON_OK;
    }
    if (tag >= TAG_BIN8 && tag <= TAG_BIN32) {
        out->type = BT_PACK_BIN;
        width = (size_t)1 << (tag - TAG_BIN8);
    } else if (tag == TAG_F32 || tag == TAG_F64) {
        out->type = BT_PACK_F64;
        out->is_f32 = tag == TAG_F32;
        width = out->is_f32 ? 4 : 8;
    } else if (tag >= TAG_UINT8 && tag <= TAG_UINT64) {
        out->type = BT_PACK_UINT;
        width = (size_t)1 << (tag - TAG_UINT8);
    } else if (tag >= TAG_INT8 && tag <= TAG_INT64) {
        width = (size_t)1 << (tag - TAG_INT8);
        BATON_TRY(read_number(reader, width, &out->bits));
        set_signed(out, width);
        return BATON_OK;
    } else if (tag >= TAG_STR8 && tag <= TAG_STR32) {
        out->type = BT_PACK_STR;
        width = (size_t)1 << (tag - TAG_STR8);
    } else if (tag == TAG_ARRAY16 || tag == TAG_ARRAY32) {
        out->type = BT_PACK_ARRAY;
        width = tag == TAG_ARRAY16 ? 2 : 4;
    } else if (tag == TAG_MAP16 || tag == TAG_MAP32) {
        out->type = BT_PACK_MAP;
        width = tag == TAG_MAP16 ? 2 : 4;
    } else {
        reader->pos--;
        return bt_unpack_fail(reader, "%s 0x%02x", tag == TAG_UNUSED ? "unused tag" : "extension",
                              tag);
    }
    return read_number(reader, width, &out->bits);
}

/* Fails when the rest of the frame cannot hold what a length or count claims: each element has at
 * least one byte, so a claim is refused before anything is done about it. */
static baton_status check_claim(bt_packreader *reader, const head *value)
{
    size_t left = reader->n - reader->pos;
    uint64_t needed = value->bits;
    switch (value->type) {
    case BT_PACK_STR:
    case BT_PACK_BIN:
        if (needed > reader->limits.max_blob_bytes)
            return bt_unpack_fail(reader, "%s of %llu bytes, at most %u allowed",
                                  type_names[value->type], (unsigned long long)needed,
                                  reader->limits.max_blob_bytes);
        break;
    case BT_PACK_MAP:
        if (needed > BT_UNPACK_MAX_KEYS)
            return bt_unpack_fail(reader, "a map of %llu keys, at most %d allowed",
                                  (unsigned long long)needed, BT_UNPACK_MAX_KEYS);
        needed *= 2;
        break;
    case BT_PACK_ARRAY:
        break;
    default:
        return BATON_OK;
    }
    if (needed > left)
        return bt_unpack_fail(reader, "truncated: %s needs %llu bytes, %zu left",
                              type_names[value->type], (unsigned long long)needed, left);
    return BATON_OK;
}

static baton_status read_head(bt_packreader *reader, head *out)
{
    uint64_t first = 0;
    BATON_TRY(read_number(reader, 1, &first));
    uint8_t tag = (uint8_t)first;
    *out = (head){.type = BT_PACK_UINT};
    if (tag < 0x80) {
        out->bits = tag;
    } else if (tag >= TAG_NEGATIVE_FIXINT) {
        out->bits = tag;
        set_signed(out, 1);
    } else if (tag < 0x90) {
        out->type = BT_PACK_MAP;
        out->bits = tag & 0x0f;
    } else if (tag < 0xa0) {
        out->type = BT_PACK_ARRAY;
        out->bits = tag & 0x0f;
    } else if (tag < 0xc0) {
        out->type = BT_PACK_STR;
        out->bits = tag & 0x1f;
    } else {
        BATON_TRY(read_tagged(reader, tag, out));
    }
    return check_claim(reader, out);
}

/* As read_head for a value that must be of one type; places the reader back on failure, so that
 * the text names the value's first byte. */
static baton_status expect(bt_packreader *reader, bt_pack_type type, head *out)
{
    size_t start = reader->pos;
    BATON_TRY(read_head(reader, out));
    if (out->type == type)
        return BATON_OK;
    reader->pos = start;
    return bt_unpack_fail(reader, "wanted %s, found %s", type_names[type], type_names[out->type]);
}

static baton_status read_blob(bt_packreader *reader, bt_pack_type type, bt_blob *value)
{
    head found;
    BATON_TRY(expect(reader, type, &found));
    *value = bt_blob_of(reader->bytes + reader->pos, (size_t)found.bits);
    reader->pos += value->bytes;
    return BATON_OK;
}

static baton_status check_value(bt_packreader *reader, uint32_t depth);

static baton_status check_map(bt_packreader *reader, uint32_t n_pairs, uint32_t depth)
{
    bt_blob keys[BT_UNPACK_MAX_KEYS];
    for (uint32_t i = 0; i < n_pairs; i++) {
        size_t start = reader->pos;
        reader->n_elements++;
        BATON_TRY(read_blob(reader, BT_PACK_STR, &keys[i]));
        for (uint32_t j = 0; j < i; j++) {
            if (!bt_blob_equals(keys[j], keys[i]))
                continue;
            reader->pos = start;
            return bt_unpack_fail(reader, "a map has a key twice");
        }
        BATON_TRY(check_value(reader, depth));
    }
    return BATON_OK;
}

/* Checks one value with all it contains. Recursion is bounded by limits.max_depth. */
static baton_status check_value(bt_packreader *reader, uint32_t depth)
{
    head found;
    BATON_TRY(read_head(reader, &found));
    if (++reader->n_elements > reader->limits.max_elements)
        return bt_unpack_fail(reader, "more than %u elements", reader->limits.max_elements);
    bool is_container = found.type == BT_PACK_ARRAY || found.type == BT_PACK_MAP;
    if (is_container && depth == reader->limits.max_depth)
        return bt_unpack_fail(reader, "nested deeper than %u", reader->limits.max_depth);
    if (found.type == BT_PACK_MAP)
        return check_map(reader, (uint32_t)found.bits, depth + 1);
    if (found.type == BT_PACK_ARRAY) {
        for (uint64_t i = 0; i < found.bits; i++)
            BATON_TRY(check_value(reader, depth + 1));
    } else if (found.type == BT_PACK_STR || found.type == BT_PACK_BIN) {
        reader->pos += (size_t)found.bits;
    }
    return BATON_OK;
}

baton_status bt_unpack_open(bt_packreader *reader, const char *what, const void *bytes, size_t n,
                            const bt_unpack_limits *limits)
{
    *reader = (bt_packreader){.what = what, .bytes = bytes, .n = n, .limits = *limits};
    assert(limits->max_depth <= BT_UNPACK_MAX_DEPTH);
    BATON_TRY(check_value(reader, 0));
    BATON_TRY(bt_unpack_finish(reader));
    reader->pos = 0;
    return BATON_OK;
}

baton_status bt_unpack_finish(const bt_packreader *reader)
{
    if (reader->pos == reader->n)
        return BATON_OK;
    return bt_unpack_fail(reader, "%zu bytes behind the end", reader->n - reader->pos);
}

baton_status bt_unpack_peek(const bt_packreader *reader, bt_pack_type *type)
{
    bt_packreader copy = *reader;
    head found;
    BATON_TRY(read_head(&copy, &found));
    *type = found.type;
    return BATON_OK;
}

baton_status bt_unpack_array(bt_packreader *reader, uint32_t *count)
{
    head found;
    BATON_TRY(expect(reader, BT_PACK_ARRAY, &found));
    *count = (uint32_t)found.bits;
    return BATON_OK;
}

baton_status bt_unpack_map(bt_packreader *reader, uint32_t *count)
{
    head found;
    BATON_TRY(expect(reader, BT_PACK_MAP, &found));
    *count = (uint32_t)found.bits;
    return BATON_OK;
}

baton_status bt_unpack_str(bt_packreader *reader, bt_blob *value)
{
    return read_blob(reader, BT_PACK_STR, value);
}

baton_status bt_unpack_bin(bt_packreader *reader, bt_blob *value)
{
    return read_blob(reader, BT_PACK_BIN, value);
}

baton_status bt_unpack_u64(bt_packreader *reader, uint64_t max, uint64_t *value)
{
    head found;
    size_t start = reader->pos;
    BATON_TRY(expect(reader, BT_PACK_UINT, &found));
    if (found.bits > max) {
        reader->pos = start;
        return bt_unpack_fail(reader, "number %llu is above %llu", (unsigned long long)found.bits,
                              (unsigned long long)max);
    }
    *value = found.bits;
    return BATON_OK;
}

baton_status bt_unpack_u32(bt_packreader *reader, uint32_t max, uint32_t *value)
{
    uint64_t wide = 0;
    BATON_TRY(bt_unpack_u64(reader, max, &wide));
    *value = (uint32_t)wide;
    return BATON_OK;
}

baton_status bt_unpack_i64(bt_packreader *reader, int64_t *value)
{
    bt_pack_type type;
    head found;
    BATON_TRY(bt_unpack_peek(reader, &type));
    if (type != BT_PACK_INT) {
        uint64_t wide = 0;
        BATON_TRY(bt_unpack_u64(reader, INT64_MAX, &wide));
        *value = (int64_t)wide;
        return BATON_OK;
    }
    BATON_TRY(read_head(reader, &found));
    *value = (int64_t)found.bits; /* two's complement in gcc and clang */
    return BATON_OK;
}

baton_status bt_unpack_f64(bt_packreader *reader, double *value)
{
    head found;
    BATON_TRY(expect(reader, BT_PACK_F64, &found));
    if (found.is_f32) {
        uint32_t bits = (uint32_t)found.bits;
        float narrow;
        memcpy(&narrow, &bits, sizeof(narrow));
        *value = (double)narrow;
    } else {
        memcpy(value, &found.bits, sizeof(*value));
    }
    return BATON_OK;
}

baton_status bt_unpack_bool(bt_packreader *reader, bool *value)
{
    head found;
    BATON_TRY(expect(reader, BT_PACK_BOOL, &found));
    *value = found.bits != 0;
    return BATON_OK;
}

baton_status bt_unpack_nil(bt_packreader *reader)
{
    head found;
    return expect(reader, BT_PACK_NIL, &found);
}

baton_status bt_unpack_skip(bt_packreader *reader)
{
    /* Counts what is still to come instead of recursing: the frame has been checked. */
    for (uint64_t left = 1; left > 0; left--) {
        head found;
        BATON_TRY(read_head(reader, &found));
        if (found.type == BT_PACK_MAP)
            left += 2 * found.bits;
        else if (found.type == BT_PACK_ARRAY)
            left += found.bits;
        else if (found.type == BT_PACK_STR || found.type == BT_PACK_BIN)
            reader->pos += (size_t)found.bits;
    }
    return BATON_OK;
}

baton_status bt_unpack_raw(bt_packreader *reader, bt_blob *value)
{
    size_t start = reader->pos;
    BATON_TRY(bt_unpack_skip(reader));
    *value = bt_blob_of(reader->bytes + start, reader->pos - start);
    return BATON_OK;
}
