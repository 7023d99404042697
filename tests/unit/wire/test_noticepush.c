/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/control.h"
#include "wire/noticepush.h"

#include "core/alloc.h"
#include "support/test.h"
#include "wire/zmq_wait.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct {
    void *context, *pull;
    char url[64];
} proxy;

static void open_proxy(proxy *p)
{
    uint16_t port;
    const bt_zmq_options options = {.type = ZMQ_PULL};
    assert_ok(bt_zmq_context_create(&p->context));
    assert_ok(bt_zmq_open(p->context, &options, &p->pull));
    assert_ok(bt_zmq_bind(p->pull, "127.0.0.1", 0, &port));
    snprintf(p->url, sizeof(p->url), "tcp://127.0.0.1:%u", port);
}

static void close_proxy(proxy *p)
{
    bt_zmq_close(p->pull);
    bt_zmq_context_destroy(p->context);
}

static void expect_notice(proxy *p, const char *id)
{
    bt_zmq_message message;
    bt_notice notice;
    assert_true(wait_for(p->pull, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(p->pull, &message));
    bt_blob frame = bt_zmq_part(&message, 0);
    assert_ok(bt_notice_decode(frame.data, frame.bytes, &notice));
    assert_true(bt_blob_is_text(notice.id, id));
    bt_zmq_message_close(&message);
}

static bt_notice notice_of(const char *id)
{
    return (bt_notice){
        .id = bt_blob_of_text(id), .epoch = 1, .world = 1, .text = bt_blob_of_text("")};
}

static void check_stats(const bt_noticepush *push, uint64_t sent, uint64_t dropped)
{
    uint64_t sent_found, dropped_found;
    bt_noticepush_get_stats(push, &sent_found, &dropped_found);
    assert_int_equal(sent_found, sent);
    assert_int_equal(dropped_found, dropped);
}

/* Also those that are sent right before the end, while the connection does not stand yet. */
static void notices_reach_their_proxies(void **state)
{
    (void)state;
    proxy proxies[2];
    void *context;
    bt_noticepush *push;
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_noticepush_create(context, NULL, &push));
    for (int i = 0; i < 2; i++)
        open_proxy(&proxies[i]);
    for (int i = 0; i < 6; i++) {
        char id[8];
        snprintf(id, sizeof(id), "n%d", i);
        const bt_notice notice = notice_of(id);
        bt_noticepush_send(push, proxies[i % 2].url, &notice);
    }
    check_stats(push, 6, 0);
    bt_noticepush_destroy(push, 30000);
    bt_zmq_context_destroy(context);
    expect_notice(&proxies[0], "n0");
    expect_notice(&proxies[0], "n2");
    expect_notice(&proxies[0], "n4");
    expect_notice(&proxies[1], "n1");
    expect_notice(&proxies[1], "n3");
    expect_notice(&proxies[1], "n5");
    for (int i = 0; i < 2; i++)
        close_proxy(&proxies[i]);
}

/* Nobody listens there: the queue fills, the rest is counted, nothing blocks. */
static void an_unreachable_proxy_costs_a_bounded_queue(void **state)
{
    (void)state;
    proxy gone;
    void *context;
    bt_noticepush *push;
    open_proxy(&gone);
    close_proxy(&gone);
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_noticepush_create(context, NULL, &push));
    const bt_notice notice = notice_of("n");
    for (int i = 0; i < BT_NOTICES_WAITING_MAX + 100; i++)
        bt_noticepush_send(push, gone.url, &notice);
    check_stats(push, BT_NOTICES_WAITING_MAX, 100);
    bt_noticepush_destroy(push, 0);
    bt_zmq_context_destroy(context);
}

static void what_is_no_address_or_no_notice_is_dropped(void **state)
{
    (void)state;
    void *context;
    bt_noticepush *push;
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_noticepush_create(context, NULL, &push));
    bt_notice notice = notice_of("n");
    const char *const bad[] = {"", "nowhere", "ipc:///tmp/x", "tcp://127.0.0.1:0", "tcp://a;b:1"};
    for (int i = 0; i < 5; i++)
        bt_noticepush_send(push, bad[i], &notice);
    notice.id = (bt_blob){0};
    bt_noticepush_send(push, "tcp://127.0.0.1:9", &notice);
    check_stats(push, 0, 6);
    bt_noticepush_destroy(push, 0);
    bt_zmq_context_destroy(context);
}

/* More addresses than sockets: the one used longest ago goes, and comes back when it is needed. */
static void the_number_of_sockets_is_bounded(void **state)
{
    (void)state;
    proxy here;
    void *context;
    bt_noticepush *push;
    open_proxy(&here);
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_noticepush_create(context, NULL, &push));
    const bt_notice first = notice_of("first"), other = notice_of("other"),
                    last = notice_of("last");
    bt_noticepush_send(push, here.url, &first);
    expect_notice(&here, "first");
    for (int i = 0; i < 2 * BT_NOTICE_SOCKETS_MAX; i++) {
        char url[64];
        snprintf(url, sizeof(url), "tcp://127.0.1.%d:1", i + 1);
        bt_noticepush_send(push, url, &other);
    }
    bt_noticepush_send(push, here.url, &last);
    expect_notice(&here, "last");
    check_stats(push, 2 + 2 * BT_NOTICE_SOCKETS_MAX, 0);
    bt_noticepush_destroy(push, 0);
    bt_zmq_context_destroy(context);
    close_proxy(&here);
}

