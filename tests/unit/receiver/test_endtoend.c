/* SPDX-License-Identifier: Apache-2.0 */
/* Senders and receivers through their public API, in one process: every sender hands requests to
 * every receiver, over the loop transport and over UCX, with the libraries' threads and without. */
#include <baton/receiver.h>
#include <baton/sender.h>

#include "core/alloc.h"
#include "support/test.h"
#include "transport/loop.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    N_SENDERS = 2,
    N_RECEIVERS = 2,
    N_ROUNDS = 3,
    CHUNK_TOKENS = 16,
    N_TOKENS = 3 * CHUNK_TOKENS + 5, /* a short tail */
    SHARED_TOKENS = CHUNK_TOKENS + 3,
    N_CHUNKS = 4,
    N_REQUESTS = N_SENDERS * N_RECEIVERS * N_ROUNDS,
    HANG_GUARD_MS = 60000,
};

typedef struct {
    const char *transport;
    baton_progress_mode progress;
    baton_path_choice path;
    bool by_layers; /* last layer first */
    bool can_map;   /* loop */
    bool no_digests;
    uint32_t copy_threads;
    uint32_t head_dim; /* 0: 8 */
} flavour;

typedef struct {
    uint32_t tokens[N_TOKENS];
    baton_key keys[N_CHUNKS];
    uint8_t *data; /* the prompt's chunks, one behind the other */
    uint32_t n_free;
    bool done;
} prompt;

typedef struct {
    flavour how;
    baton_layout layout;
    uint64_t token_bytes;
    bt_loop_net *net;
    baton_sender *senders[N_SENDERS];
    baton_receiver *receivers[N_RECEIVERS];
    prompt prompts[N_REQUESTS];
    uint32_t n_done, n_ready;
} bench;

static baton_layout test_layout(void)
{
    return (baton_layout){.model = "endtoend",
                          .dtype = BATON_DTYPE_F32,
                          .n_layers = 2,
                          .n_planes = 2,
                          .n_kv_heads = 2,
                          .head_dim = 8,
                          .chunk_tokens = CHUNK_TOKENS,
                          .block_tokens = 8,
                          .tp_size = 1,
                          .pp_size = 1};
}

static void open_bench(bench *b, flavour how)
{
    *b = (bench){.how = how, .layout = test_layout()};
    if (how.head_dim != 0)
        b->layout.head_dim = how.head_dim;
    if (strcmp(how.transport, "loop") == 0 && !how.can_map)
        bt_expect_log("cannot be mapped");
    assert_ok(baton_layout_token_bytes(&b->layout, &b->token_bytes));
    assert_ok(bt_loop_net_create(1, NULL, &b->net));
    bt_loop_set_mapping(b->net, how.can_map, false);
    const baton_data_path data = {.transport = how.transport, .loop_net = b->net};
    for (int i = 0; i < N_RECEIVERS; i++) {
        const baton_receiver_options options = {.layout = b->layout,
                                                .digests = how.no_digests ? BATON_DIGESTS_OFF
                                                                          : BATON_DIGESTS_FULL,
                                                .pool_bytes = 64 * CHUNK_TOKENS * b->token_bytes,
                                                .progress = how.progress,
                                                .data = data};
        assert_ok(baton_receiver_create(&options, &b->receivers[i]));
    }
    for (int i = 0; i < N_SENDERS; i++) {
        const baton_sender_options options = {.layout = b->layout,
                                              .path = how.path,
                                              .copy_threads = how.copy_threads,
                                              .progress = how.progress,
                                              .data = data};
        assert_ok(baton_sender_create(&options, &b->senders[i]));
    }
}

static void close_bench(bench *b)
{
    for (int i = 0; i < N_SENDERS; i++)
        baton_sender_destroy(b->senders[i]);
    for (int i = 0; i < N_RECEIVERS; i++)
        baton_receiver_destroy(b->receivers[i]);
    for (int i = 0; i < N_REQUESTS; i++)
        test_free(b->prompts[i].data);
    bt_loop_net_destroy(b->net);
}

static size_t chunk_bytes(const bench *b, uint32_t chunk)
{
    uint32_t tokens = chunk + 1 < N_CHUNKS ? CHUNK_TOKENS : N_TOKENS - 3 * CHUNK_TOKENS;
    return (size_t)(tokens * b->token_bytes);
}

static uint8_t *chunk_data(const bench *b, const prompt *p, uint32_t chunk)
{
    return p->data + chunk * (size_t)(CHUNK_TOKENS * b->token_bytes);
}

/* Prompts of one receiver share their first tokens, so that chunks are there already. The bytes of
 * a chunk follow from its key. */
