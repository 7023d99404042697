/* SPDX-License-Identifier: Apache-2.0 */
/* A sender's and a receiver's state machine, joined, with a program of faults as the input: a byte
 * of options, then steps of a byte each, with their own bytes behind (`steps` below). Frames
 * between the two are lost, repeated, reordered and changed, and so is what lies in their rings;
 * puts are held up, fail, and lose their connection; the receiver restarts.
 *
 * After every step the receiver's pages add up. At the end the faults stop and time goes on: then
 * every transfer has ended once, every source is free, and nothing is held, whatever was said.
 * While no frame was changed or made up, what a lookup finds is what was pushed. */
#include "pairkit.h"

#include "core/log.h"
#include "fuzz/fuzzinput.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    N_TRANSFERS = 10,
    N_PROMPTS = 4,
    N_STEPS_MAX = 400,
    N_PAGES = 6,
    N_OLD = 4,          /* delivered frames that can come again */
    N_WAITING_MAX = 96, /* frames on the bus: a run of ours never makes so many more */
    END_STEP_MS = 400,
    END_STEPS = 600,
};

typedef struct {
    uint32_t sender, prompt, n_tokens, next_chunk, n_ends;
    baton_transfer id;
    uint8_t data[PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
} transfer;

static pair kit;
static pair_options options;
static transfer transfers[N_TRANSFERS];
static pair_frame old_frames[N_OLD];
static uint32_t n_transfers, n_old, n_pushed;
static baton_pin *pin;
static bool is_honest; /* nothing was changed or made up */

static void check(void)
{
    baton_receiver_stats s;
    fuzz_must(bt_store_verify(kit.rx->store) == BATON_OK);
    bt_rx_get_stats(kit.rx, &s);
    fuzz_must(s.pages_free + s.pages_reserved + s.pages_landed + s.pages_quarantined +
                  s.pages_retired ==
              s.pages_total);
    fuzz_must(s.moves_refused_total == 0);
    for (uint32_t i = 0; i < kit.n_senders; i++) {
        fuzz_must(kit.senders[i].tx->stats.moves_refused_total == 0);
        for (const bt_tx_transfer *t = kit.senders[i].tx->first; t != NULL; t = t->next)
            fuzz_must(t->n_committed <= t->n_posted && t->n_landed <= t->n_posted &&
                      t->n_posted + t->n_present <= t->n_chunks);
    }
}

static void give_back(void)
{
    if (pin != NULL)
        bt_rx_unpin(kit.rx, pin);
    pin = NULL;
}

static void deliver(const pair_frame *frame)
{
    pair_sender *sender = &kit.senders[frame->sender];
    old_frames[n_old++ % N_OLD] = *frame;
    if (frame->to_receiver)
        bt_rx_handle(kit.rx, (bt_rx_port)frame->port, &sender->routes[frame->port], frame->data,
                     frame->bytes);
    else if (sender->tx->peers != NULL)
        bt_tx_handle(sender->tx, sender->tx->peers, (bt_tx_port)frame->port, frame->data,
                     frame->bytes);
}

static void remove_frame(uint32_t i)
{
    memmove(&kit.frames[i], &kit.frames[i + 1], (--kit.n_frames - i) * sizeof(kit.frames[0]));
}

static void deliver_at(uint32_t i)
{
    static pair_frame frame;
    frame = kit.frames[i];
    remove_frame(i);
    deliver(&frame);
}

static void poll_events(void)
{
    baton_sender_event event;
    for (uint32_t i = 0; i < kit.n_senders; i++) {
        pair_sender *sender = &kit.senders[i];
        while (bt_tx_poll(sender->tx, &event, 1) == 1) {
            if (event.kind == BATON_SENDER_SOURCE_FREE) {
                sender->n_source_free++;
                continue;
            }
            fuzz_must(event.user_data < n_transfers);
            fuzz_must(transfers[event.user_data].n_ends++ == 0);
        }
    }
}

static void progress(void)
{
    for (uint32_t i = 0; i < kit.n_senders; i++)
        bt_tx_progress(kit.senders[i].tx);
    bt_rx_progress(kit.rx);
    bt_loop_deliver(kit.net);
    poll_events();
    while (kit.n_frames > N_WAITING_MAX)
        remove_frame(0);
}

/* Until the bus has been empty for a few rounds, but for answers that never end. */
static void run(void)
{
    enum { ROUNDS_MAX = 20, IDLE_ROUNDS = 3 };
    for (int round = 0, n_idle = 0; round < ROUNDS_MAX && n_idle < IDLE_ROUNDS; round++) {
        progress();
        n_idle = kit.n_frames == 0 ? n_idle + 1 : 0;
        for (int n = 0; kit.n_frames > 0 && n < 2 * N_WAITING_MAX; n++)
            deliver_at(0);
    }
}

static void step_begin(fuzz_input *in)
{
    if (n_transfers == N_TRANSFERS)
        return;
    transfer *t = &transfers[n_transfers];
    uint8_t what = fuzz_take(in);
    *t = (transfer){.sender = what & 1, .prompt = (what >> 1) % N_PROMPTS};
    t->n_tokens = 1 + fuzz_take(in) % (PAIR_MAX_CHUNKS * PAIR_CHUNK);
    bt_tx *tx = kit.senders[t->sender].tx;
    uint32_t tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK], n_keys, last;
    baton_key keys[PAIR_MAX_CHUNKS];
    pair_tokens(t->prompt, PAIR_CHUNK, t->n_tokens, tokens);
    fuzz_must(baton_keys_of_tokens(&tx->root, tokens, t->n_tokens, keys, PAIR_MAX_CHUNKS, &n_keys,
                                   &last) == BATON_OK);
    const char request[] = {'r', (char)('a' + n_transfers), '\0'};
    const baton_transfer_options wanted = {.request = request,
                                           .host = "127.0.0.1",
                                           .init_port = 1,
                                           .alloc_port = 2,
                                           .keys = keys,
                                           .n_chunks = n_keys,
                                           .last_tokens = last,
                                           .deadline_ms = what & 0x80 ? 500 : 20000,
                                           .user_data = n_transfers};
    fuzz_must(bt_tx_begin(tx, &wanted, &t->id) == BATON_OK);
    n_transfers++;
}

