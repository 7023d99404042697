/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl_trace.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "ctl/ctl_tables.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static int64_t number_of(json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

/* Asking. */

/* The trace of the first record that has one which is not `id`; NULL: none. Borrowed. */
static const char *other_trace(const bt_ctl_answers *answers, const char *id)
{
    size_t i, j;
    json_t *answer, *trace;
    json_array_foreach(answers->answers, i, answer)
    {
        json_array_foreach(json_object_get(answer, "traces"), j, trace)
        {
            const char *found = text_of(trace, "trace");
            if (found[0] != 0 && strcmp(found, id) != 0)
                return found;
        }
    }
    return NULL;
}

baton_status bt_ctl_trace_ask(const bt_ctl_options *options, const bt_ctl_endpoints *endpoints,
                              bt_ctl_answers *answers)
{
    bt_ctl_question question = {
        .name = "trace", .list = "traces", .id = options->id, .limit = options->limit};
    BATON_TRY(bt_ctl_ask(options, endpoints, &question, answers));
    const char *trace = other_trace(answers, options->id);
    if (trace == NULL)
        return BATON_OK;
    char id[64];
    snprintf(id, sizeof(id), "%s", trace);
    bt_ctl_answers_free(answers);
    question.id = id;
    return bt_ctl_ask(options, endpoints, &question, answers);
}

/* Time. */

/* What to add to a stamp of an answer for wall clock time. */
static int64_t offset_of(const bt_ctl_answers *answers, json_t *answer)
{
    size_t i;
    json_t *other;
    const char *boot = text_of(answer, "boot");
    json_array_foreach(answers->answers, i, other)
    {
        bool is_same_clock = boot[0] != 0 && strcmp(text_of(other, "boot"), boot) == 0;
        if (is_same_clock || other == answer)
            return number_of(other, "wall_ns") - number_of(other, "now_ns");
    }
    return 0;
}

static void add_stages(const bt_ctl_answers *answers, json_t *answer, json_t *trace,
                       json_t *timeline)
{
    size_t i;
    json_t *stage;
    char who[BT_CTL_WHO_BYTES];
    int64_t offset = offset_of(answers, answer);
    bt_ctl_who(answer, who);
    json_array_foreach(json_object_get(trace, "stages"), i, stage) json_array_append_new(
        timeline, json_pack("{s:I, s:s, s:s, s:s}", "wall_ns",
                            (json_int_t)(number_of(stage, "at_ns") + offset), "who", who, "request",
                            text_of(trace, "request"), "stage", text_of(stage, "stage")));
}

static int by_time(const void *a, const void *b)
{
    int64_t at_a = number_of(*(json_t *const *)a, "wall_ns");
    int64_t at_b = number_of(*(json_t *const *)b, "wall_ns");
    return at_a < at_b ? -1 : at_a > at_b;
}

/* Sorted by time; takes timeline over. */
static json_t *sorted(json_t *timeline)
{
    size_t n = json_array_size(timeline);
    json_t **stages = bt_calloc(n, sizeof(json_t *));
    json_t *ordered = json_array();
    for (size_t i = 0; stages != NULL && i < n; i++)
        stages[i] = json_array_get(timeline, i);
    if (stages != NULL)
        qsort(stages, n, sizeof(json_t *), by_time);
    for (size_t i = 0; stages != NULL && i < n; i++) {
        double after = (double)(number_of(stages[i], "wall_ns") - number_of(stages[0], "wall_ns"));
        double since =
            i == 0
                ? 0
                : (double)(number_of(stages[i], "wall_ns") - number_of(stages[i - 1], "wall_ns"));
        json_object_set_new(stages[i], "after_ms", json_real(after / 1e6));
        json_object_set_new(stages[i], "since_ms", json_real(since / 1e6));
        json_array_append(ordered, stages[i]);
    }
    bt_free(stages);
    json_decref(timeline);
    return ordered;
}

json_t *bt_ctl_timeline(const bt_ctl_answers *answers)
{
    size_t i, j;
    json_t *answer, *trace, *timeline = json_array();
    json_array_foreach(answers->answers, i, answer)
    {
        json_array_foreach(json_object_get(answer, "traces"), j, trace)
            add_stages(answers, answer, trace, timeline);
    }
    return sorted(timeline);
}

/* Showing. */

static void put_escaped(bt_table *table, const char *text)
{
    bt_strbuf plain = {0};
    bt_strbuf_escape(&plain, text);
    bt_table_cell(table, "%s", plain.length > 0 ? bt_strbuf_text(&plain) : "-");
    bt_strbuf_free(&plain);
}

static void put_header(bt_table *table, const char *const *titles)
{
    bt_table_row(table);
    for (; *titles != NULL; titles++)
        bt_table_cell(table, "%s", *titles);
}

