/* SPDX-License-Identifier: Apache-2.0 */
#include "fakeengine.h"

#include "http/httpserver.h"
#include "support/test.h"
#include "support/tlskit.h"
#include "wire/notice.h"
#include "wire/zmqsocket.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_FAKES = 8, MAX_REQUESTS = 64, GUARD_SECONDS = 300 };

typedef struct {
    fake *engine;
    bt_http_request *http; /* NULL: finished */
    fake_script script;
    const fake_request *record;
    bool is_tokenize, is_begun, is_waiting;
} held_request;

struct fake {
    bool is_prefill, is_dead;
    bt_http_server *server;
    uint16_t port;
    fake_script tokenize, generate;
    fake_brain brain;
    void *brain_ctx;
    fake_notices notices;
    unsigned n_ranks, n_notices_only_first;
    char url[64];
    fake_request *requests[MAX_REQUESTS];
    held_request held[MAX_REQUESTS];
    unsigned n_requests, n_tokenize, n_generate, n_handoffs, n_gone;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bt_loop *loop;
    fake fakes[MAX_FAKES];
    unsigned n_fakes;
    void *zmq, *push; /* the loop thread's */
    char push_url[64];
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Notices. */

static void *open_push(const char *url, void *context)
{
    void *socket = NULL;
    bt_zmq_options options = {.type = ZMQ_PUSH, .queue_unconnected = true};
    assert_ok(bt_zmq_open(context, &options, &socket));
    assert_ok(bt_zmq_connect_url(socket, url));
    return socket;
}

static void push(void *socket, const void *frame, size_t n)
{
    bt_blob part = bt_blob_of(frame, n);
    assert_ok(bt_zmq_send(socket, &part, 1));
}

static void push_notice(void *socket, const char *id, unsigned rank, unsigned world, int status)
{
    uint8_t frame[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    bt_notice notice = {.id = bt_blob_of_text(id),
                        .epoch = 77,
                        .rank = rank,
                        .world = world,
                        .status = status,
                        .text = bt_blob_of_text(status == 0 ? "" : "told to fail")};
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    assert_ok(bt_notice_encode(&notice, &writer));
    push(socket, writer.bytes, writer.n);
}

static void push_legacy(void *socket, const char *type, const char *id)
{
    uint8_t frame[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    bt_pack_map(&writer, 2);
    bt_pack_key_str(&writer, "type", type);
    bt_pack_key_str(&writer, "req_id", id);
    assert_ok(bt_pack_finish(&writer));
    push(socket, writer.bytes, writer.n);
}

static void send_notices(fake *engine, const char *attempt)
{
    fake_notices notices = engine->notices;
    if (engine->n_notices_only_first > 0 && engine->n_handoffs >= engine->n_notices_only_first)
        notices = FAKE_NOTICE_READY;
    engine->n_handoffs++;
    if (notices == FAKE_NOTICE_NONE || attempt[0] == 0)
        return;
    if (all.push == NULL || strcmp(all.push_url, engine->url) != 0) {
        bt_zmq_close(all.push);
        all.push = open_push(engine->url, all.zmq);
        snprintf(all.push_url, sizeof(all.push_url), "%s", engine->url);
    }
    for (unsigned rank = 0; rank < engine->n_ranks; rank++) {
        bool fails = notices == FAKE_NOTICE_FAILED && rank + 1 == engine->n_ranks;
        if (notices == FAKE_NOTICE_LEGACY)
            push_legacy(all.push, "NixlProxyNotif", attempt);
        else
            push_notice(all.push, attempt, rank, engine->n_ranks,
                        fails ? BATON_ERR_PUT_TIMEOUT : 0);
    }
}

/* Answers. */

static const char tokens[] = "{\"count\":3,\"max_model_len\":100,\"tokens\":[11,12,13]}";
static const char prefill_answer[] =
    "{\"id\":\"cmpl-P\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"text\":\"A\",\"logprobs\":null,\"finish_reason\":\"length\",\"stop_reason\":"
    "null}],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":4,\"completion_tokens\":1},"
    "\"kv_transfer_params\":{\"first_tok\":42}}";
static const char decode_answer[] =
    "{\"id\":\"cmpl-D\",\"object\":\"text_completion\",\"created\":9,\"model\":\"m\",\"choices\":"
    "[{\"index\":0,\"text\":\"BC\",\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":"
    "null}],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":6,\"completion_tokens\":2}}";
static const char *const decode_events[] = {
    "data: {\"id\":\"cmpl-D\",\"object\":\"text_completion\",\"created\":9,\"model\":\"m\","
    "\"choices\":[{\"index\":0,\"text\":\"B\",\"logprobs\":null,\"finish_reason\":null}]}\n\n",
    /* Events do not arrive as they were written. */
    "data: {\"id\":\"cmpl-D\",\"object\":\"text_completion\",\"created\":9,\"model\":\"m\",\"cho",
    "ices\":[{\"index\":0,\"text\":\"C\",\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\nda",
    "ta: [DONE]\n\n", NULL};

static bool wants_stream(const bt_http_request *http)
{
    return strstr(http->body, "\"stream\":true") != NULL;
}

static void finish_body(held_request *held)
{
    if (held->script.way == FAKE_HOLDS_BODY || held->script.way == FAKE_HOLDS_WHOLE_HEAD)
        return;
    if (held->script.way == FAKE_CUTS_BODY)
        bt_http_abort(held->http);
    else
        bt_http_end(held->http);
    held->http = NULL;
}

static void stream(held_request *held, const char *type, const char *const *pieces)
{
    bt_http_header header = {"Content-Type", type};
    bt_http_begin(held->http, 200, &header, 1, BT_HTTP_CHUNKED);
    bool is_head_only = held->script.way == FAKE_HOLDS_WHOLE_HEAD;
    for (; *pieces != NULL && !is_head_only; pieces++)
        bt_http_write(held->http, *pieces, strlen(*pieces));
    finish_body(held);
}

static const char *default_body(const held_request *held)
{
    const char *path = held->http->path;
    if (held->is_tokenize)
        return tokens;
    if (strcmp(path, "/health") == 0 || strcmp(path, "/detokenize") == 0)
        return "{}";
    if (strcmp(path, "/v1/models") == 0)
        return held->engine->is_prefill ? "{\"data\":[{\"id\":\"m\",\"x\":1}]}"
                                        : "{\"data\":[{\"id\":\"m\"},{\"id\":\"lora\"}]}";
    return held->engine->is_prefill ? prefill_answer : decode_answer;
}

/* False: the engine has nothing to say of its own. */
static bool answer_from_brain(held_request *held)
{
    static fake_answer reply; /* the loop's thread */
    const fake *engine = held->engine;
    bool is_scripted = held->script.status != 0 || held->script.body != NULL ||
                       held->script.events != NULL || held->script.way != FAKE_ANSWERS;
    if (engine->brain == NULL || is_scripted)
        return false;
    reply = (fake_answer){.status = 200};
    if (!engine->brain(engine->brain_ctx, held->record, &reply))
        return false;
    held->is_waiting = reply.waits;
    if (reply.waits)
        return true;
    const char *pieces[] = {reply.body, NULL};
    if (reply.status == 200 && !engine->is_prefill && wants_stream(held->http)) {
        stream(held, "text/event-stream; charset=utf-8", pieces);
        return true;
    }
    bt_http_respond_json(held->http, reply.status, reply.body, strlen(reply.body));
    held->http = NULL;
    return true;
}

static void answer(held_request *held)
{
    const fake_script *script = &held->script;
    if (answer_from_brain(held))
        return;
    unsigned status = script->status == 0 ? 200 : script->status;
    bool is_good_decode = !held->engine->is_prefill && status == 200;
    const char *body = script->body != NULL ? script->body : default_body(held);
    if (script->way == FAKE_CUTS_HEAD) {
        bt_http_abort(held->http);
        held->http = NULL;
    } else if (is_good_decode && wants_stream(held->http)) {
        stream(held, "text/event-stream; charset=utf-8",
               script->events != NULL ? script->events : decode_events);
    } else if (script->way >= FAKE_CUTS_BODY) {
        const char *pieces[] = {body, NULL};
        stream(held, "application/json", pieces);
    } else {
        bt_http_header headers[] = {{"Content-Type", "application/json"},
                                    {"Retry-After", script->retry_after}};
        bt_http_respond(held->http, status, headers, script->retry_after != NULL ? 2 : 1, body,
                        strlen(body));
        held->http = NULL;
    }
}

/* Requests. */

static void on_gone(void *arg)
{
    held_request *held = arg;
    if (held->http == NULL)
        return; /* answered, but not to the last byte */
    bt_http_abort(held->http);
    held->http = NULL;
    pthread_mutex_lock(&all.lock);
    held->engine->n_gone++;
    pthread_cond_broadcast(&all.changed);
    pthread_mutex_unlock(&all.lock);
}

static void read_attempt(fake_request *record)
{
    const char *at = strstr(record->body, "\"req_id\":\"");
    if (at != NULL)
        sscanf(at + 10, "%63[^\"]", record->attempt);
}

static fake_request *record_of(const bt_http_request *http)
{
    fake_request *record = calloc(1, sizeof(*record));
    size_t n = 0;
    snprintf(record->path, sizeof(record->path), "%s", http->path);
    for (size_t i = 0; i < http->headers.n && n < sizeof(record->headers); i++)
        n += (size_t)snprintf(record->headers + n, sizeof(record->headers) - n, "%s: %s\n",
                              http->headers.items[i].name, http->headers.items[i].value);
    assert_true(http->body_bytes < sizeof(record->body));
    memcpy(record->body, http->body, http->body_bytes);
    read_attempt(record);
    return record;
}

static void ask_those_who_wait(void)
{
    for (unsigned i = 0; i < all.n_fakes; i++) {
        for (unsigned k = 0; k < all.fakes[i].n_requests; k++) {
            held_request *held = &all.fakes[i].held[k];
            if (held->is_waiting && held->http != NULL)
                answer(held);
        }
    }
}

static void on_request(void *ctx, bt_http_request *http)
{
    fake *engine = ctx;
    fake_request *record = record_of(http);
    pthread_mutex_lock(&all.lock);
    assert_true(engine->n_requests < MAX_REQUESTS);
    held_request *held = &engine->held[engine->n_requests];
    bool is_tokenize = strcmp(http->path, "/tokenize") == 0;
    unsigned nth = is_tokenize ? engine->n_tokenize++ : engine->n_generate++;
    const fake_script *script = is_tokenize ? &engine->tokenize : &engine->generate;
    *held = (held_request){
        .engine = engine, .http = http, .record = record, .is_tokenize = is_tokenize};
    if (script->only_first == 0 || nth < script->only_first)
        held->script = *script;
    engine->requests[engine->n_requests++] = record;
    if (engine->is_prefill && !is_tokenize && held->script.status == 0)
        send_notices(engine, record->attempt);
    pthread_cond_broadcast(&all.changed);
    pthread_mutex_unlock(&all.lock);
    bt_http_on_gone(http, on_gone, held);
    bool is_health = strcmp(http->path, "/health") == 0;
    if (held->script.way == FAKE_COMPUTES ? is_health : held->script.way != FAKE_HOLDS)
        answer(held);
    ask_those_who_wait();
}

/* Life. */

static void *run(void *arg)
{
    (void)arg;
    bt_loop_run(all.loop);
    return NULL;
}

void fakes_start(void)
{
    memset(all.fakes, 0, sizeof(all.fakes));
    all.n_fakes = 0;
    assert_ok(bt_zmq_context_create(&all.zmq));
    assert_ok(bt_loop_create(&all.loop));
    assert_int_equal(pthread_create(&all.thread, NULL, run, NULL), 0);
}

static void finish_held(fake *engine)
{
    for (unsigned i = 0; i < engine->n_requests; i++) {
        if (engine->held[i].http != NULL)
            bt_http_abort(engine->held[i].http);
        engine->held[i].http = NULL;
    }
}

void fakes_stop(void)
{
    bt_loop_stop(all.loop);
    pthread_join(all.thread, NULL);
    for (unsigned i = 0; i < all.n_fakes; i++) {
        finish_held(&all.fakes[i]);
        bt_http_server_destroy(all.fakes[i].server);
        for (unsigned k = 0; k < all.fakes[i].n_requests; k++)
            free(all.fakes[i].requests[k]);
    }
    bt_loop_destroy(all.loop);
    bt_zmq_close(all.push);
    bt_zmq_context_destroy(all.zmq);
    all.push = all.zmq = NULL;
}

/* Runs fn on the loop's thread and waits for it. */
typedef struct {
    void (*fn)(fake *engine);
    fake *engine;
    bool is_done;
} errand;

static void run_errand(void *arg)
{
    errand *e = arg;
    e->fn(e->engine);
    pthread_mutex_lock(&all.lock);
    e->is_done = true;
    pthread_cond_broadcast(&all.changed);
    pthread_mutex_unlock(&all.lock);
}

/* Waits for a change; the guard only ends tests that hang. */
static void wait_for_change(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += GUARD_SECONDS;
    if (pthread_cond_timedwait(&all.changed, &all.lock, &until) == 0)
        return;
    pthread_mutex_unlock(&all.lock); /* the next test goes on */
    fail_msg("a fake engine waited for %d s in vain", GUARD_SECONDS);
}

static void on_loop(void (*fn)(fake *engine), fake *engine)
{
    errand e = {fn, engine, false};
    assert_ok(bt_loop_post(all.loop, run_errand, &e));
    pthread_mutex_lock(&all.lock);
    while (!e.is_done)
        wait_for_change();
    pthread_mutex_unlock(&all.lock);
}

static void open_server(fake *engine)
{
    bt_http_server_options options = {
        .port = engine->port, .tls = tlskit_server(), .on_request = on_request, .ctx = engine};
    assert_ok(bt_http_server_create(all.loop, &options, &engine->server));
    engine->port = bt_http_server_port(engine->server);
}

fake *fake_open(bool is_prefill)
{
    assert_true(all.n_fakes < MAX_FAKES);
    fake *engine = &all.fakes[all.n_fakes++];
    engine->is_prefill = is_prefill;
    engine->n_ranks = 1;
    on_loop(open_server, engine);
    return engine;
}

uint16_t fake_port(const fake *engine)
{
    return engine->port;
}

static void die(fake *engine)
{
    finish_held(engine);
    bt_http_server_destroy(engine->server);
    engine->server = NULL;
}

void fake_die(fake *engine)
{
    on_loop(die, engine);
}

void fake_revive(fake *engine)
{
    on_loop(open_server, engine);
}

void fake_set_tokenize(fake *engine, const fake_script *script)
{
    pthread_mutex_lock(&all.lock);
    engine->tokenize = *script;
    pthread_mutex_unlock(&all.lock);
}

void fake_set(fake *engine, const fake_script *script)
{
    pthread_mutex_lock(&all.lock);
    engine->generate = *script;
    pthread_mutex_unlock(&all.lock);
}

void fake_set_brain(fake *engine, fake_brain brain, void *ctx)
{
    pthread_mutex_lock(&all.lock);
    engine->brain = brain;
    engine->brain_ctx = ctx;
    pthread_mutex_unlock(&all.lock);
}

void fake_set_notices(fake *engine, fake_notices notices, unsigned n_ranks, const char *url)
{
    pthread_mutex_lock(&all.lock);
    engine->notices = notices;
    engine->n_ranks = n_ranks;
    if (url != NULL)
        snprintf(engine->url, sizeof(engine->url), "%s", url);
    pthread_mutex_unlock(&all.lock);
}

void fake_set_notices_only_first(fake *engine, unsigned n)
{
    pthread_mutex_lock(&all.lock);
    engine->n_notices_only_first = n;
    pthread_mutex_unlock(&all.lock);
}

static void release(fake *engine)
{
    for (unsigned i = 0; i < engine->n_requests; i++) {
        held_request *held = &engine->held[i];
        fake_way way = held->script.way;
        bool is_held = held->http != NULL && (way == FAKE_HOLDS || way == FAKE_COMPUTES);
        held->script.way = is_held ? FAKE_ANSWERS : way;
        if (is_held)
            answer(held);
    }
}

void fake_release(fake *engine)
{
    on_loop(release, engine);
}

unsigned fake_count(fake *engine)
{
    pthread_mutex_lock(&all.lock);
    unsigned n = engine->n_requests;
    pthread_mutex_unlock(&all.lock);
    return n;
}

const fake_request *fake_nth(fake *engine, unsigned n)
{
    pthread_mutex_lock(&all.lock);
    while (engine->n_requests <= n)
        wait_for_change();
    const fake_request *record = engine->requests[n];
    pthread_mutex_unlock(&all.lock);
    return record;
}

void fake_wait_gone(fake *engine, unsigned n)
{
    pthread_mutex_lock(&all.lock);
    while (engine->n_gone < n)
        wait_for_change();
    pthread_mutex_unlock(&all.lock);
}

/* Notices of the test's own: sent, and on the wire before the socket is closed. */
static void with_push(const char *url, void (*send)(void *socket, const void *what),
                      const void *what)
{
    void *context = NULL, *socket, *monitor = NULL;
    bt_zmq_event event = BT_ZMQ_REFUSED;
    assert_ok(bt_zmq_context_create(&context));
    bt_zmq_options options = {.type = ZMQ_PUSH, .queue_unconnected = true};
    assert_ok(bt_zmq_open(context, &options, &socket));
    assert_ok(bt_zmq_monitor_open(context, socket, &monitor));
    assert_ok(bt_zmq_connect_url(socket, url));
    zmq_pollitem_t item = {.socket = monitor, .events = ZMQ_POLLIN};
    while (event != BT_ZMQ_CONNECTED) {
        assert_true(zmq_poll(&item, 1, GUARD_SECONDS * 1000) > 0);
        if (bt_zmq_monitor_next(monitor, &event) != BATON_OK)
            event = BT_ZMQ_REFUSED;
    }
    int linger_ms = GUARD_SECONDS * 1000;
    zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    send(socket, what);
    bt_zmq_close(monitor);
    zmq_close(socket);
    bt_zmq_context_destroy(context);
}

static void send_blob(void *socket, const void *what)
{
    const bt_blob *blob = what;
    push(socket, blob->data, blob->bytes);
}

void notice_send_bytes(const char *url, const void *frame, unsigned long n)
{
    bt_blob blob = bt_blob_of(frame, n);
    with_push(url, send_blob, &blob);
}

static void send_notice(const char *url, const bt_notice *notice)
{
    uint8_t frame[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    assert_ok(bt_notice_encode(notice, &writer));
    notice_send_bytes(url, writer.bytes, writer.n);
}

void notice_send(const char *url, const char *id, unsigned rank, unsigned world, int status)
{
    send_notice(url, &(bt_notice){.id = bt_blob_of_text(id),
                                  .epoch = 77,
                                  .rank = rank,
                                  .world = world,
                                  .status = status,
                                  .text = bt_blob_of_text("told to")});
}

void notice_send_refused(const char *url, const char *id, int status, unsigned retry_ms)
{
    send_notice(url, &(bt_notice){.id = bt_blob_of_text(id),
                                  .epoch = 77,
                                  .world = 1,
                                  .status = status,
                                  .retry_ms = retry_ms,
                                  .text = bt_blob_of_text("told to")});
}

void notice_send_legacy(const char *url, const char *type, const char *id)
{
    uint8_t frame[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    bt_pack_map(&writer, 2);
    bt_pack_key_str(&writer, "type", type);
    bt_pack_key_str(&writer, "req_id", id);
    assert_ok(bt_pack_finish(&writer));
    notice_send_bytes(url, writer.bytes, writer.n);
}
