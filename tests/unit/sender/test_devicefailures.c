/* SPDX-License-Identifier: Apache-2.0 */
/* A sender whose (fake) GPU is slow, hangs, fails or lacks something, and transfers that are
 * canceled while it works: each ends once, and nothing that the GPU may still touch is free. */
#include "deviceengine.h"

#include <sys/wait.h>
#include <unistd.h>

static void cancel_waits_for_a_copy_in_flight_but_not_for_an_event(void **state)
{
    (void)state;
    for (size_t p = 0; p < 3; p++) {
        open_engine(&paths[p]);
        pair_sender *sender = &kit.senders[0];
        pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
        baton_transfer transfer = start("r", 4 * PAIR_CHUNK);
        gpu->set_mode(FAKECUDA_HELD); /* computed; two gathers start, two chunks wait for pages */
        pair_run(&kit);
        assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
        pair_advance(&kit, 100);
        assert_int_equal(sender->n_source_free + sender->n_failed, 0);
        while (gpu->step(1) > 0)
            ;
        pair_advance(&kit, 2);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, BATON_ERR_CANCELED);
        assert_int_equal(sender->n_source_free, 4);
        pair_check_clean(&kit);

        pair_tokens(2, 0, PAIR_CHUNK, tokens); /* never computed: only the event is waited for */
        transfer = start("s", PAIR_CHUNK);
        pair_advance(&kit, 10);
        assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
        pair_run(&kit);
        assert_int_equal(sender->n_failed, 2);
        assert_int_equal(sender->n_source_free, 5);
        pair_check_clean(&kit);
        close_engine();
    }
}

static bool count_drained(pair *k, const pair_frame *frame, const bt_message *message)
{
    k->filter_count +=
        frame->to_receiver && message->type == BT_MSG_CANCEL && message->u.end.drained != 0;
    return true;
}

/* Given up: the transfer ends, the source is not free, and the page is not used again. */
static void a_copy_that_never_ends_is_given_up(void **state)
{
    (void)state;
    bt_expect_log("has not ended in 10000 ms");
    for (uint32_t is_canceled = 0; is_canceled < 2; is_canceled++) {
        open_engine(&paths[1]); /* of 2 pages */
        pair_sender *sender = &kit.senders[0];
        kit.filter = count_drained;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        baton_transfer transfer = start("r", 2 * PAIR_CHUNK);
        gpu->set_mode(FAKECUDA_HELD);
        pair_advance(&kit, 1000);
        if (is_canceled)
            assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
        pair_advance(&kit, 8500);
        assert_int_equal(sender->n_failed + sender->n_source_free, 0);
        pair_advance(&kit, 1500);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, BATON_ERR_GPU_TIMEOUT);
        assert_non_null(strstr(sender->end.text, "has not ended in 10000 ms"));
        assert_int_equal(strstr(sender->end.text, "canceled") != NULL, is_canceled);
        assert_int_equal(sender->n_source_free, 0);
        /* The receiver's pages were out of the GPU's reach: they come back. */
        assert_int_equal(kit.filter_count, 1);
        pair_check_clean(&kit);

        gpu->set_mode(FAKECUDA_HELD);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        start("s", PAIR_CHUNK); /* finds no page of ours */
        pair_advance(&kit, 100);
        assert_int_equal(sender->n_done, 0);
        step_all(); /* the GPU is back */
        pair_advance(&kit, 200);
        assert_int_equal(sender->n_source_free, 2);
        assert_int_equal(sender->events[sender->n_events - 1].kind, BATON_SENDER_SOURCE_FREE);
        assert_int_equal(sender->events[sender->n_events - 1].transfer, transfer);
        step_all();
        pair_advance(&kit, 5);
        step_all();
        pair_advance(&kit, 5);
        assert_int_equal(sender->n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        close_engine();
    }
}

/* In a process of its own, which leaves to the GPU what the GPU may still write. is_young: nobody
 * has given the copies up yet. */
static void destroy_while_the_gpu_hangs(bool is_young)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bt_expect_log("");
        open_engine(&paths[1]);
        fakecuda_counts before, after;
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        start("r", PAIR_CHUNK);
        gpu->set_mode(FAKECUDA_HELD);
        kit.senders[0].tx->options.timeouts.put_ms = is_young ? 50 : 10000;
        pair_advance(&kit, is_young ? 0 : 11000);
        gpu->counts(&before);
        bool is_failed = kit.senders[0].n_failed == !is_young;
        bt_transport *transport = kit.senders[0].tx->transport;
        bt_tx_destroy(kit.senders[0].tx);
        bt_transport_destroy(transport);
        gpu->counts(&after);
        bool is_left = after.allocations == before.allocations && after.pins == before.pins &&
                       after.streams == before.streams && after.contexts == before.contexts;
        _exit(is_failed && is_left && after.queued == before.queued ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void a_sender_whose_gpu_hangs_can_still_be_destroyed(void **state)
{
    (void)state;
    destroy_while_the_gpu_hangs(false);
    destroy_while_the_gpu_hangs(true);
}

static void a_sender_that_is_destroyed_waits_for_a_gpu_that_works(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        open_variant(v);
        pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
        gpu->set_mode(FAKECUDA_HELD);
        start("r", 4 * PAIR_CHUNK);
        pair_run(&kit);
        gpu->set_mode(FAKECUDA_THREAD); /* from here on, beside us */
        bt_tx_destroy(kit.senders[0].tx);
        kit.senders[0].tx = NULL;
        close_engine();
    }
}

