/* SPDX-License-Identifier: Apache-2.0 */
/* A sender and a receiver with CURVE keys in files, through the public API, as
 * docs/security.md says: who is let in hands a request over; anybody else gets nothing, and a
 * named error in time. */
#include <baton/receiver.h>
#include <baton/sender.h>

#include "support/test.h"
#include "transport/loop.h"
#include "wire/curve.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zmq.h>

enum { N_TOKENS = 11, CHUNK_TOKENS = 8, N_CHUNKS = 2, PATH_BYTES = 128, HANG_GUARD_MS = 60000 };

static const baton_layout layout = {.model = "secured",
                                    .dtype = BATON_DTYPE_F32,
                                    .n_layers = 1,
                                    .n_planes = 2,
                                    .n_kv_heads = 1,
                                    .head_dim = 4,
                                    .chunk_tokens = CHUNK_TOKENS,
                                    .block_tokens = 4,
                                    .tp_size = 1,
                                    .pp_size = 1};
static char folder[] = "/tmp/baton-secured-XXXXXX";
static bt_loop_net *net;
static baton_receiver *receiver;

static void save_keys(const char *name)
{
    char prefix[PATH_BYTES];
    bt_curve_keys keys;
    snprintf(prefix, sizeof(prefix), "%s/%s", folder, name);
    assert_ok(bt_curve_generate(&keys));
    assert_ok(bt_curve_save(prefix, &keys));
}

static const char *setting(char text[PATH_BYTES], const char *key, const char *file)
{
    snprintf(text, PATH_BYTES, "%s=%s/%s", key, folder, file);
    return text;
}

/* folder/receiver.{key,pub}, other.{key,pub}, allowed/sender.{key,pub}; a receiver that lets in who
 * is in allowed/. */
