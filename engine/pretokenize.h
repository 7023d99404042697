/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting text into the pieces that byte-pair merges stay within: the three regular expressions
 * that byte-level BPE models use, written out by hand, so that no regular expression engine runs
 * on a client's text and the cost is linear.
 *
 * Thread rule: any thread. */
#ifndef BT_ENGINE_PRETOKENIZE_H
#define BT_ENGINE_PRETOKENIZE_H
#include <stddef.h>
#include <stdint.h>

#define BT_SPLIT_REGEX_GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define BT_SPLIT_REGEX_LLAMA3                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define BT_SPLIT_REGEX_QWEN2                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

typedef enum {
    BT_SPLIT_NONE, /* the whole text is one piece */
    BT_SPLIT_GPT2,
    BT_SPLIT_LLAMA3,
    BT_SPLIT_QWEN2, /* as LLAMA3, but every digit stands alone */
} bt_split;

/* Where the piece that begins at pos < n ends; always behind pos. */
size_t bt_split_next(bt_split split, const uint8_t *text, size_t n, size_t pos);

#endif
