/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include "support/tlskit.h"
#include "wire/messages.h"
#include "wire/zmqsocket.h"

#include <errno.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { GUARD_SECONDS = 300 };

static uint16_t open_receiver(rig *r, unsigned i)
{
    uint16_t port;
    bt_zmq_options options = {.type = ZMQ_ROUTER};
    bt_security_apply(&r->security, &options);
    assert_ok(bt_zmq_open(r->zmq, &options, &r->receivers[i]));
    assert_ok(bt_zmq_bind(r->receivers[i], "127.0.0.1", 0, &port));
    return port;
}

static bt_worker_address address_of(fake *engine, const bt_worker_address *as)
{
    bt_worker_address at = as == NULL ? (bt_worker_address){.port = 0} : *as;
    snprintf(at.host, sizeof(at.host), "127.0.0.1");
    at.port = fake_port(engine);
    at.is_tls = tlskit_server() != NULL;
    return at;
}

static void open_engines(rig *r, const rig_options *options, bt_worker_address *prefill,
                         bt_worker_address *decode)
{
    for (unsigned i = 0; i < options->n_prefill; i++) {
        r->prefill[i] = fake_open(true);
        prefill[i] = address_of(r->prefill[i], options->as_prefill);
    }
    for (unsigned i = 0; i < options->n_decode; i++) {
        r->decode[i] = fake_open(false);
        decode[i] = address_of(r->decode[i], options->as_decode);
        decode[i].n_ranks = options->no_ports ? 0 : options->n_ranks;
        uint16_t port = open_receiver(r, i);
        for (unsigned rank = 0; rank < options->n_ranks; rank++) {
            /* Further ranks' ports are only ever named. */
            decode[i].init_ports[rank] = (uint16_t)(7300 + rank);
            decode[i].alloc_ports[rank] = rank == 0 ? port : (uint16_t)(7400 + rank);
        }
    }
}

/* Everything in TLS, when the tests run so. */
static void use_tls(bt_door_files *files)
{
    static char certificate[256], key[256], ca[256];
    if (tlskit_server() == NULL)
        return;
    files->tls_certificate = tlskit_path(certificate, "server.pem");
    files->tls_key = tlskit_path(key, "server.key");
    if (files->engine_ca == NULL)
        files->engine_ca = tlskit_path(ca, "ca.pem");
}

void rig_open(rig *r, const rig_options *given)
{
    rig_options o = *given;
    bt_worker_address prefill[RIG_MAX], decode[RIG_MAX];
    memset(r, 0, sizeof(*r));
    o.n_prefill = o.n_prefill == 0 ? 1 : o.n_prefill;
    o.n_decode = o.n_decode == 0 ? 1 : o.n_decode;
    o.n_ranks = o.n_ranks == 0 ? 1 : o.n_ranks;
    assert_ok(bt_zmq_context_create(&r->zmq));
    if (o.security != NULL)
        assert_ok(bt_security_open_server(r->zmq, o.security, "127.0.0.1", &r->security));
    fakes_start();
    open_engines(r, &o, prefill, decode);
    o.options.prefill = prefill;
    o.options.decode = decode;
    o.options.n_prefill = o.n_prefill;
    o.options.n_decode = o.n_decode;
    if (o.options.notices == 0)
        o.options.notices = BT_NOTICES_AUTO;
    o.options.threads = o.options.threads == 0 ? 2 : o.options.threads;
    use_tls(&o.options.doors);
    assert_ok(bt_proxy_start(&o.options, &r->proxy));
    r->port = bt_proxy_port(r->proxy);
    snprintf(r->notice_url, sizeof(r->notice_url), "tcp://127.0.0.1:%u",
             bt_proxy_notice_port(r->proxy));
    for (unsigned i = 0; i < o.n_prefill; i++)
        fake_set_notices(r->prefill[i], o.notices, o.n_ranks, r->notice_url);
}

/* Between two questions, so as not to starve whom we wait for. */
static void pause_briefly(void)
{
    struct timespec tick = {.tv_nsec = 1000 * 1000};
    nanosleep(&tick, NULL);
}

