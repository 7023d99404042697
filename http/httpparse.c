/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpparse.h"

#include "core/alloc.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LINE_START, IN_LINE, EMPTY_LINE_CR, LINE_CR }; /* guard */
enum { MAX_EXTENSION_BYTES = 4096, MAX_CHUNK_FRAME_BYTES = 32, LAST_METHOD = HTTP_SOURCE };

bt_http_headers bt_http_head_list(const bt_http_head *head)
{
    return (bt_http_headers){head->items, head->n_fields};
}

void bt_http_head_free(bt_http_head *head)
{
    bt_free(head->bytes);
    bt_free(head->fields);
    bt_free(head->items);
    *head = (bt_http_head){0};
}

/* The first failure counts. Returns -1, which also stops llhttp. */
__attribute__((format(printf, 4, 5))) static int fail(bt_http_parser *parser, baton_status error,
                                                      unsigned http_status, const char *format, ...)
{
    if (parser->phase == BT_HTTP_PARSE_FAILED)
        return -1;
    parser->phase = BT_HTTP_PARSE_FAILED;
    parser->error = error;
    parser->http_status = http_status;
    va_list args;
    va_start(args, format);
    vsnprintf(parser->text, sizeof(parser->text), format, args);
    va_end(args);
    return -1;
}

static int fail_bad(bt_http_parser *parser, const char *text)
{
    return fail(parser, BATON_ERR_BAD_MESSAGE, 400, "%s", text);
}

static int fail_memory(bt_http_parser *parser)
{
    return fail(parser, BATON_ERR_NO_MEMORY, 503, "out of memory for a message's head");
}

/* Appends to the head's strings; max_head_bytes bounds what can come. */
static int head_append(bt_http_parser *parser, const char *bytes, size_t n)
{
    bt_http_head *head = &parser->head;
    if (head->cap - head->used < n) {
        size_t cap = head->cap != 0 ? head->cap : 512;
        while (cap - head->used < n)
            cap *= 2;
        char *grown = bt_realloc(head->bytes, cap, 1);
        if (grown == NULL)
            return fail_memory(parser);
        head->bytes = grown;
        head->cap = cap;
    }
    if (n > 0)
        memcpy(head->bytes + head->used, bytes, n);
    head->used += n;
    return 0;
}

static int on_target(llhttp_t *llhttp, const char *bytes, size_t n)
{
    return head_append(llhttp->data, bytes, n);
}

static int on_target_complete(llhttp_t *llhttp)
{
    return head_append(llhttp->data, "", 1);
}

static int open_field(bt_http_parser *parser)
{
    bt_http_head *head = &parser->head;
    if (head->n_fields >= parser->max_headers)
        return fail(parser, BATON_ERR_TOO_LARGE, 431, "more than %u headers", parser->max_headers);
    if (head->n_fields == head->cap_fields) {
        uint32_t cap = head->cap_fields != 0 ? head->cap_fields * 2 : 16;
        struct bt_http_field *grown = bt_realloc(head->fields, cap, sizeof(*grown));
        if (grown == NULL)
            return fail_memory(parser);
        head->fields = grown;
        head->cap_fields = cap;
    }
    head->fields[head->n_fields++] = (struct bt_http_field){.name = head->used};
    parser->name_open = true;
    return 0;
}

static int on_name(llhttp_t *llhttp, const char *bytes, size_t n)
{
    bt_http_parser *parser = llhttp->data;
    if (!parser->name_open && open_field(parser) != 0)
        return -1;
    return head_append(parser, bytes, n);
}

static int on_name_complete(llhttp_t *llhttp)
{
    bt_http_parser *parser = llhttp->data;
    bt_http_head *head = &parser->head;
    if (!parser->name_open || head->used == head->fields[head->n_fields - 1].name)
        return fail_bad(parser, "header without a name"); /* llhttp 8 lets ": value" through */
    if (head_append(parser, "", 1) != 0)
        return -1;
    parser->name_open = false;
    parser->value_open = true;
    head->fields[head->n_fields - 1].value = head->used;
    return 0;
}

static int on_value(llhttp_t *llhttp, const char *bytes, size_t n)
{
    return head_append(llhttp->data, bytes, n);
}

static int on_value_complete(llhttp_t *llhttp)
{
    bt_http_parser *parser = llhttp->data;
    bt_http_head *head = &parser->head;
    if (!parser->value_open)
        return fail_bad(parser, "header value without a name");
    size_t start = head->fields[head->n_fields - 1].value;
    while (head->used > start &&
           (head->bytes[head->used - 1] == ' ' || head->bytes[head->used - 1] == '\t'))
        head->used--;
    parser->value_open = false;
    return head_append(parser, "", 1);
}

