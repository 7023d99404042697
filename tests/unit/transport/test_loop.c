/* SPDX-License-Identifier: Apache-2.0 */
/* What the loop transport's faults do, under a manual clock. */
#include "transport/loop.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "support/test.h"
#include "transport_suite.h"

enum { REGION_BYTES = 64 * 1024, PAGE = 4096 };

static bt_loop_net *net;
static bt_manual_clock manual;
static bt_clock test_clock;
static bt_pair pair;

static baton_status open_loop(bt_transport **transport_p)
{
    const bt_transport_options options = {.backend = "loop", .loop_net = net};
    return bt_transport_create(&options, transport_p);
}

/* A net with a standing clock and a pair on it, whose link is number 0. */
static void begin(const bt_loop_faults *faults)
{
    manual.now_ns = 1000;
    test_clock = bt_manual_clock_ops(&manual);
    assert_ok(bt_loop_net_create(42, &test_clock, &net));
    bt_pair_open(&pair, open_loop, REGION_BYTES);
    bt_pair_fill(&pair, 1);
    assert_ok(bt_loop_set_faults(net, 0, faults));
}

static void end(void)
{
    bt_pair_close(&pair);
    bt_loop_net_destroy(net);
}

static void post(size_t offset, size_t bytes, uint64_t user_data)
{
    bt_run run = bt_pair_run(&pair, offset, offset, bytes);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, user_data));
}

static bool landed(size_t offset, size_t bytes)
{
    return memcmp((uint8_t *)pair.pool->base + offset, (uint8_t *)pair.source->base + offset,
                  bytes) == 0;
}

static void assert_no_event(void)
{
    bt_event event;
    assert_int_equal(bt_worker_progress(pair.writer, &event, 1), 0);
    assert_int_equal(bt_worker_progress(pair.target, &event, 1), 0);
}

static void a_delayed_put_is_reported_before_it_arrives(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.delay_ns = 500});
    post(0, PAGE, 1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    assert_false(landed(0, PAGE));
    assert_int_equal(bt_loop_next_due_ns(net), 1500);
    manual.now_ns = 1499;
    assert_no_event();
    assert_false(landed(0, PAGE));
    manual.now_ns = 1500;
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_true(landed(0, PAGE));
    assert_int_equal(bt_loop_next_due_ns(net), BT_NEVER_NS);
    end();
}

static void source_bytes_are_read_until_the_put_is_reported(void **state)
{
    (void)state;
    begin(NULL);
    post(0, PAGE, 1);
    memset(pair.source->base, 0xcc, PAGE); /* too early */
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    assert_int_equal(((uint8_t *)pair.pool->base)[100], 0xcc);
    end();
}

static void a_flush_behind_a_dropped_put_never_ends(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.drop_nth_put = 2});
    post(0, PAGE, 1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    post(PAGE, PAGE, 3);
    post(2 * PAGE, PAGE, 4);
    assert_ok(bt_endpoint_flush(pair.endpoint, 5));
    bt_pair_wait(&pair, BT_EVENT_PUT, 3);
    bt_pair_wait(&pair, BT_EVENT_PUT, 4);
    manual.now_ns += 1000 * BT_NS_PER_S;
    assert_no_event();
    assert_false(landed(PAGE, PAGE));
    assert_true(landed(2 * PAGE, PAGE));
    bt_loop_stats stats;
    bt_loop_get_stats(net, &stats);
    assert_int_equal(stats.runs_lost_total, 1);
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 6);
    pair.endpoint = NULL;
    bt_event event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_FLUSH);
    assert_int_equal(event.status, BATON_ERR_CANCELED);
    bt_pair_wait(&pair, BT_EVENT_CLOSED, 6);
    end();
}

static void duplicates_write_again_later(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.duplicate_percent = 100, .duplicate_delay_ns = 100});
    post(0, PAGE, 1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_true(landed(0, PAGE));
    memset(pair.pool->base, 0, PAGE);
    manual.now_ns += 99;
    bt_loop_deliver(net);
    assert_false(landed(0, PAGE));
    manual.now_ns += 1;
    bt_loop_deliver(net);
    assert_true(landed(0, PAGE));
    end();
}

