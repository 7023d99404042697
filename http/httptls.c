/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httptls.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <arpa/inet.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* What a peer may have us say on its own behalf (it asks for new keys), in all. */
enum { RECORD_BYTES = 16 * 1024, UNASKED_BYTES_MAX = 64 * 1024 };

struct bt_tls_context {
    pthread_mutex_t lock; /* guards ssl_context */
    SSL_CTX *ssl_context;
    bool is_server;
    char *certificate_file, *key_file, *ca_file;
};

struct bt_tls {
    SSL *ssl;
    bt_tls_state state;
    const char *in; /* [in_bytes], only while bytes are received */
    size_t in_bytes;
    bt_tls_sink sink;
    void *sink_ctx;
    bool is_sink_full, met_plain_http, is_reading;
    uint64_t unasked_bytes; /* sent while reading */
    char text[256], host[256];
};

/* The reason of this thread's oldest OpenSSL error; its queue is then empty. */
static const char *take_reason(void)
{
    unsigned long error = ERR_get_error();
    ERR_clear_error();
    const char *reason = error != 0 ? ERR_reason_error_string(error) : NULL;
    if (error != 0 && ERR_SYSTEM_ERROR(error))
        reason = strerror(ERR_GET_REASON(error));
    return reason != NULL ? reason : "no reason given";
}

static baton_status fail_file(const char *what, const char *file, const char *advice)
{
    return bt_fail(BATON_ERR_CONFIG, "tls: wanted %s in '%s', found: %s; %s", what, file,
                   take_reason(), advice);
}

