/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/strbuf.h"
#include "engine/stops.h"

/* Feeds text in pieces of n bytes; the text given out before a stop string. */
static void feed(const bt_stops *stops, const char *text, size_t n_piece, bt_strbuf *out, bool *hit)
{
    bt_strbuf held = {0};
    size_t n = strlen(text);
    *hit = false;
    for (size_t at = 0; at < n && !*hit; at += n_piece) {
        bt_strbuf_append(&held, text + at, n - at < n_piece ? n - at : n_piece);
        size_t safe = bt_stops_scan(stops, held.data, held.length, hit);
        bt_strbuf_append(out, held.data, safe);
        bt_strbuf rest = {0};
        bt_strbuf_append(&rest, held.data + safe, held.length - safe);
        bt_strbuf_free(&held);
        held = rest;
    }
    if (!*hit)
        bt_strbuf_append(out, bt_strbuf_text(&held), held.length);
    bt_strbuf_free(&held);
}

static void check(const bt_stops *stops, const char *text, const char *wanted, bool wanted_hit)
{
    for (size_t n_piece = 1; n_piece <= strlen(text); n_piece++) {
        bt_strbuf out = {0};
        bool hit;
        feed(stops, text, n_piece, &out, &hit);
        assert_string_equal(bt_strbuf_text(&out), wanted);
        assert_int_equal(hit, wanted_hit);
        bt_strbuf_free(&out);
    }
}

static void a_stop_string_is_found_wherever_it_is_cut(void **state)
{
    (void)state;
    bt_stops stops = {0};
    assert_ok(bt_stops_add(&stops, "\n\nQ:"));
    assert_ok(bt_stops_add(&stops, "END"));
    check(&stops, "answer\n\nQ: next", "answer", true);
    check(&stops, "the ENDING", "the ", true);
    check(&stops, "E EN END", "E EN ", true);
    check(&stops, "\n\n\nQ:", "\n", true);
    check(&stops, "\n\nQ EN", "\n\nQ EN", false);
    bt_stops_clear(&stops);
}

static void what_may_become_a_stop_string_is_held_back(void **state)
{
    (void)state;
    bt_stops stops = {0};
    assert_ok(bt_stops_add(&stops, "aab"));
    bool hit;
    assert_int_equal(bt_stops_scan(&stops, "xa", 2, &hit), 1);
    assert_int_equal(bt_stops_scan(&stops, "xaaa", 4, &hit), 2);
    assert_false(hit);
    assert_int_equal(bt_stops_scan(&stops, "xaaab", 5, &hit), 2);
    assert_true(hit);
    bt_stops_clear(&stops);
}

static void bad_stop_strings_are_refused(void **state)
{
    (void)state;
    bt_stops stops = {0};
    char text[BT_MAX_STOP_BYTES + 2];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    assert_fails(bt_stops_add(&stops, ""), BATON_ERR_INVALID_ARG, "empty");
    assert_fails(bt_stops_add(&stops, text), BATON_ERR_TOO_LARGE, "found 257");
    for (int i = 0; i < BT_MAX_STOPS; i++)
        assert_ok(bt_stops_add(&stops, text + 1));
    assert_fails(bt_stops_add(&stops, "y"), BATON_ERR_TOO_LARGE, "at most 16");
    bt_stops_clear(&stops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_stop_string_is_found_wherever_it_is_cut),
        bt_test(what_may_become_a_stop_string_is_held_back),
        bt_test(bad_stop_strings_are_refused),
    };
    return bt_run_tests(tests);
}
