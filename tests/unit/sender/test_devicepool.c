/* SPDX-License-Identifier: Apache-2.0 */
/* A receiver whose pool is in the memory of a (fake) GPU: when keys become visible, what is flushed
 * and copied before, and until when pages are kept for a GPU that reads them. */
#include "handoffkit.h"

#include "core/alloc.h"
#include "support/fakekernels.h"

#include <sys/wait.h>
#include <unistd.h>

static const fakecuda *gpu;

#define DEVICE .memory = BATON_MEMORY_CUDA_DEVICE
static const pair_options pools[] = {
    {DEVICE, .n_pages = 8, .path = BATON_PATH_PUT},
    {DEVICE, .n_pages = 8, .mapped = true},
    {DEVICE, .n_pages = 8, .path = BATON_PATH_PUT, .n_regions = 3, .digests = BATON_DIGESTS_FULL},
    {DEVICE, .n_pages = 8, .path = BATON_PATH_PUT, .reaches_device = true},
    {DEVICE, .n_pages = 8, .reaches_device = true, .mapped = true, .digests = BATON_DIGESTS_FULL},
    {.memory = BATON_MEMORY_CUDA_HOST, .n_pages = 8, .mapped = true},
    {DEVICE, .n_pages = 8, .reaches_device = true, .mapped = true,
     .digests = BATON_DIGESTS_SAMPLED},
    {.memory = BATON_MEMORY_CUDA_HOST,
     .n_pages = 8,
     .mapped = true,
     .digests = BATON_DIGESTS_SAMPLED},
};
enum {
    N_POOLS = sizeof(pools) / sizeof(pools[0]),
    N_STAGED = 3,
    DIRECT_DIGESTS = 4,
    DIRECT_SAMPLES = 6
};

static void open_pool(const pair_options *options)
{
    gpu = bt_fakecuda_open();
    bt_fakekernels_use(NULL);
    pair_create(&kit, options);
}

/* The GPU has kernels, too. */
static void open_with_kernels(const pair_options *options)
{
    gpu = bt_fakecuda_open();
    bt_fakekernels_use(gpu);
    pair_create(&kit, options);
}

static void nothing_is_left(void)
{
    fakecuda_counts counts;
    gpu->counts(&counts);
    assert_int_equal(counts.pageable_total, 0);
    assert_int_equal(counts.contexts + counts.allocations + counts.pins, 0);
    assert_int_equal(counts.streams + counts.events, 0);
}

static void step_all(void)
{
    while (gpu->step(1) > 0)
        ;
}

static void close_pool(void)
{
    gpu->set_mode(FAKECUDA_AT_ONCE); /* or the receiver would wait for it in vain */
    step_all();
    pair_destroy(&kit);
    nothing_is_left();
}

/* As pair_check, through the GPU's eyes; the pin is the caller's. */
static uint32_t look_up(uint32_t n, baton_pin **pin)
{
    uint32_t matched;
    assert_ok(bt_rx_lookup(kit.rx, tokens, n, pin, &matched));
    for (uint32_t i = 0; *pin != NULL && i < baton_pin_chunks(*pin); i++) {
        uint8_t wanted[PAIR_PAGE_BYTES];
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(*pin, i, &chunk));
        assert_int_equal(pair_chunk(tokens, matched, i, wanted), chunk.bytes);
        assert_int_equal(chunk.memory, kit.rx->options.memory);
        const void *bytes =
            chunk.memory == BATON_MEMORY_CUDA_DEVICE ? gpu->host(chunk.page) : chunk.page;
        assert_memory_equal(bytes, wanted, chunk.bytes);
    }
    return matched;
}

static void check_all(uint32_t n)
{
    baton_pin *pin;
    assert_int_equal(look_up(n, &pin), n);
    assert_ok(bt_rx_unpin(kit.rx, pin));
    pair_run(&kit);
}

static uint32_t visible(uint32_t n)
{
    uint32_t matched = 0;
    assert_ok(bt_rx_peek(kit.rx, tokens, n, &matched));
    return matched;
}

