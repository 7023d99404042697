/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_openai.h"

#include "http/httpserver.h"
#include "http/jsonscan.h"
#include "http/sse.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_HUNG = 64 };

typedef struct streaming streaming;

struct fake_openai {
    pthread_t thread;
    bt_loop *loop;
    bt_http_server *server;
    bt_http_request *hung[MAX_HUNG]; /* finished when the server stops */
    uint32_t n_hung;
    streaming *streams; /* likewise */
    uint32_t most_at_once;
};

/* One answer on its way, a token per wakeup of the loop. */
struct streaming {
    fake_openai *fake;
    streaming *next;
    bt_http_request *request;
    bt_timer *timer;
    uint64_t n_tokens, n_sent;
    bool chat, cut, think;
};

enum { KEY_PROMPT, KEY_MESSAGES, KEY_MAX_TOKENS, KEY_STREAM, N_KEYS };
static const char *const keys[N_KEYS] = {"prompt", "messages", "max_tokens", "stream"};

static bool says(bt_slice text, const char *word)
{
    return memmem(text.at, text.n, word, strlen(word)) != NULL;
}

static void write_event(bt_http_request *request, const char *data)
{
    char event[512];
    size_t n = bt_sse_format(event, sizeof(event), NULL, data, strlen(data));
    (void)bt_http_write(request, event, n);
}

static void end_stream(streaming *s)
{
    char usage[200];
    snprintf(usage, sizeof(usage),
             "{\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":%u,"
             "\"prompt_tokens_details\":{\"cached_tokens\":3}}}",
             (unsigned)s->n_tokens);
    if (!s->cut) {
        write_event(s->request, usage);
        write_event(s->request, "[DONE]");
    }
    (void)bt_http_end(s->request);
    streaming **link = &s->fake->streams;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    bt_timer_destroy(s->timer);
    free(s);
}

static void next_token(void *arg)
{
    streaming *s = arg;
    if (bt_http_is_gone(s->request) || s->n_sent == s->n_tokens ||
        (s->cut && s->n_sent > s->n_tokens / 2)) {
        end_stream(s);
        return;
    }
    s->n_sent++;
    const char *finish = s->n_sent == s->n_tokens ? "\"length\"" : "null";
    char event[200];
    if (s->think && s->n_sent <= 2) {
        write_event(s->request, s->n_sent == 1
                                    ? "{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}"
                                    : "{\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}");
        bt_timer_start(s->timer, 0, 0);
        return;
    }
    snprintf(event, sizeof(event),
             s->chat ? "{\"choices\":[{\"delta\":{\"content\":\"ab\"},\"finish_reason\":%s}]}"
                     : "{\"choices\":[{\"text\":\"ab\",\"finish_reason\":%s}]}",
             finish);
    write_event(s->request, event);
    bt_timer_start(s->timer, 0, 0);
}

static void begin_stream(fake_openai *fake, bt_http_request *request, bt_slice prompt, bool chat,
                         uint64_t n_tokens)
{
    static const bt_http_header type = {"Content-Type", "text/event-stream; charset=utf-8"};
    streaming *s = calloc(1, sizeof(*s));
    *s = (streaming){.fake = fake,
                     .next = fake->streams,
                     .request = request,
                     .n_tokens = n_tokens,
                     .chat = chat,
                     .cut = says(prompt, "cut"),
                     .think = says(prompt, "think")};
    fake->streams = s;
    if (bt_timer_create(fake->loop, next_token, s, &s->timer) != BATON_OK)
        abort();
    (void)bt_http_begin(request, 200, &type, 1, BT_HTTP_CHUNKED);
    if (chat)
        write_event(request, "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                             "\"finish_reason\":null}]}");
    bt_timer_start(s->timer, 0, 0);
}

static void complain(bt_http_request *request)
{
    static const bt_http_header type = {"Content-Type", "text/event-stream"};
    (void)bt_http_begin(request, 200, &type, 1, BT_HTTP_CHUNKED);
    write_event(request, "{\"error\":{\"message\":\"decode engine lost\"}}");
    (void)bt_http_end(request);
}

