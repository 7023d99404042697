/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_compare.h"

#include "bench/load/load_chart.h"
#include "core/fail.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* With --save-detailed, a million requests of a hundred tokens. */
static const size_t max_result_bytes = (size_t)4 << 30;

enum { NAME_CHARS = 64, CELL_CHARS = 24 };

/* ---- reading ---- */

static baton_status read_text(const char *path, bt_strbuf *out)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "compare: %s", path);
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof(block), file)) > 0 && out->length <= max_result_bytes)
        bt_strbuf_append(out, block, n);
    bool is_broken = ferror(file) != 0;
    fclose(file);
    if (is_broken)
        return bt_fail(BATON_ERR_IO, "compare: %s: cannot be read", path);
    if (out->length > max_result_bytes)
        return bt_fail(BATON_ERR_TOO_LARGE, "compare: %s: wanted at most %zu bytes", path,
                       max_result_bytes);
    return bt_strbuf_status(out);
}

baton_status bt_load_saved_read(const char *path, bt_load_saved *saved)
{
    bt_json_value value;
    *saved = (bt_load_saved){.path = path};
    BATON_TRY(read_text(path, &saved->text));
    if (bt_json_check(bt_strbuf_text(&saved->text), saved->text.length, &saved->root) != BATON_OK ||
        bt_json_get(saved->root, "request_throughput", &value) != BATON_OK)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "compare: %s: wanted a result of baton-load or of vllm bench serve, a JSON "
                       "object with request_throughput",
                       path);
    return BATON_OK;
}

void bt_load_saved_free(bt_load_saved *saved)
{
    bt_strbuf_free(&saved->text);
    *saved = (bt_load_saved){0};
}

/* ---- members ---- */

typedef enum { SETTING, NEUTRAL, MORE_IS_BETTER, LESS_IS_BETTER, HIDDEN } member_kind;

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static member_kind kind_of(const char *name)
{
    static const struct {
        const char *name;
        member_kind kind;
    } known[] = {
        {"duration", NEUTRAL},
        {"completed", NEUTRAL},
        {"failed", LESS_IS_BETTER},
        {"not_sent", LESS_IS_BETTER},
        {"total_input_tokens", NEUTRAL},
        {"total_cached_tokens", NEUTRAL},
        {"total_output_tokens", NEUTRAL},
        {"request_throughput", MORE_IS_BETTER},
        {"request_goodput", MORE_IS_BETTER},
        {"highest_rate", MORE_IS_BETTER},
        {"output_throughput", MORE_IS_BETTER},
        {"total_token_throughput", MORE_IS_BETTER},
        {"max_output_tokens_per_s", NEUTRAL},
        {"max_concurrent_requests", NEUTRAL},
        {"slowest", HIDDEN},
        {"errors_by_kind", HIDDEN},
        /* The median has a name of its own. */
        {"p50_ttft_ms", HIDDEN},
        {"p50_tpot_ms", HIDDEN},
        {"p50_itl_ms", HIDDEN},
        {"p50_e2el_ms", HIDDEN},
        {"p50_client_queue_time_ms", HIDDEN},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name) == 0)
            return known[i].kind;
    }
    /* How far values lie apart is neither good nor bad. */
    if (strncmp(name, "std_", 4) == 0)
        return NEUTRAL;
    return ends_with(name, "_ms") ? LESS_IS_BETTER : SETTING;
}

/* A value's text in a cell: strings without their quotes, no control characters. */
static void format_cell(bt_json_value value, char cell[CELL_CHARS + 1])
{
    double number;
    char text[256] = "";
    if (value.type == BT_JSON_NULL || value.type == BT_JSON_ABSENT)
        snprintf(text, sizeof(text), "-");
    else if (value.type == BT_JSON_STRING)
        (void)bt_json_string(value, text, sizeof(text), NULL);
    else if (bt_json_double(value, &number) == BATON_OK)
        snprintf(text, sizeof(text), fabs(number - rint(number)) < 1e-9 ? "%.0f" : "%.2f", number);
    else
        snprintf(text, sizeof(text), "%.*s", (int)(value.text.n < 255 ? value.text.n : 255),
                 value.text.at);
    for (char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 127)
            *at = '?';
    }
    snprintf(cell, CELL_CHARS + 1, "%s", text);
}

static void put_cells(bt_strbuf *out, const char *name, bt_json_value a, bt_json_value b)
{
    char left[CELL_CHARS + 1], right[CELL_CHARS + 1];
    format_cell(a, left);
    format_cell(b, right);
    bt_strbuf_printf(out, "%-26s %*s %*s", name, CELL_CHARS, left, CELL_CHARS, right);
}

static bool is_same(bt_json_value a, bt_json_value b)
{
    double x, y;
    if (bt_json_double(a, &x) == BATON_OK && bt_json_double(b, &y) == BATON_OK)
        return x == y;
    return a.type == b.type && a.text.n == b.text.n && memcmp(a.text.at, b.text.at, a.text.n) == 0;
}

