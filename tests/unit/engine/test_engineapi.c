/* SPDX-License-Identifier: Apache-2.0 */
/* The whole HTTP side over the fake model: a real server and real sockets, the loop on a thread of
 * its own, and forward passes that the test can hold back. */
#include "engine/apikit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fail.h"

/* Joins a stream: texts, token ids, and the last chunk's finish reason. */
typedef struct {
    bt_strbuf text;
    bt_token_list ids;
    char finish[16];
    uint32_t n_chunks, n_usage;
    bool done;
} joined;

static void join_event(joined *j, json_t *chunk)
{
    const json_t *choice = first_choice(chunk);
    if (choice == NULL) {
        j->n_usage += json_is_object(json_object_get(chunk, "usage"));
        return;
    }
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *text =
        json_object_get(delta != NULL ? delta : choice, delta != NULL ? "content" : "text");
    bt_strbuf_append(&j->text, json_string_value(text), json_string_length(text));
    const json_t *ids = json_object_get(choice, "token_ids");
    for (size_t i = 0; i < json_array_size(ids); i++)
        (void)bt_token_list_push(&j->ids, (uint32_t)json_integer_value(json_array_get(ids, i)));
    snprintf(j->finish, sizeof(j->finish), "%s", text_of(choice, "finish_reason"));
    j->n_chunks++;
}

static void join_stream(const bt_http_answer *answer, joined *j)
{
    *j = (joined){0};
    const char *at = bt_strbuf_text(&answer->body);
    while ((at = strstr(at, "data: ")) != NULL) {
        at += 6;
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        assert_false(j->done);
        j->done = strncmp(at, "[DONE]", 6) == 0;
        if (!j->done) {
            json_t *chunk = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, NULL);
            assert_non_null(chunk);
            join_event(j, chunk);
            json_decref(chunk);
        }
        at = end;
    }
}

static void clear_joined(joined *j)
{
    bt_strbuf_free(&j->text);
    bt_token_list_clear(&j->ids);
}

