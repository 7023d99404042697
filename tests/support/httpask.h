/* SPDX-License-Identifier: Apache-2.0 */
/* A blocking HTTP client for tests: one request per connection, on loopback. It fails the test by
 * status 0, never by an assertion, so that threads other than the test's may use it. */
#ifndef BT_TESTS_HTTPASK_H
#define BT_TESTS_HTTPASK_H
#include "core/strbuf.h"

typedef struct {
    unsigned status; /* 0: no answer */
    bt_strbuf head;  /* with the status line */
    bt_strbuf body;  /* chunks joined */
    bool complete;   /* the body came to its proper end */
} bt_http_answer;

/* method: "GET" or "POST"; body NULL: none. */
void bt_http_call(uint16_t port, const char *method, const char *path, const char *body,
                  bt_http_answer *answer);
/* Sends the request and reads until `text` has been seen in the answer (NULL: reads nothing); the
 * socket, to be closed by the caller, or -1. */
int bt_http_open(uint16_t port, const char *method, const char *path, const char *body,
                 const char *text);
/* Reads the whole answer of a request that bt_http_open sent with text NULL, and closes fd. */
void bt_http_finish(int fd, bt_http_answer *answer);
/* Sends bytes as they are; the answer is for bt_http_finish. -1: nobody listens. */
int bt_http_send(uint16_t port, const void *bytes, size_t n);
/* As bt_http_call with bytes that need not be HTTP. */
void bt_http_raw(uint16_t port, const void *bytes, size_t n, bt_http_answer *answer);
void bt_http_answer_clear(bt_http_answer *answer);

#endif
