/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_kernels.h"

#include <stdio.h>

int bench_gpu(uint32_t n_rounds)
{
    (void)n_rounds;
    printf("skipped: this build has no CUDA kernels; configure with -DBATON_CUDA=ON\n");
    return 77;
}
