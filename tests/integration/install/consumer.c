/* SPDX-License-Identifier: Apache-2.0 */
/* What a user's program does, from installed headers and libraries: a sender hands one chunk to a
 * receiver, here in one process. It also checks what a process that loads both libraries relies on:
 * one error text per thread, one log sink. Exit status 0 when everything holds. */
#include <baton/log.h>
#include <baton/receiver.h>
#include <baton/sender.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { N_TOKENS = 4, CHUNK_BYTES = N_TOKENS * 2 * 2 * 8 * 2, HANG_GUARD_MS = 30000 };

static const baton_layout layout = {
    .model = "consumer",
    .dtype = BATON_DTYPE_BF16,
    .n_layers = 2,
    .n_planes = 2,
    .n_kv_heads = 1,
    .head_dim = 8,
    .chunk_tokens = 16,
    .block_tokens = 16,
    .tp_size = 1,
    .pp_size = 1,
};
static int n_failures;
static unsigned n_sender_lines, n_receiver_lines;

#define EXPECT(condition)                                                                       \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "consumer:%d: %s; %s\n", __LINE__, #condition, baton_last_error()); \
            n_failures++;                                                                       \
        }                                                                                       \
    } while (0)

/* Both libraries log from threads of their own, but each its own lines. */
static void count_line(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    n_sender_lines += strncmp(line, "sender:", 7) == 0;
    n_receiver_lines += strncmp(line, "receiver: waits", 15) == 0;
}

/* A failure in either library is the thread's last error, whichever library is asked. */
static void errors_are_shared(void)
{
    baton_sender *sender = NULL;
    baton_receiver *receiver = NULL;
    EXPECT(baton_sender_create(NULL, &sender) == BATON_ERR_INVALID_ARG);
    EXPECT(strncmp(baton_last_error(), "sender:", 7) == 0);
    EXPECT(baton_receiver_create(NULL, &receiver) == BATON_ERR_INVALID_ARG);
    EXPECT(strncmp(baton_last_error(), "receiver:", 9) == 0);
}

/* Waits for the transfer's last event. */
static baton_sender_event wait_ended(baton_sender *sender)
{
    baton_sender_event event = {.kind = BATON_SENDER_SOURCE_FREE};
    struct pollfd ready = {.fd = baton_sender_event_fd(sender), .events = POLLIN};
    while (event.kind == BATON_SENDER_SOURCE_FREE) {
        if (baton_sender_poll(sender, &event, 1) == 0 && poll(&ready, 1, HANG_GUARD_MS) <= 0) {
            event.kind = BATON_SENDER_FAILED;
            snprintf(event.text, sizeof(event.text), "no event in %d ms", HANG_GUARD_MS);
        }
    }
    return event;
}

static void send_chunk(baton_sender *sender, baton_receiver *receiver, const uint32_t *tokens,
                       const void *data)
{
    baton_key_chain chain;
    baton_key key;
    baton_transfer transfer = 0;
    baton_transfer_options options = {.request = "consumer-1", .host = "127.0.0.1", .keys = &key};
    baton_receiver_ports(receiver, &options.init_port, &options.alloc_port);
    EXPECT(baton_key_chain_init(&layout, 1, 0, NULL, &chain) == 0);
    EXPECT(baton_keys_of_tokens(&chain, tokens, N_TOKENS, &key, 1, &options.n_chunks,
                                &options.last_tokens) == 0);
    EXPECT(baton_transfer_begin(sender, &options, &transfer) == 0);
    EXPECT(baton_transfer_push_bytes(sender, transfer, 0, data, CHUNK_BYTES) == 0);
    EXPECT(baton_transfer_finish(sender, transfer) == 0);
    baton_sender_event event = wait_ended(sender);
    if (event.kind != BATON_SENDER_DONE)
        fprintf(stderr, "consumer: transfer failed: %s\n", event.text);
    EXPECT(event.kind == BATON_SENDER_DONE);
}

static void read_chunk(baton_receiver *receiver, const uint32_t *tokens, const void *data)
{
    baton_pin *pin = NULL;
    uint32_t n_matched = 0;
    baton_pinned_chunk chunk = {0};
    EXPECT(baton_receiver_lookup(receiver, tokens, N_TOKENS, &pin, &n_matched) == 0);
    EXPECT(n_matched == N_TOKENS);
    if (pin == NULL)
        return;
    EXPECT(baton_pin_chunk(pin, 0, &chunk) == 0);
    EXPECT(chunk.bytes == CHUNK_BYTES && memcmp(chunk.page, data, CHUNK_BYTES) == 0);
    EXPECT(baton_receiver_unpin(receiver, pin) == 0);
}

static void a_chunk_moves(void)
{
    const uint32_t tokens[N_TOKENS] = {1, 2, 3, 4};
    uint8_t data[CHUNK_BYTES];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + 1);

    baton_receiver *receiver = NULL;
    baton_sender *sender = NULL;
    EXPECT(baton_receiver_create(&(baton_receiver_options){.layout = layout, .pool_bytes = 1 << 20},
                                 &receiver) == 0);
    EXPECT(baton_sender_create(&(baton_sender_options){.layout = layout, .path = BATON_PATH_PUT},
                               &sender) == 0);
    if (receiver != NULL && sender != NULL) {
        send_chunk(sender, receiver, tokens, data);
        read_chunk(receiver, tokens, data);
    }
    baton_sender_destroy(sender);
    baton_receiver_destroy(receiver);
}

int main(void)
{
    EXPECT(strcmp(baton_version(), EXPECTED_VERSION) == 0);
    baton_log_set_level(BATON_LOG_INFO);
    baton_log_set_sink(count_line, NULL);
    errors_are_shared();
    a_chunk_moves();
    EXPECT(n_sender_lines > 0 && n_receiver_lines > 0);
    if (n_failures == 0)
        puts("consumer: ok");
    return n_failures == 0 ? 0 : 1;
}