static void every_length_lands_in_every_kind_of_pool(void **state)
{
    (void)state;
    for (size_t p = 0; p < 2 * N_POOLS; p++) {
        bt_rng rng = {p};
        if (p < N_POOLS)
            open_pool(&pools[p]);
        else
            open_with_kernels(&pools[p - N_POOLS]);
        gpu->set_mode(FAKECUDA_HELD);
        for (uint32_t n = 1; n <= 5 * PAIR_CHUNK; n += 2) {
            pair_tokens(n, 0, n, tokens);
            hand_off(0, "r", n);
            for (uint32_t i = 0; kit.n_ready < (n + 1) / 2 && i < 1000; i++) {
                gpu->step((uint32_t)bt_rng_below(&rng, 3));
                pair_advance(&kit, 1);
            }
            check_all(n);
            step_all();
            pair_check_clean(&kit);
        }
        fakecuda_counts counts;
        gpu->counts(&counts);
        assert_int_equal(counts.default_reads_total, 0); /* an engine's streams wait for those */
        if (p == N_POOLS + DIRECT_SAMPLES)               /* of pages whose lines are whole */
            assert_in_range(counts.kernels_total, 1, kit.rx->stats.digests_checked_total - 1);
        else
            assert_int_equal(counts.kernels_total, p == N_POOLS + DIRECT_DIGESTS
                                                       ? kit.rx->stats.digests_checked_total
                                                       : 0);
        close_pool();
    }
}

static void a_key_is_invisible_until_its_bytes_are_on_the_device(void **state)
{
    (void)state;
    for (size_t p = 0; p < N_STAGED; p++) {
        open_pool(&pools[p]);
        kit.n_duplicates = 2;
        gpu->set_mode(FAKECUDA_HELD);
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 3 * PAIR_CHUNK);
        pair_advance(&kit, 3000); /* COMMIT is said again and again meanwhile */
        assert_int_equal(visible(3 * PAIR_CHUNK), 0);
        assert_int_equal(kit.n_ready + kit.senders[0].n_done, 0);
        step_all();
        pair_advance(&kit, 2);
        assert_int_equal(kit.n_ready, 1);
        assert_int_equal(kit.senders[0].n_done, 1);
        check_all(3 * PAIR_CHUNK);
        fakecuda_counts counts;
        gpu->counts(&counts);
        assert_int_equal(counts.copies_total, 3); /* however often COMMIT was said */
        close_pool();
    }
}

static void a_key_is_invisible_until_the_gpu_has_taken_its_digest(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    gpu->set_write_ordering(0, 1);
    bt_fakekernels_use(gpu);
    pair_create(&kit, &pools[DIRECT_DIGESTS]);
    kit.n_duplicates = 2;
    gpu->set_mode(FAKECUDA_HELD);
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 3 * PAIR_CHUNK);
    pair_advance(&kit, 3000);
    assert_int_equal(visible(3 * PAIR_CHUNK), 0);
    assert_int_equal(kit.n_ready + kit.senders[0].n_done, 0);
    fakecuda_counts counts;
    gpu->counts(&counts);
    assert_true(counts.flushes_total > 0); /* what a NIC wrote is what the kernels read */
    step_all();
    pair_advance(&kit, 2);
    assert_int_equal(kit.n_ready, 1);
    assert_int_equal(kit.rx->stats.digests_checked_total, 3);
    check_all(3 * PAIR_CHUNK);
    gpu->counts(&counts);
    assert_int_equal(counts.kernels_total, 3); /* however often COMMIT was said */
    close_pool();
}

static bool lose_commits(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    k->filter_count += message->type == BT_MSG_COMMIT;
    return message->type != BT_MSG_COMMIT;
}

