/* SPDX-License-Identifier: Apache-2.0 */
#include "rxkit.h"

#include "core/alloc.h"
#include "support/test.h"

#include <stdio.h>

static void capture_frame(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                          size_t bytes)
{
    rx_kit *kit = ctx;
    assert_true(kit->n_frames < KIT_FRAMES_MAX);
    assert_int_equal(route->n, 1);
    rx_kit_frame *slot = &kit->frames[kit->n_frames++];
    *slot = (rx_kit_frame){.port = port, .route = route->bytes[0], .n = bytes};
    slot->bytes = test_malloc(bytes);
    memcpy(slot->bytes, frame, bytes);
}

static void capture_notice(void *ctx, const char *address, const char *request, baton_status status,
                           const char *text)
{
    rx_kit *kit = ctx;
    (void)text;
    kit->n_notices++;
    snprintf(kit->notice.address, sizeof(kit->notice.address), "%s", address);
    snprintf(kit->notice.request, sizeof(kit->notice.request), "%s", request);
    kit->notice.status = status;
}

static void capture_event(void *ctx, const baton_receiver_event *event)
{
    rx_kit *kit = ctx;
    kit->n_events++;
    kit->event = *event;
}

static bool reach(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame, size_t n)
{
    (void)port, (void)route, (void)frame, (void)n;
    return !((const rx_kit *)ctx)->has_hung_up;
}

static void capture_fds(void *ctx, bt_rx_peer *peer, int worker_fd, int pidfd, bool added)
{
    rx_kit *kit = ctx;
    (void)peer;
    (void)pidfd;
    assert_true(worker_fd >= 0);
    kit->n_watched += added ? 1 : -1;
}

baton_layout rx_kit_layout(void)
{
    return (baton_layout){.model = "kit",
                          .dtype = BATON_DTYPE_BF16,
                          .n_layers = 2,
                          .n_planes = 2,
                          .n_kv_heads = 1,
                          .head_dim = 4,
                          .chunk_tokens = KIT_CHUNK_TOKENS,
                          .block_tokens = 4,
                          .tp_size = 1,
                          .pp_size = 1};
}

baton_receiver_options rx_kit_options(uint32_t n_pages)
{
    baton_receiver_options options = {.layout = rx_kit_layout(), .n_regions = 2};
    uint64_t token_bytes;
    assert_ok(baton_layout_token_bytes(&options.layout, &token_bytes));
    options.pool_bytes = n_pages * token_bytes * KIT_CHUNK_TOKENS;
    options.notice = "tcp://127.0.0.1:5555";
    return options;
}

void rx_kit_open(rx_kit *kit, const baton_receiver_options *options)
{
    *kit = (rx_kit){.time = {.now_ns = 1000 * BT_NS_PER_S}};
    kit->clock = bt_manual_clock_ops(&kit->time);
    assert_ok(bt_loop_net_create(1, &kit->clock, &kit->net));
    baton_receiver_options filled = *options;
    filled.data =
        (baton_data_path){.transport = "loop", .loop_net = kit->net, .clock = &kit->clock};
    bt_rx_defaults(&filled);
    assert_ok(bt_transport_open(&filled.data, filled.memory, &kit->transport));
    const bt_rx_out out = {.send = capture_frame,
                           .notice = capture_notice,
                           .event = capture_event,
                           .peer_fds = capture_fds,
                           .reach = reach,
                           .ctx = kit};
    assert_ok(bt_rx_create(&filled, kit->transport, &out, &kit->rx));
}

void rx_kit_close(rx_kit *kit)
{
    rx_kit_check(kit);
    bt_rx_destroy(kit->rx);
    assert_int_equal(kit->n_watched, 0);
    bt_transport_destroy(kit->transport);
    bt_loop_net_destroy(kit->net);
    for (uint32_t i = 0; i < kit->n_frames; i++)
        test_free(kit->frames[i].bytes);
    if (kit->taken.bytes != NULL)
        test_free(kit->taken.bytes);
}

void rx_kit_stats(rx_kit *kit, baton_receiver_stats *stats)
{
    bt_rx_get_stats(kit->rx, stats);
}

