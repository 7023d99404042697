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

/* Bytes of the UTF-8 character at text, whose code point goes to *code; 0 where there is none. */
static size_t utf8_at(const char *text, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char c = (unsigned char)text[0];
    size_t n = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
    if (n == 0)
        return 0;
    uint32_t value = n == 1 ? c : c & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        unsigned char next = (unsigned char)text[i];
        if (next >> 6 != 2) /* the final 0 too */
            return 0;
        value = value << 6 | (next & 0x3f);
    }
    if (value < least[n] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code = value;
    return n;
}

/* Control characters, line breaks beyond newline, byte order marks: what YAML does not take as it
 * is, and what a log line must not hold. */
static bool must_escape(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           code == 0xfeff || code == 0xfffe || code == 0xffff;
}

void bt_strbuf_escape(bt_strbuf *buf, const char *text)
{
    while (*text != '\0') {
        uint32_t code = (unsigned char)*text;
        size_t n = utf8_at(text, &code);
        if (*text == '"' || *text == '\\')
            bt_strbuf_printf(buf, "\\%c", *text);
        else if (*text == '\n')
            bt_strbuf_puts(buf, "\\n");
        else if (n > 0 && !must_escape(code))
            bt_strbuf_append(buf, text, n);
        else
            bt_strbuf_printf(buf, code < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)code);
        text += n > 0 ? n : 1;
    }
}

void bt_strbuf_escape_json(bt_strbuf *buf, const char *text)
{
    while (*text != '\0') {
        uint32_t code = (unsigned char)*text;
        size_t n = utf8_at(text, &code);
        if (*text == '"' || *text == '\\')
            bt_strbuf_printf(buf, "\\%c", *text);
        else if (n == 0)
            bt_strbuf_puts(buf, "\\ufffd");
        else if (must_escape(code))
            bt_strbuf_printf(buf, "\\u%04x", (unsigned)code);
        else
            bt_strbuf_append(buf, text, n);
        text += n > 0 ? n : 1;
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
