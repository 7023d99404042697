/* SPDX-License-Identifier: Apache-2.0 */
/* COMMIT, and what lookups, holds and pins make of what has landed. */
#include "rxkit.h"

#include "kernels/digest.h"
#include "support/test.h"

static rx_kit kit;
static rx_kit_sender alice, bob;
static rx_kit_request a, b;

static void open_with(const baton_receiver_options *options)
{
    rx_kit_open(&kit, options);
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
}

static void open_kit(uint32_t n_pages)
{
    const baton_receiver_options options = rx_kit_options(n_pages);
    open_with(&options);
}

static baton_receiver_stats stats_now(void)
{
    baton_receiver_stats stats;
    rx_kit_stats(&kit, &stats);
    return stats;
}

static uint32_t peek(const rx_kit_request *request, uint32_t n_tokens)
{
    uint32_t matched;
    assert_ok(bt_rx_peek(kit.rx, request->tokens, n_tokens, &matched));
    return matched;
}

/* Looks up, checks the bytes, gives back; returns the tokens matched. */
static uint32_t look_up(const rx_kit_request *request, uint32_t n_tokens)
{
    baton_pin *pin;
    uint32_t matched;
    assert_ok(bt_rx_lookup(kit.rx, request->tokens, n_tokens, &pin, &matched));
    rx_kit_check(&kit);
    if (matched == 0) {
        assert_null(pin);
        return 0;
    }
    for (uint32_t i = 0; i < baton_pin_chunks(pin); i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_int_equal(chunk.bytes, chunk.n_tokens * kit.rx->token_bytes);
        assert_int_equal(*(const uint8_t *)chunk.page, rx_kit_byte(request, i));
    }
    assert_fails(baton_pin_chunk(pin, baton_pin_chunks(pin), &(baton_pinned_chunk){0}),
                 BATON_ERR_OUT_OF_RANGE, NULL);
    assert_ok(bt_rx_unpin(kit.rx, pin));
    bt_rx_progress(kit.rx);
    rx_kit_check(&kit);
    return matched;
}

static void a_chunk_is_visible_when_it_is_committed(void **state)
{
    (void)state;
    open_kit(8);
    bt_message answer;
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    for (uint32_t i = 0; i < 3; i++)
        rx_kit_write(&kit, &a, i);
    assert_int_equal(peek(&a, a.n_tokens), 0);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 2, false, &answer), BATON_OK);
    assert_int_equal(answer.u.commit_answer.landed, 2);
    assert_int_equal(answer.u.commit_answer.final, 0);
    assert_int_equal(peek(&a, a.n_tokens), 2 * KIT_CHUNK_TOKENS);
    assert_int_equal(kit.n_events, 0);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 2, 1, true, &answer), BATON_OK);
    assert_int_equal(answer.u.commit_answer.final, 1);
    assert_int_equal(kit.event.kind, BATON_RECEIVER_READY);
    assert_int_equal(kit.event.sent_chunks, 3);
    assert_int_equal(kit.event.sent_bytes, 3 * kit.rx->page_bytes);
    assert_int_equal(look_up(&a, a.n_tokens), a.n_tokens);
    rx_kit_close(&kit);
}

static void commit_is_idempotent(void **state)
{
    (void)state;
    open_kit(8);
    bt_message answer;
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, false, &answer), BATON_OK);
    assert_int_equal(answer.u.commit_answer.landed, 1);
    assert_int_equal(stats_now().bytes_landed_total, kit.rx->page_bytes);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 2, true, &answer), BATON_OK);
    assert_int_equal(kit.n_events, 1);
    assert_int_equal(stats_now().requests_ready_total, 1);
    rx_kit_close(&kit);
}

static void a_commit_repeated_after_decode_has_come_is_answered_again(void **state)
{
    (void)state;
    open_kit(8);
    bt_message answer;
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    look_up(&a, a.n_tokens);
    assert_int_equal(stats_now().tickets_live, 0);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 2, true, &answer), BATON_OK);
    assert_int_equal(answer.u.commit_answer.final, 1);
    assert_int_equal(answer.u.commit_answer.landed, 2);
    a.nonce[0] ^= 1;
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 2, true, &answer), BATON_ERR_STALE);
    rx_kit_close(&kit);
}

