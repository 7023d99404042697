/* SPDX-License-Identifier: Apache-2.0 */
#include "core/traceparent.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { FLAG_SAMPLED = 1, TRACE_AT = 3, PARENT_AT = 36, FLAGS_AT = 53 };

/* Lower case only, as the specification has it. */
static bool is_hex(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool is_digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (!is_digit)
            return false;
    }
    return true;
}

static bool is_zero(const char *text, size_t n)
{
    return strspn(text, "0") >= n;
}

static unsigned hex_byte(const char *text)
{
    unsigned value = 0;
    for (int i = 0; i < 2; i++)
        value = value << 4 | (unsigned)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    return value;
}

static bool is_valid(const char *text, size_t n)
{
    if (n < BT_TRACEPARENT_CHARS || !is_hex(text, 2) || hex_byte(text) == 0xff)
        return false;
    bool is_ours = hex_byte(text) == 0;
    if (n > BT_TRACEPARENT_CHARS && (is_ours || text[BT_TRACEPARENT_CHARS] != '-'))
        return false;
    return text[TRACE_AT - 1] == '-' && text[PARENT_AT - 1] == '-' && text[FLAGS_AT - 1] == '-' &&
           is_hex(text + TRACE_AT, BT_TRACE_ID_CHARS) &&
           is_hex(text + PARENT_AT, BT_PARENT_ID_CHARS) && is_hex(text + FLAGS_AT, 2) &&
           !is_zero(text + TRACE_AT, BT_TRACE_ID_CHARS) &&
           !is_zero(text + PARENT_AT, BT_PARENT_ID_CHARS);
}

bool bt_traceparent_read(const char *text, size_t n, bt_traceparent *out)
{
    *out = (bt_traceparent){0};
    if (!is_valid(text, n))
        return false;
    memcpy(out->trace, text + TRACE_AT, BT_TRACE_ID_CHARS);
    memcpy(out->parent, text + PARENT_AT, BT_PARENT_ID_CHARS);
    out->flags = (uint8_t)hex_byte(text + FLAGS_AT);
    return true;
}

/* chars / 2 random bytes that are not all zero. */
static void random_hex(char *text, size_t chars)
{
    uint8_t bytes[BT_TRACE_ID_CHARS / 2];
    do {
        randombytes_buf(bytes, chars / 2);
        sodium_bin2hex(text, chars + 1, bytes, chars / 2);
    } while (is_zero(text, chars));
}

void bt_traceparent_make(bt_traceparent *out)
{
    random_hex(out->trace, BT_TRACE_ID_CHARS);
    random_hex(out->parent, BT_PARENT_ID_CHARS);
    out->flags = FLAG_SAMPLED; /* we keep what we see of it */
}

void bt_traceparent_step(bt_traceparent *trace)
{
    if (trace->trace[0] != 0)
        random_hex(trace->parent, BT_PARENT_ID_CHARS);
}

void bt_traceparent_write(const bt_traceparent *trace, char text[BT_TRACEPARENT_CHARS + 1])
{
    text[0] = 0;
    if (trace->trace[0] != 0)
        snprintf(text, BT_TRACEPARENT_CHARS + 1, "00-%s-%s-%02x", trace->trace, trace->parent,
                 trace->flags);
}