static int build_list(bt_http_parser *parser)
{
    bt_http_head *head = &parser->head;
    head->items = bt_calloc(head->n_fields, sizeof(*head->items));
    if (head->items == NULL)
        return fail_memory(parser);
    for (uint32_t i = 0; i < head->n_fields; i++) {
        head->items[i].name = head->bytes + head->fields[i].name;
        head->items[i].value = head->bytes + head->fields[i].value;
    }
    return 0;
}

static int check_version(bt_http_parser *parser)
{
    const llhttp_t *llhttp = &parser->llhttp;
    if (llhttp->http_major != 1 || llhttp->http_minor > 1)
        return fail(parser, BATON_ERR_UNSUPPORTED, 505, "wanted HTTP/1.1 or 1.0, found %u.%u",
                    llhttp->http_major, llhttp->http_minor);
    return 0;
}

/* How long the body is must be beyond doubt (RFC 9112, 6). */
static int check_framing(bt_http_parser *parser)
{
    bt_http_headers list = bt_http_head_list(&parser->head);
    size_t n_encodings = bt_http_header_count(list, "transfer-encoding");
    size_t n_lengths = bt_http_header_count(list, "content-length");
    if (n_lengths > 1 || n_encodings > 1 || (n_lengths != 0 && n_encodings != 0))
        return fail_bad(parser, "wanted one Content-Length or Transfer-Encoding, found several");
    if (n_encodings != 0) {
        if (parser->llhttp.http_minor == 0)
            return fail_bad(parser, "Transfer-Encoding in HTTP/1.0");
        if (strcasecmp(bt_http_header_get(list, "transfer-encoding"), "chunked") != 0)
            return fail(parser, BATON_ERR_UNSUPPORTED, 501, "Transfer-Encoding other than chunked");
        parser->chunked = true;
    }
    parser->content_length = n_lengths != 0 ? parser->llhttp.content_length : UINT64_MAX;
    if (n_lengths != 0 && parser->content_length > parser->max_body_bytes)
        return fail(parser, BATON_ERR_TOO_LARGE, 413, "body of %llu bytes, at most %zu are taken",
                    (unsigned long long)parser->content_length, parser->max_body_bytes);
    return 0;
}

static int check_request(bt_http_parser *parser)
{
    bt_http_headers list = bt_http_head_list(&parser->head);
    if (parser->llhttp.method > LAST_METHOD || parser->llhttp.method == HTTP_CONNECT)
        return fail(parser, BATON_ERR_UNSUPPORTED, 501, "unknown method");
    size_t n_hosts = bt_http_header_count(list, "host");
    if (n_hosts > 1 || (n_hosts == 0 && parser->llhttp.http_minor == 1))
        return fail_bad(parser, "wanted one Host header");
    const char *expect = bt_http_header_get(list, "expect");
    if (expect != NULL && strcasecmp(expect, "100-continue") != 0)
        return fail(parser, BATON_ERR_UNSUPPORTED, 417, "unknown expectation");
    parser->expects_continue = expect != NULL && parser->llhttp.http_minor == 1;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    bt_http_parser *parser = llhttp->data;
    bool is_request = llhttp->type == HTTP_REQUEST;
    parser->head_complete = true;
    parser->status = llhttp->status_code;
    if (build_list(parser) != 0 || check_version(parser) != 0 || check_framing(parser) != 0)
        return -1;
    if (is_request && check_request(parser) != 0)
        return -1;
    if (!is_request && parser->status == 101)
        return fail_bad(parser, "protocol switch that nobody asked for");

    /* An Upgrade is never taken, so that the message is an ordinary one (RFC 9110, 7.8). */
    llhttp->upgrade = 0;
    bool no_body = !is_request && (parser->skip_body || parser->status / 100 == 1 ||
                                   parser->status == 204 || parser->status == 304);
    parser->until_eof = !no_body && llhttp_message_needs_eof(llhttp);
    bool wants_alive = llhttp->http_minor == 1 ? !(llhttp->flags & F_CONNECTION_CLOSE)
                                               : (llhttp->flags & F_CONNECTION_KEEP_ALIVE) != 0;
    parser->keep_alive = wants_alive && !parser->until_eof;
    if (!parser->ops->on_head(parser->ctx))
        return fail(parser, BATON_ERR_CANCELED, 500, "%s", "");
    return no_body ? 1 : 0;
}