static transfer *take_transfer(fuzz_input *in)
{
    uint8_t which = fuzz_take(in);
    return n_transfers != 0 ? &transfers[which % n_transfers] : NULL;
}

/* The next `count` chunks. */
static void step_push(fuzz_input *in)
{
    transfer *t = take_transfer(in);
    uint32_t tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK], count = 1 + fuzz_take(in) % PAIR_MAX_CHUNKS;
    if (t == NULL)
        return;
    pair_tokens(t->prompt, PAIR_CHUNK, t->n_tokens, tokens);
    uint32_t n_chunks = (t->n_tokens - 1) / PAIR_CHUNK + 1;
    for (; count > 0 && t->next_chunk < n_chunks; count--) {
        uint8_t *at = t->data + (size_t)t->next_chunk * PAIR_PAGE_BYTES;
        const bt_tx_source source = {.data = at,
                                     .bytes = pair_chunk(tokens, t->n_tokens, t->next_chunk, at)};
        n_pushed +=
            bt_tx_push(kit.senders[t->sender].tx, t->id, t->next_chunk, &source) == BATON_OK;
        t->next_chunk++;
    }
}

static void step_end(fuzz_input *in, bt_tx_command_kind kind)
{
    transfer *t = take_transfer(in);
    if (t != NULL)
        bt_tx_post(kit.senders[t->sender].tx, kind, t->id);
}

