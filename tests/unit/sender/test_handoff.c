/* SPDX-License-Identifier: Apache-2.0 */
/* A request's way from begin to decode, and everything that can go wrong on it. */
#include "handoffkit.h"

#include "core/alloc.h"

static void every_length_arrives_on_every_path(void **state)
{
    (void)state;
    static const pair_options paths[] = {
        {.n_pages = 8, .path = BATON_PATH_PUT},
        {.n_pages = 8, .mapped = true},
        {.n_pages = 8, .path = BATON_PATH_PUT, .digests = BATON_DIGESTS_FULL, .n_regions = 3},
        {.n_pages = 8, .mapped = true, .digests = BATON_DIGESTS_FULL},
        {.n_pages = 8, .mapped = true, .copy_threads = 3, .n_regions = 3},
        {.n_pages = 8, .mapped = true, .copy_threads = 3, .digests = BATON_DIGESTS_FULL},
        {.n_pages = 8, .path = BATON_PATH_PUT, .digests = BATON_DIGESTS_SAMPLED, .n_regions = 3},
        {.n_pages = 8, .mapped = true, .digests = BATON_DIGESTS_SAMPLED},
        {.n_pages = 8, .mapped = true, .copy_threads = 3, .digests = BATON_DIGESTS_SAMPLED},
    };
    for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++) {
        pair_create(&kit, &paths[p]);
        pair_sender *sender = &kit.senders[0];
        uint32_t n_chunks = 0;
        for (uint32_t n = 1; n <= 5 * PAIR_CHUNK; n++) {
            pair_tokens(n, 0, n + 1, tokens);
            hand_off(0, "r", n);
            n_chunks += (n - 1) / PAIR_CHUNK + 1;
            assert_int_equal(sender->n_done, n);
            assert_int_equal(sender->n_source_free, n_chunks);
            assert_int_equal(kit.n_ready, n);
            assert_int_equal(kit.rx->n_held, 1);
            /* decode-first asks with n tokens, early first token with n + 1 */
            assert_int_equal(pair_check(&kit, tokens, n + n % 2), n);
            pair_run(&kit);
            pair_check_clean(&kit);
        }
        assert_int_equal(sender->n_notices, 5 * PAIR_CHUNK);
        assert_int_equal(sender->last_notice, BATON_OK);
        pair_destroy(&kit);
    }
}

/* Its neighbours may have been copied by then, by whatever thread: none is published. */
static void a_chunk_that_cannot_be_gathered_ends_its_transfer(void **state)
{
    (void)state;
    for (uint32_t copy_threads = 1; copy_threads <= 3; copy_threads += 2) {
        pair_create(&kit,
                    &(pair_options){.n_pages = 8, .mapped = true, .copy_threads = copy_threads});
        const baton_kv_shape shape = {
            .n_layers = 1, .n_blocks = 4, .block_tokens = 4, .n_kv_heads = 1, .head_bytes = 16};
        void *layer = data[1];
        baton_kv_plane plane;
        baton_kv_view view;
        static const uint32_t blocks[] = {3, 4}; /* of 0 to 3 */
        assert_ok(baton_kv_view_flash(&shape, &layer, &plane, &view));
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 3 * PAIR_CHUNK, 0);
        for (uint32_t i = 0; i < 3; i++) {
            uint8_t *at = data[0] + i * PAIR_PAGE_BYTES;
            bt_tx_source source = {.data = at, .bytes = pair_chunk(tokens, 3 * PAIR_CHUNK, i, at)};
            if (i == 1)
                source = (bt_tx_source){
                    .view = &view,
                    .tokens = {.blocks = blocks, .n_blocks = 2, .n_tokens = PAIR_CHUNK}};
            assert_ok(bt_tx_push(kit.senders[0].tx, transfer, i, &source));
        }
        assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_OUT_OF_RANGE);
        assert_non_null(strstr(kit.senders[0].end.text, "block"));
        assert_int_equal(kit.senders[0].n_source_free, 3);
        /* The chunk before it had landed, and stays. */
        assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK),
                         copy_threads == 1 ? PAIR_CHUNK : 0);
        /* The next one has the same pages. */
        hand_off(0, "s", 3 * PAIR_CHUNK);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* Sockets and wake-ups between turns that only copy would cost more than they bring. */
