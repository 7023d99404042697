/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_curve.h"

#include "bench/perf_plot.h"
#include "bench/perf_quantiles.h"
#include "bench/perf_report.h"
#include "bench/perf_run.h"
#include "core/clock.h"
#include "core/fail.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { N_SIZES = 11, N_COUNTS = 7, N_TRANSPORTS = 4, TEXT_BYTES = 160 };

static const uint32_t counts[N_COUNTS] = {1, 4, 16, 64, 256, 1024, 2048};
static const bt_perf_transport every_transport[N_TRANSPORTS] = {BT_PERF_AUTO, BT_PERF_MAPPED,
                                                                BT_PERF_PUT, BT_PERF_TCP};

typedef struct {
    bt_perf_spread gb_per_s, us;
    double sender_cpu_us, receiver_cpu_us; /* medians */
    const char *way;
    uint32_t n_verified;
    char trouble[TEXT_BYTES]; /* why there are no figures */
} point;

typedef struct {
    const bt_perf_options *options;
    const char *program;
    uint32_t n_transports;
    bt_perf_transport transports[N_TRANSPORTS];
    point points[N_TRANSPORTS][N_SIZES][N_COUNTS];
    uint32_t n_done, n_points;
} curve;

static uint64_t size_of(uint32_t index)
{
    return UINT64_C(1024) << index;
}

static bool is_measured(const curve *c, uint32_t size, uint32_t count)
{
    return size_of(size) * counts[count] <= c->options->curve_bytes;
}

static baton_status summarise(const bt_perf_result *result, uint64_t bytes, point *p)
{
    bt_perf_spread sender, receiver;
    const bt_perf_sample *s = result->samples;
    uint32_t n = result->n_samples;
    BATON_TRY(bt_perf_spread_us(s, n, offsetof(bt_perf_sample, wall_ns), &p->us));
    BATON_TRY(bt_perf_spread_us(s, n, offsetof(bt_perf_sample, sender_cpu_ns), &sender));
    BATON_TRY(bt_perf_spread_us(s, n, offsetof(bt_perf_sample, receiver_cpu_ns), &receiver));
    double kilobytes = (double)bytes / 1e3;
    p->gb_per_s =
        (bt_perf_spread){kilobytes / p->us.max, kilobytes / p->us.median, kilobytes / p->us.min};
    p->sender_cpu_us = sender.median;
    p->receiver_cpu_us = receiver.median;
    p->way = result->way;
    p->n_verified = result->n_verified;
    return BATON_OK;
}

/* Only a wrong byte is a failure of the whole: what a machine cannot do is told in the report. */
static baton_status measure(const bt_perf_options *options, const char *program, point *p)
{
    bt_perf_result result;
    *p = (point){0};
    baton_status status = bt_perf_run(options, program, &result);
    if (status == BATON_OK)
        status = summarise(&result, options->n_pages * options->page_bytes, p);
    bt_perf_result_free(&result);
    if (status < 0 && status != BATON_ERR_CORRUPT) {
        snprintf(p->trouble, sizeof(p->trouble), "%s", baton_last_error());
        return BATON_OK;
    }
    return status;
}

static void show_progress(curve *c, const bt_perf_options *options)
{
    c->n_done++;
    if (isatty(STDERR_FILENO) == 1)
        fprintf(stderr, "\r\033[K%u of %u: %s, %u x %" PRIu64 " bytes%s", c->n_done, c->n_points,
                bt_perf_transport_name(options->transport), options->n_pages, options->page_bytes,
                c->n_done == c->n_points ? "\r\033[K" : "");
}

static baton_status measure_point(curve *c, uint32_t transport, uint32_t size, uint32_t count)
{
    bt_perf_options options = *c->options;
    options.transport = c->transports[transport];
    options.page_bytes = size_of(size);
    options.n_pages = options.pool_pages = counts[count];
    options.budget_ns = options.seconds * BT_NS_PER_S / c->n_points;
    show_progress(c, &options);
    return measure(&options, c->program, &c->points[transport][size][count]);
}

static void set_transports(curve *c)
{
    c->n_transports = c->options->transport == BT_PERF_ALL ? N_TRANSPORTS : 1;
    for (uint32_t t = 0; t < c->n_transports; t++)
        c->transports[t] = c->n_transports == 1 ? c->options->transport : every_transport[t];
}

