/* SPDX-License-Identifier: Apache-2.0 */
/* What is particular to the ucx backend: its settings, foreign keys, messages that nobody of ours
 * would send, and running out of memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <baton/log.h>

#include "core/alloc.h"
#include "support/test.h"
#include "transport/loop.h"
#include "transport/seal.h"
#include "transport/ucx_message.h"
#include "transport_suite.h"

enum { REGION_BYTES = 1 << 20 };

static baton_status open_tcp(bt_transport **transport_p)
{
    return bt_transport_create(&(bt_transport_options){.backend = "ucx", .transports = "tcp"},
                               transport_p);
}

static void tcp_that_is_both_off_and_asked_for_is_refused(void **state)
{
    (void)state;
    static const char *const lists[] = {"tcp", "sysv,tcp", "all", "^sysv"};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const bt_transport_options options = {
            .backend = "ucx", .no_tcp = true, .transports = lists[i]};
        bt_transport *transport;
        assert_fails(bt_transport_create(&options, &transport), BATON_ERR_INVALID_ARG, lists[i]);
    }
}

static void more_devices_than_fit_are_refused(void **state)
{
    (void)state;
    char name[700];
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    const char *devices[] = {name, name};
    const bt_transport_options options = {
        .backend = "ucx", .data_devices = devices, .n_data_devices = 2};
    bt_transport *transport;
    assert_fails(bt_transport_create(&options, &transport), BATON_ERR_TOO_LARGE, "data_devices");
}

/* Here or on a machine with RDMA devices: something is chosen, and said. */
static void auto_devices_are_chosen_and_logged(void **state)
{
    (void)state;
    static const char *const device = "auto";
    const bt_transport_options options = {
        .backend = "ucx", .data_devices = &device, .n_data_devices = 1};
    bt_transport *transport;
    assert_ok(bt_transport_create(&options, &transport));
    assert_true(bt_log_seen("data_devices is auto: chose device=") >= 1);
    bt_transport_destroy(transport);
}

static void the_users_environment_wins_and_is_logged(void **state)
{
    (void)state;
    baton_log_set_level(BATON_LOG_INFO);
    setenv("UCX_TCP_TX_SEG_SIZE", "16k", 1);
    bt_transport *transport;
    assert_ok(open_tcp(&transport));
    unsetenv("UCX_TCP_TX_SEG_SIZE");
    assert_int_equal(bt_log_seen("UCX_TCP_TX_SEG_SIZE"), 1);
    assert_int_equal(bt_log_seen("UCX_TCP_RX_SEG_SIZE"), 0);
    bt_transport_destroy(transport);
    baton_log_set_level(BATON_LOG_WARN);
}

/* Seals again what another library version would have sealed. */
static uint8_t *reseal(const void *bytes, size_t n_bytes, bt_seal_kind kind, size_t *n_out)
{
    bt_seal seal = {.kind = kind, .backend = BT_SEAL_UCX};
    bt_ucx_version(&seal.major, &seal.minor);
    assert_ok(bt_seal_open(bytes, n_bytes, &seal));
    seal.minor++;
    uint8_t *resealed;
    assert_ok(bt_seal_pack(&seal, BT_RKEY_BYTES_MAX, &resealed, n_out));
    return resealed;
}

static void addresses_and_keys_of_another_version_or_backend_are_refused(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, open_tcp, REGION_BYTES);
    bt_endpoint *endpoint;
    bt_remote *remote;
    size_t n;
    uint8_t *other = reseal(pair.target->address, pair.target->address_bytes, BT_SEAL_ADDRESS, &n);
    assert_fails(bt_endpoint_connect(pair.writer, other, n, 1, &endpoint),
                 BATON_ERR_VERSION_MISMATCH, "both ends need the same");
    bt_free(other);
    other = reseal(pair.pool->rkey, pair.pool->rkey_bytes, BT_SEAL_KEY, &n);
    assert_fails(bt_remote_import(pair.endpoint, other, n, &remote), BATON_ERR_VERSION_MISMATCH,
                 NULL);
    bt_free(other);

    bt_loop_net *net;
    bt_transport *loop;
    bt_worker *worker;
    assert_ok(bt_loop_net_create(1, NULL, &net));
    const bt_transport_options options = {.backend = "loop", .loop_net = net};
    assert_ok(bt_transport_create(&options, &loop));
    assert_ok(bt_worker_create(loop, &worker));
    assert_fails(
        bt_endpoint_connect(pair.writer, worker->address, worker->address_bytes, 1, &endpoint),
        BATON_ERR_VERSION_MISMATCH, "backend 1");
    bt_worker_destroy(worker);
    bt_transport_destroy(loop);
    bt_loop_net_destroy(net);
    bt_pair_close(&pair);
}

