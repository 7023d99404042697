/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "wire/security.h"
#include "wire/zmq_wait.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static char folder[64], server_key[128], server_public[128], client_key[128], clients[128];
static void *context;

/* folder/server.{key,pub}, folder/clients/client.{key,pub} */
static int make_keys(void **state)
{
    assert_int_equal(bt_test_setup(state), 0);
    strcpy(folder, "/tmp/baton-security-XXXXXX");
    assert_non_null(mkdtemp(folder));
    char prefix[128];
    bt_curve_keys keys;
    snprintf(clients, sizeof(clients), "%s/clients", folder);
    assert_int_equal(mkdir(clients, 0700), 0);
    snprintf(prefix, sizeof(prefix), "%s/server", folder);
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(prefix, &keys));
    snprintf(prefix, sizeof(prefix), "%s/clients/client", folder);
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(prefix, &keys));
    snprintf(server_key, sizeof(server_key), "%s/server.key", folder);
    snprintf(server_public, sizeof(server_public), "%s/server.pub", folder);
    snprintf(client_key, sizeof(client_key), "%s/clients/client.key", folder);
    assert_ok(bt_zmq_context_create(&context));
    return 0;
}

static int remove_keys(void **state)
{
    char command[128];
    bt_zmq_context_destroy(context);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    return bt_test_teardown(state);
}

static void configured_keys_connect_both_sides(void **state)
{
    (void)state;
    bt_security server = {0}, client = {0};
    void *router = NULL, *dealer = NULL;
    uint16_t port = 0;
    assert_ok(bt_security_open_server(
        context, &(baton_security){.key_file = server_key, .clients_path = clients}, "0.0.0.0",
        &server));
    assert_ok(bt_security_open_client(
        &(baton_security){.key_file = client_key, .server_key = server_public}, &client));
    bt_zmq_options options = {.type = ZMQ_ROUTER};
    bt_security_apply(&server, &options);
    assert_ok(bt_zmq_open(context, &options, &router));
    options = (bt_zmq_options){.type = ZMQ_DEALER};
    bt_security_apply(&client, &options);
    assert_ok(bt_zmq_open(context, &options, &dealer));
    assert_ok(bt_zmq_bind(router, "127.0.0.1", 0, &port));
    assert_ok(bt_zmq_connect(dealer, "127.0.0.1", port));
    assert_true(wait_for(dealer, ZMQ_POLLOUT));
    bt_zmq_close(dealer);
    bt_zmq_close(router);
    bt_security_close(&client);
    bt_security_close(&server);
    assert_int_equal(client.keys.secret_key[0], 0);
}

static void without_keys_only_loopback_is_open(void **state)
{
    (void)state;
    bt_security security = {0};
    const baton_security none = {0}, any = {.allow_unauthenticated = true};
    assert_ok(bt_security_open_server(context, &none, "127.0.0.1", &security));
    assert_false(security.has_keys);
    bt_security_close(&security);
    assert_fails(bt_security_open_server(context, &none, "0.0.0.0", &security),
                 BATON_ERR_PERMISSION, "set allow_unauthenticated");
    assert_ok(bt_security_open_server(context, &any, "0.0.0.0", &security));
    bt_security_close(&security);
    assert_ok(bt_security_open_client(&none, &security));
    bt_zmq_options options = {.type = ZMQ_DEALER};
    bt_security_apply(&security, &options);
    assert_null(options.client_keys);
    bt_security_close(&security);
}

static void half_a_configuration_is_refused(void **state)
{
    (void)state;
    bt_security security = {0};
    assert_fails(bt_security_open_server(context, &(baton_security){.key_file = server_key},
                                         "127.0.0.1", &security),
                 BATON_ERR_CONFIG, "clients_path is not set");
    assert_fails(bt_security_open_server(context, &(baton_security){.clients_path = clients},
                                         "127.0.0.1", &security),
                 BATON_ERR_CONFIG, "key_file is not set");
    assert_fails(bt_security_open_client(&(baton_security){.key_file = client_key}, &security),
                 BATON_ERR_CONFIG, "server_key is not set");
    assert_fails(bt_security_open_client(
                     &(baton_security){.key_file = client_key, .server_key = "/none"}, &security),
                 BATON_ERR_NOT_FOUND, "/none");
    assert_fails(bt_security_open_server(
                     context, &(baton_security){.key_file = server_key, .clients_path = "/none"},
                     "127.0.0.1", &security),
                 BATON_ERR_NOT_FOUND, "/none");
}

#define keys_test(fn) cmocka_unit_test_setup_teardown(fn, make_keys, remove_keys)

int main(void)
{
    if (!zmq_has("curve"))
        bt_test_skip("this libzmq was built without CURVE");
    const struct CMUnitTest tests[] = {
        keys_test(configured_keys_connect_both_sides),
        keys_test(without_keys_only_loopback_is_open),
        keys_test(half_a_configuration_is_refused),
    };
    return bt_run_tests(tests);
}
