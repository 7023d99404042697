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
    rig_wait_metric(&r, REQUESTS(499), 1);
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

/* Posts with X-Baton-Explain: 1; the route is written to text[1024], "" without one. */
static unsigned post_explained(const char *body, char *text)
{
    reply answer = rig_post(&r, "/v1/completions", "X-Baton-Explain: 1\r\n", body);
    const char *at = strstr(answer.head, "X-Baton-Route: ");
    snprintf(text, 1024, "%.*s", at == NULL ? 0 : (int)strcspn(at + 15, "\r"),
             at == NULL ? "" : at + 15);
    unsigned status = answer.status;
    reply_free(&answer);
    return status;
}

/* role;engine="..."more, of that engine. */
static void expect_route(const char *route, const char *role, const fake *engine, const char *more)
{
    char wanted[256];
    snprintf(wanted, sizeof(wanted), "%s;engine=\"127.0.0.1:%u\";%s", role, fake_port(engine),
             more);
    if (strstr(route, wanted) == NULL)
        fail_msg("wanted \"%s\" in \"%s\"", wanted, route);
}

static void a_client_that_asks_is_told_the_engines_and_why(void **state)
{
    static const char *const bodies[] = {
        "{\"prompt\":[1,2,3],\"max_tokens\":4}", /* merged, streamed, and relayed answers */
        "{\"prompt\":[1,2,3],\"max_tokens\":4,\"stream\":true}",
        "{\"prompt\":[1,2,3],\"max_tokens\":4,\"n\":2}"};
    char route[1024];
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 2,
                                .options.explain = true,
                                .options.prefill_policy = BT_POLICY_LEAST_LOADED});
    for (int i = 0; i < 3; i++) {
        assert_int_equal(post_explained(bodies[i], route), 200);
        expect_route(route, "decode", r.decode[0],
                     "policy=round_robin;why=turn;candidates=1;of=1;legs=0;queued=0;held=0;"
                     "matched=0, ");
        expect_route(route, ", prefill", r.prefill[i > 0],
                     "policy=least_loaded;why=least;candidates=2;of=2;legs=0;queued=0;held=0;"
                     "matched=0");
        rig_wait_metric(&r, REQUESTS(200), i + 1);
    }
    /* What is asked of us is not for the engines; and who does not ask is not told. */
    assert_null(strcasestr(fake_nth(r.prefill[0], 0)->headers, "explain"));
    reply answer = rig_post(&r, "/v1/completions", "", bodies[0]);
    assert_null(strstr(answer.head, "X-Baton-Route"));
    reply_free(&answer);
    rig_close(&r);
}

/* Also an error says where it comes from; and no word of a prompt is said. */
static void an_error_names_its_engines_and_a_retry_the_last_ones(void **state)
{
    char route[1024];
    (void)state;
    bt_expect_log("request failed");
    rig_open(&r, &(rig_options){.n_prefill = 2, .options.explain = true, .options.retries = 1});
    fake_set(r.prefill[0], &(fake_script){.status = 500, .body = "{}"});
    assert_int_equal(post_explained("{\"prompt\":[77777],\"max_tokens\":4}", route), 200);
    expect_route(route, "prefill", r.prefill[1], "policy=round_robin;why=turn;candidates=1;of=2;");
    fake_set(r.prefill[1], &(fake_script){.status = 500, .body = "{}"});
    assert_int_equal(post_explained("{\"prompt\":[77777],\"max_tokens\":4}", route), 502);
    expect_route(route, "prefill", r.prefill[0], "");
    assert_null(strstr(route, "77777"));
    rig_close(&r);
}

static void nobody_is_told_unless_the_operator_allows_it(void **state)
{
    char route[1024];
    (void)state;
    rig_open(&r, &(rig_options){0});
    assert_int_equal(post_explained("{\"prompt\":[1],\"max_tokens\":4}", route), 200);
    assert_string_equal(route, "");
    rig_close(&r);
}

static void post(const char *headers, const char *body)
{
    reply answer = rig_post(&r, "/v1/completions", headers, body);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
}

