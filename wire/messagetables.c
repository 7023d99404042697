/* SPDX-License-Identifier: Apache-2.0 */
/* docs/protocol.md, "Messages", as tables. Limits not named there are chosen so that products of
 * what passes them are checked where they are formed, not here. */
#include "wire/messagetables.h"

#include "core/fail.h"

#include <baton/keys.h>

enum {
    TOKENS_MAX = 1 << 20, /* of a chunk or a block */
    SIZE_MAX_16 = 65536,
    BOOT_BYTES_MAX = 64,
    DIGEST_BYTES = 8,
    RUN_NUMBERS = 5,
    RANGE_NUMBERS = 2,
    TICKET_NUMBERS = 4,
};
#define PAGE_BYTES_MAX (UINT64_C(1) << 40)

/* Elements: 65,536 runs of an array and five numbers each, and the rest. */
const bt_unpack_limits bt_message_limits = {
    .max_elements = BT_CHUNKS_MAX * (RUN_NUMBERS + 1) + 1024,
    .max_blob_bytes = BT_CHUNKS_MAX * BATON_KEY_BYTES,
    .max_depth = 4,
};

#define FIELD(kind, key, member, ...)                                                             \
    {                                                                                             \
        .name = key, .type = BT_FIELD_##kind, .offset = offsetof(bt_message, member), __VA_ARGS__ \
    }
#define TABLE(rows) ((bt_message_table){(rows), sizeof(rows) / sizeof((rows)[0])})

/* Layout. */

static baton_status read_model(bt_packreader *reader, void *value)
{
    bt_blob model;
    BATON_TRY(bt_unpack_str(reader, &model));
    if (model.bytes >= BATON_MODEL_NAME_BYTES)
        return bt_unpack_fail(reader, "wanted at most %d bytes, found %zu",
                              BATON_MODEL_NAME_BYTES - 1, model.bytes);
    if (!bt_blob_is_name(model))
        return bt_unpack_fail(reader, "a control character in a name");
    bt_blob_to_text(model, value, BATON_MODEL_NAME_BYTES);
    return BATON_OK;
}

static void write_model(bt_packwriter *writer, const void *value)
{
    bt_pack_str_n(writer, value, strnlen(value, BATON_MODEL_NAME_BYTES - 1));
}

#define LAYOUT_FIELD(member, most)                                                                 \
    {                                                                                              \
        .name = #member, .type = BT_FIELD_U32, .offset = offsetof(baton_layout, member), .min = 1, \
        .max = (most)                                                                              \
    }
static const bt_field layout_fields[] = {
    {.name = "model", .type = BT_FIELD_CALL, .read = read_model, .write = write_model},
    LAYOUT_FIELD(dtype, 255),
    LAYOUT_FIELD(n_layers, SIZE_MAX_16),
    LAYOUT_FIELD(n_planes, 2),
    LAYOUT_FIELD(n_kv_heads, SIZE_MAX_16),
    LAYOUT_FIELD(head_dim, SIZE_MAX_16),
    LAYOUT_FIELD(chunk_tokens, TOKENS_MAX),
    LAYOUT_FIELD(block_tokens, TOKENS_MAX),
    LAYOUT_FIELD(tp_size, BT_WORLD_MAX),
    LAYOUT_FIELD(pp_size, BT_WORLD_MAX),
};
enum { N_LAYOUT_FIELDS = sizeof(layout_fields) / sizeof(layout_fields[0]) };
_Static_assert(sizeof(baton_dtype) == sizeof(uint32_t), "dtype is read as a u32");

static baton_status read_layout(bt_packreader *reader, void *value)
{
    return bt_unpack_fields(reader, layout_fields, N_LAYOUT_FIELDS, value, NULL);
}

static void write_layout(bt_packwriter *writer, const void *value)
{
    bt_pack_map(writer, N_LAYOUT_FIELDS);
    bt_pack_fields(writer, layout_fields, N_LAYOUT_FIELDS, value);
}

/* Process. */

