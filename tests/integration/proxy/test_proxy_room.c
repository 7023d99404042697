/* SPDX-License-Identifier: Apache-2.0 */
/* Requests wait for room at a decode engine before a prefill engine begins. */
#include "rig.h"

#include <stdio.h>

static rig r;

#define REQUESTS(code) "baton_proxy_requests_total{route=\"completions\",code=\"" #code "\"}"
#define WAITING "baton_proxy_waiting_for_room"

/* What decode keeps of it: 14, 10 and 3 tokens; of a room of 20. */
static const char large[] = "{\"prompt\":[1,2,3,4,5],\"max_tokens\":9}";
static const char middle[] = "{\"prompt\":[1,2,3,4],\"max_tokens\":6}";
static const char small[] = "{\"prompt\":[1],\"max_tokens\":2}";

static void expect_answer(conversation *c, unsigned status)
{
    reply answer = rig_finish(c);
    if (answer.status != status)
        fail_msg("wanted %u, found %u %s", status, answer.status, answer.body);
    reply_free(&answer);
}

/* A proxy whose first request is being computed, and has its place at decode engine 0. */
static conversation open_with_one_held(const rig_options *options)
{
    rig_open(&r, options);
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS, .only_first = 1});
    conversation held = rig_begin(&r, "/v1/completions", large);
    fake_nth(r.prefill[0], 0);
    return held;
}

static void who_finds_no_room_waits_and_prefill_has_not_begun(void **state)
{
    (void)state;
    conversation held = open_with_one_held(&(rig_options){.options.decode_room = 20});
    conversation waits = rig_begin(&r, "/v1/completions", middle);
    rig_wait_metric(&r, WAITING, 1);
    conversation fits = rig_begin(&r, "/v1/completions", small);
    rig_wait_metric(&r, WAITING, 2); /* it would fit, but not before who came first */
    assert_int_equal(fake_count(r.prefill[0]), 1);
    fake_release(r.prefill[0]);
    expect_answer(&held, 200);
    expect_answer(&waits, 200);
    expect_answer(&fits, 200);
    assert_int_equal(fake_count(r.prefill[0]), 3);
    assert_int_equal(rig_metric(&r, WAITING), 0);
    assert_int_equal(rig_metric(&r, "baton_proxy_room_waits_total"), 2);
    assert_int_equal(rig_metric(&r, "baton_proxy_phase_seconds_count{phase=\"room_wait\"}"), 2);
    rig_close(&r);
}

/* On one loop, so that they also arrive in the order in which they go. */
static void the_first_in_line_goes_first(void **state)
{
    (void)state;
    conversation held =
        open_with_one_held(&(rig_options){.options.decode_room = 20, .options.threads = 1});
    conversation waits = rig_begin(&r, "/v1/completions", middle);
    rig_wait_metric(&r, WAITING, 1);
    conversation behind = rig_begin(&r, "/v1/completions", small);
    rig_wait_metric(&r, WAITING, 2);
    fake_release(r.prefill[0]);
    expect_answer(&held, 200);
    expect_answer(&waits, 200);
    expect_answer(&behind, 200);
    assert_non_null(strstr(fake_nth(r.prefill[0], 1)->body, "[1,2,3,4]"));
    assert_non_null(strstr(fake_nth(r.prefill[0], 2)->body, "[1]"));
    rig_close(&r);
}

static void an_engine_with_room_is_chosen_whatever_the_policy(void **state)
{
    (void)state;
    conversation held =
        open_with_one_held(&(rig_options){.n_decode = 2, .options.decode_room = 20});
    for (unsigned i = 0; i < 4; i++) {
        conversation c = rig_begin(&r, "/v1/completions", large);
        expect_answer(&c, 200);
        rig_wait_metric(&r, REQUESTS(200), i + 1);
    }
    assert_int_equal(fake_count(r.decode[1]), 4);
    assert_int_equal(rig_metric(&r, "baton_proxy_room_waits_total"), 0);
    fake_release(r.prefill[0]);
    expect_answer(&held, 200);
    /* What no engine has room for goes into an empty one: it is the engine's to refuse. */
    rig_wait_metric(&r, REQUESTS(200), 5);
    conversation c = rig_begin(&r, "/v1/completions", "{\"prompt\":[1],\"max_tokens\":2000}");
    expect_answer(&c, 200);
    rig_close(&r);
}

