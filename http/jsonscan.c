/* SPDX-License-Identifier: Apache-2.0 */
#include "http/jsonscan.h"

#include "core/fail.h"
#include "http/jsontext.h"

#include <assert.h>
#include <string.h>

static bool key_equals(bt_slice quoted, const char *name)
{
    bt_slice inner = {quoted.at + 1, quoted.n - 2};
    if (memchr(inner.at, '\\', inner.n) == NULL) /* raw keys hold no zero byte */
        return strncmp(name, inner.at, inner.n) == 0 && name[inner.n] == '\0';
    return bt_json_string_equals((bt_json_value){BT_JSON_STRING, quoted}, name);
}

static bt_json_value value_at(const char *text, size_t start, size_t end)
{
    return (bt_json_value){bt_json_type_of(text[start]), {text + start, end - start}};
}

/* Reads `"key" : value`, whose first byte is at cursor->at. */
static baton_status read_member(bt_json_cursor *cursor, unsigned depth, bt_slice *key,
                                bt_json_value *value)
{
    BATON_TRY(bt_json_read_key(cursor, key));
    bt_json_skip_space(cursor);
    size_t value_start = cursor->at;
    BATON_TRY(bt_json_read_value(cursor, depth));
    *value = value_at(cursor->text, value_start, cursor->at);
    return BATON_OK;
}

static baton_status record(bt_json_object *object, bt_slice key, bt_json_member member)
{
    for (size_t i = 0; i < object->n_keys; i++) {
        if (!key_equals(key, object->keys[i]))
            continue;
        if (object->n_recorded == BT_JSON_MAX_RECORDED)
            return bt_fail(BATON_ERR_TOO_LARGE,
                           "json: key '%s' and others occur more than %d times", object->keys[i],
                           BT_JSON_MAX_RECORDED);
        member.key = (uint32_t)i;
        object->last[i] = (int16_t)object->n_recorded;
        object->recorded[object->n_recorded++] = member;
        return BATON_OK;
    }
    return BATON_OK;
}

static baton_status scan_members(bt_json_cursor *cursor, bt_json_object *object)
{
    size_t comma = SIZE_MAX;
    bt_json_skip_space(cursor);
    if (bt_json_take(cursor, '}'))
        return BATON_OK;
    for (;;) {
        bt_slice key;
        bt_json_member member = {.comma_before = comma, .comma_after = SIZE_MAX};
        bt_json_skip_space(cursor);
        member.start = cursor->at;
        member.ordinal = object->n_members++;
        BATON_TRY(read_member(cursor, 1, &key, &member.value));
        member.end = cursor->at;
        bt_json_skip_space(cursor);
        comma = cursor->at;
        bool more = bt_json_take(cursor, ',');
        if (more)
            member.comma_after = comma;
        BATON_TRY(record(object, key, member));
        if (!more)
            return bt_json_take(cursor, '}') ? BATON_OK : bt_json_fail(cursor, "',' or '}'");
    }
}

baton_status bt_json_scan(const char *text, size_t n, const char *const *keys, size_t n_keys,
                          bt_json_object *object)
{
    assert(n_keys <= BT_JSON_MAX_KEYS);
    object->text = (bt_slice){text, n};
    object->keys = keys;
    object->n_keys = n_keys;
    object->n_members = object->n_recorded = 0;
    for (size_t i = 0; i < n_keys; i++)
        object->last[i] = -1;

    bt_json_cursor cursor = {.text = text, .n = n};
    bt_json_skip_space(&cursor);
    if (!bt_json_take(&cursor, '{'))
        return bt_json_fail(&cursor, "an object");
    BATON_TRY(scan_members(&cursor, object));
    object->close = cursor.at - 1;
    bt_json_skip_space(&cursor);
    return cursor.at == n ? BATON_OK : bt_json_fail(&cursor, "nothing behind the object");
}

bt_json_value bt_json_at(const bt_json_object *object, size_t key)
{
    assert(key < object->n_keys);
    if (object->last[key] < 0)
        return (bt_json_value){BT_JSON_ABSENT, {NULL, 0}};
    return object->recorded[object->last[key]].value;
}

baton_status bt_json_check(const char *text, size_t n, bt_json_value *value)
{
    bt_json_cursor cursor = {.text = text, .n = n};
    bt_json_skip_space(&cursor);
    size_t start = cursor.at;
    BATON_TRY(bt_json_read_value(&cursor, 0));
    size_t end = cursor.at;
    bt_json_skip_space(&cursor);
    if (cursor.at != n)
        return bt_json_fail(&cursor, "nothing behind the value");
    if (value != NULL)
        *value = value_at(text, start, end);
    return BATON_OK;
}

bt_json_iter bt_json_begin(bt_json_value container)
{
    bt_json_iter iter = {.rest = {"", 0}};
    if (container.type == BT_JSON_ARRAY || container.type == BT_JSON_OBJECT)
        iter.rest = (bt_slice){container.text.at + 1, container.text.n - 2};
    iter.is_object = container.type == BT_JSON_OBJECT;
    return iter;
}