static void rig_wait_idle(const rig *r)
{
    for (int i = 0; i < GUARD_SECONDS * 1000; i++) {
        if (bt_proxy_inflight(r->proxy) == 0)
            return;
        pause_briefly();
    }
    fail_msg("%u requests never ended", bt_proxy_inflight(r->proxy));
}

void rig_close(rig *r)
{
    /* Nothing may be left behind by any test. */
    if (r->proxy != NULL)
        rig_wait_idle(r);
    bt_proxy_destroy(r->proxy);
    fakes_stop();
    for (unsigned i = 0; i < RIG_MAX; i++)
        bt_zmq_close(r->receivers[i]);
    bt_security_close(&r->security);
    bt_zmq_context_destroy(r->zmq);
}

/* Client. */

static int dial(uint16_t port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval guard = {.tv_sec = GUARD_SECONDS};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    tlskit_connect(fd);
    return fd;
}

/* Reads once more; false at the end. */
static bool read_more(conversation *c)
{
    c->raw = realloc(c->raw, c->n_raw + 65537);
    long n = tlskit_recv(c->fd, c->raw + c->n_raw, 65536);
    if (n < 0)
        n = 0; /* reset: the end too */
    c->n_raw += (size_t)n;
    c->raw[c->n_raw] = 0;
    return n > 0;
}

static conversation begin_raw(rig *r, const char *bytes, size_t n)
{
    conversation c = {.fd = dial(r->port)};
    tlskit_send(c.fd, bytes, n);
    return c;
}

static conversation begin(rig *r, const char *method, const char *path, const char *headers,
                          const char *body)
{
    size_t cap = strlen(body) + strlen(headers) + 512;
    char *bytes = malloc(cap);
    int n = snprintf(bytes, cap,
                     "%s %s HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n%s"
                     "Content-Length: %zu\r\n\r\n%s",
                     method, path, headers, strlen(body), body);
    conversation c = begin_raw(r, bytes, (size_t)n);
    free(bytes);
    return c;
}

/* Undoes chunking in place; *is_cut when the last chunk is missing. */
static void unchunk(reply *answer)
{
    char *in = answer->body, *out = answer->body, *end = answer->body + answer->n;
    answer->is_cut = true;
    while (in < end) {
        char *line_end;
        size_t n = strtoul(in, &line_end, 16);
        line_end = strstr(line_end, "\r\n");
        if (line_end == NULL || n == 0 || (size_t)(end - line_end) < n + 4) {
            answer->is_cut = line_end == NULL || n != 0;
            break;
        }
        memmove(out, line_end + 2, n);
        out += n;
        in = line_end + 2 + n + 2;
    }
    answer->n = (size_t)(out - answer->body);
    *out = 0;
}

reply rig_finish(conversation *c)
{
    reply answer = {0};
    while (read_more(c)) {
    }
    close(c->fd);
    char *head_end = strstr(c->raw, "\r\n\r\n");
    if (head_end == NULL)
        fail_msg("no whole head: \"%s\"", c->raw);
    snprintf(answer.head, sizeof(answer.head), "%.*s", (int)(head_end - c->raw), c->raw);
    sscanf(c->raw, "HTTP/1.1 %u", &answer.status);
    answer.n = c->n_raw - (size_t)(head_end + 4 - c->raw);
    answer.body = malloc(answer.n + 1);
    memcpy(answer.body, head_end + 4, answer.n + 1);
    const char *length = strcasestr(answer.head, "\r\ncontent-length:");
    if (strcasestr(answer.head, "transfer-encoding: chunked") != NULL)
        unchunk(&answer);
    else if (length != NULL)
        answer.is_cut = answer.n != strtoul(length + 17, NULL, 10);
    free(c->raw);
    c->raw = NULL;
    return answer;
}

reply rig_post(rig *r, const char *path, const char *headers, const char *body)
{
    conversation c = begin(r, "POST", path, headers, body);
    return rig_finish(&c);
}