static void waiting_has_a_deadline(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    conversation held = open_with_one_held(
        &(rig_options){.options.decode_room = 20, .options.ms.room = 20, .options.retries = 3});
    conversation waits = rig_begin(&r, "/v1/completions", middle);
    reply answer = rig_finish(&waits);
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(answer.body, "\"code\":\"overloaded\""));
    assert_non_null(strstr(answer.head, "Retry-After: 1"));
    reply_free(&answer);
    assert_int_equal(fake_count(r.prefill[0]), 1);
    rig_wait_metric(&r, REQUESTS(503), 1);
    assert_int_equal(rig_metric(&r, WAITING), 0);
    fake_release(r.prefill[0]);
    expect_answer(&held, 200);
    rig_close(&r);
}

static void a_client_that_leaves_leaves_the_line(void **state)
{
    (void)state;
    conversation held = open_with_one_held(&(rig_options){.options.decode_room = 20});
    conversation waits = rig_begin(&r, "/v1/completions", middle);
    rig_wait_metric(&r, WAITING, 1);
    conversation behind = rig_begin(&r, "/v1/completions", small);
    rig_wait_metric(&r, WAITING, 2);
    rig_leave(&waits);
    rig_wait_metric(&r, "baton_proxy_cancels_total{phase=\"room_wait\"}", 1);
    expect_answer(&behind, 200); /* beside the first one there is room for it */
    fake_release(r.prefill[0]);
    expect_answer(&held, 200);
    assert_int_equal(fake_count(r.prefill[0]), 2);
    /* And a proxy that ends meanwhile ends those in line too. */
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    held = rig_begin(&r, "/v1/completions", large);
    fake_nth(r.prefill[0], 2);
    waits = rig_begin(&r, "/v1/completions", middle);
    rig_wait_metric(&r, WAITING, 1);
    bt_proxy_destroy(r.proxy);
    r.proxy = NULL;
    rig_leave(&held);
    rig_leave(&waits);
    rig_close(&r);
}

/* One that is down has room enough, and is no reason to go there. */
static void a_full_engine_is_waited_for_rather_than_one_that_is_down(void **state)
{
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_decode = 2, .options.decode_room = 20, .options.retries = 1});
    fake_die(r.decode[1]);
    for (unsigned i = 0; i < 2; i++) { /* the second finds out */
        conversation c = rig_begin(&r, "/v1/completions", small);
        expect_answer(&c, 200);
    }
    rig_wait_metric(&r, REQUESTS(200), 2);
    unsigned n_before = fake_count(r.prefill[0]);
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation held = rig_begin(&r, "/v1/completions", large);
    fake_nth(r.prefill[0], n_before);
    conversation waits = rig_begin(&r, "/v1/completions", middle);
    rig_wait_metric(&r, WAITING, 1);
    fake_set(r.prefill[0], &(fake_script){0});
    fake_release(r.prefill[0]);
    expect_answer(&held, 200);
    expect_answer(&waits, 200);
    rig_close(&r);
}

/* Room for one at a time, and two loops: nobody is forgotten. */
static void everybody_in_line_gets_there(void **state)
{
    enum { N = 24 };
    conversation all[N];
    (void)state;
    rig_open(&r, &(rig_options){.options.decode_room = 20});
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++)
            all[i] = rig_begin(&r, "/v1/completions", large);
        for (int i = 0; i < N; i++)
            expect_answer(&all[i], 200);
    }
    rig_wait_metric(&r, REQUESTS(200), 2 * N);
    assert_int_equal(rig_metric(&r, WAITING), 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(who_finds_no_room_waits_and_prefill_has_not_begun),
        bt_test(the_first_in_line_goes_first),
        bt_test(an_engine_with_room_is_chosen_whatever_the_policy),
        bt_test(waiting_has_a_deadline),
        bt_test(a_client_that_leaves_leaves_the_line),
        bt_test(a_full_engine_is_waited_for_rather_than_one_that_is_down),
        bt_test(everybody_in_line_gets_there),
    };
    return bt_run_tests(tests);
}
