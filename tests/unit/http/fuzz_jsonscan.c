/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as JSON: valid exactly when jansson says so (but for its limits and ours), and edits
 * give what the same edits give on jansson's tree. */
#include "http/jsonscan.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LOAD_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, MAX_SLICES = 1024 };

static const char *const keys[] = {"model", "a", "x"};

static void require(bool holds)
{
    if (!holds)
        abort();
}

static void walk(bt_json_value value)
{
    bt_json_iter iter = bt_json_begin(value);
    bt_json_value inner;
    char text[64];
    size_t n = 0;
    double number;
    while (bt_json_next(&iter, &inner)) {
        (void)bt_json_string(inner, text, sizeof(text), NULL);
        (void)bt_json_double(inner, &number);
        n++;
    }
    require(n == bt_json_length(value));
}

static void patch(const char *text, size_t size, json_t *tree)
{
    bt_json_object object;
    bt_slice slices[MAX_SLICES];
    size_t n;
    const bt_json_edit edits[] = {{BT_JSON_SET, 0, {"[1]", 3}}, {BT_JSON_REMOVE, 2, {NULL, 0}}};
    if (bt_json_scan(text, size, keys, 3, &object) != BATON_OK)
        return; /* too many occurrences of a key */
    require(bt_json_patch(&object, edits, 2, slices, MAX_SLICES, &n) == BATON_OK);
    char *patched = malloc(bt_slices_bytes(slices, n) + 1), *at = patched;
    for (size_t i = 0; i < n; i++) {
        memcpy(at, slices[i].at, slices[i].n);
        at += slices[i].n;
    }
    json_object_set_new(tree, keys[0], json_loads("[1]", LOAD_FLAGS, NULL));
    json_object_del(tree, keys[2]);
    json_t *found = json_loadb(patched, (size_t)(at - patched), LOAD_FLAGS, NULL);
    require(found != NULL && json_equal(found, tree));
    json_decref(found);
    free(patched);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    json_error_t error;
    bt_json_value value;
    baton_status status = bt_json_check(text, size, &value);
    json_t *tree = json_loadb(text, size, LOAD_FLAGS, &error);
    bool its_limit = tree == NULL && (json_error_code(&error) == json_error_numeric_overflow ||
                                      json_error_code(&error) == json_error_null_byte_in_key);
    if (memchr(text, '\0', size) != NULL) /* jansson overlooks some */
        require(status != BATON_OK);
    else if (status != BATON_ERR_TOO_LARGE && !its_limit)
        require((status == BATON_OK) == (tree != NULL));
    if (status == BATON_OK)
        walk(value);
    if (status == BATON_OK && json_is_object(tree)) /* NULL is none */
        patch(text, size, tree);
    json_decref(tree);
    return 0;
}
