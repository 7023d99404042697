/* SPDX-License-Identifier: Apache-2.0 */
#include "http/sse.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <string.h>

struct bt_sse {
    bt_sse_fn fn;
    void *ctx;
    size_t max_event_bytes;
    char *raw; /* [raw_cap]; the event so far; n_raw bytes */
    size_t n_raw, raw_cap;
    char *joined; /* [joined_cap]; data of events with several data lines */
    size_t joined_cap;
    bool line_empty;  /* nothing since the last line end */
    bool last_was_cr; /* a LF now belongs to that CR */
    bool any_line;    /* the event has a line that is not empty */
    bool held;        /* the event is complete but for a LF that may belong to its last CR */
    bool started;     /* the stream's byte order mark is behind us */
    baton_status failed;
};

baton_status bt_sse_create(size_t max_event_bytes, bt_sse_fn fn, void *ctx, bt_sse **sse_p)
{
    if (max_event_bytes == 0 || fn == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "sse: wanted a size limit and a callback");
    bt_sse *sse = bt_calloc(1, sizeof(*sse));
    if (sse == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sse: a splitter");
    sse->fn = fn;
    sse->ctx = ctx;
    sse->max_event_bytes = max_event_bytes;
    bt_sse_reset(sse);
    *sse_p = sse;
    return BATON_OK;
}

void bt_sse_destroy(bt_sse *sse)
{
    if (sse == NULL)
        return;
    bt_free(sse->raw);
    bt_free(sse->joined);
    bt_free(sse);
}

static void next_event(bt_sse *sse)
{
    sse->n_raw = 0;
    sse->line_empty = true;
    sse->any_line = sse->held = false;
}

void bt_sse_reset(bt_sse *sse)
{
    next_event(sse);
    sse->last_was_cr = sse->started = false;
    sse->failed = BATON_OK;
}

size_t bt_sse_pending_bytes(const bt_sse *sse)
{
    return sse->n_raw;
}

static baton_status append(bt_sse *sse, const char *bytes, size_t n)
{
    if (n > sse->max_event_bytes - sse->n_raw)
        return sse->failed = bt_fail(BATON_ERR_TOO_LARGE, "sse: an event of more than %zu bytes",
                                     sse->max_event_bytes);
    if (sse->raw_cap - sse->n_raw < n) {
        size_t cap = sse->raw_cap != 0 ? sse->raw_cap : 1024;
        while (cap - sse->n_raw < n)
            cap *= 2;
        char *grown = bt_realloc(sse->raw, cap, 1);
        if (grown == NULL)
            return sse->failed = bt_fail(BATON_ERR_NO_MEMORY, "sse: an event of %zu bytes", cap);
        sse->raw = grown;
        sse->raw_cap = cap;
    }
    memcpy(sse->raw + sse->n_raw, bytes, n);
    sse->n_raw += n;
    return BATON_OK;
}

/* Room for the joined data of this event: each line cost more bytes raw than it takes joined. */
static baton_status reserve_joined(bt_sse *sse)
{
    if (sse->joined_cap >= sse->n_raw)
        return BATON_OK;
    char *grown = bt_realloc(sse->joined, sse->n_raw, 1);
    if (grown == NULL)
        return sse->failed = bt_fail(BATON_ERR_NO_MEMORY, "sse: data of %zu bytes", sse->n_raw);
    sse->joined = grown;
    sse->joined_cap = sse->n_raw;
    return BATON_OK;
}

/* A second data line moves the first one into `joined`, and goes behind it with a LF. */
static baton_status add_data(bt_sse *sse, bt_slice line, bt_slice *data, bool *is_joined)
{
    if (data->at == NULL) {
        *data = line;
        return BATON_OK;
    }
    if (!*is_joined) {
        BATON_TRY(reserve_joined(sse));
        memcpy(sse->joined, data->at, data->n);
        *is_joined = true;
    }
    sse->joined[data->n] = '\n';
    memcpy(sse->joined + data->n + 1, line.at, line.n);
    *data = (bt_slice){sse->joined, data->n + 1 + line.n};
    return BATON_OK;
}

static baton_status take_line(bt_sse *sse, bt_slice line, bt_sse_event *event, bool *joined)
{
    const char *colon = line.n > 0 ? memchr(line.at, ':', line.n) : NULL;
    bt_slice field = {line.at, colon != NULL ? (size_t)(colon - line.at) : line.n};
    bt_slice value = {line.at + field.n, 0};
    if (colon != NULL) {
        value = (bt_slice){colon + 1, line.n - field.n - 1};
        if (value.n > 0 && value.at[0] == ' ')
            value = (bt_slice){value.at + 1, value.n - 1};
    }
    if (bt_slice_equals(field, "data"))
        return add_data(sse, value, &event->data, joined);
    if (bt_slice_equals(field, "event"))
        event->name = value;
    else if (bt_slice_equals(field, "id"))
        event->id = value;
    return BATON_OK;
}

static baton_status deliver(bt_sse *sse)
{
    bt_sse_event event = {.raw = {sse->raw, sse->n_raw}, .name = {"", 0}, .id = {"", 0}};
    size_t at = 0;
    bool joined = false;
    if (!sse->started && sse->n_raw >= 3 && memcmp(sse->raw, "\xef\xbb\xbf", 3) == 0)
        at = 3;
    sse->started = true;
    while (at < sse->n_raw) {
        size_t end = at;
        while (end < sse->n_raw && sse->raw[end] != '\n' && sse->raw[end] != '\r')
            end++;
        BATON_TRY(take_line(sse, (bt_slice){sse->raw + at, end - at}, &event, &joined));
        bool crlf = end + 1 < sse->n_raw && sse->raw[end] == '\r' && sse->raw[end + 1] == '\n';
        at = end + 1 + crlf;
    }
    sse->fn(sse->ctx, &event);
    next_event(sse);
    return BATON_OK;
}

/* A line ends. An empty one ends the event; empty lines between events belong to none. */
static baton_status end_line(bt_sse *sse, char c)
{
    bool ends_event = sse->line_empty && sse->any_line;
    bool between = sse->line_empty && !sse->any_line;
    bool after_crlf = sse->n_raw >= 2 && memcmp(sse->raw + sse->n_raw - 2, "\r\n", 2) == 0;
    sse->line_empty = true;
    if (between)
        return BATON_OK;
    BATON_TRY(append(sse, &c, 1));
    if (!ends_event)
        return BATON_OK;
    /* Where lines end with CR LF, this CR's LF is part of the event too. */
    sse->held = c == '\r' && after_crlf;
    return sse->held ? BATON_OK : deliver(sse);
}

/* The byte behind a CR, when it is a LF: one line end together. */
static baton_status end_crlf(bt_sse *sse)
{
    if (sse->n_raw == 0) /* its CR has ended an event, or stood between two */
        return BATON_OK;
    BATON_TRY(append(sse, "\n", 1));
    return sse->held ? deliver(sse) : BATON_OK;
}

static size_t line_length(const char *bytes, size_t n)
{
    size_t length = 0;
    while (length < n && bytes[length] != '\n' && bytes[length] != '\r')
        length++;
    return length;
}

baton_status bt_sse_feed(bt_sse *sse, const char *bytes, size_t n)
{
    if (sse->failed != BATON_OK)
        return bt_fail(sse->failed, "sse: the stream failed before");
    for (size_t i = 0; i < n;) {
        char c = bytes[i];
        bool lf_of_cr = c == '\n' && sse->last_was_cr;
        sse->last_was_cr = c == '\r';
        if (sse->held && !lf_of_cr)
            BATON_TRY(deliver(sse));
        if (lf_of_cr) {
            BATON_TRY(end_crlf(sse));
            i++;
        } else if (c == '\n' || c == '\r') {
            BATON_TRY(end_line(sse, c));
            i++;
        } else {
            size_t length = line_length(bytes + i, n - i);
            sse->line_empty = false;
            sse->any_line = true;
            BATON_TRY(append(sse, bytes + i, length));
            i += length;
        }
    }
    return BATON_OK;
}

static void put(char *out, size_t cap, size_t *used, const char *bytes, size_t n)
{
    if (*used < cap && n > 0)
        memcpy(out + *used, bytes, n < cap - *used ? n : cap - *used);
    *used += n;
}

size_t bt_sse_format(char *out, size_t cap, const char *name, const char *data, size_t n)
{
    size_t used = 0;
    if (n == 0)
        data = "";
    if (name != NULL && *name != '\0') {
        put(out, cap, &used, "event: ", 7);
        put(out, cap, &used, name, strlen(name));
        put(out, cap, &used, "\n", 1);
    }
    for (size_t at = 0; at <= n;) {
        size_t length = line_length(data + at, n - at);
        put(out, cap, &used, "data: ", 6);
        put(out, cap, &used, data + at, length);
        put(out, cap, &used, "\n", 1);
        at += length;
        bool crlf = n - at >= 2 && memcmp(data + at, "\r\n", 2) == 0;
        at += 1 + crlf;
    }
    put(out, cap, &used, "\n", 1);
    return used;
}