/* folder/NAME.{key,pub} and settings that name them. */
typedef struct {
    char folder[32], files[3][64];
    baton_security engine, proxy;
} key_files;

static void make_keys(key_files *k)
{
    static const char *const names[] = {"engine", "proxy"};
    char prefix[64];
    bt_curve_keys keys;
    strcpy(k->folder, "/tmp/baton-notices-XXXXXX");
    assert_non_null(mkdtemp(k->folder));
    for (int i = 0; i < 2; i++) {
        snprintf(prefix, sizeof(prefix), "%s/%s", k->folder, names[i]);
        assert_ok(bt_curve_generate(&keys));
        assert_ok(bt_curve_save(prefix, &keys));
    }
    snprintf(k->files[0], sizeof(k->files[0]), "%s/engine.key", k->folder);
    snprintf(k->files[1], sizeof(k->files[1]), "%s/proxy.key", k->folder);
    snprintf(k->files[2], sizeof(k->files[2]), "%s/proxy.pub", k->folder);
    k->engine = (baton_security){
        .key_file = k->files[0], .server_key = k->files[2], .proxy_key = k->files[2]};
    k->proxy = (baton_security){.key_file = k->files[1], .clients_path = k->folder};
}

static void remove_keys(const key_files *k)
{
    char command[64];
    snprintf(command, sizeof(command), "rm -rf %s", k->folder);
    assert_int_equal(system(command), 0);
}

static void with_keys_notices_leave_encrypted_or_not_at_all(void **state)
{
    (void)state;
    key_files k;
    bt_control server, engine;
    bt_noticepush *push, *blind;
    proxy here;
    uint16_t port;
    make_keys(&k);
    assert_ok(bt_control_open_server(&k.proxy, "127.0.0.1", &server));
    assert_ok(bt_control_socket(&server, ZMQ_PULL, 0, 0, &here.pull));
    assert_ok(bt_zmq_bind(here.pull, "127.0.0.1", 0, &port));
    snprintf(here.url, sizeof(here.url), "tcp://127.0.0.1:%u", port);
    assert_ok(bt_control_open_client(&k.engine, &engine));
    assert_ok(bt_noticepush_create(engine.context, &engine.security, &push));
    const bt_notice good = notice_of("good"), bad = notice_of("bad");
    /* Without keys of its own it is not heard. */
    assert_ok(bt_noticepush_create(engine.context, NULL, &blind));
    bt_noticepush_send(blind, here.url, &bad);
    bt_noticepush_send(push, here.url, &good);
    expect_notice(&here, "good");
    check_stats(push, 1, 0);
    bt_noticepush_destroy(push, 0);
    bt_noticepush_destroy(blind, 0);
    /* Without the proxy's key nothing leaves. */
    engine.security.proxy_public[0] = 0;
    assert_ok(bt_noticepush_create(engine.context, &engine.security, &push));
    bt_expect_log("set proxy_key");
    bt_noticepush_send(push, here.url, &bad);
    bt_noticepush_send(push, here.url, &bad);
    check_stats(push, 0, 2);
    bt_noticepush_destroy(push, 0);
    bt_control_close(&engine);
    bt_zmq_close(here.pull);
    bt_control_close(&server);
    remove_keys(&k);
}

static void control_sockets_want_both_halves_of_the_keys(void **state)
{
    (void)state;
    bt_control control;
    const baton_security half = {.key_file = "/nonexistent.key"};
    assert_fails(bt_control_open_server(&half, "127.0.0.1", &control), BATON_ERR_CONFIG,
                 "clients_path");
    assert_fails(bt_control_open_client(&half, &control), BATON_ERR_CONFIG, "server_key");
    const baton_security clear = {.proxy_key = "/nonexistent.pub"};
    assert_fails(bt_control_open_client(&clear, &control), BATON_ERR_CONFIG, "wants a key_file");
    assert_fails(bt_control_open_server(&clear, "127.0.0.1", &control), BATON_ERR_CONFIG,
                 "wants a key_file");
    const baton_security none = {0};
    assert_fails(bt_control_open_server(&none, "0.0.0.0", &control), BATON_ERR_PERMISSION, NULL);
    assert_ok(bt_control_open_client(&none, &control));
    bt_control_close(&control);
    bt_control_close(&control); /* zeroed */
}

int main(void)
{
    if (!zmq_has("curve"))
        bt_test_skip("this libzmq was built without CURVE");
    const struct CMUnitTest tests[] = {
        bt_test(notices_reach_their_proxies),
        bt_test(an_unreachable_proxy_costs_a_bounded_queue),
        bt_test(what_is_no_address_or_no_notice_is_dropped),
        bt_test(the_number_of_sockets_is_bounded),
        bt_test(with_keys_notices_leave_encrypted_or_not_at_all),
        bt_test(control_sockets_want_both_halves_of_the_keys),
    };
    return bt_run_tests(tests);
}
