/* SPDX-License-Identifier: Apache-2.0 */
/* Dialects whose engines wait for each other: both legs go out at once, and neither is left waiting
 * when the other one fails. */
#include "enginebrains.h"
#include "rig.h"

#include <stdio.h>

static rig r;
static brain_kv kv;

static const char whole[] = "{\"prompt\":\"x\",\"max_tokens\":4}";
static const char stream[] = "{\"prompt\":\"x\",\"max_tokens\":4,\"stream\":true,"
                             "\"stream_options\":{\"include_usage\":true}}";
static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"
                           "\"max_completion_tokens\":4}";

typedef struct {
    bt_dialect_id id;
    fake_brain prefill, decode;
    uint16_t bootstrap_port; /* 0: that of the engine itself */
    bool tells_of_aborts;
} pair;

static const pair pairs[] = {
    {BT_DIALECT_SGLANG, brain_sglang_prefill, brain_sglang_decode, 8998, true},
    {BT_DIALECT_NIXL_PUSH, brain_push_prefill, brain_push_decode, 8998, false},
    {BT_DIALECT_MOONCAKE, brain_mooncake_prefill, brain_mooncake_decode, 0, false},
};
enum { N_PAIRS = sizeof(pairs) / sizeof(pairs[0]), SGLANG = 0, PUSH = 1, MOONCAKE = 2 };

/* One prefill engine and one decode engine, or n of each. */
static void open_pair(const pair *p, unsigned n, bt_proxy_options options)
{
    bt_worker_address prefill[RIG_MAX] = {0}, decode[RIG_MAX] = {0};
    memset(&r, 0, sizeof(r));
    memset(&kv, 0, sizeof(kv));
    fakes_start();
    for (unsigned i = 0; i < n; i++) {
        r.prefill[i] = fake_open(true);
        r.decode[i] = fake_open(false);
        fake_set_brain(r.prefill[i], p->prefill, &kv);
        fake_set_brain(r.decode[i], p->decode, &kv);
        prefill[i] = (bt_worker_address){.host = "127.0.0.1",
                                         .port = fake_port(r.prefill[i]),
                                         .dialect = p->id,
                                         .bootstrap_port = p->bootstrap_port};
        if (p->bootstrap_port == 0)
            prefill[i].bootstrap_port = prefill[i].port;
        decode[i] = (bt_worker_address){
            .host = "127.0.0.1", .port = fake_port(r.decode[i]), .dialect = p->id};
    }
    options.prefill = prefill;
    options.decode = decode;
    options.n_prefill = options.n_decode = n;
    options.threads = 1;
    assert_ok(bt_proxy_start(&options, &r.proxy));
    r.port = bt_proxy_port(r.proxy);
}

static void expect_error(const char *body, unsigned status, const char *code)
{
    reply answer = rig_post(&r, "/v1/completions", "", body);
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "\"code\":\"%s\"", code);
    if (answer.status != status || strstr(answer.body, wanted) == NULL)
        fail_msg("wanted %u %s, found %u %s", status, code, answer.status, answer.body);
    reply_free(&answer);
}

/* A first request, after which engines are known to each other. */
static void warm_up(void)
{
    rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
}

/* The engine's requests with that path. */
static unsigned count_of(fake *engine, const char *path)
{
    unsigned n = 0;
    for (unsigned i = 0; i < fake_count(engine); i++)
        n += strcmp(fake_nth(engine, i)->path, path) == 0;
    return n;
}

static const fake_request *last_of(fake *engine, const char *path)
{
    for (unsigned i = fake_count(engine); i-- > 0;) {
        if (strcmp(fake_nth(engine, i)->path, path) == 0)
            return fake_nth(engine, i);
    }
    fail_msg("no request for %s", path);
    return NULL;
}

