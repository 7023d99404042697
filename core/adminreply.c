/* SPDX-License-Identifier: Apache-2.0 */
#include "core/adminreply.h"

#include "core/clock.h"

#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const char *const names[] = {"",       "transfers", "pages", "peers",
                                    "leases", "counters",  "trace", "slow"};

bool bt_admin_is_known(const bt_admin_query *query)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(query->name, names[i]) == 0)
            return true;
    return false;
}

unsigned bt_admin_put_unknown(bt_strbuf *out, const bt_admin_query *query)
{
    bt_jsonwriter json = {.out = out};
    bt_jw_open(&json, NULL, '{');
    bt_jw_text(&json, "error",
               "wanted /, /transfers, /pages, /peers, /leases, /counters, /trace or /slow");
    bt_jw_text(&json, "found", query->name);
    bt_jw_close(&json);
    bt_strbuf_putc(out, '\n');
    return 404;
}

void bt_admin_begin(bt_jsonwriter *json, bt_strbuf *out, const bt_admin_head *head)
{
    struct timespec wall;
    bt_process self;
    clock_gettime(CLOCK_REALTIME, &wall);
    bt_process_self(&self);
    *json = (bt_jsonwriter){.out = out};
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "baton", BATON_VERSION);
    bt_jw_text(json, "role", head->role);
    bt_jw_text(json, "name", head->name);
    bt_jw_u64(json, "rank", head->rank);
    bt_jw_u64(json, "world", head->world);
    bt_jw_u64(json, "pid", (uint64_t)getpid());
    bt_jw_hex64(json, "epoch", head->epoch);
    bt_jw_text(json, "boot", self.boot);
    bt_jw_u64(json, "now_ns", head->now_ns);
    bt_jw_u64(json, "wall_ns", (uint64_t)wall.tv_sec * BT_NS_PER_S + (uint64_t)wall.tv_nsec);
}

void bt_admin_end(bt_jsonwriter *json)
{
    bt_jw_close(json);
    bt_strbuf_putc(json->out, '\n');
}

void bt_admin_rows_begin(bt_jsonwriter *json, bt_admin_rows *rows, const bt_admin_query *query,
                         const char *key)
{
    *rows = (bt_admin_rows){.query = query};
    bt_jw_open(json, key, '[');
}

bt_admin_row bt_admin_rows_next(bt_admin_rows *rows, const char *state)
{
    const bt_admin_query *query = rows->query;
    if (query->state[0] != 0 && strcasecmp(query->state, state) != 0)
        return BT_ROW_SKIP;
    if (rows->n_matched++ < query->from)
        return BT_ROW_SKIP;
    if (rows->n_written == query->limit)
        return BT_ROW_STOP;
    rows->n_written++;
    return BT_ROW_WRITE;
}

static void put_next(bt_jsonwriter *json, bool has_more, uint64_t next)
{
    if (has_more)
        bt_jw_u64(json, "next", next);
    else
        bt_jw_text(json, "next", NULL);
}

void bt_admin_rows_end(bt_jsonwriter *json, const bt_admin_rows *rows)
{
    uint64_t next = rows->query->from + rows->n_written;
    bt_jw_close(json);
    put_next(json, rows->n_matched > next, next);
}

void bt_admin_put_counters(bt_jsonwriter *json, const bt_admin_counter *counters, size_t n,
                           const void *stats)
{
    bt_jw_open(json, "counters", '{');
    for (size_t i = 0; i < n; i++) {
        uint64_t value;
        memcpy(&value, (const char *)stats + counters[i].offset, sizeof(value));
        bt_jw_u64(json, counters[i].name, value);
    }
    bt_jw_close(json);
}

void bt_admin_put_left(bt_jsonwriter *json, const char *key, uint64_t now_ns, uint64_t deadline_ns)
{
    if (deadline_ns == BT_NEVER_NS || deadline_ns == 0)
        bt_jw_text(json, key, NULL);
    else
        bt_jw_double(json, key, ((double)deadline_ns - (double)now_ns) / 1e6, 3);
}

void bt_admin_put_age(bt_jsonwriter *json, const char *key, uint64_t now_ns, uint64_t since_ns)
{
    if (since_ns == 0)
        bt_jw_text(json, key, NULL);
    else
        bt_jw_ms(json, key, bt_elapsed_ns(now_ns, since_ns));
}

void bt_admin_write_traces(bt_jsonwriter *json, bt_admin_rows *rows, const bt_tracelog *log,
                           const char *const *stages, uint32_t n_stages)
{
    uint32_t cursor = 0;
    const bt_trace_record *record;
    while ((record = bt_tracelog_next(log, &cursor)) != NULL) {
        if (rows->query->id[0] != 0 && !bt_trace_is(record, rows->query->id))
            continue;
        bt_admin_row row = bt_admin_rows_next(rows, baton_status_name(record->status));
        if (row == BT_ROW_STOP)
            break;
        if (row == BT_ROW_WRITE)
            bt_trace_put(json, record, stages, n_stages);
    }
}

void bt_admin_write_slowest(bt_jsonwriter *json, bt_admin_rows *rows, const bt_tracelog *log,
                            const char *const *stages, uint32_t n_stages)
{
    const bt_trace_record *record;
    for (uint32_t i = 0; (record = bt_tracelog_slowest(log, i)) != NULL; i++) {
        bt_admin_row row = bt_admin_rows_next(rows, baton_status_name(record->status));
        if (row == BT_ROW_STOP)
            break;
        if (row == BT_ROW_WRITE)
            bt_trace_put(json, record, stages, n_stages);
    }
}
