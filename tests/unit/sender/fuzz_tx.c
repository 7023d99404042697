/* SPDX-License-Identifier: Apache-2.0 */
/* A receiver that lies, to the sender's state machine. The input is a byte of options, then steps
 * of a byte each with their own bytes behind: calls of a user, time, and what the receiver says. An
 * answer is what an honest receiver could say to a request that waits, changed where the next bytes
 * ask for it, so that lies get past the first checks; `step_raw` says any bytes.
 *
 * At the end time goes on with nobody there: then every transfer has ended once and every source is
 * free, whatever was said. */
#include "sender/tx.h"
#include "transport/loop.h"

#include "core/log.h"
#include "fuzz/fuzzinput.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_EPOCH UINT64_C(0x0102030405060708)
#define RX_EPOCH UINT64_C(0x1112131415161718)
enum {
    CHUNK_TOKENS = 8,
    TOKEN_BYTES = 32,
    PAGE_BYTES = CHUNK_TOKENS * TOKEN_BYTES,
    N_LAYERS = 4,
    N_PAGES = 8,
    N_REGIONS = 2,
    N_CHUNKS_MAX = 6,
    N_TRANSFERS = 8,
    N_STEPS_MAX = 400,
    RING_BYTES = 4096,
    SCRATCH_BYTES = 1 << 16,
    DEADLINE_MS = 20000,
    END_STEP_MS = 400,
    END_STEPS = 400,
};

typedef struct {
    baton_transfer id;
    uint32_t n_chunks, n_ends;
} transfer;

static bt_manual_clock manual;
static bt_loop_net *net;
static bt_transport *ours, *theirs;
static bt_worker *worker; /* the receiver's */
static bt_memory *regions[N_REGIONS], *scratch, *ring;
static bt_tx *tx;
static transfer transfers[N_TRANSFERS];
static uint32_t n_transfers, n_pushed, n_free;
static uint8_t source[PAGE_BYTES];
static bt_packwriter writer;

/* `good`, or what the input says instead: a small number, or an end of the range. */
static uint64_t take_or(fuzz_input *in, uint64_t good)
{
    static const uint64_t odd[] = {
        0, 1, 2, 3, UINT32_MAX, UINT32_MAX - 1, UINT64_MAX, UINT64_MAX - PAGE_BYTES + 1};
    uint8_t what = fuzz_take(in);
    if (what < 128)
        return good;
    return what < 192 ? odd[what % 8] : good + (uint64_t)(int64_t)(int8_t)fuzz_take(in);
}

static uint32_t take_u32_or(fuzz_input *in, uint32_t good)
{
    return (uint32_t)take_or(in, good);
}

static baton_status no_open(void *ctx, bt_tx_peer *peer)
{
    (void)ctx, (void)peer;
    return BATON_OK;
}

static void no_close(void *ctx, bt_tx_peer *peer)
{
    (void)ctx, (void)peer;
}

static void no_send(void *ctx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes)
{
    (void)ctx, (void)peer, (void)port, (void)frame, (void)bytes;
}

static void no_notice(void *ctx, const char *address, const char *request, baton_status status,
                      const char *text, uint32_t retry_ms)
{
    (void)ctx, (void)address, (void)request, (void)status, (void)text, (void)retry_ms;
}

static void no_watch(void *ctx, bt_tx_peer *peer, int pidfd)
{
    (void)ctx, (void)peer, (void)pidfd;
}

static bool heard_ring(void *ctx, bt_blob doorbell)
{
    (void)ctx;
    return doorbell.bytes != 0;
}

static baton_layout layout(void)
{
    return (baton_layout){.model = "fuzz",
                          .dtype = BATON_DTYPE_BF16,
                          .n_layers = N_LAYERS,
                          .n_planes = 2,
                          .n_kv_heads = 1,
                          .head_dim = 2,
                          .chunk_tokens = CHUNK_TOKENS,
                          .block_tokens = 4,
                          .tp_size = 1,
                          .pp_size = 1};
}

