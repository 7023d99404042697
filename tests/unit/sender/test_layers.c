/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks pushed in groups of layers: any order, any grouping, every path; and what ends in the
 * middle of a chunk. */
#include "handoffkit.h"

#include <stdio.h>

enum { N_PATHS = 7 };
static const pair_options paths[N_PATHS] = {
    {.n_pages = 8, .is_layered = true, .path = BATON_PATH_PUT},
    {.n_pages = 8, .is_layered = true, .mapped = true},
    {.n_pages = 8, .is_layered = true, .path = BATON_PATH_PUT, .digests = BATON_DIGESTS_FULL},
    {.n_pages = 8, .is_layered = true, .mapped = true, .digests = BATON_DIGESTS_FULL},
    {.n_pages = 8, .is_layered = true, .path = BATON_PATH_PUT, .commit = BATON_COMMIT_SOCKET},
    {.n_pages = 8, .is_layered = true, .path = BATON_PATH_PUT, .digests = BATON_DIGESTS_SAMPLED},
    {.n_pages = 8, .is_layered = true, .mapped = true, .digests = BATON_DIGESTS_SAMPLED},
};

/* Pushes layers of chunk i of tokens[n]; their bytes are those that pair_check wants. */
static baton_status push_layers(uint32_t sender, baton_transfer transfer, uint32_t n, uint32_t i,
                                uint32_t first, uint32_t n_layers)
{
    uint8_t *at = data[sender] + (size_t)i * PAIR_PAGE_BYTES;
    size_t bytes = pair_chunk(tokens, n, i, at) / PAIR_LAYERS;
    const bt_tx_source source = {
        .data = at + first * bytes,
        .bytes = n_layers * bytes,
        .first_layer = first,
        .n_layers = n_layers,
    };
    return bt_tx_push(kit.senders[sender].tx, transfer, i, &source);
}

static void finish(uint32_t sender, baton_transfer transfer)
{
    assert_ok(bt_tx_post(kit.senders[sender].tx, BT_TX_FINISH, transfer));
}

/* The nth of the 24 orders of 4 layers. */
static void order_of(uint32_t nth, uint32_t *order)
{
    uint32_t left[PAIR_LAYERS] = {0, 1, 2, 3};
    for (uint32_t i = 0; i < PAIR_LAYERS; i++) {
        uint32_t at = nth % (PAIR_LAYERS - i);
        nth /= PAIR_LAYERS - i;
        order[i] = left[at];
        memmove(left + at, left + at + 1, (PAIR_LAYERS - 1 - i - at) * sizeof(*left));
    }
}

static void every_order_arrives_on_every_path(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < N_PATHS; p++) {
        pair_create(&kit, &paths[p]);
        for (uint32_t nth = 0; nth < 24; nth++) {
            uint32_t order[PAIR_LAYERS], n = 2 * PAIR_CHUNK + 1 + nth % PAIR_CHUNK;
            pair_sender *sender = &kit.senders[0];
            order_of(nth, order);
            pair_tokens(nth, 0, n + 1, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
            sender->n_source_free = 0;
            for (uint32_t l = 0; l < PAIR_LAYERS; l++) {
                for (uint32_t i = 0; i < 3; i++) /* all chunks of a layer, as a long prompt */
                    assert_ok(push_layers(0, transfer, n, i, order[l], 1));
                if (nth % 2 == 0)
                    pair_run(&kit);
            }
            finish(0, transfer);
            pair_run(&kit);
            assert_int_equal(sender->n_done, nth + 1);
            assert_int_equal(sender->n_source_free, 3 * PAIR_LAYERS);
            assert_int_equal(pair_check(&kit, tokens, n), n);
            pair_run(&kit);
            pair_check_clean(&kit);
        }
        pair_destroy(&kit);
    }
}

