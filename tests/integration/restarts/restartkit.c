/* SPDX-License-Identifier: Apache-2.0 */
#include "restartkit.h"

#include <inttypes.h>
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static baton_layout test_layout(void)
{
    return (baton_layout){.model = "restarts",
                          .dtype = BATON_DTYPE_F32,
                          .n_layers = 2,
                          .n_planes = 2,
                          .n_kv_heads = 1,
                          .head_dim = 8,
                          .chunk_tokens = CHUNK_TOKENS,
                          .block_tokens = 8,
                          .tp_size = 1,
                          .pp_size = 1};
}

void prompt_make(uint64_t n, prompt *p)
{
    uint32_t n_keys, last;
    baton_key_chain chain;
    const baton_layout layout = test_layout();
    bt_rng rng = {.state = n};
    for (uint32_t i = 0; i < N_TOKENS; i++)
        p->tokens[i] = (uint32_t)bt_rng_next(&rng);
    bt_rng_fill(&rng, p->data, sizeof(p->data));
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    assert_ok(baton_keys_of_tokens(&chain, p->tokens, N_TOKENS, p->keys, N_CHUNKS, &n_keys, &last));
}

baton_receiver *receiver_open(baton_progress_mode progress, ports *at)
{
    baton_receiver *receiver;
    const baton_receiver_options options = {
        .layout = test_layout(),
        .digests = BATON_DIGESTS_FULL,
        .init_port = at->init,
        .alloc_port = at->alloc,
        .pool_bytes = 4 * SLOTS * N_CHUNKS * CHUNK_BYTES,
        .admin = "off",
        .progress = progress,
        .timeouts = {.heartbeat_ms = 50, .silent_ms = SILENT_MS},
        .data = {.transport = "ucx"},
    };
    assert_ok(baton_receiver_create(&options, &receiver));
    baton_receiver_ports(receiver, &at->init, &at->alloc);
    return receiver;
}

baton_sender *sender_open(baton_progress_mode progress, baton_path_choice path)
{
    baton_sender *sender;
    const baton_sender_options options = {.layout = test_layout(),
                                          .digests = BATON_DIGESTS_FULL,
                                          .path = path,
                                          .admin = "off",
                                          .progress = progress,
                                          .data = {.transport = "ucx"}};
    assert_ok(baton_sender_create(&options, &sender));
    return sender;
}

baton_transfer hand_over(baton_sender *sender, ports to, const char *name, const prompt *p,
                         uint32_t n_pushed, uint64_t user_data)
{
    baton_transfer transfer;
    const baton_transfer_options options = {.request = name,
                                            .host = "127.0.0.1",
                                            .init_port = to.init,
                                            .alloc_port = to.alloc,
                                            .keys = p->keys,
                                            .n_chunks = N_CHUNKS,
                                            .last_tokens = CHUNK_TOKENS,
                                            .user_data = user_data};
    assert_ok(baton_transfer_begin(sender, &options, &transfer));
    for (uint32_t i = 0; i < n_pushed; i++)
        assert_ok(baton_transfer_push_bytes(sender, transfer, i, p->data + (size_t)i * CHUNK_BYTES,
                                            CHUNK_BYTES));
    if (n_pushed == N_CHUNKS)
        assert_ok(baton_transfer_finish(sender, transfer));
    return transfer;
}

void check_landed(baton_receiver *receiver, const prompt *p)
{
    baton_pin *pin;
    uint32_t matched;
    assert_ok(baton_receiver_lookup(receiver, p->tokens, N_TOKENS, &pin, &matched));
    assert_int_equal(matched, N_TOKENS);
    for (uint32_t i = 0; i < N_CHUNKS; i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_int_equal(chunk.bytes, CHUNK_BYTES);
        assert_memory_equal(chunk.page, p->data + (size_t)i * CHUNK_BYTES, CHUNK_BYTES);
    }
    assert_ok(baton_receiver_unpin(receiver, pin));
}

void usage_open(void)
{
    enum { MAPPED_BYTES = 128 << 10 }; /* the C library's own limit, until the first is freed */
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
}

void usage_note(usage_log *log)
{
    assert_true(log->n < ROUNDS_MAX);
    malloc_trim(0); /* see usage_open */
    assert_ok(bt_perf_usage_now(&log->rounds[log->n++]));
}

static uint64_t most(const usage_log *log, uint32_t from, uint32_t to, size_t offset)
{
    uint64_t most = 0;
    for (uint32_t i = from; i < to; i++) {
        uint64_t value;
        memcpy(&value, (const uint8_t *)&log->rounds[i] + offset, sizeof(value));
        most = value > most ? value : most;
    }
    return most;
}

void usage_check(const usage_log *log, const char *what, uint32_t n_restarts)
{
    /* RSS: what comes and goes with the other ends is seen in the middle of coming and going, 1 to
     * 2 MiB of it; ended requests are remembered, up to 4,096 of them in 1.2 MiB; and UCX keeps 100
     * bytes of every address it was ever connected to. A leak of 8 KiB a restart shows. */
    enum { RSS_SLACK_KB = 4096, MAPS_SLACK = 2 * SLOTS };
    static const struct {
        const char *name;
        size_t offset;
        uint64_t slack;
        bool not_sanitized; /* looked at without sanitizers only */
    } kinds[] = {
        {"fds", offsetof(bt_perf_usage, fds), SLOTS, false},
        {"mappings", offsetof(bt_perf_usage, maps), MAPS_SLACK, true},
        {"workers and registrations", offsetof(bt_perf_usage, registered), SLOTS, false},
        {"keys", offsetof(bt_perf_usage, remotes), SLOTS, false},
        {"KiB resident", offsetof(bt_perf_usage, rss_kb), RSS_SLACK_KB, true},
    };
    printf("%s: %" PRIu32 " restarts;", what, n_restarts);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        printf(" %s %" PRIu64 ", later %" PRIu64 ";", kinds[i].name,
               most(log, log->n / 4, log->n / 2, kinds[i].offset),
               most(log, log->n / 2, log->n, kinds[i].offset));
    printf("\n");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        uint64_t before = most(log, log->n / 4, log->n / 2, kinds[i].offset);
        uint64_t after = most(log, log->n / 2, log->n, kinds[i].offset);
        if (after > before + kinds[i].slack && !(kinds[i].not_sanitized && BT_HAS_SANITIZER))
            fail_msg("%s: %s grow: %" PRIu64 ", then %" PRIu64, what, kinds[i].name, before, after);
    }
}
