/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU's kernels for the fake driver (fakecuda.h): launches on its streams that play the bodies
 * of the real ones (kernels/kv_gpu.h) when they run, over the bytes of its memory. A kernel that
 * touches what is not the device's breaks the context.
 * Thread rule: as fakecuda.h. */
#ifndef BT_TESTS_FAKEKERNELS_H
#define BT_TESTS_FAKEKERNELS_H
#include "kernels/kv_kernels.h"
#include "support/fakecuda.h"

/* Launches of the library go to this GPU from now on. NULL: it has no kernels. */
void bt_fakekernels_use(const fakecuda *gpu);
/* Launches since then that took a digest, or those of tiles. */
uint64_t bt_fakekernels_digests(void);

#endif
