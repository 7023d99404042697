/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/demo_handoffs.h"

#include "core/fail.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const bt_demo_request *requests;
    bt_demo_handoff *handoffs;
    uint32_t n;
} table;

typedef void (*line_fn)(const table *t, const char *line);

/* The last attempt is the one that answered. */
static void take_attempt(const table *t, const char *line)
{
    char id[32], attempt[160];
    const char *at = strstr(line, "prefill request=");
    if (at == NULL || sscanf(at, "prefill request=%31s attempt=%159s", id, attempt) != 2)
        return;
    for (uint32_t i = 0; i < t->n; i++)
        if (strcmp(t->requests[i].id, id) == 0)
            memcpy(t->handoffs[i].attempt, attempt, sizeof(attempt));
}

static void take_ready(const table *t, const char *line)
{
    char attempt[160];
    uint32_t rank, n_chunks, sent;
    uint64_t bytes, move_us;
    const char *at = strstr(line, "receiver event=0 ");
    if (at == NULL || sscanf(at,
                             "receiver event=0 request=%159s rank=%" SCNu32 " chunks=%" SCNu32
                             " sent=%" SCNu32 " bytes=%" SCNu64 " move_us=%" SCNu64,
                             attempt, &rank, &n_chunks, &sent, &bytes, &move_us) != 6)
        return;
    for (uint32_t i = 0; i < t->n; i++) {
        bt_demo_handoff *handoff = &t->handoffs[i];
        if (strcmp(handoff->attempt, attempt) != 0)
            continue;
        handoff->n_ranks++;
        handoff->n_chunks += n_chunks;
        handoff->sent_chunks += sent;
        handoff->sent_bytes += bytes;
        handoff->move_us = move_us > handoff->move_us ? move_us : handoff->move_us;
    }
}

static baton_status read_log(const char *folder, const char *name, line_fn fn, const table *t)
{
    char path[512], line[4096];
    snprintf(path, sizeof(path), "%s/%s.log", folder, name);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return bt_fail_errno(BATON_ERR_IO, errno, "demo: %s", path);
    while (fgets(line, sizeof(line), file) != NULL)
        fn(t, line);
    fclose(file);
    return BATON_OK;
}

baton_status bt_demo_handoffs_read(const char *folder, uint32_t n_decoders,
                                   const bt_demo_request *requests, uint32_t n,
                                   bt_demo_handoff *handoffs)
{
    const table t = {.requests = requests, .handoffs = handoffs, .n = n};
    BATON_TRY(read_log(folder, "proxy", take_attempt, &t));
    for (uint32_t i = 1; i <= n_decoders; i++) {
        char name[32];
        snprintf(name, sizeof(name), "decode-%u", i);
        BATON_TRY(read_log(folder, name, take_ready, &t));
    }
    return BATON_OK;
}
