/* SPDX-License-Identifier: Apache-2.0 */
#include "http/jsontext.h"

#include "core/fail.h"

#include <stdio.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

baton_status bt_json_fail(const bt_json_cursor *cursor, const char *wanted)
{
    char found[16] = "the end";
    if (cursor->at < cursor->n) {
        unsigned char c = (unsigned char)cursor->text[cursor->at];
        snprintf(found, sizeof(found), c >= 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", c);
    }
    return bt_fail(BATON_ERR_BAD_MESSAGE, "json: offset %zu: wanted %s, found %s", cursor->at,
                   wanted, found);
}

void bt_json_skip_space(bt_json_cursor *cursor)
{
    while (cursor->at < cursor->n) {
        char c = cursor->text[cursor->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return;
        cursor->at++;
    }
}

bool bt_json_take(bt_json_cursor *cursor, char c)
{
    if (cursor->at == cursor->n || cursor->text[cursor->at] != c)
        return false;
    cursor->at++;
    return true;
}

bt_json_type bt_json_type_of(char first)
{
    switch (first) {
    case '{':
        return BT_JSON_OBJECT;
    case '[':
        return BT_JSON_ARRAY;
    case '"':
        return BT_JSON_STRING;
    case 't':
        return BT_JSON_TRUE;
    case 'f':
        return BT_JSON_FALSE;
    case 'n':
        return BT_JSON_NULL;
    default:
        return BT_JSON_NUMBER;
    }
}

size_t bt_utf8_length(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    if (n == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    /* Overlong forms, surrogates, and what is beyond U+10FFFF. */
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

/* Moves to the next byte of a string that needs a look: quote, backslash, control, not ASCII. */
static void skip_plain(bt_json_cursor *cursor)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\');
    const __m128i space = _mm_set1_epi8(' ');
    while (cursor->n - cursor->at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(cursor->text + cursor->at));
        /* Signed: below the space are the controls and every byte that is not ASCII. */
        __m128i odd = _mm_or_si128(
            _mm_cmplt_epi8(bytes, space),
            _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));
        unsigned mask = (unsigned)_mm_movemask_epi8(odd);
        if (mask != 0) {
            cursor->at += (unsigned)__builtin_ctz(mask);
            return;
        }
        cursor->at += 16;
    }
#endif
    while (cursor->at < cursor->n) {
        unsigned char c = (unsigned char)cursor->text[cursor->at];
        if (c == '"' || c == '\\' || c < 0x20 || c >= 0x80)
            return;
        cursor->at++;
    }
}

static bool read_hex4(bt_json_cursor *cursor, unsigned *out)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++, cursor->at++) {
        if (cursor->at == cursor->n)
            return false;
        char c = cursor->text[cursor->at];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                : 16;
        if (digit == 16)
            return false;
        value = value * 16 + digit;
    }
    *out = value;
    return true;
}

/* Behind "\u". A high surrogate needs a low one right behind it; alone neither is a character. */
static baton_status read_unicode_escape(bt_json_cursor *cursor)
{
    unsigned unit, low;
    if (!read_hex4(cursor, &unit))
        return bt_json_fail(cursor, "four hex digits");
    if (unit < 0xd800 || unit > 0xdfff)
        return BATON_OK;
    if (unit > 0xdbff || !bt_json_take(cursor, '\\') || !bt_json_take(cursor, 'u') ||
        !read_hex4(cursor, &low) || low < 0xdc00 || low > 0xdfff)
        return bt_json_fail(cursor, "a surrogate pair");
    return BATON_OK;
}

static baton_status read_escape(bt_json_cursor *cursor)
{
    if (cursor->at == cursor->n)
        return bt_json_fail(cursor, "an escape");
    char c = cursor->text[cursor->at];
    if (c == '\0' || strchr("\"\\/bfnrtu", c) == NULL)
        return bt_json_fail(cursor, "an escape");
    cursor->at++;
    return c == 'u' ? read_unicode_escape(cursor) : BATON_OK;
}

static baton_status read_string(bt_json_cursor *cursor)
{
    if (!bt_json_take(cursor, '"'))
        return bt_json_fail(cursor, "a string");
    for (;;) {
        skip_plain(cursor);
        if (cursor->at == cursor->n)
            return bt_json_fail(cursor, "'\"'");
        unsigned char c = (unsigned char)cursor->text[cursor->at];
        if (c == '"') {
            cursor->at++;
            return BATON_OK;
        }
        if (c == '\\') {
            cursor->at++;
            BATON_TRY(read_escape(cursor));
            continue;
        }
        size_t length =
            c < 0x20 ? 0 : bt_utf8_length(cursor->text + cursor->at, cursor->n - cursor->at);
        if (length == 0)
            return bt_json_fail(cursor, c < 0x20 ? "an escaped control character" : "UTF-8");
        cursor->at += length;
    }
}

static size_t skip_digits(bt_json_cursor *cursor)
{
    size_t start = cursor->at;
    while (cursor->at < cursor->n && cursor->text[cursor->at] >= '0' &&
           cursor->text[cursor->at] <= '9')
        cursor->at++;
    return cursor->at - start;
}

