/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions end to end without a socket, and what the certificates, the client and the server say
 * when something is wrong. What HTTP does in TLS when all is well: the tests named ..._tls. */
#include "support/test.h"

#include "core/alloc.h"
#include "http/httpclient.h"
#include "http/httpserver.h"
#include "rawsocket.h"
#include "support/certificates.h"
#include "support/oom.h"
#include "support/tlskit.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PATH_BYTES = 256, PIPE_BYTES = 256 * 1024 };

/* Bytes on their way from one session to the other. */
typedef struct {
    char bytes[PIPE_BYTES];
    size_t n;
    bool is_full;
} pipe_bytes;

/* A client's and a server's session, and what each has read. */
typedef struct {
    bt_tls *client, *server;
    pipe_bytes to_server, to_client, server_read, client_read;
} pair;

static bool add(void *ctx, const char *bytes, size_t n)
{
    pipe_bytes *pipe_p = ctx;
    if (pipe_p->is_full || n > sizeof(pipe_p->bytes) - pipe_p->n)
        return false;
    memcpy(pipe_p->bytes + pipe_p->n, bytes, n);
    pipe_p->n += n;
    return true;
}

static bt_tls_context *make_context(bool is_server, const char *certificate, const char *ca)
{
    char files[3][PATH_BYTES], key[64];
    snprintf(key, sizeof(key), "%s.key", certificate != NULL ? certificate : "");
    char chain[64];
    snprintf(chain, sizeof(chain), "%s.pem", certificate != NULL ? certificate : "");
    bt_tls_options options = {.is_server = is_server};
    if (certificate != NULL) {
        options.certificate_file = tlskit_path(files[0], chain);
        options.key_file = tlskit_path(files[1], key);
    }
    if (ca != NULL)
        options.ca_file = tlskit_path(files[2], ca);
    bt_tls_context *context;
    assert_ok(bt_tls_context_create(&options, &context));
    return context;
}

static pair *open_pair(bt_tls_context *client, bt_tls_context *server, const char *host)
{
    pair *p = calloc(1, sizeof(*p));
    assert_ok(bt_tls_create(client, host, add, &p->to_server, &p->client));
    assert_ok(bt_tls_create(server, NULL, add, &p->to_client, &p->server));
    return p;
}

static void close_pair(pair *p)
{
    bt_tls_destroy(p->client);
    bt_tls_destroy(p->server);
    free(p);
}

/* Moves what is on its way in pieces, until nothing is left. */
static void move(pair *p, size_t piece)
{
    while (p->to_server.n + p->to_client.n > 0) {
        for (int side = 0; side < 2; side++) {
            pipe_bytes *from = side == 0 ? &p->to_server : &p->to_client;
            pipe_bytes moved = *from;
            from->n = 0;
            for (size_t at = 0; at < moved.n; at += piece)
                bt_tls_receive(side == 0 ? p->server : p->client, moved.bytes + at,
                               moved.n - at < piece ? moved.n - at : piece, add,
                               side == 0 ? &p->server_read : &p->client_read);
        }
    }
}

static void bytes_arrive_the_same_wherever_they_are_cut(void **state)
{
    (void)state;
    bt_tls_context *client = make_context(false, NULL, "ca.pem");
    bt_tls_context *server = make_context(true, "server", NULL);
    static const size_t pieces[] = {1, 7, 1000, PIPE_BYTES};
    static char text[100 * 1000];
    bt_rng_fill(&(bt_rng){.state = 1}, text, sizeof(text));
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        pair *p = open_pair(client, server, "localhost");
        assert_fails(bt_tls_send(p->client, "x", 1), BATON_ERR_STATE, "not open");
        move(p, pieces[i]);
        assert_int_equal(bt_tls_state_of(p->client), BT_TLS_OPEN);
        assert_int_equal(bt_tls_state_of(p->server), BT_TLS_OPEN);
        assert_ok(bt_tls_send(p->client, text, sizeof(text)));
        assert_ok(bt_tls_send(p->server, "answer", 6));
        bt_tls_end(p->server);
        move(p, pieces[i]);
        assert_int_equal(p->server_read.n, sizeof(text));
        assert_memory_equal(p->server_read.bytes, text, sizeof(text));
        assert_int_equal(p->client_read.n, 6);
        assert_int_equal(bt_tls_state_of(p->client), BT_TLS_ENDED);
        assert_int_equal(bt_tls_state_of(p->server), BT_TLS_OPEN);
        close_pair(p);
    }
    bt_tls_context_destroy(client);
    bt_tls_context_destroy(server);
}

