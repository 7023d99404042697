/* SPDX-License-Identifier: Apache-2.0 */
/* Server-sent events (WHATWG HTML, 9.2): splits a byte stream into events, wherever the reads cut
 * it, and formats events. Lines end with LF, CRLF or CR; `data` lines of an event are joined with
 * LF; comments are skipped.
 *
 * Thread rule: owner thread. */
#ifndef BT_HTTP_SSE_H
#define BT_HTTP_SSE_H
#include "http/httpmsg.h"

typedef struct bt_sse bt_sse;

/* Borrowed during the callback. */
typedef struct {
    bt_slice raw;  /* the event's bytes as they came, with the empty line that ends it */
    bt_slice data; /* n 0 and at NULL when the event has no data line */
    bt_slice name; /* of the last `event` line, "" when there is none */
    bt_slice id;   /* likewise */
} bt_sse_event;
/* Called for each block of lines, comments-only blocks included (their data.at is NULL). */
typedef void (*bt_sse_fn)(void *ctx, const bt_sse_event *event);

/* max_event_bytes bounds what one event may take in memory. Errors: INVALID_ARG, NO_MEMORY. */
baton_status bt_sse_create(size_t max_event_bytes, bt_sse_fn fn, void *ctx, bt_sse **sse_p);
/* Takes n more bytes; calls fn for every event that they complete. fn must not destroy the bt_sse.
 * Errors: TOO_LARGE (an event beyond max_event_bytes), NO_MEMORY; it stays in that state. */
baton_status bt_sse_feed(bt_sse *sse, const char *bytes, size_t n);
/* Bytes of an event that is not complete yet; not 0 at the end of a stream that was cut. */
size_t bt_sse_pending_bytes(const bt_sse *sse);
void bt_sse_reset(bt_sse *sse);
void bt_sse_destroy(bt_sse *sse); /* NULL is allowed. */

/* "event: name\ndata: ...\n\n" into out[cap]; name NULL or "": no event line; a data line for every
 * line of data. Not 0-terminated; cut when cap is short. Result: bytes needed. */
size_t bt_sse_format(char *out, size_t cap, const char *name, const char *data, size_t n);

#endif