static baton_status load_certificate(const bt_tls_context *context, SSL_CTX *made)
{
    const char *key = context->key_file != NULL ? context->key_file : context->certificate_file;
    if (SSL_CTX_use_certificate_chain_file(made, context->certificate_file) != 1)
        return fail_file("a PEM certificate chain", context->certificate_file,
                         "give the server's own certificate first, then those that signed it");
    if (SSL_CTX_use_PrivateKey_file(made, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(made) != 1)
        return fail_file("the certificate's PEM key", key, "give the key that belongs to it");
    return BATON_OK;
}

static baton_status load_authorities(const bt_tls_context *context, SSL_CTX *made)
{
    if (context->ca_file == NULL) {
        if (context->is_server)
            return BATON_OK;
        SSL_CTX_set_default_verify_paths(made);
    } else if (SSL_CTX_load_verify_file(made, context->ca_file) != 1) {
        return fail_file("PEM certificates of authorities", context->ca_file,
                         "give those that signed the peer's certificate");
    }
    if (context->is_server)
        SSL_CTX_set_client_CA_list(made, SSL_load_client_CA_file(context->ca_file));
    SSL_CTX_set_verify(made, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return BATON_OK;
}

/* HTTP/1.1 is all that is spoken; a client that offers other protocols only is let go on. */
static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *chosen_bytes,
                           const unsigned char *offered, unsigned offered_bytes, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    (void)ssl;
    (void)arg;
    unsigned char *out;
    if (SSL_select_next_proto(&out, chosen_bytes, ours, sizeof(ours) - 1, offered, offered_bytes) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *chosen = out;
    return SSL_TLSEXT_ERR_OK;
}

/* Nobody sits at a terminal: a key with a password does not fit. */
static int give_no_password(char *out, int room, int is_writing, void *ctx)
{
    (void)out;
    (void)room;
    (void)is_writing;
    (void)ctx;
    return 0;
}

static baton_status build(const bt_tls_context *context, SSL_CTX **made_p)
{
    ERR_clear_error();
    SSL_CTX *made = SSL_CTX_new(context->is_server ? TLS_server_method() : TLS_client_method());
    if (made == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "tls: a context: %s", take_reason());
    SSL_CTX_set_min_proto_version(made, TLS1_2_VERSION);
    SSL_CTX_set_options(made, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_default_passwd_cb(made, give_no_password);
    SSL_CTX_set_mode(made, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_id_context(made, (const unsigned char *)"baton", 5);
    if (context->is_server)
        SSL_CTX_set_alpn_select_cb(made, choose_protocol, NULL);
    baton_status status = BATON_OK;
    if (context->certificate_file != NULL)
        status = load_certificate(context, made);
    if (status == BATON_OK)
        status = load_authorities(context, made);
    if (status == BATON_OK)
        *made_p = made;
    else
        SSL_CTX_free(made);
    return status;
}

/* The BIO's lower end: what comes from the socket, what goes to it. */

static int on_bio_read(BIO *bio, char *out, int room)
{
    bt_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    size_t n = tls->in_bytes < (size_t)room ? tls->in_bytes : (size_t)room;
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, tls->in, n);
    tls->in += n;
    tls->in_bytes -= n;
    return (int)n;
}

static int on_bio_write(BIO *bio, const char *bytes, int n)
{
    bt_tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (tls->is_reading && (tls->unasked_bytes += (size_t)n) > UNASKED_BYTES_MAX)
        return -1;
    if (tls->sink(tls->sink_ctx, bytes, (size_t)n))
        return n;
    tls->is_sink_full = true;
    return -1;
}

static long on_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

/* One for the process, which keeps it. */
static BIO_METHOD *the_method;

static void make_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "baton");
    if (method == NULL)
        return;
    BIO_meth_set_read(method, on_bio_read);
    BIO_meth_set_write(method, on_bio_write);
    BIO_meth_set_ctrl(method, on_bio_ctrl);
    the_method = method;
}

static BIO *make_bio(bt_tls *tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = the_method != NULL ? BIO_new(the_method) : NULL;
    if (bio == NULL)
        return NULL;
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    return bio;
}

static baton_status copy_name(const char *file, char **copy_p)
{
    if (file == NULL)
        return BATON_OK;
    *copy_p = bt_strdup(file);
    return *copy_p != NULL ? BATON_OK : bt_fail(BATON_ERR_NO_MEMORY, "tls: a context");
}

static baton_status fill_context(bt_tls_context *context, const bt_tls_options *options)
{
    context->is_server = options->is_server;
    BATON_TRY(copy_name(options->certificate_file, &context->certificate_file));
    BATON_TRY(copy_name(options->key_file, &context->key_file));
    BATON_TRY(copy_name(options->ca_file, &context->ca_file));
    return build(context, &context->ssl_context);
}

baton_status bt_tls_context_create(const bt_tls_options *options, bt_tls_context **context_p)
{
    if (options->is_server && options->certificate_file == NULL)
        return bt_fail(BATON_ERR_CONFIG, "tls: a server needs a certificate");
    bt_tls_context *context = bt_calloc(1, sizeof(*context));
    if (context == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "tls: a context");
    pthread_mutex_init(&context->lock, NULL);
    baton_status status = fill_context(context, options);
    if (status == BATON_OK)
        *context_p = context;
    else
        bt_tls_context_destroy(context);
    return status;
}

baton_status bt_tls_context_reload(bt_tls_context *context)
{
    SSL_CTX *made;
    BATON_TRY(build(context, &made));
    pthread_mutex_lock(&context->lock);
    SSL_CTX *old = context->ssl_context;
    context->ssl_context = made;
    pthread_mutex_unlock(&context->lock);
    SSL_CTX_free(old); /* sessions hold it as long as they need it */
    return BATON_OK;
}

void bt_tls_context_destroy(bt_tls_context *context)
{
    if (context == NULL)
        return;
    SSL_CTX_free(context->ssl_context);
    pthread_mutex_destroy(&context->lock);
    bt_free(context->certificate_file);
    bt_free(context->key_file);
    bt_free(context->ca_file);
    bt_free(context);
}

/* A server's name goes into the handshake; an address only has to be in its certificate. */
static bool expect_host(bt_tls *tls, const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    snprintf(tls->host, sizeof(tls->host), "%s", host);
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), host) == 1;
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(tls->ssl, host) == 1 && SSL_set_tlsext_host_name(tls->ssl, host) == 1;
}

static void fail_session(bt_tls *tls)
{
    long verified = SSL_get_verify_result(tls->ssl);
    tls->state = BT_TLS_FAILED;
    tls->met_plain_http = ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
    if (tls->is_sink_full)
        snprintf(tls->text, sizeof(tls->text), "tls: out of memory");
    else if (tls->unasked_bytes > UNASKED_BYTES_MAX)
        snprintf(tls->text, sizeof(tls->text), "tls: the peer asks for new keys without end");
    else if (verified != X509_V_OK && !SSL_is_server(tls->ssl))
        snprintf(tls->text, sizeof(tls->text),
                 "tls: wanted a certificate that names '%s' and is signed by a trusted authority, "
                 "found: %s",
                 tls->host, X509_verify_cert_error_string(verified));
    else
        snprintf(tls->text, sizeof(tls->text), "tls: %s", take_reason());
    ERR_clear_error();
}