/* Says it to the only peer, if there is one. */
static void say(bt_message *message)
{
    message->v = BT_PROTOCOL_VERSION;
    bt_pack_reset(&writer);
    if (tx->peers != NULL && bt_message_encode(message, &writer) == BATON_OK)
        bt_tx_handle(tx, tx->peers, BT_TX_ALLOC_PORT, writer.bytes, writer.n);
}

static bt_message message_of(fuzz_input *in, bt_message_type type, uint64_t id)
{
    return (bt_message){.type = type,
                        .id = id,
                        .epoch = take_or(in, RX_EPOCH),
                        .peer_epoch = take_or(in, FUZZ_EPOCH),
                        .status = (int32_t)take_or(in, BATON_OK)};
}

static void answer_init(fuzz_input *in, bt_message *answer)
{
    baton_layout theirs_layout = layout();
    theirs_layout.n_layers = take_u32_or(in, N_LAYERS);
    answer->u.init = (bt_msg_init){
        .name = bt_blob_of_text("fuzz"),
        .world = 1,
        .layout = theirs_layout,
        .digests = take_u32_or(in, BT_DIGESTS_OFF),
        .worker = bt_blob_of(worker->address, worker->address_bytes - (fuzz_take(in) == 255)),
        .page_bytes = take_or(in, PAGE_BYTES),
        .lease_ms = 1000,
        .heartbeat_ms = take_u32_or(in, 500),
        .silent_ms = take_u32_or(in, 5000),
        .require_rdma = fuzz_take(in) == 255,
        .min_bytes_per_s = take_or(in, 0),
        .process = {.boot = bt_blob_of_text("elsewhere"), .pid_ns = 1, .start = 1, .pid = 1},
    };
}

static void answer_memreg(fuzz_input *in, bt_message *answer)
{
    bt_msg_memreg_answer *m = &answer->u.memreg_answer;
    m->n_regions = fuzz_take(in) % (N_REGIONS + 1);
    for (uint32_t i = 0; i < m->n_regions; i++) {
        const bt_memory *memory = regions[i];
        m->regions[i] = (bt_msg_region){
            .region = take_u32_or(in, i),
            .generation = take_u32_or(in, 1),
            .kind = BT_REGION_POOL,
            .memory = BATON_MEMORY_HOST,
            .base = take_or(in, (uint64_t)(uintptr_t)memory->base),
            .page_bytes = take_or(in, PAGE_BYTES),
            .n_pages = take_u32_or(in, N_PAGES),
            .rkey = bt_blob_of(memory->rkey, memory->rkey_bytes - (fuzz_take(in) == 255)),
        };
    }
    if (fuzz_take(in) < 128)
        m->scratch = (bt_msg_scratch){.base = take_or(in, (uint64_t)(uintptr_t)scratch->base),
                                      .bytes = take_or(in, SCRATCH_BYTES),
                                      .rkey = bt_blob_of(scratch->rkey, scratch->rkey_bytes)};
    if (fuzz_take(in) < 128)
        m->ring = (bt_msg_ring){.base = take_or(in, (uint64_t)(uintptr_t)ring->base),
                                .to_receiver_bytes = take_u32_or(in, RING_BYTES),
                                .to_sender_bytes = take_u32_or(in, RING_BYTES),
                                .rkey = bt_blob_of(ring->rkey, ring->rkey_bytes),
                                .doorbell = bt_blob_of("r", 1)};
}

static bt_ticket_name name_of(fuzz_input *in, const uint8_t *nonce)
{
    return (bt_ticket_name){.ticket = take_or(in, 1),
                            .generation = take_u32_or(in, 1),
                            .nonce = bt_blob_of(nonce, BT_NONCE_BYTES)};
}