static void ignore_sent(void *request, ucs_status_t status, void *user_data)
{
    (void)status;
    (void)user_data;
    ucp_request_free(request);
}

static void put_u64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof(value)); /* the machines that run tests are little-endian */
}

/* A message as ucx_message.h has it, with any fields. */
static void post_raw(bt_pair *pair, uint8_t header[static 40], uint64_t magic_and_type,
                     const uint64_t values[3], size_t header_bytes, size_t bytes, uint32_t flags)
{
    memset(header, 0, 40);
    put_u64(header, magic_and_type);
    put_u64(header + 8, ((ucx_endpoint *)pair->endpoint)->id);
    for (int i = 0; i < 3; i++)
        put_u64(header + 16 + 8 * i, values[i]);
    const ucp_request_param_t params = {.op_attr_mask =
                                            UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_FLAGS,
                                        .flags = flags,
                                        .cb = {.send = ignore_sent}};
    ucs_status_ptr_t request = ucp_am_send_nbx(((ucx_endpoint *)pair->endpoint)->handle, 0, header,
                                               header_bytes, pair->source->base, bytes, &params);
    assert_false(UCS_PTR_IS_ERR(request));
}

static void send_raw(bt_pair *pair, uint64_t magic_and_type, uint64_t a, uint64_t b,
                     size_t header_bytes, size_t bytes, uint32_t flags)
{
    uint8_t header[40];
    post_raw(pair, header, magic_and_type, (const uint64_t[3]){a, b}, header_bytes, bytes, flags);
    bt_event event;
    for (int i = 0; i < 200; i++) { /* the header must outlive the sending */
        assert_int_equal(bt_worker_progress(pair->writer, &event, 1), 0);
        assert_int_equal(bt_worker_progress(pair->target, &event, 1), 0);
    }
}

static const uint64_t put_type = UINT64_C(0x14d4e5442);
static const uint64_t runs_type = UINT64_C(0x54d4e5442);
static const uint64_t note_type = UINT64_C(0x44d4e5442);
static const uint64_t both_type = UINT64_C(0x64d4e5442);

static void begin_messages(bt_pair *pair)
{
    bt_pair_open(pair, open_tcp, REGION_BYTES);
    bt_pair_fill(pair, 1);
    assert_true(((ucx_endpoint *)pair->endpoint)->uses_messages);
    assert_ok(bt_endpoint_flush(pair->endpoint, 1)); /* connects */
    bt_pair_wait(pair, BT_EVENT_FLUSH, 1);
}

static void assert_pool_is_clear(const bt_pair *pair)
{
    for (size_t i = 0; i < REGION_BYTES; i++)
        assert_int_equal(((uint8_t *)pair->pool->base)[i], 0);
}

static void messages_that_make_no_sense_are_ignored(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    uint64_t base = (uint64_t)(uintptr_t)pair.pool->base;
    send_raw(&pair, put_type ^ 1, base, 64, 40, 64, UCP_AM_SEND_FLAG_EAGER);
    send_raw(&pair, put_type, base, 64, 39, 64, UCP_AM_SEND_FLAG_EAGER);
    send_raw(&pair, put_type, base, 64, 0, 64, UCP_AM_SEND_FLAG_EAGER);
    send_raw(&pair, put_type + (UINT64_C(9) << 32), base, 64, 40, 64, UCP_AM_SEND_FLAG_EAGER);
    send_raw(&pair, put_type + (UINT64_C(1) << 32), 5, 6, 40, 0, UCP_AM_SEND_FLAG_EAGER);
    send_raw(&pair, put_type + (UINT64_C(2) << 32), 5, 6, 40, 0, UCP_AM_SEND_FLAG_EAGER);
    assert_pool_is_clear(&pair);
    bt_run run = bt_pair_run(&pair, 0, 0, 64);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 2);
    assert_ok(bt_endpoint_flush(pair.endpoint, 3));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 3);
    bt_pair_close(&pair);
}