static const bt_field process_fields[] = {
    {.name = "boot",
     .type = BT_FIELD_NAME,
     .offset = offsetof(bt_process_id, boot),
     .max = BOOT_BYTES_MAX},
    {.name = "pid_ns", .type = BT_FIELD_U64, .offset = offsetof(bt_process_id, pid_ns)},
    {.name = "pid", .type = BT_FIELD_U32, .offset = offsetof(bt_process_id, pid)},
    {.name = "start", .type = BT_FIELD_U64, .offset = offsetof(bt_process_id, start)},
    {.name = "uid", .type = BT_FIELD_U32, .optional = true, .offset = offsetof(bt_process_id, uid)},
    {.name = "ipc_ns",
     .type = BT_FIELD_U64,
     .optional = true,
     .offset = offsetof(bt_process_id, ipc_ns)},
    {.name = "mnt_ns",
     .type = BT_FIELD_U64,
     .optional = true,
     .offset = offsetof(bt_process_id, mnt_ns)},
    {.name = "user_ns",
     .type = BT_FIELD_U64,
     .optional = true,
     .offset = offsetof(bt_process_id, user_ns)},
};
enum { N_PROCESS_FIELDS = sizeof(process_fields) / sizeof(process_fields[0]) };

static baton_status read_process(bt_packreader *reader, void *value)
{
    return bt_unpack_fields(reader, process_fields, N_PROCESS_FIELDS, value, NULL);
}

static void write_process(bt_packwriter *writer, const void *value)
{
    bt_pack_map(writer, N_PROCESS_FIELDS);
    bt_pack_fields(writer, process_fields, N_PROCESS_FIELDS, value);
}

/* Regions. */

#define REGION_FIELD(kind_, member, ...)                                                      \
    {                                                                                         \
        .name = #member, .type = BT_FIELD_##kind_, .offset = offsetof(bt_msg_region, member), \
        __VA_ARGS__                                                                           \
    }
static const bt_field region_fields[] = {
    REGION_FIELD(U32, region, .min = 0),
    REGION_FIELD(U32, generation, .min = 0),
    REGION_FIELD(U32, kind, .min = BT_REGION_POOL, .max = BT_REGION_ENGINE),
    REGION_FIELD(U32, memory, .max = BATON_MEMORY_CUDA_HOST),
    REGION_FIELD(U64, base, .min = 0),
    REGION_FIELD(U64, page_bytes, .min = 1, .max = PAGE_BYTES_MAX),
    REGION_FIELD(U32, n_pages, .min = 1),
    REGION_FIELD(BIN, rkey, .max = BT_BLOB_BYTES_MAX),
};
enum { N_REGION_FIELDS = sizeof(region_fields) / sizeof(region_fields[0]) };

static baton_status read_region(bt_packreader *reader, bt_msg_region *region)
{
    BATON_TRY(bt_unpack_fields(reader, region_fields, N_REGION_FIELDS, region, NULL));
    uint64_t span = 0, end = 0;
    if (__builtin_mul_overflow(region->page_bytes, region->n_pages, &span) ||
        __builtin_add_overflow(region->base, span, &end))
        return bt_unpack_fail(reader, "region %u is larger than the address space", region->region);
    return BATON_OK;
}

static baton_status read_regions(bt_packreader *reader, void *value)
{
    bt_msg_memreg_answer *answer = value;
    uint32_t count = 0;
    BATON_TRY(bt_unpack_array(reader, &count));
    if (count > BT_REGIONS_MAX)
        return bt_unpack_fail(reader, "wanted at most %d regions, found %u", BT_REGIONS_MAX, count);
    for (uint32_t i = 0; i < count; i++)
        BATON_TRY(read_region(reader, &answer->regions[i]));
    answer->n_regions = count;
    return BATON_OK;
}

static void write_regions(bt_packwriter *writer, const void *value)
{
    const bt_msg_memreg_answer *answer = value;
    bt_pack_array(writer, answer->n_regions);
    for (uint32_t i = 0; i < answer->n_regions; i++) {
        bt_pack_map(writer, N_REGION_FIELDS);
        bt_pack_fields(writer, region_fields, N_REGION_FIELDS, &answer->regions[i]);
    }
}

/* Scratch. */

