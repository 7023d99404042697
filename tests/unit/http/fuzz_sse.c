/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an event stream: whole and byte by byte give the same events, and the raw bytes of
 * the events are a part of the stream, in order. */
#include "http/sse.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint64_t hash;
    const char *rest; /* of the stream, behind the last event */
    size_t n_rest;
} events;

static void mix(events *seen, bt_slice slice)
{
    for (size_t i = 0; i < slice.n; i++)
        seen->hash = (seen->hash ^ (unsigned char)slice.at[i]) * UINT64_C(0x100000001b3);
    seen->hash = (seen->hash ^ slice.n) * UINT64_C(0x100000001b3);
}

static void on_event(void *ctx, const bt_sse_event *event)
{
    events *seen = ctx;
    mix(seen, event->raw);
    mix(seen, event->data);
    mix(seen, event->name);
    mix(seen, event->id);
    const char *at = memmem(seen->rest, seen->n_rest, event->raw.at, event->raw.n);
    if (at == NULL || event->data.n > event->raw.n)
        abort();
    seen->n_rest -= (size_t)(at - seen->rest) + event->raw.n;
    seen->rest = at + event->raw.n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t hash = 0;
    for (size_t round = 0; round < 2; round++) {
        size_t piece = round == 0 ? size : 1;
        events seen = {.rest = (const char *)data, .n_rest = size};
        bt_sse *sse;
        if (bt_sse_create(512, on_event, &seen, &sse) != BATON_OK)
            return 0;
        for (size_t at = 0; at < size; at += piece) {
            if (bt_sse_feed(sse, (const char *)data + at, piece) != BATON_OK)
                break;
        }
        bt_sse_destroy(sse);
        if (round == 1 && seen.hash != hash)
            abort();
        hash = seen.hash;
    }
    return 0;
}
