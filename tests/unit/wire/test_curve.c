/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "wire/zmq_wait.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static void *context;

static int make_folder(void **state)
{
    assert_int_equal(bt_test_setup(state), 0);
    strcpy(folder, "/tmp/baton-curve-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_ok(bt_zmq_context_create(&context));
    return 0;
}

static int remove_folder(void **state)
{
    char command[128];
    bt_zmq_context_destroy(context);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    return bt_test_teardown(state);
}

static const char *in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text, mode_t mode)
{
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(in_folder(name), mode), 0);
}

static void saved_keys_load_again(void **state)
{
    (void)state;
    bt_curve_keys keys, loaded;
    char public_key[BT_CURVE_KEY_CHARS + 1];
    struct stat info;
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(in_folder("a"), &keys));
    assert_int_equal(stat(in_folder("a.key"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_ok(bt_curve_load_secret(in_folder("a.key"), &loaded));
    assert_string_equal(loaded.secret_key, keys.secret_key);
    assert_string_equal(loaded.public_key, keys.public_key);
    assert_ok(bt_curve_load_public(in_folder("a.pub"), public_key));
    assert_string_equal(public_key, keys.public_key);
    bt_curve_forget(&keys);
    assert_int_equal(keys.secret_key[0], 0);
}

static void files_are_not_overwritten(void **state)
{
    (void)state;
    bt_curve_keys keys;
    assert_ok(bt_curve_generate(&keys));
    write_text("a.key", "mine", 0600);
    assert_fails(bt_curve_save(in_folder("a"), &keys), BATON_ERR_BUSY, "a.key");
    assert_int_not_equal(access(in_folder("a.pub"), F_OK), 0);
    write_text("b.pub", "mine", 0600);
    assert_fails(bt_curve_save(in_folder("b"), &keys), BATON_ERR_BUSY, "b.pub");
    assert_int_not_equal(access(in_folder("b.key"), F_OK), 0);
    assert_fails(bt_curve_save("/nonexistent/a", &keys), BATON_ERR_NOT_FOUND, NULL);
}

static void a_secret_that_others_can_read_is_refused(void **state)
{
    (void)state;
    bt_curve_keys keys;
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(in_folder("a"), &keys));
    assert_int_equal(chmod(in_folder("a.key"), 0640), 0);
    assert_fails(bt_curve_load_secret(in_folder("a.key"), &keys), BATON_ERR_PERMISSION,
                 "wanted mode 0600, found 0640");
}

static void files_without_a_key_are_refused(void **state)
{
    (void)state;
    bt_curve_keys keys;
    const char *const bad[] = {"",
                               "# only a comment\n",
                               "too short\n",
                               "0123456789012345678901234567890123456789x\n",
                               "01234567890123456789012345678901234567 9\n",
                               "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text("bad", bad[i], 0600);
        assert_fails(bt_curve_load_secret(in_folder("bad"), &keys), BATON_ERR_CORRUPT, "bad");
    }
    assert_fails(bt_curve_load_secret(in_folder("none"), &keys), BATON_ERR_NOT_FOUND, "none");
}

/* A server that lets in who is in `folder`/allowed, and a client with keys of its own. */
typedef struct {
    bt_curve_keys server, client;
    bt_zap *zap;
    void *router, *dealer, *monitor;
    uint16_t port;
} secured;

static void open_secured(secured *s, bool client_allowed)
{
    assert_ok(bt_curve_generate(&s->server));
    assert_ok(bt_curve_generate(&s->client));
    assert_int_equal(mkdir(in_folder("allowed"), 0700), 0);
    if (client_allowed)
        assert_ok(bt_curve_save(in_folder("allowed/client"), &s->client));
    assert_ok(bt_zap_create(context, in_folder("allowed"), &s->zap));
    const bt_zmq_options server = {.type = ZMQ_ROUTER, .server_keys = &s->server, .zap = s->zap};
    assert_ok(bt_zmq_open(context, &server, &s->router));
    assert_ok(bt_zmq_bind(s->router, "127.0.0.1", 0, &s->port));
}

static void connect_client(secured *s, const bt_zmq_options *options)
{
    assert_ok(bt_zmq_open(context, options, &s->dealer));
    assert_ok(bt_zmq_monitor_open(context, s->dealer, &s->monitor));
    assert_ok(bt_zmq_connect(s->dealer, "127.0.0.1", s->port));
}

static void close_secured(secured *s)
{
    bt_zmq_close(s->dealer);
    bt_zmq_close(s->monitor);
    bt_zmq_close(s->router);
    bt_zap_destroy(s->zap);
}

static void an_allowed_client_gets_through(void **state)
{
    (void)state;
    secured s = {0};
    open_secured(&s, true);
    connect_client(&s, &(bt_zmq_options){.type = ZMQ_DEALER,
                                         .client_keys = &s.client,
                                         .server_public = s.server.public_key});
    assert_true(wait_for(s.dealer, ZMQ_POLLOUT));
    const bt_blob part = bt_blob_of_text("hello");
    bt_zmq_message message;
    assert_ok(bt_zmq_send(s.dealer, &part, 1));
    assert_true(wait_for(s.router, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(s.router, &message));
    bt_zmq_message_close(&message);
    bt_zap_stats stats;
    bt_zap_get_stats(s.zap, &stats);
    assert_int_equal(stats.allowed_total, 1);
    assert_int_equal(stats.denied_total, 0);
    close_secured(&s);
}

/* The handshake fails, and not one frame reaches the server. */
static void assert_kept_out(secured *s)
{
    bt_zmq_event event;
    bt_zmq_message message;
    assert_true(wait_for(s->monitor, ZMQ_POLLIN));
    assert_ok(bt_zmq_monitor_next(s->monitor, &event));
    assert_int_not_equal(event, BT_ZMQ_CONNECTED);
    assert_int_equal(bt_zmq_recv(s->router, &message), BATON_IN_PROGRESS);
}

static void an_unknown_client_is_kept_out(void **state)
{
    (void)state;
    secured s = {0};
    open_secured(&s, false);
    connect_client(&s, &(bt_zmq_options){.type = ZMQ_DEALER,
                                         .client_keys = &s.client,
                                         .server_public = s.server.public_key});
    assert_kept_out(&s);
    bt_zap_stats stats;
    bt_zap_get_stats(s.zap, &stats);
    assert_int_equal(stats.allowed_total, 0);
    assert_true(stats.denied_total >= 1);
    close_secured(&s);
}

static void close_client(secured *s)
{
    bt_zmq_close(s->dealer);
    bt_zmq_close(s->monitor);
    s->dealer = s->monitor = NULL;
}

/* Says hello on a new connection, which is known by the client's key. */
static void assert_let_in(secured *s)
{
    bt_zmq_message message;
    const bt_blob part = bt_blob_of_text("hello");
    connect_client(s, &(bt_zmq_options){.type = ZMQ_DEALER,
                                        .queue_unconnected = true,
                                        .client_keys = &s->client,
                                        .server_public = s->server.public_key});
    assert_ok(bt_zmq_send(s->dealer, &part, 1));
    assert_true(wait_for(s->router, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(s->router, &message));
    assert_string_equal(bt_zmq_user(&message, 1), s->client.public_key);
    bt_zmq_message_close(&message);
}

static void the_folder_is_read_for_each_handshake(void **state)
{
    (void)state;
    secured s = {0};
    open_secured(&s, true);
    assert_let_in(&s);
    close_client(&s);
    unlink(in_folder("allowed/client.pub"));
    const bt_zmq_options options = {
        .type = ZMQ_DEALER, .client_keys = &s.client, .server_public = s.server.public_key};
    connect_client(&s, &options);
    assert_kept_out(&s);
    close_client(&s);
    unlink(in_folder("allowed/client.key"));
    assert_ok(bt_curve_save(in_folder("allowed/again"), &s.client));
    assert_let_in(&s);
    close_client(&s);
    /* What cannot be read changes nothing, and is said once. */
    bt_expect_log("allowed keys stay as they were");
    write_text("allowed/half.pub", "01234567", 0644);
    for (int i = 0; i < 2; i++) {
        assert_let_in(&s);
        close_client(&s);
    }
    close_secured(&s);
}

static void a_client_without_keys_is_kept_out(void **state)
{
    (void)state;
    secured s = {0};
    open_secured(&s, true);
    connect_client(&s, &(bt_zmq_options){.type = ZMQ_DEALER});
    assert_kept_out(&s);
    close_secured(&s);
}

static void a_server_without_a_handler_is_refused(void **state)
{
    (void)state;
    bt_curve_keys keys;
    void *socket = NULL;
    assert_ok(bt_curve_generate(&keys));
    const bt_zmq_options server = {.type = ZMQ_ROUTER, .server_keys = &keys};
    assert_fails(bt_zmq_open(context, &server, &socket), BATON_ERR_INVALID_ARG,
                 "which clients are allowed");
    const bt_zmq_options client = {.type = ZMQ_DEALER, .client_keys = &keys};
    assert_fails(bt_zmq_open(context, &client, &socket), BATON_ERR_INVALID_ARG,
                 "public key is missing");
    const bt_zmq_options wrong = {
        .type = ZMQ_DEALER, .client_keys = &keys, .server_public = "short"};
    assert_fails(bt_zmq_open(context, &wrong, &socket), BATON_ERR_INVALID_ARG,
                 "wanted 40 characters, found 5");
}

static void a_handler_is_made_once_and_whole(void **state)
{
    (void)state;
    bt_zap *zap = NULL, *second = NULL;
    assert_fails(bt_zap_create(context, in_folder("none"), &zap), BATON_ERR_NOT_FOUND, "none");
    write_text("a.pub", "no key\n", 0644);
    assert_fails(bt_zap_create(context, folder, &zap), BATON_ERR_CORRUPT, "a.pub");
    unlink(in_folder("a.pub"));
    bt_curve_keys keys;
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(in_folder("a"), &keys));
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_zap_create(context, folder, &zap), BATON_ERR_NO_MEMORY, NULL);
    }
    bt_alloc_fail_at(0);
    assert_ok(bt_zap_create(context, folder, &zap));
    assert_fails(bt_zap_create(context, folder, &second), BATON_ERR_STATE, "has a handler");
    bt_zap_destroy(zap);
    assert_ok(bt_zap_create(context, folder, &zap));
    bt_zap_destroy(zap);
}