static const bt_field scratch_fields[] = {
    {.name = "base", .type = BT_FIELD_U64, .offset = offsetof(bt_msg_scratch, base)},
    {.name = "bytes",
     .type = BT_FIELD_U64,
     .offset = offsetof(bt_msg_scratch, bytes),
     .max = BT_SCRATCH_BYTES_MAX},
    {.name = "rkey",
     .type = BT_FIELD_BIN,
     .offset = offsetof(bt_msg_scratch, rkey),
     .max = BT_BLOB_BYTES_MAX},
};
enum { N_SCRATCH_FIELDS = sizeof(scratch_fields) / sizeof(scratch_fields[0]) };

static baton_status read_scratch(bt_packreader *reader, void *value)
{
    bt_msg_scratch *scratch = value;
    BATON_TRY(bt_unpack_fields(reader, scratch_fields, N_SCRATCH_FIELDS, scratch, NULL));
    if (scratch->bytes > UINT64_MAX - scratch->base)
        return bt_unpack_fail(reader, "the scratch area is larger than the address space");
    return BATON_OK;
}

static void write_scratch(bt_packwriter *writer, const void *value)
{
    bt_pack_map(writer, N_SCRATCH_FIELDS);
    bt_pack_fields(writer, scratch_fields, N_SCRATCH_FIELDS, value);
}

/* Rings. */

#define RING_FIELD(kind_, member, ...)                                                      \
    {                                                                                       \
        .name = #member, .type = BT_FIELD_##kind_, .offset = offsetof(bt_msg_ring, member), \
        __VA_ARGS__                                                                         \
    }
static const bt_field ring_fields[] = {
    RING_FIELD(U64, base, .min = 0),
    RING_FIELD(U32, to_receiver_bytes, .min = 0),
    RING_FIELD(U32, to_sender_bytes, .min = 0),
    RING_FIELD(BIN, rkey, .max = BT_BLOB_BYTES_MAX),
    RING_FIELD(BIN, doorbell, .max = BT_DOORBELL_BYTES_MAX),
};
enum { N_RING_FIELDS = sizeof(ring_fields) / sizeof(ring_fields[0]) };

static baton_status read_ring(bt_packreader *reader, void *value)
{
    return bt_unpack_fields(reader, ring_fields, N_RING_FIELDS, value, NULL);
}

static void write_ring(bt_packwriter *writer, const void *value)
{
    bt_pack_map(writer, N_RING_FIELDS);
    bt_pack_fields(writer, ring_fields, N_RING_FIELDS, value);
}

/* Lists of small arrays of numbers: kept packed when decoding. */

static baton_status read_numbers(bt_packreader *reader, uint32_t wanted, uint64_t max,
                                 uint64_t *numbers)
{
    uint32_t count = 0;
    BATON_TRY(bt_unpack_array(reader, &count));
    if (count < wanted)
        return bt_unpack_fail(reader, "wanted %u numbers, found %u", wanted, count);
    for (uint32_t i = 0; i < count; i++) {
        if (i < wanted)
            BATON_TRY(bt_unpack_u64(reader, i == 0 ? UINT64_MAX : max, &numbers[i]));
        else /* of a newer peer */
            BATON_TRY(bt_unpack_skip(reader));
    }
    return BATON_OK;
}

baton_status bt_read_run(bt_packreader *reader, bt_page_run *run)
{
    uint64_t numbers[RUN_NUMBERS];
    BATON_TRY(read_numbers(reader, RUN_NUMBERS, UINT32_MAX, numbers));
    uint64_t first = numbers[0], count = numbers[1], page = numbers[4];
    if (first >= BT_CHUNKS_MAX || count == 0 || count > BT_CHUNKS_MAX - first ||
        count - 1 > UINT32_MAX - page)
        return bt_unpack_fail(reader, "run of %llu chunks from %llu at page %llu",
                              (unsigned long long)count, (unsigned long long)first,
                              (unsigned long long)page);
    *run = (bt_page_run){.first = (uint32_t)first,
                         .count = (uint32_t)count,
                         .region = (uint32_t)numbers[2],
                         .generation = (uint32_t)numbers[3],
                         .page = (uint32_t)page};
    return BATON_OK;
}