static void commits_that_name_nothing_change_nothing(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 2, 1, false, NULL), BATON_ERR_OUT_OF_RANGE);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 3, false, NULL), BATON_ERR_OUT_OF_RANGE);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 1, 1, true, NULL), BATON_ERR_STATE);
    assert_int_equal(peek(&a, a.n_tokens), 0); /* chunk 1 has landed, but 0 has not */
    a.nonce[3] ^= 1;
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, false, NULL), BATON_ERR_STALE);
    a.nonce[3] ^= 1;
    a.name.generation++;
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, false, NULL), BATON_ERR_STALE);
    a.name.generation--;
    a.name.ticket++;
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, false, NULL), BATON_ERR_STALE);
    a.name.ticket--;
    assert_int_equal(stats_now().messages_stale_total, 3);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, true, NULL), BATON_OK);
    rx_kit_close(&kit);
}

static baton_status commit_digests(const rx_kit_request *request, const uint64_t *digests,
                                   uint32_t n, bool final)
{
    const bt_chunk_range range = {.count = request->n_keys};
    uint8_t bytes[8 * KIT_CHUNKS_MAX];
    bt_message commit = rx_kit_message(&alice, BT_MSG_COMMIT), answer;
    for (uint32_t i = 0; i < 8 * n; i++)
        bytes[i] = (uint8_t)(digests[i / 8] >> (8 * (i % 8)));
    commit.u.commit = (bt_msg_commit){.name = request->name,
                                      .ranges = &range,
                                      .n_ranges = 1,
                                      .digests = bt_blob_of(bytes, 8 * n),
                                      .final = final};
    rx_kit_send(&kit, &alice, BT_RX_ALLOC_PORT, &commit);
    do {
        if (!rx_kit_take(&kit, &answer))
            fail_msg("COMMIT was not answered");
    } while (answer.type != BT_MSG_COMMIT_ANSWER);
    return (baton_status)answer.status;
}

static void digest_of(const rx_kit_request *request, uint32_t chunk, uint64_t *digest)
{
    static uint8_t bytes[65536];
    uint32_t tokens = chunk + 1 < request->n_keys ? KIT_CHUNK_TOKENS : request->last_tokens;
    size_t n = (size_t)(tokens * kit.rx->token_bytes);
    assert_true(n <= sizeof(bytes));
    memset(bytes, rx_kit_byte(request, chunk), n);
    *digest = bt_digest(bytes, n);
}

static void digests_are_checked_before_a_key_is_visible(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(8);
    options.digests = BATON_DIGESTS_FULL;
    open_with(&options);
    bt_expect_log("digest of chunk 1");
    uint64_t digests[3];
    for (int wrong = 0; wrong < 2; wrong++) {
        rx_kit_prompt(&a, (uint32_t)wrong + 1, 0, 2 * KIT_CHUNK_TOKENS + 3);
        rx_kit_alloc(&kit, &alice, &a);
        for (uint32_t i = 0; i < 3; i++) {
            rx_kit_write(&kit, &a, i);
            digest_of(&a, i, &digests[i]);
        }
        digests[1] ^= (uint64_t)wrong;
        baton_status status = commit_digests(&a, digests, 3, true);
        assert_int_equal(status, wrong ? BATON_ERR_DIGEST_MISMATCH : BATON_OK);
        assert_int_equal(peek(&a, a.n_tokens), wrong ? KIT_CHUNK_TOKENS : a.n_tokens);
    }
    assert_int_equal(stats_now().digests_failed_total, 1);
    assert_int_equal(stats_now().pages_quarantined, 2);
    assert_int_equal(kit.event.status, BATON_ERR_DIGEST_MISMATCH);
    assert_int_equal(kit.notice.status, BATON_ERR_DIGEST_MISMATCH);
    rx_kit_close(&kit);
}

static void sample_of(const rx_kit_request *request, uint32_t chunk, uint64_t *digest)
{
    static uint8_t bytes[65536];
    const baton_layout layout = rx_kit_layout();
    uint32_t tokens = chunk + 1 < request->n_keys ? KIT_CHUNK_TOKENS : request->last_tokens;
    size_t n = (size_t)(tokens * kit.rx->token_bytes);
    bt_sample *sample;
    memset(bytes, rx_kit_byte(request, chunk), n);
    assert_ok(bt_sample_create(
        layout.n_layers, layout.n_planes, n,
        bt_sample_seed(request->name.nonce.data, request->name.ticket, request->name.generation),
        &sample));
    *digest = bt_sample_digest_page(sample, bytes);
    bt_sample_destroy(sample);
}

/* What a mismatch does: what matched before is there, the rest is in quarantine, whoever is told
 * hears the peer's name. */
