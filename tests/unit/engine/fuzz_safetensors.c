/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file; of one that is accepted, all data is read. */
#include <stdint.h>

#include "engine/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bt_safetensors *file;
    if (bt_safetensors_parse(data, size, "input", &file) < 0)
        return 0;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < bt_safetensors_count(file); i++) {
        const bt_tensor *tensor = bt_safetensors_at(file, i);
        if (bt_safetensors_find(file, tensor->name) != tensor)
            __builtin_trap();
        for (uint64_t byte = 0; byte < tensor->n_bytes; byte++)
            sum = (uint8_t)(sum + tensor->data[byte]);
    }
    bt_safetensors_close(file);
    return 0;
}