static void step_lookup(fuzz_input *in)
{
    uint32_t tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK], n_matched = 0;
    uint8_t what = fuzz_take(in);
    uint32_t n = 1 + fuzz_take(in) % (PAIR_MAX_CHUNKS * PAIR_CHUNK);
    give_back();
    pair_tokens(what % N_PROMPTS, PAIR_CHUNK, n, tokens);
    if (bt_rx_lookup(kit.rx, tokens, n, &pin, &n_matched) != BATON_OK)
        pin = NULL;
    for (uint32_t i = 0; pin != NULL && i < baton_pin_chunks(pin); i++) {
        uint8_t wanted[PAIR_PAGE_BYTES];
        baton_pinned_chunk chunk;
        fuzz_must(baton_pin_chunk(pin, i, &chunk) == BATON_OK);
        fuzz_must(pair_chunk(tokens, n_matched, i, wanted) == chunk.bytes);
        fuzz_must(!is_honest || memcmp(chunk.page, wanted, chunk.bytes) == 0);
    }
    if ((what & 0x80) == 0)
        give_back();
}

/* A frame that waits: changed, lost, repeated, or ahead of the others. */
static void step_frame(fuzz_input *in)
{
    enum { CHANGE, LOSE, REPEAT, HURRY, N_WAYS };
    uint8_t what = fuzz_take(in), which = fuzz_take(in);
    uint16_t at = what % N_WAYS == CHANGE ? fuzz_take_u16(in) : 0;
    uint8_t value = what % N_WAYS == CHANGE ? fuzz_take(in) : 0;
    if (kit.n_frames == 0)
        return;
    uint32_t i = which % kit.n_frames;
    switch (what % N_WAYS) {
    case CHANGE:
        kit.frames[i].data[at % kit.frames[i].bytes] = value;
        is_honest = false;
        break;
    case LOSE:
        remove_frame(i);
        break;
    case REPEAT:
        if (kit.n_frames < N_WAITING_MAX)
            kit.frames[kit.n_frames++] = kit.frames[i];
        break;
    case HURRY:
        deliver_at(i);
        break;
    }
}

static void step_faults(fuzz_input *in)
{
    uint8_t what = fuzz_take(in);
    const bt_loop_faults faults = {
        .delay_ns = (what & 1) != 0 ? 700 * BT_NS_PER_MS : 0,
        .reorder = (what & 2) != 0,
        .stuck = (what & 4) != 0,
        .drop_percent = (what & 8) != 0 ? 30 : 0,
        .fail_nth_put = (what & 16) != 0 ? 2 : 0,
        .fail_in_call = (what & 32) != 0,
        .unreachable = (what & 64) != 0,
    };
    bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults);
    if ((what & 128) != 0)
        bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
}

static void step_cut(fuzz_input *in)
{
    bt_loop_stats stats;
    uint8_t which = fuzz_take(in);
    bt_loop_get_stats(kit.net, &stats);
    if (stats.n_links > 0)
        bt_loop_cut(kit.net, which % stats.n_links);
}

/* Whatever the input says, to either side. */
static void step_stray(fuzz_input *in)
{
    static pair_frame frame;
    uint8_t what = fuzz_take(in);
    uint16_t n = fuzz_take_u16(in);
    n = n < in->n ? n : (uint16_t)in->n;
    frame = (pair_frame){.to_receiver = (what & 1) != 0,
                         .port = (what & 2) != 0 ? BT_RX_ALLOC_PORT : BT_RX_INIT_PORT,
                         .sender = (what >> 2) & 1,
                         .bytes = n};
    for (uint16_t i = 0; i < n; i++)
        frame.data[i % sizeof(frame.data)] = fuzz_take(in);
    frame.bytes = n < sizeof(frame.data) ? n : sizeof(frame.data);
    is_honest = false;
    deliver(&frame);
}