baton_status bt_read_range(bt_packreader *reader, bt_chunk_range *range)
{
    uint64_t numbers[RANGE_NUMBERS];
    BATON_TRY(read_numbers(reader, RANGE_NUMBERS, UINT32_MAX, numbers));
    if (numbers[0] >= BT_CHUNKS_MAX || numbers[1] == 0 || numbers[1] > BT_CHUNKS_MAX - numbers[0])
        return bt_unpack_fail(reader, "range of %llu chunks from %llu",
                              (unsigned long long)numbers[1], (unsigned long long)numbers[0]);
    *range = (bt_chunk_range){.first = (uint32_t)numbers[0], .count = (uint32_t)numbers[1]};
    return BATON_OK;
}

baton_status bt_read_ticket(bt_packreader *reader, bt_ticket_progress *ticket)
{
    bt_pack_type type;
    uint64_t numbers[TICKET_NUMBERS] = {0};
    BATON_TRY(bt_unpack_peek(reader, &type));
    if (type == BT_PACK_ARRAY)
        BATON_TRY(read_numbers(reader, TICKET_NUMBERS, BT_CHUNKS_MAX, numbers));
    else
        BATON_TRY(bt_unpack_u64(reader, UINT64_MAX, &numbers[0]));
    *ticket = (bt_ticket_progress){.ticket = numbers[0],
                                   .posted = (uint32_t)numbers[1],
                                   .sent = (uint32_t)numbers[2],
                                   .landed = (uint32_t)numbers[3]};
    return BATON_OK;
}

/* Begins a list of at most max elements. */
static baton_status begin_list(bt_packreader *reader, uint32_t max, uint32_t *count)
{
    BATON_TRY(bt_unpack_array(reader, count));
    if (*count > max)
        return bt_unpack_fail(reader, "wanted at most %u elements, found %u", max, *count);
    return BATON_OK;
}

static bt_blob since(const bt_packreader *reader, size_t start)
{
    return bt_blob_of(reader->bytes + start, reader->pos - start);
}

/* Runs are ascending and disjoint: no chunk has two pages. */
static baton_status read_runs(bt_packreader *reader, void *value)
{
    bt_msg_alloc_answer *answer = value;
    size_t start = reader->pos;
    uint32_t count = 0, next = 0;
    BATON_TRY(begin_list(reader, BT_CHUNKS_MAX, &count));
    for (uint32_t i = 0; i < count; i++) {
        bt_page_run run = {0};
        BATON_TRY(bt_read_run(reader, &run));
        if (run.first < next)
            return bt_unpack_fail(reader, "run from chunk %u behind chunk %u", run.first, next);
        next = run.first + run.count;
    }
    answer->n_runs = count;
    answer->packed_runs = since(reader, start);
    return BATON_OK;
}

static void write_runs(bt_packwriter *writer, const void *value)
{
    const bt_msg_alloc_answer *answer = value;
    bt_pack_array(writer, answer->n_runs);
    for (uint32_t i = 0; i < answer->n_runs; i++) {
        const bt_page_run *run = &answer->runs[i];
        bt_pack_array(writer, RUN_NUMBERS);
        bt_pack_u64(writer, run->first);
        bt_pack_u64(writer, run->count);
        bt_pack_u64(writer, run->region);
        bt_pack_u64(writer, run->generation);
        bt_pack_u64(writer, run->page);
    }
}

static baton_status read_ranges(bt_packreader *reader, void *value)
{
    bt_msg_commit *commit = value;
    size_t start = reader->pos;
    uint32_t count = 0;
    BATON_TRY(begin_list(reader, BT_CHUNKS_MAX, &count));
    for (uint32_t i = 0; i < count; i++) {
        bt_chunk_range range = {0};
        BATON_TRY(bt_read_range(reader, &range));
    }
    commit->n_ranges = count;
    commit->packed_ranges = since(reader, start);
    return BATON_OK;
}

static void write_ranges(bt_packwriter *writer, const void *value)
{
    const bt_msg_commit *commit = value;
    bt_pack_array(writer, commit->n_ranges);
    for (uint32_t i = 0; i < commit->n_ranges; i++) {
        bt_pack_array(writer, RANGE_NUMBERS);
        bt_pack_u64(writer, commit->ranges[i].first);
        bt_pack_u64(writer, commit->ranges[i].count);
    }
}