static void turns_that_only_copy_follow_each_other(void **state)
{
    (void)state;
    enum { N = 4 };
    for (int mapped = 0; mapped <= 1; mapped++) {
        pair_create(&kit, &(pair_options){.n_pages = 8,
                                          .mapped = mapped,
                                          .path = mapped ? BATON_PATH_MAPPED : BATON_PATH_PUT});
        bt_tx *tx = kit.senders[0].tx;
        pair_tokens(1, 0, N * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, N * PAIR_CHUNK, 0);
        pair_run(&kit);                    /* granted */
        tx->page_bytes = BT_TX_TURN_BYTES; /* so that a turn is one chunk */
        pair_push_all(&kit, 0, transfer, tokens, N * PAIR_CHUNK, data[0]);
        uint64_t wake_ns = bt_tx_progress(tx);
        assert_int_equal(tx->first->n_posted, mapped ? N : 1);
        assert_true(mapped || wake_ns <= bt_now_ns(&kit.clock)); /* puts leave turn by turn */
        tx->page_bytes = PAIR_PAGE_BYTES;
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, N * PAIR_CHUNK), N * PAIR_CHUNK);
        pair_destroy(&kit);
    }
}

static void chunks_that_are_there_are_not_sent_again(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
    pair_tokens(1, 2 * PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "a", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].end.sent_chunks, 3);
    pair_tokens(2, 2 * PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "b", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].end.sent_chunks, 1);
    assert_int_equal(kit.senders[0].end.present_chunks, 2);
    hand_off(0, "c", 3 * PAIR_CHUNK); /* all there */
    assert_int_equal(kit.senders[0].end.sent_chunks, 0);
    assert_int_equal(kit.senders[0].n_source_free, 9);
    /* b and c hold the same prompt: each lookup ends one */
    assert_int_equal(kit.rx->n_held, 3);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_run(&kit);
    assert_int_equal(kit.rx->n_held, 2);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_tokens(1, 2 * PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void repeated_frames_change_nothing(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    kit.n_duplicates = 2;
    for (uint32_t n = 1; n <= 3 * PAIR_CHUNK; n++) {
        pair_tokens(n, 0, n, tokens);
        hand_off(0, "r", n);
        assert_int_equal(kit.senders[0].n_done, n);
        assert_int_equal(kit.n_ready, n);
        assert_int_equal(pair_check(&kit, tokens, n), n);
    }
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static bool lose_first_of_each_type(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    uint32_t bit = 1u << message->type;
    bool pass = (k->filter_count & bit) != 0;
    k->filter_count |= bit;
    return pass;
}

static void every_lost_message_is_said_again(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    kit.filter = lose_first_of_each_type;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    pair_advance(&kit, 4000);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(kit.n_ready, 1);
    assert_int_equal(kit.rx->stats.tickets_granted_total, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void requests_wait_for_pages_in_order(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_senders = 3, .n_pages = 4, .path = BATON_PATH_PUT});
    uint32_t prompts[3][4 * PAIR_CHUNK], sizes[3] = {3 * PAIR_CHUNK, 4 * PAIR_CHUNK, PAIR_CHUNK};
    baton_transfer transfers[3];
    for (uint32_t i = 0; i < 3; i++) {
        pair_tokens(i, 0, sizes[i], prompts[i]);
        transfers[i] = pair_begin(&kit, i, "r", prompts[i], sizes[i], 0);
        pair_run(&kit);
    }
    /* The second is large and waits; the third would fit but must not overtake it. */
    assert_int_equal(kit.rx->n_queued, 2);
    for (uint32_t i = 0; i < 3; i++) {
        pair_push_all(&kit, i, transfers[i], prompts[i], sizes[i], data[i]);
        pair_run(&kit);
        assert_int_equal(kit.senders[i].n_done, 1);
        assert_int_equal(pair_check(&kit, prompts[i], sizes[i]), sizes[i]);
        pair_run(&kit);
    }
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_request_larger_than_the_pool_is_refused_with_both_numbers(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_TOO_LARGE);
    assert_non_null(strstr(kit.senders[0].end.text, "wanted 3 pages, the whole pool has 2"));
    assert_int_equal(kit.senders[0].n_source_free, 3);
    assert_int_equal(kit.senders[0].last_notice, BATON_ERR_TOO_LARGE);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_hold_that_nobody_wants_expires_and_is_told(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    pair_advance(&kit, 29000);
    assert_int_equal(kit.n_expired, 0);
    pair_advance(&kit, 1100);
    assert_int_equal(kit.n_expired, 1);
    assert_int_equal(kit.receiver_notice, BATON_ERR_LEASE_EXPIRED);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* Damages page 1 after it has landed and before its COMMIT is looked at. */
static bool damage_before_commit(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (frame->to_receiver && message->type == BT_MSG_COMMIT && k->filter_count++ == 0)
        ((uint8_t *)k->rx->regions[0].memory->base)[5] ^= 1;
    return true;
}

static void a_damaged_chunk_is_refused_with_digests_and_served_without(void **state)
{
    (void)state;
    for (int digests = BATON_DIGESTS_OFF; digests <= BATON_DIGESTS_FULL; digests++) {
        pair_create(&kit, &(pair_options){.n_pages = 4,
                                          .path = BATON_PATH_PUT,
                                          .commit = BATON_COMMIT_SOCKET,
                                          .digests = (baton_digests)digests});
        kit.filter = damage_before_commit;
        if (digests)
            bt_expect_log("digest of chunk 0");
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK);
        pair_advance(&kit, 1000);
        uint32_t n_matched;
        assert_ok(bt_rx_peek(kit.rx, tokens, 2 * PAIR_CHUNK, &n_matched));
        if (digests) {
            assert_int_equal(kit.senders[0].n_failed, 1);
            assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
            assert_int_equal(kit.last_event.status, BATON_ERR_DIGEST_MISMATCH);
            assert_int_equal(n_matched, 0);
            pair_check_clean(&kit);
        } else { /* the negative control: nothing else would have noticed */
            assert_int_equal(kit.senders[0].n_done, 1);
            assert_int_equal(n_matched, 2 * PAIR_CHUNK);
        }
        pair_destroy(&kit);
    }
}

/* What is in the pool when the COMMIT of chunks 0 and 1 comes. */
typedef enum { SWAPPED, STALE, TORN, HALF_A_LAYER, TOKEN_MISSING, N_WRONGS } wrong;
static wrong wanted_wrong;
static uint8_t before[2 * PAIR_PAGE_BYTES]; /* both pages, as an older request left them */

static bool go_wrong(pair *k, const pair_frame *frame, const bt_message *message)
{
    uint8_t *pages = k->rx->regions[0].memory->base;
    uint8_t first[PAIR_PAGE_BYTES];
    if (!frame->to_receiver || message->type != BT_MSG_COMMIT || k->filter_count++ > 0)
        return true;
    memcpy(first, pages, PAIR_PAGE_BYTES);
    switch (wanted_wrong) {
    case SWAPPED:
        memcpy(pages, pages + PAIR_PAGE_BYTES, PAIR_PAGE_BYTES);
        memcpy(pages + PAIR_PAGE_BYTES, first, PAIR_PAGE_BYTES);
        break;
    case STALE:
        memcpy(pages, before, PAIR_PAGE_BYTES);
        break;
    case TORN:
        memcpy(pages + PAIR_PAGE_BYTES / 3, before + PAIR_PAGE_BYTES / 3, PAIR_PAGE_BYTES / 3);
        break;
    case HALF_A_LAYER:
        memcpy(pages + PAIR_PAGE_BYTES / 2, before + PAIR_PAGE_BYTES / 2, PAIR_PAGE_BYTES / 2);
        break;
    default:
        for (uint32_t at = PAIR_TOKEN_BYTES / 2 * 3; at < PAIR_PAGE_BYTES;
             at += PAIR_PAGE_BYTES / 2)
            memcpy(pages + at, before + at, PAIR_TOKEN_BYTES / 2);
    }
    return true;
}

/* The peer is named, its pages are in quarantine until it says that it has drained, and no key is
 * visible; without digests nobody notices. */
static void refuse_wrong_page(baton_digests digests)
{
    pair_create(&kit, &(pair_options){.n_pages = 2,
                                      .path = BATON_PATH_PUT,
                                      .commit = BATON_COMMIT_SOCKET,
                                      .digests = digests});
    pair_tokens(7, 0, 2 * PAIR_CHUNK, tokens); /* yesterday's */
    hand_off(0, "yesterday", 2 * PAIR_CHUNK);
    pair_run(&kit);
    memcpy(before, kit.rx->regions[0].memory->base, sizeof(before));
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    kit.filter = go_wrong;
    pair_tokens(8, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "today", 2 * PAIR_CHUNK);
    pair_advance(&kit, 1000);
    uint32_t n_matched;
    assert_ok(bt_rx_peek(kit.rx, tokens, 2 * PAIR_CHUNK, &n_matched));
    if (digests == BATON_DIGESTS_OFF) {
        assert_int_equal(n_matched, 2 * PAIR_CHUNK);
    } else {
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
        assert_int_equal(kit.last_event.status, BATON_ERR_DIGEST_MISMATCH);
        assert_int_equal(n_matched, 0);
        assert_int_equal(kit.rx->stats.digests_failed_total, 1);
        pair_check_clean(&kit); /* what was in quarantine is free: the sender has drained */
    }
    pair_destroy(&kit);
}

static void swapped_stale_and_torn_pages_are_refused_in_every_mode(void **state)
{
    (void)state;
    bt_expect_log("digest of chunk 0: wanted");
    bt_expect_log("peer=sender");
    for (int digests = BATON_DIGESTS_OFF; digests <= BATON_DIGESTS_FULL; digests++) {
        for (wanted_wrong = 0; wanted_wrong < N_WRONGS; wanted_wrong++)
            refuse_wrong_page((baton_digests)digests);
    }
}

/* The stronger of two wishes is what both do. */
static void of_two_modes_the_stronger_one_is_used(void **state)
{
    (void)state;
    static const baton_digests agreed[3][3] = {{0, 1, 2}, {1, 1, 2}, {2, 2, 2}};
    static const uint32_t said[] = {BT_DIGESTS_OFF, BT_DIGESTS_SAMPLED, BT_DIGESTS_TILES};
    for (int theirs = 0; theirs < 9; theirs++) {
        pair_create(
            &kit,
            &(pair_options){.n_pages = 4, .mapped = true, .digests = (baton_digests)(theirs % 3)});
        kit.senders[0].tx->options.digests = (baton_digests)(theirs / 3);
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(kit.senders[0].tx->peers->digests, said[agreed[theirs / 3][theirs % 3]]);
        assert_int_equal(kit.rx->peers->digests, kit.senders[0].tx->peers->digests);
        assert_int_equal(kit.rx->stats.digests_checked_total,
                         agreed[theirs / 3][theirs % 3] != BATON_DIGESTS_OFF ? 2 : 0);
        pair_destroy(&kit);
    }
}

/* A receiver that still hashes pages in one piece says 1 where we say 2. */
static bool answer_as_an_older_one(pair *k, const pair_frame *frame, const bt_message *message)
{
    static const char ours[] = "\xa7"
                               "digests\x02";
    uint8_t *at = memmem(frame->data, frame->bytes, ours, sizeof(ours) - 1);
    (void)k;
    if (message->type == BT_MSG_INIT_ANSWER && at != NULL)
        at[sizeof(ours) - 2] = 1;
    return true;
}

static void a_receiver_with_other_digests_is_not_used(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .digests = BATON_DIGESTS_FULL});
    kit.filter = answer_as_an_older_one;
    bt_expect_log("wanted 0 (off), 2 (of tiles) or 3 (sampled), found 1");
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_VERSION_MISMATCH);
    pair_destroy(&kit);
}

