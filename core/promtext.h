/* SPDX-License-Identifier: Apache-2.0 */
/* Writes counters in Prometheus' text format 0.0.4
 * (prometheus.io/docs/instrumenting/exposition_formats): a family, then its samples.
 *
 *   bt_prom_family(&out, "baton_chunks_total", BT_PROM_COUNTER, "Chunks landed.");
 *   bt_prom_u64(&out, "baton_chunks_total", labels, 1, stats.chunks);
 *
 * Thread rule: owner thread of the buffer. */
#ifndef BT_CORE_PROMTEXT_H
#define BT_CORE_PROMTEXT_H
#include "core/histogram.h"
#include "core/strbuf.h"

/* The content type of an answer that carries the text. */
#define BT_PROM_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

typedef enum { BT_PROM_COUNTER, BT_PROM_GAUGE, BT_PROM_HISTOGRAM } bt_prom_type;

typedef struct {
    const char *name;  /* a valid label name */
    const char *value; /* any text; escaped when written */
} bt_prom_label;

/* How a histogram's values are shown: divided by per_unit, in buckets 2^first to 2^last and +Inf.
 */
typedef struct {
    double per_unit;
    unsigned first, last;
} bt_prom_scale;
extern const bt_prom_scale bt_prom_seconds; /* from nanoseconds; about 1 us to 69 s */
extern const bt_prom_scale bt_prom_bytes;   /* 64 bytes to 64 GiB */

void bt_prom_family(bt_strbuf *out, const char *name, bt_prom_type type, const char *help);
/* One sample. labels[n_labels]; NULL and 0 for none. */
void bt_prom_u64(bt_strbuf *out, const char *name, const bt_prom_label *labels, size_t n_labels,
                 uint64_t value);
void bt_prom_double(bt_strbuf *out, const char *name, const bt_prom_label *labels, size_t n_labels,
                    double value);
/* name_bucket, name_sum and name_count of a snapshot. */
void bt_prom_histogram(bt_strbuf *out, const char *name, const bt_prom_label *labels,
                       size_t n_labels, const bt_histogram *histogram, const bt_prom_scale *scale);

#endif