static void a_changed_byte_ends_the_session(void **state)
{
    (void)state;
    bt_tls_context *client = make_context(false, NULL, "ca.pem");
    bt_tls_context *server = make_context(true, "server", NULL);
    for (size_t at = 0; at < 120; at += 7) {
        pair *p = open_pair(client, server, "127.0.0.1");
        move(p, PIPE_BYTES);
        assert_ok(bt_tls_send(p->client, "the answer is forty-two", 23));
        if (at < p->to_server.n) {
            p->to_server.bytes[at] ^= 1;
            move(p, PIPE_BYTES);
            assert_int_equal(p->server_read.n, 0);
            /* A length that has grown only makes the server wait. */
            assert_true(bt_tls_state_of(p->server) == BT_TLS_FAILED || at == 3 || at == 4);
        }
        close_pair(p);
    }
    bt_tls_context_destroy(client);
    bt_tls_context_destroy(server);
}

static void what_the_sink_does_not_take_ends_the_session(void **state)
{
    (void)state;
    bt_tls_context *client = make_context(false, NULL, "ca.pem");
    bt_tls_context *server = make_context(true, "server", NULL);
    pair *p = open_pair(client, server, "localhost");
    move(p, PIPE_BYTES);
    p->to_server.is_full = true;
    assert_fails(bt_tls_send(p->client, "x", 1), BATON_ERR_NO_MEMORY, "memory");
    assert_int_equal(bt_tls_state_of(p->client), BT_TLS_FAILED);
    close_pair(p);
    bt_tls_context_destroy(client);
    bt_tls_context_destroy(server);
}

/* A pair of sessions: does the client take the server's certificate, and what does it say? */
static void check_trust(const char *certificate, const char *ca, const char *host,
                        const char *found)
{
    bt_tls_context *client = make_context(false, NULL, ca);
    bt_tls_context *server = make_context(true, certificate, NULL);
    pair *p = open_pair(client, server, host);
    move(p, PIPE_BYTES);
    assert_int_equal(bt_tls_state_of(p->client), found == NULL ? BT_TLS_OPEN : BT_TLS_FAILED);
    if (found != NULL && (strstr(bt_tls_error_text(p->client), found) == NULL ||
                          strstr(bt_tls_error_text(p->client), host) == NULL))
        fail_msg("wanted '%s' in '%s'", found, bt_tls_error_text(p->client));
    if (found != NULL)
        assert_int_equal(bt_tls_state_of(p->server), BT_TLS_FAILED);
    close_pair(p);
    bt_tls_context_destroy(client);
    bt_tls_context_destroy(server);
}

static void only_the_right_certificate_is_taken(void **state)
{
    (void)state;
    const char *folder = tlskit_folder();
    bt_certificate_make(folder, &(bt_certificate_wish){.name = "other"});
    bt_certificate_make(folder, &(bt_certificate_wish){"expired", "ca", "DNS:localhost", true});
    check_trust("server", "ca.pem", "localhost", NULL);
    check_trust("server", "ca.pem", "127.0.0.1", NULL);
    check_trust("server", "ca.pem", "::1", NULL);
    check_trust("server", "ca.pem", "example.org", "hostname mismatch");
    check_trust("server", "ca.pem", "127.0.0.2", "IP address mismatch");
    check_trust("server", "other.pem", "localhost", "unable to get local issuer");
    check_trust("server", NULL, "localhost", "unable to get local issuer");
    check_trust("expired", "ca.pem", "localhost", "expired");
}

