/* SPDX-License-Identifier: Apache-2.0 */
/* Every way in which a hand-off can end, as a table: who learns of it, with which error, and after
 * how long. Each ends exactly once on either side, the proxy is told, and nothing is left. The
 * times are the stages' deadlines (docs/protocol.md, "Time"). */
#include "handoffkit.h"

#include <stdio.h>

enum {
    WHOLE = 2 * PAIR_CHUNK, /* tokens: all pages that there are */
    REQUEST_MS = 9020, /* the deadline, where that is what ends it; between two steps of the clock,
                          so that both sides find it passed at the same one */
    STEP_MS = 200,
    HEAL_MS = 8000, /* until both sides have met again and proof has come */
};

typedef struct {
    const char *name;
    baton_status sender;   /* how it ends there; OK: done */
    baton_status receiver; /* the event there; OK: none, or ready */
    uint64_t ms;           /* it ends within STEP_MS after this, and not before; 0: at once */
    void (*happens)(void);
    const char *log; /* NULL: no line */
} row;

static const pair_options two_senders = {.n_senders = 2,
                                         .n_pages = 2,
                                         .path = BATON_PATH_PUT,
                                         .commit = BATON_COMMIT_SOCKET,
                                         .digests = BATON_DIGESTS_FULL};
static baton_transfer transfer;
static bt_message_type lost_type;
static uint32_t others[WHOLE];

static bool lose_type(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)frame;
    return message->type != lost_type;
}

static void lose(bt_message_type type)
{
    lost_type = type;
    kit.filter = lose_type;
}

static void begin(uint32_t deadline_ms)
{
    transfer = pair_begin(&kit, 0, "r", tokens, WHOLE, deadline_ms);
    pair_run(&kit);
}

static void push(void)
{
    pair_push_all(&kit, 0, transfer, tokens, WHOLE, data[0]);
    pair_run(&kit);
}

static void cancel(void)
{
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
    pair_run(&kit);
}

/* Another sender's request has every page, and goes on. */
static void fill_pool(void)
{
    pair_tokens(9, 0, WHOLE, others);
    pair_begin(&kit, 1, "other", others, WHOLE, 0);
    pair_run(&kit);
}

static void canceled_without_connection(void)
{
    lose(BT_MSG_INIT);
    begin(0);
    cancel();
}

static void canceled_in_the_queue(void)
{
    fill_pool();
    begin(0);
    cancel();
}

static void canceled_while_moving(void)
{
    begin(0);
    cancel();
}

static void canceled_with_its_last_commit_under_way(void)
{
    lose(BT_MSG_COMMIT);
    begin(0);
    push();
    cancel();
}

static void too_late_without_connection(void)
{
    lose(BT_MSG_INIT);
    begin(2000);
}

static void too_late_in_the_queue(void)
{
    fill_pool();
    begin(REQUEST_MS);
}

static void too_late_while_computing(void)
{
    begin(REQUEST_MS);
}

static void begin_waiting(uint32_t wait_ms)
{
    baton_key keys[2];
    uint32_t n_keys, last;
    bt_tx *tx = kit.senders[0].tx;
    assert_ok(baton_keys_of_tokens(&tx->root, tokens, WHOLE, keys, 2, &n_keys, &last));
    const baton_transfer_options options = {.request = "r",
                                            .host = "127.0.0.1",
                                            .init_port = 1,
                                            .alloc_port = 2,
                                            .keys = keys,
                                            .n_chunks = n_keys,
                                            .last_tokens = last,
                                            .wait_ms = wait_ms};
    assert_ok(bt_tx_begin(tx, &options, &transfer));
    pair_run(&kit);
}

/* Its proxy is gone, and cannot say RELEASE: nobody waits after wait_ms. */
static void unwanted_in_the_queue(void)
{
    fill_pool();
    begin_waiting(3000);
    push();
}

static void a_chunk_that_was_never_pushed(void)
{
    begin(0);
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    pair_run(&kit);
}

static void nobody_answers(void)
{
    lose(BT_MSG_INIT);
    begin(0);
}

static void no_regions(void)
{
    lose(BT_MSG_MEMREG);
    begin(0);
}

static void no_answer_to_alloc(void)
{
    lose(BT_MSG_ALLOC);
    begin(0);
}

static void bytes_that_get_stuck(void)
{
    begin(0);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    push();
}

static void a_put_that_fails(void)
{
    begin(0);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.fail_nth_put = 1}));
    push();
}

static void no_answer_to_commit(void)
{
    lose(BT_MSG_COMMIT);
    begin(0);
    push();
}

static void nothing_is_heard(void)
{
    begin(0);
    kit.receiver_is_cut = true;
}

/* The kit's way of dying closes it, and what it says then gets lost. */
static void the_receiver_exits(void)
{
    begin(0);
    bt_tx_peer_exited(kit.senders[0].tx, kit.senders[0].tx->peers);
    pair_restart_receiver(&kit, &two_senders);
    pair_run(&kit);
}

static void the_receiver_restarts(void)
{
    begin(0);
    pair_restart_receiver(&kit, &two_senders);
}