static void a_session_stays_at_its_engines(void **state)
{
    static const char body[] = "{\"prompt\":[1,2,3],\"max_tokens\":4}";
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 3,
                                .n_decode = 3,
                                .options.session_header = "X-User",
                                .options.prefill_policy = BT_POLICY_CONSISTENT_HASH,
                                .options.decode_policy = BT_POLICY_CONSISTENT_HASH});
    for (int i = 0; i < 6; i++)
        post("X-User: alice\r\n", body);
    unsigned n_used = 0;
    for (int i = 0; i < 3; i++) {
        unsigned n = fake_count(r.prefill[i]);
        assert_true(n == 0 || n == 6);
        n_used += n > 0;
    }
    assert_int_equal(n_used, 1);
    /* Other sessions go elsewhere, some of them. */
    n_used = 0;
    for (int i = 0; i < 40; i++) {
        char header[32];
        snprintf(header, sizeof(header), "X-User: user-%d\r\n", i);
        post(header, body);
    }
    for (int i = 0; i < 3; i++)
        n_used += fake_count(r.prefill[i]) > 0 && fake_count(r.decode[i]) > 0;
    assert_int_equal(n_used, 3);
    rig_close(&r);
}

/* A body whose prompt is a text of n characters; all begin alike. */
static char *text_body(size_t n)
{
    static char body[4096];
    char text[3072];
    memset(text, 'w', n);
    text[n] = 0;
    /* A penalty keeps decode from going on behind P's token: no /tokenize. */
    snprintf(body, sizeof(body), "{\"prompt\":\"%s\",\"max_tokens\":4,\"presence_penalty\":1}",
             text);
    return body;
}

static void a_conversation_goes_where_its_beginning_is_known(void **state)
{
    char route[1024];
    (void)state;
    rig_open(&r, &(rig_options){.n_prefill = 3,
                                .n_decode = 2,
                                .options.explain = true,
                                .options.prefill_policy = BT_POLICY_PREFIX_AWARE});
    post("", text_body(1000)); /* the first of equals */
    rig_wait_metric(&r, REQUESTS(200), 1);
    for (size_t n = 1300; n <= 2800; n += 500) {
        assert_int_equal(post_explained(text_body(n), route), 200);
        expect_route(route, "prefill", r.prefill[0], "policy=prefix_aware;why=prefix;");
        rig_wait_metric(&r, REQUESTS(200), (double)(n / 500));
    }
    assert_null(strstr(route, "www"));
    assert_int_equal(fake_count(r.prefill[0]), 5);
    double asked = rig_metric(&r, "baton_proxy_prefix_prompt_tokens_total{leg=\"prefill\"}");
    double matched = rig_metric(&r, "baton_proxy_prefix_matched_tokens_total{leg=\"prefill\"}");
    assert_true(matched > asked / 2 && matched < asked);
    assert_int_equal(rig_metric(&r, "baton_proxy_prefix_prompt_tokens_total{leg=\"decode\"}"), 0);
    rig_close(&r);
}

static double bypassed(const char *reason)
{
    char name[64];
    snprintf(name, sizeof(name), "baton_proxy_bypass_total{reason=\"%s\"}", reason);
    return rig_metric(&r, name);
}

static void a_short_prompt_goes_to_decode_alone_as_the_client_sent_it(void **state)
{
    const char *shorter = "{\"prompt\" : [1,2,3],\"max_tokens\":4,\"stream\":false}";
    (void)state;
    rig_open(&r, &(rig_options){.options.local_below = 4});
    post("", shorter);
    assert_int_equal(fake_count(r.prefill[0]), 0);
    assert_string_equal(fake_nth(r.decode[0], 0)->body, shorter);
    assert_int_equal(bypassed("short"), 1);
    post("", "{\"prompt\":[1,2,3,4],\"max_tokens\":4}");
    assert_int_equal(fake_count(r.prefill[0]), 1);
    assert_int_equal(bypassed("short") + bypassed("prefix"), 1);
    rig_close(&r);
}

static void a_prompt_that_decode_has_mostly_seen_goes_to_it_alone(void **state)
{
    (void)state;
    /* 2800 characters are about 700 tokens. */
    rig_open(&r, &(rig_options){.n_decode = 2,
                                .options.local_below = 300,
                                .options.decode_policy = BT_POLICY_PREFIX_AWARE});
    post("", text_body(2000));
    assert_int_equal(fake_count(r.prefill[0]), 1);
    rig_wait_metric(&r, REQUESTS(200), 1);
    post("", text_body(2800)); /* the first 1792 characters of it are known */
    assert_int_equal(fake_count(r.prefill[0]), 1);
    assert_int_equal(fake_count(r.decode[0]), 2);
    assert_int_equal(bypassed("prefix"), 1);
    rig_wait_metric(&r, REQUESTS(200), 2);
    char *other = text_body(2800);
    memcpy(strstr(other, "www"), "abc", 3); /* another beginning */
    post("", other);
    assert_int_equal(fake_count(r.prefill[0]), 2);
    rig_close(&r);
}