static void engines_meet(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
        rig_expect_answer(&r, "/v1/completions", stream, "data: [DONE]");
        rig_expect_answer(&r, "/v1/chat/completions", chat, "\"text\":\"AB\"");
        rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
        rig_close(&r);
        rig_expect_handed_over(&kv, 4);
    }
}

static void sglang_engines_get_the_same_bytes(void **state)
{
    (void)state;
    open_pair(&pairs[SGLANG], 1, (bt_proxy_options){0});
    rig_expect_answer(&r, "/v1/completions", stream, "data: [DONE]");
    const fake_request *p = last_of(r.prefill[0], "/v1/completions");
    assert_string_equal(p->body, last_of(r.decode[0], "/v1/completions")->body);
    assert_memory_equal(p->body, stream, strlen(stream) - 1);
    rig_close(&r);
}

/* Both legs are out before either engine has said anything. */
static void neither_leg_waits_for_the_other(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        warm_up();
        unsigned n_p = fake_count(r.prefill[0]), n_d = fake_count(r.decode[0]);
        static const char *const events[] = {"data: {}\n\n", "data: [DONE]\n\n", NULL};
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
        fake_set(r.decode[0], &(fake_script){.events = events});
        conversation c = rig_begin(&r, "/v1/completions", stream);
        fake_nth(r.prefill[0], n_p);
        fake_nth(r.decode[0], n_d);
        /* What decode says passes at once, whatever prefill does. */
        rig_read_until(&c, "[DONE]");
        reply answer = rig_finish(&c);
        assert_int_equal(answer.status, 200);
        reply_free(&answer);
        fake_wait_gone(r.prefill[0], 1);
        rig_close(&r);
    }
}

/* The rid that the leg was given, as JSON. */
static void rid_of(const fake_request *leg, char *out, size_t cap)
{
    const char *at = strstr(leg->body, "\"rid\":");
    assert_non_null(at);
    snprintf(out, cap, "%.*s", (int)strcspn(at, ",}"), at);
}

/* Engines that go on when a connection is closed are told by name. */
static void expect_told(const pair *p, fake *engine, unsigned nth_told)
{
    if (!p->tells_of_aborts) {
        assert_int_equal(count_of(engine, "/abort_request"), 0);
        return;
    }
    char rid[128], body[160];
    rig_wait_metric(&r, "baton_proxy_engine_aborts_total", nth_told);
    for (unsigned i = 0; count_of(engine, "/abort_request") == 0; i++)
        fake_nth(engine, i);
    rid_of(last_of(engine, "/v1/completions"), rid, sizeof(rid));
    snprintf(body, sizeof(body), "{%s}", rid);
    assert_string_equal(last_of(engine, "/abort_request")->body, body);
}

static void prefill_that_fails_ends_the_wait_of_decode(void **state)
{
    (void)state;
    static const fake_script faults[] = {
        {.status = 500, .body = "{}"}, {.way = FAKE_CUTS_HEAD}, {.way = FAKE_CUTS_BODY}};
    bt_expect_log("request failed");
    for (size_t i = 0; i < N_PAIRS; i++) {
        for (size_t k = 0; k < sizeof(faults) / sizeof(faults[0]); k++) {
            open_pair(&pairs[i], 1, (bt_proxy_options){0});
            warm_up();
            fake_set(r.decode[0], &(fake_script){.way = FAKE_COMPUTES});
            fake_set(r.prefill[0], &faults[k]);
            expect_error(stream, 502, "prefill_failed");
            fake_wait_gone(r.decode[0], 1);
            expect_told(&pairs[i], r.decode[0], 1);
            rig_close(&r);
        }
    }
}

static void decode_that_fails_ends_the_leg_of_prefill(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        warm_up();
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_COMPUTES});
        fake_set(r.decode[0], &(fake_script){.status = 500, .body = "{}"});
        expect_error(whole, 502, "decode_failed");
        fake_wait_gone(r.prefill[0], 1);
        expect_told(&pairs[i], r.prefill[0], 1);
        rig_close(&r);
    }
}

