/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_plot.h"

#include "core/fail.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>

enum {
    WIDTH = 860,
    HEIGHT = 460, /* of one chart */
    LEFT = 72,
    RIGHT = 150, /* the legend's */
    TOP = 40,
    BOTTOM = 56,
    N_COLOURS = 10,
    LEGEND_LINE = 20,
};

/* Told apart also by those who see few colours: light and dark alternate. */
static const char *const colours[N_COLOURS] = {"#1f5fa8", "#e07b00", "#1a8a4c", "#c2334d",
                                               "#7a4fb5", "#8a6d3b", "#d65fa5", "#5b6770",
                                               "#a3a800", "#1fb5c4"};

typedef struct {
    bt_perf_scale scale;
    double low, high;       /* of the values; logarithms where the scale is one */
    double at_low, at_high; /* where these are in the picture */
} axis;

static double scaled(bt_perf_scale scale, double value)
{
    if (scale == BT_PERF_LINEAR)
        return value;
    return scale == BT_PERF_LOG ? log10(value) : log2(value);
}

static bool is_shown(const bt_perf_chart *chart, double x, double y)
{
    return (chart->x_scale == BT_PERF_LINEAR || x > 0) &&
           (chart->y_scale == BT_PERF_LINEAR || y > 0);
}

static double place(const axis *a, double value)
{
    double span = a->high - a->low;
    double share = (scaled(a->scale, value) - a->low) / (span > 0 ? span : 1);
    return a->at_low + share * (a->at_high - a->at_low);
}

/* The decade and the step of 1, 2 or 5 in it: 10^floor * step, next below or above `value`. */
static double round_log(double value, bool up)
{
    static const double steps[] = {1, 2, 5, 10};
    double decade = pow(10, floor(log10(value)));
    double rounded = decade * (up ? 10 : 1);
    for (int i = 0; i < 4; i++) {
        double step = decade * steps[up ? 3 - i : i];
        if (up ? step >= value * (1 - 1e-9) : step <= value * (1 + 1e-9))
            rounded = step;
    }
    return rounded;
}

/* A step of 1, 2 or 5 times a power of ten that cuts the span into about eight. */
static double linear_step(double span)
{
    return round_log(span > 0 ? span / 8 : 1, true);
}

static void widen(axis *a, double low, double high)
{
    if (low > high) /* nothing is shown */
        low = high = 1;
    if (a->scale == BT_PERF_LINEAR) {
        double step = linear_step(high);
        a->low = low < 0 ? floor(low / step) * step : 0;
        a->high = ceil(high / step) * step;
    } else if (a->scale == BT_PERF_LOG) {
        a->low = log10(round_log(low, false));
        a->high = log10(round_log(high, true));
    } else {
        a->low = floor(log2(low));
        a->high = ceil(log2(high));
    }
}

static void fit(const bt_perf_chart *chart, double top, axis *x, axis *y)
{
    double low_x = DBL_MAX, high_x = -DBL_MAX, low_y = DBL_MAX, high_y = -DBL_MAX;
    for (uint32_t s = 0; s < chart->n_series; s++) {
        const bt_perf_series *series = &chart->series[s];
        for (uint32_t i = 0; i < series->n; i++) {
            if (!is_shown(chart, series->x[i], series->y[i]))
                continue;
            low_x = fmin(low_x, series->x[i]);
            high_x = fmax(high_x, series->x[i]);
            low_y = fmin(low_y, series->y[i]);
            high_y = fmax(high_y, series->y[i]);
        }
    }
    *x = (axis){.scale = chart->x_scale, .at_low = LEFT, .at_high = WIDTH - RIGHT};
    *y = (axis){.scale = chart->y_scale, .at_low = top + HEIGHT - BOTTOM, .at_high = top + TOP};
    widen(x, low_x, high_x);
    widen(y, low_y, high_y);
}

static void put_text(bt_strbuf *out, double x, double y, const char *more, const char *text)
{
    bt_strbuf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, more);
    for (; *text != '\0'; text++) {
        if (*text == '<' || *text == '>' || *text == '&')
            bt_strbuf_printf(out, "&#%d;", *text);
        else
            bt_strbuf_putc(out, *text);
    }
    bt_strbuf_puts(out, "</text>\n");
}

static void format_tick(bt_perf_scale scale, double value, char *text, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    for (; scale == BT_PERF_LOG_BYTES && value >= 1024 && unit < 4; unit++)
        value /= 1024;
    if (scale == BT_PERF_LOG_BYTES)
        snprintf(text, size, "%.4g %s", value, units[unit]);
    else
        snprintf(text, size, "%.6g", value);
}

static void put_tick(bt_strbuf *out, const axis *a, const axis *other, bool is_x, double value)
{
    char text[32];
    double at = place(a, value);
    format_tick(a->scale, value, text, sizeof(text));
    if (is_x) {
        bt_strbuf_printf(out, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>\n", at, other->at_low,
                         other->at_high);
        put_text(out, at, other->at_low + 18, "text-anchor=\"middle\"", text);
    } else {
        bt_strbuf_printf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", other->at_low, at,
                         other->at_high);
        put_text(out, other->at_low - 8, at + 4, "text-anchor=\"end\"", text);
    }
}

