/* SPDX-License-Identifier: Apache-2.0 */
#include "support/cluster.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_OUTPUT = 8 };

static void append_args(const char **args, unsigned *n, const char *const *more)
{
    for (unsigned i = 0; more != NULL && more[i] != NULL; i++) {
        assert_true(*n + 1 < BT_CHILD_ARGS_MAX);
        args[(*n)++] = more[i];
    }
    args[*n] = NULL;
}

void bt_node_start(bt_node *node, const char *role, const char *const *more)
{
    static const char *const common[] = {"--random-weights", "7",     "--threads",  "1",
                                         "--chunk-tokens",   "16",    "--kv-bytes", "64MiB",
                                         "--log-level",      "debug", NULL};
    const char *args[BT_CHILD_ARGS_MAX] = {"--role", role};
    unsigned n = 2;
    append_args(args, &n, common);
    append_args(args, &n, more);
    *node = (bt_node){.child = bt_child_start("baton-engine", args)};
    bt_child_wait_ready(node->child);
    node->port = bt_child_port(node->child, " port=", 0);
    assert_true(node->port != 0);
    for (unsigned rank = 0; rank < BT_CLUSTER_RANKS_MAX; rank++) {
        node->init_ports[rank] = bt_child_port(node->child, "init_ports=", rank);
        node->alloc_ports[rank] = bt_child_port(node->child, "alloc_ports=", rank);
        node->n_ranks += node->init_ports[rank] != 0 ? 1 : 0;
    }
}

static void put_ports(bt_strbuf *out, const char *key, const uint16_t *ports, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        bt_strbuf_printf(out, ",%s%u", i == 0 ? key : "", ports[i]);
}

void bt_proxy_start(bt_node *proxy, const bt_node *prefill, unsigned n_prefill,
                    const bt_node *decode, unsigned n_decode, const char *const *more)
{
    enum { MAX_NODES = 8 };
    static const char *const common[] = {
        "--host", "127.0.0.1", "--port", "0", "--proxy-host", "127.0.0.1", "--proxy-port",
        "0",      "--threads", "1",      NULL};
    const char *args[BT_CHILD_ARGS_MAX];
    bt_strbuf urls[MAX_NODES] = {0};
    unsigned n = 0;
    assert_true(n_prefill + n_decode <= MAX_NODES);
    append_args(args, &n, common);
    for (unsigned i = 0; i < n_prefill + n_decode; i++) {
        bool is_decode = i >= n_prefill;
        const bt_node *node = is_decode ? &decode[i - n_prefill] : &prefill[i];
        bt_strbuf_printf(&urls[i], "http://127.0.0.1:%u", node->port);
        put_ports(&urls[i], "init=", node->init_ports, node->n_ranks);
        put_ports(&urls[i], "alloc=", node->alloc_ports, node->n_ranks);
        append_args(args, &n,
                    (const char *const[]){is_decode ? "--decode" : "--prefill",
                                          bt_strbuf_text(&urls[i]), NULL});
    }
    append_args(args, &n, more);
    *proxy = (bt_node){.child = bt_child_start("baton-proxy", args)};
    bt_child_wait_ready(proxy->child);
    proxy->port = bt_child_port(proxy->child, "http=127.0.0.1:", 0);
    assert_true(proxy->port != 0);
    for (unsigned i = 0; i < MAX_NODES; i++)
        bt_strbuf_free(&urls[i]);
}

/* ---- metrics ---- */

double bt_metric(const bt_node *node, const char *name)
{
    bt_http_answer answer;
    bt_strbuf line = {0};
    bt_http_call(node->port, "GET", "/metrics", NULL, &answer);
    assert_int_equal(answer.status, 200);
    bt_strbuf_printf(&line, "\n%s ", name);
    const char *at = strstr(bt_strbuf_text(&answer.body), bt_strbuf_text(&line));
    double value = at != NULL ? strtod(at + line.length, NULL) : -1;
    bt_strbuf_free(&line);
    bt_http_answer_clear(&answer);
    return value;
}

typedef struct {
    const bt_node *node;
    const char *name;
    double value;
    char relation; /* '>': at least; '<': at most; '=': exactly */
} metric_wanted;

static bool has_value(void *ctx)
{
    const metric_wanted *w = ctx;
    double value = bt_metric(w->node, w->name);
    return value == w->value || (w->relation == '>' && value > w->value) ||
           (w->relation == '<' && value < w->value);
}

static void wait_metric(const metric_wanted *wanted)
{
    char what[256];
    snprintf(what, sizeof(what), "%s: %s %c %g", wanted->node->child->name, wanted->name,
             wanted->relation, wanted->value);
    bt_wait_until(has_value, (void *)(uintptr_t)wanted, what);
}

void bt_wait_metric(const bt_node *node, const char *name, double value)
{
    wait_metric(&(metric_wanted){node, name, value, '>'});
}

