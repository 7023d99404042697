/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "wire/message_samples.h"
#include "wire/oracle.h"
#include "wire/packfields.h"

#include <stdio.h>
#include <stdlib.h>

static const bt_unpack_limits frame_limits = {
    .max_elements = 400000, .max_blob_bytes = 2 << 20, .max_depth = 4};

static uint8_t buffer[8192];

static size_t encode_sample(const bt_message *message, uint8_t *out, size_t size)
{
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, out, size);
    assert_ok(bt_message_encode(message, &writer));
    return writer.n;
}

static size_t load_golden(const char *name, uint8_t *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", MESSAGE_CORPUS, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail_msg("%s is missing", path);
    size_t n = fread(bytes, 1, size, file);
    fclose(file);
    return n;
}

static void frames_equal_those_of_another_implementation(void **state)
{
    (void)state;
    bt_message message;
    uint8_t golden[4096];
    const char *name;
    for (unsigned i = 0; (name = message_sample(i, &message)) != NULL; i++) {
        size_t n = encode_sample(&message, buffer, sizeof(buffer));
        size_t n_golden = load_golden(name, golden, sizeof(golden));
        if (n != n_golden || memcmp(buffer, golden, n) != 0)
            fail_msg("%s: frame differs from the corpus", name);
        assert_int_equal(oracle_compare(buffer, n, &frame_limits), ORACLE_AGREE);
    }
}

/* Encoding takes lists from arrays, decoding leaves them packed: this copies them back. */
typedef struct {
    bt_page_run runs[8];
    bt_chunk_range ranges[8];
    bt_ticket_progress tickets[8];
} unpacked_lists;

static void unpack_lists(bt_message *message, unpacked_lists *lists)
{
    bt_list_cursor cursor = {0};
    uint32_t n = 0;
    if (message->type == BT_MSG_ALLOC_ANSWER) {
        while (bt_message_next_run(&message->u.alloc_answer, &cursor, &lists->runs[n]))
            n++;
        assert_int_equal(n, message->u.alloc_answer.n_runs);
        message->u.alloc_answer.runs = lists->runs;
    } else if (message->type == BT_MSG_COMMIT) {
        while (bt_message_next_range(&message->u.commit, &cursor, &lists->ranges[n]))
            n++;
        assert_int_equal(n, message->u.commit.n_ranges);
        message->u.commit.ranges = lists->ranges;
    } else if (message->type == BT_MSG_HEARTBEAT || message->type == BT_MSG_HEARTBEAT_ANSWER) {
        while (bt_message_next_ticket(&message->u.heartbeat, &cursor, &lists->tickets[n]))
            n++;
        assert_int_equal(n, message->u.heartbeat.n_tickets);
        message->u.heartbeat.tickets = lists->tickets;
    }
}

static void every_message_survives_a_round_trip(void **state)
{
    (void)state;
    bt_message message, back;
    unpacked_lists lists;
    uint8_t again[4096];
    const char *name;
    for (unsigned i = 0; (name = message_sample(i, &message)) != NULL; i++) {
        size_t n = encode_sample(&message, buffer, sizeof(buffer));
        uint8_t *guarded = bt_guarded_copy(buffer, n);
        assert_ok(bt_message_decode(guarded, n, &back));
        assert_int_equal(back.type, message.type);
        assert_int_equal(back.status, message.status);
        unpack_lists(&back, &lists);
        assert_int_equal(encode_sample(&back, again, sizeof(again)), n);
        assert_memory_equal(again, buffer, n);
        bt_guarded_free(guarded, n);
    }
}