static void check_continuation(const char *prompt, const json_t *ids, uint32_t n)
{
    uint32_t tokens[256], output[256];
    uint32_t n_prompt = (uint32_t)strlen(prompt);
    for (uint32_t i = 0; i < n_prompt; i++)
        tokens[i] = (uint8_t)prompt[i];
    bt_fake_continue(tokens, n_prompt, n, output);
    assert_int_equal(json_array_size(ids), n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(json_integer_value(json_array_get(ids, i)), output[i]);
}

#define STREAM_BODY                                                                         \
    "{%s,%s,\"max_tokens\":40,\"ignore_eos\":true,\"return_token_ids\":true,\"stream\":%s," \
    "\"stream_options\":{\"include_usage\":true}}"

static void a_stream_says_what_the_whole_answer_says(void **state)
{
    (void)state;
    static const struct {
        const char *path, *input, *options;
    } cases[] = {
        {"/v1/completions", "\"prompt\":\"once upon a time\"", "\"temperature\":0"},
        {"/v1/completions", "\"prompt\":[1,2,3,250,299]", "\"temperature\":0.8,\"seed\":7"},
        {"/v1/completions", "\"prompt\":[[9,8,7]]", "\"temperature\":1,\"top_p\":0.5,\"seed\":-3"},
        {"/v1/chat/completions", "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]",
         "\"temperature\":0,\"skip_special_tokens\":false"},
        {"/v1/chat/completions",
         "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]",
         "\"temperature\":2,\"top_k\":5,\"seed\":1"},
    };
    bench *b = api_open(false, 4, 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char body[512];
        snprintf(body, sizeof(body), STREAM_BODY, cases[i].input, cases[i].options, "false");
        json_t *whole = api_call(b, cases[i].path, body, 200);
        snprintf(body, sizeof(body), STREAM_BODY, cases[i].input, cases[i].options, "true");
        bt_http_answer answer;
        bt_http_call(b->port, "POST", cases[i].path, body, &answer);
        assert_int_equal(answer.status, 200);
        assert_true(answer.complete);
        assert_non_null(strstr(answer.head.data, "text/event-stream"));
        joined j;
        join_stream(&answer, &j);
        const json_t *choice = first_choice(whole), *message = json_object_get(choice, "message");
        const json_t *text = json_object_get(message != NULL ? message : choice,
                                             message != NULL ? "content" : "text");
        assert_int_equal(j.text.length, json_string_length(text));
        assert_memory_equal(j.text.data, json_string_value(text), j.text.length);
        const json_t *ids = json_object_get(choice, "token_ids");
        assert_int_equal(j.ids.n, 40);
        for (size_t k = 0; k < 40; k++)
            assert_int_equal(j.ids.ids[k], json_integer_value(json_array_get(ids, k)));
        assert_string_equal(j.finish, "length");
        assert_int_equal(j.n_chunks, 40);
        assert_int_equal(j.n_usage, 1);
        assert_true(j.done);
        clear_joined(&j);
        bt_http_answer_clear(&answer);
        json_decref(whole);
    }
    api_close(b);
}

typedef struct {
    uint16_t port;
    char body[256];
    bt_http_answer answer;
} client;

static void *run_client(void *arg)
{
    client *c = arg;
    bt_http_call(c->port, "POST", "/v1/completions", c->body, &c->answer);
    return NULL;
}

static void many_clients_get_what_each_gets_alone(void **state)
{
    (void)state;
    enum { N = 24 };
    bench *b = api_open(false, 8, N);
    static client clients[N];
    pthread_t threads[N];
    char prompts[N][64];
    for (int i = 0; i < N; i++) {
        snprintf(prompts[i], sizeof(prompts[i]), "a shared beginning, then number %d", i % 7);
        clients[i] = (client){.port = b->port};
        snprintf(clients[i].body, sizeof(clients[i].body),
                 "{\"prompt\":\"%s\",\"max_tokens\":%d,\"temperature\":0,\"ignore_eos\":true,"
                 "\"return_token_ids\":true}",
                 prompts[i], 5 + i);
        assert_int_equal(pthread_create(&threads[i], NULL, run_client, &clients[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(clients[i].answer.status, 200);
        json_t *root = json_loads(clients[i].answer.body.data, JSON_ALLOW_NUL, NULL);
        check_continuation(prompts[i], json_object_get(first_choice(root), "token_ids"),
                           5 + (uint32_t)i);
        json_decref(root);
        bt_http_answer_clear(&clients[i].answer);
    }
    api_close(b);
}

static void a_client_that_leaves_ends_its_request(void **state)
{
    (void)state;
    bench *b = api_open(false, 4, 8);
    api_hold(b, true);
    int running = bt_http_open(b->port, "POST", "/v1/completions",
                               "{\"prompt\":\"x\",\"max_tokens\":1900,\"stream\":true}", NULL);
    assert_true(running >= 0);
    WAIT_FOR_U32(b, n_waiting, 1); /* as seen before the first step ends */
    api_hold(b, false);
    WAIT_FOR_U64(b, requests_total, 1);
    close(running);
    bt_scheduler_stats stats;
    do { /* it may have been quick enough to come to its end */
        bt_api_engine_stats(b->api, &stats);
        sched_yield();
    } while (stats.canceled_total + stats.finished_length_total + stats.finished_stop_total == 0);
    WAIT_FOR_U32(b, n_running, 0);

    api_hold(b, true);
    int whole = bt_http_open(b->port, "POST", "/v1/completions",
                             "{\"prompt\":\"y\",\"max_tokens\":1900,\"ignore_eos\":true}", NULL);
    assert_true(whole >= 0);
    WAIT_FOR_U32(b, n_waiting, 1);
    close(whole);
    /* The cancel comes in while the forward pass is held, so it cannot have ended before. */
    bt_http_answer answer;
    do { /* the server has heard of the close when its count of requests says so */
        bt_http_call(b->port, "GET", "/metrics", NULL, &answer);
        bool gone =
            strstr(bt_strbuf_text(&answer.body), "baton_engine_http_connections 1\n") != NULL;
        bt_http_answer_clear(&answer);
        if (gone)
            break;
    } while (true);
    uint64_t before = stats.canceled_total;
    api_hold(b, false);
    WAIT_FOR_U64(b, canceled_total, before + 1);
    WAIT_FOR_U32(b, n_running, 0);
    api_close(b);
}

static void a_full_queue_refuses_with_retry_after(void **state)
{
    (void)state;
    enum { N = 3 };
    bench *b = api_open(false, 1, 2);
    api_hold(b, true);
    int open[N];
    for (int i = 0; i < N; i++) {
        open[i] = bt_http_open(b->port, "POST", "/v1/completions",
                               "{\"prompt\":\"x\",\"max_tokens\":3}", NULL);
        assert_true(open[i] >= 0);
        if (i == 0) /* the first one must be in the held step, so that it does not count */
            WAIT_FOR_U32(b, n_waiting, 1);
    }
    bt_http_answer answer;
    do { /* until both others are queued */
        bt_http_call(b->port, "POST", "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":3}",
                     &answer);
        if (answer.status != 429)
            bt_http_answer_clear(&answer);
    } while (answer.status != 429 && answer.status != 200);
    assert_int_equal(answer.status, 429);
    assert_non_null(strcasestr(answer.head.data, "Retry-After: 1"));
    assert_non_null(strstr(answer.body.data, "ERR_OVERLOADED"));
    bt_http_answer_clear(&answer);
    api_hold(b, false);
    WAIT_FOR_U32(b, n_waiting, 0);
    for (int i = 0; i < N; i++)
        close(open[i]);
    json_decref(api_call(b, "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":3}", 200));
    api_close(b);
}

static void bad_requests_are_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body;
        unsigned status;
        const char *text;
    } cases[] = {
        {"/v1/completions", "{\"prompt\":", 400, "not valid JSON"},
        {"/v1/completions", "[1]", 400, "not a JSON object"},
        {"/v1/completions", "{}", 400, "prompt: wanted a text"},
        {"/v1/completions", "{\"prompt\":\"\"}", 400, "context length"},
        {"/v1/completions", "{\"prompt\":[\"a\",\"b\"]}", 400, "wanted one prompt, found 2"},
        {"/v1/completions", "{\"prompt\":[1,300]}", 400, "prompt[1]: wanted a token id"},
        {"/v1/completions", "{\"prompt\":[1,-1]}", 400, "prompt[1]"},
        {"/v1/completions", "{\"prompt\":[1,1.5]}", 400, "prompt[1]"},
        {"/v1/completions", "{\"prompt\":\"a\",\"model\":\"other\"}", 404, "model_not_found"},
        {"/v1/completions", "{\"prompt\":\"a\",\"model\":7}", 400, "does not exist"},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":0}", 400, "max_tokens: wanted"},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":2000}", 400, "max_tokens is 2000"},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":\"5\"}", 400, "max_tokens"},
        {"/v1/completions", "{\"prompt\":\"a\",\"min_tokens\":17}", 400, "min_tokens"},
        {"/v1/completions", "{\"prompt\":\"a\",\"temperature\":-1}", 400, "temperature"},
        {"/v1/completions", "{\"prompt\":\"a\",\"top_p\":0}", 400, "top_p"},
        {"/v1/completions", "{\"prompt\":\"a\",\"seed\":1.5}", 400, "seed"},
        {"/v1/completions", "{\"prompt\":\"a\",\"n\":2}", 400, "n: wanted"},
        {"/v1/completions", "{\"prompt\":\"a\",\"echo\":true}", 400, "echo"},
        {"/v1/completions", "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400, "suffix"},
        {"/v1/completions", "{\"prompt\":\"a\",\"logprobs\":21}", 400, "logprobs"},
        {"/v1/completions", "{\"prompt\":\"a\",\"stop\":[7]}", 400, "stop[0]"},
        {"/v1/completions", "{\"prompt\":\"a\",\"stop\":\"\"}", 400, "empty"},
        {"/v1/completions", "{\"prompt\":\"a\",\"stop_token_ids\":[300]}", 400, "stop_token_ids"},
        {"/v1/completions", "{\"prompt\":\"a\",\"stream\":1}", 400, "stream"},
        {"/v1/completions", "{\"prompt\":\"a\",\"frequency_penalty\":0.5}", 400, "frequency"},
        {"/v1/completions", "{\"prompt\":\"a\",\"kv_transfer_params\":{\"disagg_spec\":{}}}", 400,
         "does not send KV"},
        {"/v1/chat/completions", "{\"messages\":[]}", 400, "messages"},
        {"/v1/chat/completions", "{\"messages\":[{\"role\":\"king\",\"content\":\"a\"}]}", 400,
         "found 'king'"},
        {"/v1/chat/completions", "{\"messages\":[{\"content\":\"a\"}]}", 400, "wanted a role"},
        {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", 400,
         "content"},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400,
         "type text only"},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_logprobs\":2}", 400,
         "top_logprobs"},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{}]}", 400, "tools"},
        {"/tokenize", "{}", 400, "wanted prompt"},
        {"/detokenize", "{\"tokens\":\"x\"}", 400, "tokens"},
        {"/nothing", "{}", 404, "error"},
        {"/metrics", "{}", 405, "error"},
    };
    bench *b = api_open(false, 4, 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *root = api_call(b, cases[i].path, cases[i].body, cases[i].status);
        char *text = json_dumps(root, 0);
        if (strstr(text, cases[i].text) == NULL || strstr(text, "\"error\"") == NULL)
            fail_msg("%s: wanted '%s', found %s", cases[i].body, cases[i].text, text);
        free(text);
        json_decref(root);
    }
    bt_scheduler_stats stats;
    bt_api_engine_stats(b->api, &stats);
    assert_int_equal(stats.requests_total, 0);
    api_close(b);
}

