/* SPDX-License-Identifier: Apache-2.0 */
/* Whole engines with random weights, several in this process, each with its loop on a thread:
 * alone, and as prefill and decode ends of a real hand-off. */
#include "support/test.h"

#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/engineserver.h"
#include "support/httpask.h"

typedef struct {
    bt_loop *loop;
    bt_engine_server *server;
    pthread_t thread;
    uint16_t port;
} engine;

static void *run_loop(void *arg)
{
    bt_loop_run(((engine *)arg)->loop);
    return NULL;
}

static void open_engine(engine *e, const bt_engine_options *options)
{
    assert_ok(bt_loop_create(&e->loop));
    assert_ok(bt_engine_server_create(e->loop, options, &e->server));
    e->port = bt_api_port(bt_engine_server_api(e->server));
    assert_int_equal(pthread_create(&e->thread, NULL, run_loop, e), 0);
}

static void close_engine(engine *e)
{
    bt_loop_stop(e->loop);
    pthread_join(e->thread, NULL);
    bt_engine_server_destroy(e->server, 5000);
    bt_loop_destroy(e->loop);
}

static bt_engine_options small_options(bt_engine_role role)
{
    return (bt_engine_options){.role = role,
                               .seed = 5,
                               .threads = 1,
                               .chunk_tokens = 32,
                               .max_running = 8,
                               .max_queued = 100,
                               .kv_blocks = 300};
}

/* A request that runs on a thread of its own. */
typedef struct {
    uint16_t port;
    char *body;
    bt_http_answer answer;
    pthread_t thread;
} client;

static void *run_client(void *arg)
{
    client *c = arg;
    bt_http_call(c->port, "POST", "/v1/completions", c->body, &c->answer);
    return NULL;
}

static void start_client(client *c, uint16_t port, json_t *body)
{
    *c = (client){.port = port, .body = json_dumps(body, 0)};
    json_decref(body);
    assert_int_equal(pthread_create(&c->thread, NULL, run_client, c), 0);
}