static void a_server_may_want_certificates_of_its_clients(void **state)
{
    (void)state;
    bt_tls_context *server = make_context(true, "server", "ca.pem");
    bt_tls_context *nobody = make_context(false, NULL, "ca.pem");
    bt_tls_context *known = make_context(false, "client", "ca.pem");
    pair *p = open_pair(known, server, "localhost");
    move(p, PIPE_BYTES);
    assert_int_equal(bt_tls_state_of(p->server), BT_TLS_OPEN);
    close_pair(p);
    p = open_pair(nobody, server, "localhost");
    move(p, PIPE_BYTES);
    assert_int_equal(bt_tls_state_of(p->server), BT_TLS_FAILED);
    assert_non_null(strstr(bt_tls_error_text(p->server), "peer did not return a certificate"));
    assert_int_equal(bt_tls_state_of(p->client), BT_TLS_FAILED);
    close_pair(p);
    bt_tls_context_destroy(known);
    bt_tls_context_destroy(nobody);
    bt_tls_context_destroy(server);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* The key again, with a password. */
static void lock_key(const char *from, const char *to)
{
    FILE *file = fopen(from, "r");
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    file = fopen(to, "w");
    unsigned char password[] = "secret";
    assert_int_equal(PEM_write_PrivateKey(file, key, EVP_aes_256_cbc(), password, 6, NULL, NULL),
                     1);
    fclose(file);
    EVP_PKEY_free(key);
}

static void files_that_do_not_fit_are_named(void **state)
{
    (void)state;
    char certificate[PATH_BYTES], key[PATH_BYTES], other[PATH_BYTES], garbage[PATH_BYTES];
    char locked[PATH_BYTES];
    tlskit_path(certificate, "server.pem");
    tlskit_path(key, "server.key");
    tlskit_path(other, "client.key");
    write_file(tlskit_path(garbage, "garbage.pem"), "no certificate\n");
    lock_key(key, tlskit_path(locked, "locked.key"));
    const struct {
        bt_tls_options options;
        const char *text;
    } cases[] = {
        {{.is_server = true}, "needs a certificate"},
        {{true, "/nowhere/a.pem", key, NULL}, "'/nowhere/a.pem'"},
        {{true, garbage, key, NULL}, "garbage.pem'"},
        {{true, certificate, other, NULL}, "client.key'"},
        {{true, certificate, NULL, NULL}, "the certificate's PEM key in"},
        {{true, certificate, key, garbage}, "authorities in"},
        {{false, NULL, NULL, "/nowhere/ca.pem"}, "'/nowhere/ca.pem'"},
        {{true, certificate, locked, NULL}, "locked.key'"},
    };
    bt_tls_context *context;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_fails(bt_tls_context_create(&cases[i].options, &context), BATON_ERR_CONFIG,
                     cases[i].text);
}

static void new_connections_see_new_files(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    const char *folder = tlskit_folder();
    bt_certificate_make(folder, &(bt_certificate_wish){"moving", "ca", "DNS:old", false});
    bt_tls_context *server = make_context(true, "moving", NULL);
    bt_tls_context *client = make_context(false, NULL, "ca.pem");
    pair *before = open_pair(client, server, "old");
    bt_certificate_make(folder, &(bt_certificate_wish){"moving", "ca", "DNS:new", false});
    assert_ok(bt_tls_context_reload(server));
    pair *after = open_pair(client, server, "new");
    write_file(tlskit_path(path, "moving.pem"), "nothing");
    assert_fails(bt_tls_context_reload(server), BATON_ERR_CONFIG, "moving.pem");
    pair *later = open_pair(client, server, "new");
    bt_tls_context_destroy(server); /* sessions may outlive it */
    pair *all[] = {before, after, later};
    for (size_t i = 0; i < 3; i++) {
        move(all[i], PIPE_BYTES);
        assert_int_equal(bt_tls_state_of(all[i]->client), BT_TLS_OPEN);
        close_pair(all[i]);
    }
    bt_tls_context_destroy(client);
}

static baton_status make_and_use(void *ctx)
{
    (void)ctx;
    char certificate[PATH_BYTES], key[PATH_BYTES];
    const bt_tls_options options = {true, tlskit_path(certificate, "server.pem"),
                                    tlskit_path(key, "server.key"), NULL};
    pipe_bytes *out = calloc(1, sizeof(*out));
    bt_tls_context *context = NULL;
    bt_tls *session = NULL;
    baton_status status = bt_tls_context_create(&options, &context);
    if (status == BATON_OK)
        status = bt_tls_create(context, NULL, add, out, &session);
    bt_tls_destroy(status == BATON_OK ? session : NULL);
    bt_tls_context_destroy(context);
    free(out);
    return status;
}

static void contexts_and_sessions_need_memory(void **state)
{
    (void)state;
    tlskit_folder();
    bt_check_scarce_memory(make_and_use, NULL);
}

/* Servers and clients on sockets. */

typedef struct {
    bt_loop *loop;
    bt_http_server *server;
    bt_http_client *client;
    bt_timer *guard;
    loop_thread runner;
    bt_http_result result;
    char text[256], body[256];
    size_t body_bytes;
} world;

static void on_request(void *ctx, bt_http_request *request)
{
    (void)ctx;
    assert_ok(bt_http_respond_json(request, 200, "{}", 2));
}

static void world_start(world *w, bt_http_server_options options)
{
    *w = (world){0};
    options.on_request = on_request;
    options.ctx = w;
    assert_ok(bt_loop_create(&w->loop));
    assert_ok(bt_http_server_create(w->loop, &options, &w->server));
    assert_ok(bt_http_client_create(w->loop, NULL, &w->client));
}

static void world_stop(world *w)
{
    bt_http_client_destroy(w->client);
    bt_http_server_destroy(w->server);
    bt_loop_destroy(w->loop);
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    (void)call;
    world *w = ctx;
    assert_true(n < sizeof(w->body) - w->body_bytes);
    memcpy(w->body + w->body_bytes, bytes, n);
    w->body_bytes += n;
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    (void)call;
    world *w = ctx;
    w->result = *result;
    snprintf(w->text, sizeof(w->text), "%s", result->text);
    bt_loop_stop(w->loop);
}

static void call(world *w, uint16_t port, bt_tls_context *tls)
{
    static const bt_http_call_ops ops = {.on_data = on_data, .on_done = on_done};
    const bt_http_client_request request = {
        .host = "127.0.0.1", .port = port, .tls = tls, .path = "/", .ops = &ops, .ctx = w};
    w->body_bytes = 0;
    memset(w->body, 0, sizeof(w->body));
    assert_ok(bt_http_client_start(w->client, &request, NULL));
    bt_loop_run(w->loop);
}

static void a_call_that_cannot_trust_its_server_says_why(void **state)
{
    (void)state;
    world w;
    bt_tls_context *server = make_context(true, "server", NULL);
    bt_tls_context *good = make_context(false, NULL, "ca.pem");
    bt_tls_context *bad = make_context(false, NULL, NULL);
    bt_http_server_stats stats;
    world_start(&w, (bt_http_server_options){.tls = server});
    uint16_t port = bt_http_server_port(w.server);
    call(&w, port, bad);
    assert_int_equal(w.result.status, BATON_ERR_AUTH);
    assert_non_null(strstr(w.text, "signed by a trusted authority, found: unable to get"));
    call(&w, port, good);
    assert_int_equal(w.result.status, BATON_OK);
    assert_string_equal(w.body, "{}");
    call(&w, port, good);
    assert_true(w.result.reused);
    call(&w, port, NULL); /* plain HTTP */
    assert_int_equal(w.result.http_status, 400);
    assert_non_null(strstr(w.body, "this port speaks TLS"));
    bt_http_server_stats_get(w.server, &stats);
    assert_int_equal(stats.tls_failed_total, 2);
    world_stop(&w);
    world_start(&w, (bt_http_server_options){0}); /* TLS to a port that speaks plain HTTP */
    call(&w, bt_http_server_port(w.server), good);
    assert_int_equal(w.result.status, BATON_ERR_AUTH);
    assert_non_null(strstr(w.text, "wrong version number"));
    world_stop(&w);
    bt_tls_context_destroy(server);
    bt_tls_context_destroy(good);
    bt_tls_context_destroy(bad);
}

/* Answers without a length, and closes with or without saying so. */
typedef struct {
    int listener;
    bool says_goodbye;
} abrupt_peer;

static void *answer_abruptly(void *arg)
{
    const abrupt_peer *peer = arg;
    char path[PATH_BYTES], request[1024];
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate_file(context, tlskit_path(path, "server.pem"), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context, tlskit_path(path, "server.key"), SSL_FILETYPE_PEM);
    int fd = raw_accept(peer->listener);
    SSL *session = SSL_new(context);
    SSL_set_fd(session, fd);
    SSL_accept(session);
    SSL_read(session, request, sizeof(request));
    static const char answer[] = "HTTP/1.1 200 OK\r\n\r\nhalf";
    SSL_write(session, answer, sizeof(answer) - 1);
    if (peer->says_goodbye)
        SSL_shutdown(session);
    SSL_free(session);
    close(fd);
    SSL_CTX_free(context);
    return NULL;
}

static void a_cut_answer_is_told_from_a_whole_one(void **state)
{
    (void)state;
    world w;
    bt_tls_context *client = make_context(false, NULL, "ca.pem");
    world_start(&w, (bt_http_server_options){0});
    for (int says_goodbye = 0; says_goodbye < 2; says_goodbye++) {
        uint16_t port;
        pthread_t thread;
        abrupt_peer peer = {raw_listen(&port), says_goodbye};
        assert_int_equal(pthread_create(&thread, NULL, answer_abruptly, &peer), 0);
        call(&w, port, client);
        pthread_join(thread, NULL);
        close(peer.listener);
        assert_string_equal(w.body, "half");
        assert_int_equal(w.result.status, says_goodbye ? BATON_OK : BATON_ERR_CLOSED);
    }
    world_stop(&w);
    bt_tls_context_destroy(client);
}

static void a_handshake_has_its_limit(void **state)
{
    (void)state;
    world w;
    char out[256];
    bt_tls_context *server = make_context(true, "server", NULL);
    world_start(&w, (bt_http_server_options){.tls = server, .header_timeout_ms = 20});
    loop_thread_start(&w.runner, w.loop);
    int fd = raw_connect(bt_http_server_port(w.server));
    raw_send(fd, "\x16\x03\x01", 3); /* a record begins */
    assert_int_equal(raw_read_all(fd, out, sizeof(out)), 0);
    close(fd);
    loop_thread_stop(&w.runner);
    world_stop(&w);
    bt_tls_context_destroy(server);
}

/* Each asks for an answer that the peer never reads. */
static void who_asks_for_new_keys_without_end_is_cut_off(void **state)
{
    (void)state;
    world w;
    bt_http_server_stats stats;
    bt_tls_context *server = make_context(true, "server", NULL);
    world_start(&w, (bt_http_server_options){.tls = server});
    loop_thread_start(&w.runner, w.loop);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL *session = SSL_new(context);
    int fd = raw_connect(bt_http_server_port(w.server));
    SSL_set_fd(session, fd);
    assert_int_equal(SSL_connect(session), 1);
    int n_asked = 0;
    while (n_asked < 100000 && SSL_key_update(session, SSL_KEY_UPDATE_REQUESTED) == 1 &&
           SSL_do_handshake(session) == 1)
        n_asked++;
    assert_in_range(n_asked, 1000, 99999);
    SSL_free(session);
    SSL_CTX_free(context);
    close(fd);
    loop_thread_stop(&w.runner);
    bt_http_server_stats_get(w.server, &stats);
    assert_int_equal(stats.tls_failed_total, 1);
    world_stop(&w);
    bt_tls_context_destroy(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(bytes_arrive_the_same_wherever_they_are_cut),
        bt_test(a_changed_byte_ends_the_session),
        bt_test(what_the_sink_does_not_take_ends_the_session),
        bt_test(only_the_right_certificate_is_taken),
        bt_test(a_server_may_want_certificates_of_its_clients),
        bt_test(files_that_do_not_fit_are_named),
        bt_test(new_connections_see_new_files),
        bt_test(contexts_and_sessions_need_memory),
        bt_test(a_call_that_cannot_trust_its_server_says_why),
        bt_test(a_cut_answer_is_told_from_a_whole_one),
        bt_test(a_handshake_has_its_limit),
        bt_test(who_asks_for_new_keys_without_end_is_cut_off),
    };
    return bt_run_tests(tests);
}