static void answer_whole(bt_http_request *request, bool chat, uint64_t n_tokens)
{
    char text[512] = "", answer[1024];
    for (uint64_t i = 0; i < n_tokens && i < 200; i++)
        strcat(text, "ab");
    snprintf(answer, sizeof(answer),
             chat ? "{\"choices\":[{\"message\":{\"content\":\"%s\"}}],"
                    "\"usage\":{\"prompt_tokens\":11,"
                    "\"completion_tokens\":%u}}"
                  : "{\"choices\":[{\"text\":\"%s\"}],\"usage\":{"
                    "\"prompt_tokens\":11,\"completion_tokens\":%u}}",
             text, (unsigned)n_tokens);
    (void)bt_http_respond_json(request, 200, answer, strlen(answer));
}

static void hang(fake_openai *fake, bt_http_request *request, bool interrupt)
{
    assert_true(fake->n_hung < MAX_HUNG);
    fake->hung[fake->n_hung++] = request;
    if (interrupt)
        kill(getpid(), SIGINT);
}

static void answer(fake_openai *fake, bt_http_request *request, const bt_json_object *body)
{
    bool chat = strcmp(request->path, "/v1/chat/completions") == 0;
    bt_slice prompt = bt_json_at(body, chat ? KEY_MESSAGES : KEY_PROMPT).text;
    uint64_t n_tokens = 1;
    (void)bt_json_uint64(bt_json_at(body, KEY_MAX_TOKENS), &n_tokens);
    if (says(prompt, "refuse"))
        (void)bt_http_respond_error(request, 503, NULL, "no capacity", NULL, NULL);
    else if (says(prompt, "complain"))
        complain(request);
    else if (says(prompt, "garble"))
        (void)bt_http_respond_json(request, 200, "{\"choices", 9);
    else if (says(prompt, "hang") || says(prompt, "interrupt"))
        hang(fake, request, says(prompt, "interrupt"));
    else if (bt_json_at(body, KEY_STREAM).type == BT_JSON_TRUE)
        begin_stream(fake, request, prompt, chat, n_tokens);
    else
        answer_whole(request, chat, n_tokens);
}

static void on_request(void *ctx, bt_http_request *request)
{
    fake_openai *fake = ctx;
    bt_http_server_stats stats;
    bt_http_server_stats_get(fake->server, &stats);
    if (stats.n_requests > fake->most_at_once)
        fake->most_at_once = stats.n_requests;
    bt_json_object body;
    static const char models[] = "{\"data\":[{\"id\":\"fake-1\"},{\"id\":\"fake-2\"}]}";
    if (strcmp(request->path, "/v1/models") == 0)
        (void)bt_http_respond_json(request, 200, models, sizeof(models) - 1);
    else if (bt_json_scan(request->body, request->body_bytes, keys, N_KEYS, &body) == BATON_OK)
        answer(fake, request, &body);
    else
        (void)bt_http_respond_error(request, 400, NULL, baton_last_error(), NULL, NULL);
}

static void *serve(void *arg)
{
    fake_openai *fake = arg;
    bt_loop_run(fake->loop);
    for (uint32_t i = 0; i < fake->n_hung; i++)
        bt_http_abort(fake->hung[i]);
    while (fake->streams != NULL)
        end_stream(fake->streams);
    return NULL;
}

fake_openai *fake_openai_start(void)
{
    fake_openai *fake = calloc(1, sizeof(*fake));
    assert_non_null(fake);
    const bt_http_server_options options = {.on_request = on_request, .ctx = fake};
    assert_ok(bt_loop_create(&fake->loop));
    assert_ok(bt_http_server_create(fake->loop, &options, &fake->server));
    assert_int_equal(pthread_create(&fake->thread, NULL, serve, fake), 0);
    return fake;
}

uint16_t fake_openai_port(const fake_openai *fake)
{
    return bt_http_server_port(fake->server);
}

void fake_openai_stop(fake_openai *fake, uint32_t *most_at_once)
{
    bt_loop_stop(fake->loop);
    pthread_join(fake->thread, NULL);
    if (most_at_once != NULL)
        *most_at_once = fake->most_at_once;
    bt_http_server_destroy(fake->server);
    bt_loop_destroy(fake->loop);
    free(fake);
}
