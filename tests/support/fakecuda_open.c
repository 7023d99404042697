/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fakecuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

const fakecuda *bt_fakecuda_open(void)
{
    static const fakecuda *control;
    if (control == NULL) {
        void *library = dlopen(BT_FAKECUDA_PATH, RTLD_NOW | RTLD_LOCAL);
        control = library != NULL ? dlsym(library, "fakecuda_control") : NULL;
    }
    if (control == NULL) {
        fprintf(stderr, "fakecuda: %s\n", dlerror());
        abort();
    }
    control->reset();
    bt_cuda_driver_use(BT_FAKECUDA_PATH);
    return control;
}