/* A receiver that says in its answer what is not known here. */
static bool answer_as_a_newer_one(pair *k, const pair_frame *frame, const bt_message *message)
{
    static const char ours[] = "n_planes";
    uint8_t *at = memmem(frame->data, frame->bytes, ours, sizeof(ours) - 1);
    (void)k;
    if (message->type == BT_MSG_INIT_ANSWER && at != NULL)
        at[sizeof(ours) - 1] = 3;
    return true;
}

static void a_receiver_that_is_not_understood_is_named(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4});
    kit.filter = answer_as_a_newer_one;
    bt_expect_log("wanted 1 to 2, found 3");
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_VERSION_MISMATCH);
    pair_destroy(&kit);
}

/* Everything at once, seeded: lost and repeated frames, delays, cancels, small pool. Whatever is
 * done arrived right, every transfer ends once, nothing is left. */
static bool lose_some(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame, (void)message;
    bt_rng rng = {.state = 1000 + k->filter_count++};
    return bt_rng_below(&rng, 10) != 0;
}

static void a_storm_leaves_nothing_behind(void **state)
{
    (void)state;
    enum { STEPS = 150, SLOTS = 12 };
    static uint32_t prompts[SLOTS][PAIR_MAX_CHUNKS * PAIR_CHUNK];
    static uint8_t sources[SLOTS][PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
    bt_expect_log("connection ended");
    bt_expect_log("expired");
    for (uint64_t seed = 1; seed <= 3; seed++) {
        bt_rng rng = {.state = seed};
        pair_create(&kit, &(pair_options){.n_senders = 3,
                                          .n_pages = 6,
                                          .n_regions = 2,
                                          .digests = BATON_DIGESTS_FULL,
                                          .path = BATON_PATH_PUT});
        kit.filter = lose_some;
        kit.filter_count = (uint32_t)seed << 16;
        assert_ok(
            bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS,
                               &(bt_loop_faults){.jitter_ns = 20 * BT_NS_PER_MS, .reorder = true}));
        uint32_t n_begun = 0;
        for (uint32_t step = 0; step < STEPS; step++) {
            uint32_t slot = step % SLOTS, sender = (uint32_t)bt_rng_below(&rng, 3);
            uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, 5 * PAIR_CHUNK);
            /* a slot's buffers are used again only after everything of it has ended */
            if (slot == 0)
                pair_advance(&kit, 8000);
            pair_tokens((uint32_t)bt_rng_below(&rng, 6), 2 * PAIR_CHUNK, n, prompts[slot]);
            baton_transfer transfer = pair_begin(&kit, sender, "storm", prompts[slot], n, 5000);
            n_begun++;
            pair_push_all(&kit, sender, transfer, prompts[slot], n, sources[slot]);
            if (bt_rng_below(&rng, 5) == 0)
                assert_ok(bt_tx_post(kit.senders[sender].tx, BT_TX_CANCEL, transfer));
            pair_advance(&kit, bt_rng_below(&rng, 60));
            pair_check(&kit, prompts[bt_rng_below(&rng, slot + 1)], 1);
            pair_check(&kit, prompts[slot], n);
        }
        pair_advance(&kit, 40000);
        uint32_t n_ended = 0;
        for (uint32_t i = 0; i < 3; i++)
            n_ended += kit.senders[i].n_done + kit.senders[i].n_failed;
        assert_int_equal(n_ended, n_begun);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_length_arrives_on_every_path),
        bt_test(a_chunk_that_cannot_be_gathered_ends_its_transfer),
        bt_test(turns_that_only_copy_follow_each_other),
        bt_test(chunks_that_are_there_are_not_sent_again),
        bt_test(repeated_frames_change_nothing),
        bt_test(every_lost_message_is_said_again),
        bt_test(requests_wait_for_pages_in_order),
        bt_test(a_request_larger_than_the_pool_is_refused_with_both_numbers),
        bt_test(a_hold_that_nobody_wants_expires_and_is_told),
        bt_test(a_storm_leaves_nothing_behind),
        bt_test(a_damaged_chunk_is_refused_with_digests_and_served_without),
        bt_test(swapped_stale_and_torn_pages_are_refused_in_every_mode),
        bt_test(of_two_modes_the_stronger_one_is_used),
        bt_test(a_receiver_with_other_digests_is_not_used),
        bt_test(a_receiver_that_is_not_understood_is_named),
    };
    return bt_run_tests(tests);
}