/* Two puts to the same bytes: whichever arrives last stays. */
static void reordered_puts_arrive_in_another_order_but_before_the_flush(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.reorder = true});
    uint32_t n_swapped = 0;
    for (uint32_t round = 0; round < 64; round++) {
        bt_run runs[2] = {bt_pair_run(&pair, 0, 0, PAGE), bt_pair_run(&pair, PAGE, 0, PAGE)};
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, 2, 1));
        assert_ok(bt_endpoint_flush(pair.endpoint, 2));
        bt_pair_wait(&pair, BT_EVENT_PUT, 1);
        bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
        n_swapped += landed(0, PAGE);
    }
    assert_true(n_swapped > 10 && n_swapped < 54);
    end();
}

static bt_event message_now(void)
{
    bt_event event;
    while (bt_worker_progress(pair.writer, &event, 1) == 1)
        assert_int_equal(event.kind, BT_EVENT_PUT);
    if (bt_worker_progress(pair.target, &event, 1) == 0)
        event = (bt_event){.kind = BT_EVENT_FAILED};
    return event;
}

static void a_message_stays_behind_delayed_and_reordered_puts(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        begin(&(bt_loop_faults){.delay_ns = 100, .jitter_ns = 1000, .reorder = true});
        for (uint32_t i = 0; i < 8; i++)
            post(i * PAGE, PAGE, i);
        /* The message itself is not delayed, so it is there before the puts are. */
        assert_ok(bt_loop_set_faults(net, 0, NULL));
        assert_ok(bt_endpoint_send(pair.endpoint, "all 8", 5));
        bt_event event;
        while ((event = message_now()).kind != BT_EVENT_MESSAGE)
            manual.now_ns += 10;
        assert_memory_equal(event.bytes, "all 8", 5);
        assert_true(manual.now_ns >= 1100);
        assert_true(landed(0, 8 * PAGE));
        end();
    }
}

static void a_message_behind_a_lost_or_failed_put_is_never_told(void **state)
{
    (void)state;
    static const bt_loop_faults faults[] = {{.drop_nth_put = 1}, {.fail_nth_put = 1}};
    for (size_t i = 0; i < 2; i++) {
        begin(&faults[i]);
        post(0, PAGE, 1);
        assert_ok(bt_endpoint_send(pair.endpoint, "x", 1));
        manual.now_ns += 1000 * BT_NS_PER_S;
        assert_int_equal(message_now().kind, BT_EVENT_FAILED);
        end();
    }
}

static void messages_are_dropped_and_repeated_as_ordered(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.drop_percent = 100});
    assert_ok(bt_endpoint_send(pair.endpoint, "lost", 4));
    assert_ok(bt_loop_set_faults(net, 0, &(bt_loop_faults){.duplicate_percent = 100}));
    assert_ok(bt_endpoint_send(pair.endpoint, "twice", 5));
    for (uint32_t i = 0; i < 2; i++) {
        bt_event event = message_now();
        assert_int_equal(event.kind, BT_EVENT_MESSAGE);
        assert_memory_equal(event.bytes, "twice", 5);
    }
    assert_no_event();
    bt_loop_stats stats;
    bt_loop_get_stats(net, &stats);
    assert_int_equal(stats.messages_lost_total, 1);
    end();
}

static void a_message_dies_with_the_targets_worker(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.delay_ns = 500});
    assert_ok(bt_endpoint_send(pair.endpoint, "late", 4));
    bt_worker_destroy(pair.target);
    assert_ok(bt_worker_create(pair.transport_b, &pair.target));
    manual.now_ns += 500;
    bt_event event;
    assert_int_equal(bt_worker_progress(pair.target, &event, 1), 0);
    assert_int_equal(bt_pair_next_event(&pair).kind, BT_EVENT_FAILED);
    end();
}

static void the_nth_put_fails_and_others_do_not(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.fail_nth_put = 2, .fail_status = BATON_ERR_IO});
    for (uint64_t i = 0; i < 3; i++)
        post(i * PAGE, PAGE, i);
    for (uint64_t i = 0; i < 3; i++) {
        bt_event event = bt_pair_next_event(&pair);
        assert_int_equal(event.user_data, i);
        assert_int_equal(event.status, i == 1 ? BATON_ERR_IO : BATON_OK);
        assert_int_equal(event.text[0] != '\0', i == 1);
        assert_int_equal(landed(i * PAGE, PAGE), i != 1);
    }
    end();
}

