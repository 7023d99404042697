/* SPDX-License-Identifier: Apache-2.0 */
/* Each alternative of a regular expression is one function that returns where its match ends, or
 * pos when it does not match; they are tried in the expression's order. */
#include "engine/pretokenize.h"

#include <stdbool.h>
#include <string.h>

#include "engine/unicode.h"

typedef struct {
    const uint8_t *bytes;
    size_t n;
} view;

typedef bool (*char_class)(uint32_t code);

static bool is_other(uint32_t code)
{
    return !bt_unicode_is_space(code) && !bt_unicode_is_letter(code) && !bt_unicode_is_number(code);
}

static bool is_newline(uint32_t code)
{
    return code == '\n' || code == '\r';
}

/* The end of the run of at most `limit` characters of a class that begins at pos. */
static size_t run_end(view text, size_t pos, char_class in_class, size_t limit)
{
    for (size_t i = 0; i < limit && pos < text.n; i++) {
        size_t next = pos;
        if (!in_class(bt_utf8_next(text.bytes, text.n, &next)))
            break;
        pos = next;
    }
    return pos;
}

/* ` ?CLASS+` */
static size_t after_space(view text, size_t pos, char_class in_class)
{
    size_t begin = pos + (text.bytes[pos] == ' ');
    size_t end = run_end(text, begin, in_class, SIZE_MAX);
    return end > begin ? end : pos;
}

static uint8_t fold(uint8_t byte, bool any_case)
{
    return any_case && byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

/* `'s|'t|'re|'ve|'m|'ll|'d`. Without regard to case, U+017F (long s) counts as an s too. */
static size_t contraction(view text, size_t pos, bool any_case)
{
    const uint8_t *s = text.bytes + pos;
    size_t left = text.n - pos;
    if (left < 2 || s[0] != '\'')
        return pos;
    uint8_t first = fold(s[1], any_case);
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return pos + 2;
    if (left < 3)
        return pos;
    if (any_case && s[1] == 0xc5 && s[2] == 0xbf)
        return pos + 3;
    uint8_t second = fold(s[2], any_case);
    bool found = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                 (first == 'l' && second == 'l');
    return found ? pos + 3 : pos;
}

/* `\s+(?!\S)|\s+`: white space before a word leaves its last character to the word. */
static size_t white_space(view text, size_t pos)
{
    size_t last = pos, end = pos;
    while (end < text.n) {
        size_t next = end;
        if (!bt_unicode_is_space(bt_utf8_next(text.bytes, text.n, &next)))
            return last > pos ? last : end;
        last = end;
        end = next;
    }
    return end;
}

/* `[^\r\n\p{L}\p{N}]?\p{L}+` */
static size_t word(view text, size_t pos)
{
    size_t begin = pos;
    uint32_t code = bt_utf8_next(text.bytes, text.n, &begin);
    if (bt_unicode_is_letter(code))
        begin = pos;
    else if (is_newline(code) || bt_unicode_is_number(code))
        return pos;
    size_t end = run_end(text, begin, bt_unicode_is_letter, SIZE_MAX);
    return end > begin ? end : pos;
}

/* `\s*[\r\n]+`: up to the last line end of the run of white space. */
static size_t line_ends(view text, size_t pos)
{
    size_t end = pos;
    for (size_t at = pos; at < text.n;) {
        uint32_t code = bt_utf8_next(text.bytes, text.n, &at);
        if (!bt_unicode_is_space(code))
            break;
        if (is_newline(code))
            end = at;
    }
    return end;
}

static size_t gpt2_next(view text, size_t pos)
{
    size_t end = contraction(text, pos, false);
    if (end == pos)
        end = after_space(text, pos, bt_unicode_is_letter);
    if (end == pos)
        end = after_space(text, pos, bt_unicode_is_number);
    if (end == pos)
        end = after_space(text, pos, is_other);
    return end != pos ? end : white_space(text, pos);
}

static size_t llama3_next(view text, size_t pos, size_t max_digits)
{
    size_t end = contraction(text, pos, true);
    if (end == pos)
        end = word(text, pos);
    if (end == pos)
        end = run_end(text, pos, bt_unicode_is_number, max_digits);
    if (end != pos)
        return end;
    end = after_space(text, pos, is_other);
    if (end != pos)
        return run_end(text, end, is_newline, SIZE_MAX);
    end = line_ends(text, pos);
    return end != pos ? end : white_space(text, pos);
}

size_t bt_split_next(bt_split split, const uint8_t *text, size_t n, size_t pos)
{
    view all = {text, n};
    switch (split) {
    case BT_SPLIT_GPT2:
        return gpt2_next(all, pos);
    case BT_SPLIT_LLAMA3:
        return llama3_next(all, pos, 3);
    case BT_SPLIT_QWEN2:
        return llama3_next(all, pos, 1);
    case BT_SPLIT_NONE:
        break;
    }
    return n;
}