static baton_status read_tickets(bt_packreader *reader, void *value)
{
    bt_msg_heartbeat *heartbeat = value;
    size_t start = reader->pos;
    uint32_t count = 0;
    BATON_TRY(begin_list(reader, BT_HEARTBEAT_TICKETS_MAX, &count));
    for (uint32_t i = 0; i < count; i++) {
        bt_ticket_progress ticket = {0};
        BATON_TRY(bt_read_ticket(reader, &ticket));
    }
    heartbeat->n_tickets = count;
    heartbeat->packed_tickets = since(reader, start);
    return BATON_OK;
}

static void write_tickets(bt_packwriter *writer, const void *value)
{
    const bt_msg_heartbeat *heartbeat = value;
    bt_pack_array(writer, heartbeat->n_tickets);
    for (uint32_t i = 0; i < heartbeat->n_tickets; i++) {
        const bt_ticket_progress *ticket = &heartbeat->tickets[i];
        bt_pack_array(writer, TICKET_NUMBERS);
        bt_pack_u64(writer, ticket->ticket);
        bt_pack_u64(writer, ticket->posted);
        bt_pack_u64(writer, ticket->sent);
        bt_pack_u64(writer, ticket->landed);
    }
}

static void write_unknown_tickets(bt_packwriter *writer, const void *value)
{
    const bt_msg_heartbeat *heartbeat = value;
    bt_pack_array(writer, heartbeat->n_tickets);
    for (uint32_t i = 0; i < heartbeat->n_tickets; i++)
        bt_pack_u64(writer, heartbeat->tickets[i].ticket);
}

/* The tables. */

#define PEER_FIELDS                                                                       \
    FIELD(NAME, "name", u.init.name, .max = BT_PEER_NAME_BYTES_MAX),                      \
        FIELD(U32, "rank", u.init.rank, .max = BT_WORLD_MAX - 1),                         \
        FIELD(U32, "world", u.init.world, .min = 1, .max = BT_WORLD_MAX),                 \
        FIELD(CALL, "layout", u.init.layout, .read = read_layout, .write = write_layout), \
        FIELD(U32, "digests", u.init.digests, .max = BT_DIGESTS_MAX),                     \
        FIELD(CALL, "process", u.init.process, .read = read_process, .write = write_process)
static const bt_field init_fields[] = {
    PEER_FIELDS,
    FIELD(BIN, "seed", u.init.seed, .min = BATON_KEY_BYTES, .max = BATON_KEY_BYTES),
    FIELD(U32, "connection", u.init.connection, .min = 1),
    FIELD(U32, "probe", u.init.probe, .optional = true, .max = 1),
};
static const bt_field init_answer_fields[] = {
    PEER_FIELDS,
    FIELD(BIN, "worker", u.init.worker, .max = BT_BLOB_BYTES_MAX),
    FIELD(U64, "page_bytes", u.init.page_bytes, .min = 1, .max = PAGE_BYTES_MAX),
    FIELD(U32, "lease_ms", u.init.lease_ms, .min = 1),
    FIELD(U32, "heartbeat_ms", u.init.heartbeat_ms, .min = 1),
    FIELD(U32, "silent_ms", u.init.silent_ms, .min = 1),
    FIELD(U32, "require_rdma", u.init.require_rdma, .optional = true, .max = 1),
    FIELD(U64, "min_bytes_per_s", u.init.min_bytes_per_s, .optional = true),
};

static const bt_field memreg_fields[] = {
    FIELD(BIN, "doorbell", u.doorbell, .max = BT_DOORBELL_BYTES_MAX, .optional = true),
};
static const bt_field memreg_answer_fields[] = {
    FIELD(CALL, "regions", u.memreg_answer, .read = read_regions, .write = write_regions),
    FIELD(CALL, "scratch", u.memreg_answer.scratch, .optional = true, .read = read_scratch,
          .write = write_scratch),
    FIELD(CALL, "ring", u.memreg_answer.ring, .read = read_ring, .write = write_ring,
          .optional = true),
};