static void a_put_outside_registered_memory_is_refused_and_fails_the_flush(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset, claimed;
    } bad[] = {{REGION_BYTES - 63, 64}, {UINT64_MAX, 64}, {REGION_BYTES, 64}, {0, 63}, {0, 65}};
    bt_expect_log("refused a put outside registered memory");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bt_pair pair;
        begin_messages(&pair);
        send_raw(&pair, put_type, (uint64_t)(uintptr_t)pair.pool->base + bad[i].offset,
                 bad[i].claimed, 40, 64, UCP_AM_SEND_FLAG_EAGER);
        assert_pool_is_clear(&pair);
        assert_ok(bt_endpoint_flush(pair.endpoint, 3));
        bt_event event = bt_pair_next_event(&pair);
        assert_int_equal(event.kind, BT_EVENT_FLUSH);
        assert_int_equal(event.status, BATON_ERR_REFUSED);
        bt_pair_close(&pair);
    }
}

/* The list is the beginning of the data; n_bytes counts what is behind it. A note may follow. */
static void a_hostile_list_writes_nothing_and_is_refused(void **state)
{
    (void)state;
    enum { ENTRY = 24, NOTE = 3 };
    static const struct {
        uint64_t n_entries, claimed;
        size_t bytes;
        int64_t offset, stride;
        uint32_t count, piece;
    } bad[] = {
        {0, 64, 64 + ENTRY, 0, 0, 1, 64},       /* no entry */
        {33, 64, 64 + 33 * ENTRY, 0, 0, 1, 64}, /* too many */
        {UINT64_MAX, 64, 64 + ENTRY, 0, 0, 1, 64},
        {1, 64, ENTRY - 1, 0, 0, 1, 64},  /* no room for the list */
        {1, 63, 64 + ENTRY, 0, 0, 1, 64}, /* other sizes than it says */
        {1, 64, 64 + ENTRY, 0, 0, 1, 63},
        {1, 64, 64 + ENTRY, 0, 0, 1, 65},
        {1, 64, 64 + ENTRY, 0, 0, 0, 64}, /* no pieces, and empty ones */
        {1, 64, 64 + ENTRY, 0, 0, 1, 0},
        {1, 64, 64 + ENTRY, -1, 0, 1, 64}, /* outside: the first, the last */
        {1, 64, 64 + ENTRY, REGION_BYTES - 63, 0, 1, 64},
        {1, 64, 64 + ENTRY, 0, REGION_BYTES, 2, 32},
        {1, 64, 64 + ENTRY, 0, -1, 2, 32},
        {1, 64, 64 + ENTRY, 0, INT64_MAX, 64, 1}, /* the way wraps around */
        {1, 64, 64 + ENTRY, 0, INT64_MIN, 64, 1},
        {1, 64, 64 + ENTRY, 0, 0, UINT32_MAX, 64},
    };
    bt_expect_log("refused a put outside registered memory");
    const size_t n_bad = sizeof(bad) / sizeof(bad[0]);
    for (size_t round = 0; round < 2 * n_bad; round++) {
        size_t i = round % n_bad, note = round < n_bad ? 0 : NOTE;
        bt_pair pair;
        begin_messages(&pair);
        uint8_t *list = pair.source->base;
        put_u64(list, (uint64_t)(uintptr_t)pair.pool->base + (uint64_t)bad[i].offset);
        put_u64(list + 8, (uint64_t)bad[i].stride);
        put_u64(list + 16, bad[i].count | (uint64_t)bad[i].piece << 32);
        send_raw(&pair, note == 0 ? runs_type : both_type, bad[i].n_entries | note << 32,
                 bad[i].claimed, 40, bad[i].bytes + note, UCP_AM_SEND_FLAG_EAGER);
        assert_pool_is_clear(&pair);
        assert_ok(bt_endpoint_flush(pair.endpoint, 3));
        assert_int_equal(bt_pair_next_event(&pair).status, BATON_ERR_REFUSED);
        bt_pair_close(&pair);
    }
}

/* Progresses both ends for a while; the target's last message, kind FAILED when there was none. */
static bt_event progress_for_message(bt_pair *pair, uint32_t *n_messages)
{
    bt_event last = {.kind = BT_EVENT_FAILED};
    *n_messages = 0;
    for (int i = 0; i < 300; i++) {
        bt_event event;
        while (bt_worker_progress(pair->writer, &event, 1) == 1)
            assert_int_equal(event.kind, BT_EVENT_PUT);
        if (bt_worker_progress(pair->target, &event, 1) == 1) {
            last = event;
            *n_messages += 1;
        }
    }
    return last;
}