static void decode_that_cannot_be_reached_ends_it_too(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    bt_expect_log("cannot be reached");
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        warm_up();
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_COMPUTES});
        fake_die(r.decode[0]);
        expect_error(whole, 502, "decode_unreachable");
        rig_close(&r);
    }
}

static void client_that_leaves_ends_both_legs(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        warm_up();
        unsigned n_p = fake_count(r.prefill[0]), n_d = fake_count(r.decode[0]);
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_COMPUTES});
        fake_set(r.decode[0], &(fake_script){.way = FAKE_COMPUTES});
        conversation c = rig_begin(&r, "/v1/completions", whole);
        fake_nth(r.prefill[0], n_p);
        fake_nth(r.decode[0], n_d);
        rig_leave(&c);
        fake_wait_gone(r.prefill[0], 1);
        fake_wait_gone(r.decode[0], 1);
        expect_told(&pairs[i], r.prefill[0], 2);
        expect_told(&pairs[i], r.decode[0], 2);
        rig_close(&r);
    }
}

/* vLLM sends a stream's head when it has only queued the request: as long as nothing else has come,
 * the client can be given an honest status. */
static void head_alone_binds_nobody(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    bt_expect_log("cannot be reached");
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        warm_up();
        fake_set(r.decode[0], &(fake_script){.way = FAKE_HOLDS_WHOLE_HEAD});
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
        unsigned n_p = fake_count(r.prefill[0]), n_d = fake_count(r.decode[0]);
        conversation c = rig_begin(&r, "/v1/completions", stream);
        fake_nth(r.prefill[0], n_p);
        fake_nth(r.decode[0], n_d);
        fake_die(r.prefill[0]);
        reply answer = rig_finish(&c);
        assert_int_equal(answer.status, 502);
        assert_non_null(strstr(answer.body, "\"code\":\"prefill_"));
        reply_free(&answer);
        rig_close(&r);
    }
}

static void decode_that_never_gets_the_kv_is_given_up(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){.ms = {.first_byte = 50}});
        warm_up();
        fake_set(r.decode[0], &(fake_script){.way = FAKE_COMPUTES});
        expect_error(whole, 504, "first_byte_timeout");
        fake_wait_gone(r.decode[0], 1);
        rig_close(&r);
    }
}

static void prefill_that_goes_silent_is_given_up(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    bt_expect_log("cannot be reached");
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){.ms = {.probe = 20, .silent = 200}});
        warm_up();
        fake_set(r.prefill[0], &(fake_script){.way = FAKE_HOLDS});
        fake_set(r.decode[0], &(fake_script){.way = FAKE_COMPUTES});
        expect_error(whole, 504, "prefill_silent");
        rig_close(&r);
    }
}

static void refusal_of_prefill_is_the_clients(void **state)
{
    (void)state;
    static const char words[] = "{\"error\":{\"message\":\"too long\"}}";
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 1, (bt_proxy_options){0});
        warm_up();
        fake_set(r.decode[0], &(fake_script){.way = FAKE_COMPUTES});
        fake_set(r.prefill[0], &(fake_script){.status = 400, .body = words});
        reply answer = rig_post(&r, "/v1/completions", "", stream);
        assert_int_equal(answer.status, 400);
        assert_string_equal(answer.body, words);
        reply_free(&answer);
        fake_wait_gone(r.decode[0], 1);
        expect_told(&pairs[i], r.decode[0], 1);
        rig_close(&r);
    }
}

static void other_engines_are_tried(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PAIRS; i++) {
        open_pair(&pairs[i], 2, (bt_proxy_options){.retries = 1});
        fake_script holds = {.way = FAKE_COMPUTES, .only_first = 1};
        if (i == SGLANG) /* the others ask the prefill engine first, when they know nothing of it */
            fake_set(r.decode[0], &holds);
        fake_set(r.prefill[0], &(fake_script){.status = 503, .body = "{}", .only_first = 1});
        warm_up();
        warm_up();
        assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"prefill\"}"), 1);
        rig_close(&r);
    }
}

