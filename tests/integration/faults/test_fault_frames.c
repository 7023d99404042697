/* SPDX-License-Identifier: Apache-2.0 */
/* Control frames that are garbage, cut, too large or said again, at the ports of a live decode
 * engine. */
#include "rawpeer.h"

#include <stdlib.h>

typedef struct {
    bt_node prefill, decode;
    raw_hello hello;
} frames_test;

static void open_test(frames_test *t)
{
    bt_node_start(&t->prefill, "prefill", (const char *const[]){"--set", "connect_ms=500ms", NULL});
    bt_node_start(&t->decode, "decode", NULL);
    raw_hello_hear(&t->hello, &t->prefill);
}

static void close_test(frames_test *t)
{
    bt_check_hand_off(&t->prefill, &t->decode, 2, "good");
    bt_check_idle_prefill(&t->prefill);
    bt_check_idle_decode(&t->decode);
    raw_hello_close(&t->hello);
    bt_child_stop(t->prefill.child);
    bt_child_stop(t->decode.child);
}

static double stale(const frames_test *t)
{
    return bt_metric(&t->decode, "baton_receiver_messages_stale_total");
}

static double dropped(const frames_test *t)
{
    return bt_metric(&t->decode, "baton_receiver_messages_dropped_total");
}

static void ask_status(raw_sender *s)
{
    bt_message status = {.type = BT_MSG_STATUS, .u.request = bt_blob_of_text("unheard")};
    bt_message answer = raw_ask(s, RAW_ALLOC, &status, NULL);
    assert_int_equal(answer.status, BATON_OK);
    assert_int_equal(answer.u.status_answer.state, BT_REQUEST_UNKNOWN);
}

