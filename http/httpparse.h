/* SPDX-License-Identifier: Apache-2.0 */
/* Reads one HTTP/1.x message at a time, request or response: llhttp in strict mode, and in front of
 * it a guard that refuses what llhttp 8 still lets through (folded headers, CR without LF), since
 * another reader of the same bytes might see other headers. Trailers are checked and dropped.
 *
 *   HEAD --on_head--> BODY --on_body...--> [TRAILER] --> DONE --reset--> HEAD
 *
 * Thread rule: owner thread. For use inside the http folder. */
#ifndef BT_HTTP_HTTPPARSE_H
#define BT_HTTP_HTTPPARSE_H
#include "http/httpmsg.h"

#include <llhttp.h>

/* The strings of one head. */
typedef struct {
    char *bytes; /* target, then name and value of every header, each 0-terminated; owned */
    size_t used, cap;
    struct bt_http_field {
        size_t name, value; /* offsets into bytes */
    } * fields;             /* [n_fields]; owned */
    uint32_t n_fields, cap_fields;
    bt_http_header
        *items; /* [n_fields], pointers into bytes; owned; set when the head is complete */
} bt_http_head;
bt_http_headers bt_http_head_list(const bt_http_head *head);
void bt_http_head_free(bt_http_head *head);

typedef enum {
    BT_HTTP_PARSE_HEAD,
    BT_HTTP_PARSE_BODY,
    BT_HTTP_PARSE_TRAILER,
    BT_HTTP_PARSE_DONE,
    BT_HTTP_PARSE_FAILED,
} bt_http_parse_phase;

/* Return false to stop: the parser then fails without a text of its own. */
typedef struct {
    bool (*on_head)(void *ctx); /* the fields below are set */
    bool (*on_body)(void *ctx, const char *bytes, size_t n);
} bt_http_parser_ops;

typedef struct {
    llhttp_t llhttp;
    const bt_http_parser_ops *ops;
    void *ctx;
    size_t max_head_bytes, max_body_bytes; /* set by the owner after init, as is max_headers */
    uint32_t max_headers;
    bool skip_body; /* responses: the request was HEAD; set by the owner before the head comes */

    bt_http_parse_phase phase;
    uint8_t guard; /* where in a line the guard is */
    bool guard_first_line, name_open, value_open, head_complete;
    size_t head_bytes, extension_bytes;
    uint64_t n_chunks, framing_bytes; /* of a chunked body: what is not the body */

    bt_http_head head;
    unsigned status; /* responses */
    bool keep_alive, chunked, until_eof, expects_continue;
    uint64_t content_length; /* UINT64_MAX: none given */
    uint64_t body_bytes;     /* so far */

    baton_status error;   /* FAILED: BAD_MESSAGE, TOO_LARGE, UNSUPPORTED, NO_MEMORY */
    unsigned http_status; /* FAILED: what to answer, 400, 413, 431, 501, 505 or 500 */
    char text[160];       /* FAILED: what was wrong; "" when a callback stopped it */
} bt_http_parser;

void bt_http_parser_init(bt_http_parser *parser, bool is_response, const bt_http_parser_ops *ops,
                         void *ctx);
/* Ready for the next message; what it holds of the last one is freed. */
void bt_http_parser_reset(bt_http_parser *parser);
void bt_http_parser_free(bt_http_parser *parser);
/* Reads up to n bytes, at most to the end of the message; returns how many were used. Look at
 * phase: DONE, FAILED, or all were used and more are wanted. */
size_t bt_http_parser_feed(bt_http_parser *parser, const char *bytes, size_t n);
/* No more bytes will come: phase becomes DONE if that ends a response well, otherwise FAILED. */
void bt_http_parser_finish(bt_http_parser *parser);
/* No byte of the next message has been seen. */
bool bt_http_parser_is_fresh(const bt_http_parser *parser);
/* "POST"; requests whose head is complete. */
const char *bt_http_parser_method(const bt_http_parser *parser);
/* Moves the head's strings to the caller, who frees them with bt_http_head_free. */
bt_http_head bt_http_parser_take_head(bt_http_parser *parser);

#endif
