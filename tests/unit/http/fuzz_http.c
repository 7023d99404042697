/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz_http.h"

#include "http/httpparse.h"

#include <stdlib.h>
#include <string.h>

/* What was read, as a hash of everything that a user of the parser sees of whole messages. Of a bad
 * one only the failure counts: which of two faults is found first depends on the cuts. */
typedef struct {
    bt_http_parser parser;
    uint64_t hash, whole_hash;
    unsigned n_messages;
    bool failed;
} reader;

static void mix(reader *r, const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++)
        r->hash = (r->hash ^ at[i]) * UINT64_C(0x100000001b3);
}

static bool on_head(void *ctx)
{
    reader *r = ctx;
    bt_http_headers list = bt_http_head_list(&r->parser.head);
    for (size_t i = 0; i < list.n; i++) {
        if (strchr(list.items[i].value, '\n') != NULL || *list.items[i].name == '\0')
            abort();
        mix(r, list.items[i].name, strlen(list.items[i].name));
        mix(r, list.items[i].value, strlen(list.items[i].value) + 1);
    }
    bool two_lengths = bt_http_header_count(list, "content-length") +
                           bt_http_header_count(list, "transfer-encoding") >
                       1;
    if (two_lengths)
        abort();
    return true;
}

static bool on_body(void *ctx, const char *bytes, size_t n)
{
    mix(ctx, bytes, n);
    return true;
}

static const bt_http_parser_ops ops = {on_head, on_body};

static void read_all(reader *r, const uint8_t *data, size_t size, size_t piece, bool is_response)
{
    *r = (reader){.hash = UINT64_C(0xcbf29ce484222325)};
    bt_http_parser_init(&r->parser, is_response, &ops, r);
    r->parser.max_head_bytes = 4096;
    r->parser.max_headers = 32;
    r->parser.max_body_bytes = 4096;
    for (size_t at = 0; at < size;) {
        size_t part = size - at < piece ? size - at : piece;
        at += bt_http_parser_feed(&r->parser, (const char *)data + at, part);
        if (r->parser.phase == BT_HTTP_PARSE_FAILED)
            break;
        if (r->parser.phase == BT_HTTP_PARSE_DONE) {
            mix(r, &r->parser.body_bytes, sizeof(r->parser.body_bytes));
            r->whole_hash = r->hash;
            r->n_messages++;
            bt_http_parser_reset(&r->parser);
        }
    }
    r->failed = r->parser.phase == BT_HTTP_PARSE_FAILED;
    bt_http_parser_free(&r->parser);
}

void fuzz_messages(const uint8_t *data, size_t size, bool is_response)
{
    reader whole, single;
    read_all(&whole, data, size, SIZE_MAX, is_response);
    read_all(&single, data, size, 1, is_response);
    if (whole.whole_hash != single.whole_hash || whole.n_messages != single.n_messages ||
        whole.failed != single.failed)
        abort();
}
