/* SPDX-License-Identifier: Apache-2.0 */
/* Random senders against the receiver: they write late, cancel, fall silent, exit and come back.
 * A writer writes its own bytes for as long as nothing proves that it cannot, revoked or not; a
 * lookup that ever sees another key's bytes has read a page that was used again too early. */
#include "rxkit.h"

#include "support/test.h"

#include <stdio.h>

enum { N_SENDERS = 4, N_SLOTS = 24, N_PROMPTS = 30, N_PAGES = 24, N_STEPS = 60000, N_PINS = 4 };

typedef struct {
    bool used, revoked, canceled;
    bool may_write; /* granted, and no proof that it is done */
    int sender;
    bool committed[KIT_CHUNKS_MAX], written[KIT_CHUNKS_MAX];
    rx_kit_request request;
} slot;

static rx_kit kit;
static rx_kit_sender senders[N_SENDERS];
static bool is_quiet[N_SENDERS];
static slot slots[N_SLOTS];
static baton_pin *pins[N_PINS];
static bt_rng rng;
static uint32_t next_request;

static uint32_t below(uint32_t n)
{
    return (uint32_t)bt_rng_below(&rng, n);
}

static void free_slot(slot *s)
{
    if (!s->may_write)
        s->used = false;
}

static void on_alloc_answer(const bt_message *message)
{
    for (int i = 0; i < N_SLOTS; i++) {
        slot *s = &slots[i];
        if (!s->used || senders[s->sender].route != kit.taken.route ||
            s->request.alloc_id != message->id)
            continue;
        rx_kit_read_alloc_answer(&s->request, message);
        s->may_write = s->request.outcome == BT_ALLOC_GRANTED;
        if (s->request.outcome == BT_ALLOC_REFUSED)
            free_slot(s);
        for (uint32_t chunk = 0; chunk < s->request.n_keys; chunk++)
            s->committed[chunk] = true; /* present, unless a run says otherwise */
        for (uint32_t r = 0; r < s->request.n_runs; r++)
            memset(&s->committed[s->request.runs[r].first], 0, s->request.runs[r].count);
    }
}

static void on_revoke(const bt_message *message)
{
    for (int i = 0; i < N_SLOTS; i++) {
        slot *s = &slots[i];
        if (s->used && senders[s->sender].route == kit.taken.route &&
            s->request.name.ticket == message->u.end.name.ticket)
            s->revoked = true;
    }
}

static void take_frames(void)
{
    bt_message message;
    while (rx_kit_take(&kit, &message)) {
        if (message.type == BT_MSG_ALLOC_ANSWER)
            on_alloc_answer(&message);
        else if (message.type == BT_MSG_REVOKE)
            on_revoke(&message);
    }
}

static void say(int sender, bt_message *message)
{
    rx_kit_send(&kit, &senders[sender], BT_RX_ALLOC_PORT, message);
    take_frames();
}

static void begin(slot *s)
{
    uint32_t id = below(N_PROMPTS);
    if (s->used)
        return;
    memset(s, 0, sizeof(*s));
    rx_kit_prompt(&s->request, id, id % 3 * KIT_CHUNK_TOKENS, 1 + id * 37 % 70);
    snprintf(s->request.request, sizeof(s->request.request), "r%u", next_request++);
    s->used = true;
    s->sender = (int)below(N_SENDERS);
    bt_message alloc = rx_kit_message(&senders[s->sender], BT_MSG_ALLOC);
    s->request.alloc_id = alloc.id;
    alloc.u.alloc = (bt_msg_alloc){
        .request = bt_blob_of_text(s->request.request),
        .keys = bt_blob_of(s->request.keys, (size_t)s->request.n_keys * BATON_KEY_BYTES),
        .last_tokens = s->request.last_tokens,
        .deadline_ms = 1 + below(60000),
        .may_queue = below(4) > 0,
        .notice = bt_blob_of_text(""),
    };
    say(s->sender, &alloc);
}

static void write_some(slot *s)
{
    if (!s->used || !s->may_write)
        return;
    for (uint32_t chunk = 0; chunk < s->request.n_keys; chunk++) {
        if (!s->committed[chunk] && below(2) == 0)
            s->written[chunk] = rx_kit_write(&kit, &s->request, chunk);
    }
}

static bt_rx_peer *peer_of(int sender)
{
    bt_rx_peer *peer = kit.rx->peers;
    while (peer != NULL && peer->epoch != senders[sender].epoch)
        peer = peer->next;
    return peer;
}

