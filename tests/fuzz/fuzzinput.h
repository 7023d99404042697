/* SPDX-License-Identifier: Apache-2.0 */
/* What fuzz targets share: reading the input piece by piece, a check that holds in every build, and
 * a log that goes nowhere. Thread rule: the target's thread. */
#ifndef BT_TESTS_FUZZINPUT_H
#define BT_TESTS_FUZZINPUT_H
#include <baton/log.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    const uint8_t *at;
    size_t n; /* bytes left */
} fuzz_input;

static inline void fuzz_must(bool condition)
{
    if (!condition)
        abort();
}

/* 0 when the input is used up. */
static inline uint8_t fuzz_take(fuzz_input *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->at++;
}

static inline uint16_t fuzz_take_u16(fuzz_input *in)
{
    uint16_t low = fuzz_take(in);
    return (uint16_t)(low | fuzz_take(in) << 8);
}

static inline void fuzz_drop_line(void *ctx, baton_log_level level, const char *line)
{
    (void)ctx, (void)level, (void)line;
}

#endif
