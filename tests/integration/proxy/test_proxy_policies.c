/* SPDX-License-Identifier: Apache-2.0 */
/* Which engine a request goes to, and what it counts for there. */
#include "rig.h"

#include <stdio.h>

static rig r;

/* A gauge of one engine. */
static double gauge(const char *what, const char *role, const fake *engine)
{
    char name[128];
    snprintf(name, sizeof(name), "baton_proxy_worker_%s{worker=\"127.0.0.1:%u\",role=\"%s\"}", what,
             fake_port(engine), role);
    return rig_metric(&r, name);
}

/* An answer, or the end of a connection, is seen before the request has left its engines. */
#define REQUESTS(code) "baton_proxy_requests_total{route=\"completions\",code=\"" #code "\"}"

static void the_next_request_goes_where_fewer_tokens_wait(void **state)
{
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 2,
                                .n_decode = 2,
                                .options.prefill_policy = BT_POLICY_LEAST_LOADED,
                                .options.decode_policy = BT_POLICY_LEAST_LOADED});
    fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
    conversation held =
        rig_begin(&r, "/v1/completions", "{\"prompt\":[1,2,3,4,5],\"max_tokens\":9}");
    fake_nth(r.prefill[0], 0);
    assert_int_equal(gauge("inflight", "prefill", r.prefill[0]), 1);
    assert_int_equal(gauge("queued_tokens", "prefill", r.prefill[0]), 5);
    assert_int_equal(gauge("held_tokens", "prefill", r.prefill[0]), 0);
    /* Decode computes nothing of it, and keeps prompt and answer. */
    assert_int_equal(gauge("queued_tokens", "decode", r.decode[0]), 0);
    assert_int_equal(gauge("held_tokens", "decode", r.decode[0]), 14);
    for (unsigned i = 0; i < 3; i++) {
        reply answer = rig_post(&r, "/v1/completions", "", "{\"prompt\":[1],\"max_tokens\":9}");
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
    }
    assert_int_equal(fake_count(r.prefill[1]), 3);
    assert_int_equal(fake_count(r.decode[1]), 3);
    fake_release(r.prefill[0]);
    reply answer = rig_finish(&held);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_wait_metric(&r, REQUESTS(200), 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gauge("inflight", "prefill", r.prefill[i]), 0);
        assert_int_equal(gauge("queued_tokens", "prefill", r.prefill[i]), 0);
        assert_int_equal(gauge("held_tokens", "decode", r.decode[i]), 0);
    }
    rig_close(&r);
}

/* A batch goes to a decode engine alone, which has its prompts to compute until it answers. */
static void a_decode_engine_alone_has_the_prompt_to_compute(void **state)
{
    static const char *const events[] = {"data: {\"choices\":[]}\n\n", NULL};
    (void)state;
    rig_open(&r, &(rig_options){0});
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS});
    const char *body = "{\"prompt\":[[1,2,3],[4,5]],\"max_tokens\":9,\"stream\":true}";
    conversation held = rig_begin(&r, "/v1/completions", body);
    fake_nth(r.decode[0], 0);
    assert_true(gauge("queued_tokens", "decode", r.decode[0]) > 0);
    rig_leave(&held);
    fake_wait_gone(r.decode[0], 1);
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS_BODY, .events = events});
    held = rig_begin(&r, "/v1/completions", body);
    rig_read_until(&held, "choices");
    assert_int_equal(gauge("queued_tokens", "decode", r.decode[0]), 0);
    assert_true(gauge("held_tokens", "decode", r.decode[0]) > 0);
    rig_leave(&held);
    rig_wait_metric(&r, REQUESTS(499), 2);
    assert_int_equal(gauge("queued_tokens", "decode", r.decode[0]), 0);
    assert_int_equal(gauge("held_tokens", "decode", r.decode[0]), 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_next_request_goes_where_fewer_tokens_wait),
        bt_test(a_decode_engine_alone_has_the_prompt_to_compute),
    };
    return bt_run_tests(tests);
}
