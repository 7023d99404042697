/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/message_samples.h"

static const uint8_t pattern[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                    32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                    48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

static bt_blob some(size_t n)
{
    return bt_blob_of(pattern, n);
}

static bt_ticket_name ticket_name(void)
{
    return (bt_ticket_name){
        .ticket = UINT64_C(0x1122334455667788), .generation = 3, .nonce = some(BT_NONCE_BYTES)};
}

static void fill_peer(bt_msg_init *init)
{
    *init = (bt_msg_init){
        .name = bt_blob_of_text("prefill-0"),
        .rank = 1,
        .world = 2,
        .layout = {.model = "tiny llama",
                   .dtype = BATON_DTYPE_BF16,
                   .n_layers = 32,
                   .n_planes = 2,
                   .n_kv_heads = 8,
                   .head_dim = 128,
                   .chunk_tokens = 256,
                   .block_tokens = 16,
                   .tp_size = 2,
                   .pp_size = 1},
        .seed = some(32),
        .digests = BT_DIGESTS_TILES,
        .connection = 2,
        .process = {.boot = bt_blob_of_text("6f1c7b9e"),
                    .pid_ns = 4026531836,
                    .pid = 4242,
                    .start = 123456789,
                    .uid = 1000,
                    .ipc_ns = 4026531839,
                    .mnt_ns = 4026531841,
                    .user_ns = 4026531837},
    };
}

static void fill_init_answer(bt_message *message)
{
    fill_peer(&message->u.init);
    message->u.init.seed = (bt_blob){0};
    message->u.init.worker = some(40);
    message->u.init.page_bytes = UINT64_C(1) << 33;
    message->u.init.lease_ms = 30000;
    message->u.init.heartbeat_ms = 500;
    message->u.init.silent_ms = 5000;
    message->u.init.require_rdma = 1;
    message->u.init.min_bytes_per_s = UINT64_C(10000000000);
}

static void fill_memreg_answer(bt_message *message)
{
    bt_msg_memreg_answer *answer = &message->u.memreg_answer;
    answer->n_regions = 2;
    answer->ring = (bt_msg_ring){.base = UINT64_C(0x7f1000000000),
                                 .to_receiver_bytes = 262144,
                                 .to_sender_bytes = 131072,
                                 .rkey = some(24),
                                 .doorbell = some(12)};
    for (uint32_t i = 0; i < 2; i++)
        answer->regions[i] = (bt_msg_region){.region = i,
                                             .generation = 7,
                                             .kind = i == 0 ? BT_REGION_POOL : BT_REGION_ENGINE,
                                             .memory = BATON_MEMORY_CUDA_DEVICE,
                                             .base = UINT64_C(0x7f0000000000) + i,
                                             .page_bytes = 262144,
                                             .n_pages = 1000,
                                             .rkey = some(i == 0 ? 20 : 0)};
    answer->scratch =
        (bt_msg_scratch){.base = UINT64_C(0x7e0000000000), .bytes = 1 << 20, .rkey = some(20)};
}

static void fill_granted(bt_message *message)
{
    static const bt_page_run runs[] = {{0, 3, 0, 7, 100}, {4, 1, 1, 2, 0}};
    message->u.alloc_answer = (bt_msg_alloc_answer){.outcome = BT_ALLOC_GRANTED,
                                                    .ticket = 9,
                                                    .generation = 3,
                                                    .nonce = some(BT_NONCE_BYTES),
                                                    .n_chunks = 6,
                                                    .runs = runs,
                                                    .n_runs = 2};
}

static void fill_refused(bt_message *message)
{
    message->status = BATON_ERR_TOO_LARGE;
    message->text = bt_blob_of_text("request: wanted 9 pages, the pool has 8");
    message->u.alloc_answer = (bt_msg_alloc_answer){
        .outcome = BT_ALLOC_REFUSED, .retry_ms = 250, .pages_wanted = 9, .pages_total = 8};
}

static void fill_commit(bt_message *message)
{
    static const bt_chunk_range ranges[] = {{4, 1}, {0, 3}};
    message->u.commit = (bt_msg_commit){
        .name = ticket_name(), .ranges = ranges, .n_ranges = 2, .digests = some(4 * 8), .final = 1};
}

static void fill_heartbeat(bt_message *message)
{
    static const bt_ticket_progress tickets[] = {{5, 4, 3, 2}, {UINT64_MAX, 65536, 1, 0}};
    message->u.heartbeat = (bt_msg_heartbeat){.tickets = tickets, .n_tickets = 2};
}

static void fill_end(bt_message *message)
{
    message->u.end = (bt_msg_end){.name = ticket_name(), .reason = BATON_ERR_CANCELED};
    message->text = bt_blob_of_text("client left");
    if (message->type == BT_MSG_CANCEL)
        message->u.end.drained = 1;
    else
        message->u.end.name.nonce = (bt_blob){0};
}

static void fill(bt_message *message)
{
    switch (message->type) {
    case BT_MSG_INIT:
        message->peer_epoch = 0;
        fill_peer(&message->u.init);
        message->u.init.probe = 1;
        break;
    case BT_MSG_INIT_ANSWER:
        fill_init_answer(message);
        break;
    case BT_MSG_MEMREG:
        message->u.doorbell = some(10);
        break;
    case BT_MSG_MEMREG_ANSWER:
        fill_memreg_answer(message);
        break;
    case BT_MSG_ALLOC:
        message->u.alloc = (bt_msg_alloc){
            .request = bt_blob_of_text("cmpl-12"),
            .keys = some(64),
            .last_tokens = 17,
            .deadline_ms = 300000,
            .may_queue = 1,
            .notice = bt_blob_of_text("tcp://127.0.0.1:7500"),
            .trace = bt_blob_of_text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")};
        break;
    case BT_MSG_COMMIT:
        fill_commit(message);
        break;
    case BT_MSG_COMMIT_ANSWER:
        message->u.commit_answer = (bt_msg_commit_answer){.landed = 6, .final = 1};
        break;
    case BT_MSG_CANCEL:
    case BT_MSG_REVOKE:
        fill_end(message);
        break;
    case BT_MSG_DRAINED:
        message->u.drained = ticket_name();
        break;
    case BT_MSG_RELEASE:
    case BT_MSG_STATUS:
        message->u.request = bt_blob_of_text("cmpl-12");
        break;
    case BT_MSG_RELEASE_ANSWER:
        message->u.released = 2;
        break;
    case BT_MSG_STATUS_ANSWER:
        message->u.status_answer = (bt_msg_status_answer){.state = BT_REQUEST_FAILED,
                                                          .n_chunks = 6,
                                                          .landed = 5,
                                                          .rank = 1,
                                                          .world = 2,
                                                          .reason = BATON_ERR_PEER_GONE};
        break;
    case BT_MSG_HEARTBEAT:
    case BT_MSG_HEARTBEAT_ANSWER:
        fill_heartbeat(message);
        break;
    default: /* common fields only */
        break;
    }
}

const char *message_sample(unsigned idx, bt_message *message)
{
    static const struct {
        const char *name;
        bt_message_type type;
        void (*fill)(bt_message *message);
    } samples[] = {
#define SAMPLE(name) {#name, BT_MSG_##name, fill},
        BT_MESSAGE_TYPES(SAMPLE)
#undef SAMPLE
            {"ALLOC_ANSWER_refused", BT_MSG_ALLOC_ANSWER, fill_refused},
        {"ALLOC_ANSWER_granted", BT_MSG_ALLOC_ANSWER, fill_granted},
        {"COMMIT_ANSWER_stale", BT_MSG_COMMIT_ANSWER, NULL},
    };
    if (idx >= sizeof(samples) / sizeof(samples[0]))
        return NULL;
    *message = (bt_message){.type = samples[idx].type,
                            .v = BT_PROTOCOL_VERSION,
                            .epoch = UINT64_C(0x8000000000000001),
                            .id = samples[idx].type == BT_MSG_REVOKE ? 0 : 77,
                            .peer_epoch = 1234567890123};
    if (samples[idx].type == BT_MSG_ALLOC_ANSWER && samples[idx].fill == fill)
        message->u.alloc_answer =
            (bt_msg_alloc_answer){.outcome = BT_ALLOC_QUEUED, .ticket = 9, .place = 4};
    else if (samples[idx].fill != NULL)
        samples[idx].fill(message);
    else
        message->status = BATON_ERR_STALE;
    return samples[idx].name;
}
