/* SPDX-License-Identifier: Apache-2.0 */
/* W3C Trace Context: the `traceparent` that names one request from the client on, through proxy,
 * engines and libraries (https://www.w3.org/TR/trace-context/, version 00).
 *
 *   00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
 *      trace id                         parent id        flags
 *
 * Thread rule: any thread. */
#ifndef BT_CORE_TRACEPARENT_H
#define BT_CORE_TRACEPARENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BT_TRACE_ID_CHARS = 32, BT_PARENT_ID_CHARS = 16, BT_TRACEPARENT_CHARS = 55 };

typedef struct {
    char trace[BT_TRACE_ID_CHARS + 1];   /* "": none */
    char parent[BT_PARENT_ID_CHARS + 1]; /* of whoever sent it */
    uint8_t flags;
} bt_traceparent;

/* False, and *out is none, when text[n] is not valid: then it must be ignored. Of versions above 00
 * that which version 00 knows is taken. */
bool bt_traceparent_read(const char *text, size_t n, bt_traceparent *out);
/* A fresh trace, with a parent id. */
void bt_traceparent_make(bt_traceparent *out);
/* The same trace, said by us: a fresh parent id. */
void bt_traceparent_step(bt_traceparent *trace);
/* As version 00; "" when there is none. */
void bt_traceparent_write(const bt_traceparent *trace, char text[BT_TRACEPARENT_CHARS + 1]);

#endif
