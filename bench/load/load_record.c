/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_record.h"

#include "core/alloc.h"

void bt_load_samples_add(bt_load_samples *samples, uint64_t ns)
{
    if (samples->n == samples->capacity) {
        size_t capacity = samples->capacity > 0 ? 2 * samples->capacity : 32;
        uint64_t *grown = bt_realloc(samples->ns, capacity, sizeof(*grown));
        if (grown == NULL) {
            samples->failed = true;
            return;
        }
        samples->ns = grown;
        samples->capacity = capacity;
    }
    samples->ns[samples->n++] = ns;
}

void bt_load_samples_free(bt_load_samples *samples)
{
    bt_free(samples->ns);
    *samples = (bt_load_samples){0};
}

void bt_load_record_free(bt_load_record *record)
{
    bt_load_samples_free(&record->itl);
    bt_strbuf_free(&record->text);
}