/* Counts what the lists say, against the counters. */
static void check_tickets(rx_kit *kit)
{
    uint32_t n = 0, n_queued = 0, n_held = 0, n_revoked = 0, n_peers = 0, n_queued_of_peers = 0;
    for (const bt_rx_ticket *t = kit->rx->first_ticket; t != NULL; t = t->next, n++) {
        n_queued += t->state == BT_TICKET_QUEUED;
        n_held += t->state == BT_TICKET_HELD;
        n_revoked += t->state == BT_TICKET_REVOKED;
        assert_ptr_equal(bt_rx_ticket_find(kit->rx, t->id), t);
        assert_true((t->grant == NULL) == (t->state == BT_TICKET_QUEUED));
        assert_true((t->keys != NULL) == (t->state == BT_TICKET_QUEUED));
        assert_true(t->peer != NULL || t->state == BT_TICKET_HELD);
    }
    for (const bt_rx_peer *p = kit->rx->peers; p != NULL; p = p->next, n_peers++) {
        n_revoked -= p->n_revoked;
        n_queued_of_peers += p->n_queued;
    }
    assert_int_equal(n, kit->rx->n_tickets);
    assert_int_equal(n_queued, kit->rx->n_queued);
    assert_int_equal(n_queued, n_queued_of_peers);
    assert_int_equal(n_held, kit->rx->n_held);
    assert_int_equal(n_revoked, 0);
    assert_int_equal(n_peers, kit->rx->n_peers);
    assert_int_equal(kit->n_watched, n_peers);
}

void rx_kit_check(rx_kit *kit)
{
    baton_receiver_stats stats;
    assert_ok(bt_store_verify(kit->rx->store));
    bt_rx_get_stats(kit->rx, &stats);
    assert_int_equal(stats.pages_free + stats.pages_reserved + stats.pages_landed +
                         stats.pages_quarantined + stats.pages_retired,
                     stats.pages_total);
    check_tickets(kit);
}

void rx_kit_advance_ms(rx_kit *kit, uint64_t ms)
{
    kit->time.now_ns += ms * BT_NS_PER_MS;
    bt_rx_progress(kit->rx);
    rx_kit_check(kit);
}

static void send_from(rx_kit *kit, bt_rx_port port, uint8_t route, const char *user,
                      const void *bytes, size_t n)
{
    bt_rx_route from = {.n = 1, .bytes = {route}};
    snprintf(from.user, sizeof(from.user), "%s", user != NULL ? user : "");
    bt_rx_handle(kit->rx, port, &from, bytes, n);
    rx_kit_check(kit);
}

void rx_kit_send_bytes(rx_kit *kit, bt_rx_port port, uint8_t route, const void *bytes, size_t n)
{
    send_from(kit, port, route, NULL, bytes, n);
}

void rx_kit_send(rx_kit *kit, const rx_kit_sender *sender, bt_rx_port port, bt_message *message)
{
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(message, &writer));
    uint8_t *frame = bt_guarded_copy(writer.bytes, writer.n);
    send_from(kit, port, sender->route, sender->user, frame, writer.n);
    bt_guarded_free(frame, writer.n);
    bt_pack_release(&writer);
}

bool rx_kit_take(rx_kit *kit, bt_message *message)
{
    if (kit->n_frames == 0)
        return false;
    if (kit->taken.bytes != NULL)
        test_free(kit->taken.bytes);
    kit->taken = kit->frames[0];
    kit->n_frames--;
    memmove(&kit->frames[0], &kit->frames[1], kit->n_frames * sizeof(kit->frames[0]));
    assert_ok(bt_message_decode(kit->taken.bytes, kit->taken.n, message));
    assert_int_equal(message->epoch, kit->rx->epoch);
    return true;
}

void rx_kit_expect(rx_kit *kit, bt_message_type type, bt_message *message)
{
    if (!rx_kit_take(kit, message))
        fail_msg("wanted %s, found nothing", bt_message_type_name(type));
    if (message->type != type)
        fail_msg("wanted %s, found %s", bt_message_type_name(type),
                 bt_message_type_name(message->type));
}

void rx_kit_expect_nothing(rx_kit *kit)
{
    bt_message message;
    if (rx_kit_take(kit, &message))
        fail_msg("wanted nothing, found %s", bt_message_type_name(message.type));
}

rx_kit_sender rx_kit_sender_make(uint8_t route)
{
    return (rx_kit_sender){.epoch = 1000u + route, .next_id = 1, .route = route, .connection = 1};
}

