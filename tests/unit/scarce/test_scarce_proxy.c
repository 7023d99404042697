/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server, and a proxy whole. */
#include "core/fail.h"
#include "http/httpserver.h"
#include "proxy/proxy.h"
#include "support/oom.h"
#include "support/test.h"

static void on_request(void *ctx, bt_http_request *request)
{
    (void)ctx, (void)request;
}

static void on_drained(void *arg)
{
    bt_loop_stop(arg);
}

static baton_status make_server(void *ctx)
{
    bt_loop *loop;
    bt_http_server *server;
    (void)ctx;
    BATON_TRY(bt_loop_create(&loop));
    const bt_http_server_options options = {.on_request = on_request};
    baton_status status = bt_http_server_create(loop, &options, &server);
    if (status == BATON_OK) {
        bt_http_server_drain(server, on_drained, loop);
        bt_loop_run(loop);
        bt_http_server_destroy(server);
    }
    bt_loop_destroy(loop);
    return status;
}

static baton_status make_proxy(void *ctx)
{
    bt_proxy *proxy = NULL;
    bt_worker_address at = {.host = "127.0.0.1", .port = 1};
    const bt_proxy_options options = {
        .prefill = &at, .decode = &at, .n_prefill = 1, .n_decode = 1, .threads = 2};
    (void)ctx;
    baton_status status = bt_proxy_start(&options, &proxy);
    bt_proxy_destroy(proxy);
    return status;
}

static void an_http_server_without_what_it_needs_is_refused(void **state)
{
    (void)state;
    bt_check_scarce_memory(make_server, NULL);
    bt_check_scarce_descriptors(make_server, NULL);
}

static void a_proxy_without_what_it_needs_is_refused(void **state)
{
    (void)state;
    bt_check_scarce_memory(make_proxy, NULL);
    bt_check_scarce_descriptors(make_proxy, NULL);
    bt_check_scarce_threads(make_proxy, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(an_http_server_without_what_it_needs_is_refused),
        bt_test(a_proxy_without_what_it_needs_is_refused),
    };
    return bt_run_tests(tests);
}
