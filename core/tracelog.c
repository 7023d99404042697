/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tracelog.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <assert.h>
#include <string.h>

#define KEPT_NS (3600 * BT_NS_PER_S)

struct bt_tracelog {
    bt_trace_record *recent;  /* [BT_TRACELOG_RECENT] ring */
    bt_trace_record *slowest; /* [BT_TRACELOG_SLOWEST]; serial 0: unused */
    uint64_t recent_tags[BT_TRACELOG_RECENT], slowest_tags[BT_TRACELOG_SLOWEST]; /* side by side:
                                                                    they are searched */
    uint64_t n_added;
};

baton_status bt_tracelog_create(bt_tracelog **log_p)
{
    bt_tracelog *log = bt_calloc(1, sizeof(*log));
    if (log != NULL) {
        log->recent = bt_calloc(BT_TRACELOG_RECENT, sizeof(*log->recent));
        log->slowest = bt_calloc(BT_TRACELOG_SLOWEST, sizeof(*log->slowest));
    }
    if (log == NULL || log->recent == NULL || log->slowest == NULL) {
        bt_tracelog_destroy(log);
        return bt_fail(BATON_ERR_NO_MEMORY, "traces: room for %d requests",
                       BT_TRACELOG_RECENT + BT_TRACELOG_SLOWEST);
    }
    *log_p = log;
    return BATON_OK;
}

void bt_tracelog_destroy(bt_tracelog *log)
{
    if (log == NULL)
        return;
    bt_free(log->recent);
    bt_free(log->slowest);
    bt_free(log);
}

static uint64_t first_ns(const bt_trace_record *record)
{
    uint64_t first = UINT64_MAX;
    for (int i = 0; i < BT_TRACE_STAGES_MAX; i++)
        if (record->at_ns[i] != 0 && record->at_ns[i] < first)
            first = record->at_ns[i];
    return first;
}

static uint64_t last_ns(const bt_trace_record *record)
{
    uint64_t last = 0;
    for (int i = 0; i < BT_TRACE_STAGES_MAX; i++)
        if (record->at_ns[i] > last)
            last = record->at_ns[i];
    return last;
}

uint64_t bt_trace_took_ns(const bt_trace_record *record)
{
    uint64_t last = last_ns(record);
    return last == 0 ? 0 : last - first_ns(record);
}

/* The place of the fastest one, or of one that is too old to be of interest. */
static bt_trace_record *least(bt_tracelog *log, uint64_t now_ns)
{
    bt_trace_record *found = &log->slowest[0];
    for (uint32_t i = 0; i < BT_TRACELOG_SLOWEST; i++) {
        bt_trace_record *record = &log->slowest[i];
        if (record->serial == 0 || bt_elapsed_ns(now_ns, last_ns(record)) > KEPT_NS)
            return record;
        if (bt_trace_took_ns(record) < bt_trace_took_ns(found))
            found = record;
    }
    return found;
}

void bt_tracelog_add(bt_tracelog *log, const bt_trace_record *record)
{
    if (log == NULL)
        return;
    uint64_t now_ns = last_ns(record);
    uint64_t at = log->n_added++ % BT_TRACELOG_RECENT;
    log->recent[at] = *record;
    log->recent[at].serial = log->n_added;
    log->recent_tags[at] = record->tag;
    bt_trace_record *slow = least(log, now_ns);
    bool is_old = slow->serial == 0 || bt_elapsed_ns(now_ns, last_ns(slow)) > KEPT_NS;
    if (is_old || bt_trace_took_ns(record) > bt_trace_took_ns(slow)) {
        *slow = log->recent[at];
        log->slowest_tags[slow - log->slowest] = record->tag;
    }
}

void bt_tracelog_stamp(bt_tracelog *log, uint64_t tag, uint32_t stage, uint64_t at_ns)
{
    assert(stage < BT_TRACE_STAGES_MAX);
    if (log == NULL || tag == 0)
        return;
    for (uint32_t i = 0; i < BT_TRACELOG_RECENT; i++)
        if (log->recent_tags[i] == tag)
            log->recent[i].at_ns[stage] = at_ns;
    for (uint32_t i = 0; i < BT_TRACELOG_SLOWEST; i++)
        if (log->slowest_tags[i] == tag)
            log->slowest[i].at_ns[stage] = at_ns;
}