static baton_status read_number(bt_json_cursor *cursor)
{
    size_t start = cursor->at;
    bt_json_take(cursor, '-');
    bool leading_zero = cursor->at < cursor->n && cursor->text[cursor->at] == '0';
    size_t n_digits = skip_digits(cursor);
    if (n_digits == 0)
        return bt_json_fail(cursor, cursor->at == start ? "a value" : "a digit");
    if (leading_zero && n_digits > 1) {
        cursor->at -= n_digits - 1;
        return bt_json_fail(cursor, "no digit behind a leading 0");
    }
    if (bt_json_take(cursor, '.') && skip_digits(cursor) == 0)
        return bt_json_fail(cursor, "a digit behind '.'");
    if (bt_json_take(cursor, 'e') || bt_json_take(cursor, 'E')) {
        if (!bt_json_take(cursor, '+'))
            bt_json_take(cursor, '-');
        if (skip_digits(cursor) == 0)
            return bt_json_fail(cursor, "a digit of the exponent");
    }
    return BATON_OK;
}

static baton_status read_word(bt_json_cursor *cursor, const char *word)
{
    for (; *word != '\0'; word++) {
        if (!bt_json_take(cursor, *word))
            return bt_json_fail(cursor, "null, true or false");
    }
    return BATON_OK;
}

static baton_status read_scalar(bt_json_cursor *cursor)
{
    if (cursor->at == cursor->n)
        return bt_json_fail(cursor, "a value");
    switch (cursor->text[cursor->at]) {
    case '"':
        return read_string(cursor);
    case 't':
        return read_word(cursor, "true");
    case 'f':
        return read_word(cursor, "false");
    case 'n':
        return read_word(cursor, "null");
    default:
        return read_number(cursor);
    }
}

baton_status bt_json_read_key(bt_json_cursor *cursor, bt_slice *key)
{
    size_t start = cursor->at;
    if (cursor->at == cursor->n || cursor->text[cursor->at] != '"')
        return bt_json_fail(cursor, "a key");
    BATON_TRY(read_string(cursor));
    if (key != NULL)
        *key = (bt_slice){cursor->text + start, cursor->at - start};
    bt_json_skip_space(cursor);
    return bt_json_take(cursor, ':') ? BATON_OK : bt_json_fail(cursor, "':'");
}

/* The containers around the cursor: one bit each, 1 for objects. */
typedef struct {
    uint64_t is_object[BT_JSON_MAX_DEPTH / 64];
    unsigned depth;
} nesting;

static bool top_is_object(const nesting *nest)
{
    unsigned top = nest->depth - 1;
    return (nest->is_object[top / 64] >> (top % 64) & 1) != 0;
}

static baton_status push(bt_json_cursor *cursor, nesting *nest, unsigned base, bool is_object)
{
    if (nest->depth + base >= BT_JSON_MAX_DEPTH)
        return bt_fail(BATON_ERR_TOO_LARGE, "json: offset %zu: nested deeper than %d", cursor->at,
                       BT_JSON_MAX_DEPTH);
    uint64_t bit = UINT64_C(1) << (nest->depth % 64);
    uint64_t *word = &nest->is_object[nest->depth / 64];
    *word = is_object ? *word | bit : *word & ~bit;
    nest->depth++;
    cursor->at++;
    return BATON_OK;
}

/* Behind a value: closes containers up to the next comma; *done when none is open any more. */
static baton_status read_closers(bt_json_cursor *cursor, nesting *nest, bool *done)
{
    while (nest->depth > 0) {
        bool is_object = top_is_object(nest);
        bt_json_skip_space(cursor);
        if (bt_json_take(cursor, ',')) {
            bt_json_skip_space(cursor);
            return is_object ? bt_json_read_key(cursor, NULL) : BATON_OK;
        }
        if (!bt_json_take(cursor, is_object ? '}' : ']'))
            return bt_json_fail(cursor, is_object ? "',' or '}'" : "',' or ']'");
        nest->depth--;
    }
    *done = true;
    return BATON_OK;
}

baton_status bt_json_read_value(bt_json_cursor *cursor, unsigned depth)
{
    nesting nest = {.depth = 0};
    bool done = false;
    while (!done) {
        bt_json_skip_space(cursor);
        char c = cursor->at < cursor->n ? cursor->text[cursor->at] : '\0';
        if (c == '{' || c == '[') {
            BATON_TRY(push(cursor, &nest, depth, c == '{'));
            bt_json_skip_space(cursor);
            bool empty =
                cursor->at < cursor->n && cursor->text[cursor->at] == (c == '{' ? '}' : ']');
            if (!empty) {
                if (c == '{')
                    BATON_TRY(bt_json_read_key(cursor, NULL));
                continue;
            }
        } else {
            BATON_TRY(read_scalar(cursor));
        }
        BATON_TRY(read_closers(cursor, &nest, &done));
    }
    return BATON_OK;
}