static void puts_fail_from_the_nth_on_in_the_call(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.fail_from_put = 2, .fail_in_call = true});
    post(0, PAGE, 1);
    bt_run run = bt_pair_run(&pair, 0, 0, PAGE);
    for (uint32_t i = 0; i < 2; i++)
        assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2),
                     BATON_ERR_TRANSPORT, "ordered");
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    assert_no_event();
    assert_ok(bt_loop_set_faults(net, BT_LOOP_ALL_LINKS, NULL));
    post(0, PAGE, 3);
    bt_pair_wait(&pair, BT_EVENT_PUT, 3);
    end();
}

static void a_cut_link_fails_once_and_bytes_in_flight_still_land(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.delay_ns = 100});
    post(0, PAGE, 1);
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_loop_cut(net, 0);
    bt_loop_cut(net, BT_LOOP_ALL_LINKS);
    bt_event event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_FAILED);
    assert_int_equal(event.user_data, 77);
    assert_int_equal(event.status, BATON_ERR_UNREACHABLE);
    event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_FLUSH);
    assert_int_equal(event.status, BATON_ERR_UNREACHABLE);
    assert_fails(bt_endpoint_flush(pair.endpoint, 3), BATON_ERR_CLOSED, NULL);
    assert_false(landed(0, PAGE));
    manual.now_ns += 100;
    assert_no_event();
    assert_true(landed(0, PAGE));
    end();
}

static void a_stuck_writer_writes_after_its_endpoint_is_gone(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.stuck = true});
    post(0, PAGE, 1);
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 2);
    pair.endpoint = NULL;
    bt_pair_wait(&pair, BT_EVENT_CLOSED, 2);
    bt_worker_destroy(pair.writer);
    pair.writer = NULL;
    manual.now_ns += 1000 * BT_NS_PER_S;
    bt_loop_deliver(net);
    assert_false(landed(0, PAGE));
    bt_loop_release(net, 0);
    bt_loop_deliver(net);
    assert_true(landed(0, PAGE));
    end();
}

static void a_transport_that_hangs_reads_and_ends_nothing_until_it_goes_on(void **state)
{
    (void)state;
    for (int is_cut = 0; is_cut < 2; is_cut++) {
        begin(&(bt_loop_faults){.hangs = true});
        post(0, PAGE, 1);
        assert_no_event();
        assert_ok(bt_worker_arm(pair.writer)); /* nothing to do for its owner */
        bt_remote_release(pair.remote);
        pair.remote = NULL;
        bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 2);
        pair.endpoint = NULL;
        assert_no_event();
        if (is_cut)
            bt_loop_cut(net, 0);
        else
            assert_ok(bt_loop_set_faults(net, 0, NULL));
        bt_event event = bt_pair_next_event(&pair);
        assert_int_equal(event.kind, BT_EVENT_PUT);
        assert_true(event.status < 0);
        bt_pair_wait(&pair, BT_EVENT_CLOSED, 2);
        assert_false(landed(0, PAGE));
        end();
    }
}

/* The proof that invariant 1 rests on. */
static void a_late_put_does_not_land_after_the_targets_worker_is_destroyed(void **state)
{
    (void)state;
    for (int is_mapped = 0; is_mapped < 2; is_mapped++) {
        begin(&(bt_loop_faults){.stuck = true});
        bt_loop_set_mapping(net, true, is_mapped != 0);
        post(0, PAGE, 1);
        bt_pair_wait(&pair, BT_EVENT_PUT, 1);
        bt_path path;
        bt_endpoint_path(pair.endpoint, &path);
        assert_int_equal(path.puts_are_mapped, is_mapped);
        bt_worker_destroy(pair.target);
        pair.target = NULL;
        bt_event event = bt_pair_next_event(&pair);
        assert_int_equal(event.kind, BT_EVENT_FAILED);
        bt_loop_release(net, BT_LOOP_ALL_LINKS);
        bt_loop_deliver(net);
        assert_int_equal(landed(0, PAGE), is_mapped); /* through a mapping: no proof */
        bt_loop_stats stats;
        bt_loop_get_stats(net, &stats);
        assert_int_equal(stats.runs_dropped_total, !is_mapped);
        assert_int_equal(stats.n_in_flight, 0);
        end();
    }
}

