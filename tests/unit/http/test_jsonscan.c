/* SPDX-License-Identifier: Apache-2.0 */
/* The scanner against jansson, and patched texts against the same edits on a jansson tree. */
#include "support/test.h"

#include "core/alloc.h"
#include "http/jsonscan.h"

#include <jansson.h>
#include <stdio.h>

static const char *const keys[] = {"model", "max_tokens", "stream", "prompt", "x"};
enum { LOAD_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL };
enum { MODEL, MAX_TOKENS, STREAM, PROMPT, X, N_KEYS };

static char *join(const bt_slice *slices, size_t n)
{
    char *text = bt_calloc(bt_slices_bytes(slices, n) + 1, 1), *at = text;
    for (size_t i = 0; i < n; i++) {
        memcpy(at, slices[i].at, slices[i].n);
        at += slices[i].n;
    }
    return text;
}

static void members_are_found_where_they_are(void **state)
{
    (void)state;
    const char *text =
        " { \"model\" : \"m\\n\" ,\"o\":{\"x\":1},\"max_tokens\":12 , \"x\":[1,{}] } ";
    bt_json_object object;
    assert_ok(bt_json_scan(text, strlen(text), keys, N_KEYS, &object));
    assert_int_equal(object.n_members, 4);
    assert_true(bt_slice_equals(bt_json_at(&object, MODEL).text, "\"m\\n\""));
    assert_true(bt_slice_equals(bt_json_at(&object, X).text, "[1,{}]"));
    assert_int_equal(bt_json_at(&object, X).type, BT_JSON_ARRAY);
    assert_int_equal(bt_json_at(&object, STREAM).type, BT_JSON_ABSENT);
    uint64_t n;
    assert_ok(bt_json_uint64(bt_json_at(&object, MAX_TOKENS), &n));
    assert_int_equal(n, 12);
}

static void the_last_duplicate_wins_also_when_its_key_is_escaped(void **state)
{
    (void)state;
    const char *text = "{\"x\":1,\"\\u0078\":2,\"\\u0078y\":3}";
    bt_json_object object;
    assert_ok(bt_json_scan(text, strlen(text), keys, N_KEYS, &object));
    assert_int_equal(object.n_recorded, 2);
    assert_true(bt_slice_equals(bt_json_at(&object, X).text, "2"));
}

/* Wanted error, by text. */
static void malformed_texts_are_refused_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "offset 0: wanted an object, found the end"},
        {"[]", "wanted an object"},
        {"{", "a key"},
        {"{\"a\"}", "':'"},
        {"{\"a\":}", "a value"},
        {"{\"a\":1,}", "a key"},
        {"{\"a\":1 \"b\":2}", "',' or '}'"},
        {"{\"a\":1}x", "nothing behind"},
        {"{'a':1}", "a key"},
        {"{\"a\":01}", "leading 0"},
        {"{\"a\":1.}", "behind '.'"},
        {"{\"a\":1e}", "exponent"},
        {"{\"a\":+1}", "a value"},
        {"{\"a\":NaN}", "a value"},
        {"{\"a\":-}", "a digit"},
        {"{\"a\":tru}", "true"},
        {"{\"a\":\"\n\"}", "control"},
        {"{\"a\":\"\\x\"}", "an escape"},
        {"{\"a\":\"\\u12g4\"}", "hex"},
        {"{\"a\":\"\\ud800\"}", "surrogate"},
        {"{\"a\":\"\\udc00\"}", "surrogate"},
        {"{\"a\":\"\\ud800\\u0041\"}", "surrogate"},
        {"{\"a\":\"\xc0\x80\"}", "UTF-8"},
        {"{\"a\":\"\xed\xa0\x80\"}", "UTF-8"},
        {"{\"a\":\"\xf4\x90\x80\x80\"}", "UTF-8"},
        {"{\"a\":\"\xe4\xbd\"}", "UTF-8"},
        {"{\"a\":\"", "'\"'"},
        {"{\"a\":[1,]}", "a value"},
        {"{\"a\":[1}", "',' or ']'"},
        {"\xef\xbb\xbf{}", "an object"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = strlen(cases[i].text);
        bt_json_object object;
        uint8_t *text = bt_guarded_copy(cases[i].text, n);
        assert_fails(bt_json_scan((char *)text, n, keys, N_KEYS, &object), BATON_ERR_BAD_MESSAGE,
                     cases[i].error);
        bt_guarded_free(text, n);
    }
}

static void every_cut_of_a_text_is_refused_without_reading_beyond(void **state)
{
    (void)state;
    static const char whole[] =
        "{\"model\":\"a long enough string for a vector \\ud83d\\ude00 \xf0\x9f\x98\x80\\\\\","
        "\"x\":[-1.5e+3,true,false,null,{\"k\":[[]]}]}";
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        uint8_t *text = bt_guarded_copy(whole, n);
        bt_json_object object;
        assert_int_equal(bt_json_scan((char *)text, n, keys, N_KEYS, &object),
                         BATON_ERR_BAD_MESSAGE);
        bt_guarded_free(text, n);
    }
    assert_ok(bt_json_check(whole, sizeof(whole) - 1, NULL));
}