static int on_body(llhttp_t *llhttp, const char *bytes, size_t n)
{
    bt_http_parser *parser = llhttp->data;
    if (n > parser->max_body_bytes - parser->body_bytes)
        return fail(parser, BATON_ERR_TOO_LARGE, 413, "body beyond %zu bytes",
                    parser->max_body_bytes);
    parser->body_bytes += n;
    if (!parser->ops->on_body(parser->ctx, bytes, n))
        return fail(parser, BATON_ERR_CANCELED, 500, "%s", "");
    return 0;
}

static int on_extension(llhttp_t *llhttp, const char *bytes, size_t n)
{
    (void)bytes;
    bt_http_parser *parser = llhttp->data;
    parser->extension_bytes += n;
    if (parser->extension_bytes > MAX_EXTENSION_BYTES)
        return fail_bad(parser, "chunk extensions are too long");
    return 0;
}

/* Behind the last chunk come trailers, which the guard reads instead of llhttp. */
static int on_chunk_header(llhttp_t *llhttp)
{
    bt_http_parser *parser = llhttp->data;
    parser->n_chunks++;
    if (llhttp->content_length > parser->max_body_bytes - parser->body_bytes)
        return fail(parser, BATON_ERR_TOO_LARGE, 413, "body beyond %zu bytes",
                    parser->max_body_bytes);
    if (llhttp->content_length != 0)
        return 0;
    parser->phase = BT_HTTP_PARSE_TRAILER;
    parser->guard = LINE_START;
    return HPE_PAUSED;
}