static void the_sender_exits(void)
{
    begin(0);
    bt_rx_peer_exited(kit.rx, kit.rx->peers);
}

static void released_in_the_queue(void)
{
    fill_pool();
    begin(0);
    assert_ok(bt_rx_post_release(kit.rx, "r"));
    pair_run(&kit);
}

static void released_while_moving(void)
{
    begin(0);
    assert_ok(bt_rx_post_release(kit.rx, "r"));
    pair_run(&kit);
}

static void larger_than_the_pool(void)
{
    transfer = pair_begin(&kit, 0, "r", tokens, 3 * PAIR_CHUNK, 0);
    pair_run(&kit);
}

static void a_full_queue(void)
{
    kit.rx->options.max_queued = 0;
    fill_pool();
    begin(0);
    assert_in_range(kit.senders[0].notice_retry_ms, 500, 2000);
    assert_int_equal(kit.senders[0].end.retry_ms, kit.senders[0].notice_retry_ms);
}

static bool damage(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (frame->to_receiver && message->type == BT_MSG_COMMIT)
        ((uint8_t *)k->rx->regions[0].memory->base)[5] ^= 1;
    return true;
}

static void a_damaged_chunk(void)
{
    kit.filter = damage;
    begin(0);
    push();
}

static void the_receiver_closes(void)
{
    begin(0);
    bt_rx_ticket_fail(kit.rx, kit.rx->first_ticket, BATON_ERR_CLOSED, "the receiver is closing");
}

static void the_sender_closes(void)
{
    begin(0);
    bt_tx_close(kit.senders[0].tx);
    pair_run(&kit);
}

static void decode_does_not_come(void)
{
    begin(0);
    push();
}

static const row rows[] = {
    {"canceled, no connection", BATON_ERR_CANCELED, BATON_OK, 0, canceled_without_connection, NULL},
    {"canceled, queued", BATON_ERR_CANCELED, BATON_ERR_CANCELED, 0, canceled_in_the_queue, NULL},
    {"canceled, moving", BATON_ERR_CANCELED, BATON_ERR_CANCELED, 0, canceled_while_moving, NULL},
    {"canceled, committing", BATON_ERR_CANCELED, BATON_ERR_CANCELED, 0,
     canceled_with_its_last_commit_under_way, NULL},
    {"deadline, no connection", BATON_ERR_DEADLINE, BATON_OK, 2000, too_late_without_connection,
     NULL},
    {"deadline, queued", BATON_ERR_DEADLINE, BATON_ERR_DEADLINE, REQUEST_MS, too_late_in_the_queue,
     NULL},
    {"deadline, computing", BATON_ERR_DEADLINE, BATON_ERR_DEADLINE, REQUEST_MS,
     too_late_while_computing, NULL},
    {"nobody waits, queued", BATON_ERR_DEADLINE, BATON_ERR_CANCELED, 3000, unwanted_in_the_queue,
     NULL},
    {"a chunk is missing", BATON_ERR_STATE, BATON_ERR_CANCELED, 0, a_chunk_that_was_never_pushed,
     NULL},
    {"connect", BATON_ERR_CONNECT_TIMEOUT, BATON_OK, 5000, nobody_answers, "no answer to INIT"},
    {"init", BATON_ERR_INIT_TIMEOUT, BATON_OK, 5000, no_regions, "no answer to MEMREG"},
    {"alloc", BATON_ERR_ALLOC_TIMEOUT, BATON_OK, 5000, no_answer_to_alloc, NULL},
    {"flush", BATON_ERR_FLUSH_TIMEOUT, BATON_ERR_TRANSPORT, 10000, bytes_that_get_stuck,
     "flush: no progress"},
    {"put", BATON_ERR_TRANSPORT, BATON_ERR_TRANSPORT, 0, a_put_that_fails, "connection ended"},
    {"commit", BATON_ERR_COMMIT_TIMEOUT, BATON_ERR_CANCELED, 10000, no_answer_to_commit, NULL},
    {"silent receiver", BATON_ERR_PEER_SILENT, BATON_ERR_PEER_SILENT, 5000, nothing_is_heard,
     "nothing heard"},
    {"receiver exits", BATON_ERR_PEER_GONE, BATON_ERR_CLOSED, 0, the_receiver_exits,
     "process has exited"},
    {"receiver restarts", BATON_ERR_UNREACHABLE, BATON_ERR_CLOSED, 500, the_receiver_restarts,
     "connection ended"},
    {"sender exits", BATON_ERR_UNREACHABLE, BATON_ERR_PEER_GONE, 500, the_sender_exits,
     "connection ended"},
    {"released, queued", BATON_ERR_CANCELED, BATON_ERR_CANCELED, 0, released_in_the_queue, NULL},
    {"released, moving", BATON_ERR_CANCELED, BATON_ERR_CANCELED, 0, released_while_moving, NULL},
    {"too large", BATON_ERR_TOO_LARGE, BATON_OK, 0, larger_than_the_pool, NULL},
    {"queue full", BATON_ERR_OVERLOADED, BATON_OK, 0, a_full_queue, NULL},
    {"damaged", BATON_ERR_DIGEST_MISMATCH, BATON_ERR_DIGEST_MISMATCH, 0, a_damaged_chunk,
     "digest of chunk"},
    {"receiver closes", BATON_ERR_CLOSED, BATON_ERR_CLOSED, 0, the_receiver_closes, NULL},
    {"sender closes", BATON_ERR_CLOSED, BATON_ERR_CANCELED, 0, the_sender_closes, NULL},
    {"decode does not come", BATON_OK, BATON_ERR_LEASE_EXPIRED, 30000, decode_does_not_come, NULL},
};