static bool is_recent(const bt_tracelog *log, const bt_trace_record *record)
{
    return log->n_added - record->serial < BT_TRACELOG_RECENT;
}

const bt_trace_record *bt_tracelog_next(const bt_tracelog *log, uint32_t *cursor)
{
    if (log == NULL)
        return NULL;
    while (*cursor < BT_TRACELOG_RECENT) {
        uint32_t back = ++*cursor;
        if (back <= log->n_added)
            return &log->recent[(log->n_added - back) % BT_TRACELOG_RECENT];
    }
    while (*cursor < BT_TRACELOG_RECENT + BT_TRACELOG_SLOWEST) {
        const bt_trace_record *record = &log->slowest[(*cursor)++ - BT_TRACELOG_RECENT];
        if (record->serial != 0 && !is_recent(log, record))
            return record;
    }
    return NULL;
}

static bool is_slower(const bt_trace_record *a, const bt_trace_record *b)
{
    uint64_t took_a = bt_trace_took_ns(a), took_b = bt_trace_took_ns(b);
    return took_a != took_b ? took_a > took_b : a->serial > b->serial;
}

const bt_trace_record *bt_tracelog_slowest(const bt_tracelog *log, uint32_t nth)
{
    for (uint32_t i = 0; log != NULL && i < BT_TRACELOG_SLOWEST; i++) {
        const bt_trace_record *record = &log->slowest[i];
        uint32_t n_slower = 0;
        for (uint32_t j = 0; j < BT_TRACELOG_SLOWEST; j++)
            n_slower += log->slowest[j].serial != 0 && is_slower(&log->slowest[j], record);
        if (record->serial != 0 && n_slower == nth)
            return record;
    }
    return NULL;
}

bool bt_trace_is(const bt_trace_record *record, const char *id)
{
    return id[0] != 0 && (strcmp(record->trace, id) == 0 || strcmp(record->request, id) == 0 ||
                          strcmp(record->alias, id) == 0);
}

static void put_stages(bt_jsonwriter *json, const bt_trace_record *record, const char *const *names,
                       uint32_t n_stages)
{
    uint32_t order[BT_TRACE_STAGES_MAX], n = 0;
    for (uint32_t stage = 0; stage < n_stages; stage++) {
        if (record->at_ns[stage] == 0)
            continue;
        uint32_t at = n++;
        for (; at > 0 && record->at_ns[order[at - 1]] > record->at_ns[stage]; at--)
            order[at] = order[at - 1];
        order[at] = stage;
    }
    bt_jw_open(json, "stages", '[');
    for (uint32_t i = 0; i < n; i++) {
        bt_jw_open(json, NULL, '{');
        bt_jw_text(json, "stage", names[order[i]]);
        bt_jw_u64(json, "at_ns", record->at_ns[order[i]]);
        bt_jw_close(json);
    }
    bt_jw_close(json);
}

void bt_trace_put(bt_jsonwriter *json, const bt_trace_record *record, const char *const *names,
                  uint32_t n_stages)
{
    bool is_live = record->status == BATON_IN_PROGRESS;
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "trace", record->trace[0] != 0 ? record->trace : NULL);
    bt_jw_text(json, "request", record->request);
    if (record->alias[0] != 0)
        bt_jw_text(json, "alias", record->alias);
    bt_jw_text(json, "with", record->with);
    bt_jw_text(json, "status", is_live ? "LIVE" : baton_status_name(record->status));
    if (record->text[0] != 0)
        bt_jw_text(json, "text", record->text);
    bt_jw_ms(json, "took_ms", bt_trace_took_ns(record));
    bt_jw_u64(json, "chunks", record->n_chunks);
    bt_jw_u64(json, "sent", record->n_sent);
    bt_jw_u64(json, "present", record->n_present);
    bt_jw_u64(json, "bytes", record->bytes);
    put_stages(json, record, names, n_stages);
    bt_jw_close(json);
}