void bt_wait_metric_at_most(const bt_node *node, const char *name, double value)
{
    wait_metric(&(metric_wanted){node, name, value, '<'});
}

void bt_wait_metric_is(const bt_node *node, const char *name, double value)
{
    wait_metric(&(metric_wanted){node, name, value, '='});
}

/* ---- requests ---- */

void bt_prompt_put(bt_strbuf *out, uint64_t seed, uint32_t n_tokens)
{
    bt_rng rng = {seed};
    for (uint32_t i = 0; i < n_tokens; i++)
        bt_strbuf_printf(out, "%c%u", i == 0 ? '[' : ',', 32 + (unsigned)bt_rng_below(&rng, 90));
    bt_strbuf_puts(out, "]");
}

bt_strbuf bt_completion(uint64_t seed, uint32_t n_tokens, uint32_t max_tokens, bool stream)
{
    bt_strbuf body = {0};
    bt_strbuf_puts(&body, "{\"prompt\":");
    bt_prompt_put(&body, seed, n_tokens);
    bt_strbuf_printf(&body,
                     ",\"max_tokens\":%u,\"temperature\":0,\"ignore_eos\":true,\"stream\":%s,"
                     "\"return_token_ids\":true",
                     max_tokens, stream ? "true" : "false");
    bt_strbuf_puts(&body, "}");
    return body;
}

static void put_port_list(bt_strbuf *out, const char *key, const uint16_t *ports, uint32_t n)
{
    bt_strbuf_printf(out, ",\"%s\":[", key);
    for (uint32_t i = 0; i < n; i++)
        bt_strbuf_printf(out, "%s%u", i == 0 ? "" : ",", ports[i]);
    bt_strbuf_puts(out, "]");
}

bt_strbuf bt_prefill_leg(uint64_t seed, uint32_t n_tokens, const bt_node *decode,
                         const char *attempt, const char *notice)
{
    bt_strbuf body = bt_completion(seed, n_tokens, 1, false);
    body.length--; /* the brace */
    bt_strbuf_printf(&body,
                     ",\"kv_transfer_params\":{\"ret_first_tok\":true,\"disagg_spec\":"
                     "{\"req_id\":\"%s\",\"receiver_host\":\"127.0.0.1\"",
                     attempt);
    put_port_list(&body, "receiver_init_port", decode->init_ports, decode->n_ranks);
    put_port_list(&body, "receiver_alloc_port", decode->alloc_ports, decode->n_ranks);
    if (notice != NULL)
        bt_strbuf_printf(&body, ",\"notice_addr\":\"%s\"", notice);
    bt_strbuf_puts(&body, "}}}");
    return body;
}

int bt_prefill_open(const bt_node *prefill, uint64_t seed, uint32_t n_tokens, const bt_node *decode,
                    const char *attempt, const char *notice)
{
    bt_strbuf body = bt_prefill_leg(seed, n_tokens, decode, attempt, notice);
    int fd = bt_http_open(prefill->port, "POST", "/v1/completions", bt_strbuf_text(&body), NULL);
    assert_true(fd >= 0);
    bt_strbuf_free(&body);
    return fd;
}

static json_t *parse_answer(const bt_http_answer *answer)
{
    if (answer->status != 200 || !answer->complete)
        fail_msg("wanted 200, found %u: %s", answer->status, bt_strbuf_text(&answer->body));
    json_t *root = json_loads(bt_strbuf_text(&answer->body), 0, NULL);
    assert_non_null(root);
    return root;
}

/* The answer of a completion, which must be 200 and whole. */
static json_t *complete(const bt_node *node, const char *body)
{
    bt_http_answer answer;
    bt_http_call(node->port, "POST", "/v1/completions", body, &answer);
    json_t *root = parse_answer(&answer);
    bt_http_answer_clear(&answer);
    return root;
}

static json_t *token_ids(json_t *root)
{
    json_t *ids = json_object_get(json_array_get(json_object_get(root, "choices"), 0), "token_ids");
    assert_true(json_array_size(ids) > 0);
    return ids;
}

static json_int_t cached_tokens(json_t *root)
{
    const json_t *usage = json_object_get(root, "usage");
    return json_integer_value(
        json_object_get(json_object_get(usage, "prompt_tokens_details"), "cached_tokens"));
}

void bt_check_hand_off(const bt_node *prefill, const bt_node *decode, uint64_t seed,
                       const char *attempt)
{
    enum { N_TOKENS = 3 * BT_CLUSTER_CHUNK_TOKENS + 5 };
    const char *done = "baton_engine_transfers_total{result=\"done\"}";
    double before = bt_metric(prefill, done);
    bt_strbuf leg = bt_prefill_leg(seed, N_TOKENS, decode, attempt, NULL);
    bt_strbuf body = bt_completion(seed, N_TOKENS, MAX_OUTPUT, false);
    json_t *first = complete(prefill, bt_strbuf_text(&leg));
    bt_wait_metric_is(prefill, done, before + 1);

    json_t *answer = complete(decode, bt_strbuf_text(&body));
    assert_int_equal(cached_tokens(answer), N_TOKENS - 1);
    assert_true(
        json_equal(json_array_get(token_ids(first), 0), json_array_get(token_ids(answer), 0)));
    json_decref(first);
    json_decref(answer);
    bt_strbuf_free(&leg);
    bt_strbuf_free(&body);
}