static void answer_alloc(fuzz_input *in, const bt_tx_transfer *waiting, bt_message *answer)
{
    static const uint8_t nonce[BT_NONCE_BYTES] = {1};
    static bt_page_run runs[3];
    uint32_t n_chunks = waiting != NULL ? waiting->n_chunks : 1;
    bt_ticket_name name = name_of(in, nonce);
    runs[0] = (bt_page_run){.first = take_u32_or(in, 0),
                            .count = take_u32_or(in, n_chunks > 1 ? n_chunks - 1 : 1),
                            .region = take_u32_or(in, 0),
                            .generation = take_u32_or(in, 1),
                            .page = take_u32_or(in, 0)};
    runs[1] = (bt_page_run){.first = take_u32_or(in, n_chunks - 1),
                            .count = take_u32_or(in, 1),
                            .region = take_u32_or(in, 1),
                            .generation = 1,
                            .page = take_u32_or(in, 2)};
    answer->u.alloc_answer = (bt_msg_alloc_answer){
        .outcome = take_u32_or(in, BT_ALLOC_GRANTED),
        .ticket = name.ticket,
        .generation = name.generation,
        .nonce = name.nonce,
        .n_chunks = take_u32_or(in, n_chunks),
        .place = 1,
        .retry_ms = take_u32_or(in, 100),
        .runs = runs,
        .n_runs = fuzz_take(in) % 3,
    };
}

/* What an honest receiver could say to the request, or nearly. */
static void step_answer(fuzz_input *in)
{
    const bt_tx_pending *pending = tx->pending;
    for (uint8_t which = fuzz_take(in); pending != NULL && which > 0; which--)
        pending = pending->next;
    if (pending == NULL)
        return;
    static bt_message answer;
    answer = message_of(in, (bt_message_type)(pending->type + 1), take_or(in, pending->id));
    switch (pending->type) {
    case BT_MSG_INIT:
        answer_init(in, &answer);
        break;
    case BT_MSG_MEMREG:
        answer_memreg(in, &answer);
        break;
    case BT_MSG_ALLOC:
        answer_alloc(in, pending->transfer, &answer);
        break;
    case BT_MSG_COMMIT:
        answer.u.commit_answer =
            (bt_msg_commit_answer){.landed = take_u32_or(in, 1), .final = take_u32_or(in, 1)};
        break;
    default: /* CANCEL_ANSWER, RELEASE_ANSWER: as they are */
        answer.u.released = 1;
        break;
    }
    say(&answer);
}

static void step_revoke(fuzz_input *in)
{
    bt_message revoke = message_of(in, BT_MSG_REVOKE, fuzz_take(in));
    revoke.u.end = (bt_msg_end){.name = name_of(in, NULL), .reason = BATON_ERR_NO_PAGES};
    revoke.u.end.name.nonce = (bt_blob){0};
    say(&revoke);
}

static void step_heartbeat(fuzz_input *in)
{
    bt_ticket_progress tickets[3];
    bt_message answer = message_of(in, BT_MSG_HEARTBEAT_ANSWER, fuzz_take(in));
    answer.u.heartbeat = (bt_msg_heartbeat){.tickets = tickets, .n_tickets = fuzz_take(in) % 4};
    for (uint32_t i = 0; i < answer.u.heartbeat.n_tickets; i++)
        tickets[i] = (bt_ticket_progress){.ticket = take_or(in, 1 + i)};
    say(&answer);
}

static void step_raw(fuzz_input *in)
{
    size_t n = fuzz_take_u16(in);
    n = n < in->n ? n : in->n;
    if (tx->peers != NULL)
        bt_tx_handle(tx, tx->peers, BT_TX_ALLOC_PORT, in->at, n);
    in->at += n;
    in->n -= n;
}

/* What the receiver leaves in the rings: bytes anywhere, or its last frame once more. */
static void step_ring(fuzz_input *in)
{
    uint8_t *memory = ring->base;
    uint16_t at = fuzz_take_u16(in);
    uint8_t n = fuzz_take(in);
    if (n >= 128 && tx->peers != NULL && bt_framering_is_up(&tx->peers->from_receiver)) {
        bt_framering as_writer = tx->peers->from_receiver;
        bool must_ring;
        if (writer.n != 0)
            bt_framering_write(&as_writer, writer.bytes, writer.n, &must_ring);
        return;
    }
    for (; n > 0 && in->n > 0; n--)
        memory[at++ % ring->bytes] = fuzz_take(in);
}