static unsigned send_garbage(raw_sender *s, int port, bt_blob good)
{
    static const bt_blob junk[] = {
        {(const uint8_t *)"", 0},
        {(const uint8_t *)"\xc1 no message", 12},
        {(const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18},
        {(const uint8_t *)"\xdf\xff\xff\xff\xff", 5},              /* a map of 4 G pairs */
        {(const uint8_t *)"\x81\xa4type\xdb\xff\xff\xff\xff", 11}, /* a text of 4 GiB */
        {(const uint8_t *)"\x91\x91\x91\x91\x91\x91\x91\x91\x90", 9},
        {(const uint8_t *)"\x82\xa1v\x01\xa1v\x01", 7},
    };
    unsigned n = 0;
    for (; n < sizeof(junk) / sizeof(junk[0]); n++)
        raw_send(s, port, junk[n].data, junk[n].bytes);
    for (size_t bytes = 1; bytes < good.bytes; bytes++, n++)
        raw_send(s, port, good.data, bytes);
    const bt_blob three[] = {good, good, good};
    assert_ok(bt_zmq_send(s->dealers[port], three, 3));
    return n + 1;
}

static void malformed_frames_are_counted_and_the_connection_lives(void **state)
{
    (void)state;
    frames_test t;
    raw_sender s;
    open_test(&t);
    raw_sender_open(&s, &t.decode, 77);
    raw_hello_say(&t.hello, &s, NULL);
    bt_blob good = bt_zmq_part(&t.hello.frame, 1);
    unsigned n = 0;
    for (int port = 0; port < RAW_N_PORTS; port++)
        n += send_garbage(&s, port, good);
    ask_status(&s);
    raw_hello_say(&t.hello, &s,
                  NULL); /* on the init port too, everything before it has been read */
    assert_true(dropped(&t) == n);
    raw_sender_close(&s);
    close_test(&t);
}

static void oversized_frames_reach_nobody(void **state)
{
    (void)state;
    frames_test t;
    raw_sender good, bad;
    open_test(&t);
    raw_sender_open(&good, &t.decode, 77);
    raw_hello_say(&t.hello, &good, NULL);
    uint8_t *big = calloc(1, BT_FRAME_BYTES_MAX + 1);
    assert_non_null(big);
    raw_send(&good, RAW_ALLOC, big, BT_FRAME_BYTES_MAX); /* the largest that is read at all */
    ask_status(&good);
    assert_true(dropped(&t) == 1);
    raw_sender_open(&bad, &t.decode, 78);
    raw_hello_say(&t.hello, &bad, NULL);
    double messages = bt_metric(&t.decode, "baton_receiver_messages_total");
    raw_send(&bad, RAW_ALLOC, big, BT_FRAME_BYTES_MAX + 1); /* cuts the connection */
    free(big);
    ask_status(&good);
    ask_status(&bad); /* on a new connection */
    assert_true(bt_metric(&t.decode, "baton_receiver_messages_total") == messages + 2);
    raw_sender_close(&bad);
    raw_sender_close(&good);
    close_test(&t);
}

static void replayed_frames_change_nothing(void **state)
{
    (void)state;
    enum { N_KEYS = 3 };
    frames_test t;
    raw_sender s;
    bt_packwriter hello, alloc_frame, cancel_frame;
    uint8_t keys[N_KEYS * BATON_KEY_BYTES] = {1};
    open_test(&t);
    raw_sender_open(&s, &t.decode, 77);
    raw_hello_say(&t.hello, &s, &hello);
    raw_send(&s, RAW_INIT, hello.bytes, hello.n);
    assert_int_equal(raw_hear(&s, RAW_INIT).status, BATON_OK);
    assert_true(bt_metric(&t.decode, "baton_receiver_peers") == 1);

    for (uint32_t i = 0; i < N_KEYS; i++)
        keys[i * BATON_KEY_BYTES] = (uint8_t)(i + 1);
    bt_message alloc = {.type = BT_MSG_ALLOC,
                        .u.alloc = {.request = bt_blob_of_text("replayed"),
                                    .keys = bt_blob_of(keys, sizeof(keys)),
                                    .last_tokens = 1,
                                    .deadline_ms = 60000,
                                    .notice = bt_blob_of_text("")}};
    bt_message answer = raw_ask(&s, RAW_ALLOC, &alloc, &alloc_frame);
    assert_int_equal(answer.u.alloc_answer.outcome, BT_ALLOC_GRANTED);
    uint64_t ticket = answer.u.alloc_answer.ticket;
    uint32_t generation = answer.u.alloc_answer.generation;
    uint8_t nonce[BT_NONCE_BYTES];
    memcpy(nonce, answer.u.alloc_answer.nonce.data, sizeof(nonce));
    raw_send(&s, RAW_ALLOC, alloc_frame.bytes, alloc_frame.n);
    answer = raw_hear(&s, RAW_ALLOC);
    assert_true(answer.u.alloc_answer.ticket == ticket);
    assert_true(bt_metric(&t.decode, "baton_receiver_tickets_granted_total") == 1);
    assert_true(bt_metric(&t.decode, "baton_receiver_pages_reserved") == N_KEYS);

    const bt_ticket_name name = {ticket, generation, bt_blob_of(nonce, sizeof(nonce))};
    bt_message cancel = {.type = BT_MSG_CANCEL,
                         .u.end = {.name = name, .drained = 1, .reason = BATON_ERR_CANCELED}};
    assert_int_equal(raw_ask(&s, RAW_ALLOC, &cancel, &cancel_frame).status, BATON_OK);
    double before = stale(&t);
    raw_send(&s, RAW_ALLOC, cancel_frame.bytes, cancel_frame.n);
    raw_hear(&s, RAW_ALLOC);
    raw_send(&s, RAW_ALLOC, alloc_frame.bytes, alloc_frame.n); /* its ticket has ended */
    assert_true(raw_hear(&s, RAW_ALLOC).status < 0);
    const bt_chunk_range range = {.count = N_KEYS};
    bt_message commit = {.type = BT_MSG_COMMIT,
                         .u.commit = {.name = name, .ranges = &range, .n_ranges = 1, .final = 1}};
    assert_int_equal(raw_ask(&s, RAW_ALLOC, &commit, NULL).status, BATON_ERR_STALE);
    s.peer_epoch++; /* meant for another life of the receiver */
    assert_int_equal(raw_ask(&s, RAW_ALLOC, &commit, NULL).status, BATON_ERR_STALE);
    assert_true(stale(&t) >= before + 2);
    assert_true(bt_metric(&t.decode, "baton_receiver_tickets_granted_total") == 1);
    assert_true(bt_metric(&t.decode, "baton_receiver_pages_reserved") == 0);
    assert_true(bt_metric(&t.decode, "baton_receiver_pages_landed") == 0);
    assert_true(dropped(&t) == 0);
    bt_pack_release(&hello);
    bt_pack_release(&alloc_frame);
    bt_pack_release(&cancel_frame);
    raw_sender_close(&s);
    close_test(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(malformed_frames_are_counted_and_the_connection_lives),
        bt_child_test(oversized_frames_reach_nobody),
        bt_child_test(replayed_frames_change_nothing),
    };
    return bt_run_tests(tests);
}