static void decoded_fields_have_their_values(void **state)
{
    (void)state;
    bt_message message;
    size_t n = load_golden("INIT", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.init.rank, 1);
    assert_string_equal(message.u.init.layout.model, "tiny llama");
    assert_int_equal(message.u.init.layout.head_dim, 128);
    assert_int_equal(message.u.init.process.pid, 4242);
    assert_int_equal(message.u.init.seed.bytes, 32);
    n = load_golden("MEMREG_ANSWER", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.memreg_answer.n_regions, 2);
    assert_int_equal(message.u.memreg_answer.regions[0].rkey.bytes, 20);
    assert_int_equal(message.u.memreg_answer.regions[1].kind, BT_REGION_ENGINE);
    n = load_golden("ALLOC", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_true(bt_blob_is_text(message.u.alloc.request, "cmpl-12"));
    assert_int_equal(message.u.alloc.keys.bytes, 64);
    assert_int_equal(message.u.alloc.last_tokens, 17);
    assert_int_equal(message.u.alloc.trace.bytes, 55);
    n = load_golden("REVOKE", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.end.reason, BATON_ERR_CANCELED);
    assert_int_equal(message.u.end.name.generation, 3);
    assert_true(bt_blob_is_text(message.text, "client left"));
}

/* As peers say it that know no rings. */
static void rings_may_be_missing(void **state)
{
    (void)state;
    bt_message message;
    size_t n = load_golden("MEMREG-without-rings", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.doorbell.bytes, 0);
    n = load_golden("MEMREG_ANSWER-without-rings", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.memreg_answer.n_regions, 2);
    assert_int_equal(message.u.memreg_answer.ring.to_receiver_bytes, 0);
    n = load_golden("MEMREG_ANSWER", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.memreg_answer.ring.to_sender_bytes, 131072);
    assert_int_equal(message.u.memreg_answer.ring.doorbell.bytes, 12);
}

/* As peers say it that trace nothing. */
static void a_trace_may_be_missing(void **state)
{
    (void)state;
    bt_message message;
    size_t n = load_golden("ALLOC-without-trace", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.alloc.trace.bytes, 0);
    assert_int_equal(message.u.alloc.last_tokens, 17);
}

static void a_frame_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    bt_message message, back;
    for (unsigned i = 0; message_sample(i, &message) != NULL; i++) {
        size_t n = encode_sample(&message, buffer, sizeof(buffer));
        for (size_t cut = 0; cut < n; cut++) {
            uint8_t *guarded = bt_guarded_copy(buffer, cut);
            assert_fails(bt_message_decode(guarded, cut, &back), BATON_ERR_BAD_MESSAGE, NULL);
            bt_guarded_free(guarded, cut);
        }
        buffer[n] = 0xc0;
        assert_fails(bt_message_decode(buffer, n + 1, &back), BATON_ERR_BAD_MESSAGE,
                     "1 bytes behind the end");
    }
}

static void mutated_frames_are_refused_or_stay_within_limits(void **state)
{
    (void)state;
    bt_rng rng = {.state = 2};
    bt_message message, back;
    unsigned n_accepted = 0;
    for (unsigned i = 0; message_sample(i, &message) != NULL; i++) {
        size_t n = encode_sample(&message, buffer, sizeof(buffer));
        uint8_t *guarded = bt_guarded_copy(buffer, n);
        for (unsigned round = 0; round < 2000; round++) {
            memcpy(guarded, buffer, n);
            for (uint64_t flips = bt_rng_below(&rng, 3) + 1; flips > 0; flips--)
                guarded[bt_rng_below(&rng, n)] = (uint8_t)bt_rng_next(&rng);
            baton_status status = bt_message_decode(guarded, n, &back);
            if (status == BATON_OK) {
                unpacked_lists lists;
                n_accepted++;
                unpack_lists(&back, &lists);
                encode_sample(&back, buffer + 4096, 4096);
            } else {
                assert_true(status == BATON_ERR_BAD_MESSAGE ||
                            status == BATON_ERR_VERSION_MISMATCH);
            }
        }
        bt_guarded_free(guarded, n);
    }
    assert_true(n_accepted > 1000);
}