static void tokens_that_the_model_lacks_are_refused(void **state)
{
    (void)state;
    bt_tokenizer *tokenizer;
    assert_ok(bt_tokenizer_create_bytes(&tokenizer));
    bt_api_limits limits = {.tokenizer = tokenizer,
                            .chat_template = BT_CHAT_CHATML,
                            .model_names = api_names,
                            .n_model_names = 2,
                            .n_vocab = 'c',
                            .max_len = 100};
    static const char *const bodies[] = {"{\"prompt\":\"abc\"}", "{\"prompt\":[1,99]}"};
    for (int i = 0; i < 2; i++) {
        bt_api_params params = {0};
        bt_api_error error = {0};
        assert_false(bt_api_parse(&limits, false, bodies[i], strlen(bodies[i]), &params, &error));
        assert_int_equal(error.status, 400);
        bt_api_params_clear(&params);
    }
    const char *chat = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    bt_api_params params = {0};
    bt_api_error error = {0};
    assert_false(bt_api_parse(&limits, true, chat, strlen(chat), &params, &error));
    assert_non_null(strstr(error.message, "The prompt has token 258"));
    bt_api_params_clear(&params);
    bt_tokenizer_destroy(tokenizer);
}

static void a_failure_in_a_stream_is_an_error_event(void **state)
{
    (void)state;
    bench *b = api_open(false, 4, 8);
    pthread_mutex_lock(&b->lock);
    b->model.fail_after = 5;
    pthread_mutex_unlock(&b->lock);
    bt_expect_log("forward pass of 1 sequences failed");
    bt_http_answer answer;
    bt_http_call(b->port, "POST", "/v1/completions",
                 "{\"prompt\":\"a\",\"max_tokens\":50,\"ignore_eos\":true,\"stream\":true}",
                 &answer);
    assert_int_equal(answer.status, 200);
    assert_true(answer.complete);
    const char *error = strstr(answer.body.data, "data: {\"error\":");
    assert_non_null(error);
    assert_non_null(strstr(error, "fake model: told to fail"));
    assert_non_null(strstr(error, "data: [DONE]\n\n"));
    bt_http_answer_clear(&answer);
    json_decref(api_call(b, "/v1/completions", "{\"prompt\":\"a\"}",
                         bt_http_status_of(BATON_ERR_IO))); /* before the first byte */
    api_close(b);
}

