/* SPDX-License-Identifier: Apache-2.0 */
/* A sender in a process of its own that is stopped in the middle of a copy, and what it shares with
 * the test: the layout and what it is told over its socket. Thread rule: one thread. */
#ifndef BT_TESTS_LATEWRITER_H
#define BT_TESTS_LATEWRITER_H
#include <baton/layout.h>
#include <baton/options.h>

#include <stdint.h>
#include <string.h>

enum {
    LATE_CHUNK_TOKENS = 16,
    LATE_PAGE_BYTES = 1 << 20,
    LATE_CHUNKS = 2,
    LATE_TOKENS = LATE_CHUNKS * LATE_CHUNK_TOKENS,
    /* Connecting takes seconds on an emulated machine whose host is busy. */
    LATE_PATIENCE_MS = 30000,
    LATE_OLD = 0x11, /* what the writer writes */
    LATE_NEW = 0x22,
    LATE_OLD_PROMPT = 100, /* its first token */
    LATE_NEW_PROMPT = 500,
};

typedef struct {
    uint16_t init_port, alloc_port;
    uint8_t stops_in_chunk;     /* in its middle */
    uint8_t is_on_another_host; /* as far as it says */
    uint8_t is_mapped;          /* else by puts, from staging pages */
    char transports[16];        /* UCX_TLS; "": UCX's own */
    char device[16];            /* "": lo */
} late_orders;

/* A page is LATE_PAGE_BYTES. */
static inline baton_layout late_layout(void)
{
    return (baton_layout){.model = "late",
                          .dtype = BATON_DTYPE_F32,
                          .n_layers = 2,
                          .n_planes = 2,
                          .n_kv_heads = 4,
                          .head_dim = 1024,
                          .chunk_tokens = LATE_CHUNK_TOKENS,
                          .block_tokens = 8,
                          .tp_size = 1,
                          .pp_size = 1};
}

static inline baton_timeouts late_timeouts(void)
{
    return (baton_timeouts){
        .connect_ms = LATE_PATIENCE_MS, .init_ms = LATE_PATIENCE_MS, .alloc_ms = LATE_PATIENCE_MS};
}

static inline void late_tokens(uint32_t first, uint32_t *tokens)
{
    for (uint32_t i = 0; i < LATE_TOKENS; i++)
        tokens[i] = first + i;
}

#endif