static const bt_field alloc_fields[] = {
    FIELD(NAME, "request", u.alloc.request, .min = 1, .max = BT_REQUEST_ID_BYTES_MAX),
    FIELD(BIN, "keys", u.alloc.keys, .min = BATON_KEY_BYTES,
          .max = BT_CHUNKS_MAX * BATON_KEY_BYTES),
    FIELD(U32, "last_tokens", u.alloc.last_tokens, .min = 1, .max = TOKENS_MAX),
    FIELD(U32, "deadline_ms", u.alloc.deadline_ms, .min = 1),
    FIELD(U32, "may_queue", u.alloc.may_queue, .max = 1),
    FIELD(NAME, "notice", u.alloc.notice, .max = BT_NOTICE_ADDRESS_BYTES_MAX),
    FIELD(NAME, "trace", u.alloc.trace, .max = BT_TRACE_BYTES_MAX, .optional = true),
};

#define OUTCOME_FIELD \
    FIELD(U32, "outcome", u.alloc_answer.outcome, .min = BT_ALLOC_GRANTED, .max = BT_ALLOC_REFUSED)
static const bt_field granted_fields[] = {
    OUTCOME_FIELD,
    FIELD(U64, "ticket", u.alloc_answer.ticket, .min = 0),
    FIELD(U32, "generation", u.alloc_answer.generation, .min = 0),
    FIELD(BIN, "nonce", u.alloc_answer.nonce, .min = BT_NONCE_BYTES, .max = BT_NONCE_BYTES),
    FIELD(U32, "n_chunks", u.alloc_answer.n_chunks, .min = 1, .max = BT_CHUNKS_MAX),
    FIELD(CALL, "runs", u.alloc_answer, .read = read_runs, .write = write_runs),
};
static const bt_field queued_fields[] = {
    OUTCOME_FIELD,
    FIELD(U64, "ticket", u.alloc_answer.ticket, .min = 0),
    FIELD(U32, "place", u.alloc_answer.place, .min = 1),
};
/* A negative status means refused, whatever the struct says. */
static baton_status read_refused(bt_packreader *reader, void *value)
{
    bt_msg_alloc_answer *answer = value;
    BATON_TRY(bt_unpack_u32(reader, BT_ALLOC_REFUSED, &answer->outcome));
    if (answer->outcome != BT_ALLOC_REFUSED)
        return bt_unpack_fail(reader, "a negative status with outcome %u", answer->outcome);
    return BATON_OK;
}

static void write_refused(bt_packwriter *writer, const void *value)
{
    (void)value;
    bt_pack_u64(writer, BT_ALLOC_REFUSED);
}

static const bt_field refused_fields[] = {
    FIELD(CALL, "outcome", u.alloc_answer, .read = read_refused, .write = write_refused),
    FIELD(U32, "retry_ms", u.alloc_answer.retry_ms, .optional = true),
    FIELD(U32, "pages_wanted", u.alloc_answer.pages_wanted, .optional = true),
    FIELD(U32, "pages_total", u.alloc_answer.pages_total, .optional = true),
};

#define TICKET_FIELDS(member)                      \
    FIELD(U64, "ticket", member.ticket, .min = 0), \
        FIELD(U32, "generation", member.generation, .min = 0)
static const bt_field commit_fields[] = {
    TICKET_FIELDS(u.commit.name),
    FIELD(BIN, "nonce", u.commit.name.nonce, .min = BT_NONCE_BYTES, .max = BT_NONCE_BYTES),
    FIELD(CALL, "ranges", u.commit, .read = read_ranges, .write = write_ranges),
    FIELD(BIN, "digests", u.commit.digests, .max = BT_CHUNKS_MAX * DIGEST_BYTES),
    FIELD(U32, "final", u.commit.final, .max = 1),
};
static const bt_field commit_answer_fields[] = {
    FIELD(U32, "landed", u.commit_answer.landed, .max = BT_CHUNKS_MAX),
    FIELD(U32, "final", u.commit_answer.final, .max = 1),
};

/* nonce: empty where the sender never had one (queued, or a ticket it does not know). */
static const bt_field cancel_fields[] = {
    TICKET_FIELDS(u.end.name),
    FIELD(BIN, "nonce", u.end.name.nonce, .max = BT_NONCE_BYTES),
    FIELD(U32, "drained", u.end.drained, .max = 1),
    FIELD(I32, "reason", u.end.reason, .min = 0),
    FIELD(STR, "text", text, .max = BT_TEXT_BYTES_MAX),
};
static const bt_field revoke_fields[] = {
    TICKET_FIELDS(u.end.name),
    FIELD(I32, "reason", u.end.reason, .min = 0),
    FIELD(STR, "text", text, .max = BT_TEXT_BYTES_MAX),
};
static const bt_field drained_fields[] = {
    TICKET_FIELDS(u.drained),
    FIELD(BIN, "nonce", u.drained.nonce, .max = BT_NONCE_BYTES),
};

