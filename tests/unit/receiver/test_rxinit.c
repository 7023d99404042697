/* SPDX-License-Identifier: Apache-2.0 */
/* INIT: what a sender must be to be let in, what it is told when it is not, and how many are. */
#include "rxkit.h"

#include "support/test.h"

#include <stdio.h>
#include <string.h>

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

static void init_answers_with_a_worker_and_what_is_agreed(void **state)
{
    (void)state;
    open_kit(4);
    alice.digests = BT_DIGESTS_TILES;
    bt_message answer;
    rx_kit_init(&kit, &alice, BATON_OK);
    assert_int_equal(stats_now().peers, 1);
    assert_int_equal(kit.n_watched, 1);
    /* Again: answered from what is there. */
    bt_worker *worker = kit.rx->peers->worker;
    rx_kit_init(&kit, &alice, BATON_OK);
    assert_ptr_equal(kit.rx->peers->worker, worker);
    assert_int_equal(stats_now().peers, 1);
    bt_message memreg = rx_kit_message(&alice, BT_MSG_MEMREG);
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &memreg);
    rx_kit_expect(&kit, BT_MSG_MEMREG_ANSWER, &answer);
    assert_int_equal(answer.u.memreg_answer.n_regions, 2);
    assert_int_equal(answer.u.memreg_answer.regions[0].page_bytes, kit.rx->page_bytes);
    rx_kit_close(&kit);
}

static void a_probe_measures_and_gets_no_pages(void **state)
{
    (void)state;
    open_kit(4);
    bt_message init = rx_kit_message(&alice, BT_MSG_INIT), answer;
    init.u.init = (bt_msg_init){.name = bt_blob_of_text("doctor"),
                                .rank = 3,
                                .world = 5,
                                .layout = rx_kit_layout(),
                                .seed = bt_blob_of(kit.rx->root.last.bytes, BATON_KEY_BYTES),
                                .connection = 1,
                                .probe = 1};
    init.u.init.layout.n_layers = 77;
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_OK);
    alice.peer_epoch = answer.epoch;
    bt_message memreg = rx_kit_message(&alice, BT_MSG_MEMREG);
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &memreg);
    rx_kit_expect(&kit, BT_MSG_MEMREG_ANSWER, &answer);
    assert_true(answer.u.memreg_answer.scratch.bytes > 0);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_PERMISSION);
    assert_int_equal(stats_now().tickets_live, 0);
    /* As soon as it is a sender like others, it gets what others get. */
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_OK);
    rx_kit_close(&kit);
}

static bt_message init_of_alice(void)
{
    bt_message init = rx_kit_message(&alice, BT_MSG_INIT);
    init.u.init = (bt_msg_init){.name = bt_blob_of_text("kit"),
                                .world = 1,
                                .layout = rx_kit_layout(),
                                .seed = bt_blob_of(kit.rx->root.last.bytes, BATON_KEY_BYTES),
                                .connection = 1};
    return init;
}

static void a_mismatch_is_refused_with_every_field(void **state)
{
    (void)state;
    open_kit(4);
    bt_expect_log("peer refused");
    bt_message init = init_of_alice(), answer;
    init.u.init.layout.n_layers = 3;
    init.u.init.layout.head_dim = 5;
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_LAYOUT_MISMATCH);
    char text[512];
    bt_blob_to_text(answer.text, text, sizeof(text));
    assert_non_null(strstr(text, "n_layers ours 2 theirs 3"));
    assert_non_null(strstr(text, "head_dim ours 4 theirs 5"));

    init.u.init.layout = rx_kit_layout();
    init.u.init.world = 2;
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_LAYOUT_MISMATCH);

    init.u.init.world = 1;
    uint8_t other[BATON_KEY_BYTES] = {1};
    init.u.init.seed = bt_blob_of(other, sizeof(other));
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_LAYOUT_MISMATCH);
    assert_int_equal(stats_now().peers, 0);
    rx_kit_close(&kit);
}

