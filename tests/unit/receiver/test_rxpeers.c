/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: epochs, silence, exit, renewed connections, and what each proves about pages. */
#include "rxkit.h"

#include "support/test.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static rx_kit kit;
static rx_kit_sender alice, bob;
static rx_kit_request a, b;

static void open_kit(uint32_t n_pages)
{
    const baton_receiver_options options = rx_kit_options(n_pages);
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
}

static baton_receiver_stats stats_now(void)
{
    baton_receiver_stats stats;
    rx_kit_stats(&kit, &stats);
    return stats;
}

static void drop_frames(void)
{
    bt_message message;
    while (rx_kit_take(&kit, &message))
        ;
}

static void heartbeat(rx_kit_sender *sender)
{
    bt_message message = rx_kit_message(sender, BT_MSG_HEARTBEAT);
    rx_kit_send(&kit, sender, BT_RX_ALLOC_PORT, &message);
}

/* Time passes, in which the sender says heartbeats that name this ticket, and nothing else. */
static void beat_for_ms(rx_kit_sender *sender, uint64_t ticket, uint64_t ms)
{
    enum { BEAT_MS = 500 };
    const bt_ticket_progress tickets[] = {{.ticket = ticket}};
    for (uint64_t left_ms = ms; left_ms > 0;) {
        uint64_t step_ms = left_ms < BEAT_MS ? left_ms : BEAT_MS;
        bt_message beat = rx_kit_message(sender, BT_MSG_HEARTBEAT);
        beat.u.heartbeat = (bt_msg_heartbeat){.tickets = tickets, .n_tickets = 1};
        drop_frames();
        rx_kit_send(&kit, sender, BT_RX_ALLOC_PORT, &beat);
        rx_kit_advance_ms(&kit, step_ms);
        left_ms -= step_ms;
    }
}

static void messages_of_other_epochs_change_nothing(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a); /* before INIT */
    assert_int_equal(a.status, BATON_ERR_STALE);
    rx_kit_init(&kit, &alice, BATON_OK);
    alice.peer_epoch++; /* meant for a receiver that is no more */
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_STALE);
    alice.peer_epoch--;
    alice.epoch++; /* a restarted sender that has not said INIT */
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_STALE);
    assert_int_equal(stats_now().messages_stale_total, 3);
    assert_int_equal(stats_now().tickets_live, 0);
    rx_kit_close(&kit);
}

static void say_behind(bt_rx_peer *peer, const bt_message *message)
{
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(message, &writer));
    pthread_mutex_lock(&kit.rx->lock);
    bt_rx_handle_behind(kit.rx, peer, writer.bytes, writer.n);
    pthread_mutex_unlock(&kit.rx->lock);
    bt_pack_release(&writer);
}

/* What comes behind the data is believed as little. */
static void a_commit_behind_the_data_of_another_epoch_changes_nothing(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    const bt_chunk_range range = {.count = 1};
    for (int i = 0; i < 3; i++) {
        bt_message commit = rx_kit_message(&alice, BT_MSG_COMMIT);
        commit.epoch += i == 0;
        commit.peer_epoch += i == 1;
        commit.u.commit =
            (bt_msg_commit){.name = a.name, .ranges = &range, .n_ranges = 1, .final = true};
        say_behind(kit.rx->peers, &commit);
        assert_int_equal(stats_now().messages_stale_total, i == 0 ? 1 : 2);
        assert_int_equal(stats_now().pages_reserved, i < 2);
    }
    rx_kit_close(&kit);
}

static void a_ticket_of_another_peer_is_out_of_reach(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(rx_kit_commit(&kit, &bob, &a, 0, 1, true, NULL), BATON_ERR_STALE);
    assert_int_equal(rx_kit_cancel(&kit, &bob, &a, true), BATON_ERR_STALE);
    assert_int_equal(stats_now().pages_reserved, 1);
    rx_kit_close(&kit);
}

