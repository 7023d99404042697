/* SPDX-License-Identifier: Apache-2.0 */
/* What one request of a load run did, and growing lists of durations.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_LOAD_RECORD_H
#define BT_BENCH_LOAD_RECORD_H
#include "core/strbuf.h"
#include "core/traceparent.h"

enum { BT_LOAD_KIND_BYTES = 48, BT_LOAD_DETAIL_BYTES = 160 };

/* Durations; zero-initialise it. */
typedef struct {
    uint64_t *ns; /* [n], owned */
    size_t n, capacity;
    bool failed; /* no memory: some are missing */
} bt_load_samples;

void bt_load_samples_add(bt_load_samples *samples, uint64_t ns);
void bt_load_samples_free(bt_load_samples *samples);

/* Times are of one monotonic clock; 0: did not happen. */
typedef struct {
    uint64_t start_ns; /* due: later sending, for want of a free place, is waiting too */
    uint64_t sent_ns;
    uint64_t first_ns; /* first token; streams only */
    uint64_t last_ns;  /* last token; streams only */
    uint64_t end_ns;
    bt_load_samples itl; /* gaps between token events; streams only */
    uint32_t n_token_events;
    uint32_t prompt_tokens; /* this and the next two as the server's usage says */
    uint32_t cached_tokens;
    uint32_t output_tokens;
    unsigned http_status; /* 0: none came */
    bt_traceparent trace; /* as which it was sent */
    bool ended;           /* on_done was there */
    bool ok;
    bool has_usage;
    char kind[BT_LOAD_KIND_BYTES];     /* of the error, for counting; "" when ok */
    char detail[BT_LOAD_DETAIL_BYTES]; /* what was said about it */
    bt_strbuf text;                    /* the answer; only when somebody wants it */
} bt_load_record;

/* Frees what it owns. */
void bt_load_record_free(bt_load_record *record);

#endif