static void sampled_digests_are_checked_before_a_key_is_visible(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(8);
    options.digests = BATON_DIGESTS_SAMPLED;
    open_with(&options);
    bt_expect_log("digest of chunk 1");
    bt_expect_log("peer=kit");
    uint64_t digests[3];
    for (int wrong = 0; wrong < 2; wrong++) {
        rx_kit_prompt(&a, (uint32_t)wrong + 1, 0, 2 * KIT_CHUNK_TOKENS + 3);
        rx_kit_alloc(&kit, &alice, &a);
        for (uint32_t i = 0; i < 3; i++) {
            rx_kit_write(&kit, &a, i);
            sample_of(&a, i, &digests[i]);
        }
        digests[1] ^= (uint64_t)wrong << 63;
        baton_status status = commit_digests(&a, digests, 3, true);
        assert_int_equal(status, wrong ? BATON_ERR_DIGEST_MISMATCH : BATON_OK);
        assert_int_equal(peek(&a, a.n_tokens), wrong ? KIT_CHUNK_TOKENS : a.n_tokens);
    }
    assert_int_equal(stats_now().digests_failed_total, 1);
    assert_int_equal(stats_now().pages_quarantined, 2);
    assert_int_equal(kit.event.status, BATON_ERR_DIGEST_MISMATCH);
    assert_int_equal(kit.notice.status, BATON_ERR_DIGEST_MISMATCH);
    rx_kit_close(&kit);
}

static void digests_that_are_missing_are_refused(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(8);
    options.digests = BATON_DIGESTS_FULL;
    open_with(&options);
    bt_expect_log("wanted digests, found none");
    uint64_t digests[2] = {0};
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(commit_digests(&a, digests, 0, true), BATON_ERR_DIGEST_MISMATCH);
    assert_int_equal(peek(&a, a.n_tokens), 0);
    rx_kit_close(&kit);
}

static void the_first_to_commit_is_published(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_prompt(&b, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(stats_now().pages_reserved, 4); /* nobody waits for another's chunk */
    for (uint32_t i = 0; i < 2; i++) {
        rx_kit_write(&kit, &a, i);
        rx_kit_write(&kit, &b, i);
    }
    assert_int_equal(rx_kit_commit(&kit, &bob, &b, 0, 2, true, NULL), BATON_OK);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 2, true, NULL), BATON_OK);
    assert_int_equal(stats_now().chunks_duplicate_total, 2);
    assert_int_equal(stats_now().pages_landed, 2);
    assert_int_equal(stats_now().pages_free, 6);
    assert_int_equal(stats_now().holds_live, 2);
    rx_kit_close(&kit);
}

/* Every length around a chunk's end; decode asks for the prompt, or for the prompt and the first
 * generated token. */
static void lookups_match_the_tail_and_end_the_hold(void **state)
{
    (void)state;
    open_kit(32);
    uint32_t id = 0;
    for (uint32_t n = 2 * KIT_CHUNK_TOKENS - 1; n <= 3 * KIT_CHUNK_TOKENS + 1; n++) {
        for (uint32_t more = 0; more < 2; more++) {
            rx_kit_prompt(&a, ++id, 0, n);
            a.tokens[n] = 77;
            rx_kit_land(&kit, &alice, &a);
            assert_int_equal(stats_now().holds_live, 1);
            assert_int_equal(look_up(&a, n + more), n);
            assert_int_equal(stats_now().holds_live, 0);
            assert_int_equal(rx_kit_status(&kit, &alice, a.request).state, BT_REQUEST_PINNED);
        }
    }
    rx_kit_close(&kit);
}

static void a_lookup_of_less_leaves_the_hold(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    assert_int_equal(look_up(&a, KIT_CHUNK_TOKENS), KIT_CHUNK_TOKENS);
    assert_int_equal(look_up(&a, KIT_CHUNK_TOKENS + 5), KIT_CHUNK_TOKENS);
    assert_int_equal(stats_now().holds_live, 1);
    /* A longer prompt with the same beginning is another request's. */
    assert_int_equal(stats_now().lookup_hit_tokens_total, 2 * KIT_CHUNK_TOKENS);
    rx_kit_close(&kit);
}

/* Two requests of one prompt, and one of its beginning: each lookup ends one hold, the oldest of
 * its own length. */
