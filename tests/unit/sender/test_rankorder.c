/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of two ranks: each rank has a receiver and a pool of its own, and a request is of use
 * only when both have it. Asked for in order of rank, two requests never hold what the other waits
 * for. */
#include "pairkit.h"

#include <stdio.h>

enum {
    N_RANKS = 2,
    N_ENGINES = 4, /* prefill engines: sender i of each rank */
    N_PAGES = 4,
    N_REQUESTS = 24,
    ROUNDS_MAX = 400, /* a guard against hanging */
};

typedef struct {
    bt_tx *tx;
    baton_transfer id;
} rank_transfer;

typedef struct {
    uint32_t engine, n_tokens, tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK];
    rank_transfer ranks[N_RANKS];
    uint8_t data[N_RANKS][PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
    bool is_read;
} request;

static pair ranks[N_RANKS];
static request requests[N_REQUESTS];

static void ask(void *ctx)
{
    const rank_transfer *next = ctx;
    assert_ok(bt_tx_post(next->tx, BT_TX_ASK, next->id));
}

static void begin_rank(request *r, const char *name, uint32_t rank, bool in_order)
{
    bt_tx *tx = ranks[rank].senders[r->engine].tx;
    baton_key keys[PAIR_MAX_CHUNKS];
    uint32_t n_keys, last;
    assert_ok(baton_keys_of_tokens(&tx->root, r->tokens, r->n_tokens, keys, PAIR_MAX_CHUNKS,
                                   &n_keys, &last));
    const baton_transfer_options options = {
        .request = name,
        .host = "127.0.0.1",
        .init_port = 1,
        .alloc_port = 2,
        .keys = keys,
        .n_chunks = n_keys,
        .last_tokens = last,
        .asks_later = in_order && rank > 0,
        .granted = in_order && rank + 1 < N_RANKS ? ask : NULL,
        .granted_ctx = in_order && rank + 1 < N_RANKS ? &r->ranks[rank + 1] : NULL};
    r->ranks[rank].tx = tx;
    assert_ok(bt_tx_begin(tx, &options, &r->ranks[rank].id));
    pair_push_all(&ranks[rank], r->engine, r->ranks[rank].id, r->tokens, r->n_tokens,
                  r->data[rank]);
}

static void begin(uint32_t i, uint32_t engine, uint32_t n_chunks, bool in_order)
{
    char name[16];
    request *r = &requests[i];
    *r = (request){.engine = engine, .n_tokens = n_chunks * PAIR_CHUNK};
    snprintf(name, sizeof(name), "%u", i);
    pair_tokens(i, 0, r->n_tokens, r->tokens);
    for (uint32_t rank = N_RANKS; rank-- > 0;)
        begin_rank(r, name, rank, in_order);
}

static void open_ranks(uint32_t n_engines)
{
    for (uint32_t rank = 0; rank < N_RANKS; rank++)
        pair_create(
            &ranks[rank],
            &(pair_options){.n_senders = n_engines, .n_pages = N_PAGES, .path = BATON_PATH_PUT});
}

static void close_ranks(void)
{
    for (uint32_t rank = 0; rank < N_RANKS; rank++) {
        pair_run(&ranks[rank]);
        pair_check_clean(&ranks[rank]);
        pair_destroy(&ranks[rank]);
    }
}

static bool is_ready(const request *r, uint32_t rank)
{
    char name[16];
    snprintf(name, sizeof(name), "%u", (uint32_t)(r - requests));
    for (const bt_rx_ticket *t = ranks[rank].rx->first_ticket; t != NULL; t = t->next) {
        if (strcmp(t->request, name) == 0)
            return t->state == BT_TICKET_HELD;
    }
    return false;
}

/* What a proxy and a decode engine do: both ranks' parts are taken together. */
static bool read_if_ready(request *r)
{
    for (uint32_t rank = 0; rank < N_RANKS; rank++) {
        if (!is_ready(r, rank))
            return false;
    }
    for (uint32_t rank = 0; rank < N_RANKS; rank++)
        assert_int_equal(pair_check(&ranks[rank], r->tokens, r->n_tokens), r->n_tokens);
    r->is_read = true;
    return true;
}