/* Block sizes may differ; nothing else may. */
static void every_field_of_a_layout_is_looked_at(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {{"dtype", offsetof(baton_layout, dtype)},
                  {"n_layers", offsetof(baton_layout, n_layers)},
                  {"n_planes", offsetof(baton_layout, n_planes)},
                  {"n_kv_heads", offsetof(baton_layout, n_kv_heads)},
                  {"head_dim", offsetof(baton_layout, head_dim)},
                  {"chunk_tokens", offsetof(baton_layout, chunk_tokens)},
                  {"tp_size", offsetof(baton_layout, tp_size)},
                  {"pp_size", offsetof(baton_layout, pp_size)}};
    open_kit(4);
    bt_expect_log("peer refused");
    bt_message init = init_of_alice(), answer;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char text[512], wanted[64];
        init.u.init.layout = rx_kit_layout();
        uint32_t *value = (uint32_t *)((uint8_t *)&init.u.init.layout + fields[i].offset);
        *value = *value == 1 ? 2 : 1;
        rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
        rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
        assert_int_equal(answer.status, BATON_ERR_LAYOUT_MISMATCH);
        bt_blob_to_text(answer.text, text, sizeof(text));
        snprintf(wanted, sizeof(wanted), "%s ours ", fields[i].name);
        assert_non_null(strstr(text, wanted));
    }
    init.u.init.layout = rx_kit_layout();
    init.u.init.layout.model[0] ^= 1;
    rx_kit_send(&kit, &alice, BT_RX_INIT_PORT, &init);
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_LAYOUT_MISMATCH);
    assert_int_equal(stats_now().peers, 0);
    rx_kit_close(&kit);
}

static void digests_of_another_definition_are_refused(void **state)
{
    (void)state;
    open_kit(4);
    bt_expect_log("digests: wanted 0 (off), 2 (of tiles) or 3 (sampled), found 1");
    alice.digests = BT_DIGESTS_WHOLE;
    rx_kit_init(&kit, &alice, BATON_ERR_VERSION_MISMATCH);
    assert_int_equal(stats_now().peers, 0);
    rx_kit_close(&kit);
}

/* Sends the frame with another value behind a key of it; the answer's text. */
static void init_with(const bt_packwriter *good, const char *key, uint8_t value, char text[512])
{
    bt_message answer;
    uint8_t *at = memmem(good->bytes, good->n, key, strlen(key));
    assert_non_null(at);
    uint8_t *slot = &at[strlen(key)], before = *slot;
    *slot = value;
    rx_kit_send_bytes(&kit, BT_RX_INIT_PORT, 1, good->bytes, good->n);
    *slot = before;
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_VERSION_MISMATCH);
    assert_int_equal(answer.id, 1);
    bt_blob_to_text(answer.text, text, 512);
}

/* In our own version: it is newer than it says. Silence would let it wait until its timeout. */
static void an_init_that_is_not_understood_is_answered(void **state)
{
    (void)state;
    char text[512];
    bt_packwriter writer;
    open_kit(4);
    bt_expect_log("peer refused");
    bt_message init = init_of_alice();
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&init, &writer));
    init_with(&writer, "probe", 9, text);
    assert_non_null(strstr(text, "wanted 0 to 1, found 9"));
    assert_non_null(strstr(text, "field probe"));
    assert_non_null(strstr(text, "use one version of Baton on both ends"));
    init_with(&writer, "n_planes", 3, text);
    assert_non_null(strstr(text, "wanted 1 to 2, found 3"));
    init_with(&writer, "digests", 0xc0, text); /* nil */
    assert_non_null(strstr(text, "field digests"));
    init_with(&writer, "rank", 5, text);
    assert_non_null(strstr(text, "rank is not below world"));
    assert_int_equal(stats_now().peers, 0);
    bt_pack_release(&writer);
    rx_kit_close(&kit);
}

static void another_protocol_version_is_told_both(void **state)
{
    (void)state;
    open_kit(4);
    bt_expect_log("protocol version: ours 1 theirs 2");
    bt_message answer;
    static const uint8_t v2[] = "\x84\xa4type\xa4INIT\xa1v\x02\xa5"
                                "epoch\x07\xa2id\x01";
    rx_kit_send_bytes(&kit, BT_RX_INIT_PORT, 1, v2, sizeof(v2) - 1);
    rx_kit_expect(&kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_VERSION_MISMATCH);
    rx_kit_close(&kit);
}