bt_message rx_kit_message(rx_kit_sender *sender, bt_message_type type)
{
    return (bt_message){.type = type,
                        .v = BT_PROTOCOL_VERSION,
                        .epoch = sender->epoch,
                        .peer_epoch = sender->peer_epoch,
                        .id = sender->next_id++};
}

/* A process that this host cannot watch: the boot id is ours, or another's, but no pid namespace of
 * ours. */
void rx_kit_init(rx_kit *kit, rx_kit_sender *sender, baton_status wanted)
{
    const baton_receiver_options *options = &kit->rx->options;
    bt_message init = rx_kit_message(sender, BT_MSG_INIT), answer;
    const char *boot = sender->boot != NULL ? sender->boot : kit->rx->self.boot;
    init.u.init = (bt_msg_init){
        .name = bt_blob_of_text("kit"),
        .rank = options->rank,
        .world = options->world,
        .layout = options->layout,
        .seed = bt_blob_of(kit->rx->root.last.bytes, BATON_KEY_BYTES),
        .digests = sender->digests,
        .connection = sender->connection,
        .process = {.boot = bt_blob_of_text(boot), .pid_ns = 1, .start = 1, .pid = 1},
    };
    rx_kit_send(kit, sender, BT_RX_INIT_PORT, &init);
    rx_kit_expect(kit, BT_MSG_INIT_ANSWER, &answer);
    assert_int_equal(answer.id, init.id);
    assert_int_equal(answer.status, wanted);
    sender->peer_epoch = answer.epoch;
}

void rx_kit_prompt(rx_kit_request *request, uint32_t id, uint32_t shared, uint32_t n_tokens)
{
    const baton_layout layout = rx_kit_layout();
    baton_key_chain chain;
    *request = (rx_kit_request){.n_tokens = n_tokens};
    assert_true(n_tokens <= KIT_TOKENS_MAX);
    for (uint32_t i = 0; i < n_tokens; i++)
        request->tokens[i] = i < shared ? i : 1000 * (id + 1) + i;
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    assert_ok(baton_keys_of_tokens(&chain, request->tokens, n_tokens, request->keys, KIT_CHUNKS_MAX,
                                   &request->n_keys, &request->last_tokens));
    snprintf(request->request, sizeof(request->request), "request-%u", id);
}

void rx_kit_read_alloc_answer(rx_kit_request *request, const bt_message *message)
{
    const bt_msg_alloc_answer *answer = &message->u.alloc_answer;
    assert_int_equal(message->id, request->alloc_id);
    request->status = (baton_status)message->status;
    request->outcome = answer->outcome;
    request->place = answer->place;
    request->pages_wanted = answer->pages_wanted;
    request->pages_total = answer->pages_total;
    request->n_runs = request->n_to_send = 0;
    if (answer->outcome == BT_ALLOC_REFUSED)
        return;
    request->name = (bt_ticket_name){.ticket = answer->ticket};
    if (answer->outcome != BT_ALLOC_GRANTED)
        return;
    assert_int_equal(answer->n_chunks, request->n_keys);
    memcpy(request->nonce, answer->nonce.data, BT_NONCE_BYTES);
    request->name.generation = answer->generation;
    request->name.nonce = bt_blob_of(request->nonce, BT_NONCE_BYTES);
    bt_list_cursor cursor = {0};
    while (bt_message_next_run(answer, &cursor, &request->runs[request->n_runs]))
        request->n_to_send += request->runs[request->n_runs++].count;
}

void rx_kit_send_alloc(rx_kit *kit, rx_kit_sender *sender, rx_kit_request *request)
{
    bt_message alloc = rx_kit_message(sender, BT_MSG_ALLOC);
    request->alloc_id = alloc.id;
    alloc.u.alloc = (bt_msg_alloc){
        .request = bt_blob_of_text(request->request),
        .keys = bt_blob_of(request->keys, (size_t)request->n_keys * BATON_KEY_BYTES),
        .last_tokens = request->last_tokens,
        .deadline_ms = request->deadline_ms != 0 ? request->deadline_ms : 100000,
        .may_queue = !request->may_not_queue,
        .notice = bt_blob_of_text(""),
    };
    rx_kit_send(kit, sender, BT_RX_ALLOC_PORT, &alloc);
}