static void logprobs_come_in_both_shapes(void **state)
{
    (void)state;
    bench *b = api_open(false, 4, 8);
    json_t *root = api_call(b, "/v1/completions",
                            "{\"prompt\":\"abc\",\"max_tokens\":4,\"temperature\":0,\"logprobs\":3,"
                            "\"ignore_eos\":true}",
                            200);
    const json_t *logprobs = json_object_get(first_choice(root), "logprobs");
    assert_int_equal(json_array_size(json_object_get(logprobs, "tokens")), 4);
    assert_int_equal(json_array_size(json_object_get(logprobs, "text_offset")), 4);
    const json_t *top = json_array_get(json_object_get(logprobs, "top_logprobs"), 0);
    assert_in_range(json_object_size(top), 1, 3);
    double first = json_real_value(json_array_get(json_object_get(logprobs, "token_logprobs"), 0));
    assert_true(first < 0 && first > -10);
    json_decref(root);
    root = api_call(b, "/v1/chat/completions",
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":4,"
                    "\"temperature\":0,\"logprobs\":true,\"top_logprobs\":2,\"ignore_eos\":true}",
                    200);
    const json_t *content =
        json_object_get(json_object_get(first_choice(root), "logprobs"), "content");
    assert_int_equal(json_array_size(content), 4);
    const json_t *entry = json_array_get(content, 0);
    const json_t *likeliest = json_array_get(json_object_get(entry, "top_logprobs"), 0);
    assert_true(json_equal(json_object_get(entry, "logprob"),
                           json_object_get(likeliest, "logprob"))); /* greedy */
    json_decref(root);
    api_close(b);
}

