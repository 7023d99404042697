/* SPDX-License-Identifier: Apache-2.0 */
/* Sixty-four senders with threads of their own before one receiver with eight pages, and leases
 * that end although nobody says a word, while the wall clock of this process jumps at every look:
 * whoever measured a wait with it would end at once, or never. */
#include <baton/receiver.h>
#include <baton/sender.h>

#include "support/test.h"
#include "transport/loop.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    N_SENDERS = 64,
    N_PAGES = 8,
    CHUNK_TOKENS = 16,
    TOKEN_BYTES = 32, /* of the layout below */
    PAGE_BYTES = CHUNK_TOKENS * TOKEN_BYTES,
    N_TOKENS_MAX = N_PAGES * CHUNK_TOKENS,
    HANG_GUARD_MS = 120000,
    N_FDS = 8192,
    YEAR_S = 31536000,
};

/* The wall clock: a year forth, a year back, and so on. These stand before the C library's for all
 * of this process, ZeroMQ included. */

static _Atomic uint64_t n_looks;

static time_t jump(void)
{
    bool is_forth = atomic_fetch_add_explicit(&n_looks, 1, memory_order_relaxed) % 2 == 0;
    return is_forth ? YEAR_S : -YEAR_S;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, out);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec += jump();
    return rc;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int rc = clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return rc;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}

typedef struct {
    baton_sender *sender;
    uint32_t n_tokens, tokens[N_TOKENS_MAX];
    uint8_t data[N_PAGES * PAGE_BYTES];
    bool is_done;
} prefiller;

static bt_loop_net *net;
static baton_receiver *receiver;
static prefiller prefillers[N_SENDERS];

static baton_layout layout(void)
{
    return (baton_layout){.model = "crowd",
                          .dtype = BATON_DTYPE_BF16,
                          .n_layers = 1,
                          .n_planes = 2,
                          .n_kv_heads = 1,
                          .head_dim = 8,
                          .chunk_tokens = CHUNK_TOKENS,
                          .block_tokens = 8,
                          .tp_size = 1,
                          .pp_size = 1};
}

static void open_receiver(uint32_t lease_ms)
{
    assert_ok(bt_loop_net_create(1, NULL, &net));
    bt_loop_set_mapping(net, true, false);
    const baton_receiver_options options = {
        .layout = layout(),
        .digests = BATON_DIGESTS_FULL,
        .pool_bytes = N_PAGES * PAGE_BYTES,
        .admin = "off",
        .data = {.transport = "loop", .loop_net = net},
        .timeouts = {.lease_ms = lease_ms},
    };
    assert_ok(baton_receiver_create(&options, &receiver));
}

static void close_receiver(void)
{
    baton_receiver_destroy(receiver);
    bt_loop_net_destroy(net);
}

/* Opens sender i, and hands over a prompt of its own. */
static void hand_over(uint32_t i, uint32_t n_tokens)
{
    prefiller *p = &prefillers[i];
    const baton_sender_options options = {.layout = layout(),
                                          .digests = BATON_DIGESTS_FULL,
                                          .admin = "off",
                                          .skip_measure = true,
                                          .data = {.transport = "loop", .loop_net = net}};
    *p = (prefiller){.n_tokens = n_tokens};
    assert_ok(baton_sender_create(&options, &p->sender));
    bt_rng rng = {.state = i};
    bt_rng_fill(&rng, p->data, sizeof(p->data));
    for (uint32_t t = 0; t < n_tokens; t++)
        p->tokens[t] = 1000 * (i + 1) + t;
    const baton_layout own = layout();
    baton_key_chain chain;
    baton_key keys[N_PAGES];
    char name[16];
    uint16_t init_port, alloc_port;
    snprintf(name, sizeof(name), "%u", i);
    baton_receiver_ports(receiver, &init_port, &alloc_port);
    baton_transfer_options transfer = {.request = name,
                                       .host = "127.0.0.1",
                                       .init_port = init_port,
                                       .alloc_port = alloc_port,
                                       .keys = keys};
    assert_ok(baton_key_chain_init(&own, 1, 0, NULL, &chain));
    assert_ok(baton_keys_of_tokens(&chain, p->tokens, n_tokens, keys, N_PAGES, &transfer.n_chunks,
                                   &transfer.last_tokens));
    baton_transfer id;
    assert_ok(baton_transfer_begin(p->sender, &transfer, &id));
    for (uint32_t chunk = 0; chunk < transfer.n_chunks; chunk++) {
        bool is_last = chunk + 1 == transfer.n_chunks;
        size_t bytes = (is_last ? transfer.last_tokens : CHUNK_TOKENS) * (size_t)TOKEN_BYTES;
        assert_ok(
            baton_transfer_push_bytes(p->sender, id, chunk, p->data + chunk * PAGE_BYTES, bytes));
    }
    assert_ok(baton_transfer_finish(p->sender, id));
}