static void put_parts(const bt_ctl_answers *answers, bt_strbuf *out)
{
    static const char *const titles[] = {"WHO",  "ATTEMPT", "STATUS", "TOOK", "CHUNKS",
                                         "SENT", "PRESENT", "WITH",   "TEXT", NULL};
    static const char *const counts[] = {"chunks", "sent", "present"};
    bt_table table = {0};
    size_t i, j;
    json_t *answer, *trace;
    put_header(&table, titles);
    json_array_foreach(answers->answers, i, answer)
    {
        char who[BT_CTL_WHO_BYTES];
        bt_ctl_who(answer, who);
        json_array_foreach(json_object_get(answer, "traces"), j, trace)
        {
            bt_table_row(&table);
            put_escaped(&table, who);
            put_escaped(&table, text_of(trace, "request"));
            put_escaped(&table, text_of(trace, "status"));
            bt_ctl_put_ms(&table, json_object_get(trace, "took_ms"));
            for (int c = 0; c < 3; c++)
                bt_table_cell(&table, "%lld", (long long)number_of(trace, counts[c]));
            put_escaped(&table, text_of(trace, "with"));
            put_escaped(&table, text_of(trace, "text"));
        }
    }
    bt_table_print(&table, 0, out);
}

static bool has_attempts(json_t *timeline)
{
    size_t i;
    json_t *stage;
    const char *first = text_of(json_array_get(timeline, 0), "request");
    json_array_foreach(timeline, i, stage)
    {
        if (strcmp(text_of(stage, "request"), first) != 0)
            return true;
    }
    return false;
}

void bt_ctl_put_trace(const bt_ctl_answers *answers, json_t *timeline, bt_strbuf *out)
{
    static const char *const titles[] = {"AFTER", "SINCE", "WHO", "STAGE", "ATTEMPT", NULL};
    bt_table table = {0};
    size_t i;
    json_t *stage;
    bool several = has_attempts(timeline);
    put_parts(answers, out);
    bt_strbuf_putc(out, '\n');
    put_header(&table, titles);
    json_array_foreach(timeline, i, stage)
    {
        bt_table_row(&table);
        bt_table_cell(&table, "%10.3f ms", json_number_value(json_object_get(stage, "after_ms")));
        bt_table_cell(&table, "%+9.3f", json_number_value(json_object_get(stage, "since_ms")));
        put_escaped(&table, text_of(stage, "who"));
        put_escaped(&table, text_of(stage, "stage"));
        if (several || i == 0)
            put_escaped(&table, text_of(stage, "request"));
    }
    bt_table_print(&table, 0, out);
}

/* "granted ... first chunk pushed, 12.1 ms": where it lost most. */
static void put_longest_gap(bt_table *table, json_t *trace)
{
    json_t *stages = json_object_get(trace, "stages");
    size_t longest = 0;
    int64_t most = -1;
    for (size_t i = 1; i < json_array_size(stages); i++) {
        int64_t gap = number_of(json_array_get(stages, i), "at_ns") -
                      number_of(json_array_get(stages, i - 1), "at_ns");
        if (gap > most) {
            most = gap;
            longest = i;
        }
    }
    if (most < 0)
        bt_table_cell(table, "-");
    else
        bt_table_cell(table, "%.1f ms from %.40s to %.40s", (double)most / 1e6,
                      text_of(json_array_get(stages, longest - 1), "stage"),
                      text_of(json_array_get(stages, longest), "stage"));
}

typedef struct {
    json_t *answer, *trace;
} slow;

static int by_took(const void *a, const void *b)
{
    double took_a = json_number_value(json_object_get(((const slow *)a)->trace, "took_ms"));
    double took_b = json_number_value(json_object_get(((const slow *)b)->trace, "took_ms"));
    return took_a > took_b ? -1 : took_a < took_b;
}

static size_t collect(const bt_ctl_answers *answers, slow *all, size_t max)
{
    size_t i, j, n = 0;
    json_t *answer, *trace;
    json_array_foreach(answers->answers, i, answer)
    {
        json_array_foreach(json_object_get(answer, "traces"), j, trace)
        {
            if (n < max)
                all[n++] = (slow){answer, trace};
        }
    }
    qsort(all, n, sizeof(*all), by_took);
    return n;
}

void bt_ctl_put_slow(const bt_ctl_answers *answers, size_t n_wanted, bt_strbuf *out)
{
    enum { ALL_MAX = 4096 };
    static const char *const titles[] = {"TOOK",    "WHO",  "STATUS", "MOST OF IT",
                                         "ATTEMPT", "TEXT", "TRACE",  NULL};
    bt_table table = {0};
    slow *all = bt_calloc(ALL_MAX, sizeof(*all));
    size_t n = all != NULL ? collect(answers, all, ALL_MAX) : 0;
    if (n == 0)
        bt_strbuf_puts(out, "no request has ended in the last hour\n");
    else
        put_header(&table, titles);
    for (size_t i = 0; i < n && i < n_wanted; i++) {
        char who[BT_CTL_WHO_BYTES];
        bt_ctl_who(all[i].answer, who);
        bt_table_row(&table);
        bt_ctl_put_ms(&table, json_object_get(all[i].trace, "took_ms"));
        put_escaped(&table, who);
        put_escaped(&table, text_of(all[i].trace, "status"));
        put_longest_gap(&table, all[i].trace);
        put_escaped(&table, text_of(all[i].trace, "request"));
        put_escaped(&table, text_of(all[i].trace, "text"));
        put_escaped(&table, text_of(all[i].trace, "trace"));
    }
    bt_table_print(&table, 0, out);
    bt_free(all);
}