#define STOP_BODY "{\"prompt\":\"abc\",\"max_tokens\":60,\"temperature\":0,\"ignore_eos\":true%s%s}"

static void a_stop_string_ends_the_answer(void **state)
{
    (void)state;
    bench *b = api_open(false, 4, 8);
    char body[512];
    snprintf(body, sizeof(body), STOP_BODY, "", "");
    json_t *root = api_call(b, "/v1/completions", body, 200);
    char whole[512];
    snprintf(whole, sizeof(whole), "%s", text_of(first_choice(root), "text"));
    json_decref(root);
    size_t at = 12;
    while ((whole[at] & 0xc0) == 0x80)
        at++;
    size_t end = at + 3;
    while ((whole[end] & 0xc0) == 0x80)
        end++;
    json_t *stop = json_stringn(whole + at, end - at);
    char *quoted = json_dumps(stop, JSON_ENCODE_ANY);
    snprintf(body, sizeof(body), STOP_BODY, ",\"stop\":", quoted);
    root = api_call(b, "/v1/completions", body, 200);
    const char *text = text_of(first_choice(root), "text");
    const char *found = strstr(whole, json_string_value(stop));
    assert_int_equal(strlen(text), found - whole);
    assert_memory_equal(text, whole, strlen(text));
    assert_string_equal(text_of(first_choice(root), "finish_reason"), "stop");
    json_decref(root);
    json_decref(stop);
    free(quoted);
    api_close(b);
}