static void make_prompt(bench *b, uint32_t n)
{
    prompt *p = &b->prompts[n];
    uint32_t n_keys, last;
    baton_key_chain chain;
    for (uint32_t i = 0; i < N_TOKENS; i++)
        p->tokens[i] = i < SHARED_TOKENS ? i : 1000 * (n + 1) + i;
    assert_ok(baton_key_chain_init(&b->layout, 1, 0, NULL, &chain));
    assert_ok(baton_keys_of_tokens(&chain, p->tokens, N_TOKENS, p->keys, N_CHUNKS, &n_keys, &last));
    assert_int_equal(n_keys, N_CHUNKS);
    p->data = test_malloc(N_CHUNKS * CHUNK_TOKENS * b->token_bytes);
    for (uint32_t chunk = 0; chunk < N_CHUNKS; chunk++) {
        bt_rng rng;
        memcpy(&rng.state, p->keys[chunk].bytes, sizeof(rng.state));
        bt_rng_fill(&rng, chunk_data(b, p, chunk), chunk_bytes(b, chunk));
    }
}

static void push_layers(const bench *b, baton_sender *sender, baton_transfer transfer,
                        const prompt *p, uint32_t chunk)
{
    uint32_t n_layers = b->layout.n_layers;
    size_t bytes = chunk_bytes(b, chunk) / n_layers;
    for (uint32_t layer = n_layers; layer-- > 0;) {
        const baton_source source = {.data = chunk_data(b, p, chunk) + layer * bytes,
                                     .bytes = bytes};
        assert_ok(baton_transfer_push_layers(sender, transfer, chunk, layer, 1, &source));
    }
}

static void begin(bench *b, uint32_t n)
{
    const prompt *p = &b->prompts[n];
    baton_receiver *receiver = b->receivers[n / N_SENDERS % N_RECEIVERS];
    baton_sender *sender = b->senders[n % N_SENDERS];
    uint16_t init_port, alloc_port;
    char name[32];
    snprintf(name, sizeof(name), "request-%u", n);
    baton_receiver_ports(receiver, &init_port, &alloc_port);
    const baton_transfer_options options = {.request = name,
                                            .host = "127.0.0.1",
                                            .init_port = init_port,
                                            .alloc_port = alloc_port,
                                            .keys = p->keys,
                                            .n_chunks = N_CHUNKS,
                                            .last_tokens = N_TOKENS - 3 * CHUNK_TOKENS,
                                            .user_data = n};
    baton_transfer transfer;
    assert_ok(baton_transfer_begin(sender, &options, &transfer));
    for (uint32_t i = 0; i < N_CHUNKS; i++) {
        if (b->how.by_layers)
            push_layers(b, sender, transfer, p, i);
        else
            assert_ok(baton_transfer_push_bytes(sender, transfer, i, chunk_data(b, p, i),
                                                chunk_bytes(b, i)));
    }
    assert_ok(baton_transfer_finish(sender, transfer));
}

static void take_sender_events(bench *b, baton_sender *sender)
{
    baton_sender_event events[8];
    uint32_t n = baton_sender_poll(sender, events, 8);
    for (uint32_t i = 0; i < n; i++) {
        prompt *p = &b->prompts[events[i].user_data];
        assert_false(p->done);
        if (events[i].kind == BATON_SENDER_SOURCE_FREE) {
            p->n_free++;
            continue;
        }
        if (events[i].kind != BATON_SENDER_DONE)
            fail_msg("request %llu failed: %s", (unsigned long long)events[i].user_data,
                     events[i].text);
        assert_int_equal(p->n_free, N_CHUNKS * (b->how.by_layers ? b->layout.n_layers : 1));
        assert_int_equal(events[i].sent_chunks + events[i].present_chunks, N_CHUNKS);
        p->done = true;
        b->n_done++;
    }
}

static void take_receiver_events(bench *b, baton_receiver *receiver)
{
    baton_receiver_event events[8];
    uint32_t n = baton_receiver_poll(receiver, events, 8);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(events[i].kind, BATON_RECEIVER_READY);
        b->n_ready++;
    }
}