static void a_put_to_freed_memory_is_counted_and_fails_the_endpoint(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.delay_ns = 10});
    post(0, PAGE, 1);
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_memory_free(pair.pool);
    pair.pool = NULL;
    manual.now_ns += 10;
    bt_event event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_FAILED);
    bt_loop_stats stats;
    bt_loop_get_stats(net, &stats);
    assert_int_equal(stats.runs_to_freed_memory_total, 1);
    end();
}

static void an_unreachable_net_fails_new_endpoints(void **state)
{
    (void)state;
    begin(NULL);
    assert_ok(bt_loop_set_faults(net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.unreachable = true}));
    bt_endpoint *endpoint;
    assert_ok(bt_endpoint_connect(pair.writer, pair.target->address, pair.target->address_bytes, 5,
                                  &endpoint));
    bt_event event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_FAILED);
    assert_int_equal(event.user_data, 5);
    bt_endpoint_close(endpoint, BT_CLOSE_FLUSH, 6);
    event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_CLOSED);
    assert_int_equal(event.status, BATON_ERR_UNREACHABLE); /* nothing could be flushed */
    bt_run run = bt_pair_run(&pair, 0, 0, PAGE);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 7));
    bt_pair_wait(&pair, BT_EVENT_PUT, 7);
    assert_fails(bt_loop_set_faults(net, 2, NULL), BATON_ERR_OUT_OF_RANGE, "2 links");
    end();
}

static void mapping_can_be_forbidden(void **state)
{
    (void)state;
    begin(NULL);
    void *local;
    uint64_t addr = (uint64_t)(uintptr_t)pair.pool->base;
    assert_fails(bt_remote_map(pair.remote, addr, &local), BATON_ERR_UNREACHABLE, "mapped");
    bt_loop_set_mapping(net, true, false);
    assert_ok(bt_remote_map(pair.remote, addr, &local));
    assert_ptr_equal(local, pair.pool->base);
    end();
}

static void the_same_seed_gives_the_same_faults(void **state)
{
    (void)state;
    uint64_t masks[2] = {0};
    for (int round = 0; round < 2; round++) {
        begin(&(bt_loop_faults){.drop_percent = 50});
        for (uint32_t i = 0; i < 16; i++) {
            post(i * PAGE, PAGE, i);
            bt_pair_wait(&pair, BT_EVENT_PUT, i);
            masks[round] |= (uint64_t)landed(i * PAGE, PAGE) << i;
        }
        end();
    }
    assert_int_equal(masks[0], masks[1]);
    assert_true(masks[0] != 0 && masks[0] != 0xffff);
}

static void no_memory_is_an_error_and_posts_nothing(void **state)
{
    (void)state;
    begin(NULL);
    bt_run runs[2] = {bt_pair_run(&pair, 0, 0, PAGE), bt_pair_run(&pair, PAGE, PAGE, PAGE)};
    for (uint64_t nth = 1; nth <= 3; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, 2, 1),
                     BATON_ERR_NO_MEMORY, NULL);
    }
    bt_worker *worker;
    bt_memory *memory;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_worker_create(pair.transport_a, &worker), BATON_ERR_NO_MEMORY, NULL);
        bt_alloc_fail_at(nth);
        assert_fails(bt_memory_alloc(pair.transport_a, PAGE, BATON_MEMORY_HOST, &memory),
                     BATON_ERR_NO_MEMORY, NULL);
    }
    bt_endpoint *endpoint;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_endpoint_connect(pair.writer, pair.target->address,
                                         pair.target->address_bytes, 5, &endpoint),
                     BATON_ERR_NO_MEMORY, NULL);
    }
    bt_alloc_fail_at(0);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_false(landed(0, PAGE));
    end();
}

static void no_memory_and_unknown_backends_are_refused(void **state)
{
    (void)state;
    begin(NULL);
    bt_memory *memory;
    assert_fails(bt_memory_alloc(pair.transport_a, 0, BATON_MEMORY_HOST, &memory),
                 BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_memory_register(pair.transport_a, NULL, 5, BATON_MEMORY_HOST, &memory),
                 BATON_ERR_INVALID_ARG, NULL);
    bt_transport *transport;
    assert_fails(bt_transport_create(&(bt_transport_options){.backend = "pigeon"}, &transport),
                 BATON_ERR_INVALID_ARG, "pigeon");
    assert_fails(bt_transport_create(&(bt_transport_options){.backend = "loop"}, &transport),
                 BATON_ERR_INVALID_ARG, "loop_net");
    end();
}