static void commit_some(slot *s)
{
    bt_chunk_range ranges[KIT_CHUNKS_MAX];
    uint32_t n = 0;
    bool all = true;
    if (s->used && s->may_write && below(20) == 0 && peer_of(s->sender) == NULL)
        s->used = s->may_write = false; /* a late writer may also just never write again */
    if (!s->used || !s->may_write || s->revoked || s->canceled)
        return;
    for (uint32_t chunk = 0; chunk < s->request.n_keys; chunk++) {
        if (s->written[chunk] && !s->committed[chunk]) {
            ranges[n++] = (bt_chunk_range){.first = chunk, .count = 1};
            s->committed[chunk] = true; /* not written any more, whatever the answer */
        }
        all = all && s->committed[chunk];
    }
    bt_message commit = rx_kit_message(&senders[s->sender], BT_MSG_COMMIT);
    commit.u.commit =
        (bt_msg_commit){.name = s->request.name, .ranges = ranges, .n_ranges = n, .final = all};
    say(s->sender, &commit);
    if (all && !s->revoked) {
        s->may_write = false;
        free_slot(s);
    }
}

static void cancel(slot *s)
{
    if (!s->used || s->canceled || s->request.outcome == BT_ALLOC_REFUSED)
        return;
    bt_message message = rx_kit_message(&senders[s->sender], BT_MSG_CANCEL);
    bool drained = below(2) == 0;
    message.u.end =
        (bt_msg_end){.name = s->request.name, .drained = drained, .reason = BATON_ERR_CANCELED};
    s->canceled = true;
    if (drained)
        s->may_write = false;
    say(s->sender, &message);
    free_slot(s);
}

static void drained(slot *s)
{
    for (int i = 0; i < N_SLOTS && (!s->used || (!s->revoked && !s->canceled)); i++)
        s = &slots[i];
    if (!s->used || (!s->revoked && !s->canceled))
        return;
    bt_message message = rx_kit_message(&senders[s->sender], BT_MSG_DRAINED);
    message.u.drained = s->request.name;
    s->may_write = false;
    say(s->sender, &message);
    free_slot(s);
}

/* Nothing of this sender reaches memory any more. */
static void sender_is_proven(int sender)
{
    for (int i = 0; i < N_SLOTS; i++) {
        if (slots[i].used && slots[i].sender == sender) {
            slots[i].may_write = false;
            free_slot(&slots[i]);
        }
    }
}

static void connect_sender(int sender)
{
    bt_message init = rx_kit_message(&senders[sender], BT_MSG_INIT), answer;
    init.u.init = (bt_msg_init){
        .name = bt_blob_of_text("random"),
        .world = 1,
        .layout = rx_kit_layout(),
        .seed = bt_blob_of(kit.rx->root.last.bytes, BATON_KEY_BYTES),
        .connection = senders[sender].connection,
        .process = {.boot = bt_blob_of_text(sender % 2 ? "another-host" : kit.rx->self.boot),
                    .pid_ns = 1,
                    .start = 1,
                    .pid = 1},
    };
    rx_kit_send(&kit, &senders[sender], BT_RX_INIT_PORT, &init);
    while (rx_kit_take(&kit, &answer)) {
        if (answer.type == BT_MSG_ALLOC_ANSWER)
            on_alloc_answer(&answer);
        if (answer.type == BT_MSG_INIT_ANSWER) {
            assert_int_equal(answer.status, BATON_OK);
            senders[sender].peer_epoch = answer.epoch;
        }
    }
}

static void restart(int sender)
{
    bt_rx_peer *peer = peer_of(sender);
    if (peer != NULL)
        bt_rx_peer_exited(kit.rx, peer);
    take_frames();
    sender_is_proven(sender);
    senders[sender].epoch += 100;
    senders[sender].connection = 1;
    connect_sender(sender);
}

/* A forced close: the sender tells what of it has ended. */
static void reconnect(int sender)
{
    senders[sender].connection++;
    sender_is_proven(sender);
    connect_sender(sender);
}

static uint32_t name_tickets(int sender, bt_ticket_progress *tickets)
{
    uint32_t n = 0;
    for (int i = 0; i < N_SLOTS; i++) {
        if (slots[i].used && slots[i].sender == sender)
            tickets[n++] = (bt_ticket_progress){.ticket = slots[i].request.name.ticket};
    }
    return n;
}

static void pass_time(void)
{
    for (int i = 0; i < N_SENDERS; i++) {
        bt_ticket_progress tickets[N_SLOTS];
        bt_message beat = rx_kit_message(&senders[i], BT_MSG_HEARTBEAT);
        beat.u.heartbeat =
            (bt_msg_heartbeat){.tickets = tickets, .n_tickets = name_tickets(i, tickets)};
        if (below(is_quiet[i] ? 5 : 100) == 0)
            is_quiet[i] = !is_quiet[i];
        if (!is_quiet[i])
            say(i, &beat);
    }
    rx_kit_advance_ms(&kit, 1 + below(below(20) == 0 ? 70000 : 2000));
    take_frames();
    for (int i = 0; i < N_SENDERS; i++) {
        if (peer_of(i) != NULL)
            continue;
        if (i % 2 == 1) /* another host: its worker's end was the proof */
            sender_is_proven(i);
        if (!is_quiet[i] && below(2) == 0)
            connect_sender(i);
    }
}