void rx_kit_alloc(rx_kit *kit, rx_kit_sender *sender, rx_kit_request *request)
{
    bt_message answer;
    rx_kit_send_alloc(kit, sender, request);
    rx_kit_expect(kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_read_alloc_answer(request, &answer);
}

uint8_t rx_kit_byte(const rx_kit_request *request, uint32_t chunk)
{
    return request->keys[chunk].bytes[0];
}

bool rx_kit_write(rx_kit *kit, const rx_kit_request *request, uint32_t chunk)
{
    for (uint32_t i = 0; i < request->n_runs; i++) {
        const bt_page_run *run = &request->runs[i];
        if (chunk < run->first || chunk >= run->first + run->count)
            continue;
        const bt_rx_region *region = &kit->rx->regions[run->region];
        assert_int_equal(region->generation, run->generation);
        uint64_t page = run->page + chunk - run->first;
        assert_true(page < region->n_pages);
        memset((uint8_t *)region->memory->base + page * kit->rx->page_bytes,
               rx_kit_byte(request, chunk), kit->rx->page_bytes);
        return true;
    }
    return false;
}

baton_status rx_kit_commit(rx_kit *kit, rx_kit_sender *sender, const rx_kit_request *request,
                           uint32_t first, uint32_t count, bool final, bt_message *answer)
{
    const bt_chunk_range range = {.first = first, .count = count};
    bt_message commit = rx_kit_message(sender, BT_MSG_COMMIT), unused;
    answer = answer != NULL ? answer : &unused;
    commit.u.commit = (bt_msg_commit){
        .name = request->name, .ranges = &range, .n_ranges = count > 0, .final = final};
    rx_kit_send(kit, sender, BT_RX_ALLOC_PORT, &commit);
    rx_kit_expect(kit, BT_MSG_COMMIT_ANSWER, answer);
    assert_int_equal(answer->id, commit.id);
    return (baton_status)answer->status;
}

void rx_kit_land(rx_kit *kit, rx_kit_sender *sender, rx_kit_request *request)
{
    bt_message answer;
    rx_kit_alloc(kit, sender, request);
    assert_int_equal(request->outcome, BT_ALLOC_GRANTED);
    for (uint32_t i = 0; i < request->n_keys; i++)
        rx_kit_write(kit, request, i);
    assert_int_equal(rx_kit_commit(kit, sender, request, 0, request->n_keys, true, &answer),
                     BATON_OK);
    assert_int_equal(answer.u.commit_answer.final, 1);
    assert_int_equal(answer.u.commit_answer.landed, request->n_keys);
}

baton_status rx_kit_cancel(rx_kit *kit, rx_kit_sender *sender, const rx_kit_request *request,
                           bool drained)
{
    bt_message cancel = rx_kit_message(sender, BT_MSG_CANCEL), answer;
    cancel.u.end =
        (bt_msg_end){.name = request->name, .drained = drained, .reason = BATON_ERR_CANCELED};
    rx_kit_send(kit, sender, BT_RX_ALLOC_PORT, &cancel);
    do {
        if (!rx_kit_take(kit, &answer))
            fail_msg("CANCEL was not answered");
    } while (answer.type != BT_MSG_CANCEL_ANSWER);
    return (baton_status)answer.status;
}

void rx_kit_drained(rx_kit *kit, rx_kit_sender *sender, const rx_kit_request *request)
{
    bt_message drained = rx_kit_message(sender, BT_MSG_DRAINED);
    drained.u.drained = request->name;
    rx_kit_send(kit, sender, BT_RX_ALLOC_PORT, &drained);
}

uint32_t rx_kit_release(rx_kit *kit, rx_kit_sender *sender, const char *request)
{
    bt_message release = rx_kit_message(sender, BT_MSG_RELEASE), answer;
    release.u.request = bt_blob_of_text(request);
    rx_kit_send(kit, sender, BT_RX_ALLOC_PORT, &release);
    do {
        if (!rx_kit_take(kit, &answer))
            fail_msg("RELEASE was not answered");
    } while (answer.type != BT_MSG_RELEASE_ANSWER);
    return answer.u.released;
}

bt_msg_status_answer rx_kit_status(rx_kit *kit, rx_kit_sender *sender, const char *request)
{
    bt_message status = rx_kit_message(sender, BT_MSG_STATUS), answer;
    status.u.request = bt_blob_of_text(request);
    rx_kit_send(kit, sender, BT_RX_ALLOC_PORT, &status);
    rx_kit_expect(kit, BT_MSG_STATUS_ANSWER, &answer);
    return answer.u.status_answer;
}