/* An engine that has been restarted has other names than those that were learnt. */
static void restarted_engine_is_learnt_anew(void **state)
{
    (void)state;
    bt_expect_log("request failed");
    open_pair(&pairs[MOONCAKE], 1, (bt_proxy_options){0});
    warm_up();
    kv.life++; /* nothing is under way */
    expect_error(whole, 502, "decode_failed");
    rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
    assert_int_equal(count_of(r.prefill[0], "/query"), 2);
    rig_close(&r);
    /* Where its answers tell, the client sees nothing of it. */
    open_pair(&pairs[PUSH], 1, (bt_proxy_options){.retries = 1});
    warm_up();
    kv.life++;
    fake_set(r.decode[0], &(fake_script){.way = FAKE_COMPUTES, .only_first = 2});
    rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
    assert_int_equal(rig_metric(&r, "baton_proxy_retries_total{leg=\"prefill\"}"), 1);
    rig_close(&r);
}

static void ranks_take_turns(void **state)
{
    (void)state;
    open_pair(&pairs[MOONCAKE], 1, (bt_proxy_options){0});
    for (int i = 0; i < 4; i++) {
        char wanted[40];
        warm_up();
        snprintf(wanted, sizeof(wanted), "x-data-parallel-rank: %d\n", i % 2);
        assert_non_null(strcasestr(last_of(r.prefill[0], "/v1/completions")->headers, wanted));
    }
    rig_close(&r);
    rig_expect_handed_over(&kv, 4);
}

static void bootstrap_server_that_says_nonsense_is_an_error(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}", "[]", "{\"0\":{}}", "<html>"};
    bt_expect_log("request failed");
    open_pair(&pairs[MOONCAKE], 1, (bt_proxy_options){0});
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        fake_set(r.prefill[0], &(fake_script){.body = bodies[i]});
        expect_error(whole, 502, "prefill_failed");
    }
    assert_int_equal(fake_count(r.decode[0]), 0);
    fake_set(r.prefill[0], &(fake_script){0});
    warm_up();
    rig_close(&r);
}

static void push_engine_that_says_nothing_is_counted(void **state)
{
    (void)state;
    open_pair(&pairs[PUSH], 1, (bt_proxy_options){0});
    fake_set(r.prefill[0], &(fake_script){.body = "{\"choices\":[{\"finish_reason\":\"length\"}]}",
                                          .only_first = 1});
    rig_expect_answer(&r, "/v1/completions", whole, "\"text\":\"AB\"");
    assert_int_equal(atomic_load(&kv.n_recomputed), 1);
    assert_int_equal(rig_metric(&r, "baton_proxy_kv_params_missing_total"), 1);
    warm_up();
    warm_up();
    assert_int_equal(atomic_load(&kv.n_taken), 2);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(engines_meet),
        bt_test(sglang_engines_get_the_same_bytes),
        bt_test(neither_leg_waits_for_the_other),
        bt_test(prefill_that_fails_ends_the_wait_of_decode),
        bt_test(decode_that_fails_ends_the_leg_of_prefill),
        bt_test(decode_that_cannot_be_reached_ends_it_too),
        bt_test(client_that_leaves_ends_both_legs),
        bt_test(head_alone_binds_nobody),
        bt_test(decode_that_never_gets_the_kv_is_given_up),
        bt_test(prefill_that_goes_silent_is_given_up),
        bt_test(refusal_of_prefill_is_the_clients),
        bt_test(other_engines_are_tried),
        bt_test(restarted_engine_is_learnt_anew),
        bt_test(ranks_take_turns),
        bt_test(bootstrap_server_that_says_nonsense_is_an_error),
        bt_test(push_engine_that_says_nothing_is_counted),
    };
    return bt_run_tests(tests);
}