static void advance(uint64_t ms)
{
    for (uint32_t rank = 0; rank < N_RANKS; rank++)
        pair_advance(&ranks[rank], ms);
}

/* Two engines at the same time, each with a request as large as a pool; the frames of one of them
 * come first at rank 0, those of the other at rank 1. */
static void begin_crossed(bool in_order)
{
    open_ranks(2);
    for (uint32_t i = 0; i < 2; i++)
        begin(i, i, N_PAGES, in_order);
}

static bool holds_back(pair *k, const pair_frame *frame, const bt_message *message)
{
    return !frame->to_receiver || message->type != BT_MSG_ALLOC || frame->sender != k->filter_count;
}

/* The other's ALLOC is late at either rank: it is said again. */
static void cross(void)
{
    for (uint32_t rank = 0; rank < N_RANKS; rank++) {
        ranks[rank].filter = holds_back;
        ranks[rank].filter_count = 1 - rank;
        pair_run(&ranks[rank]);
        ranks[rank].filter = NULL;
    }
    advance(2000);
}

static void asked_at_once_two_requests_may_hold_what_the_other_waits_for(void **state)
{
    (void)state;
    begin_crossed(false);
    cross();
    assert_true(is_ready(&requests[0], 0) && is_ready(&requests[1], 1));
    assert_false(read_if_ready(&requests[0]) || read_if_ready(&requests[1]));
    advance(26000);
    assert_int_equal(ranks[0].n_expired + ranks[1].n_expired, 0);
    advance(3000); /* what ends it is the lease, and both have failed by halves */
    assert_int_equal(ranks[0].n_expired, 1);
    assert_int_equal(ranks[1].n_expired, 1);
    assert_int_equal(ranks[0].receiver_notice, BATON_ERR_LEASE_EXPIRED);
    advance(1000);
    for (uint32_t rank = 0; rank < N_RANKS; rank++)
        assert_ok(bt_rx_post_release(ranks[rank].rx, rank == 0 ? "1" : "0"));
    close_ranks();
}

static void asked_in_order_one_of_them_has_both(void **state)
{
    (void)state;
    begin_crossed(true);
    cross();
    assert_true(is_ready(&requests[0], 0));
    for (int turn = 0; turn < 4; turn++) { /* a grant at a rank is heard of at the next */
        for (uint32_t i = 0; i < 2; i++) {
            if (!requests[i].is_read)
                read_if_ready(&requests[i]);
        }
        advance(1000);
    }
    assert_true(requests[0].is_read && requests[1].is_read);
    close_ranks();
}

/* Any sizes, any order at either rank: all are served. */
static void crowds_of_requests_are_all_served(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        bt_rng rng = {.state = seed};
        open_ranks(N_ENGINES);
        for (uint32_t i = 0; i < N_REQUESTS; i++)
            begin(i, (uint32_t)bt_rng_below(&rng, N_ENGINES),
                  1 + (uint32_t)bt_rng_below(&rng, N_PAGES), true);
        uint32_t n_read = 0, rounds = 0;
        while (n_read < N_REQUESTS) {
            assert_true(rounds++ < ROUNDS_MAX);
            for (uint32_t i = 0; i < N_REQUESTS; i++) {
                if (!requests[i].is_read)
                    n_read += read_if_ready(&requests[i]);
            }
            uint32_t first = (uint32_t)bt_rng_below(&rng, N_RANKS);
            for (uint32_t n = 0; n < N_RANKS; n++) {
                pair *kit = &ranks[(first + n) % N_RANKS];
                kit->manual.now_ns += BT_NS_PER_MS;
                for (uint64_t turns = bt_rng_below(&rng, 4); turns > 0; turns--)
                    pair_turn(kit);
            }
        }
        for (uint32_t rank = 0; rank < N_RANKS; rank++) {
            assert_int_equal(ranks[rank].n_expired, 0);
            assert_int_equal(ranks[rank].n_failed, 0);
        }
        close_ranks();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(asked_at_once_two_requests_may_hold_what_the_other_waits_for),
        bt_test(asked_in_order_one_of_them_has_both),
        bt_test(crowds_of_requests_are_all_served),
    };
    return bt_run_tests(tests);
}