/* What was asked for, where it differs; lists belong to --save-detailed. */
static void put_setting(bt_strbuf *out, const char *name, bt_json_value a, bt_json_value b)
{
    static const char *const always[] = {"date", "label", "model_id"};
    bool is_wanted = !is_same(a, b) && a.type != BT_JSON_ARRAY && b.type != BT_JSON_ARRAY;
    for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
        is_wanted = is_wanted || strcmp(name, always[i]) == 0;
    if (!is_wanted)
        return;
    put_cells(out, name, a, b);
    bt_strbuf_putc(out, '\n');
}

static void put_figure(bt_strbuf *out, const char *name, bt_json_value a, bt_json_value b,
                       member_kind kind, double *worst)
{
    double x, y;
    put_cells(out, name, a, b);
    if (bt_json_double(a, &x) == BATON_OK && bt_json_double(b, &y) == BATON_OK && x != y) {
        /* From nothing to something is a change without a share. */
        double percent = x != 0 ? (y - x) / fabs(x) * 100 : (y > x ? INFINITY : -INFINITY);
        double loss = kind == MORE_IS_BETTER ? -percent : percent;
        bt_strbuf_printf(out, " %+9.1f %%", percent);
        if (kind != NEUTRAL) {
            bt_strbuf_puts(out, loss > 0 ? "  worse" : "  better");
            *worst = fmax(*worst, loss);
        }
    }
    bt_strbuf_putc(out, '\n');
}

static void put_members(const bt_load_saved *before, const bt_load_saved *after, bool settings,
                        bt_strbuf *out, double *worst)
{
    bt_json_iter iter = bt_json_begin(before->root);
    bt_json_value a, b;
    while (bt_json_next(&iter, &a)) {
        char name[NAME_CHARS];
        if (bt_json_string(iter.key, name, sizeof(name), NULL) != BATON_OK ||
            bt_json_get(after->root, name, &b) != BATON_OK)
            continue;
        member_kind kind = kind_of(name);
        if (settings && kind == SETTING)
            put_setting(out, name, a, b);
        else if (!settings && kind != SETTING && kind != HIDDEN)
            put_figure(out, name, a, b, kind, worst);
    }
}

void bt_load_compare(const bt_load_saved *before, const bt_load_saved *after, bt_strbuf *out,
                     double *worst)
{
    *worst = 0;
    bt_strbuf_printf(out, "before  %s\nafter   %s\n\n%-26s %*s %*s %11s\n", before->path,
                     after->path, "", CELL_CHARS, "before", CELL_CHARS, "after", "change");
    put_members(before, after, true, out, worst);
    bt_strbuf_putc(out, '\n');
    put_members(before, after, false, out, worst);
}

/* ---- chart ---- */

/* The member's numbers, those of lists in it too, in ms; those of 0 did not happen. */
static void collect(bt_json_value list, bt_load_samples *samples)
{
    bt_json_iter iter = bt_json_begin(list);
    bt_json_value item;
    double seconds;
    while (bt_json_next(&iter, &item)) {
        if (item.type == BT_JSON_ARRAY)
            collect(item, samples);
        else if (bt_json_double(item, &seconds) == BATON_OK && seconds > 0 && seconds < 1e9)
            bt_load_samples_add(samples, (uint64_t)(seconds * 1e9));
    }
}

baton_status bt_load_compare_chart(const bt_load_saved *before, const bt_load_saved *after,
                                   const char *path)
{
    static const char *const lists[] = {"ttfts", "itls", "latencies"};
    static const bt_load_metric metrics[] = {BT_LOAD_TTFT, BT_LOAD_ITL, BT_LOAD_E2EL};
    const bt_load_saved *saved[] = {before, after};
    bt_load_samples samples[3][2] = {0};
    baton_status status = BATON_OK;
    bt_json_value list;
    for (size_t i = 0; i < 3; i++) {
        for (size_t k = 0; k < 2; k++) {
            if (bt_json_get(saved[k]->root, lists[i], &list) == BATON_OK)
                collect(list, &samples[i][k]);
        }
    }
    for (size_t k = 0; k < 2 && status == BATON_OK; k++) {
        if (bt_json_get(saved[k]->root, lists[0], &list) != BATON_OK)
            status = bt_fail(BATON_ERR_INVALID_ARG,
                             "--chart: wanted results of --save-detailed, found none of single "
                             "requests in %s",
                             saved[k]->path);
    }
    if (status == BATON_OK)
        status = bt_load_chart_pairs(metrics, samples, 3, path);
    for (size_t i = 0; i < 3; i++) {
        bt_load_samples_free(&samples[i][0]);
        bt_load_samples_free(&samples[i][1]);
    }
    return status;
}