static void only_so_many_peers_are_let_in(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(2);
    options.max_peers = 1;
    rx_kit_open(&kit, &options);
    bt_expect_log("peer refused");
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_ERR_OVERLOADED);
    assert_int_equal(stats_now().peers, 1);
    rx_kit_close(&kit);
}

/* Each would cost a worker; the lines about those that are refused are one a second. */
static void one_connection_speaks_for_so_many_senders(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(2);
    rx_kit_open(&kit, &options);
    bt_expect_log("this connection speaks for 8 senders");
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    for (uint32_t i = 0; i < 10000; i++, alice.epoch++)
        rx_kit_init(&kit, &alice, i < BT_RX_PEERS_PER_ROUTE ? BATON_OK : BATON_ERR_OVERLOADED);
    bob.epoch = alice.epoch;
    rx_kit_init(&kit, &bob, BATON_OK);
    assert_int_equal(stats_now().peers, BT_RX_PEERS_PER_ROUTE + 1);
    rx_kit_close(&kit);
}

/* Who works, and who was heard just now, stays. */
static void the_quietest_idle_peer_makes_room(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(2);
    options.max_peers = 2;
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    rx_kit_sender carol = rx_kit_sender_make(3), dave = rx_kit_sender_make(4);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_advance_ms(&kit, 2 * kit.rx->options.timeouts.heartbeat_ms);
    rx_kit_init(&kit, &carol, BATON_OK);
    assert_int_equal(stats_now().peers, 2);
    assert_int_equal(stats_now().peers_lost_total, 1);
    bt_expect_log("2 are allowed");
    rx_kit_init(&kit, &dave, BATON_ERR_OVERLOADED);
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    rx_kit_prompt(&a, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &a);
    assert_int_equal(a.status, BATON_ERR_STALE); /* it says INIT again */
    rx_kit_close(&kit);
}

/* An epoch can be read in logs and notices. */
static void with_keys_an_epoch_is_of_who_said_init(void **state)
{
    (void)state;
    open_kit(4);
    bt_message message, answer;
    alice.user = "alice's key";
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_sender mallory = alice;
    mallory.user = "mallory's key";
    mallory.route = 9;
    mallory.next_id = 1000;
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &mallory, &b);
    assert_int_equal(b.status, BATON_ERR_STALE);
    assert_int_equal(rx_kit_commit(&kit, &mallory, &a, 0, 1, true, NULL), BATON_ERR_STALE);
    assert_int_equal(rx_kit_cancel(&kit, &mallory, &a, true), BATON_ERR_STALE);
    const bt_ticket_progress named = {.ticket = a.name.ticket};
    message = rx_kit_message(&mallory, BT_MSG_HEARTBEAT);
    message.u.heartbeat = (bt_msg_heartbeat){.tickets = &named, .n_tickets = 1};
    rx_kit_send(&kit, &mallory, BT_RX_ALLOC_PORT, &message);
    rx_kit_expect(&kit, BT_MSG_HEARTBEAT_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_STALE);
    message = rx_kit_message(&mallory, BT_MSG_MEMREG);
    rx_kit_send(&kit, &mallory, BT_RX_INIT_PORT, &message);
    rx_kit_expect(&kit, BT_MSG_MEMREG_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_STALE);
    bt_expect_log("another key");
    mallory.connection++; /* would cut alice's worker */
    rx_kit_init(&kit, &mallory, BATON_ERR_AUTH);
    assert_int_equal(stats_now().pages_reserved, 1);
    rx_kit_write(&kit, &a, 0);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, true, NULL), BATON_OK);
    rx_kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(init_answers_with_a_worker_and_what_is_agreed),
        bt_test(a_probe_measures_and_gets_no_pages),
        bt_test(a_mismatch_is_refused_with_every_field),
        bt_test(every_field_of_a_layout_is_looked_at),
        bt_test(digests_of_another_definition_are_refused),
        bt_test(an_init_that_is_not_understood_is_answered),
        bt_test(another_protocol_version_is_told_both),
        bt_test(only_so_many_peers_are_let_in),
        bt_test(one_connection_speaks_for_so_many_senders),
        bt_test(the_quietest_idle_peer_makes_room),
        bt_test(with_keys_an_epoch_is_of_who_said_init),
    };
    return bt_run_tests(tests);
}