static int open_receiver(void **state)
{
    char path[PATH_BYTES], key_file[PATH_BYTES], clients_path[PATH_BYTES];
    assert_int_equal(bt_test_setup(state), 0);
    strcpy(folder + strlen(folder) - 6, "XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/allowed", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    save_keys("receiver");
    save_keys("other");
    save_keys("allowed/sender");
    bt_expect_log("cannot be mapped");
    assert_ok(bt_loop_net_create(1, NULL, &net));
    const baton_receiver_options options = {
        .layout = layout, .pool_bytes = 1 << 20, .data = {.transport = "loop", .loop_net = net}};
    const char *const overrides[] = {setting(key_file, "key_file", "receiver.key"),
                                     setting(clients_path, "clients_path", "allowed"), "host=*"};
    assert_ok(baton_receiver_create_from_file(NULL, &options, overrides, 3, &receiver));
    return 0;
}

static int close_receiver(void **state)
{
    char command[PATH_BYTES];
    baton_receiver_destroy(receiver);
    bt_loop_net_destroy(net);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    return bt_test_teardown(state);
}

/* NULL files: no keys. connect_ms is short, since some senders are to run into it. */
static baton_sender *open_sender(const char *secret, const char *server)
{
    char key_file[PATH_BYTES], server_key[PATH_BYTES];
    baton_sender *sender;
    const baton_sender_options options = {.layout = layout,
                                          .data = {.transport = "loop", .loop_net = net}};
    const char *overrides[] = {"connect_ms=300ms", NULL, NULL};
    if (secret != NULL) {
        overrides[1] = setting(key_file, "key_file", secret);
        overrides[2] = setting(server_key, "server_key", server);
    }
    assert_ok(
        baton_sender_create_from_file(NULL, &options, overrides, secret != NULL ? 3 : 1, &sender));
    return sender;
}

static void fill_tokens(uint32_t *tokens)
{
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = i;
}

static void begin_transfer(baton_sender *sender, const void *data, uint64_t token_bytes)
{
    uint32_t tokens[N_TOKENS], n_keys, last_tokens;
    uint16_t init_port, alloc_port;
    baton_key_chain chain;
    baton_key keys[N_CHUNKS];
    baton_transfer transfer;
    fill_tokens(tokens);
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    assert_ok(
        baton_keys_of_tokens(&chain, tokens, N_TOKENS, keys, N_CHUNKS, &n_keys, &last_tokens));
    baton_receiver_ports(receiver, &init_port, &alloc_port);
    const baton_transfer_options options = {.request = "secured",
                                            .host = "127.0.0.1",
                                            .init_port = init_port,
                                            .alloc_port = alloc_port,
                                            .keys = keys,
                                            .n_chunks = N_CHUNKS,
                                            .last_tokens = last_tokens};
    assert_ok(baton_transfer_begin(sender, &options, &transfer));
    assert_ok(
        baton_transfer_push_bytes(sender, transfer, 0, data, (size_t)(CHUNK_TOKENS * token_bytes)));
    assert_ok(
        baton_transfer_push_bytes(sender, transfer, 1, data, (size_t)(last_tokens * token_bytes)));
    assert_ok(baton_transfer_finish(sender, transfer));
}

/* Begins a transfer and waits for its end. */
static void hand_over(baton_sender *sender, baton_sender_event *end)
{
    uint8_t data[1024] = {7};
    uint64_t token_bytes;
    assert_ok(baton_layout_token_bytes(&layout, &token_bytes));
    assert_true(CHUNK_TOKENS * token_bytes <= sizeof(data));
    begin_transfer(sender, data, token_bytes);
    struct pollfd ready = {.fd = baton_sender_event_fd(sender), .events = POLLIN};
    do {
        if (baton_sender_poll(sender, end, 1) == 0)
            assert_int_equal(poll(&ready, 1, HANG_GUARD_MS), 1);
    } while (end->kind == BATON_SENDER_SOURCE_FREE);
}

static void keys_in_files_let_a_sender_in(void **state)
{
    (void)state;
    baton_sender_event end = {0};
    uint32_t tokens[N_TOKENS], n_matched, n_peeked;
    baton_pin *pin;
    baton_sender *sender = open_sender("allowed/sender.key", "receiver.pub");
    fill_tokens(tokens);
    assert_ok(baton_receiver_peek(receiver, tokens, N_TOKENS, &n_peeked));
    assert_int_equal(n_peeked, 0);
    hand_over(sender, &end);
    assert_int_equal(end.kind, BATON_SENDER_DONE);
    assert_ok(baton_receiver_peek(receiver, tokens, N_TOKENS, &n_peeked));
    assert_int_equal(n_peeked, N_TOKENS);
    assert_ok(baton_receiver_lookup(receiver, tokens, N_TOKENS, &pin, &n_matched));
    assert_int_equal(n_matched, N_TOKENS);
    assert_ok(baton_receiver_unpin(receiver, pin));
    baton_sender_destroy(sender);
}

static void check_stranger(const char *secret, const char *server)
{
    baton_sender_event end = {0};
    baton_receiver_stats stats;
    baton_sender *sender = open_sender(secret, server);
    bt_expect_log("no answer to INIT");
    hand_over(sender, &end);
    assert_int_equal(end.kind, BATON_SENDER_FAILED);
    assert_int_equal(end.status, BATON_ERR_CONNECT_TIMEOUT);
    assert_non_null(strstr(end.text, "keys"));
    baton_sender_destroy(sender);
    baton_receiver_get_stats(receiver, &stats);
    assert_int_equal(stats.messages_total, 0);
    assert_int_equal(stats.peers, 0);
}

static void a_sender_whose_key_is_not_allowed_gets_nothing(void **state)
{
    (void)state;
    check_stranger("other.key", "receiver.pub");
}

static void a_receiver_with_another_key_is_not_talked_to(void **state)
{
    (void)state;
    check_stranger("allowed/sender.key", "other.pub");
}

static void a_sender_without_keys_gets_nothing(void **state)
{
    (void)state;
    check_stranger(NULL, NULL);
}

#define secured_test(fn) cmocka_unit_test_setup_teardown(fn, open_receiver, close_receiver)

int main(void)
{
    if (!zmq_has("curve"))
        bt_test_skip("this libzmq was built without CURVE");
    const struct CMUnitTest tests[] = {
        secured_test(keys_in_files_let_a_sender_in),
        secured_test(a_sender_whose_key_is_not_allowed_gets_nothing),
        secured_test(a_receiver_with_another_key_is_not_talked_to),
        secured_test(a_sender_without_keys_gets_nothing),
    };
    return bt_run_tests(tests);
}
