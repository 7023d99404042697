/* SPDX-License-Identifier: Apache-2.0 */
/* JSON's grammar (RFC 8259): a cursor that reads values strictly and never beyond its text.
 * Thread rule: any thread (no state). For use inside the http folder. */
#ifndef BT_HTTP_JSONTEXT_H
#define BT_HTTP_JSONTEXT_H
#include "http/jsonscan.h"

typedef struct {
    const char *text;
    size_t n, at;
} bt_json_cursor;

/* BAD_MESSAGE: "json: offset 7: wanted ..., found 'x'". */
baton_status bt_json_fail(const bt_json_cursor *cursor, const char *wanted);
void bt_json_skip_space(bt_json_cursor *cursor);
/* Steps over c if it is next. */
bool bt_json_take(bt_json_cursor *cursor, char c);
/* The value of that first byte. */
bt_json_type bt_json_type_of(char first);
/* Steps over a string, white space and the colon; *key (may be NULL) is the string with quotes. */
baton_status bt_json_read_key(bt_json_cursor *cursor, bt_slice *key);
/* Steps over one value that is already `depth` containers deep; cursor is at its first byte.
 * Errors: BAD_MESSAGE, TOO_LARGE (BT_JSON_MAX_DEPTH). */
baton_status bt_json_read_value(bt_json_cursor *cursor, unsigned depth);
/* Bytes of the UTF-8 sequence at text[0 .. n), 1 to 4; 0 when it is not valid (RFC 3629). */
size_t bt_utf8_length(const char *text, size_t n);

#endif