static void a_byte_that_changed_on_the_way_fails_the_transfer(void **state)
{
    (void)state;
    bt_expect_log("digest of chunk 2");
    for (uint32_t how = 0; how < 4; how++) {
        uint32_t has_kernels = how % 2;
        pair_options options = pools[how < 2 ? DIRECT_DIGESTS : DIRECT_SAMPLES];
        options.commit = BATON_COMMIT_SOCKET;
        if (has_kernels != 0)
            open_with_kernels(&options);
        else
            open_pool(&options);
        pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
        kit.filter = lose_commits;
        hand_off(0, "r", 4 * PAIR_CHUNK);
        assert_true(kit.filter_count > 0);
        const bt_tx_chunk *chunk = &kit.senders[0].tx->first->chunks[2];
        const uint8_t *page =
            bt_rx_page_address(kit.rx, (bt_page_ref){.region = chunk->region, .page = chunk->page});
        *(uint8_t *)gpu->host(page + 5) ^= 0x10;
        kit.filter = NULL;
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
        assert_int_equal(kit.rx->stats.digests_failed_total, 1);
        assert_int_equal(kit.n_ready, 0);
        assert_true(visible(4 * PAIR_CHUNK) <= 2 * PAIR_CHUNK);
        pair_check_clean(&kit); /* out of quarantine, now that the sender has drained */
        hand_off(0, "s", 4 * PAIR_CHUNK);
        pair_advance(&kit, 2);
        check_all(4 * PAIR_CHUNK);
        close_pool();
    }
}

static uint32_t n_answers;
static bool count_answers(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)frame;
    n_answers += message->type == BT_MSG_COMMIT_ANSWER;
    return true;
}

static void say_commit(const bt_tx_transfer *transfer, uint64_t id)
{
    const bt_chunk_range all = {.first = 0, .count = 1};
    bt_message commit = {
        .type = BT_MSG_COMMIT,
        .v = BT_PROTOCOL_VERSION,
        .epoch = kit.senders[0].tx->epoch,
        .peer_epoch = kit.rx->epoch,
        .id = id,
        .u.commit = {.name = {.ticket = transfer->ticket,
                              .generation = transfer->generation,
                              .nonce = bt_blob_of(transfer->nonce, BT_NONCE_BYTES)},
                     .ranges = &all,
                     .n_ranges = 1}};
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&commit, &writer));
    bt_rx_handle(kit.rx, BT_RX_ALLOC_PORT, &kit.senders[0].routes[BT_RX_ALLOC_PORT], writer.bytes,
                 writer.n);
    bt_pack_release(&writer);
}

/* One COMMIT of a ticket is under way at a time; what else is said meanwhile is not kept. */
static void commits_that_wait_for_a_gpu_are_bounded(void **state)
{
    (void)state;
    open_pool(&pools[0]);
    gpu->set_mode(FAKECUDA_HELD);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    uint64_t n_dropped = kit.rx->stats.messages_dropped_total;
    n_answers = 0;
    kit.filter = count_answers;
    for (uint64_t id = 0; id < 100; id++)
        say_commit(kit.senders[0].tx->first, 1000 + id);
    step_all();
    pair_advance(&kit, 2);
    assert_int_equal(n_answers, 1);
    assert_int_equal(kit.rx->stats.messages_dropped_total - n_dropped, 100);
    assert_int_equal(kit.senders[0].n_done, 1);
    check_all(PAIR_CHUNK);
    close_pool();
}

/* {ordering, flush options}: flushes before `ready`. */
static void what_a_nic_wrote_is_flushed_before_it_is_visible(void **state)
{
    (void)state;
    static const struct {
        int ordering, options;
        bool is_flushed, is_staged;
    } cases[] = {{0, 1, true, false},
                 {100, 1, false, false},
                 {200, 0, false, false},
                 {0, 0, false, true},
                 {0, 2, false, true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        gpu = bt_fakecuda_open();
        gpu->set_write_ordering(cases[i].ordering, cases[i].options);
        pair_create(&kit, &pools[3]);
        fakecuda_counts counts;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK);
        pair_advance(&kit, 2);
        gpu->counts(&counts);
        check_all(2 * PAIR_CHUNK);
        assert_int_equal(counts.flushes_total > 0, cases[i].is_flushed);
        assert_int_equal(kit.rx->regions[0].memory->kind == BATON_MEMORY_CUDA_HOST,
                         cases[i].is_staged);
        close_pool();
    }
}

static void what_cannot_be_flushed_is_not_served(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    gpu->set_write_ordering(0, 1);
    pair_create(&kit, &pools[3]);
    gpu->fail_call(FAKECUDA_FLUSH, 1, BT_CU_NOT_SUPPORTED);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.n_ready, 0);
    assert_int_equal(visible(PAIR_CHUNK), 0);
    pair_check_clean(&kit);
    close_pool();
}