static void depth_and_repetition_are_limited(void **state)
{
    (void)state;
    char text[4096];
    memset(text, '[', BT_JSON_MAX_DEPTH);
    memset(text + BT_JSON_MAX_DEPTH, ']', BT_JSON_MAX_DEPTH);
    assert_ok(bt_json_check(text, 2 * BT_JSON_MAX_DEPTH, NULL));
    memset(text, '[', BT_JSON_MAX_DEPTH + 1);
    assert_fails(bt_json_check(text, 2 * BT_JSON_MAX_DEPTH, NULL), BATON_ERR_TOO_LARGE, "nested");
    strcpy(text, "{\"x\":0");
    for (int i = 0; i < BT_JSON_MAX_RECORDED; i++)
        strcat(text, ",\"x\":0");
    strcat(text, "}");
    bt_json_object object;
    assert_fails(bt_json_scan(text, strlen(text), keys, N_KEYS, &object), BATON_ERR_TOO_LARGE,
                 "'x'");
}

static void nested_members_and_elements_can_be_walked(void **state)
{
    (void)state;
    const char *text = "{\"x\":{\"a\":1,\"b\":[10, 20 ,30],\"a\":[]}}";
    bt_json_object object;
    bt_json_value value;
    assert_ok(bt_json_scan(text, strlen(text), keys, N_KEYS, &object));
    bt_json_value inner = bt_json_at(&object, X);
    assert_ok(bt_json_get(inner, "a", &value));
    assert_int_equal(value.type, BT_JSON_ARRAY);
    assert_int_equal(bt_json_length(value), 0);
    assert_int_equal(bt_json_length(inner), 3);
    assert_fails(bt_json_get(inner, "c", &value), BATON_ERR_NOT_FOUND, "'c'");
    assert_fails(bt_json_get(value, "c", &value), BATON_ERR_INVALID_ARG, "object");
    assert_ok(bt_json_get(inner, "b", &value));
    bt_json_iter iter = bt_json_begin(value);
    static const uint64_t wanted[] = {10, 20, 30};
    size_t n = 0;
    uint64_t number;
    while (bt_json_next(&iter, &value)) {
        assert_ok(bt_json_uint64(value, &number));
        assert_int_equal(number, wanted[n++]);
    }
    assert_int_equal(n, 3);
}

static bt_json_value value_of(const char *text)
{
    bt_json_value value;
    assert_ok(bt_json_check(text, strlen(text), &value));
    return value;
}