static void step_begin(fuzz_input *in)
{
    static const char *const names[N_TRANSFERS] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    baton_key keys[N_CHUNKS_MAX];
    uint8_t what = fuzz_take(in);
    if (n_transfers == N_TRANSFERS)
        return;
    transfer *t = &transfers[n_transfers];
    *t = (transfer){.n_chunks = 1 + what % N_CHUNKS_MAX};
    memset(keys, (int)n_transfers + 1, sizeof(keys));
    const baton_transfer_options wanted = {.request = names[n_transfers],
                                           .host = "127.0.0.1",
                                           .init_port = 1,
                                           .alloc_port = 2,
                                           .keys = keys,
                                           .n_chunks = t->n_chunks,
                                           .last_tokens = CHUNK_TOKENS,
                                           .deadline_ms = what >= 128 ? 300 : DEADLINE_MS,
                                           .user_data = n_transfers};
    fuzz_must(bt_tx_begin(tx, &wanted, &t->id) == BATON_OK);
    n_transfers++;
}

/* A chunk, or some layers of one. */
static void step_push(fuzz_input *in)
{
    uint8_t which = fuzz_take(in), chunk = fuzz_take(in), layers = fuzz_take(in);
    if (n_transfers == 0)
        return;
    const transfer *t = &transfers[which % n_transfers];
    bt_tx_source from = {.data = source, .bytes = PAGE_BYTES};
    if (layers != 0) {
        from.first_layer = layers % N_LAYERS;
        from.n_layers = 1 + (layers >> 2) % N_LAYERS;
        if (from.first_layer + from.n_layers > N_LAYERS)
            from.n_layers = N_LAYERS - from.first_layer;
        from.bytes = from.n_layers * (PAGE_BYTES / N_LAYERS);
    }
    n_pushed += bt_tx_push(tx, t->id, chunk % t->n_chunks, &from) == BATON_OK;
}

static void step_post(fuzz_input *in, bt_tx_command_kind kind)
{
    uint8_t which = fuzz_take(in);
    if (n_transfers != 0)
        bt_tx_post(tx, kind, transfers[which % n_transfers].id);
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
    };
    bt_loop_set_faults(net, BT_LOOP_ALL_LINKS, &faults);
    bt_loop_stats stats;
    bt_loop_get_stats(net, &stats);
    if ((what & 64) != 0 && stats.n_links > 0)
        bt_loop_cut(net, stats.n_links - 1);
    if ((what & 128) != 0)
        bt_loop_release(net, BT_LOOP_ALL_LINKS);
}

static void progress(void)
{
    bt_event events[8];
    baton_sender_event event;
    bt_tx_progress(tx);
    bt_loop_deliver(net);
    while (bt_worker_progress(worker, events, 8) == 8)
        ;
    while (bt_tx_poll(tx, &event, 1) == 1) {
        if (event.kind == BATON_SENDER_SOURCE_FREE) {
            n_free++;
            continue;
        }
        fuzz_must(event.user_data < n_transfers);
        fuzz_must(transfers[event.user_data].n_ends++ == 0);
    }
    fuzz_must(tx->stats.moves_refused_total == 0);
    for (const bt_tx_transfer *t = tx->first; t != NULL; t = t->next)
        fuzz_must(t->n_posted + t->n_present <= t->n_chunks && t->n_landed <= t->n_posted &&
                  t->n_committed <= t->n_posted);
}

static void step(fuzz_input *in)
{
    switch (fuzz_take(in) % 12) {
    case 0:
        progress();
        break;
    case 1:
        manual.now_ns += fuzz_take_u16(in) * BT_NS_PER_MS;
        progress();
        break;
    case 2:
    case 3:
        step_answer(in);
        progress();
        break;
    case 4:
        step_begin(in);
        progress();
        break;
    case 5:
        step_push(in);
        break;
    case 6:
        step_post(in, BT_TX_FINISH);
        break;
    case 7:
        step_post(in, BT_TX_CANCEL);
        break;
    case 8:
        step_revoke(in);
        break;
    case 9:
        step_heartbeat(in);
        break;
    case 10:
        step_faults(in);
        break;
    case 11:
        if (fuzz_take(in) < 128)
            step_ring(in);
        else
            step_raw(in);
        break;
    }
}