static void heartbeats_keep_a_peer_and_name_tickets_that_are_unknown(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    for (int i = 0; i < 20; i++) {
        const bt_ticket_progress tickets[] = {{.ticket = a.name.ticket}, {.ticket = 999}};
        bt_message beat = rx_kit_message(&alice, BT_MSG_HEARTBEAT), answer;
        beat.u.heartbeat = (bt_msg_heartbeat){.tickets = tickets, .n_tickets = 2};
        rx_kit_send(&kit, &alice, BT_RX_ALLOC_PORT, &beat);
        rx_kit_expect(&kit, BT_MSG_HEARTBEAT_ANSWER, &answer);
        bt_list_cursor cursor = {0};
        bt_ticket_progress unknown;
        assert_true(bt_message_next_ticket(&answer.u.heartbeat, &cursor, &unknown));
        assert_int_equal(unknown.ticket, 999);
        assert_false(bt_message_next_ticket(&answer.u.heartbeat, &cursor, &unknown));
        rx_kit_advance_ms(&kit, 2000);
    }
    assert_int_equal(stats_now().pages_reserved, 1);
    rx_kit_close(&kit);
}

/* It may be stopped in the middle of a copy into a mapped page: nothing but its word or its exit is
 * proof, so its pages are never used again, and a fresh region takes the place of theirs. */
static void a_silent_peer_on_this_host_costs_its_region(void **state)
{
    (void)state;
    open_kit(8);
    kit.time.tick_ns = 1; /* what is noted within one round of work is later than its start */
    bt_expect_log("pages retired");
    bt_expect_log("replaced");
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    const void *old = kit.rx->regions[a.runs[0].region].memory->base;
    rx_kit_advance_ms(&kit, 4999);
    assert_int_equal(stats_now().pages_reserved, 3);
    rx_kit_advance_ms(&kit, 1);
    assert_int_equal(stats_now().pages_quarantined, 3);
    assert_int_equal(kit.event.status, BATON_ERR_PEER_SILENT);
    assert_int_equal(kit.notice.status, BATON_ERR_PEER_SILENT);
    rx_kit_advance_ms(&kit, 59999);
    assert_int_equal(stats_now().pages_quarantined, 3);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_advance_ms(&kit, 1);
    assert_int_equal(stats_now().peers, 0);
    assert_int_equal(stats_now().peers_lost_total, 1);
    rx_kit_advance_ms(&kit, 1); /* the region has emptied */
    /* Its memory stays, and the whole pool's capacity is back. */
    assert_ptr_equal(kit.rx->regions[a.runs[0].region].memory->base, old);
    assert_int_equal(stats_now().pages_total, 8);
    assert_int_equal(stats_now().pages_free, 8);
    drop_frames();
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&b, 2, 0, 8 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(b.outcome, BT_ALLOC_GRANTED);
    for (uint32_t i = 0; i < b.n_runs; i++)
        assert_ptr_not_equal(kit.rx->regions[b.runs[i].region].memory->base, old);
    bt_message memreg = rx_kit_message(&bob, BT_MSG_MEMREG), answer;
    rx_kit_send(&kit, &bob, BT_RX_INIT_PORT, &memreg);
    rx_kit_expect(&kit, BT_MSG_MEMREG_ANSWER, &answer);
    assert_int_equal(answer.u.memreg_answer.n_regions, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_not_equal(answer.u.memreg_answer.regions[i].base, (uintptr_t)old);
    rx_kit_close(&kit);
}

/* Proof that comes after the pages were given up: the memory and the slot come back. */
static void an_exit_later_gives_the_regions_memory_back(void **state)
{
    (void)state;
    open_kit(8);
    kit.time.tick_ns = 1;
    bt_expect_log("pages retired");
    bt_expect_log("replaced");
    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    rx_kit_init(&kit, &alice, BATON_OK);
    kit.rx->peers->pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    assert_true(kit.rx->peers->pidfd >= 0);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    const uint32_t old = a.runs[0].region;
    rx_kit_advance_ms(&kit, 5000);
    rx_kit_advance_ms(&kit, 60001);
    rx_kit_advance_ms(&kit, 5000);
    assert_int_equal(stats_now().peers, 0);
    assert_true(kit.rx->regions[old].is_emptied && kit.rx->regions[old].memory != NULL);
    assert_true(bt_rx_progress(kit.rx) != BT_NEVER_NS); /* it looks whether the process exits */
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    rx_kit_advance_ms(&kit, 500);
    assert_false(kit.rx->regions[old].used);
    assert_null(kit.rx->regions[old].memory);
    assert_int_equal(stats_now().pages_total, 8);
    assert_int_equal(stats_now().pages_free, 8);
    assert_int_equal(bt_rx_progress(kit.rx), BT_NEVER_NS);
    rx_kit_close(&kit);
}

/* Nobody watches these, so each costs its region for good: at the end of all slots the pool
 * shrinks, is said once, and goes on. */
static void regions_without_proof_have_a_bound(void **state)
{
    (void)state;
    open_kit(4);
    bt_expect_log("pages retired");
    bt_expect_log("replaced");
    bt_expect_log("all 64 regions are in use, or may still be written");
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++, alice.epoch++) {
        rx_kit_init(&kit, &alice, BATON_OK);
        rx_kit_prompt(&a, i, 0, KIT_CHUNK_TOKENS);
        rx_kit_alloc(&kit, &alice, &a);
        assert_int_equal(a.outcome, BT_ALLOC_GRANTED);
        rx_kit_advance_ms(&kit, 5000);
        rx_kit_advance_ms(&kit, 60001);
        rx_kit_advance_ms(&kit, 5000);
        drop_frames();
    }
    assert_true(bt_log_seen("all 64 regions") > 0);
    assert_true(stats_now().pages_free > 0 && stats_now().pages_free < 4);
    rx_kit_close(&kit);
}

