/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_kernels.h"

static const bt_kv_kernels *given;

const bt_kv_kernels *bt_kv_kernels_get(const bt_cuda_driver *driver)
{
    return driver->is_given ? given : bt_kv_kernels_built();
}

void bt_kv_kernels_use(const bt_kv_kernels *kernels)
{
    given = kernels;
}