static void go_on_with_handshake(bt_tls *tls)
{
    ERR_clear_error();
    int done = SSL_do_handshake(tls->ssl);
    if (done == 1)
        tls->state = BT_TLS_OPEN;
    else if (SSL_get_error(tls->ssl, done) != SSL_ERROR_WANT_READ)
        fail_session(tls);
}

baton_status bt_tls_create(bt_tls_context *context, const char *host, bt_tls_sink sink,
                           void *sink_ctx, bt_tls **tls_p)
{
    bt_tls *tls = bt_calloc(1, sizeof(*tls));
    if (tls == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "tls: a session");
    tls->sink = sink;
    tls->sink_ctx = sink_ctx;
    pthread_mutex_lock(&context->lock);
    tls->ssl = SSL_new(context->ssl_context);
    pthread_mutex_unlock(&context->lock);
    BIO *bio = tls->ssl != NULL ? make_bio(tls) : NULL;
    if (bio == NULL) {
        bt_tls_destroy(tls);
        return bt_fail(BATON_ERR_NO_MEMORY, "tls: a session");
    }
    SSL_set_bio(tls->ssl, bio, bio);
    if (context->is_server) {
        SSL_set_accept_state(tls->ssl);
    } else {
        SSL_set_connect_state(tls->ssl);
        if (!expect_host(tls, host)) {
            bt_tls_destroy(tls);
            return bt_fail(BATON_ERR_INVALID_ARG, "tls: '%s' is no host name", host);
        }
        go_on_with_handshake(tls);
    }
    *tls_p = tls;
    return BATON_OK;
}

bt_tls_state bt_tls_state_of(const bt_tls *tls)
{
    return tls->state;
}

static void read_records(bt_tls *tls, bt_tls_plain on_plain, void *ctx)
{
    char plain[RECORD_BYTES];
    for (;;) {
        ERR_clear_error();
        tls->is_reading = true;
        int n = SSL_read(tls->ssl, plain, sizeof(plain));
        tls->is_reading = false;
        if (n > 0) {
            if (!on_plain(ctx, plain, (size_t)n))
                return;
            continue;
        }
        int error = SSL_get_error(tls->ssl, n);
        if (error == SSL_ERROR_ZERO_RETURN)
            tls->state = BT_TLS_ENDED;
        else if (error != SSL_ERROR_WANT_READ)
            fail_session(tls);
        return;
    }
}

bt_tls_state bt_tls_receive(bt_tls *tls, const char *bytes, size_t n, bt_tls_plain on_plain,
                            void *ctx)
{
    tls->in = bytes;
    tls->in_bytes = n;
    if (tls->state == BT_TLS_HANDSHAKE)
        go_on_with_handshake(tls);
    if (tls->state == BT_TLS_OPEN)
        read_records(tls, on_plain, ctx);
    tls->in_bytes = 0;
    return tls->state;
}

/* The sink takes all or nothing, so that a write never has to be tried again. */
baton_status bt_tls_send(bt_tls *tls, const char *bytes, size_t n)
{
    if (tls->state != BT_TLS_OPEN && tls->state != BT_TLS_ENDED)
        return bt_fail(BATON_ERR_STATE, "tls: the session is not open");
    while (n > 0) {
        int part = n < RECORD_BYTES ? (int)n : RECORD_BYTES;
        ERR_clear_error();
        if (SSL_write(tls->ssl, bytes, part) != part) {
            fail_session(tls);
            return bt_fail(tls->is_sink_full ? BATON_ERR_NO_MEMORY : BATON_ERR_TRANSPORT, "%s",
                           tls->text);
        }
        bytes += part;
        n -= (size_t)part;
    }
    return BATON_OK;
}

void bt_tls_end(bt_tls *tls)
{
    if (tls->state != BT_TLS_OPEN && tls->state != BT_TLS_ENDED)
        return;
    ERR_clear_error();
    SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

const char *bt_tls_error_text(const bt_tls *tls)
{
    return tls->text;
}

bool bt_tls_met_plain_http(const bt_tls *tls)
{
    return tls->met_plain_http;
}

void bt_tls_destroy(bt_tls *tls)
{
    if (tls == NULL)
        return;
    SSL_free(tls->ssl);
    bt_free(tls);
}