static void pages_that_change_hands_in_the_middle_of_a_copy_end_right(void **state)
{
    (void)state;
    bt_rng rng = {5};
    open_pool(&(pair_options){DEVICE, .n_pages = 2, .path = BATON_PATH_PUT, .n_senders = 2});
    gpu->set_mode(FAKECUDA_HELD);
    for (uint32_t round = 0; round < 30; round++) {
        pair_tokens(2 * round, 0, 2 * PAIR_CHUNK, tokens);
        baton_transfer first = pair_begin(&kit, 0, "a", tokens, 2 * PAIR_CHUNK, 0);
        pair_push_all(&kit, 0, first, tokens, 2 * PAIR_CHUNK, data[0]);
        pair_run(&kit);
        gpu->step((uint32_t)bt_rng_below(&rng, 3)); /* some of its copies are still to come */
        bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, first);
        pair_run(&kit);
        pair_tokens(2 * round + 1, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(1, "b", 2 * PAIR_CHUNK); /* the same two pages */
        for (uint32_t i = 0; kit.senders[1].n_done <= round && i < 1000; i++) {
            gpu->step(1);
            pair_advance(&kit, 1);
        }
        check_all(2 * PAIR_CHUNK);
    }
    step_all();
    pair_check_clean(&kit);
    close_pool();
}

static void a_gpu_that_fails_serves_nothing_any_more(void **state)
{
    (void)state;
    bt_expect_log("nothing lands any more");
    for (uint32_t n_steps = 0; n_steps < 6; n_steps++) {
        open_pool(&pools[0]);
        gpu->set_mode(FAKECUDA_HELD);
        pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 4 * PAIR_CHUNK);
        gpu->step(n_steps);
        pair_run(&kit);
        gpu->break_context(BT_CU_ILLEGAL_ADDRESS);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_failed + kit.senders[0].n_done, 1);
        assert_int_equal(kit.senders[0].n_done, kit.n_ready);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        hand_off(0, "s", PAIR_CHUNK);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_IO);
        assert_int_equal(visible(PAIR_CHUNK), 0);
        close_pool();
    }
}

/* In a process of its own, which is left with what a hanging GPU cannot give back: its copies into
 * the pool, or a user's that read it. */