static baton_status measure_all(curve *c)
{
    for (uint32_t size = 0; size < N_SIZES; size++) {
        for (uint32_t count = 0; count < N_COUNTS; count++)
            c->n_points += c->n_transports * is_measured(c, size, count);
    }
    for (uint32_t t = 0; t < c->n_transports; t++) {
        for (uint32_t size = 0; size < N_SIZES; size++) {
            for (uint32_t count = 0; count < N_COUNTS; count++) {
                if (is_measured(c, size, count))
                    BATON_TRY(measure_point(c, t, size, count));
            }
        }
    }
    return BATON_OK;
}

/* The first thing that could not be measured; NULL: all was. */
static const char *first_trouble(const curve *c, uint32_t transport)
{
    for (uint32_t i = 0; i < N_SIZES * N_COUNTS; i++) {
        const point *p = &c->points[transport][i / N_COUNTS][i % N_COUNTS];
        if (p->trouble[0] != '\0')
            return p->trouble;
    }
    return NULL;
}

static void put_table(const curve *c, uint32_t transport, bool rate, bt_strbuf *out)
{
    bt_strbuf_printf(out, "%s%s, %s of a transfer, pages across\n%-12s",
                     out->length > 0 ? "\n" : "", bt_perf_transport_name(c->transports[transport]),
                     rate ? "GB/s" : "us", "page bytes");
    for (uint32_t count = 0; count < N_COUNTS; count++)
        bt_strbuf_printf(out, " %10u", counts[count]);
    for (uint32_t size = 0; size < N_SIZES; size++) {
        bt_strbuf_printf(out, "\n%-12" PRIu64, size_of(size));
        for (uint32_t count = 0; count < N_COUNTS; count++) {
            const point *p = &c->points[transport][size][count];
            if (p->n_verified == 0)
                bt_strbuf_printf(out, " %10s", "-");
            else
                bt_strbuf_printf(out, " %10.*f", rate ? 3 : 1,
                                 rate ? p->gb_per_s.median : p->us.median);
        }
    }
    bt_strbuf_puts(out, "\n");
}

static void put_tables(const curve *c, bt_strbuf *out)
{
    for (uint32_t t = 0; t < c->n_transports; t++) {
        put_table(c, t, true, out);
        put_table(c, t, false, out);
        const char *trouble = first_trouble(c, t);
        if (trouble != NULL) {
            bt_strbuf_puts(out, "not measured: ");
            bt_strbuf_escape(out, trouble);
            bt_strbuf_puts(out, "\n");
        }
    }
}

static void json_point(const point *p, bt_perf_transport transport, uint32_t n_pages,
                       uint64_t page_bytes, const char *start, bt_strbuf *out)
{
    bt_strbuf_printf(out, "%s  {\n", start);
    bt_perf_json_string(out, "transport", bt_perf_transport_name(transport), ",");
    bt_strbuf_printf(out, "  \"pages\": %u,\n  \"page_bytes\": %" PRIu64 ",\n  \"verified\": %u,\n",
                     n_pages, page_bytes, p->n_verified);
    if (p->trouble[0] != '\0') {
        bt_perf_json_string(out, "trouble", p->trouble, "");
    } else {
        bt_perf_json_string(out, "path", p->way, ",");
        bt_strbuf_printf(out,
                         "  \"gb_per_s\": {\"min\": %.4f, \"median\": %.4f, \"max\": %.4f},\n"
                         "  \"us\": {\"min\": %.4f, \"median\": %.4f, \"max\": %.4f},\n"
                         "  \"sender_cpu_us\": %.4f,\n  \"receiver_cpu_us\": %.4f\n",
                         p->gb_per_s.min, p->gb_per_s.median, p->gb_per_s.max, p->us.min,
                         p->us.median, p->us.max, p->sender_cpu_us, p->receiver_cpu_us);
    }
    bt_strbuf_puts(out, "  }");
}

static void put_json(const curve *c, bt_strbuf *out)
{
    const char *start = "";
    bt_strbuf_puts(out, "{\n  \"mode\": \"curve\",\n  \"points\": [\n");
    for (uint32_t t = 0; t < c->n_transports; t++) {
        for (uint32_t i = 0; i < N_SIZES * N_COUNTS; i++) {
            const point *p = &c->points[t][i / N_COUNTS][i % N_COUNTS];
            if (!is_measured(c, i / N_COUNTS, i % N_COUNTS))
                continue;
            json_point(p, c->transports[t], counts[i % N_COUNTS], size_of(i / N_COUNTS), start,
                       out);
            start = ",\n";
        }
    }
    bt_strbuf_puts(out, "\n  ]\n}\n");
}

