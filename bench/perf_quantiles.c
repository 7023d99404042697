/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_quantiles.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "http/jsonscan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

baton_status bt_perf_values_create(uint32_t capacity, bt_perf_values *values)
{
    *values = (bt_perf_values){.values = bt_calloc(capacity, sizeof(double)), .capacity = capacity};
    if (values->values == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u samples", capacity);
    return BATON_OK;
}

void bt_perf_values_free(bt_perf_values *values)
{
    bt_free(values->values);
    *values = (bt_perf_values){0};
}

void bt_perf_values_add(bt_perf_values *values, uint64_t ns)
{
    values->values[values->n++] = (double)ns / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values; percent of them are at most the result. */
static double quantile(const bt_perf_values *v, uint32_t percent)
{
    uint64_t rank = ((uint64_t)v->n * percent + 99) / 100;
    return v->values[rank - 1];
}

bt_perf_quantiles bt_perf_quantiles_of(bt_perf_values *v)
{
    qsort(v->values, v->n, sizeof(*v->values), by_value);
    return (bt_perf_quantiles){.min = v->values[0],
                               .median = (v->values[(v->n - 1) / 2] + v->values[v->n / 2]) / 2,
                               .p90 = quantile(v, 90),
                               .p99 = quantile(v, 99),
                               .max = v->values[v->n - 1]};
}

static const char *progress_name(const bt_perf_options *o)
{
    return o->progress == BATON_PROGRESS_MANUAL ? "manual" : "thread";
}

void bt_perf_put_head(bt_strbuf *out, const bt_perf_pair *pair)
{
    const bt_perf_options *o = pair->options;
    bt_strbuf_printf(out, "%-28s %u x %" PRIu64 " bytes, %s%s, digests %s, progress %s\n", "work",
                     o->n_pages, o->page_bytes, bt_perf_order_name(o->order),
                     o->paged ? ", paged" : "", bt_perf_digests_name(o->digests), progress_name(o));
    bt_strbuf_printf(out, "%-28s %s (asked for: %s)\n", "path", bt_perf_pair_path(pair),
                     bt_perf_transport_name(o->transport));
    bt_strbuf_printf(out, "%-28s ", "connection");
    bt_strbuf_escape(out, pair->path); /* names come from the other side */
    bt_strbuf_printf(out, "\n%-28s %u verified byte by byte\n", "transfers", pair->n_verified);
}

void bt_perf_put_columns(bt_strbuf *out)
{
    bt_strbuf_printf(out, "\n%-28s %11s %11s %11s %11s %11s\n", "us", "min", "p50", "p90", "p99",
                     "max");
}

void bt_perf_put_row(bt_strbuf *out, const char *name, const bt_perf_quantiles *q)
{
    bt_strbuf_printf(out, "%-28s %11.1f %11.1f %11.1f %11.1f %11.1f\n", name, q->min, q->median,
                     q->p90, q->p99, q->max);
}

void bt_perf_json_string(bt_strbuf *out, const char *name, const char *text, const char *end)
{
    char quoted[2 * BT_PERF_PATH_TEXT_BYTES + 3];
    bt_json_quote(quoted, sizeof(quoted), text, strlen(text));
    bt_strbuf_printf(out, "  \"%s\": %s%s\n", name, quoted, end);
}

void bt_perf_json_head(bt_strbuf *out, const char *mode, const bt_perf_pair *pair)
{
    const bt_perf_options *o = pair->options;
    bt_strbuf_puts(out, "{\n");
    bt_perf_json_string(out, "mode", mode, ",");
    bt_strbuf_printf(out, "  \"pages\": %u,\n  \"page_bytes\": %" PRIu64 ",\n", o->n_pages,
                     o->page_bytes);
    bt_perf_json_string(out, "progress", progress_name(o), ",");
    bt_perf_json_string(out, "transport", bt_perf_transport_name(o->transport), ",");
    bt_perf_json_string(out, "path", bt_perf_pair_path(pair), ",");
    bt_perf_json_string(out, "connection", pair->path, ",");
    bt_strbuf_printf(out, "  \"verified\": %u,\n", pair->n_verified);
}

void bt_perf_json_row(bt_strbuf *out, const char *name, const bt_perf_quantiles *q, const char *end)
{
    bt_strbuf_printf(out,
                     "  \"%s\": {\"min\": %.3f, \"median\": %.3f, \"p90\": %.3f, \"p99\": %.3f, "
                     "\"max\": %.3f}%s\n",
                     name, q->min, q->median, q->p90, q->p99, q->max, end);
}
