/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_record.h"

#include "core/alloc.h"

void bt_load_samples_add(bt_load_samples *samples, uint64_t ns)
{
    if (samples->n == samples->capacity) {
        size_t capacity = samples->capacity > 0 ? 2 * samples->capacity : 1024;
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