static void end(void)
{
    bt_loop_set_faults(net, BT_LOOP_ALL_LINKS, NULL);
    bt_loop_release(net, BT_LOOP_ALL_LINKS);
    progress();
    baton_sender_stats stats;
    bt_tx_get_stats(tx, &stats);
    for (int i = 0; i < END_STEPS && (stats.transfers_live > 0 || n_free < n_pushed); i++) {
        manual.now_ns += END_STEP_MS * BT_NS_PER_MS;
        progress();
        progress();
        bt_tx_get_stats(tx, &stats);
    }
    fuzz_must(stats.transfers_live == 0 && n_free == n_pushed);
    for (uint32_t i = 0; i < n_transfers; i++)
        fuzz_must(transfers[i].n_ends == 1);
}

static void open_receiver(const bt_clock *clock)
{
    const bt_transport_options options = {.backend = "loop", .clock = clock, .loop_net = net};
    fuzz_must(bt_transport_create(&options, &ours) == BATON_OK);
    fuzz_must(bt_transport_create(&options, &theirs) == BATON_OK);
    fuzz_must(bt_worker_create(theirs, &worker) == BATON_OK);
    for (int i = 0; i < N_REGIONS; i++)
        fuzz_must(bt_memory_alloc(theirs, N_PAGES * PAGE_BYTES, BATON_MEMORY_HOST, &regions[i]) ==
                  BATON_OK);
    fuzz_must(bt_memory_alloc(theirs, SCRATCH_BYTES, BATON_MEMORY_HOST, &scratch) == BATON_OK);
    fuzz_must(bt_memory_alloc(theirs, 2 * (BT_FRAMERING_HEADER_BYTES + RING_BYTES),
                              BATON_MEMORY_HOST, &ring) == BATON_OK);
}

static void close_receiver(void)
{
    bt_worker_destroy(worker);
    for (int i = 0; i < N_REGIONS; i++)
        bt_memory_free(regions[i]);
    bt_memory_free(scratch);
    bt_memory_free(ring);
    bt_transport_destroy(theirs);
    bt_transport_destroy(ours);
}

static void open_sender(uint8_t what, const bt_clock *clock)
{
    baton_sender_options options = {
        .layout = layout(),
        .path = (what & 1) != 0 ? BATON_PATH_PUT : BATON_PATH_AUTO,
        .commit = (what & 2) != 0 ? BATON_COMMIT_SOCKET : BATON_COMMIT_AUTO,
        .digests = (what & 4) != 0 ? BATON_DIGESTS_FULL : BATON_DIGESTS_OFF,
        .skip_measure = (what & 8) == 0,
        .staging_chunks = 2,
        .data = {.clock = clock, .min_gbps = (what & 16) != 0 ? 1 : 0},
    };
    bt_tx_defaults(&options);
    const bt_tx_out out = {.open = no_open,
                           .close = no_close,
                           .send = no_send,
                           .notice = no_notice,
                           .watch = no_watch,
                           .ring = heard_ring,
                           .doorbell = {.data = (const uint8_t *)"s", .bytes = 1}};
    fuzz_must(bt_tx_create(&options, ours, &out, &tx) == BATON_OK);
    tx->epoch = FUZZ_EPOCH;
    tx->jitter = 1;
    tx->self = (bt_process){.boot = "fuzz", .pid_ns = 1, .start = 1, .pid = 1};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    uint8_t what = fuzz_take(&in);
    manual = (bt_manual_clock){.now_ns = 1000 * BT_NS_PER_S, .tick_ns = 1};
    bt_clock clock = bt_manual_clock_ops(&manual);
    baton_log_set_sink(fuzz_drop_line, NULL);
    n_transfers = n_pushed = n_free = 0;
    fuzz_must(bt_loop_net_create(1, &clock, &net) == BATON_OK);
    bt_loop_set_mapping(net, (what & 32) == 0, false);
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    open_receiver(&clock);
    open_sender(what, &clock);
    for (int i = 0; i < N_STEPS_MAX && in.n > 0; i++)
        step(&in);
    end();
    bt_tx_destroy(tx);
    close_receiver();
    bt_pack_release(&writer);
    bt_loop_net_destroy(net);
    return 0;
}