static void put_ticks(bt_strbuf *out, const axis *a, const axis *other, bool is_x)
{
    static const double steps[] = {1, 2, 5};
    if (a->scale == BT_PERF_LINEAR) {
        double step = linear_step(a->high - a->low);
        for (int i = 0; a->low + i * step <= a->high + step / 2; i++)
            put_tick(out, a, other, is_x, a->low + i * step);
    } else if (a->scale == BT_PERF_LOG_BYTES) {
        for (int i = (int)a->low; i <= (int)a->high; i++)
            put_tick(out, a, other, is_x, exp2(i));
    } else {
        for (int i = (int)floor(a->low); i <= (int)ceil(a->high); i++) {
            for (int s = 0; s < 3; s++) {
                double value = pow(10, i) * steps[s], at = log10(value);
                if (at >= a->low - 1e-9 && at <= a->high + 1e-9)
                    put_tick(out, a, other, is_x, value);
            }
        }
    }
}

static void put_series(bt_strbuf *out, const bt_perf_chart *chart, uint32_t index, const axis *x,
                       const axis *y, double top)
{
    const bt_perf_series *series = &chart->series[index];
    const char *colour = colours[index % N_COLOURS];
    bool marked = series->n <= 40;
    bt_strbuf_printf(out, "<g stroke=\"%s\" fill=\"%s\">\n<path class=\"line\" d=\"", colour,
                     colour);
    char move = 'M';
    for (uint32_t i = 0; i < series->n; i++) {
        if (!is_shown(chart, series->x[i], series->y[i]))
            continue;
        bt_strbuf_printf(out, "%c%.1f %.1f", move, place(x, series->x[i]), place(y, series->y[i]));
        move = 'L';
    }
    bt_strbuf_puts(out, "\"/>\n");
    for (uint32_t i = 0; marked && i < series->n; i++) {
        if (is_shown(chart, series->x[i], series->y[i]))
            bt_strbuf_printf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>\n",
                             place(x, series->x[i]), place(y, series->y[i]));
    }
    double at = top + TOP + 10 + index * LEGEND_LINE;
    bt_strbuf_printf(out, "<path class=\"line\" d=\"M%d %.1fh20\"/>\n</g>\n", WIDTH - RIGHT + 14,
                     at);
    put_text(out, WIDTH - RIGHT + 40, at + 4, "", series->name);
}

static void put_chart(bt_strbuf *out, const bt_perf_chart *chart, double top)
{
    axis x, y;
    char turned[80];
    fit(chart, top, &x, &y);
    double middle_x = (x.at_low + x.at_high) / 2, middle_y = (y.at_low + y.at_high) / 2;
    put_text(out, LEFT, top + 24, "class=\"title\"", chart->title);
    put_ticks(out, &x, &y, true);
    put_ticks(out, &y, &x, false);
    bt_strbuf_printf(out, "<path class=\"axis\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", x.at_low,
                     y.at_high, y.at_low, x.at_high);
    put_text(out, middle_x, y.at_low + 42, "text-anchor=\"middle\"", chart->x_label);
    snprintf(turned, sizeof(turned), "text-anchor=\"middle\" transform=\"rotate(-90 18 %.1f)\"",
             middle_y);
    put_text(out, 18, middle_y, turned, chart->y_label);
    for (uint32_t s = 0; s < chart->n_series; s++)
        put_series(out, chart, s, &x, &y, top);
}

void bt_perf_plot(const bt_perf_chart *charts, uint32_t n_charts, bt_strbuf *out)
{
    unsigned height = HEIGHT * n_charts;
    bt_strbuf_printf(out,
                     "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%u\" "
                     "viewBox=\"0 0 %d %u\" font-family=\"sans-serif\" font-size=\"12\">\n"
                     "<style>.grid{stroke:#ddd;fill:none}.axis{stroke:#333;fill:none}"
                     ".line{fill:none;stroke-width:2}.title{font-size:15px;font-weight:bold}"
                     "</style>\n<rect width=\"%d\" height=\"%u\" fill=\"#fff\"/>\n",
                     WIDTH, height, WIDTH, height, WIDTH, height);
    for (uint32_t i = 0; i < n_charts; i++)
        put_chart(out, &charts[i], (double)i * HEIGHT);
    bt_strbuf_puts(out, "</svg>\n");
}

baton_status bt_perf_plot_file(const bt_perf_chart *charts, uint32_t n_charts, const char *path)
{
    bt_strbuf text = {0};
    bt_perf_plot(charts, n_charts, &text);
    baton_status status = bt_strbuf_status(&text);
    FILE *file = status == BATON_OK ? fopen(path, "w") : NULL;
    bool good = file != NULL && fputs(bt_strbuf_text(&text), file) >= 0;
    int err = errno;
    if (file != NULL && fclose(file) != 0 && good) {
        good = false;
        err = errno;
    }
    bt_strbuf_free(&text);
    if (status == BATON_OK && !good)
        return bt_fail_errno(BATON_ERR_IO, err, "--plot: writing %s", path);
    return status;
}