static void groups_of_any_size_and_whole_chunks_mix(void **state)
{
    (void)state;
    static const uint32_t groups[][3] = {{4, 0, 0}, {1, 3, 0}, {3, 1, 0}, {2, 2, 0}, {1, 2, 1}};
    for (uint32_t p = 0; p < N_PATHS; p++) {
        pair_create(&kit, &paths[p]);
        uint32_t n = 6 * PAIR_CHUNK - 3;
        pair_tokens(p, 0, n, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
        for (uint32_t i = 0; i < 5; i++) {
            for (uint32_t g = 0, first = 0; g < 3 && groups[i][g] > 0; first += groups[i][g++])
                assert_ok(push_layers(0, transfer, n, i, first, groups[i][g]));
        }
        uint8_t *at = data[0] + 5 * PAIR_PAGE_BYTES;
        const bt_tx_source whole = {.data = at, .bytes = pair_chunk(tokens, n, 5, at)};
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 5, &whole));
        finish(0, transfer);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, n), n);
        const baton_sender_event *events = kit.senders[0].events;
        assert_int_equal(events[0].kind, BATON_SENDER_SOURCE_FREE);
        uint32_t n_layers = 0;
        for (uint32_t e = 0; e < kit.senders[0].n_events; e++)
            n_layers += events[e].kind == BATON_SENDER_SOURCE_FREE ? events[e].n_layers : 0;
        assert_int_equal(n_layers, 6 * PAIR_LAYERS);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

static void layers_move_before_the_chunk_is_complete(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < N_PATHS; p++) {
        pair_create(&kit, &paths[p]);
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        assert_ok(push_layers(0, transfer, PAIR_CHUNK, 0, 0, 3));
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_source_free, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), 0); /* not before it is whole */
        const uint8_t *page = bt_rx_page_address(
            kit.rx, (bt_page_ref){.region = 0, .page = kit.senders[0].tx->first->chunks[0].page});
        assert_memory_equal(page, data[0], PAIR_PAGE_BYTES / PAIR_LAYERS * 3);
        assert_ok(push_layers(0, transfer, PAIR_CHUNK, 0, 3, 1));
        finish(0, transfer);
        pair_run(&kit);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        pair_destroy(&kit);
    }
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    pair_create(&kit, &paths[0]);
    bt_tx *tx = kit.senders[0].tx;
    uint32_t n = 3 * PAIR_CHUNK;
    pair_tokens(1, 0, n, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
    assert_ok(push_layers(0, transfer, n, 0, 1, 2));
    assert_fails(push_layers(0, transfer, n, 0, 2, 1), BATON_ERR_INVALID_ARG, "layer 2 of chunk 0");
    assert_fails(push_layers(0, transfer, n, 0, 0, 2), BATON_ERR_INVALID_ARG, "layer 1 of chunk 0");
    assert_fails(push_layers(0, transfer, n, 0, 4, 1), BATON_ERR_OUT_OF_RANGE, "layers 4 + 1 of 4");
    assert_fails(push_layers(0, transfer, n, 0, 3, UINT32_MAX), BATON_ERR_OUT_OF_RANGE, NULL);
    const bt_tx_source whole = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    assert_fails(bt_tx_push(tx, transfer, 0, &whole), BATON_ERR_INVALID_ARG, "pushed before");
    assert_ok(bt_tx_push(tx, transfer, 1, &whole));
    assert_fails(push_layers(0, transfer, n, 1, 0, 1), BATON_ERR_INVALID_ARG, "pushed before");
    bt_tx_source wrong = {.data = data[0], .bytes = 7, .first_layer = 0, .n_layers = 1};
    assert_fails(bt_tx_push(tx, transfer, 2, &wrong), BATON_ERR_INVALID_ARG, "bytes, found 7");
    assert_ok(push_layers(0, transfer, n, 0, 3, 1)); /* and what makes sense still goes */
    assert_ok(push_layers(0, transfer, n, 0, 0, 1));
    assert_ok(push_layers(0, transfer, n, 2, 0, 4));
    finish(0, transfer);
    assert_fails(push_layers(0, transfer, n, 2, 0, 1), BATON_ERR_STATE, "after finish");
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    pair_destroy(&kit);
}