void bt_check_same_tokens(const bt_http_answer *answer, const bt_node *alone, const char *body)
{
    json_t *found = parse_answer(answer), *wanted = complete(alone, body);
    assert_true(json_equal(token_ids(found), token_ids(wanted)));
    json_decref(found);
    json_decref(wanted);
}

void bt_check_completion(const bt_node *node, const bt_node *alone, uint64_t seed,
                         uint32_t n_tokens)
{
    bt_strbuf body = bt_completion(seed, n_tokens, MAX_OUTPUT, false);
    bt_http_answer answer;
    bt_http_call(node->port, "POST", "/v1/completions", bt_strbuf_text(&body), &answer);
    bt_check_same_tokens(&answer, alone, bt_strbuf_text(&body));
    bt_http_answer_clear(&answer);
    bt_strbuf_free(&body);
}

void bt_check_error(bt_http_answer *answer, unsigned status, const char *text)
{
    json_t *root = json_loads(bt_strbuf_text(&answer->body), 0, NULL);
    const json_t *error = json_object_get(root, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    if (answer->status != status || message == NULL ||
        !json_is_string(json_object_get(error, "type")) ||
        (text != NULL && strstr(message, text) == NULL))
        fail_msg("wanted %u and an error with '%s', found %u: %s", status, text != NULL ? text : "",
                 answer->status, bt_strbuf_text(&answer->body));
    json_decref(root);
    bt_http_answer_clear(answer);
}

/* ---- nothing left ---- */

static void check_engine(const bt_node *node)
{
    static const char *const zero[] = {
        "baton_engine_requests{state=\"waiting\"}", "baton_engine_requests{state=\"running\"}",
        "baton_engine_requests{state=\"draining\"}", "baton_engine_blocks{state=\"used\"}"};
    for (size_t i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
        bt_wait_metric_is(node, zero[i], 0);
    double ended = 0;
    static const char *const reasons[] = {"stop", "length", "error", "canceled"};
    for (size_t i = 0; i < 4; i++) {
        char name[96];
        snprintf(name, sizeof(name), "baton_engine_finished_total{reason=\"%s\"}", reasons[i]);
        ended += bt_metric(node, name);
    }
    assert_true(ended == bt_metric(node, "baton_engine_requests_total"));
}

void bt_check_idle_prefill(const bt_node *node)
{
    bt_wait_metric_is(node, "baton_sender_transfers_live", 0);
    assert_true(bt_metric(node, "baton_sender_moves_refused_total") == 0);
    check_engine(node);
    assert_true(bt_metric(node, "baton_engine_transfers_total{result=\"begun\"}") ==
                bt_metric(node, "baton_engine_transfers_total{result=\"done\"}") +
                    bt_metric(node, "baton_engine_transfers_total{result=\"failed\"}"));
    assert_true(bt_metric(node, "baton_sender_transfers_begun_total") ==
                bt_metric(node, "baton_sender_transfers_done_total") +
                    bt_metric(node, "baton_sender_transfers_failed_total"));
}

/* Every granted request became ready or failed. A request may also fail while it is queued, or
 * while it waits for decode. */
static void check_ends(const bt_node *node)
{
    double granted = bt_metric(node, "baton_receiver_tickets_granted_total");
    double queued = bt_metric(node, "baton_receiver_tickets_queued_total");
    double ready = bt_metric(node, "baton_receiver_requests_ready_total");
    double failed = bt_metric(node, "baton_receiver_requests_failed_total");
    if (ready + failed < granted || ready + failed > granted + queued + ready)
        fail_msg("%g granted, %g queued, but %g ready and %g failed", granted, queued, ready,
                 failed);
}

void bt_check_idle_decode(const bt_node *node)
{
    static const char *const zero[] = {
        "baton_receiver_tickets_live",   "baton_receiver_tickets_queued",
        "baton_receiver_holds_live",     "baton_receiver_pins_live",
        "baton_receiver_pages_reserved", "baton_receiver_pages_quarantined",
        "baton_receiver_pages_retired",  "baton_receiver_moves_refused_total"};
    for (size_t i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
        bt_wait_metric_is(node, zero[i], 0);
    check_engine(node);
    assert_true(bt_metric(node, "baton_receiver_pages_total") > 0);
    assert_true(bt_metric(node, "baton_receiver_pages_total") ==
                bt_metric(node, "baton_receiver_pages_free") +
                    bt_metric(node, "baton_receiver_pages_landed"));
    check_ends(node);
}
