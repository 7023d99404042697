/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_report.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "http/jsonscan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bt_perf_spread gb_per_s, wall, move, sender_cpu, receiver_cpu;
} figures;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

baton_status bt_perf_spread_us(const bt_perf_sample *samples, uint32_t n, size_t field,
                               bt_perf_spread *spread)
{
    double *values = bt_calloc(n, sizeof(*values));
    if (values == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u samples", n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t ns;
        memcpy(&ns, (const char *)&samples[i] + field, sizeof(ns));
        values[i] = (double)ns / 1e3;
    }
    qsort(values, n, sizeof(*values), by_value);
    *spread = (bt_perf_spread){values[0], (values[(n - 1) / 2] + values[n / 2]) / 2, values[n - 1]};
    bt_free(values);
    return BATON_OK;
}

static baton_status compute(const bt_perf_options *options, const bt_perf_result *result,
                            figures *f)
{
    static const size_t fields[] = {
        offsetof(bt_perf_sample, wall_ns), offsetof(bt_perf_sample, move_ns),
        offsetof(bt_perf_sample, sender_cpu_ns), offsetof(bt_perf_sample, receiver_cpu_ns)};
    bt_perf_spread *spreads[] = {&f->wall, &f->move, &f->sender_cpu, &f->receiver_cpu};
    for (int i = 0; i < 4; i++)
        BATON_TRY(bt_perf_spread_us(result->samples, result->n_samples, fields[i], spreads[i]));
    double kilobytes = (double)options->n_pages * (double)options->page_bytes / 1e3;
    f->gb_per_s = (bt_perf_spread){kilobytes / f->wall.max, kilobytes / f->wall.median,
                                   kilobytes / f->wall.min};
    return BATON_OK;
}

static void put_row(bt_strbuf *out, const char *name, const bt_perf_spread *s, int digits)
{
    bt_strbuf_printf(out, "%-22s %12.*f %12.*f %12.*f\n", name, digits, s->min, digits, s->median,
                     digits, s->max);
}

static void put_table(const bt_perf_options *o, const bt_perf_result *r, const figures *f,
                      bt_strbuf *out)
{
    bt_strbuf_printf(out, "%-22s %u x %" PRIu64 " bytes, %s%s, digests %s, progress %s\n", "work",
                     o->n_pages, o->page_bytes, bt_perf_order_name(o->order),
                     o->paged ? ", paged" : "", bt_perf_digests_name(o->digests),
                     o->progress == BATON_PROGRESS_MANUAL ? "manual" : "thread");
    bt_strbuf_printf(out, "%-22s %s (asked for: %s), copy threads %u\n", "path", r->way,
                     bt_perf_transport_name(o->transport), o->copy_threads);
    bt_strbuf_printf(out, "%-22s %s (KiB in them: sender %" PRIu64 ", receiver %" PRIu64 ")\n",
                     "huge pages", bt_perf_huge_name(o->huge_pages), r->sender_huge_kb,
                     r->receiver_huge_kb);
    bt_strbuf_printf(out, "%-22s ", "connection");
    bt_strbuf_escape(out, r->path); /* names come from the other side */
    bt_strbuf_printf(out, "\n%-22s %.1f ms, first transfer included\n", "connected in",
                     (double)r->connect_ns / 1e6);
    bt_strbuf_printf(out, "%-22s %u measured, %u verified byte by byte\n\n", "transfers",
                     r->n_samples, r->n_verified);
    bt_strbuf_printf(out, "%-22s %12s %12s %12s\n", "", "min", "median", "max");
    put_row(out, "GB/s", &f->gb_per_s, 3);
    put_row(out, "us, begin to done", &f->wall, 1);
    put_row(out, "us, grant to commit", &f->move, 1);
    put_row(out, "us CPU, sender", &f->sender_cpu, 1);
    if (o->transport != BT_PERF_LOOP)
        put_row(out, "us CPU, receiver", &f->receiver_cpu, 1);
}

static void put_string(bt_strbuf *out, const char *name, const char *text)
{
    char quoted[2 * BT_PERF_PATH_TEXT_BYTES + 3];
    bt_json_quote(quoted, sizeof(quoted), text, strlen(text));
    bt_strbuf_printf(out, "  \"%s\": %s,\n", name, quoted);
}

static void put_spread(bt_strbuf *out, const char *name, const bt_perf_spread *s, const char *end)
{
    bt_strbuf_printf(out, "  \"%s\": {\"min\": %.4f, \"median\": %.4f, \"max\": %.4f}%s\n", name,
                     s->min, s->median, s->max, end);
}

static const char *bool_name(bool value)
{
    return value ? "true" : "false";
}

static void put_json(const bt_perf_options *o, const bt_perf_result *r, const figures *f,
                     bt_strbuf *out)
{
    bt_strbuf_printf(out, "{\n  \"pages\": %u,\n  \"page_bytes\": %" PRIu64 ",\n", o->n_pages,
                     o->page_bytes);
    put_string(out, "order", bt_perf_order_name(o->order));
    bt_strbuf_printf(out, "  \"paged\": %s,\n  \"digests\": \"%s\",\n", bool_name(o->paged),
                     bt_perf_digests_name(o->digests));
    put_string(out, "progress", o->progress == BATON_PROGRESS_MANUAL ? "manual" : "thread");
    bt_strbuf_printf(out, "  \"copy_threads\": %u,\n  \"data_lanes\": %u,\n", o->copy_threads,
                     o->data_lanes);
    put_string(out, "transport", bt_perf_transport_name(o->transport));
    put_string(out, "path", r->way);
    put_string(out, "connection", r->path);
    bt_strbuf_printf(out,
                     "  \"connected_ms\": %.3f,\n  \"transfers\": %u,\n  \"verified\": %u,\n"
                     "  \"one_process\": %s,\n",
                     (double)r->connect_ns / 1e6, r->n_samples, r->n_verified,
                     bool_name(o->transport == BT_PERF_LOOP));
    put_string(out, "huge_pages", bt_perf_huge_name(o->huge_pages));
    bt_strbuf_printf(out,
                     "  \"sender_huge_kb\": %" PRIu64 ",\n  \"receiver_huge_kb\": %" PRIu64 ",\n",
                     r->sender_huge_kb, r->receiver_huge_kb);
    put_spread(out, "gb_per_s", &f->gb_per_s, ",");
    put_spread(out, "us", &f->wall, ",");
    put_spread(out, "move_us", &f->move, ",");
    put_spread(out, "sender_cpu_us", &f->sender_cpu, ",");
    put_spread(out, "receiver_cpu_us", &f->receiver_cpu, "");
    bt_strbuf_puts(out, "}\n");
}

baton_status bt_perf_report(const bt_perf_options *options, const bt_perf_result *result,
                            bt_strbuf *out)
{
    figures f;
    BATON_TRY(compute(options, result, &f));
    if (options->json)
        put_json(options, result, &f, out);
    else
        put_table(options, result, &f, out);
    return bt_strbuf_status(out);
}