static void step_ring_memory(fuzz_input *in)
{
    uint8_t which = fuzz_take(in);
    uint16_t at = fuzz_take_u16(in);
    uint8_t value = fuzz_take(in);
    for (bt_rx_peer *peer = kit.rx->peers; peer != NULL; peer = peer->next) {
        if (peer->ring_memory == NULL || which-- != 0)
            continue;
        ((uint8_t *)peer->ring_memory->base)[at % peer->ring_memory->bytes] = value;
        is_honest = false;
    }
}

static void step_restart(void)
{
    give_back();
    pair_restart_receiver(&kit, &options);
}

static void step(fuzz_input *in)
{
    uint8_t what = fuzz_take(in);
    switch (what % 16) {
    case 0:
        progress();
        break;
    case 1:
        run();
        break;
    case 2:
        step_begin(in);
        break;
    case 3:
        step_push(in);
        break;
    case 4:
        step_end(in, BT_TX_FINISH);
        break;
    case 5:
        step_end(in, BT_TX_CANCEL);
        break;
    case 6:
        kit.manual.now_ns += fuzz_take_u16(in) * BT_NS_PER_MS;
        break;
    case 7:
        step_lookup(in);
        break;
    case 8:
    case 9:
        step_frame(in);
        break;
    case 10:
        deliver(&old_frames[fuzz_take(in) % N_OLD]);
        break;
    case 11:
        step_faults(in);
        break;
    case 12:
        step_cut(in);
        break;
    case 13:
        step_stray(in);
        break;
    case 14:
        step_ring_memory(in);
        break;
    case 15:
        if (what == 15)
            step_restart();
        else if (kit.n_frames > 0)
            deliver_at(0);
        break;
    }
}

static bool is_clean(void)
{
    baton_receiver_stats s;
    bt_rx_get_stats(kit.rx, &s);
    uint32_t n_free = 0;
    for (uint32_t i = 0; i < kit.n_senders; i++) {
        baton_sender_stats tx_stats;
        bt_tx_get_stats(kit.senders[i].tx, &tx_stats);
        n_free += kit.senders[i].n_source_free;
        if (tx_stats.transfers_live != 0)
            return false;
    }
    for (uint32_t i = 0; i < n_transfers; i++) {
        if (transfers[i].n_ends != 1)
            return false;
    }
    return n_free == n_pushed && s.tickets_live == 0 && s.holds_live == 0 && s.pins_live == 0 &&
           s.pages_reserved == 0 && s.pages_quarantined == 0;
}

static void end(void)
{
    give_back();
    bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL);
    bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
    for (int i = 0; i < END_STEPS && !is_clean(); i++) {
        kit.manual.now_ns += END_STEP_MS * BT_NS_PER_MS;
        run();
        check();
    }
    fuzz_must(is_clean());
}

static void read_options(uint8_t what)
{
    options = (pair_options){
        .n_senders = 2,
        .n_pages = N_PAGES,
        .n_regions = 2,
        .mapped = (what & 1) != 0,
        .rings = (what & 2) != 0,
        .commit = (what & 4) != 0 ? BATON_COMMIT_SOCKET : BATON_COMMIT_AUTO,
        .digests = (what & 8) != 0 ? BATON_DIGESTS_FULL : BATON_DIGESTS_OFF,
        .path = (what & 16) != 0 ? BATON_PATH_PUT : BATON_PATH_AUTO,
        .measure = (what & 32) != 0,
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    baton_log_set_sink(fuzz_drop_line, NULL);
    read_options(fuzz_take(&in));
    memset(old_frames, 0, sizeof(old_frames));
    n_transfers = n_old = n_pushed = 0;
    is_honest = true;
    pair_create(&kit, &options);
    for (uint32_t i = 0; i < kit.n_senders; i++) /* repeatable back-off */
        kit.senders[i].tx->jitter = i + 1;
    for (int i = 0; i < N_STEPS_MAX && in.n > 0; i++) {
        step(&in);
        check();
    }
    end();
    pair_destroy(&kit);
    return 0;
}