/* A line per number of pages, a chart per transport. */
static baton_status draw(const curve *c)
{
    double x[N_SIZES], y[N_TRANSPORTS][N_COUNTS][N_SIZES];
    char titles[N_TRANSPORTS][TEXT_BYTES], names[N_COUNTS][32];
    bt_perf_series series[N_TRANSPORTS][N_COUNTS];
    bt_perf_chart charts[N_TRANSPORTS];
    for (uint32_t size = 0; size < N_SIZES; size++)
        x[size] = (double)size_of(size);
    for (uint32_t t = 0; t < c->n_transports; t++) {
        for (uint32_t count = 0; count < N_COUNTS; count++) {
            for (uint32_t size = 0; size < N_SIZES; size++)
                y[t][count][size] = c->points[t][size][count].gb_per_s.median;
            snprintf(names[count], sizeof(names[count]), "%u page%s", counts[count],
                     counts[count] > 1 ? "s" : "");
            series[t][count] = (bt_perf_series){names[count], x, y[t][count], N_SIZES};
        }
        snprintf(titles[t], sizeof(titles[t]), "baton-perf: transport %s, %s pages, progress %s",
                 bt_perf_transport_name(c->transports[t]), bt_perf_order_name(c->options->order),
                 c->options->progress == BATON_PROGRESS_MANUAL ? "manual" : "thread");
        charts[t] = (bt_perf_chart){.title = titles[t],
                                    .x_label = "bytes of a page",
                                    .y_label = "GB/s, begin to done (10^9 bytes)",
                                    .x_scale = BT_PERF_LOG_BYTES,
                                    .y_scale = BT_PERF_LOG,
                                    .series = series[t],
                                    .n_series = N_COUNTS};
    }
    return bt_perf_plot_file(charts, c->n_transports, c->options->plot);
}

baton_status bt_perf_curve(const bt_perf_options *options, const char *program, bt_strbuf *out)
{
    static curve c; /* too large for a stack */
    c = (curve){.options = options, .program = program};
    set_transports(&c);
    BATON_TRY(measure_all(&c));
    if (options->json)
        put_json(&c, out);
    else
        put_tables(&c, out);
    return options->plot != NULL ? draw(&c) : BATON_OK;
}

static void put_side(const point *p, bt_perf_transport transport, bt_strbuf *out)
{
    bt_strbuf_printf(out, "%-10s ", bt_perf_transport_name(transport));
    if (p->trouble[0] != '\0') {
        bt_strbuf_escape(out, p->trouble);
        bt_strbuf_puts(out, "\n");
        return;
    }
    bt_strbuf_printf(out, "%-7s %9.3f %9.3f %9.3f %11.1f %11.1f %11.1f\n", p->way, p->gb_per_s.min,
                     p->gb_per_s.median, p->gb_per_s.max, p->us.median, p->sender_cpu_us,
                     p->receiver_cpu_us);
}

baton_status bt_perf_side_by_side(const bt_perf_options *options, const char *program,
                                  bt_strbuf *out)
{
    point points[N_TRANSPORTS];
    for (uint32_t t = 0; t < N_TRANSPORTS; t++) {
        bt_perf_options one = *options;
        one.transport = every_transport[t];
        BATON_TRY(measure(&one, program, &points[t]));
    }
    if (options->json)
        bt_strbuf_puts(out, "{\n  \"mode\": \"side by side\",\n  \"points\": [\n");
    else
        bt_strbuf_printf(out,
                         "%u x %" PRIu64 " bytes, %s%s\n%-10s %-7s %9s %9s %9s %11s %11s %11s\n",
                         options->n_pages, options->page_bytes, bt_perf_order_name(options->order),
                         options->paged ? ", paged" : "", "transport", "path", "GB/s min", "median",
                         "max", "us median", "CPU sender", "receiver");
    for (uint32_t t = 0; t < N_TRANSPORTS; t++) {
        if (options->json)
            json_point(&points[t], every_transport[t], options->n_pages, options->page_bytes,
                       t > 0 ? ",\n" : "", out);
        else
            put_side(&points[t], every_transport[t], out);
    }
    if (options->json)
        bt_strbuf_puts(out, "\n  ]\n}\n");
    return BATON_OK;
}