/* What was queued before the driver refused the rest still reads the source and writes our page. */
static void a_copy_that_is_queued_half_way_fails_when_that_half_is_done(void **state)
{
    (void)state;
    bt_expect_log("has not ended in 10000 ms");
    for (uint32_t is_late = 0; is_late < 2; is_late++) {
        open_engine(&paths[1]);
        pair_sender *sender = &kit.senders[0];
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        start("r", PAIR_CHUNK);
        pair_turn(&kit); /* its kernels, and its pages, are there before */
        gpu->set_mode(FAKECUDA_HELD);
        bt_fakekernels_use(NULL);
        gpu->fail_call(FAKECUDA_COPY_ASYNC, 2, BT_CU_OUT_OF_MEMORY); /* the second row's */
        pair_advance(&kit, 100);
        assert_int_equal(sender->n_failed + sender->n_source_free, 0);
        if (is_late)
            pair_advance(&kit, 10000);
        step_all();
        pair_advance(&kit, 200);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, is_late ? BATON_ERR_GPU_TIMEOUT : BATON_ERR_NO_MEMORY);
        assert_int_equal(sender->n_source_free, 1);
        pair_check_clean(&kit);
        gpu->set_mode(FAKECUDA_AT_ONCE);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        start("again", PAIR_CHUNK);
        pair_advance(&kit, 5);
        assert_int_equal(sender->n_done, 1);
        close_engine();
    }
}

static void a_gpu_that_fails_fails_its_transfers_and_nothing_else(void **state)
{
    (void)state;
    for (uint32_t n_steps = 0; n_steps < 60; n_steps += 7) {
        open_engine(&paths[1]);
        pair_sender *sender = &kit.senders[0];
        gpu->set_mode(FAKECUDA_HELD);
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        start("r", 3 * PAIR_CHUNK);
        pair_run(&kit);
        for (uint32_t i = 0; i < n_steps; i++) {
            gpu->step(1);
            pair_run(&kit);
        }
        gpu->break_context(BT_CU_ILLEGAL_ADDRESS);
        pair_advance(&kit, 10);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, BATON_ERR_IO);
        assert_non_null(strstr(sender->end.text, "illegal memory access"));
        assert_int_equal(sender->n_source_free, 3);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        hand_off(0, "host", PAIR_CHUNK);
        assert_int_equal(sender->n_done, 1);
        pair_check(&kit, tokens, PAIR_CHUNK);
        close_engine();
    }
}

static void whatever_cannot_be_had_fails_one_transfer_and_leaks_nothing(void **state)
{
    (void)state;
    static const fakecuda_call calls[] = {
        FAKECUDA_ALLOC,        FAKECUDA_PIN,          FAKECUDA_COPY_ASYNC, FAKECUDA_STREAM_CREATE,
        FAKECUDA_EVENT_CREATE, FAKECUDA_EVENT_RECORD, FAKECUDA_LAUNCH_HOST};
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
        bool was_fine = false;
        for (uint32_t nth = 1; !was_fine; nth++) {
            open_engine(&paths[1]);
            pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
            compute(2 * PAIR_CHUNK, 0);
            compute(2 * PAIR_CHUNK, 1);
            gpu->fail_call(calls[c], nth, BT_CU_OUT_OF_MEMORY);
            baton_status status = BATON_OK;
            for (uint32_t i = 0; i < 2 && status == BATON_OK; i++)
                status = push(transfer, 2 * PAIR_CHUNK, i, BATON_SOURCE_AFTER_STREAM, NULL);
            if (status == BATON_OK)
                assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
            else
                assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
            pair_advance(&kit, 5);
            gpu->fail_call(calls[c], 0, 0);
            assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, 1);
            was_fine = nth > 12;
            pair_tokens(2, 0, PAIR_CHUNK, tokens);
            start("again", PAIR_CHUNK);
            pair_advance(&kit, 5);
            assert_int_equal(kit.senders[0].end.status, BATON_OK);
            pair_check(&kit, tokens, PAIR_CHUNK);
            close_engine();
        }
    }
}

static void without_a_driver_a_push_says_what_is_missing(void **state)
{
    (void)state;
    open_engine(&paths[1]);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    bt_cuda_driver_use("/nowhere/libcuda.so.1");
    assert_fails(push(transfer, PAIR_CHUNK, 0, BATON_SOURCE_NOW, NULL), BATON_ERR_UNSUPPORTED,
                 "wanted NVIDIA's driver");
    close_engine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(cancel_waits_for_a_copy_in_flight_but_not_for_an_event),
        bt_test(a_copy_that_never_ends_is_given_up),
        bt_test(a_sender_whose_gpu_hangs_can_still_be_destroyed),
        bt_test(a_sender_that_is_destroyed_waits_for_a_gpu_that_works),
        bt_test(a_copy_that_is_queued_half_way_fails_when_that_half_is_done),
        bt_test(a_gpu_that_fails_fails_its_transfers_and_nothing_else),
        bt_test(whatever_cannot_be_had_fails_one_transfer_and_leaks_nothing),
        bt_test(without_a_driver_a_push_says_what_is_missing),
    };
    return bt_run_tests(tests);
}
