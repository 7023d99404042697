/* SPDX-License-Identifier: Apache-2.0 */
/* JSON as it is written down, one value after the other, without a tree. key is NULL inside arrays
 * and for the outermost value. Whether memory ran out is asked of the text, at the end.
 *
 *   bt_jsonwriter json = {.out = &text};
 *   bt_jw_open(&json, NULL, '{');
 *   bt_jw_u64(&json, "pages", 4);
 *   bt_jw_close(&json);                                   {"pages":4}
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_JSONWRITER_H
#define BT_CORE_JSONWRITER_H
#include "core/strbuf.h"

enum { BT_JSONWRITER_DEPTH_MAX = 16 };

typedef struct {
    bt_strbuf *out;
    uint32_t depth;
    bool has_values[BT_JSONWRITER_DEPTH_MAX + 1]; /* [depth] a comma comes first */
    char closers[BT_JSONWRITER_DEPTH_MAX + 1];
} bt_jsonwriter;

void bt_jw_open(bt_jsonwriter *json, const char *key, char bracket); /* '{' or '[' */
void bt_jw_close(bt_jsonwriter *json);                               /* the last one opened */
/* text NULL: null. What is no UTF-8 in it becomes U+FFFD. */
void bt_jw_text(bt_jsonwriter *json, const char *key, const char *text);
void bt_jw_u64(bt_jsonwriter *json, const char *key, uint64_t value);
void bt_jw_i64(bt_jsonwriter *json, const char *key, int64_t value);
void bt_jw_bool(bt_jsonwriter *json, const char *key, bool value);
/* With so many decimals; null when it is not finite. */
void bt_jw_double(bt_jsonwriter *json, const char *key, double value, int decimals);
/* As a text of 16 digits: JSON's readers may lose digits of large numbers. */
void bt_jw_hex64(bt_jsonwriter *json, const char *key, uint64_t value);
/* Milliseconds, with three decimals. */
void bt_jw_ms(bt_jsonwriter *json, const char *key, uint64_t ns);

#endif