static void another_version_still_gives_the_common_fields(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_message back;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 5);
    bt_pack_key_u64(&writer, "epoch", 5);
    bt_pack_key_u64(&writer, "id", 6);
    bt_pack_key_u64(&writer, "v", 2);
    bt_pack_key_str(&writer, "rank", "three");
    bt_pack_key_str(&writer, "type", "INIT");
    assert_ok(bt_pack_finish(&writer));
    assert_fails(bt_message_decode(buffer, writer.n, &back), BATON_ERR_VERSION_MISMATCH,
                 "INIT: protocol version: ours 1 theirs 2");
    assert_int_equal(back.type, BT_MSG_INIT);
    assert_int_equal(back.epoch, 5);
    assert_int_equal(back.id, 6);
}

static void unknown_fields_and_types(void **state)
{
    (void)state;
    bt_packwriter writer;
    bt_message back;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    bt_pack_map(&writer, 7);
    bt_pack_key_str(&writer, "type", "RELEASE");
    bt_pack_key_u64(&writer, "v", 1);
    bt_pack_key_u64(&writer, "epoch", 5);
    bt_pack_key_u64(&writer, "id", 6);
    bt_pack_key_u64(&writer, "peer_epoch", 0);
    bt_pack_key_str(&writer, "request", "r");
    bt_pack_key_bool(&writer, "from_version_1_1", true);
    assert_ok(bt_pack_finish(&writer));
    assert_ok(bt_message_decode(buffer, writer.n, &back));
    memcpy(strstr((char *)buffer, "RELEASE"), "RELEASX", 7);
    assert_fails(bt_message_decode(buffer, writer.n, &back), BATON_ERR_BAD_MESSAGE,
                 "no such message");
}

/* Encodes a sample with one thing wrong. */
static void assert_not_encoded(const bt_message *message, const char *text)
{
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_fails(bt_message_encode(message, &writer), BATON_ERR_INVALID_ARG, text);
    bt_pack_release(&writer);
}

static bt_message sample_named(const char *wanted)
{
    bt_message message;
    const char *name;
    for (unsigned i = 0; (name = message_sample(i, &message)) != NULL; i++) {
        if (strcmp(name, wanted) == 0)
            return message;
    }
    fail_msg("no sample %s", wanted);
    return message;
}

static void a_field_over_its_limit_is_not_encoded(void **state)
{
    (void)state;
    static char long_text[600];
    memset(long_text, 'x', sizeof(long_text));
    bt_message message = sample_named("ALLOC");
    message.u.alloc.request = bt_blob_of(long_text, 257);
    assert_not_encoded(&message, "field request: wanted 1 to 256 bytes, found 257");
    message = sample_named("ALLOC");
    message.u.alloc.keys.bytes = 33;
    assert_not_encoded(&message, "keys are not whole");
    message = sample_named("ALLOC");
    message.u.alloc.notice = bt_blob_of_text("tcp://a\n");
    assert_not_encoded(&message, "field notice: a control character");
    message = sample_named("INIT");
    message.u.init.rank = 2;
    assert_not_encoded(&message, "rank is not below world");
    message = sample_named("INIT");
    message.u.init.layout.n_layers = 0;
    assert_not_encoded(&message, "field n_layers: wanted 1 to 65536, found 0");
    message = sample_named("COMMIT");
    message.u.commit.digests.bytes = 24;
    assert_not_encoded(&message, "not one digest per chunk");
    message = sample_named("MEMREG_ANSWER");
    message.u.memreg_answer.n_regions = BT_REGIONS_MAX + 1;
    assert_not_encoded(&message, "65 list elements, at most 64");
    message = sample_named("ALLOC_ANSWER");
    message.u.alloc_answer.outcome = BT_ALLOC_REFUSED;
    assert_not_encoded(&message, "refused without a status");
    message.type = (bt_message_type)99;
    assert_not_encoded(&message, "type 99");
    assert_string_equal(bt_message_type_name(message.type), "?");
}