static void a_note_with_a_put_that_is_no_note_is_refused(void **state)
{
    (void)state;
    enum { LIST = 24, BYTES = 64 };
    static const struct {
        uint64_t type, note;
        const char *log;
    } bad[] = {{both_type, UINT32_MAX, "refused a put outside registered memory"},
               {both_type, LIST + BYTES + 1, "refused a put outside registered memory"},
               {both_type, 0, "refused a message out of order"},
               {runs_type, 1, "refused a put outside registered memory"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bt_pair pair;
        bt_expect_log(bad[i].log);
        begin_messages(&pair);
        uint8_t *list = pair.source->base;
        put_u64(list, (uint64_t)(uintptr_t)pair.pool->base);
        put_u64(list + 8, 0);
        put_u64(list + 16, 1 | (uint64_t)BYTES << 32);
        send_raw(&pair, bad[i].type, 1 | bad[i].note << 32, BYTES, 40, LIST + BYTES,
                 UCP_AM_SEND_FLAG_EAGER);
        assert_ok(bt_endpoint_flush(pair.endpoint, 3));
        assert_int_equal(bt_pair_next_event(&pair).status, BATON_ERR_REFUSED);
        bt_pair_close(&pair);
    }
}

/* A small put waits for the note behind it, but not for long, and not when it is closed. */
static void a_parked_put_leaves_with_the_next_thing(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    const ucx_endpoint *endpoint = (ucx_endpoint *)pair.endpoint;
    bt_run run = bt_pair_run(&pair, 0, 4096, 64);
    uint32_t n;
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1));
    assert_non_null(endpoint->parked);
    assert_int_equal(bt_worker_arm(pair.writer), BATON_ERR_BUSY);
    bt_pair_wait(&pair, BT_EVENT_PUT, 1); /* by progress alone */
    assert_null(endpoint->parked);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2));
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 3));
    assert_ok(bt_endpoint_send(pair.endpoint, "seen", 4));
    assert_null(endpoint->parked);
    assert_int_equal(endpoint->n_messages, 3); /* the note has no number of its own */
    bt_event event = progress_for_message(&pair, &n);
    assert_int_equal(n, 1);
    assert_memory_equal(event.bytes, "seen", 4);
    assert_memory_equal((uint8_t *)pair.pool->base + 4096, pair.source->base, 64);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 4));
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 5);
    event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_PUT);
    assert_int_equal(event.status, BATON_ERR_CANCELED);
    bt_pair_wait(&pair, BT_EVENT_CLOSED, 5);
    pair.endpoint = NULL;
    bt_pair_close(&pair);
}

/* Over several rails a flush may overtake puts. */
static void a_flush_waits_for_messages_that_it_overtook(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    ((ucx_endpoint *)pair.endpoint)->n_messages++; /* one that is still on its way */
    assert_ok(bt_endpoint_flush(pair.endpoint, 4));
    bt_event event;
    for (int i = 0; i < 500; i++) {
        assert_int_equal(bt_worker_progress(pair.writer, &event, 1), 0);
        assert_int_equal(bt_worker_progress(pair.target, &event, 1), 0);
    }
    uint8_t header[40];
    const uint64_t values[3] = {(uint64_t)(uintptr_t)pair.pool->base, 64, 0};
    post_raw(&pair, header, put_type, values, 40, 64, UCP_AM_SEND_FLAG_EAGER);
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 4);
    assert_memory_equal(pair.pool->base, pair.source->base, 64);
    bt_pair_close(&pair);
}

/* Pieces of 32 KiB do not go evenly into messages: they are cut, so that messages are full. */
static void pieces_are_cut_where_messages_end(void **state)
{
    (void)state;
    enum { PIECE = 32 << 10, N = 16, STEP = PIECE + 4096 };
    bt_pair pair;
    begin_messages(&pair);
    bt_run runs[N];
    for (uint32_t i = 0; i < N; i++)
        runs[i] = bt_pair_run(&pair, (N - 1 - i) * STEP, i * STEP, PIECE);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, N, 1));
    assert_int_equal(((ucx_endpoint *)pair.endpoint)->n_messages, 5); /* 6, were they whole */
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    for (uint32_t i = 0; i < N; i++) {
        assert_memory_equal((void *)(uintptr_t)runs[i].remote_addr,
                            (void *)(uintptr_t)runs[i].local_addr, PIECE);
        assert_int_equal(((uint8_t *)(uintptr_t)runs[i].remote_addr)[PIECE], 0);
    }
    bt_pair_close(&pair);
}