static void a_silent_peer_that_speaks_again_settles_its_pages(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_advance_ms(&kit, 5000);
    assert_int_equal(stats_now().pages_quarantined, 2);
    drop_frames();
    heartbeat(&alice);
    drop_frames();
    rx_kit_advance_ms(&kit, 4000);
    bt_message revoke;
    rx_kit_expect(&kit, BT_MSG_REVOKE, &revoke);
    rx_kit_drained(&kit, &alice, &a);
    assert_int_equal(stats_now().pages_free, 4);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_close(&kit);
}

/* Its word is all that is missing: by being alive it keeps nobody's pages for ever. */
static void be_silent_about_writes(bool is_elsewhere)
{
    static rx_kit_request healthy;
    open_kit(6);
    kit.time.tick_ns = 1; /* what is noted within one round of work is later than its start */
    alice.boot = is_elsewhere ? "another-host" : NULL;
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 4 * KIT_CHUNK_TOKENS);
    a.deadline_ms = 1000;
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&healthy, 3, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &healthy);
    const void *old = kit.rx->regions[a.runs[0].region].memory->base;
    beat_for_ms(&alice, healthy.name.ticket, 60500);
    assert_int_equal(stats_now().pages_quarantined, 4);
    assert_int_equal(stats_now().pages_reserved, 2);
    drop_frames();
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&b, 2, 0, 6 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    kit.n_notices = 0;
    beat_for_ms(&alice, healthy.name.ticket, 500);

    /* What else the peer had is given up with it, and everybody hears why. */
    assert_int_equal(stats_now().peers, 1);
    assert_int_equal(stats_now().peers_lost_total, 1);
    assert_int_equal(kit.n_notices, 1);
    assert_string_equal(kit.notice.request, healthy.request);
    assert_int_equal(kit.notice.status, BATON_ERR_DRAIN_TIMEOUT);
    bt_message message;
    uint32_t n_revokes = 0;
    while (rx_kit_take(&kit, &message)) {
        n_revokes += message.type == BT_MSG_REVOKE && message.peer_epoch == alice.epoch &&
                     message.u.end.name.ticket == healthy.name.ticket &&
                     message.u.end.reason == BATON_ERR_DRAIN_TIMEOUT;
        if (message.type == BT_MSG_ALLOC_ANSWER)
            rx_kit_read_alloc_answer(&b, &message);
    }
    assert_int_equal(n_revokes, 1);

    /* All of the pool is there for whoever waits; what may still be written is not. */
    rx_kit_advance_ms(&kit, 1);
    if (rx_kit_take(&kit, &message))
        rx_kit_read_alloc_answer(&b, &message);
    assert_int_equal(b.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(stats_now().pages_total, 6);
    assert_int_equal(stats_now().pages_quarantined, 0);
    for (uint32_t i = 0; i < b.n_runs && !is_elsewhere; i++)
        assert_ptr_not_equal(kit.rx->regions[b.runs[i].region].memory->base, old);

    /* It does not know yet; its late word changes nothing, and it may come back. */
    heartbeat(&alice);
    rx_kit_expect(&kit, BT_MSG_HEARTBEAT_ANSWER, &message);
    assert_int_equal(message.status, BATON_ERR_STALE);
    rx_kit_drained(&kit, &alice, &a);
    assert_int_equal(stats_now().pages_reserved, 6);
    alice.connection = 2;
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_cancel(&kit, &bob, &b, true);
    rx_kit_prompt(&a, 4, 0, 6 * KIT_CHUNK_TOKENS);
    a.deadline_ms = 0;
    rx_kit_land(&kit, &alice, &a);
    assert_int_equal(stats_now().holds_live, 1);
    rx_kit_close(&kit);
}

