/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/unicode.h"

/* Length of the sequence that a lead byte announces, and the bounds of its second byte, which keep
 * out overlong forms, surrogates and what lies above U+10FFFF (Unicode 15, table 3-7). 0: not a
 * lead byte. */
static int lead_length(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    if (lead < 0xe0)
        return 2;
    if (lead < 0xf0) {
        if (lead == 0xe0)
            *low = 0xa0;
        if (lead == 0xed)
            *high = 0x9f;
        return 3;
    }
    if (lead == 0xf0)
        *low = 0x90;
    if (lead == 0xf4)
        *high = 0x8f;
    return 4;
}

int bt_utf8_sequence(const uint8_t *text, size_t n)
{
    uint8_t low, high;
    int length = lead_length(text[0], &low, &high);
    if (length == 0)
        return -1;
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n)
            return 0;
        if (text[i] < low || text[i] > high)
            return -i;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}

uint32_t bt_utf8_next(const uint8_t *text, size_t n, size_t *pos)
{
    const uint8_t *s = text + *pos;
    int length = bt_utf8_sequence(s, n - *pos);
    if (length <= 0) {
        *pos += length < 0 ? (size_t)-length : n - *pos;
        return BT_REPLACEMENT_CHAR;
    }
    *pos += (size_t)length;
    if (length == 1)
        return s[0];
    uint32_t code = s[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++)
        code = code << 6 | (s[i] & 0x3fu);
    return code;
}

size_t bt_utf8_put(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xc0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xe0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (code & 0x3f));
    return 4;
}

bool bt_utf8_is_valid(const uint8_t *text, size_t n)
{
    for (size_t pos = 0; pos < n;) {
        int length = bt_utf8_sequence(text + pos, n - pos);
        if (length <= 0)
            return false;
        pos += (size_t)length;
    }
    return true;
}

static bool in_ranges(const bt_code_range *ranges, size_t n, uint32_t code)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (code > ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && code >= ranges[low].first;
}

bool bt_unicode_is_letter(uint32_t code)
{
    if (code < 0x80)
        return (code | 0x20) >= 'a' && (code | 0x20) <= 'z';
    return in_ranges(bt_unicode_letters, bt_unicode_letters_n, code);
}

bool bt_unicode_is_number(uint32_t code)
{
    if (code < 0x80)
        return code >= '0' && code <= '9';
    return in_ranges(bt_unicode_numbers, bt_unicode_numbers_n, code);
}

bool bt_unicode_is_space(uint32_t code)
{
    return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}