reply rig_get(rig *r, const char *path)
{
    conversation c = begin(r, "GET", path, "", "");
    return rig_finish(&c);
}

reply rig_raw(rig *r, const char *bytes, size_t n)
{
    conversation c = begin_raw(r, bytes, n);
    return rig_finish(&c);
}

void reply_free(reply *answer)
{
    free(answer->body);
    answer->body = NULL;
}

void rig_expect_answer(rig *r, const char *path, const char *body, const char *wanted)
{
    reply answer = rig_post(r, path, "", body);
    if (answer.status != 200 || strstr(answer.body, wanted) == NULL)
        fail_msg("wanted %s, found %u %s", wanted, answer.status, answer.body);
    assert_false(answer.is_cut);
    reply_free(&answer);
}

void rig_expect_handed_over(const brain_kv *kv, int n)
{
    assert_int_equal(atomic_load(&kv->n_made), n);
    assert_int_equal(atomic_load(&kv->n_taken), n);
    assert_int_equal(atomic_load(&kv->n_recomputed), 0);
    assert_int_equal(brain_stranded(kv), 0);
}

conversation rig_begin(rig *r, const char *path, const char *body)
{
    return begin(r, "POST", path, "", body);
}

conversation rig_begin_get(rig *r, const char *path)
{
    return begin(r, "GET", path, "", "");
}

void rig_read_until(conversation *c, const char *text)
{
    while (c->raw == NULL || strstr(c->raw, text) == NULL) {
        if (!read_more(c))
            fail_msg("the answer ended before \"%s\": %s", text, c->raw);
    }
}

void rig_leave(conversation *c)
{
    close(c->fd);
    free(c->raw);
    c->raw = NULL;
}

/* Metrics. */

double rig_metric(rig *r, const char *name)
{
    reply answer = rig_get(r, "/metrics");
    char line[256];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr(answer.body, line);
    double value = at == NULL ? 0 : strtod(at + strlen(line), NULL);
    reply_free(&answer);
    return value;
}

void rig_wait_metric(rig *r, const char *name, double value)
{
    for (int i = 0; i < GUARD_SECONDS * 1000; i++) {
        if (rig_metric(r, name) >= value)
            return;
        pause_briefly();
    }
    fail_msg("%s never became %g", name, value);
}

/* Receivers. */

static void send_status(void *router, bt_blob peer, const bt_message *question, int state)
{
    uint8_t frame[512];
    bt_packwriter writer;
    bt_message answer = {.type = BT_MSG_STATUS_ANSWER,
                         .v = BT_PROTOCOL_VERSION,
                         .epoch = 99,
                         .id = question->id,
                         .peer_epoch = question->epoch,
                         .u.status_answer = {.state = (uint32_t)state, .world = 1}};
    if (state == BT_REQUEST_FAILED)
        answer.u.status_answer.reason = BATON_ERR_PUT_TIMEOUT;
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    assert_ok(bt_message_encode(&answer, &writer));
    bt_blob parts[2] = {peer, bt_blob_of(writer.bytes, writer.n)};
    assert_ok(bt_zmq_send(router, parts, 2));
}

const char *rig_question(rig *r, unsigned i, char *id, int answer_state)
{
    static bt_message message;
    bt_zmq_message frame;
    zmq_pollitem_t item = {.socket = r->receivers[i], .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, GUARD_SECONDS * 1000) <= 0)
        fail_msg("no question came to receiver %u", i);
    assert_ok(bt_zmq_recv(r->receivers[i], &frame));
    assert_int_equal(frame.n_parts, 2);
    bt_blob body = bt_zmq_part(&frame, 1);
    assert_ok(bt_message_decode(body.data, body.bytes, &message));
    snprintf(id, 64, "%.*s", (int)message.u.request.bytes, (const char *)message.u.request.data);
    if (answer_state >= 0)
        send_status(r->receivers[i], bt_zmq_part(&frame, 0), &message, answer_state);
    bt_zmq_message_close(&frame);
    return bt_message_type_name(message.type);
}
