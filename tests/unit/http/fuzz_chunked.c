/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a chunked body (RFC 9112, 7.1), against a plain reader of the same: what is surely a
 * body, surely none, or surely not all of one, the parser must see alike, in pieces of any size; of
 * the rest (odd extensions, trailers) only that pieces do not matter. First byte: the pieces; its
 * highest bit: a request's body or an answer's. */
#include "http/httpparse.h"
#include "fuzz/fuzzinput.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BODY = 2048, MAX_DIGITS = 8, MAX_EXTENSION = 32 };

typedef enum { GOOD, BAD, CUT, UNSURE } verdict;

typedef struct {
    size_t used, n;
    char body[MAX_BODY];
} outcome;

typedef struct {
    const char *at;
    size_t n, used;
} text;

static int peek(const text *t)
{
    return t->used < t->n ? (unsigned char)t->at[t->used] : -1;
}

static int digit(int c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c > 0 ? strchr(digits, c >= 'A' && c <= 'F' ? c + 'a' - 'A' : c) : NULL;
    return found != NULL ? (int)(found - digits) : -1;
}

static verdict read_end_of_line(text *t)
{
    static const char end[] = "\r\n";
    for (int i = 0; i < 2; i++, t->used++) {
        if (peek(t) != end[i])
            return peek(t) < 0 ? CUT : BAD;
    }
    return GOOD;
}

static bool is_plain(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Behind the size: nothing, or ;name=value in letters and digits. */
static verdict read_extension(text *t)
{
    size_t n_name = 0, n_value = 0;
    if (peek(t) != ';')
        return GOOD;
    for (t->used++; is_plain(peek(t)); t->used++)
        n_name++;
    if (peek(t) == '=') {
        for (t->used++; is_plain(peek(t)); t->used++)
            n_value++;
        if (n_value == 0)
            return UNSURE;
    }
    return n_name == 0 || n_name + n_value > MAX_EXTENSION || peek(t) != '\r' ? UNSURE : GOOD;
}

static verdict read_size(text *t, size_t *size)
{
    size_t n_digits = 0;
    for (*size = 0; digit(peek(t)) >= 0; t->used++) {
        if (++n_digits > MAX_DIGITS)
            return UNSURE;
        *size = *size * 16 + (size_t)digit(peek(t));
    }
    if (peek(t) < 0)
        return CUT;
    if (n_digits == 0)
        return BAD;
    if (peek(t) == ' ' || peek(t) == '\t')
        return UNSURE;
    verdict found = read_extension(t);
    return found == GOOD ? read_end_of_line(t) : found;
}

static verdict read_plainly(text *t, outcome *out)
{
    verdict found;
    size_t size;
    while ((found = read_size(t, &size)) == GOOD) {
        if (size == 0)
            return peek(t) == '\r' || peek(t) < 0 ? read_end_of_line(t) : UNSURE;
        if (size > MAX_BODY - out->n)
            return UNSURE; /* when this is noticed, is the parser's choice */
        size_t n = size < t->n - t->used ? size : t->n - t->used;
        memcpy(out->body + out->n, t->at + t->used, n);
        out->n += n;
        t->used += n;
        if (n < size)
            return CUT;
        found = read_end_of_line(t);
        if (found != GOOD)
            return found;
    }
    return found;
}

static bool on_head(void *ctx)
{
    (void)ctx;
    return true;
}

static bool on_body(void *ctx, const char *bytes, size_t n)
{
    outcome *out = ctx;
    fuzz_must(n <= MAX_BODY - out->n);
    memcpy(out->body + out->n, bytes, n);
    out->n += n;
    return true;
}

static bt_http_parse_phase parse(const char *bytes, size_t n, size_t piece, bool is_response,
                                 outcome *out)
{
    static const bt_http_parser_ops ops = {on_head, on_body};
    static const char request[] =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char answer[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const char *head = is_response ? answer : request;
    bt_http_parser parser;
    *out = (outcome){0};
    bt_http_parser_init(&parser, is_response, &ops, out);
    parser.max_head_bytes = 4096;
    parser.max_headers = 32;
    parser.max_body_bytes = MAX_BODY;
    fuzz_must(bt_http_parser_feed(&parser, head, strlen(head)) == strlen(head));
    fuzz_must(parser.phase == BT_HTTP_PARSE_BODY);
    while (out->used < n && parser.phase < BT_HTTP_PARSE_DONE) {
        size_t part = n - out->used < piece ? n - out->used : piece;
        out->used += bt_http_parser_feed(&parser, bytes + out->used, part);
    }
    bt_http_parse_phase phase = parser.phase;
    fuzz_must(phase == BT_HTTP_PARSE_FAILED || parser.body_bytes == out->n);
    bt_http_parser_free(&parser);
    return phase;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static outcome plain, whole, pieces;
    if (size == 0)
        return 0;
    text t = {.at = (const char *)data + 1, .n = size - 1};
    bool is_response = (data[0] & 128) != 0;
    size_t piece = 1 + (data[0] & 127);
    plain = (outcome){0};
    verdict found = read_plainly(&t, &plain);
    bt_http_parse_phase phase = parse(t.at, t.n, SIZE_MAX, is_response, &whole);
    fuzz_must(parse(t.at, t.n, piece, is_response, &pieces) == phase);
    if (phase == BT_HTTP_PARSE_DONE)
        fuzz_must(pieces.used == whole.used && pieces.n == whole.n &&
                  memcmp(pieces.body, whole.body, whole.n) == 0);
    if (found == GOOD)
        fuzz_must(phase == BT_HTTP_PARSE_DONE && whole.used == t.used);
    else if (found == BAD)
        fuzz_must(phase == BT_HTTP_PARSE_FAILED);
    else if (found == CUT)
        fuzz_must(phase < BT_HTTP_PARSE_DONE && whole.used == t.n);
    if (found == GOOD || found == CUT)
        fuzz_must(whole.n == plain.n && memcmp(whole.body, plain.body, plain.n) == 0);
    return 0;
}
