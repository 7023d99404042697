/* SPDX-License-Identifier: Apache-2.0 */
#include "core/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t n_allocs;
static atomic_uint_fast64_t fail_at;

/* True when the allocation now being made is the one that a test wants to fail. Relaxed: the
 * counter orders nothing, and tests that use it allocate from one thread. */
static bool must_fail(void)
{
    uint64_t nth = atomic_fetch_add_explicit(&n_allocs, 1, memory_order_relaxed) + 1;
    uint64_t wanted = atomic_load_explicit(&fail_at, memory_order_relaxed);
    return wanted != 0 && nth == wanted;
}

void *bt_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (!bt_mul_size(n, size, &bytes) || must_fail())
        return NULL;
    return calloc(1, bytes != 0 ? bytes : 1);
}

void *bt_realloc(void *block, size_t n, size_t size)
{
    size_t bytes;
    if (!bt_mul_size(n, size, &bytes) || must_fail())
        return NULL;
    return realloc(block, bytes != 0 ? bytes : 1);
}

char *bt_strdup(const char *text)
{
    return bt_strndup(text, strlen(text));
}

char *bt_strndup(const char *text, size_t n)
{
    size_t length = strnlen(text, n);
    char *copy = bt_calloc(length + 1, 1);
    if (copy != NULL)
        memcpy(copy, text, length);
    return copy;
}

void *bt_aligned_alloc(size_t alignment, size_t bytes)
{
    void *block = NULL;
    if (must_fail() || posix_memalign(&block, alignment, bytes != 0 ? bytes : 1) != 0)
        return NULL;
    return block;
}

void bt_free(void *block)
{
    free(block);
}

void bt_alloc_fail_at(uint64_t nth)
{
    atomic_store_explicit(&n_allocs, 0, memory_order_relaxed);
    atomic_store_explicit(&fail_at, nth, memory_order_relaxed);
}

uint64_t bt_alloc_count(void)
{
    return atomic_load_explicit(&n_allocs, memory_order_relaxed);
}
