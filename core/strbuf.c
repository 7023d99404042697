/* SPDX-License-Identifier: Apache-2.0 */
#include "core/strbuf.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <stdio.h>
#include <string.h>

enum { FIRST_CAPACITY = 128 };

/* Room for n more bytes and the final 0. */
static bool reserve(bt_strbuf *buf, size_t n)
{
    size_t needed;
    if (buf->failed)
        return false;
    if (!bt_add_size(buf->length, n, &needed) || !bt_add_size(needed, 1, &needed))
        goto failed;
    if (needed <= buf->capacity)
        return true;
    size_t capacity = buf->capacity != 0 ? buf->capacity : FIRST_CAPACITY;
    while (capacity < needed) {
        if (!bt_mul_size(capacity, 2, &capacity))
            goto failed;
    }
    char *data = bt_realloc(buf->data, capacity, 1);
    if (data == NULL)
        goto failed;
    buf->data = data;
    buf->capacity = capacity;
    return true;

failed:
    buf->failed = true;
    return false;
}

void bt_strbuf_append(bt_strbuf *buf, const void *bytes, size_t n)
{
    if (n == 0 || !reserve(buf, n))
        return;
    memcpy(buf->data + buf->length, bytes, n);
    buf->length += n;
    buf->data[buf->length] = '\0';
}

void bt_strbuf_puts(bt_strbuf *buf, const char *text)
{
    bt_strbuf_append(buf, text, strlen(text));
}

void bt_strbuf_putc(bt_strbuf *buf, char c)
{
    bt_strbuf_append(buf, &c, 1);
}

void bt_strbuf_fill(bt_strbuf *buf, char c, size_t n)
{
    if (n == 0 || !reserve(buf, n))
        return;
    memset(buf->data + buf->length, c, n);
    buf->length += n;
    buf->data[buf->length] = '\0';
}

void bt_strbuf_printf(bt_strbuf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bt_strbuf_vprintf(buf, format, args);
    va_end(args);
}

void bt_strbuf_vprintf(bt_strbuf *buf, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0) {
        buf->failed = true;
    } else if (n > 0 && reserve(buf, (size_t)n)) {
        vsnprintf(buf->data + buf->length, (size_t)n + 1, format, again);
        buf->length += (size_t)n;
    }
    va_end(again);
}

void bt_strbuf_escape(bt_strbuf *buf, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\')
            bt_strbuf_printf(buf, "\\%c", c);
        else if (c == '\n')
            bt_strbuf_puts(buf, "\\n");
        else if (c < 0x20 || c == 0x7f)
            bt_strbuf_printf(buf, "\\x%02x", c);
        else
            bt_strbuf_append(buf, at, 1);
    }
}

const char *bt_strbuf_text(const bt_strbuf *buf)
{
    return buf->length != 0 ? buf->data : "";
}

baton_status bt_strbuf_status(const bt_strbuf *buf)
{
    if (buf->failed)
        return bt_fail(BATON_ERR_NO_MEMORY, "text: wanted more than %zu bytes", buf->capacity);
    return BATON_OK;
}

void bt_strbuf_clear(bt_strbuf *buf)
{
    buf->length = 0;
    buf->failed = false;
}

void bt_strbuf_free(bt_strbuf *buf)
{
    bt_free(buf->data);
    *buf = (bt_strbuf){0};
}
