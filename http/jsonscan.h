/* SPDX-License-Identifier: Apache-2.0 */
/* JSON without a document tree: one pass checks a whole text (RFC 8259, strict: UTF-8, surrogate
 * pairs, numbers, depth) and records where chosen top-level members are; edits are then planned as
 * a list of slices of the original text and small patches, so that everything else stays byte for
 * byte as it came.
 *
 *   text    {"model":"m", "max_tokens":100, "prompt":[1,2,3]}
 *   edit    SET max_tokens 1
 *   slices  [{"model":"m", "max_tokens":] [1] [, "prompt":[1,2,3]}]
 *
 * Of several members with one name the last counts, as in Python's parser; SET and REMOVE take all
 * of them out of the result, so that no reader can see another one.
 *
 * Values are borrowed from the text. Thread rule: any thread (no state). */
#ifndef BT_HTTP_JSONSCAN_H
#define BT_HTTP_JSONSCAN_H
#include "core/strbuf.h"
#include "http/httpmsg.h"

typedef enum {
    BT_JSON_ABSENT,
    BT_JSON_NULL,
    BT_JSON_FALSE,
    BT_JSON_TRUE,
    BT_JSON_NUMBER,
    BT_JSON_STRING,
    BT_JSON_ARRAY,
    BT_JSON_OBJECT,
} bt_json_type;

/* A value of a checked text, without white space around it. */
typedef struct {
    bt_json_type type;
    bt_slice text; /* strings with their quotes */
} bt_json_value;

enum {
    BT_JSON_MAX_DEPTH = 256,
    BT_JSON_MAX_KEYS = 64,
    BT_JSON_MAX_RECORDED = 96, /* occurrences of the wanted keys in one object */
};

/* One occurrence of a wanted key; offsets into the text. */
typedef struct {
    uint32_t key;                     /* index into the wanted keys */
    uint32_t ordinal;                 /* 0 for the object's first member, wanted or not */
    size_t comma_before, comma_after; /* SIZE_MAX: none */
    size_t start, end;                /* from the key's opening quote to behind the value */
    bt_json_value value;
} bt_json_member;

/* What a scan found. Borrows text and keys. */
typedef struct {
    bt_slice text;
    const char *const *keys;
    size_t n_keys;
    size_t close;       /* offset of the closing brace */
    uint32_t n_members; /* all of the object's */
    uint32_t n_recorded;
    bt_json_member recorded[BT_JSON_MAX_RECORDED]; /* in text order */
    int16_t last[BT_JSON_MAX_KEYS]; /* [key]: index of its last occurrence, -1: absent */
} bt_json_object;

/* Checks the text, which must be one object, and records the members called keys[n_keys] (plain
 * ASCII without escapes, at most BT_JSON_MAX_KEYS; a key written with escapes in the text is found
 * too). Errors: BAD_MESSAGE (with the offset), TOO_LARGE (depth, or a wanted key too often). */
baton_status bt_json_scan(const char *text, size_t n, const char *const *keys, size_t n_keys,
                          bt_json_object *object);
/* Value of keys[key]; type ABSENT when it is not there. */
bt_json_value bt_json_at(const bt_json_object *object, size_t key);
/* Checks a text that may be any one value, and gives it without white space around it; value may be
 * NULL. Errors as above. */
baton_status bt_json_check(const char *text, size_t n, bt_json_value *value);

/* Member `name` of a checked object value (the last one of that name). Errors: NOT_FOUND;
 * INVALID_ARG when it is no object. */
baton_status bt_json_get(bt_json_value object, const char *name, bt_json_value *value);

/* Walks a checked array or object: `bt_json_iter it = bt_json_begin(array);
 * while (bt_json_next(&it, &value)) ...`. Nothing to walk when it is neither. */
typedef struct {
    bt_slice rest;
    bool is_object;
    bt_json_value key; /* of the member that bt_json_next gave; ABSENT in arrays */
} bt_json_iter;
bt_json_iter bt_json_begin(bt_json_value container);
bool bt_json_next(bt_json_iter *iter, bt_json_value *value);
/* Elements or members. */
size_t bt_json_length(bt_json_value container);

/* Errors: INVALID_ARG (another type; for ints also 1.5 and 1e3), OUT_OF_RANGE. */
baton_status bt_json_uint64(bt_json_value value, uint64_t *out);
baton_status bt_json_double(bt_json_value value, double *out);
/* The string's text as UTF-8 into out[cap], with a 0 behind it; *n (may be NULL) is its length, as
 * \u0000 may be in it. Decoded text is never longer than value.text.n - 2.
 * Errors: INVALID_ARG (no string), TOO_LARGE (cap). */
baton_status bt_json_string(bt_json_value value, char *out, size_t cap, size_t *n);
bool bt_json_string_equals(bt_json_value value, const char *text);

typedef enum {
    BT_JSON_SET,    /* replace the value; a key that is not there is added at the end */
    BT_JSON_REMOVE, /* nothing happens when it is not there */
} bt_json_edit_kind;
typedef struct {
    bt_json_edit_kind kind;
    size_t key;     /* index into the scan's keys; at most one edit per key */
    bt_slice value; /* SET: JSON text, borrowed as long as the slices are used; not checked */
} bt_json_edit;
/* Plans the edited text: slices[0 .. *n_slices) one after the other are the new text. They point
 * into the scanned text, the edits' values and constants.
 * Errors: INVALID_ARG (key index, two edits of one key), TOO_LARGE (max_slices). */
baton_status bt_json_patch(const bt_json_object *object, const bt_json_edit *edits, size_t n_edits,
                           bt_slice *slices, size_t max_slices, size_t *n_slices);
/* Writes text[n] as a JSON string, quotes included, into out[cap]; invalid UTF-8 becomes U+FFFD.
 * 0-terminated and cut when cap is short. Result: bytes needed without the 0, as snprintf. */
size_t bt_json_quote(char *out, size_t cap, const char *text, size_t n);
/* As above, appended to buf. */
void bt_json_append_string(bt_strbuf *buf, const char *text, size_t n);

#endif
