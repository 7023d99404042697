/* SPDX-License-Identifier: Apache-2.0 */
/* A growing text. Writers append without looking; whether memory ran out on the way is asked once,
 * at the end. Zero-initialise it: `bt_strbuf text = {0};`.
 * Thread rule: owner thread. */
#ifndef BT_CORE_STRBUF_H
#define BT_CORE_STRBUF_H
#include <baton/status.h>
#include <stdarg.h>
#include <stdbool.h>

typedef struct {
    char *data; /* [capacity], a 0 after length; owned, NULL at first */
    size_t length, capacity;
    bool failed; /* no memory: what follows is dropped */
} bt_strbuf;

void bt_strbuf_append(bt_strbuf *buf, const void *bytes, size_t n);
void bt_strbuf_puts(bt_strbuf *buf, const char *text);
void bt_strbuf_putc(bt_strbuf *buf, char c);
void bt_strbuf_fill(bt_strbuf *buf, char c, size_t n);
__attribute__((format(printf, 2, 3))) void bt_strbuf_printf(bt_strbuf *buf, const char *format,
                                                            ...);
__attribute__((format(printf, 2, 0))) void bt_strbuf_vprintf(bt_strbuf *buf, const char *format,
                                                             va_list args);
/* UTF-8 text as it stands between the quotes of a double-quoted YAML text: \ " newline, control
 * characters and bytes that are no UTF-8 escaped. Also makes a foreign text fit for a log line. */
void bt_strbuf_escape(bt_strbuf *buf, const char *text);
/* Text as it stands between the quotes of a JSON string; bytes that are no UTF-8 become U+FFFD. */
void bt_strbuf_escape_json(bt_strbuf *buf, const char *text);
/* The text so far; "" when empty. Borrowed until the next append. */
const char *bt_strbuf_text(const bt_strbuf *buf);
/* Errors: NO_MEMORY (the text is incomplete). */
baton_status bt_strbuf_status(const bt_strbuf *buf);
/* Forgets the text and a failure, keeps the memory. */
void bt_strbuf_clear(bt_strbuf *buf);
void bt_strbuf_free(bt_strbuf *buf); /* The buffer is then empty and may be used again. */

#endif