static void a_chunk_without_all_its_layers_fails_the_transfer(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < N_PATHS; p++) {
        pair_create(&kit, &paths[p]);
        uint32_t n = 2 * PAIR_CHUNK;
        pair_tokens(1, 0, n, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
        assert_ok(push_layers(0, transfer, n, 0, 0, 4));
        assert_ok(push_layers(0, transfer, n, 1, 0, 1));
        assert_ok(push_layers(0, transfer, n, 1, 2, 2));
        finish(0, transfer);
        pair_advance(&kit, 300);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_STATE);
        assert_string_equal(kit.senders[0].end.text,
                            "finish: 3 of the 4 layers of chunk 1 were pushed");
        assert_int_equal(kit.senders[0].n_source_free, 3);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

static void layers_of_chunks_that_are_there_become_free(void **state)
{
    (void)state;
    for (uint32_t late = 0; late < 2; late++) {
        pair_create(&kit, &paths[0]);
        uint32_t n = 3 * PAIR_CHUNK;
        pair_tokens(1, 2 * PAIR_CHUNK, n, tokens);
        hand_off(0, "a", n);
        pair_tokens(2, 2 * PAIR_CHUNK, n, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "b", tokens, n, 0);
        if (late)
            pair_run(&kit); /* granted before the first layer */
        kit.senders[0].n_source_free = 0;
        for (uint32_t i = 0; i < 3; i++) {
            assert_ok(push_layers(0, transfer, n, i, 2, 2));
            assert_ok(push_layers(0, transfer, n, i, 0, 2));
        }
        finish(0, transfer);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_done, 2);
        assert_int_equal(kit.senders[0].end.present_chunks, 2);
        assert_int_equal(kit.senders[0].n_source_free, 6);
        assert_int_equal(pair_check(&kit, tokens, n), n);
        pair_destroy(&kit);
    }
}

/* When a sender says that it is done with a ticket's pages, nothing for them is on its way. */
static bool nothing_is_in_flight(pair *k, const pair_frame *frame, const bt_message *message)
{
    bt_loop_stats stats;
    bt_loop_get_stats(k->net, &stats);
    bool says_so = (message->type == BT_MSG_CANCEL && message->u.end.drained == 1) ||
                   message->type == BT_MSG_DRAINED;
    if (frame->to_receiver && says_so) {
        assert_int_equal(stats.n_in_flight, 0);
        k->filter_count++;
    }
    return true;
}

static void a_cancel_in_the_middle_of_a_chunk_leaves_nothing(void **state)
{
    (void)state;
    for (uint32_t p = 0; p < N_PATHS; p++) {
        for (uint32_t n_groups = 0; n_groups <= 2 * PAIR_LAYERS; n_groups++) {
            pair_create(&kit, &paths[p]);
            const bt_loop_faults slow = {.delay_ns = 50 * BT_NS_PER_MS};
            assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &slow));
            kit.filter = nothing_is_in_flight;
            uint32_t n = 2 * PAIR_CHUNK;
            pair_tokens(1, 0, n, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
            for (uint32_t g = 0; g < n_groups; g++) {
                assert_ok(push_layers(0, transfer, n, g / PAIR_LAYERS, g % PAIR_LAYERS, 1));
                if (g % 3 == 0)
                    pair_run(&kit);
            }
            pair_run(&kit);
            assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
            pair_advance(&kit, 500);
            assert_int_equal(kit.senders[0].n_failed, 1);
            assert_int_equal(kit.senders[0].end.status, BATON_ERR_CANCELED);
            assert_int_equal(kit.senders[0].n_source_free, n_groups);
            assert_int_equal(kit.filter_count, 1);
            pair_check_clean(&kit);
            pair_destroy(&kit);
        }
    }
}

static pair_frame held_answer;
static bool hold_commit_answer(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (message->type == BT_MSG_COMMIT_ANSWER && held_answer.bytes == 0) {
        held_answer = *frame;
        return false;
    }
    return held_answer.bytes == 0 || nothing_is_in_flight(k, frame, message);
}

