/* SPDX-License-Identifier: Apache-2.0 */
/* The SIMD levels of bt_ops, for tensorops.c alone; NULL where the CPU or the build lacks one.
 *
 * Thread rule: any thread. */
#ifndef BT_ENGINE_TENSOROPS_SIMD_H
#define BT_ENGINE_TENSOROPS_SIMD_H
#include "engine/tensorops.h"

const bt_ops *bt_ops_avx2(void);
const bt_ops *bt_ops_avx512(void);

#endif