static int on_message_complete(llhttp_t *llhttp)
{
    bt_http_parser *parser = llhttp->data;
    parser->phase = BT_HTTP_PARSE_DONE;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_target,
    .on_url_complete = on_target_complete,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

void bt_http_parser_init(bt_http_parser *parser, bool is_response, const bt_http_parser_ops *ops,
                         void *ctx)
{
    *parser = (bt_http_parser){.ops = ops, .ctx = ctx};
    parser->max_head_bytes = parser->max_body_bytes = SIZE_MAX;
    parser->max_headers = UINT32_MAX;
    llhttp_init(&parser->llhttp, is_response ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
    bt_http_parser_reset(parser);
}

void bt_http_parser_reset(bt_http_parser *parser)
{
    llhttp_reset(&parser->llhttp);
    parser->llhttp.data = parser;
    bt_http_head_free(&parser->head);
    parser->phase = BT_HTTP_PARSE_HEAD;
    parser->guard = LINE_START;
    parser->guard_first_line = true;
    parser->name_open = parser->value_open = parser->head_complete = false;
    parser->head_bytes = parser->extension_bytes = 0;
    parser->n_chunks = parser->framing_bytes = 0;
    parser->status = 0;
    parser->keep_alive = parser->chunked = parser->until_eof = parser->expects_continue = false;
    parser->content_length = UINT64_MAX;
    parser->body_bytes = 0;
    parser->error = BATON_OK;
    parser->http_status = 0;
    parser->text[0] = '\0';
}

void bt_http_parser_free(bt_http_parser *parser)
{
    bt_http_head_free(&parser->head);
}

bool bt_http_parser_is_fresh(const bt_http_parser *parser)
{
    return parser->phase == BT_HTTP_PARSE_HEAD && parser->head_bytes == 0;
}

const char *bt_http_parser_method(const bt_http_parser *parser)
{
    return llhttp_method_name((llhttp_method_t)parser->llhttp.method);
}

bt_http_head bt_http_parser_take_head(bt_http_parser *parser)
{
    bt_http_head head = parser->head;
    parser->head = (bt_http_head){0};
    return head;
}

/* One byte of a head or trailer section. True when it ends the section. */
static bool guard_byte(bt_http_parser *parser, char c)
{
    switch (parser->guard) {
    case LINE_START:
        if (c == '\r') {
            parser->guard = EMPTY_LINE_CR;
            return false;
        }
        if (c == ' ' || c == '\t') {
            fail_bad(parser, "line that begins with white space (a folded header)");
            return false;
        }
        /* fallthrough */
    case IN_LINE:
        parser->guard = c == '\r' ? LINE_CR : IN_LINE;
        if (c == '\n')
            fail_bad(parser, "LF without CR");
        else if (c == '\0')
            fail_bad(parser, "zero byte in a header");
        return false;
    default:
        if (c != '\n') {
            fail_bad(parser, "CR without LF");
            return false;
        }
        bool empty = parser->guard == EMPTY_LINE_CR;
        parser->guard = LINE_START;
        /* Empty lines before a message are allowed (RFC 9112, 2.2). */
        bool ends = empty && !parser->guard_first_line;
        parser->guard_first_line = empty && parser->guard_first_line;
        return ends;
    }
}

/* Bytes of [bytes, bytes + n) that belong to the section; *ended when its last one is among them.
 */
static size_t guard_section(bt_http_parser *parser, const char *bytes, size_t n, bool *ended)
{
    size_t room = parser->max_head_bytes - parser->head_bytes;
    for (size_t i = 0; i < n; i++) {
        if (i >= room) {
            fail(parser, BATON_ERR_TOO_LARGE, 431, "head beyond %zu bytes", parser->max_head_bytes);
            return i;
        }
        *ended = guard_byte(parser, bytes[i]);
        if (*ended || parser->phase == BT_HTTP_PARSE_FAILED) {
            parser->head_bytes += i + 1;
            return i + 1;
        }
    }
    parser->head_bytes += n;
    return n;
}

static void fail_llhttp(bt_http_parser *parser, llhttp_errno_t err)
{
    const char *reason = llhttp_get_error_reason(&parser->llhttp);
    const char *at = llhttp_get_error_pos(&parser->llhttp);
    unsigned status = err == HPE_INVALID_VERSION ? 505 : 400;
    if (err == HPE_INVALID_METHOD && at != NULL && *at >= 'A' && *at <= 'Z')
        status = 501; /* a method that we do not know, rather than no HTTP at all */
    fail(parser, BATON_ERR_BAD_MESSAGE, status, "%s (%s)", reason != NULL ? reason : "malformed",
         llhttp_errno_name(err));
}

static size_t execute(bt_http_parser *parser, const char *bytes, size_t n)
{
    llhttp_errno_t err = llhttp_execute(&parser->llhttp, bytes, n);
    if (err == HPE_OK)
        return n;
    if (err != HPE_PAUSED)
        fail_llhttp(parser, err);
    const char *at = llhttp_get_error_pos(&parser->llhttp);
    assert(at >= bytes && at <= bytes + n);
    return (size_t)(at - bytes);
}

static size_t feed_head(bt_http_parser *parser, const char *bytes, size_t n)
{
    bool ended = false;
    size_t used = guard_section(parser, bytes, n, &ended);
    if (parser->phase == BT_HTTP_PARSE_FAILED)
        return used;
    execute(parser, bytes, used);
    if (parser->phase == BT_HTTP_PARSE_HEAD && ended) {
        parser->phase = BT_HTTP_PARSE_BODY;
        if (!parser->head_complete) /* the guard and llhttp must agree on where the head ends */
            fail_bad(parser, "head without an end");
    }
    return used;
}

/* Sizes padded with zeros would let a body go on for ever without growing. */
static size_t feed_body(bt_http_parser *parser, const char *bytes, size_t n)
{
    uint64_t before = parser->body_bytes;
    size_t used = execute(parser, bytes, n);
    if (parser->chunked) {
        uint64_t allowed = MAX_EXTENSION_BYTES + (parser->n_chunks + 1) * MAX_CHUNK_FRAME_BYTES;
        parser->framing_bytes += used - (parser->body_bytes - before);
        if (parser->framing_bytes > allowed)
            fail_bad(parser, "chunk sizes are too long");
    }
    return used;
}

static size_t feed_trailer(bt_http_parser *parser, const char *bytes, size_t n)
{
    bool ended = false;
    size_t used = guard_section(parser, bytes, n, &ended);
    if (ended)
        parser->phase = BT_HTTP_PARSE_DONE;
    return used;
}

size_t bt_http_parser_feed(bt_http_parser *parser, const char *bytes, size_t n)
{
    size_t used = 0;
    while (used < n) {
        switch (parser->phase) {
        case BT_HTTP_PARSE_HEAD:
            used += feed_head(parser, bytes + used, n - used);
            break;
        case BT_HTTP_PARSE_BODY:
            used += feed_body(parser, bytes + used, n - used);
            break;
        case BT_HTTP_PARSE_TRAILER:
            used += feed_trailer(parser, bytes + used, n - used);
            break;
        case BT_HTTP_PARSE_DONE:
        case BT_HTTP_PARSE_FAILED:
            return used;
        }
    }
    return used;
}

void bt_http_parser_finish(bt_http_parser *parser)
{
    if (parser->phase == BT_HTTP_PARSE_BODY && parser->until_eof)
        parser->phase = BT_HTTP_PARSE_DONE;
    else if (parser->phase != BT_HTTP_PARSE_DONE && parser->phase != BT_HTTP_PARSE_FAILED)
        fail(parser, BATON_ERR_CLOSED, 400, "connection closed in the middle of a message");
}