static json_t *end_client(client *c)
{
    pthread_join(c->thread, NULL);
    if (c->answer.status != 200)
        fail_msg("status %u: %s", c->answer.status, bt_strbuf_text(&c->answer.body));
    json_t *root = json_loads(c->answer.body.data, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    bt_http_answer_clear(&c->answer);
    free(c->body);
    return root;
}

static json_t *complete(uint16_t port, json_t *body)
{
    client c;
    start_client(&c, port, body);
    return end_client(&c);
}

/* A prompt of n tokens: `shared` of them from a common text, the others from the seed. */
static json_t *make_prompt(uint64_t seed, uint32_t n, uint32_t shared)
{
    json_t *ids = json_array();
    bt_rng common = {1}, own = {seed};
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(
            ids, json_integer((json_int_t)(32 + bt_rng_below(i < shared ? &common : &own, 90))));
    return ids;
}

static json_t *request_of(json_t *prompt, int max_tokens)
{
    return json_pack("{s:O, s:i, s:f, s:b, s:b}", "prompt", prompt, "max_tokens", max_tokens,
                     "temperature", 0.0, "ignore_eos", 1, "return_token_ids", 1);
}

static json_t *ids_of(const json_t *answer)
{
    const json_t *choice = json_array_get(json_object_get(answer, "choices"), 0);
    return json_object_get(choice, "token_ids");
}

static void concurrent_answers_are_those_of_each_alone(void **state)
{
    (void)state;
    enum { N = 10 };
    engine alone, together;
    bt_engine_options options = small_options(BT_ROLE_BOTH);
    open_engine(&alone, &options);
    options.threads = 2;
    options.chunk_tokens = 7;
    options.kv_blocks = 60; /* requests wait, and blocks are reused */
    open_engine(&together, &options);
    json_t *prompts[N], *wanted[N];
    client clients[N];
    for (int i = 0; i < N; i++) {
        prompts[i] = make_prompt((uint64_t)i, 20 + 23 * (uint32_t)(i % 4), 40);
        wanted[i] = complete(alone.port, request_of(prompts[i], 12));
    }
    for (int i = 0; i < N; i++)
        start_client(&clients[i], together.port, request_of(prompts[i], 12));
    for (int i = 0; i < N; i++) {
        json_t *found = end_client(&clients[i]);
        assert_int_equal(json_array_size(ids_of(found)), 12);
        assert_true(json_equal(ids_of(found), ids_of(wanted[i])));
        json_decref(found);
        json_decref(wanted[i]);
        json_decref(prompts[i]);
    }
    close_engine(&alone);
    close_engine(&together);
}

static void sampling_goes_on_alike_from_any_first_token(void **state)
{
    (void)state;
    engine e;
    bt_engine_options options = small_options(BT_ROLE_BOTH);
    open_engine(&e, &options);
    json_t *prompt = make_prompt(3, 30, 0), *body = request_of(prompt, 10);
    json_object_set_new(body, "temperature", json_real(0.9));
    json_object_set_new(body, "seed", json_integer(77));
    json_t *whole = complete(e.port, json_incref(body));
    json_array_append(prompt, json_array_get(ids_of(whole), 0));
    json_object_set_new(body, "max_tokens", json_integer(9));
    json_t *rest = complete(e.port, body);
    for (size_t i = 0; i < 9; i++)
        assert_true(
            json_equal(json_array_get(ids_of(rest), i), json_array_get(ids_of(whole), i + 1)));
    json_decref(whole);
    json_decref(rest);
    json_decref(prompt);
    close_engine(&e);
}

/* "init_ports=1,2 alloc_ports=3,4" of the ready line, as JSON arrays. */
static json_t *ports_of(const engine *e, const char *key)
{
    bt_strbuf text = {0};
    bt_engine_server_describe(e->server, &text);
    const char *at = strstr(bt_strbuf_text(&text), key);
    assert_non_null(at);
    at += strlen(key);
    json_t *ports = json_array();
    for (;;) {
        char *end;
        json_array_append_new(ports, json_integer((json_int_t)strtoul(at, &end, 10)));
        if (*end != ',')
            break;
        at = end + 1;
    }
    bt_strbuf_free(&text);
    return ports;
}

/* The value of a line of /metrics; -1 when it is not there. */
static double metric(uint16_t port, const char *name)
{
    bt_http_answer answer;
    bt_http_call(port, "GET", "/metrics", NULL, &answer);
    bt_strbuf line = {0};
    bt_strbuf_printf(&line, "\n%s ", name);
    const char *at = strstr(bt_strbuf_text(&answer.body), bt_strbuf_text(&line));
    double value = at != NULL ? strtod(at + line.length, NULL) : -1;
    bt_strbuf_free(&line);
    bt_http_answer_clear(&answer);
    return value;
}

static void wait_for_metric(uint16_t port, const char *name, double wanted)
{
    while (metric(port, name) < wanted) /* the hang guard is ctest's */
        sched_yield();
}

static json_t *prefill_request(json_t *prompt, const engine *decode, int n)
{
    char id[32];
    snprintf(id, sizeof(id), "attempt-%d", n);
    json_t *body = request_of(prompt, 1);
    json_object_set_new(body, "kv_transfer_params",
                        json_pack("{s:b, s:{s:s, s:s, s:o, s:o}}", "ret_first_tok", 1,
                                  "disagg_spec", "req_id", id, "receiver_host", "127.0.0.1",
                                  "receiver_init_port", ports_of(decode, "init_ports="),
                                  "receiver_alloc_port", ports_of(decode, "alloc_ports=")));
    return body;
}

/* Prompts whose ends lie everywhere in a chunk go through both engines one after another; tokens
 * must be those of one engine alone, and decode may compute one prompt token each. */
static void check_hand_off(uint32_t tp)
{
    static const char *const pages[] = {
        "baton_receiver_pages_free", "baton_receiver_pages_reserved", "baton_receiver_pages_landed",
        "baton_receiver_pages_quarantined", "baton_receiver_pages_retired"};
    static const uint32_t lengths[] = {1, 15, 31, 32, 33, 64, 65, 130, 200};
    enum { N = sizeof(lengths) / sizeof(lengths[0]) };
    engine alone, prefill, decode;
    bt_engine_options options = small_options(BT_ROLE_BOTH);
    open_engine(&alone, &options);
    options.role = BT_ROLE_PREFILL;
    options.tp = tp;
    open_engine(&prefill, &options);
    options.role = BT_ROLE_DECODE;
    options.kv_blocks = 200;
    open_engine(&decode, &options);
    for (int i = 0; i < N; i++) {
        json_t *prompt = make_prompt((uint64_t)i, lengths[i], i % 2 ? 50 : 0);
        json_t *wanted = complete(alone.port, request_of(prompt, 10));
        json_t *first = complete(prefill.port, prefill_request(prompt, &decode, i));
        const json_t *params = json_object_get(first, "kv_transfer_params");
        json_t *first_token = json_object_get(params, "first_tok");
        assert_true(json_equal(first_token, json_array_get(ids_of(wanted), 0)));
        wait_for_metric(prefill.port, "baton_engine_transfers_total{result=\"done\"}", i + 1);
        json_array_append(prompt, first_token);
        json_t *rest = complete(decode.port, request_of(prompt, 9));
        for (size_t k = 0; k < 9; k++)
            assert_true(
                json_equal(json_array_get(ids_of(rest), k), json_array_get(ids_of(wanted), k + 1)));
        const json_t *details =
            json_object_get(json_object_get(rest, "usage"), "prompt_tokens_details");
        assert_int_equal(json_integer_value(json_object_get(details, "cached_tokens")), lengths[i]);
        json_decref(rest);
        json_decref(first);
        json_decref(wanted);
        json_decref(prompt);
    }
    const char *computed = "baton_engine_prompt_tokens_by_source_total{source=\"computed\"}";
    assert_true(metric(decode.port, computed) == N);
    assert_true(metric(decode.port, "baton_engine_load_misses_total") == 0);
    assert_true(metric(prefill.port, "baton_engine_transfers_total{result=\"failed\"}") == 0);
    assert_true(metric(prefill.port, "baton_sender_chunks_sent_total") ==
                metric(decode.port, "baton_receiver_chunks_landed_total"));
    double n_pages = 0;
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        n_pages += metric(decode.port, pages[i]);
    assert_true(n_pages == metric(decode.port, "baton_receiver_pages_total"));
    close_engine(&alone);
    close_engine(&prefill);
    close_engine(&decode);
}

static void a_handed_over_prompt_continues_as_one_engine_alone(void **state)
{
    (void)state;
    check_hand_off(1);
}

static void two_ranks_hand_over_their_heads(void **state)
{
    (void)state;
    check_hand_off(2);
}

static void a_layer_overwritten_after_the_move_changes_the_tokens(void **state)
{
    (void)state;
    engine alone, prefill, decode;
    bt_engine_options options = small_options(BT_ROLE_BOTH);
    open_engine(&alone, &options);
    options.role = BT_ROLE_PREFILL;
    open_engine(&prefill, &options);
    options.role = BT_ROLE_DECODE;
    options.spoil_layer = 2;
    open_engine(&decode, &options);
    json_t *prompt = make_prompt(9, 100, 0);
    json_t *wanted = complete(alone.port, request_of(prompt, 33));
    json_decref(complete(prefill.port, prefill_request(prompt, &decode, 1)));
    wait_for_metric(prefill.port, "baton_engine_transfers_total{result=\"done\"}", 1);
    json_array_append(prompt, json_array_get(ids_of(wanted), 0));
    json_t *found = complete(decode.port, request_of(prompt, 32));
    size_t n_equal = 0;
    for (size_t i = 0; i < 32; i++)
        n_equal += (size_t)json_equal(json_array_get(ids_of(found), i),
                                      json_array_get(ids_of(wanted), i + 1));
    assert_true(n_equal < 32);
    json_decref(found);
    json_decref(wanted);
    json_decref(prompt);
    close_engine(&alone);
    close_engine(&prefill);
    close_engine(&decode);
}

static void an_unreachable_receiver_fails_the_prefill_leg_only(void **state)
{
    (void)state;
    engine prefill;
    bt_engine_options options = small_options(BT_ROLE_PREFILL);
    open_engine(&prefill, &options);
    json_t *prompt = make_prompt(1, 40, 0), *body = request_of(prompt, 1);
    json_object_set_new(body, "kv_transfer_params",
                        json_pack("{s:{s:s, s:s, s:[i,i], s:[i,i]}}", "disagg_spec", "req_id", "x",
                                  "receiver_host", "127.0.0.1", "receiver_init_port", 1, 2,
                                  "receiver_alloc_port", 3, 4));
    char *text = json_dumps(body, 0);
    bt_http_answer answer;
    bt_http_call(prefill.port, "POST", "/v1/completions", text, &answer);
    assert_int_equal(answer.status, 400); /* two ports, one rank */
    assert_non_null(strstr(answer.body.data, "2 ports, this engine 1 ranks"));
    bt_http_answer_clear(&answer);
    free(text);
    json_decref(body);
    json_decref(complete(prefill.port, request_of(prompt, 3))); /* it goes on */
    json_decref(prompt);
    close_engine(&prefill);
}

static void what_cannot_start_says_why(void **state)
{
    (void)state;
    engine e;
    bt_engine_options options = small_options(BT_ROLE_BOTH);
    open_engine(&e, &options);
    bt_loop *loop;
    bt_engine_server *server;
    assert_ok(bt_loop_create(&loop));
    options.port = e.port;
    assert_fails(bt_engine_server_create(loop, &options, &server), BATON_ERR_ADDRESS_IN_USE, NULL);
    options = small_options(BT_ROLE_BOTH);
    options.model = "/nonexistent/model";
    assert_fails(bt_engine_server_create(loop, &options, &server), BATON_ERR_NOT_FOUND,
                 "/nonexistent/model");
    options = small_options(BT_ROLE_BOTH);
    options.max_model_len = 300 * 16 + 1;
    assert_fails(bt_engine_server_create(loop, &options, &server), BATON_ERR_INVALID_ARG,
                 "max_model_len: wanted at most 4800");
    options = small_options(BT_ROLE_PREFILL);
    options.tp = 3;
    assert_fails(bt_engine_server_create(loop, &options, &server), BATON_ERR_INVALID_ARG,
                 "a divisor of the 2 KV heads");
    options = small_options(BT_ROLE_BOTH);
    options.chat_template = "jinja";
    assert_fails(bt_engine_server_create(loop, &options, &server), BATON_ERR_INVALID_ARG, "jinja");
    bt_loop_destroy(loop);
    close_engine(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(concurrent_answers_are_those_of_each_alone),
        bt_test(sampling_goes_on_alike_from_any_first_token),
        bt_test(a_handed_over_prompt_continues_as_one_engine_alone),
        bt_test(two_ranks_hand_over_their_heads),
        bt_test(a_layer_overwritten_after_the_move_changes_the_tokens),
        bt_test(an_unreachable_receiver_fails_the_prefill_leg_only),
        bt_test(what_cannot_start_says_why),
    };
    return bt_run_tests(tests);
}