/* Newer versions of UCX gather large pieces themselves, which older ones do not survive. */
static void pieces_of_any_length_land(void **state)
{
    (void)state;
    enum { N = 40, ROUNDS = 60, LONG = 40 << 10, SHORT = 3000 };
    bt_pair pair;
    begin_messages(&pair);
    bt_rng rng = {77};
    bt_run runs[N];
    uint8_t *expected = calloc(1, pair.pool->bytes);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        bt_pair_fill(&pair, round);
        memset(expected, 0, pair.pool->bytes);
        uint32_t n_runs = 0;
        for (size_t to = bt_rng_below(&rng, 100); n_runs < N; n_runs++) {
            size_t bytes = 1 + bt_rng_below(&rng, round % 3 == 0 ? SHORT : LONG);
            size_t from = bt_rng_below(&rng, pair.source->bytes - bytes);
            if (to + bytes > pair.pool->bytes)
                break;
            runs[n_runs] = bt_pair_run(&pair, from, to, bytes);
            memcpy(expected + to, (uint8_t *)pair.source->base + from, bytes);
            to += bytes + bt_rng_below(&rng, 2);
        }
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, n_runs, 1));
        assert_ok(bt_endpoint_flush(pair.endpoint, 2));
        bt_pair_wait(&pair, BT_EVENT_PUT, 1);
        bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
        assert_memory_equal(pair.pool->base, expected, pair.pool->bytes);
    }
    free(expected);
    bt_pair_close(&pair);
}

/* Over several lanes later messages may overtake earlier ones, whole bunches of them. */
static void a_note_waits_for_a_put_that_it_and_others_overtook(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    ((ucx_endpoint *)pair.endpoint)->n_messages++; /* number 0 is still on its way */
    bt_run run = bt_pair_run(&pair, 0, 4096, 64);
    uint32_t n;
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1));
    assert_ok(bt_endpoint_send(pair.endpoint, "one", 3));
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2));
    assert_ok(bt_endpoint_send(pair.endpoint, "two", 3));
    progress_for_message(&pair, &n);
    assert_int_equal(n, 0);
    uint8_t header[40];
    const uint64_t values[3] = {(uint64_t)(uintptr_t)pair.pool->base, 64, 0};
    post_raw(&pair, header, put_type, values, 40, 64, UCP_AM_SEND_FLAG_EAGER);
    bt_event event = progress_for_message(&pair, &n);
    assert_int_equal(n, 2);
    assert_memory_equal(event.bytes, "two", 3);
    assert_memory_equal(pair.pool->base, pair.source->base, 64);
    assert_ok(bt_endpoint_flush(pair.endpoint, 4));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 4);
    bt_pair_close(&pair);
}

static void a_note_behind_a_refused_put_fails_the_endpoint(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    bt_expect_log("refused a put outside registered memory");
    send_raw(&pair, put_type, (uint64_t)(uintptr_t)pair.pool->base - 1, 64, 40, 64,
             UCP_AM_SEND_FLAG_EAGER);
    assert_ok(bt_endpoint_send(pair.endpoint, "committed", 9));
    bt_event event = bt_pair_next_event(&pair); /* and the target reports nothing */
    assert_int_equal(event.kind, BT_EVENT_FAILED);
    assert_int_equal(event.status, BATON_ERR_REFUSED);
    assert_fails(bt_endpoint_send(pair.endpoint, "again", 5), BATON_ERR_CLOSED, "refused");
    bt_pair_close(&pair);
}

static void notes_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t number, claimed;
        size_t bytes;
    } bad[] = {{0, 63, 64},       {0, 0, 0},   {4096, 64, 64},     {UINT64_MAX, 64, 64},
               {0, 40000, 40000}, {0, 65, 64}, {0, UINT64_MAX, 64}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bt_pair pair;
        begin_messages(&pair);
        bt_expect_log("refused a message out of order");
        send_raw(&pair, note_type, bad[i].number, bad[i].claimed, 40, bad[i].bytes,
                 UCP_AM_SEND_FLAG_EAGER);
        bt_pair_close(&pair);
    }
}