/* The answer to a COMMIT behind the data of one chunk says nothing of the next one's layers. */
static void layers_behind_an_answered_commit_are_flushed_too(void **state)
{
    (void)state;
    pair_create(&kit, &paths[0]);
    held_answer.bytes = 0;
    kit.filter = hold_commit_answer;
    bt_tx *tx = kit.senders[0].tx;
    uint32_t n = 2 * PAIR_CHUNK;
    pair_tokens(1, 0, n, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
    assert_ok(push_layers(0, transfer, n, 0, 0, PAIR_LAYERS));
    pair_run(&kit);
    assert_true(held_answer.bytes > 0);
    const bt_loop_faults slow = {.delay_ns = 50 * BT_NS_PER_MS};
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &slow));
    assert_ok(push_layers(0, transfer, n, 1, 0, 1));
    pair_run(&kit);
    bt_tx_handle(tx, tx->peers, (bt_tx_port)held_answer.port, held_answer.data, held_answer.bytes);
    pair_run(&kit);
    assert_ok(bt_tx_post(tx, BT_TX_CANCEL, transfer));
    pair_advance(&kit, 500);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.filter_count, 1);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_lost_connection_in_the_middle_of_a_chunk_is_survived(void **state)
{
    (void)state;
    bt_expect_log("connection ended");
    for (uint32_t n_groups = 1; n_groups < PAIR_LAYERS; n_groups++) {
        pair_create(&kit, &paths[0]);
        const bt_loop_faults stuck = {.stuck = true};
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &stuck));
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        for (uint32_t g = 0; g < n_groups; g++)
            assert_ok(push_layers(0, transfer, PAIR_CHUNK, 0, g, 1));
        pair_run(&kit);
        bt_loop_cut(kit.net, BT_LOOP_ALL_LINKS);
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].n_source_free, n_groups);
        /* The next connection says so, and with the old worker what was on its way is gone. */
        pair_advance(&kit, 1000);
        bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
        hand_off(0, "again", PAIR_CHUNK);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

static void more_chunks_than_slots_take_turns(void **state)
{
    (void)state;
    for (int digests = BATON_DIGESTS_OFF; digests <= BATON_DIGESTS_FULL; digests++) {
        const pair_options options = {.n_pages = 8,
                                      .is_layered = true,
                                      .path = BATON_PATH_PUT,
                                      .digests = (baton_digests)digests};
        pair_create(&kit, &options); /* 2 slots */
        uint32_t n = 7 * PAIR_CHUNK;
        pair_tokens(1, 0, n, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
        for (uint32_t l = 0; l < PAIR_LAYERS; l++) {
            for (uint32_t i = 0; i < 7; i++)
                assert_ok(push_layers(0, transfer, n, i, PAIR_LAYERS - 1 - l, 1));
            pair_run(&kit);
        }
        finish(0, transfer);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, n), n);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* The first has begun as many chunks as there are slots, and its engine computes on. */
static void who_waits_for_the_engine_holds_nobody_up(void **state)
{
    (void)state;
    for (int digests = BATON_DIGESTS_OFF; digests <= BATON_DIGESTS_FULL; digests++) {
        const pair_options options = {.n_pages = 16,
                                      .is_layered = true,
                                      .path = BATON_PATH_PUT,
                                      .digests = (baton_digests)digests};
        pair_create(&kit, &options); /* 2 slots */
        uint32_t n = 4 * PAIR_CHUNK;
        pair_tokens(1, 0, n, tokens);
        baton_transfer first = pair_begin(&kit, 0, "first", tokens, n, 0);
        for (uint32_t i = 0; i < 4; i++)
            assert_ok(push_layers(0, first, n, i, 0, 1));
        pair_run(&kit);
        pair_tokens(2, 0, n, tokens);
        hand_off(0, "second", n);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, n), n);
        pair_tokens(1, 0, n, tokens);
        for (uint32_t l = 1; l < PAIR_LAYERS; l++) {
            for (uint32_t i = 0; i < 4; i++)
                assert_ok(push_layers(0, first, n, i, l, 1));
        }
        finish(0, first);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_done, 2);
        assert_int_equal(pair_check(&kit, tokens, n), n);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].tx->n_kept_slots, 0);
        assert_int_equal(kit.senders[0].tx->n_free_slots, 2);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