static void scalars_are_read_within_their_range(void **state)
{
    (void)state;
    uint64_t u;
    double d;
    assert_ok(bt_json_uint64(value_of("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_fails(bt_json_uint64(value_of("18446744073709551616"), &u), BATON_ERR_OUT_OF_RANGE,
                 "64");
    assert_fails(bt_json_uint64(value_of("-1"), &u), BATON_ERR_OUT_OF_RANGE, "0 or more");
    assert_fails(bt_json_uint64(value_of("1.0"), &u), BATON_ERR_INVALID_ARG, "fraction");
    assert_fails(bt_json_uint64(value_of("\"1\""), &u), BATON_ERR_INVALID_ARG, "string");
    assert_ok(bt_json_double(value_of("-1.5e2"), &d));
    assert_true(d == -150.0);
    assert_fails(bt_json_double(value_of("1e999"), &d), BATON_ERR_OUT_OF_RANGE, "double");
}

static void strings_are_decoded_into_bounded_room(void **state)
{
    (void)state;
    char out[32];
    size_t n;
    bt_json_value value = value_of("\"a\\u0000\\ud83d\\ude00\\u20ac\\u00e4\\/\\t\"");
    assert_ok(bt_json_string(value, out, sizeof(out), &n));
    assert_int_equal(n, 13);
    assert_memory_equal(out, "a\0\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xa4/\t", 14);
    assert_ok(bt_json_string(value, out, 14, &n));
    for (size_t cap = 0; cap < 14; cap++)
        assert_fails(bt_json_string(value, out, cap, &n), BATON_ERR_TOO_LARGE, "json");
    assert_true(bt_json_string_equals(value_of("\"m\\u006fdel\""), "model"));
    assert_false(bt_json_string_equals(value_of("\"mode\""), "model"));
    assert_false(bt_json_string_equals(value_of("\"models\""), "model"));
}

static void quoted_text_reads_back(void **state)
{
    (void)state;
    static const char text[] = "\"\\/\b\f\n\r\t\x01\x7f \xc3\xa4\xf0\x9f\x98\x80";
    char quoted[128], back[64];
    size_t n = bt_json_quote(quoted, sizeof(quoted), text, sizeof(text) - 1);
    assert_int_equal(n, strlen(quoted));
    assert_ok(bt_json_string(value_of(quoted), back, sizeof(back), &n));
    assert_int_equal(n, sizeof(text) - 1);
    assert_memory_equal(back, text, n);
    bt_json_quote(quoted, sizeof(quoted), "\xff\xe4", 2);
    assert_string_equal(quoted, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_int_equal(bt_json_quote(NULL, 0, "ab", 2), 4);
}

static void patches_keep_every_other_byte(void **state)
{
    (void)state;
    static const struct {
        const char *text, *set_x, *wanted; /* set_x NULL: x is removed */
    } cases[] = {
        {"{}", "1", "{\"x\":1}"},
        {" { } ", "1", " { \"x\":1} "},
        {"{\"a\":1}", "2", "{\"a\":1,\"x\":2}"},
        {"{\"x\" : 1 , \"a\":1e3}", "[]", "{\"x\" : [] , \"a\":1e3}"},
        {"{\"x\":1,\"a\":0,\"x\":2}", "3", "{\"a\":0,\"x\":3}"},
        {"{\"a\":0,\"x\":1,\"x\":2,\"b\":0}", "3", "{\"a\":0,\"x\":3,\"b\":0}"},
        {"{\"x\":1}", NULL, "{}"},
        {"{\"x\":1,\"x\":2}", NULL, "{}"},
        {"{\"x\":1 , \"a\":1}", NULL, "{ \"a\":1}"},
        {"{\"a\":1 , \"x\":1}", NULL, "{\"a\":1 }"},
        {"{\"a\":1,\"x\":1,\"b\":2}", NULL, "{\"a\":1,\"b\":2}"},
        {"{\"x\":0,\"a\":1,\"x\":1,\"b\":2,\"x\":3}", NULL, "{\"a\":1,\"b\":2}"},
        {"{\"a\":1}", NULL, "{\"a\":1}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_json_object object;
        bt_slice slices[32];
        size_t n;
        bt_json_edit edit = {.kind = BT_JSON_REMOVE, .key = X};
        if (cases[i].set_x != NULL)
            edit = (bt_json_edit){BT_JSON_SET, X, bt_slice_of(cases[i].set_x)};
        assert_ok(bt_json_scan(cases[i].text, strlen(cases[i].text), keys, N_KEYS, &object));
        assert_ok(bt_json_patch(&object, &edit, 1, slices, 32, &n));
        char *text = join(slices, n);
        assert_string_equal(text, cases[i].wanted);
        bt_free(text);
    }
}

static void bad_edits_are_refused(void **state)
{
    (void)state;
    bt_json_object object;
    bt_slice slices[2];
    size_t n;
    assert_ok(bt_json_scan("{\"a\":1}", 7, keys, N_KEYS, &object));
    bt_json_edit edits[] = {{BT_JSON_SET, X, {"1", 1}}, {BT_JSON_REMOVE, X, {NULL, 0}}};
    assert_fails(bt_json_patch(&object, edits, 2, slices, 2, &n), BATON_ERR_INVALID_ARG, "two");
    assert_fails(bt_json_patch(&object, edits, 1, slices, 2, &n), BATON_ERR_TOO_LARGE, "2 slices");
    edits[0].key = N_KEYS;
    assert_fails(bt_json_patch(&object, edits, 1, slices, 2, &n), BATON_ERR_INVALID_ARG, "key");
}

/* Random texts: a small grammar, now and then with a byte changed. */
typedef struct {
    bt_rng rng;
    char text[4096];
    size_t n;
} maker;

static void put(maker *m, const char *text)
{
    size_t n = strlen(text);
    if (m->n + n < sizeof(m->text) - 64) {
        memcpy(m->text + m->n, text, n);
        m->n += n;
    }
}

static void make_value(maker *m, unsigned depth);

static void make_members(maker *m, unsigned depth, bool named)
{
    static const char *const names[] = {"\"x\"",      "\"model\"",  "\"a\"", "\"\\u0078\"",
                                        "\"stream\"", "\"prompt\"", "\"\""};
    uint64_t n = bt_rng_below(&m->rng, 5);
    for (uint64_t i = 0; i < n; i++) {
        if (i > 0)
            put(m, bt_rng_below(&m->rng, 2) ? "," : " ,\n");
        if (named) {
            put(m, names[bt_rng_below(&m->rng, 7)]);
            put(m, bt_rng_below(&m->rng, 2) ? ":" : " : ");
        }
        make_value(m, depth + 1);
    }
}

static void make_value(maker *m, unsigned depth)
{
    static const char *const scalars[] = {"null",
                                          "true",
                                          "false",
                                          "0",
                                          "-1",
                                          "1.5e3",
                                          "123456789",
                                          "\"\"",
                                          "\"a b\"",
                                          "\"\\n\\u00e4\"",
                                          "\"\xe2\x82\xac\"",
                                          "\"0123456789abcdef0123456789abcdef\\\"\"",
                                          "\"\\ud83d\\ude00\""};
    uint64_t kind = bt_rng_below(&m->rng, depth < 5 ? 5 : 3);
    if (kind < 3) {
        put(m, scalars[bt_rng_below(&m->rng, sizeof(scalars) / sizeof(scalars[0]))]);
        return;
    }
    put(m, kind == 3 ? "{" : "[");
    make_members(m, depth, kind == 3);
    put(m, kind == 3 ? "}" : " ]");
}

static json_t *load(const char *text, size_t n)
{
    return json_loadb(text, n, LOAD_FLAGS, NULL);
}

static void validity_agrees_with_jansson(void **state)
{
    (void)state;
    maker m = {.rng = {1}};
    unsigned n_good = 0, n_bad = 0;
    for (unsigned round = 0; round < 20000; round++) {
        m.n = 0;
        make_value(&m, 0);
        if (round % 2 == 1)
            m.text[bt_rng_below(&m.rng, m.n)] = (char)(1 + bt_rng_below(&m.rng, 255));
        uint8_t *text = bt_guarded_copy(m.text, m.n);
        json_error_t error;
        json_t *tree = json_loadb((char *)text, m.n, LOAD_FLAGS, &error);
        baton_status status = bt_json_check((char *)text, m.n, NULL);
        /* jansson turns numbers into doubles, and refuses those that do not fit. */
        bool too_big = tree == NULL && json_error_code(&error) == json_error_numeric_overflow;
        if ((tree != NULL) != (status == BATON_OK) && !too_big)
            fail_msg("jansson %s, ours %s: '%.*s'", tree != NULL ? "accepts" : "refuses",
                     status == BATON_OK ? "accepts" : baton_last_error(), (int)m.n, m.text);
        n_good += status == BATON_OK;
        n_bad += status != BATON_OK;
        json_decref(tree);
        bt_guarded_free(text, m.n);
    }
    assert_true(n_good > 5000 && n_bad > 2000);
}

static void check_patched(const char *text, size_t n, const bt_json_edit *edits, size_t n_edits)
{
    bt_json_object object;
    bt_slice slices[256];
    size_t n_slices;
    json_t *tree = load(text, n);
    assert_ok(bt_json_scan(text, n, keys, N_KEYS, &object));
    assert_ok(bt_json_patch(&object, edits, n_edits, slices, 256, &n_slices));
    for (size_t i = 0; i < n_edits; i++) {
        if (edits[i].kind == BT_JSON_SET)
            json_object_set_new(tree, keys[edits[i].key],
                                load(edits[i].value.at, edits[i].value.n));
        else
            json_object_del(tree, keys[edits[i].key]);
    }
    char *patched = join(slices, n_slices);
    json_t *found = load(patched, strlen(patched));
    if (found == NULL || !json_equal(tree, found))
        fail_msg("'%.*s' became '%s'", (int)n, text, patched);
    json_decref(found);
    json_decref(tree);
    bt_free(patched);
}

static void random_patches_agree_with_jansson(void **state)
{
    (void)state;
    maker m = {.rng = {2}};
    for (unsigned round = 0; round < 20000; round++) {
        m.n = 0;
        put(&m, "{");
        make_members(&m, 1, true);
        put(&m, "}");
        bt_json_edit edits[N_KEYS];
        size_t n_edits = 0;
        for (size_t key = 0; key < N_KEYS; key++) {
            uint64_t kind = bt_rng_below(&m.rng, 3);
            if (kind < 2)
                edits[n_edits++] = (bt_json_edit){kind == 0 ? BT_JSON_SET : BT_JSON_REMOVE, key,
                                                  bt_slice_of("[\"new\"]")};
        }
        check_patched(m.text, m.n, edits, n_edits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(members_are_found_where_they_are),
        bt_test(the_last_duplicate_wins_also_when_its_key_is_escaped),
        bt_test(malformed_texts_are_refused_with_their_place),
        bt_test(every_cut_of_a_text_is_refused_without_reading_beyond),
        bt_test(depth_and_repetition_are_limited),
        bt_test(nested_members_and_elements_can_be_walked),
        bt_test(scalars_are_read_within_their_range),
        bt_test(strings_are_decoded_into_bounded_room),
        bt_test(quoted_text_reads_back),
        bt_test(patches_keep_every_other_byte),
        bt_test(bad_edits_are_refused),
        bt_test(validity_agrees_with_jansson),
        bt_test(random_patches_agree_with_jansson),
    };
    return bt_run_tests(tests);
}