static void what_is_open_is_counted(void **state)
{
    (void)state;
    bt_transport_counts before = bt_transport_live();
    begin(NULL); /* a pool and a source, a worker at either end, a key of the pool */
    bt_memory *memory;
    assert_fails(bt_memory_alloc(pair.transport_a, 0, BATON_MEMORY_HOST, &memory),
                 BATON_ERR_INVALID_ARG, NULL);
    bt_transport_counts open = bt_transport_live();
    assert_int_equal(open.workers - before.workers, 2);
    assert_int_equal(open.memories - before.memories, 2);
    assert_int_equal(open.remotes - before.remotes, 1);
    end();
    bt_transport_counts after = bt_transport_live();
    assert_memory_equal(&after, &before, sizeof(after));
}

/* One side of a conversation between two threads, each the owner of its worker. */
typedef struct {
    bt_worker *worker;
    atomic_bool *is_done;
} bt_target_thread;

static void *target_main(void *arg)
{
    bt_target_thread *target = arg;
    while (!atomic_load_explicit(target->is_done, memory_order_acquire)) {
        bt_event event;
        bt_worker_progress(target->worker, &event, 1);
        if (bt_worker_arm(target->worker) == BATON_ERR_BUSY)
            continue;
        struct pollfd fd = {.fd = bt_worker_fd(target->worker), .events = POLLIN};
        poll(&fd, 1, 10);
    }
    return NULL;
}

static void both_ends_may_live_in_threads_of_their_own(void **state)
{
    (void)state;
    assert_ok(bt_loop_net_create(42, NULL, &net)); /* real time: the fds must wake the threads */
    bt_pair_open(&pair, open_loop, REGION_BYTES);
    bt_pair_fill(&pair, 3);
    assert_ok(bt_loop_set_faults(
        net, 0, &(bt_loop_faults){.delay_ns = 100000, .jitter_ns = 100000, .reorder = true}));
    atomic_bool is_done = false;
    bt_target_thread target = {pair.target, &is_done};
    pair.target = NULL;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, target_main, &target), 0);
    for (uint64_t round = 0; round < 200; round++) {
        post(round % 8 * PAGE, PAGE, round);
        assert_ok(bt_endpoint_flush(pair.endpoint, round));
        bt_pair_wait(&pair, BT_EVENT_PUT, round);
        bt_pair_wait(&pair, BT_EVENT_FLUSH, round);
    }
    atomic_store_explicit(&is_done, true, memory_order_release);
    pthread_join(thread, NULL);
    pair.target = target.worker;
    assert_true(landed(0, 8 * PAGE));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_delayed_put_is_reported_before_it_arrives),
        bt_test(source_bytes_are_read_until_the_put_is_reported),
        bt_test(a_flush_behind_a_dropped_put_never_ends),
        bt_test(duplicates_write_again_later),
        bt_test(reordered_puts_arrive_in_another_order_but_before_the_flush),
        bt_test(a_message_stays_behind_delayed_and_reordered_puts),
        bt_test(a_message_behind_a_lost_or_failed_put_is_never_told),
        bt_test(messages_are_dropped_and_repeated_as_ordered),
        bt_test(a_message_dies_with_the_targets_worker),
        bt_test(the_nth_put_fails_and_others_do_not),
        bt_test(puts_fail_from_the_nth_on_in_the_call),
        bt_test(a_cut_link_fails_once_and_bytes_in_flight_still_land),
        bt_test(a_stuck_writer_writes_after_its_endpoint_is_gone),
        bt_test(a_transport_that_hangs_reads_and_ends_nothing_until_it_goes_on),
        bt_test(a_late_put_does_not_land_after_the_targets_worker_is_destroyed),
        bt_test(a_put_to_freed_memory_is_counted_and_fails_the_endpoint),
        bt_test(an_unreachable_net_fails_new_endpoints),
        bt_test(mapping_can_be_forbidden),
        bt_test(the_same_seed_gives_the_same_faults),
        bt_test(no_memory_is_an_error_and_posts_nothing),
        bt_test(no_memory_and_unknown_backends_are_refused),
        bt_test(what_is_open_is_counted),
        bt_test(both_ends_may_live_in_threads_of_their_own),
    };
    return bt_run_tests(tests);
}