static void a_receiver_whose_gpu_hangs_can_still_be_destroyed(void **state)
{
    (void)state;
    for (int is_read = 0; is_read <= 1; is_read++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            bt_expect_log("the pool is left to it");
            open_pool(&pools[0]);
            kit.rx->options.timeouts.put_ms = 1;
            pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
            if (!is_read)
                gpu->set_mode(FAKECUDA_HELD);
            hand_off(0, "r", 3 * PAIR_CHUNK);
            baton_pin *pin = NULL;
            if (is_read) {
                look_up(3 * PAIR_CHUNK, &pin);
                gpu->set_mode(FAKECUDA_HELD);
                assert_ok(bt_rx_unpin_after(kit.rx, pin, NULL));
            }
            fakecuda_counts before, after;
            gpu->counts(&before);
            bt_rx_destroy(kit.rx);
            bt_transport_destroy(kit.rx_transport);
            gpu->counts(&after);
            bool is_left = after.allocations == before.allocations && after.pins == before.pins &&
                           after.streams == before.streams && after.contexts == before.contexts;
            _exit(is_left && before.queued > 0 && after.queued >= before.queued ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

static void a_call_that_fails_once_costs_one_transfer(void **state)
{
    (void)state;
    static const fakecuda_call calls[] = {FAKECUDA_COPY_ASYNC, FAKECUDA_EVENT_CREATE,
                                          FAKECUDA_EVENT_RECORD, FAKECUDA_LAUNCH_HOST,
                                          FAKECUDA_LAUNCH};
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
        for (uint32_t nth = 1; nth <= 3; nth++) {
            open_with_kernels(&pools[calls[c] == FAKECUDA_LAUNCH ? DIRECT_DIGESTS : 0]);
            gpu->fail_call(calls[c], nth, BT_CU_OUT_OF_MEMORY);
            pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
            hand_off(0, "r", 3 * PAIR_CHUNK);
            pair_advance(&kit, 100);
            assert_int_equal(kit.senders[0].n_failed + kit.senders[0].n_done, 1);
            assert_int_equal(kit.senders[0].n_done, kit.n_ready);
            gpu->fail_call(calls[c], 0, 0);
            pair_tokens(2, 0, 3 * PAIR_CHUNK, tokens);
            hand_off(0, "s", 3 * PAIR_CHUNK);
            pair_advance(&kit, 2);
            assert_int_equal(kit.senders[0].end.status, BATON_OK);
            check_all(3 * PAIR_CHUNK);
            close_pool();
        }
    }
}

static void a_pin_lives_until_the_gpu_has_read_it(void **state)
{
    (void)state;
    open_pool(&(pair_options){DEVICE, .n_pages = 1, .path = BATON_PATH_PUT});
    bt_cuda *cuda;
    bt_cu_stream stream;
    baton_pin *pin;
    void *cache;
    assert_ok(bt_cuda_open(&cuda));
    assert_ok(bt_cuda_alloc(cuda, PAIR_PAGE_BYTES, &cache));
    assert_ok(bt_cuda_enter(cuda));
    assert_int_equal(cuda->driver->stream_create(&stream, 0), BT_CU_SUCCESS);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 2);
    gpu->set_mode(FAKECUDA_HELD);
    assert_int_equal(look_up(PAIR_CHUNK, &pin), PAIR_CHUNK);
    baton_pinned_chunk chunk;
    assert_ok(baton_pin_chunk(pin, 0, &chunk));
    cuda->driver->copy_async((uintptr_t)cache, (uintptr_t)chunk.page, chunk.bytes, stream);
    assert_ok(bt_rx_unpin_after(kit.rx, pin, stream));
    uint8_t wanted[PAIR_PAGE_BYTES];
    pair_chunk(tokens, PAIR_CHUNK, 0, wanted);
    uint32_t other[PAIR_CHUNK];
    pair_tokens(2, 0, PAIR_CHUNK, other); /* wants the only page */
    baton_transfer transfer = pair_begin(&kit, 0, "s", other, PAIR_CHUNK, 0);
    pair_push_all(&kit, 0, transfer, other, PAIR_CHUNK, data[1]);
    pair_advance(&kit, 40000); /* far beyond the pin's time limit */
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pins_live, 1);
    assert_int_equal(stats.pins_expired_total, 0);
    assert_int_equal(stats.tickets_queued, 1);
    gpu->step(1);
    assert_memory_equal(gpu->host(cache), wanted, sizeof(wanted));
    step_all();
    pair_advance(&kit, 100);
    step_all();
    pair_advance(&kit, 2);
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pins_live, 0);
    assert_int_equal(kit.senders[0].n_done, 2);
    memcpy(tokens, other, sizeof(other));
    check_all(PAIR_CHUNK);

    assert_int_equal(look_up(PAIR_CHUNK, &pin), PAIR_CHUNK); /* destroy waits for this one */
    cuda->driver->copy_async((uintptr_t)cache, (uintptr_t)chunk.page, chunk.bytes, stream);
    assert_ok(bt_rx_unpin_after(kit.rx, pin, stream));
    gpu->set_mode(FAKECUDA_THREAD);
    pair_destroy(&kit);
    pair_chunk(tokens, PAIR_CHUNK, 0, wanted);
    assert_memory_equal(gpu->host(cache), wanted, sizeof(wanted));
    cuda->driver->stream_destroy(stream);
    bt_cuda_leave(cuda);
    bt_cuda_free(cuda, cache);
    bt_cuda_close(cuda);
    nothing_is_left();
}