static const bt_field request_fields[] = {
    FIELD(NAME, "request", u.request, .min = 1, .max = BT_REQUEST_ID_BYTES_MAX),
};
static const bt_field release_answer_fields[] = {
    FIELD(U32, "released", u.released, .min = 0),
};
static const bt_field status_answer_fields[] = {
    FIELD(U32, "state", u.status_answer.state, .max = BT_REQUEST_EXPIRED),
    FIELD(U32, "n_chunks", u.status_answer.n_chunks, .max = BT_CHUNKS_MAX),
    FIELD(U32, "landed", u.status_answer.landed, .max = BT_CHUNKS_MAX),
    FIELD(I32, "reason", u.status_answer.reason, .min = 0),
    FIELD(U32, "rank", u.status_answer.rank, .max = BT_WORLD_MAX - 1),
    FIELD(U32, "world", u.status_answer.world, .min = 1, .max = BT_WORLD_MAX),
};

static const bt_field heartbeat_fields[] = {
    FIELD(CALL, "tickets", u.heartbeat, .read = read_tickets, .write = write_tickets),
};
static const bt_field heartbeat_answer_fields[] = {
    FIELD(CALL, "unknown", u.heartbeat, .read = read_tickets, .write = write_unknown_tickets),
};

bool bt_message_is_answer(bt_message_type type)
{
    switch (type) {
    case BT_MSG_INIT_ANSWER:
    case BT_MSG_MEMREG_ANSWER:
    case BT_MSG_ALLOC_ANSWER:
    case BT_MSG_COMMIT_ANSWER:
    case BT_MSG_CANCEL_ANSWER:
    case BT_MSG_RELEASE_ANSWER:
    case BT_MSG_STATUS_ANSWER:
    case BT_MSG_HEARTBEAT_ANSWER:
        return true;
    default:
        return false;
    }
}

static bt_message_table alloc_answer_fields(const bt_message *message)
{
    if (message->status < 0)
        return TABLE(refused_fields);
    return message->u.alloc_answer.outcome == BT_ALLOC_QUEUED ? TABLE(queued_fields)
                                                              : TABLE(granted_fields);
}

bt_message_table bt_message_fields(const bt_message *message)
{
    if (message->type == BT_MSG_ALLOC_ANSWER)
        return alloc_answer_fields(message);
    if (bt_message_is_answer(message->type) && message->status < 0)
        return (bt_message_table){0};
    switch (message->type) {
    case BT_MSG_INIT:
        return TABLE(init_fields);
    case BT_MSG_INIT_ANSWER:
        return TABLE(init_answer_fields);
    case BT_MSG_MEMREG:
        return TABLE(memreg_fields);
    case BT_MSG_MEMREG_ANSWER:
        return TABLE(memreg_answer_fields);
    case BT_MSG_ALLOC:
        return TABLE(alloc_fields);
    case BT_MSG_COMMIT:
        return TABLE(commit_fields);
    case BT_MSG_COMMIT_ANSWER:
        return TABLE(commit_answer_fields);
    case BT_MSG_CANCEL:
        return TABLE(cancel_fields);
    case BT_MSG_REVOKE:
        return TABLE(revoke_fields);
    case BT_MSG_DRAINED:
        return TABLE(drained_fields);
    case BT_MSG_RELEASE:
    case BT_MSG_STATUS:
        return TABLE(request_fields);
    case BT_MSG_RELEASE_ANSWER:
        return TABLE(release_answer_fields);
    case BT_MSG_STATUS_ANSWER:
        return TABLE(status_answer_fields);
    case BT_MSG_HEARTBEAT:
        return TABLE(heartbeat_fields);
    case BT_MSG_HEARTBEAT_ANSWER:
        return TABLE(heartbeat_answer_fields);
    default: /* CANCEL_ANSWER: common fields only */
        return (bt_message_table){0};
    }
}