/* Writers that have been told to stop, or whose peer is gone, write once more. */
static void write_late(void)
{
    for (int i = 0; i < N_SLOTS; i++) {
        if (slots[i].revoked || slots[i].canceled || peer_of(slots[i].sender) == NULL)
            write_some(&slots[i]);
    }
}

static void look_up(void)
{
    static rx_kit_request prompt;
    uint32_t id = below(N_PROMPTS), at = below(N_PINS), matched;
    if (pins[at] != NULL) {
        baton_status status = bt_rx_unpin(kit.rx, pins[at]);
        assert_true(status == BATON_OK || status == BATON_ERR_LEASE_EXPIRED);
        pins[at] = NULL;
    }
    rx_kit_prompt(&prompt, id, id % 3 * KIT_CHUNK_TOKENS, 1 + id * 37 % 70);
    assert_ok(bt_rx_lookup(kit.rx, prompt.tokens, prompt.n_tokens, &pins[at], &matched));
    if (pins[at] == NULL)
        return;
    /* The last chunk may be a shorter prompt's end: what was matched has keys of its own. */
    uint32_t n_keys, last;
    assert_ok(baton_keys_of_tokens(&kit.rx->root, prompt.tokens, matched, prompt.keys,
                                   KIT_CHUNKS_MAX, &n_keys, &last));
    assert_int_equal(n_keys, baton_pin_chunks(pins[at]));
    for (uint32_t i = 0; i < baton_pin_chunks(pins[at]); i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pins[at], i, &chunk));
        const uint8_t *bytes = chunk.page;
        for (uint64_t k = 0; k < chunk.bytes; k++)
            assert_int_equal(bytes[k], rx_kit_byte(&prompt, i));
    }
}

static void release(void)
{
    const slot *s = &slots[below(N_SLOTS)];
    if (!s->used)
        return;
    bt_message message = rx_kit_message(&senders[s->sender], BT_MSG_RELEASE);
    message.u.request = bt_blob_of_text(s->request.request);
    say(s->sender, &message);
}

static void step(void)
{
    slot *s = &slots[below(N_SLOTS)];
    switch (below(16)) {
    case 0:
    case 1:
    case 2:
        begin(s);
        break;
    case 3:
    case 4:
    case 5:
        write_some(s);
        break;
    case 6:
    case 7:
    case 8:
        commit_some(s);
        break;
    case 9:
        if (below(3) == 0)
            cancel(s);
        break;
    case 10:
        if (below(3) == 0)
            drained(s);
        break;
    case 11:
    case 12:
        write_late();
        look_up();
        break;
    case 13:
        pass_time();
        break;
    case 14:
        if (below(20) == 0)
            restart((int)below(N_SENDERS));
        else if (below(20) == 0)
            reconnect((int)below(N_SENDERS));
        break;
    default:
        if (below(4) == 0)
            release();
    }
    rx_kit_check(&kit);
}

static void run(uint64_t seed)
{
    baton_receiver_options options = rx_kit_options(N_PAGES);
    options.n_regions = 4;
    options.timeouts.pin_ms = 10000;
    rx_kit_open(&kit, &options);
    rng.state = seed;
    memset(slots, 0, sizeof(slots));
    memset(is_quiet, 0, sizeof(is_quiet));
    for (int i = 0; i < N_SENDERS; i++) {
        senders[i] = rx_kit_sender_make((uint8_t)(i + 1));
        connect_sender(i);
    }
    for (int i = 0; i < N_STEPS; i++)
        step();
    baton_receiver_stats stats;
    rx_kit_stats(&kit, &stats);
    /* It was worth the while. */
    assert_true(stats.requests_ready_total > 100 && stats.requests_failed_total > 100);
    assert_true(stats.tickets_queued_total > 10 && stats.lookup_hit_tokens_total > 1000);
    assert_true(stats.chunks_evicted_total > 100 && stats.chunks_duplicate_total > 0);
    assert_true(stats.peers_lost_total > 10 && bt_log_seen("replaced") > 0);
    for (int i = 0; i < N_PINS; i++) {
        if (pins[i] != NULL)
            (void)bt_rx_unpin(kit.rx, pins[i]);
        pins[i] = NULL;
    }
    rx_kit_close(&kit);
}

static void no_lookup_sees_bytes_of_another_key(void **state)
{
    (void)state;
    bt_expect_log("pages retired");
    bt_expect_log("replaced");
    bt_expect_log("pin expired");
    for (uint64_t seed = 1; seed <= 3; seed++)
        run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {bt_test(no_lookup_sees_bytes_of_another_key)};
    return bt_run_tests(tests);
}
