/* SPDX-License-Identifier: Apache-2.0 */
/* A ticket is good for one request, one sender's life, one receiver's life, one generation, and
 * once: everything else that is said with it is counted and changes nothing. */
#include "rxkit.h"

#include "support/test.h"

#include <string.h>

enum { CHUNKS = 2 };

static rx_kit kit;
static rx_kit_sender alice, bob;
static rx_kit_request a, b;

static void open_kit(void)
{
    const baton_receiver_options options = rx_kit_options(CHUNKS);
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&a, 1, 0, CHUNKS * KIT_CHUNK_TOKENS);
    rx_kit_prompt(&b, 2, 0, CHUNKS * KIT_CHUNK_TOKENS);
}

static baton_receiver_stats stats_now(void)
{
    baton_receiver_stats stats;
    rx_kit_stats(&kit, &stats);
    return stats;
}

static uint32_t visible(const rx_kit_request *request)
{
    uint32_t matched = 0;
    assert_ok(bt_rx_peek(kit.rx, request->tokens, request->n_tokens, &matched));
    return matched;
}

typedef enum { SAY_COMMIT, SAY_CANCEL, SAY_DRAINED, N_SAYS } say;

/* Says it with this name; a refusal must be STALE. */
static void say_it(say what, rx_kit_sender *sender, const rx_kit_request *request)
{
    if (what == SAY_COMMIT)
        assert_int_equal(rx_kit_commit(&kit, sender, request, 0, CHUNKS, true, NULL),
                         BATON_ERR_STALE);
    else if (what == SAY_CANCEL)
        assert_int_equal(rx_kit_cancel(&kit, sender, request, true), BATON_ERR_STALE);
    else
        rx_kit_drained(&kit, sender, request);
}

typedef enum {
    OTHER_TICKET,
    OTHER_GENERATION,
    OTHER_NONCE, /* one bit of it; as many guesses as it has bits */
    LAST_NONCE = OTHER_NONCE + 8 * BT_NONCE_BYTES - 1,
    OTHER_SENDER,          /* one that the receiver knows */
    OTHER_SENDER_NO_NONCE, /* as who takes leave of a grant that he never saw */
    OTHER_SENDER_EPOCH,
    OTHER_RECEIVER_EPOCH,
    N_GUESSES,
} guess;

/* a's name, or alice, with one thing changed. */
static void guess_wrong(guess wrong, rx_kit_sender *sender, rx_kit_request *request)
{
    static uint8_t nonce[BT_NONCE_BYTES];
    *sender = alice;
    *request = a;
    memcpy(nonce, a.name.nonce.data, sizeof(nonce));
    request->name.nonce = bt_blob_of(nonce, sizeof(nonce));
    if (wrong == OTHER_TICKET)
        request->name.ticket++;
    else if (wrong == OTHER_GENERATION)
        request->name.generation++;
    else if (wrong <= LAST_NONCE)
        nonce[(wrong - OTHER_NONCE) / 8] ^= (uint8_t)(1u << (wrong - OTHER_NONCE) % 8);
    else if (wrong == OTHER_SENDER || wrong == OTHER_SENDER_NO_NONCE)
        *sender = bob;
    else if (wrong == OTHER_SENDER_EPOCH)
        sender->epoch ^= 1;
    else
        sender->peer_epoch ^= 1;
    if (wrong == OTHER_SENDER_NO_NONCE)
        request->name.nonce = bt_blob_of(NULL, 0);
    sender->next_id = 1000000 + 10 * (uint64_t)wrong; /* never the id of something said before */
}