static void malformed_requests_are_denied(void **state)
{
    (void)state;
    bt_zap *zap = NULL;
    bt_zap_stats stats;
    assert_ok(bt_zap_create(context, folder, &zap));
    void *asker = NULL;
    assert_ok(bt_zmq_open(context, &(bt_zmq_options){.type = ZMQ_REQ}, &asker));
    assert_int_equal(zmq_connect(asker, "inproc://zeromq.zap.01"), 0);
    static char large[300];
    for (unsigned n_parts = 1; n_parts <= 20; n_parts += 19) {
        for (unsigned i = 0; i < n_parts; i++)
            assert_true(zmq_send(asker, large, sizeof(large), i + 1 < n_parts ? ZMQ_SNDMORE : 0) >
                        0);
        bt_zmq_message message;
        assert_true(wait_for(asker, ZMQ_POLLIN));
        assert_fails(bt_zmq_recv(asker, &message), BATON_ERR_BAD_MESSAGE, "found 6");
    }
    bt_zap_get_stats(zap, &stats);
    assert_int_equal(stats.denied_total, 2);
    bt_zmq_close(asker);
    bt_zap_destroy(zap);
}

#define curve_test(fn) cmocka_unit_test_setup_teardown(fn, make_folder, remove_folder)

int main(void)
{
    if (!zmq_has("curve"))
        bt_test_skip("this libzmq was built without CURVE");
    const struct CMUnitTest tests[] = {
        curve_test(saved_keys_load_again),
        curve_test(files_are_not_overwritten),
        curve_test(a_secret_that_others_can_read_is_refused),
        curve_test(files_without_a_key_are_refused),
        curve_test(an_allowed_client_gets_through),
        curve_test(an_unknown_client_is_kept_out),
        curve_test(the_folder_is_read_for_each_handshake),
        curve_test(a_client_without_keys_is_kept_out),
        curve_test(a_server_without_a_handler_is_refused),
        curve_test(a_handler_is_made_once_and_whole),
        curve_test(malformed_requests_are_denied),
    };
    return bt_run_tests(tests);
}
