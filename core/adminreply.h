/* SPDX-License-Identifier: Apache-2.0 */
/* What answers of all roles have in common (docs/operations.md): one object, with who answers, and
 * a list of rows.
 *
 *   {"role":"sender","name":...,"now_ns":...,"transfers":[{...},...],"next":200}
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_ADMINREPLY_H
#define BT_CORE_ADMINREPLY_H
#include "core/adminquery.h"
#include "core/jsonwriter.h"
#include "core/process.h"
#include "core/tracelog.h"

typedef struct {
    const char *role, *name;
    uint32_t rank, world;
    uint64_t epoch;
    uint64_t now_ns; /* of the clock that all stamps are of; the wall clock is read beside it */
} bt_admin_head;

/* Opens the object and says who answers. */
void bt_admin_begin(bt_jsonwriter *json, bt_strbuf *out, const bt_admin_head *head);
/* Closes it. */
void bt_admin_end(bt_jsonwriter *json);

/* Which rows of a list are written: those of the wanted state, from query->from on, at most
 * query->limit. */
typedef struct {
    const bt_admin_query *query;
    uint64_t n_matched;
    uint32_t n_written;
} bt_admin_rows;
typedef enum { BT_ROW_SKIP, BT_ROW_WRITE, BT_ROW_STOP } bt_admin_row;

void bt_admin_rows_begin(bt_jsonwriter *json, bt_admin_rows *rows, const bt_admin_query *query,
                         const char *key);
/* What becomes of the next row; STOP: there is one more than fits, and the walk may end. */
bt_admin_row bt_admin_rows_next(bt_admin_rows *rows, const char *state);
/* Closes the list; "next": where to go on, null when that was all. */
void bt_admin_rows_end(bt_jsonwriter *json, const bt_admin_rows *rows);

/* A counter of a struct of uint64_t. */
typedef struct {
    const char *name;
    size_t offset;
} bt_admin_counter;
void bt_admin_put_counters(bt_jsonwriter *json, const bt_admin_counter *counters, size_t n,
                           const void *stats);

/* Milliseconds from now_ns until deadline_ns, negative when it has passed; null for never. */
void bt_admin_put_left(bt_jsonwriter *json, const char *key, uint64_t now_ns, uint64_t deadline_ns);
/* Milliseconds since since_ns; null for 0. */
void bt_admin_put_age(bt_jsonwriter *json, const char *key, uint64_t now_ns, uint64_t since_ns);

/* Rows of /trace and /slow: what has ended; `names` are the stages'. */
void bt_admin_write_traces(bt_jsonwriter *json, bt_admin_rows *rows, const bt_tracelog *log,
                           const char *const *names, uint32_t n_stages);
void bt_admin_write_slowest(bt_jsonwriter *json, bt_admin_rows *rows, const bt_tracelog *log,
                            const char *const *names, uint32_t n_stages);
/* The answer to a question that nobody understands; returns the HTTP status. */
unsigned bt_admin_put_unknown(bt_strbuf *out, const bt_admin_query *query);
/* One of those that all roles answer: transfers, pages, peers, leases, counters, trace, slow; ""
 * answers with who is asked and nothing else. */
bool bt_admin_is_known(const bt_admin_query *query);

#endif
