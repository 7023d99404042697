/* SPDX-License-Identifier: Apache-2.0 */
/* All heap use of the project, so that tests can make the nth allocation fail, and the checked
 * arithmetic that sizes from a peer, a file or a config need before they get here.
 * Thread rule: any thread; bt_alloc_fail_at only in tests. */
#ifndef BT_CORE_ALLOC_H
#define BT_CORE_ALLOC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory for n objects of size bytes; NULL when there is none or n * size overflows.
 * Owned by the caller, until bt_free. n or size 0 gives a valid pointer. */
void *bt_calloc(size_t n, size_t size);
/* As realloc for n objects of size bytes; new bytes are NOT zeroed; on NULL the old block lives. */
void *bt_realloc(void *block, size_t n, size_t size);
/* A copy of text, or NULL. */
char *bt_strdup(const char *text);
/* A copy of the first n bytes of text with a terminating 0, or NULL. */
char *bt_strndup(const char *text, size_t n);
/* Memory aligned to alignment (a power of two), not zeroed; freed with bt_free. */
void *bt_aligned_alloc(size_t alignment, size_t bytes);
/* NULL is allowed. */
void bt_free(void *block);

/* Makes the nth allocation from now on fail, and only that (1 = the next); 0 turns it off. */
void bt_alloc_fail_at(uint64_t nth);
/* Allocations since the last bt_alloc_fail_at call. */
uint64_t bt_alloc_count(void);

/* *out = a op b; false on overflow, with *out unspecified. */
static inline bool bt_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool bt_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline bool bt_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool bt_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

#endif