static void small_routes_answer(void **state)
{
    (void)state;
    bench *b = api_open(false, 4, 8);
    json_t *root = api_call(b, "/v1/models", NULL, 200);
    assert_int_equal(json_array_size(json_object_get(root, "data")), 2);
    json_decref(root);
    root = api_call(b, "/v1/models/alias", NULL, 200);
    assert_string_equal(text_of(root, "id"), "alias");
    json_decref(root);
    json_decref(api_call(b, "/v1/models/none", NULL, 404));
    root = api_call(b, "/tokenize", "{\"model\":\"fake\",\"prompt\":\"h\\u00e9\"}", 200);
    assert_int_equal(json_integer_value(json_object_get(root, "count")), 3);
    assert_int_equal(json_integer_value(json_object_get(root, "max_model_len")), MAX_LEN);
    json_decref(root);
    root = api_call(b, "/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 200);
    const json_t *tokens = json_object_get(root, "tokens");
    assert_int_equal(json_integer_value(json_array_get(tokens, 0)), BT_BYTES_IM_START);
    json_decref(root);
    root = api_call(b, "/detokenize", "{\"tokens\":[104,195,169]}", 200);
    assert_string_equal(text_of(root, "prompt"), "h\xc3\xa9");
    json_decref(root);
    bt_http_answer answer;
    bt_http_call(b->port, "GET", "/health", NULL, &answer);
    assert_int_equal(answer.status, 200);
    bt_http_answer_clear(&answer);
    bt_http_call(b->port, "GET", "/metrics", NULL, &answer);
    assert_int_equal(answer.status, 200);
    assert_non_null(
        strstr(bt_strbuf_text(&answer.body), "baton_engine_blocks{state=\"free\"} 1000\n"));
    bt_http_answer_clear(&answer);
    api_close(b);
}

#define SPEC "\"disagg_spec\":{\"req_id\":\"r7\",\"receiver_host\":\"10.0.0.1\","
static const char with_spec[] =
    "{\"prompt\":[1,2,3,4,5,6,7,8,9],\"max_tokens\":1,\"temperature\":0,\"stream\":false,"
    "\"kv_transfer_params\":{\"ret_first_tok\":true," SPEC
    "\"receiver_init_port\":[7300,7301],\"receiver_alloc_port\":[7400,7401],"
    "\"notice_addr\":\"tcp://10.0.0.9:7500\",\"kv_wait_ms\":35000}}}";

static void a_prefill_leg_sends_and_returns_the_first_token(void **state)
{
    (void)state;
    bench *b = api_open(true, 4, 8);
    json_t *root = api_call(b, "/v1/completions", with_spec, 200);
    uint32_t prompt[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, first;
    bt_fake_continue(prompt, 9, 1, &first);
    const json_t *params = json_object_get(root, "kv_transfer_params");
    assert_int_equal(json_integer_value(json_object_get(params, "first_tok")), first);
    json_decref(root);
    WAIT_FOR_U64(b, transfers_done_total, 1);
    assert_string_equal(b->target.request, "r7");
    assert_string_equal(b->target.host, "10.0.0.1");
    assert_string_equal(b->target.notice, "tcp://10.0.0.9:7500");
    assert_int_equal(b->target.wait_ms, 35000);
    assert_int_equal(b->target.n_ranks, 2);
    assert_int_equal(b->target.init_ports[1], 7301);
    assert_int_equal(b->target.alloc_ports[0], 7400);
    assert_int_equal(b->n_tokens, 9);
    assert_int_equal(b->n_chunks, 2);
    api_close(b);
}

#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static unsigned post_traced(const bench *b, const char *body)
{
    char request[1024];
    bt_http_answer answer;
    int n = snprintf(request, sizeof(request),
                     "POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                     "traceparent: " TRACEPARENT "\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    bt_http_finish(bt_http_send(b->port, request, (size_t)n), &answer);
    unsigned status = answer.status;
    bt_http_answer_clear(&answer);
    return status;
}

/* The hand-off goes on with the request's own trace, and a failure's line names it. */
static void the_header_names_the_trace(void **state)
{
    (void)state;
    bench *b = api_open(true, 4, 8);
    assert_int_equal(post_traced(b, with_spec), 200);
    WAIT_FOR_U64(b, transfers_done_total, 1);
    assert_string_equal(b->target.traceparent, TRACEPARENT);
    pthread_mutex_lock(&b->lock);
    b->fails = BATON_ERR_PERMISSION;
    pthread_mutex_unlock(&b->lock);
    assert_int_equal(post_traced(b, with_spec), bt_http_status_of(BATON_ERR_PERMISSION));
    assert_int_equal(bt_log_seen("trace=4bf92f3577b34da6a3ce929d0e0e4736"), 1);
    api_close(b);
}

static void a_hand_off_that_cannot_begin_is_an_honest_error(void **state)
{
    (void)state;
    bench *b = api_open(true, 4, 8);
    pthread_mutex_lock(&b->lock);
    b->fails = BATON_ERR_PERMISSION;
    pthread_mutex_unlock(&b->lock);
    json_t *root =
        api_call(b, "/v1/completions", with_spec, bt_http_status_of(BATON_ERR_PERMISSION));
    assert_string_equal(text_of(json_object_get(root, "error"), "code"), "ERR_PERMISSION");
    json_decref(root);
    static const char *const specs[] = {
        "\"receiver_init_port\":[7300],\"receiver_alloc_port\":[]",
        "\"receiver_init_port\":[7300],\"receiver_alloc_port\":[1,2]",
        "\"receiver_init_port\":0,\"receiver_alloc_port\":1",
        "\"receiver_alloc_port\":1",
    };
    for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        char body[512];
        snprintf(body, sizeof(body), "{\"prompt\":\"x\",\"kv_transfer_params\":{" SPEC "%s}}}",
                 specs[i]);
        json_decref(api_call(b, "/v1/completions", body, 400));
    }
    api_close(b);
}

/* The nth allocation of jansson's from now on fails; 0: none. */
static _Atomic unsigned json_fails_in;

static void *scarce_malloc(size_t bytes)
{
    if (json_fails_in > 0 && --json_fails_in == 0)
        return NULL;
    return malloc(bytes);
}

/* The engine's own want, not a mistake of the client's: no 4xx. */
static void a_body_that_there_is_no_memory_for_is_no_bad_request(void **state)
{
    (void)state;
    static const char body[] = "{\"prompt\":[1,2,3,4,5],\"max_tokens\":1,\"temperature\":0.5,"
                               "\"stop\":[\"x\",\"y\"],\"logprobs\":2,\"stream\":false}";
    bench *b = api_open(false, 4, 8);
    json_set_alloc_funcs(scarce_malloc, free);
    unsigned n_refused = 0;
    for (unsigned nth = 1; json_fails_in == 0; nth++) {
        bt_http_answer answer;
        json_fails_in = nth;
        bt_http_call(b->port, "POST", "/v1/completions", body, &answer);
        if (answer.status != 200) {
            assert_int_equal(answer.status, 503);
            assert_non_null(strstr(answer.body.data, "no memory for the"));
            assert_non_null(strstr(answer.body.data, "\"ERR_NO_MEMORY\""));
            n_refused++;
        }
        bt_http_answer_clear(&answer);
    }
    json_fails_in = 0;
    json_set_alloc_funcs(malloc, free);
    assert_true(n_refused > 20);
    json_decref(api_call(b, "/v1/completions", "{\"prompt\":\"a\"", 400));
    json_decref(api_call(b, "/v1/completions", "{\"prompt\":\"a\",\"n\":1e999}", 400));
    api_close(b);
}

static void running_requests_end_with_an_error_when_the_engine_stops(void **state)
{
    (void)state;
    bench *b = api_open(false, 4, 8);
    api_hold(b, true);
    static client c;
    c = (client){.port = b->port,
                 .body = "{\"prompt\":\"x\",\"max_tokens\":1900,\"ignore_eos\":true}"};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_client, &c), 0);
    WAIT_FOR_U32(b, n_waiting, 1);
    bt_loop_stop(b->loop);
    pthread_join(b->thread, NULL);
    api_hold(b, false);
    bt_api_stop(b->api, 0);
    pthread_join(thread, NULL);
    /* Cut off, told, or quick enough: but never left hanging. */
    assert_true(c.answer.status == 0 || c.answer.status == 503 || c.answer.status == 200);
    bt_http_answer_clear(&c.answer);
    bt_scheduler_stats stats;
    bt_api_engine_stats(b->api, &stats);
    assert_int_equal(stats.canceled_total + stats.finished_length_total, 1);
    assert_int_equal(pthread_create(&b->thread, NULL, api_run_loop, b), 0);
    api_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_stream_says_what_the_whole_answer_says),
        bt_test(many_clients_get_what_each_gets_alone),
        bt_test(a_client_that_leaves_ends_its_request),
        bt_test(a_full_queue_refuses_with_retry_after),
        bt_test(bad_requests_are_refused_with_the_reason),
        bt_test(tokens_that_the_model_lacks_are_refused),
        bt_test(a_failure_in_a_stream_is_an_error_event),
        bt_test(logprobs_come_in_both_shapes),
        bt_test(a_stop_string_ends_the_answer),
        bt_test(small_routes_answer),
        bt_test(a_prefill_leg_sends_and_returns_the_first_token),
        bt_test(the_header_names_the_trace),
        bt_test(a_hand_off_that_cannot_begin_is_an_honest_error),
        bt_test(a_body_that_there_is_no_memory_for_is_no_bad_request),
        bt_test(running_requests_end_with_an_error_when_the_engine_stops),
    };
    return bt_run_tests(tests);
}