/* The text has been checked, so failures mean "no more"; still nothing is read beyond rest. */
bool bt_json_next(bt_json_iter *iter, bt_json_value *value)
{
    bt_json_cursor cursor = {.text = iter->rest.at, .n = iter->rest.n};
    bt_json_skip_space(&cursor);
    if (cursor.at == cursor.n)
        return false;
    iter->key = (bt_json_value){BT_JSON_ABSENT, {NULL, 0}};
    if (iter->is_object) {
        iter->key.type = BT_JSON_STRING;
        if (read_member(&cursor, 0, &iter->key.text, value) != BATON_OK)
            return false;
    } else {
        size_t start = cursor.at;
        if (bt_json_read_value(&cursor, 0) != BATON_OK)
            return false;
        *value = value_at(cursor.text, start, cursor.at);
    }
    bt_json_skip_space(&cursor);
    bt_json_take(&cursor, ',');
    iter->rest.at += cursor.at;
    iter->rest.n -= cursor.at;
    return true;
}

size_t bt_json_length(bt_json_value container)
{
    bt_json_iter iter = bt_json_begin(container);
    bt_json_value value;
    size_t n = 0;
    while (bt_json_next(&iter, &value))
        n++;
    return n;
}

baton_status bt_json_get(bt_json_value object, const char *name, bt_json_value *value)
{
    if (object.type != BT_JSON_OBJECT)
        return bt_fail(BATON_ERR_INVALID_ARG, "json: wanted an object with '%s'", name);
    bt_json_iter iter = bt_json_begin(object);
    bt_json_value found, last = {BT_JSON_ABSENT, {NULL, 0}};
    while (bt_json_next(&iter, &found)) {
        if (key_equals(iter.key.text, name))
            last = found;
    }
    if (last.type == BT_JSON_ABSENT)
        return bt_fail(BATON_ERR_NOT_FOUND, "json: no member '%s'", name);
    *value = last;
    return BATON_OK;
}

/* A growing list of slices; too_many is set where it would not fit. */
typedef struct {
    bt_slice *slices;
    size_t max, n;
    bool too_many;
} plan;

static void emit(plan *p, const char *at, size_t n)
{
    if (n == 0)
        return;
    if (p->n == p->max) {
        p->too_many = true;
        return;
    }
    p->slices[p->n++] = (bt_slice){at, n};
}

static baton_status index_edits(const bt_json_object *object, const bt_json_edit *edits,
                                size_t n_edits, const bt_json_edit **edit_of)
{
    for (size_t i = 0; i < n_edits; i++) {
        if (edits[i].key >= object->n_keys)
            return bt_fail(BATON_ERR_INVALID_ARG, "json: edit of key %zu, there are %zu",
                           edits[i].key, object->n_keys);
        if (edit_of[edits[i].key] != NULL)
            return bt_fail(BATON_ERR_INVALID_ARG, "json: two edits of '%s'",
                           object->keys[edits[i].key]);
        edit_of[edits[i].key] = &edits[i];
    }
    return BATON_OK;
}

/* Emits the text up to the closing brace with members replaced and removed; returns how many were
 * removed. A removed member takes the comma before it along, or, when no member is left before it,
 * the comma behind it. */
static size_t emit_members(plan *p, const bt_json_object *object,
                           const bt_json_edit *const *edit_of)
{
    const char *text = object->text.at;
    size_t at = 0, n_removed = 0;
    for (uint32_t i = 0; i < object->n_recorded; i++) {
        const bt_json_member *member = &object->recorded[i];
        const bt_json_edit *edit = edit_of[member->key];
        if (edit == NULL)
            continue;
        size_t cut = member->comma_before, resume = member->end;
        if (edit->kind == BT_JSON_SET && object->last[member->key] == (int16_t)i) {
            cut = (size_t)(member->value.text.at - text);
        } else if (member->ordinal > n_removed++) {
            edit = NULL;
        } else {
            cut = member->start;
            if (member->comma_after != SIZE_MAX)
                resume = member->comma_after + 1;
            edit = NULL;
        }
        emit(p, text + at, cut - at);
        if (edit != NULL)
            emit(p, edit->value.at, edit->value.n);
        at = resume;
    }
    emit(p, text + at, object->close - at);
    return n_removed;
}

baton_status bt_json_patch(const bt_json_object *object, const bt_json_edit *edits, size_t n_edits,
                           bt_slice *slices, size_t max_slices, size_t *n_slices)
{
    const bt_json_edit *edit_of[BT_JSON_MAX_KEYS] = {0};
    BATON_TRY(index_edits(object, edits, n_edits, edit_of));
    plan p = {.slices = slices, .max = max_slices};
    size_t n_left = object->n_members - emit_members(&p, object, edit_of);
    for (size_t i = 0; i < n_edits; i++) {
        if (edits[i].kind != BT_JSON_SET || object->last[edits[i].key] >= 0)
            continue;
        emit(&p, &",\""[n_left == 0], 2 - (n_left == 0));
        emit(&p, object->keys[edits[i].key], strlen(object->keys[edits[i].key]));
        emit(&p, "\":", 2);
        emit(&p, edits[i].value.at, edits[i].value.n);
        n_left++;
    }
    emit(&p, object->text.at + object->close, object->text.n - object->close);
    if (p.too_many)
        return bt_fail(BATON_ERR_TOO_LARGE, "json: edits need more than %zu slices", max_slices);
    *n_slices = p.n;
    return BATON_OK;
}