/* Writes ALLOC_ANSWER with runs that the encoder would let pass only if they were right. */
static void assert_runs_refused(const bt_page_run *runs, uint32_t n_runs, const char *text)
{
    bt_message message = sample_named("ALLOC_ANSWER_granted"), back;
    message.u.alloc_answer.runs = runs;
    message.u.alloc_answer.n_runs = n_runs;
    size_t n = encode_sample(&message, buffer, sizeof(buffer));
    assert_fails(bt_message_decode(buffer, n, &back), BATON_ERR_BAD_MESSAGE, text);
}

static void runs_that_overlap_or_leave_the_request_are_refused(void **state)
{
    (void)state;
    assert_runs_refused((bt_page_run[]){{5, 2, 0, 0, 0}}, 1, "a run ends at chunk 7 of 6");
    assert_runs_refused((bt_page_run[]){{0, 2, 0, 0, 0}, {1, 1, 0, 0, 9}}, 2,
                        "run from chunk 1 behind chunk 2");
    assert_runs_refused((bt_page_run[]){{0, 0, 0, 0, 0}}, 1, "run of 0 chunks");
    assert_runs_refused((bt_page_run[]){{1, UINT32_MAX, 0, 0, 0}}, 1, "run of 4294967295");
    assert_runs_refused((bt_page_run[]){{0, 2, 0, 0, UINT32_MAX}}, 1, "at page 4294967295");
}

static void ranges_and_regions_out_of_bounds_are_refused(void **state)
{
    (void)state;
    bt_message message = sample_named("COMMIT"), back;
    const bt_chunk_range beyond = {BT_CHUNKS_MAX - 1, 2};
    message.u.commit.ranges = &beyond;
    message.u.commit.n_ranges = 1;
    message.u.commit.digests = (bt_blob){0};
    size_t n = encode_sample(&message, buffer, sizeof(buffer));
    assert_fails(bt_message_decode(buffer, n, &back), BATON_ERR_BAD_MESSAGE,
                 "range of 2 chunks from 65535");
    message = sample_named("MEMREG_ANSWER");
    message.u.memreg_answer.regions[1].base = UINT64_MAX - 5;
    n = encode_sample(&message, buffer, sizeof(buffer));
    assert_fails(bt_message_decode(buffer, n, &back), BATON_ERR_BAD_MESSAGE,
                 "region 1 is larger than the address space");
}