static void a_pin_that_ran_out_before_says_so(void **state)
{
    (void)state;
    bt_expect_log("pin expired");
    open_pool(&pools[0]);
    baton_pin *pin;
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 2);
    assert_int_equal(look_up(PAIR_CHUNK, &pin), PAIR_CHUNK);
    gpu->fail_call(FAKECUDA_EVENT_CREATE, 1, BT_CU_OUT_OF_MEMORY);
    assert_fails(bt_rx_unpin_after(kit.rx, pin, NULL), BATON_ERR_NO_MEMORY, "event");
    pair_advance(&kit, 31000);
    assert_fails(bt_rx_unpin_after(kit.rx, pin, NULL), BATON_ERR_LEASE_EXPIRED, NULL);
    pair_check_clean(&kit);
    close_pool();
}

static baton_status create(const baton_receiver_options *options, bt_rx **rx)
{
    const bt_rx_out out = {0};
    return bt_rx_create(options, kit.rx_transport, &out, rx);
}

static void a_pool_that_cannot_be_had_says_why_and_leaves_nothing(void **state)
{
    (void)state;
    for (size_t p = 0; p < 4; p += 3) {
        open_pool(&pools[p]);
        baton_receiver_options options = kit.rx->options;
        static const fakecuda_call calls[] = {FAKECUDA_ALLOC, FAKECUDA_PIN, FAKECUDA_STREAM_CREATE};
        bt_rx *rx = NULL;
        for (size_t c = 0; c < 3; c++) {
            if (p != 0 && calls[c] == FAKECUDA_PIN)
                continue; /* nothing is pinned for direct pools */
            gpu->fail_call(calls[c], 1, BT_CU_OUT_OF_MEMORY);
            assert_fails(create(&options, &rx), BATON_ERR_NO_MEMORY, "out of memory");
        }
        for (uint64_t nth = 1; rx == NULL; nth++) {
            bt_alloc_fail_at(nth);
            baton_status status = create(&options, &rx);
            assert_true(status == BATON_OK || status == BATON_ERR_NO_MEMORY);
        }
        bt_alloc_fail_at(0);
        bt_rx_destroy(rx);
        uint8_t on_host[PAIR_PAGE_BYTES];
        options.pool_base = on_host;
        options.pool_bytes = sizeof(on_host);
        options.n_regions = 1;
        assert_fails(create(&options, &rx), BATON_ERR_INVALID_ARG, "device memory");
        close_pool();
    }
}

static void an_engines_own_device_memory_is_the_pool(void **state)
{
    (void)state;
    for (size_t p = 0; p < 4; p += 3) {
        open_pool(&pools[p]);
        baton_receiver_options options = kit.rx->options;
        bt_cuda *cuda;
        bt_rx *rx;
        assert_ok(bt_cuda_open(&cuda));
        options.pool_bytes = 2 * PAIR_PAGE_BYTES;
        options.n_regions = 1;
        assert_ok(bt_cuda_alloc(cuda, 2 * PAIR_PAGE_BYTES, &options.pool_base));
        assert_ok(create(&options, &rx));
        assert_ptr_equal(rx->regions[0].pages, options.pool_base);
        bt_rx_destroy(rx);
        bt_cuda_free(cuda, options.pool_base); /* still the engine's */
        bt_cuda_close(cuda);
        close_pool();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_length_lands_in_every_kind_of_pool),
        bt_test(a_key_is_invisible_until_its_bytes_are_on_the_device),
        bt_test(a_key_is_invisible_until_the_gpu_has_taken_its_digest),
        bt_test(a_byte_that_changed_on_the_way_fails_the_transfer),
        bt_test(commits_that_wait_for_a_gpu_are_bounded),
        bt_test(what_a_nic_wrote_is_flushed_before_it_is_visible),
        bt_test(what_cannot_be_flushed_is_not_served),
        bt_test(pages_that_change_hands_in_the_middle_of_a_copy_end_right),
        bt_test(a_gpu_that_fails_serves_nothing_any_more),
        bt_test(a_receiver_whose_gpu_hangs_can_still_be_destroyed),
        bt_test(a_call_that_fails_once_costs_one_transfer),
        bt_test(a_pin_lives_until_the_gpu_has_read_it),
        bt_test(a_pin_that_ran_out_before_says_so),
        bt_test(a_pool_that_cannot_be_had_says_why_and_leaves_nothing),
        bt_test(an_engines_own_device_memory_is_the_pool),
    };
    return bt_run_tests(tests);
}
