/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a config.json; what is accepted must pass the check. */
#include <stdint.h>

#include "engine/modelconfig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bt_model_config config;
    if (bt_model_config_parse((const char *)data, size, &config) == BATON_OK &&
        bt_model_config_check(&config) != BATON_OK)
        __builtin_trap();
    return 0;
}