/* Decode: whoever is done makes room for the next. */
static void read_back(const prefiller *p)
{
    baton_pin *pin;
    uint32_t matched;
    assert_ok(baton_receiver_lookup(receiver, p->tokens, p->n_tokens, &pin, &matched));
    assert_int_equal(matched, p->n_tokens);
    for (uint32_t i = 0; i < baton_pin_chunks(pin); i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_memory_equal(chunk.page, p->data + i * PAGE_BYTES, chunk.bytes);
    }
    assert_ok(baton_receiver_unpin(receiver, pin));
}

static uint32_t take_events(uint32_t i)
{
    prefiller *p = &prefillers[i];
    baton_sender_event event;
    while (baton_sender_poll(p->sender, &event, 1) == 1) {
        if (event.kind == BATON_SENDER_FAILED)
            fail_msg("sender %u failed: %s", i, event.text);
        if (event.kind != BATON_SENDER_DONE)
            continue;
        assert_false(p->is_done);
        p->is_done = true;
        read_back(p);
    }
    return p->is_done;
}

static void need_fds(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < N_FDS)
        bt_test_skip("64 senders need 8192 descriptors (ulimit -Hn)");
    limit.rlim_cur = limit.rlim_cur < N_FDS ? N_FDS : limit.rlim_cur;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void sixty_four_senders_share_eight_pages(void **state)
{
    (void)state;
    need_fds();
    open_receiver(0);
    for (uint32_t i = 0; i < N_SENDERS; i++)
        hand_over(i, (i % N_PAGES) * CHUNK_TOKENS + 1 + i % CHUNK_TOKENS);
    struct pollfd fds[N_SENDERS];
    for (uint32_t i = 0; i < N_SENDERS; i++)
        fds[i] =
            (struct pollfd){.fd = baton_sender_event_fd(prefillers[i].sender), .events = POLLIN};
    for (uint32_t n_done = 0; n_done < N_SENDERS;) {
        if (poll(fds, N_SENDERS, HANG_GUARD_MS) == 0)
            fail_msg("nothing happens: %u of %d are done", n_done, N_SENDERS);
        n_done = 0;
        for (uint32_t i = 0; i < N_SENDERS; i++)
            n_done += take_events(i);
    }
    baton_receiver_stats stats;
    baton_receiver_get_stats(receiver, &stats);
    assert_int_equal(stats.requests_ready_total, N_SENDERS);
    assert_int_equal(stats.requests_failed_total + stats.tickets_refused_total, 0);
    assert_int_equal(stats.holds_expired_total, 0);
    assert_true(stats.tickets_queued_total > 0);
    for (uint32_t i = 0; i < N_SENDERS; i++)
        baton_sender_destroy(prefillers[i].sender);
    close_receiver();
}

/* The sender has gone, decode does not come, nobody asks anything. */
static void a_lease_ends_without_a_word_from_anybody(void **state)
{
    (void)state;
    open_receiver(100);
    hand_over(0, 3 * CHUNK_TOKENS);
    struct pollfd fd = {.fd = baton_sender_event_fd(prefillers[0].sender), .events = POLLIN};
    do {
        assert_int_equal(poll(&fd, 1, HANG_GUARD_MS), 1);
        baton_sender_event event;
        while (baton_sender_poll(prefillers[0].sender, &event, 1) == 1)
            prefillers[0].is_done |= event.kind == BATON_SENDER_DONE;
    } while (!prefillers[0].is_done);
    baton_sender_destroy(prefillers[0].sender);
    baton_receiver_event event = {0};
    fd.fd = baton_receiver_event_fd(receiver);
    while (event.kind != BATON_RECEIVER_EXPIRED) {
        if (baton_receiver_poll(receiver, &event, 1) == 0)
            assert_int_equal(poll(&fd, 1, HANG_GUARD_MS), 1);
    }
    assert_int_equal(event.status, BATON_ERR_LEASE_EXPIRED);
    close_receiver();
}

static void the_wall_clock_does_jump(void **state)
{
    (void)state;
    time_t first = time(NULL), second = time(NULL);
    assert_true(first > second + YEAR_S || second > first + YEAR_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_wall_clock_does_jump),
        bt_test(a_lease_ends_without_a_word_from_anybody),
        bt_test(sixty_four_senders_share_eight_pages),
    };
    return bt_run_tests(tests);
}
