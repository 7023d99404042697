/* SPDX-License-Identifier: Apache-2.0 */
/* Scalars of checked JSON, and JSON strings from text (jsonscan.h). */
#include "core/fail.h"
#include "http/jsontext.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static baton_status wrong_type(bt_json_value value, const char *wanted)
{
    static const char *const names[] = {"nothing",  "null",     "false",    "true",
                                        "a number", "a string", "an array", "an object"};
    return bt_fail(BATON_ERR_INVALID_ARG, "json: wanted %s, found %s", wanted, names[value.type]);
}

/* Digits without sign to a number. */
static baton_status read_integer(bt_json_value value, bool *negative, uint64_t *out)
{
    if (value.type != BT_JSON_NUMBER)
        return wrong_type(value, "an integer");
    *negative = value.text.at[0] == '-';
    uint64_t total = 0;
    for (size_t i = *negative; i < value.text.n; i++) {
        char c = value.text.at[i];
        if (c < '0' || c > '9')
            return bt_fail(BATON_ERR_INVALID_ARG, "json: wanted an integer, found a fraction");
        if (__builtin_mul_overflow(total, 10, &total) ||
            __builtin_add_overflow(total, (uint64_t)(c - '0'), &total))
            return bt_fail(BATON_ERR_OUT_OF_RANGE, "json: integer of more than 64 bits");
    }
    *out = total;
    return BATON_OK;
}

baton_status bt_json_uint64(bt_json_value value, uint64_t *out)
{
    bool negative = false;
    uint64_t size = 0;
    BATON_TRY(read_integer(value, &negative, &size));
    if (negative && size != 0)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "json: wanted an integer of 0 or more");
    *out = size;
    return BATON_OK;
}

baton_status bt_json_double(bt_json_value value, double *out)
{
    char digits[512];
    if (value.type != BT_JSON_NUMBER)
        return wrong_type(value, "a number");
    if (value.text.n >= sizeof(digits))
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "json: number of %zu digits", value.text.n);
    memcpy(digits, value.text.at, value.text.n);
    digits[value.text.n] = '\0';
    double number = strtod(digits, NULL);
    if (!isfinite(number))
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "json: number beyond what a double holds");
    *out = number;
    return BATON_OK;
}

static unsigned hex4(const char *text)
{
    char digits[5] = {text[0], text[1], text[2], text[3], 0};
    return (unsigned)strtoul(digits, NULL, 16);
}

static size_t put_utf8(unsigned point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | point >> 6);
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 0x3f));
    out[2] = (char)(0x80 | (point >> 6 & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* Decodes the escape at text[0] == '\\' of a checked string; returns its length in the text. */
static size_t decode_escape(const char *text, char out[4], size_t *n)
{
    static const char codes[] = "bfnrt", values[] = "\b\f\n\r\t";
    if (text[1] != 'u') {
        const char *code = strchr(codes, text[1]);
        out[0] = code != NULL ? values[code - codes] : text[1];
        *n = 1;
        return 2;
    }
    unsigned point = hex4(text + 2);
    bool pair = point >= 0xd800 && point <= 0xdbff;
    if (pair)
        point = 0x10000 + ((point - 0xd800) << 10) + (hex4(text + 8) - 0xdc00);
    *n = put_utf8(point, out);
    return pair ? 12 : 6;
}

baton_status bt_json_string(bt_json_value value, char *out, size_t cap, size_t *n)
{
    if (value.type != BT_JSON_STRING)
        return wrong_type(value, "a string");
    size_t used = 0;
    for (size_t i = 1; i + 1 < value.text.n;) {
        char piece[4];
        size_t length = 1;
        if (value.text.at[i] == '\\')
            i += decode_escape(value.text.at + i, piece, &length);
        else
            piece[0] = value.text.at[i++];
        if (cap - used <= length) /* the 0 needs room too */
            return bt_fail(BATON_ERR_TOO_LARGE, "json: string of more than %zu bytes", cap);
        memcpy(out + used, piece, length);
        used += length;
    }
    if (used >= cap)
        return bt_fail(BATON_ERR_TOO_LARGE, "json: no room for a string");
    out[used] = '\0';
    if (n != NULL)
        *n = used;
    return BATON_OK;
}

bool bt_json_string_equals(bt_json_value value, const char *text)
{
    if (value.type != BT_JSON_STRING)
        return false;
    size_t used = 0, total = strlen(text);
    for (size_t i = 1; i + 1 < value.text.n;) {
        char piece[4];
        size_t length = 1;
        if (value.text.at[i] == '\\')
            i += decode_escape(value.text.at + i, piece, &length);
        else
            piece[0] = value.text.at[i++];
        if (total - used < length || memcmp(text + used, piece, length) != 0)
            return false;
        used += length;
    }
    return used == total;
}

/* Appends as snprintf does: counts on where there is no room. */
static void put(char *out, size_t cap, size_t *used, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++, (*used)++) {
        if (*used + 1 < cap)
            out[*used] = bytes[i];
    }
}

static size_t quote_char(const char *text, size_t n, char piece[8], size_t *length)
{
    static const char plain[] = "\"\\\b\f\n\r\t", codes[] = "\"\\bfnrt";
    unsigned char c = (unsigned char)text[0];
    const char *found = c != 0 ? strchr(plain, (char)c) : NULL;
    if (found != NULL) {
        piece[0] = '\\';
        piece[1] = codes[found - plain];
        *length = 2;
        return 1;
    }
    if (c < 0x20) {
        *length = (size_t)snprintf(piece, 8, "\\u%04x", c);
        return 1;
    }
    *length = bt_utf8_length(text, n);
    if (*length == 0) {
        memcpy(piece, "\xef\xbf\xbd", 3);
        *length = 3;
        return 1;
    }
    memcpy(piece, text, *length);
    return *length;
}

size_t bt_json_quote(char *out, size_t cap, const char *text, size_t n)
{
    size_t used = 0;
    put(out, cap, &used, "\"", 1);
    for (size_t i = 0; i < n;) {
        char piece[8];
        size_t length;
        i += quote_char(text + i, n - i, piece, &length);
        put(out, cap, &used, piece, length);
    }
    put(out, cap, &used, "\"", 1);
    if (cap > 0)
        out[used < cap ? used : cap - 1] = '\0';
    return used;
}

void bt_json_append_string(bt_strbuf *buf, const char *text, size_t n)
{
    bt_strbuf_putc(buf, '"');
    for (size_t i = 0; i < n;) {
        char piece[8];
        size_t length;
        i += quote_char(text + i, n - i, piece, &length);
        bt_strbuf_append(buf, piece, length);
    }
    bt_strbuf_putc(buf, '"');
}
