/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 and the three character classes that tokenizers split text by. The classes are exact for
 * the Unicode version named in unicode_tables.c; code points assigned later count as "other".
 *
 * Thread rule: any thread. */
#ifndef BT_ENGINE_UNICODE_H
#define BT_ENGINE_UNICODE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_REPLACEMENT_CHAR 0xfffdu

typedef struct {
    uint32_t first, last; /* both belong to the range */
} bt_code_range;

/* Sorted, disjoint: general categories L* and N*. */
extern const bt_code_range bt_unicode_letters[];
extern const size_t bt_unicode_letters_n;
extern const bt_code_range bt_unicode_numbers[];
extern const size_t bt_unicode_numbers_n;

/* How text[0..n), n > 0, begins: a positive count of bytes is a well-formed sequence; 0 is the
 * beginning of one whose rest is missing; a negative count -k means that the first k bytes can be
 * no part of one (k as in Unicode's "maximal subpart" replacement). */
int bt_utf8_sequence(const uint8_t *text, size_t n);
/* The code point at text[*pos], *pos < n, and moves *pos behind it. Bytes that are not UTF-8 come
 * as BT_REPLACEMENT_CHAR, at least one byte at a time. */
uint32_t bt_utf8_next(const uint8_t *text, size_t n, size_t *pos);
/* Writes code (below 0x110000) as UTF-8; returns the count of bytes, 1 to 4. */
size_t bt_utf8_put(uint32_t code, uint8_t out[4]);
/* True when all of text is well-formed. */
bool bt_utf8_is_valid(const uint8_t *text, size_t n);

bool bt_unicode_is_letter(uint32_t code); /* \p{L} */
bool bt_unicode_is_number(uint32_t code); /* \p{N} */
bool bt_unicode_is_space(uint32_t code);  /* \s: White_Space */

#endif