static void a_peer_here_that_never_says_drained_costs_its_regions(void **state)
{
    (void)state;
    bt_expect_log("pages retired");
    bt_expect_log("replaced");
    be_silent_about_writes(false);
}

static void a_peer_elsewhere_that_never_says_drained_is_settled_by_its_worker(void **state)
{
    (void)state;
    be_silent_about_writes(true);
}

/* It cannot be watched from here, but its connection is gone and is not made again. */
static void a_peer_elsewhere_that_has_hung_up_is_gone(void **state)
{
    (void)state;
    open_kit(4);
    alice.boot = "other";
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    kit.has_hung_up = true;
    rx_kit_advance_ms(&kit, 999); /* two heartbeats are not missing yet */
    assert_int_equal(stats_now().peers, 1);
    kit.has_hung_up = false;
    rx_kit_advance_ms(&kit, 2000);
    assert_int_equal(stats_now().peers, 1);
    kit.has_hung_up = true;
    heartbeat(&alice); /* over a new connection */
    drop_frames();
    rx_kit_advance_ms(&kit, 500);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_advance_ms(&kit, 500);
    assert_int_equal(stats_now().peers, 0);
    assert_int_equal(stats_now().pages_free, 4);
    assert_int_equal(kit.event.status, BATON_ERR_PEER_GONE);
    assert_int_equal(kit.notice.status, BATON_ERR_PEER_GONE);
    rx_kit_close(&kit);
}

/* From another host nothing is mapped: with the worker, its last writes have ended. */
static void a_silent_peer_elsewhere_is_settled_by_its_worker(void **state)
{
    (void)state;
    open_kit(4);
    alice.boot = "another-host";
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_advance_ms(&kit, 5000);
    assert_int_equal(stats_now().peers, 0);
    assert_int_equal(stats_now().pages_free, 4);
    assert_int_equal(stats_now().tickets_live, 0);
    rx_kit_close(&kit);
}

static void an_exited_peer_leaves_only_what_is_complete(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, 5 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    bt_rx_peer *peer = kit.rx->peers;
    while (peer->epoch != alice.epoch)
        peer = peer->next;
    bt_rx_peer_exited(kit.rx, peer);
    rx_kit_check(&kit);
    assert_int_equal(stats_now().peers, 1);
    assert_int_equal(stats_now().holds_live, 1);
    assert_int_equal(stats_now().pages_free, 6);
    assert_int_equal(kit.event.status, BATON_ERR_PEER_GONE);
    assert_int_equal(rx_kit_release(&kit, &bob, a.request), 1);
    rx_kit_close(&kit);
}