/* One turn: progresses what is manual, takes events, else sleeps until there are some. */
static void turn(bench *b)
{
    struct pollfd fds[2 * (N_SENDERS + N_RECEIVERS)];
    nfds_t n = 0;
    uint32_t before = b->n_done + b->n_ready, ms = UINT32_MAX;
    bool manual = b->how.progress == BATON_PROGRESS_MANUAL;
    for (int i = 0; i < N_SENDERS; i++) {
        uint32_t wait = manual ? baton_sender_progress(b->senders[i]) : UINT32_MAX;
        ms = wait < ms ? wait : ms;
        take_sender_events(b, b->senders[i]);
        fds[n++] = (struct pollfd){.fd = baton_sender_event_fd(b->senders[i]), .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = manual ? baton_sender_progress_fd(b->senders[i]) : -1,
                                   .events = POLLIN};
    }
    for (int i = 0; i < N_RECEIVERS; i++) {
        uint32_t wait = manual ? baton_receiver_progress(b->receivers[i]) : UINT32_MAX;
        ms = wait < ms ? wait : ms;
        take_receiver_events(b, b->receivers[i]);
        fds[n++] =
            (struct pollfd){.fd = baton_receiver_event_fd(b->receivers[i]), .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = manual ? baton_receiver_progress_fd(b->receivers[i]) : -1,
                                   .events = POLLIN};
    }
    if (before != b->n_done + b->n_ready)
        return;
    int timeout = ms < HANG_GUARD_MS ? (int)ms : HANG_GUARD_MS;
    if (poll(fds, n, timeout) == 0 && timeout == HANG_GUARD_MS)
        fail_msg("nothing happens: %u of %d done, %u ready", b->n_done, N_REQUESTS, b->n_ready);
}

static void check_landed(bench *b, uint32_t n)
{
    const prompt *p = &b->prompts[n];
    baton_receiver *receiver = b->receivers[n / N_SENDERS % N_RECEIVERS];
    baton_pin *pin;
    uint32_t matched;
    assert_ok(baton_receiver_lookup(receiver, p->tokens, N_TOKENS, &pin, &matched));
    assert_int_equal(matched, N_TOKENS);
    assert_int_equal(baton_pin_chunks(pin), N_CHUNKS);
    for (uint32_t i = 0; i < N_CHUNKS; i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_int_equal(chunk.bytes, chunk_bytes(b, i));
        assert_memory_equal(chunk.page, chunk_data(b, p, i), chunk.bytes);
    }
    assert_ok(baton_receiver_unpin(receiver, pin));
}

static void check_receiver(const bench *b, baton_receiver *receiver)
{
    baton_receiver_stats stats;
    if (b->how.progress == BATON_PROGRESS_MANUAL)
        baton_receiver_progress(receiver); /* runs what the lookups left */
    baton_receiver_get_stats(receiver, &stats);
    assert_int_equal(stats.requests_ready_total, N_REQUESTS / N_RECEIVERS);
    assert_int_equal(stats.messages_dropped_total, 0);
    assert_int_equal(stats.pages_reserved + stats.pages_quarantined + stats.pages_retired, 0);
    assert_int_equal(stats.pages_free + stats.pages_landed, stats.pages_total);
    assert_int_equal(stats.pins_live, 0);
    assert_int_equal(stats.digests_checked_total > 0, !b->how.no_digests);
    assert_int_equal(stats.digests_failed_total, 0);
}

/* The first round connects; the second finds the shared chunk there; all at once in each round. */
static void hand_over_everything(flavour how)
{
    static bench b;
    open_bench(&b, how);
    for (uint32_t n = 0; n < N_REQUESTS; n++)
        make_prompt(&b, n);
    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        uint32_t end = (round + 1) * N_SENDERS * N_RECEIVERS;
        for (uint32_t n = round * N_SENDERS * N_RECEIVERS; n < end; n++)
            begin(&b, n);
        while (b.n_done < end || b.n_ready < end)
            turn(&b);
    }
    for (uint32_t n = 0; n < N_REQUESTS; n++)
        check_landed(&b, n);
    for (int i = 0; i < N_RECEIVERS; i++)
        check_receiver(&b, b.receivers[i]);
    baton_sender_stats stats;
    uint64_t present = 0;
    for (int i = 0; i < N_SENDERS; i++) {
        baton_sender_get_stats(b.senders[i], &stats);
        assert_int_equal(stats.transfers_live, 0);
        assert_int_equal(stats.peers_ready, N_RECEIVERS);
        present += stats.chunks_present_total;
    }
    assert_true(present >= (N_ROUNDS - 1) * N_SENDERS * N_RECEIVERS);
    close_bench(&b);
}

static void over_loop_with_threads(void **state)
{
    (void)state;
    hand_over_everything((flavour){.transport = "loop"});
}

static void over_loop_by_hand(void **state)
{
    (void)state;
    hand_over_everything((flavour){.transport = "loop", .progress = BATON_PROGRESS_MANUAL});
}