static void a_spoiled_layer_does_not_pass(void **state)
{
    (void)state;
    bt_expect_log("digest of chunk 0");
    static const uint32_t with_digests[] = {2, 3, 5, 6};
    for (uint32_t d = 0; d < 4; d++) {
        pair_create(&kit, &paths[with_digests[d]]);
        kit.senders[0].tx->options.spoil_byte = true;
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        for (uint32_t l = 0; l < PAIR_LAYERS; l++)
            assert_ok(push_layers(0, transfer, PAIR_CHUNK, 0, l, 1));
        finish(0, transfer);
        pair_advance(&kit, 300);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), 0);
        pair_destroy(&kit);
    }
}

/* Two senders, random prompts, groups, orders, pauses and ends. */
static void random_layers_arrive_or_leave_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        bt_rng rng = {.state = seed};
        pair_options options = paths[seed % N_PATHS];
        options.n_pages = 6;
        pair_create(&kit, &options);
        const bt_loop_faults faults = {.delay_ns = bt_rng_below(&rng, 3) * 20 * BT_NS_PER_MS,
                                       .jitter_ns = bt_rng_below(&rng, 2) * 10 * BT_NS_PER_MS,
                                       .reorder = bt_rng_below(&rng, 2) != 0};
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults));
        for (uint32_t request = 0; request < 4; request++) {
            uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, 5 * PAIR_CHUNK), n_groups = 0;
            uint32_t n_chunks = (n - 1) / PAIR_CHUNK + 1;
            uint32_t left[PAIR_MAX_CHUNKS * PAIR_LAYERS];
            for (uint32_t i = 0; i < n_chunks * PAIR_LAYERS; i++)
                left[n_groups++] = i;
            pair_tokens((uint32_t)seed * 8 + request, 0, n + 1, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
            kit.senders[0].n_source_free = 0;
            uint32_t n_done = kit.senders[0].n_done, n_pushed = 0;
            bool is_canceled = bt_rng_below(&rng, 4) == 0;
            while (n_groups > 0) {
                uint32_t at = (uint32_t)bt_rng_below(&rng, n_groups), group = left[at];
                left[at] = left[--n_groups];
                assert_ok(push_layers(0, transfer, n, group / PAIR_LAYERS, group % PAIR_LAYERS, 1));
                n_pushed++;
                if (bt_rng_below(&rng, 3) == 0)
                    pair_advance(&kit, bt_rng_below(&rng, 40));
                if (is_canceled && bt_rng_below(&rng, 4) == 0)
                    break;
            }
            if (is_canceled)
                assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
            else
                finish(0, transfer);
            pair_advance(&kit, 1000);
            assert_int_equal(kit.senders[0].n_source_free, n_pushed);
            assert_int_equal(kit.senders[0].n_done, n_done + !is_canceled);
            if (!is_canceled)
                assert_int_equal(pair_check(&kit, tokens, n), n);
            pair_run(&kit);
            pair_check_clean(&kit);
        }
        pair_destroy(&kit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_order_arrives_on_every_path),
        bt_test(groups_of_any_size_and_whole_chunks_mix),
        bt_test(layers_move_before_the_chunk_is_complete),
        bt_test(what_makes_no_sense_is_refused),
        bt_test(a_chunk_without_all_its_layers_fails_the_transfer),
        bt_test(layers_of_chunks_that_are_there_become_free),
        bt_test(a_cancel_in_the_middle_of_a_chunk_leaves_nothing),
        bt_test(layers_behind_an_answered_commit_are_flushed_too),
        bt_test(a_lost_connection_in_the_middle_of_a_chunk_is_survived),
        bt_test(more_chunks_than_slots_take_turns),
        bt_test(who_waits_for_the_engine_holds_nobody_up),
        bt_test(a_spoiled_layer_does_not_pass),
        bt_test(random_layers_arrive_or_leave_nothing),
    };
    return bt_run_tests(tests);
}
