/* SPDX-License-Identifier: Apache-2.0 */
#include "core/promtext.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

const bt_prom_scale bt_prom_seconds = {.per_unit = 1e9, .first = 10, .last = 36};
const bt_prom_scale bt_prom_bytes = {.per_unit = 1, .first = 6, .last = 36};

/* Backslash and newline, and in label values the quote: all that the format escapes. */
static void put_escaped(bt_strbuf *out, const char *text, bool quoted)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            bt_strbuf_puts(out, "\\n");
        else if (*text == '\\' || (quoted && *text == '"'))
            bt_strbuf_printf(out, "\\%c", *text);
        else
            bt_strbuf_putc(out, *text);
    }
}

void bt_prom_family(bt_strbuf *out, const char *name, bt_prom_type type, const char *help)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};
    bt_strbuf_printf(out, "# HELP %s ", name);
    put_escaped(out, help, false);
    bt_strbuf_printf(out, "\n# TYPE %s %s\n", name, types[type]);
}

static void put_labels(bt_strbuf *out, const bt_prom_label *labels, size_t n, const char *bound)
{
    if (n == 0 && bound == NULL)
        return;
    bt_strbuf_putc(out, '{');
    for (size_t i = 0; i < n; i++) {
        bt_strbuf_printf(out, "%s%s=\"", i > 0 ? "," : "", labels[i].name);
        put_escaped(out, labels[i].value, true);
        bt_strbuf_putc(out, '"');
    }
    if (bound != NULL)
        bt_strbuf_printf(out, "%sle=\"%s\"", n > 0 ? "," : "", bound);
    bt_strbuf_putc(out, '}');
}

void bt_prom_u64(bt_strbuf *out, const char *name, const bt_prom_label *labels, size_t n_labels,
                 uint64_t value)
{
    bt_strbuf_puts(out, name);
    put_labels(out, labels, n_labels, NULL);
    bt_strbuf_printf(out, " %" PRIu64 "\n", value);
}

void bt_prom_double(bt_strbuf *out, const char *name, const bt_prom_label *labels, size_t n_labels,
                    double value)
{
    bt_strbuf_puts(out, name);
    put_labels(out, labels, n_labels, NULL);
    if (isfinite(value))
        bt_strbuf_printf(out, " %.15g\n", value);
    else
        bt_strbuf_puts(out, isnan(value) ? " NaN\n" : value > 0 ? " +Inf\n" : " -Inf\n");
}

static void put_bucket(bt_strbuf *out, const char *name, const bt_prom_label *labels, size_t n,
                       const char *bound, uint64_t count)
{
    bt_strbuf_printf(out, "%s_bucket", name);
    put_labels(out, labels, n, bound);
    bt_strbuf_printf(out, " %" PRIu64 "\n", count);
}

void bt_prom_histogram(bt_strbuf *out, const char *name, const bt_prom_label *labels,
                       size_t n_labels, const bt_histogram *histogram, const bt_prom_scale *scale)
{
    uint64_t count = 0;
    char bound[32];
    for (unsigned i = 0; i <= scale->last; i++) {
        count += histogram->buckets[i];
        if (i < scale->first)
            continue;

        snprintf(bound, sizeof(bound), "%.10g", (double)bt_histogram_bound(i) / scale->per_unit);
        put_bucket(out, name, labels, n_labels, bound, count);
    }
    count = bt_histogram_count(histogram);
    put_bucket(out, name, labels, n_labels, "+Inf", count);
    bt_strbuf_printf(out, "%s_sum", name);
    put_labels(out, labels, n_labels, NULL);
    bt_strbuf_printf(out, " %.15g\n%s_count", (double)histogram->sum / scale->per_unit, name);
    put_labels(out, labels, n_labels, NULL);
    bt_strbuf_printf(out, " %" PRIu64 "\n", count);
}