/* A receiver answers with as many on its stack. */
static void a_heartbeat_of_too_many_tickets_is_refused(void **state)
{
    (void)state;
    static const uint8_t list[] = {0xdc, BT_HEARTBEAT_TICKETS_MAX >> 8,
                                   BT_HEARTBEAT_TICKETS_MAX & 0xff};
    static const bt_ticket_progress none[BT_HEARTBEAT_TICKETS_MAX];
    static const uint8_t one_more[] = {0x94, 0, 0, 0, 0};
    bt_message message = {.type = BT_MSG_HEARTBEAT,
                          .v = BT_PROTOCOL_VERSION,
                          .epoch = 1,
                          .u.heartbeat = {.tickets = none, .n_tickets = BT_HEARTBEAT_TICKETS_MAX}};
    size_t n = encode_sample(&message, buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    size_t at = 0;
    while (memcmp(buffer + at, list, sizeof(list)) != 0)
        assert_true(++at + sizeof(list) <= n);
    buffer[at + 2]++;
    at += sizeof(list);
    memmove(buffer + at + sizeof(one_more), buffer + at, n - at);
    memcpy(buffer + at, one_more, sizeof(one_more));
    assert_fails(bt_message_decode(buffer, n + sizeof(one_more), &message), BATON_ERR_BAD_MESSAGE,
                 NULL);
}

static void scratch_areas_out_of_bounds_are_refused(void **state)
{
    (void)state;
    bt_message message = sample_named("MEMREG_ANSWER"), back;
    message.u.memreg_answer.scratch.base = UINT64_MAX - 5;
    size_t n = encode_sample(&message, buffer, sizeof(buffer));
    assert_fails(bt_message_decode(buffer, n, &back), BATON_ERR_BAD_MESSAGE,
                 "the scratch area is larger than the address space");
    message.u.memreg_answer.scratch = (bt_msg_scratch){.bytes = BT_SCRATCH_BYTES_MAX + 1};
    bt_packwriter writer;
    bt_pack_init_fixed(&writer, buffer, sizeof(buffer));
    assert_fails(bt_message_encode(&message, &writer), BATON_ERR_INVALID_ARG, "field bytes");
}

static void older_peers_are_understood(void **state)
{
    (void)state;
    bt_message message;
    size_t n = load_golden("INIT_older", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.init.process.pid, 4242);
    assert_int_equal(message.u.init.process.ipc_ns, 0);
    assert_int_equal(message.u.init.probe, 0);
    n = load_golden("INIT_ANSWER_older", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.init.require_rdma, 0);
    assert_int_equal(message.u.init.min_bytes_per_s, 0);
    n = load_golden("MEMREG_ANSWER_older", buffer, sizeof(buffer));
    assert_ok(bt_message_decode(buffer, n, &message));
    assert_int_equal(message.u.memreg_answer.n_regions, 2);
    assert_int_equal(message.u.memreg_answer.scratch.bytes, 0);
}

static void the_largest_messages_fit_a_frame(void **state)
{
    (void)state;
    bt_page_run *runs = calloc(BT_CHUNKS_MAX, sizeof(*runs));
    uint8_t *keys = calloc(BT_CHUNKS_MAX, BATON_KEY_BYTES);
    assert_non_null(runs);
    assert_non_null(keys);
    for (uint32_t i = 0; i < BT_CHUNKS_MAX; i++)
        runs[i] = (bt_page_run){i, 1, UINT32_MAX, UINT32_MAX, UINT32_MAX - i};
    bt_message message = sample_named("ALLOC_ANSWER_granted"), back;
    message.u.alloc_answer.n_chunks = BT_CHUNKS_MAX;
    message.u.alloc_answer.runs = runs;
    message.u.alloc_answer.n_runs = BT_CHUNKS_MAX;
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&message, &writer));
    assert_ok(bt_message_decode(writer.bytes, writer.n, &back));
    assert_int_equal(back.u.alloc_answer.n_runs, BT_CHUNKS_MAX);

    message = sample_named("ALLOC");
    message.u.alloc.keys = bt_blob_of(keys, (size_t)BT_CHUNKS_MAX * BATON_KEY_BYTES);
    bt_pack_reset(&writer);
    assert_ok(bt_message_encode(&message, &writer));
    assert_ok(bt_message_decode(writer.bytes, writer.n, &back));
    assert_fails(bt_message_decode(writer.bytes, BT_FRAME_BYTES_MAX + 1, &back),
                 BATON_ERR_BAD_MESSAGE, "at most 4194304 bytes");
    bt_pack_release(&writer);
    free(runs);
    free(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(frames_equal_those_of_another_implementation),
        bt_test(every_message_survives_a_round_trip),
        bt_test(decoded_fields_have_their_values),
        bt_test(rings_may_be_missing),
        bt_test(a_trace_may_be_missing),
        bt_test(a_frame_cut_at_any_byte_is_refused),
        bt_test(mutated_frames_are_refused_or_stay_within_limits),
        bt_test(another_version_still_gives_the_common_fields),
        bt_test(unknown_fields_and_types),
        bt_test(a_field_over_its_limit_is_not_encoded),
        bt_test(runs_that_overlap_or_leave_the_request_are_refused),
        bt_test(ranges_and_regions_out_of_bounds_are_refused),
        bt_test(a_heartbeat_of_too_many_tickets_is_refused),
        bt_test(scratch_areas_out_of_bounds_are_refused),
        bt_test(older_peers_are_understood),
        bt_test(the_largest_messages_fit_a_frame),
    };
    return bt_run_tests(tests);
}