static uint32_t n_ends(const row *r)
{
    return r->sender == BATON_OK ? kit.n_expired : kit.senders[0].n_done + kit.senders[0].n_failed;
}

static void check_ends(const row *r)
{
    const pair_sender *sender = &kit.senders[0];
    if (n_ends(r) != 1 || sender->n_done + sender->n_failed != 1 || sender->end.status != r->sender)
        fail_msg("%s: at the sender: done %u failed %u %s: %s", r->name, sender->n_done,
                 sender->n_failed, baton_status_name(sender->end.status), sender->end.text);
    if (sender->n_notices != 1 || sender->last_notice != r->sender)
        fail_msg("%s: the sender told the proxy %u times, last %s", r->name, sender->n_notices,
                 baton_status_name(sender->last_notice));
    if (kit.n_failed + kit.n_expired != (r->receiver != BATON_OK) ||
        (r->receiver != BATON_OK && kit.last_event.status != r->receiver))
        fail_msg("%s: at the receiver: ready %u failed %u expired %u %s", r->name, kit.n_ready,
                 kit.n_failed, kit.n_expired, baton_status_name(kit.last_event.status));
    /* Who cancels, says so; whatever else ends it here, the sender may not live to tell. */
    bool is_told = r->receiver != BATON_OK && r->receiver != BATON_ERR_CANCELED &&
                   r->receiver != BATON_ERR_CLOSED;
    if (kit.n_receiver_notices != is_told || (is_told && kit.receiver_notice != r->receiver))
        fail_msg("%s: the receiver told the proxy %u times, last %s", r->name,
                 kit.n_receiver_notices, baton_status_name(kit.receiver_notice));
}

/* 500: with the next answer to a heartbeat. */
static bool comes_with_a_heartbeat(const row *r)
{
    return r->ms == 500;
}

static void heal(void)
{
    kit.filter = NULL;
    kit.receiver_is_cut = false;
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
    bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
    pair_advance(&kit, HEAL_MS);
}

static void check_row(const row *r)
{
    pair_create(&kit, &two_senders);
    if (r->log != NULL)
        bt_expect_log(r->log);
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    r->happens();
    if (r->ms > 0 && !comes_with_a_heartbeat(r)) {
        pair_advance(&kit, r->ms - STEP_MS);
        if (n_ends(r) != 0)
            fail_msg("%s: too early", r->name);
    }
    pair_advance(&kit, comes_with_a_heartbeat(r) ? r->ms : 2 * STEP_MS);
    if (n_ends(r) != 1)
        fail_msg("%s: not in time", r->name);
    bt_tx_transfer *other = kit.senders[1].tx->first;
    if (other != NULL) { /* its own end is none of the request's */
        check_ends(r);
        assert_ok(bt_tx_post(kit.senders[1].tx, BT_TX_CANCEL, other->id));
        heal();
    } else {
        heal();
        check_ends(r);
    }
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void every_end_is_one_and_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check_row(&rows[i]);
}

/* The engine's next chunk is no stage of ours: heartbeats keep the pages for as long as it
 * computes, until the request's own deadline. */
static void prefill_may_compute_as_long_as_the_request_may_live(void **state)
{
    (void)state;
    pair_create(&kit, &two_senders);
    pair_tokens(1, 0, WHOLE, tokens);
    begin(0);
    for (uint32_t i = 0; i < 2; i++) {
        uint8_t *at = data[0] + i * PAIR_PAGE_BYTES;
        const bt_tx_source source = {.data = at, .bytes = pair_chunk(tokens, WHOLE, i, at)};
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, i, &source));
        for (int step = 0; step < 360; step++) { /* 144 s */
            kit.manual.now_ns += 400 * BT_NS_PER_MS;
            pair_run(&kit);
        }
        assert_int_equal(kit.senders[0].n_failed, 0);
    }
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, WHOLE), WHOLE);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* Somebody waits for so long from the last chunk on, however long it took to compute. */
static void who_waits_waits_from_the_last_chunk_on(void **state)
{
    (void)state;
    pair_create(&kit, &two_senders);
    pair_tokens(1, 0, WHOLE, tokens);
    begin_waiting(3000);
    pair_advance(&kit, 6000);
    assert_int_equal(kit.senders[0].n_failed, 0);
    push();
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, WHOLE), WHOLE);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_end_is_one_and_is_told),
        bt_test(prefill_may_compute_as_long_as_the_request_may_live),
        bt_test(who_waits_waits_from_the_last_chunk_on),
    };
    return bt_run_tests(tests);
}