/* While its pages may be written, and while they wait for proof. */
static void a_wrong_guess_is_counted_and_changes_nothing(void **state)
{
    (void)state;
    for (int is_revoked = 0; is_revoked < 2; is_revoked++) {
        open_kit();
        rx_kit_alloc(&kit, &alice, &a);
        assert_int_equal(a.n_to_send, CHUNKS);
        for (uint32_t i = 0; i < CHUNKS; i++)
            assert_true(rx_kit_write(&kit, &a, i));
        if (is_revoked)
            assert_int_equal(rx_kit_cancel(&kit, &alice, &a, false), BATON_OK);
        for (guess wrong = 0; wrong < N_GUESSES; wrong++) {
            for (say what = 0; what < N_SAYS; what++) {
                rx_kit_sender sender;
                rx_kit_request request;
                if (wrong == OTHER_SENDER_NO_NONCE && what == SAY_COMMIT)
                    continue; /* no such frame: the reader drops it */
                guess_wrong(wrong, &sender, &request);
                uint64_t before = stats_now().messages_stale_total;
                say_it(what, &sender, &request);
                baton_receiver_stats now = stats_now();
                assert_int_equal(now.messages_stale_total, before + 1);
                assert_int_equal(is_revoked ? now.pages_quarantined : now.pages_reserved, CHUNKS);
                assert_int_equal(visible(&a), 0);
            }
        }
        if (is_revoked) {
            rx_kit_drained(&kit, &alice, &a);
            assert_int_equal(stats_now().pages_free, CHUNKS);
        } else {
            assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, CHUNKS, true, NULL), BATON_OK);
            assert_int_equal(visible(&a), CHUNKS * KIT_CHUNK_TOKENS);
        }
        rx_kit_close(&kit);
    }
}

/* It was good once. Its pages are another request's by now, of another sender or of the same. */
static void a_ticket_that_has_ended_is_good_for_nothing(void **state)
{
    (void)state;
    for (int is_same = 0; is_same < 2; is_same++) {
        for (int next_is_revoked = 0; next_is_revoked < 2; next_is_revoked++) {
            rx_kit_sender *next = is_same ? &alice : &bob;
            open_kit();
            rx_kit_alloc(&kit, &alice, &a);
            assert_int_equal(rx_kit_cancel(&kit, &alice, &a, false), BATON_OK);
            rx_kit_drained(&kit, &alice, &a);
            rx_kit_alloc(&kit, next, &b);
            assert_int_equal(b.n_to_send, CHUNKS);
            assert_int_equal(b.runs[0].page, a.runs[0].page);
            if (next_is_revoked)
                assert_int_equal(rx_kit_cancel(&kit, next, &b, false), BATON_OK);
            for (say what = 0; what < N_SAYS; what++) {
                say_it(what, &alice, &a);
                baton_receiver_stats now = stats_now();
                assert_int_equal(next_is_revoked ? now.pages_quarantined : now.pages_reserved,
                                 CHUNKS);
                assert_int_equal(visible(&a) + visible(&b), 0);
            }
            rx_kit_close(&kit);
        }
    }
}

/* The same ALLOC again, after its request's end: the answer of then, and no page. */
static void an_alloc_is_good_for_one_grant(void **state)
{
    (void)state;
    open_kit();
    rx_kit_alloc(&kit, &alice, &a);
    const uint64_t granted = stats_now().tickets_granted_total;
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    alice.next_id = a.alloc_id;
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.outcome, BT_ALLOC_REFUSED);
    assert_int_equal(a.status, BATON_ERR_CANCELED);
    assert_int_equal(stats_now().tickets_granted_total, granted);
    assert_int_equal(stats_now().pages_free, CHUNKS);
    rx_kit_close(&kit);
}

/* Neither numbers nor secrets of tickets follow from each other. */
static void no_ticket_tells_of_the_next(void **state)
{
    (void)state;
    open_kit();
    uint8_t seen[64][BT_NONCE_BYTES];
    for (uint32_t i = 0; i < 64; i++) {
        rx_kit_alloc(&kit, &alice, &a);
        assert_int_equal(a.name.nonce.bytes, BT_NONCE_BYTES);
        memcpy(seen[i], a.name.nonce.data, BT_NONCE_BYTES);
        for (uint32_t k = 0; k < i; k++)
            assert_memory_not_equal(seen[i], seen[k], BT_NONCE_BYTES);
        assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    }
    rx_kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_wrong_guess_is_counted_and_changes_nothing),
        bt_test(a_ticket_that_has_ended_is_good_for_nothing),
        bt_test(an_alloc_is_good_for_one_grant),
        bt_test(no_ticket_tells_of_the_next),
    };
    return bt_run_tests(tests);
}