static void over_ucx_with_threads(void **state)
{
    (void)state;
    hand_over_everything((flavour){.transport = "ucx"});
}

static void over_ucx_by_hand(void **state)
{
    (void)state;
    hand_over_everything((flavour){.transport = "ucx", .progress = BATON_PROGRESS_MANUAL});
}

static void over_ucx_with_puts_only(void **state)
{
    (void)state;
    hand_over_everything((flavour){.transport = "ucx", .path = BATON_PATH_PUT});
}

static void by_layers_on_every_path(void **state)
{
    (void)state;
    hand_over_everything((flavour){.transport = "loop", .by_layers = true});
    hand_over_everything((flavour){.transport = "ucx", .by_layers = true});
    hand_over_everything((flavour){.transport = "ucx", .path = BATON_PATH_PUT, .by_layers = true});
}

static void over_ucx_with_puts_only_by_hand(void **state)
{
    (void)state;
    hand_over_everything(
        (flavour){.transport = "ucx", .path = BATON_PATH_PUT, .progress = BATON_PROGRESS_MANUAL});
}

/* Chunks of 768 KiB, the last of 240 KiB: with digests whole, without in parts. */
static void by_several_copying_threads_on_every_path(void **state)
{
    (void)state;
    static const baton_path_choice paths[] = {BATON_PATH_AUTO, BATON_PATH_MAPPED,
                                              BATON_PATH_STAGED};
    for (int no_digests = 0; no_digests < 2; no_digests++) {
        for (int p = 0; p < 3; p++)
            hand_over_everything((flavour){.transport = "loop",
                                           .path = paths[p],
                                           .can_map = true,
                                           .no_digests = no_digests != 0,
                                           .copy_threads = 3,
                                           .head_dim = 1536});
        hand_over_everything((flavour){.transport = "ucx",
                                       .progress = BATON_PROGRESS_MANUAL,
                                       .no_digests = no_digests != 0,
                                       .copy_threads = 3,
                                       .head_dim = 1536});
    }
}

/* Senders and receivers go while requests are under way: nothing hangs, nothing leaks. */
static void ends_in_the_middle(void **state)
{
    (void)state;
    static bench b;
    for (int i = 0; i < 4; i++) {
        int receiver_first = i % 2;
        open_bench(&b, i < 2 ? (flavour){.transport = "loop"}
                             : (flavour){.transport = "loop",
                                         .can_map = true,
                                         .copy_threads = 3,
                                         .head_dim = 256});
        if (receiver_first) /* by its word, or by what the transport finds at that moment */
            bt_expect_log("sender: connection ended");
        for (uint32_t n = 0; n < N_REQUESTS; n++)
            make_prompt(&b, n);
        for (uint32_t n = 0; n < N_REQUESTS; n++)
            begin(&b, n);
        if (receiver_first) {
            baton_receiver_destroy(b.receivers[0]);
            b.receivers[0] = NULL;
        }
        close_bench(&b);
    }
}

static void every_failing_allocation_of_a_sender_leaves_nothing(void **state)
{
    (void)state;
    bt_loop_net *net;
    assert_ok(bt_loop_net_create(1, NULL, &net));
    const baton_sender_options options = {.layout = test_layout(),
                                          .copy_threads = 2,
                                          .progress = BATON_PROGRESS_MANUAL,
                                          .data = {.transport = "loop", .loop_net = net}};
    const char *const overrides[] = {"name=x", "data_devices=lo,eth0", "notice=tcp://127.0.0.1:5"};
    baton_status status = BATON_ERR_NO_MEMORY;
    uint64_t nth = 0;
    while (status != BATON_OK) {
        baton_sender *sender = NULL;
        assert_true(++nth < 1000);
        bt_alloc_fail_at(nth);
        status = baton_sender_create_from_file(NULL, &options, overrides, 3, &sender);
        bt_alloc_fail_at(0);
        if (status != BATON_OK)
            assert_int_equal(status, BATON_ERR_NO_MEMORY);
        baton_sender_destroy(sender);
    }
    assert_true(nth > 10);
    bt_loop_net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(over_loop_with_threads),
        bt_test(over_loop_by_hand),
        bt_test(over_ucx_with_threads),
        bt_test(over_ucx_by_hand),
        bt_test(over_ucx_with_puts_only),
        bt_test(over_ucx_with_puts_only_by_hand),
        bt_test(by_layers_on_every_path),
        bt_test(by_several_copying_threads_on_every_path),
        bt_test(ends_in_the_middle),
        bt_test(every_failing_allocation_of_a_sender_leaves_nothing),
    };
    return bt_run_tests(tests);
}
