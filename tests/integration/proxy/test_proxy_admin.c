/* SPDX-License-Identifier: Apache-2.0 */
/* What the proxy answers when it is asked what goes on: over all of its threads, while requests
 * wait, retry, fail and end. */
#include "rig.h"
#include "support/adminask.h"

#include <stdio.h>
#include <stdlib.h>

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"

static rig r;

static const char body[] = "{\"prompt\":[7],\"max_tokens\":3}";

static char *ask(const char *target)
{
    return bt_admin_ask(bt_proxy_admin_at(r.proxy), target, 200);
}

static unsigned count(const char *text, const char *piece)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, piece)) != NULL; at++)
        n++;
    return n;
}

/* Asks until the answer has n of these. */
static void wait_for(const char *target, const char *piece, unsigned n)
{
    for (unsigned found = ~n; found != n;) {
        char *answer = ask(target);
        found = count(answer, piece);
        free(answer);
    }
}

static void requests_that_wait_are_told_by_every_thread(void **state)
{
    (void)state;
    enum { N = 8 };
    conversation waiting[N];
    rig_open(&r, &(rig_options){.options = {.threads = 3}});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    for (int i = 0; i < N; i++)
        waiting[i] = rig_begin(&r, "/v1/completions", body);
    wait_for("/transfers", "\"waits_for\":\"the prefill engine's answer\"", N);
    wait_for("/transfers?state=prefill&limit=5", "\"state\":\"PREFILL\"", 5);
    wait_for("/transfers?state=prefill&limit=5&from=5", "\"state\":\"PREFILL\"", N - 5);
    wait_for("/transfers?state=decode", "\"state\"", 0);
    wait_for("/trace", "\"status\":\"LIVE\"", N);
    char *answer = ask("/peers");
    assert_non_null(strstr(answer, "\"text\":\"prefill\",\"ranks\":0,\"transfers\":8"));
    free(answer);
    fake_release(r.prefill[0]);
    for (int i = 0; i < N; i++) {
        reply done = rig_finish(&waiting[i]);
        assert_int_equal(done.status, 200);
        reply_free(&done);
    }
    wait_for("/transfers", "\"state\"", 0);
    wait_for("/slow", "\"status\":\"OK\"", N);
    rig_close(&r);
}

static void each_attempt_of_a_request_is_remembered(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.n_prefill = 2, .options = {.threads = 2, .retries = 1}});
    fake_set(r.prefill[0], &(fake_script){.status = 500, .body = "{}"});
    fake_set(r.prefill[1], &(fake_script){.status = 500, .body = "{}", .only_first = 1});
    for (int i = 0; i < 2; i++) {
        reply done = rig_post(&r, "/v1/completions",
                              "traceparent: 00-" TRACE "-00f067aa0ba902b7-01\r\n"
                              "X-Request-Id: mine\r\n",
                              body);
        reply_free(&done);
    }
    /* The first failed twice; the second at least ended. */
    char *answer = ask("/trace?id=mine");
    assert_true(count(answer, "\"text\":\"prefill_failed\"") >= 2);
    assert_int_equal(count(answer, "\"trace\":\"" TRACE "\""), count(answer, "\"took_ms\""));
    assert_int_equal(count(answer, "\"alias\":\"mine\""), count(answer, "\"took_ms\""));
    free(answer);
    answer = ask("/trace?id=" TRACE "&state=OK");
    if (strstr(answer, "\"took_ms\"") != NULL) {
        static const char *const stages[] = {"received",    "prefill sent", "prefill answered",
                                             "decode sent", "done",         NULL};
        const char *at = answer;
        for (int i = 0; stages[i] != NULL; i++) {
            at = strstr(at, stages[i]);
            if (at == NULL)
                fail_msg("wanted %s, in its place, in %s", stages[i], answer);
        }
    }
    free(answer);
    rig_close(&r);
}

static void counters_and_other_questions_are_answered(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options = {.threads = 2}});
    reply done = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(done.status, 200);
    reply_free(&done);
    const char *at = bt_proxy_admin_at(r.proxy);
    static const char *const targets[] = {"/", "/pages", "/leases", "/counters", NULL};
    static const char *const wanted[] = {"\"role\":\"proxy\"", "\"pages\":[]", "\"leases\":[]",
                                         "\"notices_ready_total\":1"};
    for (int i = 0; targets[i] != NULL; i++) {
        char *answer = ask(targets[i]);
        if (strstr(answer, wanted[i]) == NULL)
            fail_msg("%s: wanted %s in %s", targets[i], wanted[i], answer);
        free(answer);
    }
    free(bt_admin_ask(at, "/secrets", 404));
    rig_close(&r);
}

static void it_can_be_switched_off(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options = {.admin = "off"}});
    assert_string_equal(bt_proxy_admin_at(r.proxy), "off");
    reply done = rig_post(&r, "/v1/completions", "", body);
    assert_int_equal(done.status, 200);
    reply_free(&done);
    rig_close(&r);
}

static void it_stops_while_it_is_asked(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.options = {.threads = 3}});
    int fds[8];
    for (int i = 0; i < 8; i++) {
        fds[i] = bt_admin_connect(bt_proxy_admin_at(r.proxy));
        bt_admin_send(fds[i], "GET /transfers HTTP/1.1\r\n\r\n");
    }
    rig_close(&r);
    for (int i = 0; i < 8; i++)
        free(bt_admin_receive(fds[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(requests_that_wait_are_told_by_every_thread),
        bt_test(each_attempt_of_a_request_is_remembered),
        bt_test(counters_and_other_questions_are_answered),
        bt_test(it_can_be_switched_off),
        bt_test(it_stops_while_it_is_asked),
    };
    bt_admin_own_folder();
    int n_failed = bt_run_tests(tests);
    bt_admin_remove_folder();
    return n_failed;
}