static void each_lookup_ends_one_hold_of_its_own(void **state)
{
    (void)state;
    open_kit(8);
    static rx_kit_request half;
    rx_kit_prompt(&half, 3, KIT_TOKENS_MAX, KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &half);
    rx_kit_prompt(&a, 1, KIT_TOKENS_MAX, 2 * KIT_CHUNK_TOKENS);
    rx_kit_prompt(&b, 2, KIT_TOKENS_MAX, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    rx_kit_land(&kit, &bob, &b);
    assert_int_equal(look_up(&a, a.n_tokens), a.n_tokens);
    assert_int_equal(rx_kit_status(&kit, &alice, a.request).state, BT_REQUEST_PINNED);
    assert_int_equal(rx_kit_status(&kit, &alice, b.request).state, BT_REQUEST_READY);
    assert_int_equal(look_up(&a, a.n_tokens), a.n_tokens);
    assert_int_equal(rx_kit_status(&kit, &alice, b.request).state, BT_REQUEST_PINNED);
    assert_int_equal(rx_kit_status(&kit, &alice, half.request).state, BT_REQUEST_READY);
    assert_int_equal(look_up(&a, a.n_tokens), a.n_tokens); /* nobody's: nothing ends */
    assert_int_equal(rx_kit_status(&kit, &alice, half.request).state, BT_REQUEST_READY);
    rx_kit_close(&kit);
}

static void a_hold_that_nobody_takes_expires(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(2);
    options.timeouts.silent_ms = 1000000;
    open_with(&options);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED); /* what is held is not evicted */
    rx_kit_advance_ms(&kit, 29999);
    assert_int_equal(stats_now().holds_live, 1);
    rx_kit_advance_ms(&kit, 1);
    assert_int_equal(stats_now().holds_live, 0);
    assert_int_equal(stats_now().holds_expired_total, 1);
    assert_int_equal(kit.event.kind, BATON_RECEIVER_EXPIRED);
    assert_int_equal(kit.notice.status, BATON_ERR_LEASE_EXPIRED);
    assert_string_equal(kit.notice.request, a.request);
    bt_message answer;
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_read_alloc_answer(&b, &answer);
    assert_int_equal(b.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(stats_now().chunks_evicted_total, 1);
    assert_int_equal(rx_kit_status(&kit, &alice, a.request).state, BT_REQUEST_EXPIRED);
    rx_kit_close(&kit);
}

static void pinned_pages_stay_until_unpinned_or_expired(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(2);
    options.timeouts.silent_ms = 1000000;
    open_with(&options);
    bt_expect_log("pin expired");
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    baton_pin *pin;
    uint32_t matched;
    assert_ok(bt_rx_lookup(kit.rx, a.tokens, a.n_tokens, &pin, &matched));
    bt_rx_progress(kit.rx);
    assert_int_equal(stats_now().holds_live, 0);
    assert_int_equal(stats_now().pins_live, 1);
    rx_kit_prompt(&b, 2, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    rx_kit_advance_ms(&kit, 29999);
    rx_kit_expect_nothing(&kit);
    rx_kit_advance_ms(&kit, 1);
    bt_message answer;
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    assert_int_equal(stats_now().pins_expired_total, 1);
    assert_fails(bt_rx_unpin(kit.rx, pin), BATON_ERR_LEASE_EXPIRED, NULL);
    assert_int_equal(stats_now().pins_live, 0);
    rx_kit_close(&kit);
}

static void lookups_want_tokens(void **state)
{
    (void)state;
    open_kit(2);
    baton_pin *pin;
    uint32_t matched;
    assert_fails(bt_rx_lookup(kit.rx, NULL, 3, &pin, &matched), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_rx_lookup(kit.rx, a.tokens, 0, &pin, &matched), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_rx_peek(kit.rx, a.tokens, 0, &matched), BATON_ERR_INVALID_ARG, NULL);
    rx_kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_chunk_is_visible_when_it_is_committed),
        bt_test(commit_is_idempotent),
        bt_test(a_commit_repeated_after_decode_has_come_is_answered_again),
        bt_test(commits_that_name_nothing_change_nothing),
        bt_test(digests_are_checked_before_a_key_is_visible),
        bt_test(sampled_digests_are_checked_before_a_key_is_visible),
        bt_test(digests_that_are_missing_are_refused),
        bt_test(the_first_to_commit_is_published),
        bt_test(lookups_match_the_tail_and_end_the_hold),
        bt_test(a_lookup_of_less_leaves_the_hold),
        bt_test(each_lookup_ends_one_hold_of_its_own),
        bt_test(a_hold_that_nobody_takes_expires),
        bt_test(pinned_pages_stay_until_unpinned_or_expired),
        bt_test(lookups_want_tokens),
    };
    return bt_run_tests(tests);
}
