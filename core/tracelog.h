/* SPDX-License-Identifier: Apache-2.0 */
/* What became of the requests that have ended here: when each reached which stage. The latest ones
 * and the slowest of the last hour are kept, so many and no more.
 *
 *   recent   | newest ... oldest |  ring      slowest  | so many, in no order |
 *
 * Thread rule: owner thread, or the owner's lock. */
#ifndef BT_CORE_TRACELOG_H
#define BT_CORE_TRACELOG_H
#include "core/jsonwriter.h"
#include "core/traceparent.h"

enum {
    BT_TRACE_STAGES_MAX = 16,
    BT_TRACE_REQUEST_BYTES = 256,
    BT_TRACE_ALIAS_BYTES = 63,
    BT_TRACE_TEXT_BYTES = 160,
    BT_TRACE_WITH_BYTES = 127,
    BT_TRACELOG_RECENT = 256,
    BT_TRACELOG_SLOWEST = 32,
};

typedef struct {
    char trace[BT_TRACE_ID_CHARS + 1];        /* "": none was given */
    char request[BT_TRACE_REQUEST_BYTES + 1]; /* the attempt, as both libraries know it */
    char alias[BT_TRACE_ALIAS_BYTES + 1];     /* the client's own name of it; "" */
    char with[BT_TRACE_WITH_BYTES + 1];       /* who is at the other end, for people */
    char text[BT_TRACE_TEXT_BYTES];           /* why it failed; "" */
    baton_status status;                      /* IN_PROGRESS: it has not ended */
    uint64_t at_ns[BT_TRACE_STAGES_MAX];      /* by stage; 0: not reached */
    uint64_t bytes;
    uint32_t n_chunks, n_sent, n_present;
    uint64_t tag;    /* for bt_tracelog_stamp; 0: none */
    uint64_t serial; /* the log's */
} bt_trace_record;

typedef struct bt_tracelog bt_tracelog;

/* Errors: NO_MEMORY. */
baton_status bt_tracelog_create(bt_tracelog **log_p);
void bt_tracelog_destroy(bt_tracelog *log); /* NULL is allowed. */
/* A request has ended. log NULL: nothing is kept. */
void bt_tracelog_add(bt_tracelog *log, const bt_trace_record *record);
/* A stage that records with this tag reach after their end. log NULL is allowed. */
void bt_tracelog_stamp(bt_tracelog *log, uint64_t tag, uint32_t stage, uint64_t at_ns);

/* The next record, newest first, then those that are kept only because they were slow. *cursor
 * starts at 0. NULL: that was all. */
const bt_trace_record *bt_tracelog_next(const bt_tracelog *log, uint32_t *cursor);
/* The slowest ones: the nth, slowest first; NULL: there are not so many. */
const bt_trace_record *bt_tracelog_slowest(const bt_tracelog *log, uint32_t nth);
/* id is its trace, its attempt or its alias. */
bool bt_trace_is(const bt_trace_record *record, const char *id);
/* From its first stage to its last. */
uint64_t bt_trace_took_ns(const bt_trace_record *record);
/* One object; stages are those reached, in order of time, named by names[n_stages]. */
void bt_trace_put(bt_jsonwriter *json, const bt_trace_record *record, const char *const *names,
                  uint32_t n_stages);

#endif