/* A peer that never sends what its notes wait for must not fill our memory with them. */
static void notes_that_wait_are_bounded(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    bt_expect_log("refused a message out of order, or too many");
    ((ucx_endpoint *)pair.endpoint)->n_messages++;
    uint32_t n_sent = 0;
    bt_event event = {.kind = BT_EVENT_PUT};
    while (event.kind != BT_EVENT_FAILED) {
        if (n_sent <= BT_UCX_NOTE_BYTES_MAX / BT_SEND_BYTES_MAX) {
            n_sent++;
            assert_ok(bt_endpoint_send(pair.endpoint, pair.source->base, BT_SEND_BYTES_MAX));
        }
        bt_worker_progress(pair.writer, &event, 1);
        bt_event unexpected;
        assert_int_equal(bt_worker_progress(pair.target, &unexpected, 1), 0);
    }
    assert_int_equal(event.status, BATON_ERR_REFUSED);
    assert_true(((ucx_worker *)pair.target)->held.n_bytes <= BT_UCX_NOTE_BYTES_MAX);
    bt_pair_close(&pair);
}

static uint32_t count_held(const bt_pair *pair)
{
    uint32_t n = 0;
    for (const ucx_note *note = ((ucx_worker *)pair->target)->held.first; note != NULL;
         note = note->next)
        n++;
    return n;
}

/* However short: each costs memory beside its bytes, and is looked at whenever others land. */
static void short_notes_that_wait_are_bounded(void **state)
{
    (void)state;
    enum { N = 3 * BT_UCX_NOTES_MAX };
    bt_pair pair;
    begin_messages(&pair);
    bt_expect_log("refused a message out of order, or too many");
    uint8_t header[40];
    bt_event event = {.kind = BT_EVENT_PUT};
    for (uint32_t i = 0; i < N && event.kind != BT_EVENT_FAILED; i++) {
        post_raw(&pair, header, note_type, (const uint64_t[3]){1, 1}, 40, 1,
                 UCP_AM_SEND_FLAG_EAGER | UCP_AM_SEND_FLAG_REPLY);
        bt_event unexpected;
        bt_worker_progress(pair.writer, &event, 1);
        assert_int_equal(bt_worker_progress(pair.target, &unexpected, 1), 0);
    }
    for (uint32_t i = 0; i < 1000 && event.kind != BT_EVENT_FAILED; i++) {
        bt_event unexpected;
        bt_worker_progress(pair.writer, &event, 1);
        assert_int_equal(bt_worker_progress(pair.target, &unexpected, 1), 0);
    }
    assert_int_equal(count_held(&pair), BT_UCX_NOTES_MAX);
    assert_int_equal(event.kind, BT_EVENT_FAILED);
    bt_pair_close(&pair);
}

/* A peer that asks and does not read the answers must not fill our memory with them. */
static void answers_that_do_not_leave_are_bounded(void **state)
{
    (void)state;
    bt_pair pair;
    begin_messages(&pair);
    uint32_t *n_answers = &((ucx_worker *)pair.target)->n_answers;
    assert_int_equal(*n_answers, 0);
    *n_answers = BT_UCX_ANSWERS_MAX; /* as if so many were under way */
    assert_ok(bt_endpoint_flush(pair.endpoint, 1));
    bt_event event;
    for (int i = 0; i < 500; i++) {
        assert_int_equal(bt_worker_progress(pair.writer, &event, 1), 0);
        assert_int_equal(bt_worker_progress(pair.target, &event, 1), 0);
    }
    *n_answers = 0;
    uint8_t header[40];
    post_raw(&pair, header, put_type + (UINT64_C(1) << 32), (const uint64_t[3]){1, 0}, 40, 0,
             UCP_AM_SEND_FLAG_EAGER | UCP_AM_SEND_FLAG_REPLY); /* asked again */
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 1);
    assert_int_equal(*n_answers, 0);
    bt_pair_close(&pair);
}

/* VmFlags of the mapping that holds the address, between blanks. */
static void flags_of(const void *address, char flags[256])
{
    char line[512];
    unsigned long long from, to;
    bool is_inside = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    flags[0] = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
            is_inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (is_inside && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, 256, "%.250s", line + 8);
    }
    fclose(file);
}