static void a_renewed_connection_settles_what_the_old_one_wrote(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    bt_worker *old = kit.rx->peers->worker;
    uint8_t address[BT_ADDRESS_BYTES_MAX];
    size_t n = old->address_bytes;
    memcpy(address, old->address, n);
    alice.connection = 2;
    bt_message init = rx_kit_message(&alice, BT_MSG_INIT), message;
    init.u.init = (bt_msg_init){.name = bt_blob_of_text("kit"),
                                .world = 1,
                                .layout = rx_kit_layout(),
                                .seed = bt_blob_of(kit.rx->root.last.bytes, BATON_KEY_BYTES),
                                .connection = 2};
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
    bool answered = false;
    while (rx_kit_take(&kit, &message)) {
        if (message.type != BT_MSG_INIT_ANSWER)
            continue;
        answered = true;
        assert_int_equal(message.status, BATON_OK);
        assert_false(bt_blob_equals(message.u.init.worker, bt_blob_of(address, n)));
    }
    assert_true(answered);
    assert_int_equal(stats_now().peers, 1);
    assert_int_equal(stats_now().pages_quarantined, 0);
    assert_int_equal(stats_now().tickets_live, 0);
    assert_int_equal(stats_now().pages_free, 4);
    rx_kit_close(&kit);
}

/* A peer without tickets that goes silent is forgotten; its next message says so. */
static void an_idle_silent_peer_is_forgotten_and_may_come_back(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_advance_ms(&kit, 5000);
    assert_int_equal(stats_now().peers, 0);
    bt_message answer;
    heartbeat(&alice);
    rx_kit_expect(&kit, BT_MSG_HEARTBEAT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_STALE);
    rx_kit_init(&kit, &alice, BATON_OK);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_close(&kit);
}

static void no_one_reads(uint8_t route)
{
    const bt_rx_route where = {.n = 1, .bytes = {route}};
    bt_rx_deaf(kit.rx, BT_RX_ALLOC_PORT, &where);
    rx_kit_check(&kit);
}