/* Decode engines that have much to compute are no good place for one more prompt. */
static void short_prompts_are_handed_over_while_decode_has_its_own_to_compute(void **state)
{
    const char *body = "{\"prompt\":[1,2,3],\"max_tokens\":4}";
    (void)state;
    rig_open(&r, &(rig_options){.options.local_below = 4, .options.local_queue = 5});
    fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS, .only_first = 1});
    conversation held = rig_begin(&r, "/v1/completions", body);
    fake_nth(r.decode[0], 0);
    post("", body); /* three wait there */
    assert_int_equal(fake_count(r.prefill[0]), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_local_queue_full_total"), 1);
    fake_release(r.decode[0]);
    reply answer = rig_finish(&held);
    assert_int_equal(answer.status, 200);
    reply_free(&answer);
    rig_wait_metric(&r, REQUESTS(200), 2);
    post("", body);
    assert_int_equal(fake_count(r.prefill[0]), 1);
    assert_int_equal(bypassed("short"), 2);
    rig_close(&r);
}

static void pairs_that_have_handed_over_stay_together_until_one_end_was_gone(void **state)
{
    static const char body[] = "{\"prompt\":[1,2,3],\"max_tokens\":4}";
    char route[1024];
    (void)state;
    bt_expect_log("cannot be reached");
    rig_open(&r, &(rig_options){.n_prefill = 2,
                                .options.retries = 1,
                                .options.explain = true,
                                .options.cold_pair = 5000,
                                .options.ms.probe = 10,
                                .options.prefill_policy = BT_POLICY_LEAST_LOADED});
    assert_int_equal(post_explained(body, route), 200);
    expect_route(route, "prefill", r.prefill[0], "");
    assert_non_null(strstr(route, ";pair=cold"));
    for (int i = 0; i < 4; i++) {
        rig_wait_metric(&r, REQUESTS(200), i + 1);
        assert_int_equal(post_explained(body, route), 200);
        expect_route(route, "prefill", r.prefill[0], "");
        assert_non_null(strstr(route, ";pair=warm"));
    }
    assert_int_equal(rig_metric(&r, "baton_proxy_cold_pairs_total"), 1);
    /* Gone and back again: a new life, which has shaken no hands. */
    fake_die(r.prefill[0]);
    assert_int_equal(post_explained(body, route), 200);
    expect_route(route, "prefill", r.prefill[1], "");
    assert_non_null(strstr(route, ";pair=cold"));
    fake_revive(r.prefill[0]);
    char up[96];
    snprintf(up, sizeof(up), "baton_proxy_worker_up{worker=\"127.0.0.1:%u\",role=\"prefill\"}",
             fake_port(r.prefill[0]));
    rig_wait_metric(&r, up, 1);
    for (int i = 0; i < 4; i++) {
        rig_wait_metric(&r, REQUESTS(200), i + 6);
        assert_int_equal(post_explained(body, route), 200);
        expect_route(route, "prefill", r.prefill[1], "");
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_next_request_goes_where_fewer_tokens_wait),
        bt_test(a_decode_engine_alone_has_the_prompt_to_compute),
        bt_test(a_client_that_asks_is_told_the_engines_and_why),
        bt_test(an_error_names_its_engines_and_a_retry_the_last_ones),
        bt_test(nobody_is_told_unless_the_operator_allows_it),
        bt_test(a_session_stays_at_its_engines),
        bt_test(a_conversation_goes_where_its_beginning_is_known),
        bt_test(a_short_prompt_goes_to_decode_alone_as_the_client_sent_it),
        bt_test(a_prompt_that_decode_has_mostly_seen_goes_to_it_alone),
        bt_test(short_prompts_are_handed_over_while_decode_has_its_own_to_compute),
        bt_test(pairs_that_have_handed_over_stay_together_until_one_end_was_gone),
    };
    return bt_run_tests(tests);
}