/* Of the kind that the system gives on request; reserved ones (ht) need no advice. */
static void a_pool_asks_for_huge_pages_and_a_small_region_does_not(void **state)
{
    (void)state;
    if (access("/sys/kernel/mm/transparent_hugepage", F_OK) != 0) {
        print_message("skipped: this kernel has no transparent huge pages\n");
        return;
    }
    static const size_t sizes[] = {8 << 20, 64 << 10};
    for (size_t i = 0; i < 2; i++) {
        bt_transport *transport;
        bt_memory *memory;
        char flags[256];
        assert_ok(bt_transport_create(&(bt_transport_options){.backend = "ucx"}, &transport));
        assert_ok(bt_memory_alloc(transport, sizes[i], BATON_MEMORY_HOST, &memory));
        flags_of((const uint8_t *)memory->base + sizes[i] / 2, flags);
        assert_true(strlen(flags) > 0);
        bool has_huge = strstr(flags, " hg") != NULL || strstr(flags, " ht") != NULL;
        assert_int_equal(has_huge, i == 0);
        bt_memory_free(memory);
        bt_transport_destroy(transport);
    }
}

static void no_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, open_tcp, REGION_BYTES);
    bt_transport *transport;
    bt_worker *worker;
    bt_memory *memory;
    bt_endpoint *endpoint;
    bt_remote *remote;
    bt_alloc_fail_at(1);
    assert_fails(open_tcp(&transport), BATON_ERR_NO_MEMORY, NULL);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_worker_create(pair.transport_a, &worker), BATON_ERR_NO_MEMORY, NULL);
        bt_alloc_fail_at(nth);
        assert_fails(bt_memory_alloc(pair.transport_a, 4096, BATON_MEMORY_HOST, &memory),
                     BATON_ERR_NO_MEMORY, NULL);
    }
    bt_alloc_fail_at(1);
    assert_fails(bt_endpoint_connect(pair.writer, pair.target->address, pair.target->address_bytes,
                                     1, &endpoint),
                 BATON_ERR_NO_MEMORY, NULL);
    bt_alloc_fail_at(1);
    assert_fails(bt_remote_import(pair.endpoint, pair.pool->rkey, pair.pool->rkey_bytes, &remote),
                 BATON_ERR_NO_MEMORY, NULL);
    bt_run run = bt_pair_run(&pair, 0, 0, 64);
    for (uint64_t nth = 1; nth <= 2; nth++) { /* the operations' slab, the messages' slab */
        bt_alloc_fail_at(nth);
        assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2),
                     BATON_ERR_NO_MEMORY, NULL);
    }
    bt_alloc_fail_at(1);
    assert_fails(bt_endpoint_flush(pair.endpoint, 3), BATON_ERR_NO_MEMORY, NULL);
    for (uint64_t nth = 1; nth <= 2; nth++) { /* the note, the messages' slab */
        bt_alloc_fail_at(nth);
        assert_fails(bt_endpoint_send(pair.endpoint, "x", 1), BATON_ERR_NO_MEMORY, NULL);
    }
    bt_alloc_fail_at(0);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 4));
    bt_pair_wait(&pair, BT_EVENT_PUT, 4);
    bt_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(tcp_that_is_both_off_and_asked_for_is_refused),
        bt_test(more_devices_than_fit_are_refused),
        bt_test(auto_devices_are_chosen_and_logged),
        bt_test(the_users_environment_wins_and_is_logged),
        bt_test(addresses_and_keys_of_another_version_or_backend_are_refused),
        bt_test(messages_that_make_no_sense_are_ignored),
        bt_test(a_put_outside_registered_memory_is_refused_and_fails_the_flush),
        bt_test(pieces_are_cut_where_messages_end),
        bt_test(pieces_of_any_length_land),
        bt_test(a_flush_waits_for_messages_that_it_overtook),
        bt_test(a_hostile_list_writes_nothing_and_is_refused),
        bt_test(a_note_with_a_put_that_is_no_note_is_refused),
        bt_test(a_parked_put_leaves_with_the_next_thing),
        bt_test(a_note_waits_for_a_put_that_it_and_others_overtook),
        bt_test(a_note_behind_a_refused_put_fails_the_endpoint),
        bt_test(notes_that_make_no_sense_are_refused),
        bt_test(notes_that_wait_are_bounded),
        bt_test(short_notes_that_wait_are_bounded),
        bt_test(answers_that_do_not_leave_are_bounded),
        bt_test(a_pool_asks_for_huge_pages_and_a_small_region_does_not),
        bt_test(no_memory_is_an_error_and_leaks_nothing),
    };
    return bt_run_tests(tests);
}