/* What it says would be answered for ever, into memory of ours. */
static void who_does_not_read_is_not_listened_to(void **state)
{
    (void)state;
    open_kit(4);
    bt_expect_log("the sender does not read what it is told");
    alice.boot = "other";
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
    heartbeat(&alice); /* from here on it is known at the alloc port */
    heartbeat(&bob);
    drop_frames();
    rx_kit_prompt(&a, 1, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    no_one_reads(9); /* nobody's */
    assert_int_equal(stats_now().peers_deaf_total, 0);
    no_one_reads(1);
    no_one_reads(1); /* once is enough */
    assert_int_equal(stats_now().peers_deaf_total, 1);
    assert_int_equal(bt_log_seen("does not read"), 1);
    assert_int_equal(kit.notice.status, BATON_ERR_PEER_SILENT);
    assert_int_equal(stats_now().pages_quarantined, 4);
    rx_kit_prompt(&a, 3, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_STALE);
    const uint8_t nonce[BT_NONCE_BYTES] = {0};
    const rx_kit_request nobodys = {
        .name = {.ticket = 99, .generation = 1, .nonce = bt_blob_of(nonce, sizeof(nonce))}};
    bt_message commit = rx_kit_message(&alice, BT_MSG_COMMIT);
    const bt_chunk_range range = {.count = 1};
    commit.u.commit =
        (bt_msg_commit){.name = nobodys.name, .ranges = &range, .n_ranges = 1, .final = true};
    for (int i = 0; i < 9; i++) { /* it talks on, and ages all the same */
        rx_kit_advance_ms(&kit, 499);
        heartbeat(&alice);
        rx_kit_drained(&kit, &alice, &nobodys); /* heard, and no sign of life */
        say_behind(kit.rx->peers->next, &commit);
        heartbeat(&bob);
    }
    assert_int_equal(stats_now().peers, 2);
    rx_kit_advance_ms(&kit, 509);
    assert_int_equal(stats_now().peers, 1);
    assert_int_equal(stats_now().tickets_granted_total, 2); /* bob's turn has come */
    rx_kit_close(&kit);
}

static void who_reads_again_says_init(void **state)
{
    (void)state;
    open_kit(4);
    bt_expect_log("the sender does not read what it is told");
    rx_kit_init(&kit, &alice, BATON_OK);
    heartbeat(&alice);
    drop_frames();
    rx_kit_prompt(&a, 1, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    no_one_reads(1);
    assert_int_equal(stats_now().pages_quarantined, 4);
    rx_kit_drained(&kit, &alice, &a); /* proof is welcome from everybody */
    assert_int_equal(stats_now().pages_free, 4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_close(&kit);
}

static void garbage_is_counted_and_dropped(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    static uint8_t junk[4096];
    bt_rng rng = {3};
    uint64_t dropped = 0;
    for (int i = 0; i < 2000; i++) {
        size_t n = (size_t)bt_rng_below(&rng, 64);
        bt_rng_fill(&rng, junk, n);
        rx_kit_send_bytes(&kit, (bt_rx_port)(i % 2), 1, junk, n);
        dropped++;
    }
    /* A good message, cut off everywhere, and on the wrong port. */
    bt_packwriter writer;
    bt_message memreg = rx_kit_message(&alice, BT_MSG_MEMREG);
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&memreg, &writer));
    for (size_t n = 0; n < writer.n; n++, dropped++)
        rx_kit_send_bytes(&kit, BT_RX_INIT_PORT, 1, writer.bytes, n);
    rx_kit_send_bytes(&kit, BT_RX_ALLOC_PORT, 1, writer.bytes, writer.n);
    bt_pack_release(&writer);
    assert_int_equal(stats_now().messages_dropped_total, dropped + 1);
    rx_kit_expect_nothing(&kit);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_close(&kit);
}

static void a_receiver_without_work_asks_for_no_time(void **state)
{
    (void)state;
    open_kit(4);
    assert_int_equal(bt_rx_progress(kit.rx), BT_NEVER_NS);
    assert_true(bt_rx_arm(kit.rx));
    rx_kit_init(&kit, &alice, BATON_OK);
    assert_int_equal(bt_rx_progress(kit.rx), kit.time.now_ns + 500 * BT_NS_PER_MS);
    rx_kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(messages_of_other_epochs_change_nothing),
        bt_test(a_commit_behind_the_data_of_another_epoch_changes_nothing),
        bt_test(a_ticket_of_another_peer_is_out_of_reach),
        bt_test(heartbeats_keep_a_peer_and_name_tickets_that_are_unknown),
        bt_test(a_silent_peer_on_this_host_costs_its_region),
        bt_test(an_exit_later_gives_the_regions_memory_back),
        bt_test(regions_without_proof_have_a_bound),
        bt_test(a_silent_peer_that_speaks_again_settles_its_pages),
        bt_test(a_peer_elsewhere_that_has_hung_up_is_gone),
        bt_test(a_silent_peer_elsewhere_is_settled_by_its_worker),
        bt_test(a_peer_here_that_never_says_drained_costs_its_regions),
        bt_test(a_peer_elsewhere_that_never_says_drained_is_settled_by_its_worker),
        bt_test(an_exited_peer_leaves_only_what_is_complete),
        bt_test(a_renewed_connection_settles_what_the_old_one_wrote),
        bt_test(an_idle_silent_peer_is_forgotten_and_may_come_back),
        bt_test(who_does_not_read_is_not_listened_to),
        bt_test(who_reads_again_says_init),
        bt_test(garbage_is_counted_and_dropped),
        bt_test(a_receiver_without_work_asks_for_no_time),
    };
    return bt_run_tests(tests);
}
